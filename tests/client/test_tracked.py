"""What can be tracked; and for what cannot, an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    AutoIncrementKey,
    ConfigurationError,
    MemorySharedLog,
    NotASyncModel,
    SharedLogError,
    Sync,
    SyncModel,
    uuid7,
)
from sharedlog.models.registry import Registry

from .conftest import OpenDevice
from .shop import MODELS, Article, ArticleTag, Note, NoteTag, Price, Tag


def sync_of(*models: Any) -> Sync:
    database = peewee.SqliteDatabase(":memory:")
    return Sync(database, models, shared_log=MemorySharedLog())


def says(error: SharedLogError, *words: str) -> None:
    text = str(error)
    assert error.hint and error.hint in text
    for word in words:
        assert word in text, text


# -- models that cannot be tracked -------------------------------------------------------


def plain() -> Any:
    class Thing(peewee.Model):
        code = peewee.CharField(primary_key=True)

    return Thing


def numbered() -> Any:
    class Thing(SyncModel):
        id = peewee.AutoField()  # type: ignore[assignment]

    return Thing


def big_numbered() -> Any:
    class Thing(SyncModel):
        number = peewee.BigAutoField()

    return Thing


def numbered_by_a_parent() -> Any:
    class Parent(peewee.Model):
        pass

    class Thing(SyncModel):
        parent = peewee.ForeignKeyField(Parent, primary_key=True)

    return Thing


def numbered_by_a_part() -> Any:
    class Parent(peewee.Model):
        pass

    class Thing(SyncModel):
        parent = peewee.ForeignKeyField(Parent)
        turn = peewee.IntegerField()

        class Meta:
            primary_key = peewee.CompositeKey("parent", "turn")

    return Thing


def without_a_key() -> Any:
    class Thing(SyncModel):
        id = None  # type: ignore[assignment]
        name = peewee.TextField()

        class Meta:
            primary_key = False

    return Thing


def no_model() -> Any:
    return "Thing"


def an_instance() -> Any:
    class Thing(SyncModel):
        pass

    return Thing()


BAD: list[tuple[Callable[[], Any], type[ConfigurationError], str, tuple[str, ...]]] = [
    (plain, NotASyncModel, "NOT_A_SYNC_MODEL", ("Thing", "class Thing(SyncModel)")),
    (numbered, AutoIncrementKey, "AUTO_INCREMENT_KEY", ("Thing.id", "two devices", "uuid7")),
    (big_numbered, AutoIncrementKey, "AUTO_INCREMENT_KEY", ("Thing.number", "Remove 'number'")),
    (numbered_by_a_parent, AutoIncrementKey, "AUTO_INCREMENT_KEY", ("Thing.parent", "UUID")),
    (numbered_by_a_part, AutoIncrementKey, "AUTO_INCREMENT_KEY", ("Thing.parent", "UUID")),
    (without_a_key, ConfigurationError, "CONFIGURATION", ("no primary key", "primary_key = False")),
    (no_model, NotASyncModel, "NOT_A_SYNC_MODEL", ("'Thing'", "[Note, Tag")),
    (an_instance, NotASyncModel, "NOT_A_SYNC_MODEL", ("[Note, Tag",)),
]


@pytest.mark.parametrize(("make", "error", "code", "words"), BAD)
def test_what_cannot_be_tracked_is_refused_with_advice(
    make: Callable[[], Any], error: type[ConfigurationError], code: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        sync_of(make())
    assert caught.value.code == code
    says(caught.value, *words)


def test_two_models_of_one_table_are_refused() -> None:
    class Thing(SyncModel):
        name = peewee.TextField()

    class Same(SyncModel):
        class Meta:
            table_name = "thing"

    with pytest.raises(ConfigurationError, match=r"Thing and Same both use the table 'thing'"):
        sync_of(Thing, Same)
    assert len(sync_of(Thing, Thing).registry) == 1


def test_a_reference_to_what_a_database_numbers_is_refused() -> None:
    class Parent(SyncModel):
        pass

    class Other(SyncModel):
        parents = peewee.ManyToManyField(Parent)

    pair = Other.parents.get_through_model()

    class Thing(SyncModel):
        pair_id = peewee.ForeignKeyField(pair)

    with pytest.raises(AutoIncrementKey, match=r"Thing\.pair_id refers to") as caught:
        sync_of(Parent, Other, Thing)
    says(caught.value, "another number on each device", "Refer to")


def test_a_reference_to_a_numbered_table_of_the_device_is_refused() -> None:
    class Customer(peewee.Model):
        pass

    class Order(SyncModel):
        customer = peewee.ForeignKeyField(Customer)

    with pytest.raises(AutoIncrementKey, match=r"Order\.customer refers to Customer\.id") as caught:
        sync_of(Order)
    says(
        caught.value, "another row", "give Customer to Sync", "id = IntegerField(primary_key=True)"
    )


def test_a_reference_to_a_table_with_keys_of_its_own_is_not() -> None:
    class Country(peewee.Model):
        number = peewee.IntegerField(primary_key=True)

    class City(SyncModel):
        country = peewee.ForeignKeyField(Country)

    assert len(sync_of(City).registry) == 1


def test_no_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="No models") as caught:
        sync_of()
    says(caught.value, "Sync(database, [Note, Tag]")


def test_an_uninitialized_proxy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not initialized") as caught:
        Sync(peewee.DatabaseProxy(), [Tag], shared_log=MemorySharedLog())
    says(caught.value, "initialize(SqliteDatabase")


def test_recording_one_database_twice_is_refused(open_device: OpenDevice) -> None:
    device = open_device(MODELS)
    second = Sync(device.database, MODELS, shared_log=MemorySharedLog())
    with pytest.raises(ConfigurationError, match="recorded already") as caught:
        second.setup()
    says(caught.value, "close()", "one Sync")
    with device:
        Tag.create(name="once")
    assert len(device.log()) == 1
    device.sync.setup()  # idempotent
    device.sync.close()
    with second, device:
        Tag.create(name="twice")
    assert len(device.log()) == 2


# -- keys that SQLite would make ---------------------------------------------------------


class Counted(SyncModel):
    number = peewee.IntegerField(primary_key=True)
    name = peewee.TextField(default="")


def insert() -> Any:
    return Counted.insert(name="a").execute()


def create() -> Any:
    return Counted.create(name="a")


def insert_none() -> Any:
    return Counted.insert_many([{"number": 1}, {"number": None}]).execute()


def replace() -> Any:
    return Counted.replace(name="a").execute()


def upsert() -> Any:
    query = Counted.insert(name="a")
    return query.on_conflict(conflict_target=[Counted.number], update={"name": "b"}).execute()


@pytest.mark.parametrize("write", [insert, create, insert_none, replace, upsert])
def test_sqlite_may_not_number_rows(open_device: OpenDevice, write: Callable[[], Any]) -> None:
    device = open_device([Counted])
    with device:
        with pytest.raises(AutoIncrementKey, match=r"Counted\.number has no value") as caught:
            write()
        says(caught.value, "two devices", "Give each row a key")
        assert device.log() == []
        Counted.create(number=0)
        Counted.create(number=-5)
        assert [entry.pk for entry in device.log()] == [0, -5]


class Point:
    """Which only the driver turns into text."""

    def __conform__(self, protocol: Any) -> str:
        return "1;2"


class PointField(peewee.Field):
    field_type = "TEXT"

    def db_value(self, value: Any) -> Any:
        return Point()


def test_a_value_that_the_driver_makes_is_read_back(open_device: OpenDevice, recorder: str) -> None:
    class Place(SyncModel):
        key = peewee.CharField(primary_key=True)
        point = PointField()

    device = open_device([Place], recorder=recorder)
    with device:
        Place.create(key="a", point=(1, 2))
        Place.insert_many([("b", (1, 2))]).execute()
        Place.update(point=(1, 2)).where(Place.key == "b").execute()
        assert [entry.value for entry in device.log()][:2] == [{"point": "1;2"}] * 2


def test_an_insert_of_no_rows_numbers_none(open_device: OpenDevice, recorder: str) -> None:
    device = open_device([Counted], recorder=recorder)
    with device:
        assert Counted.insert_many([]).execute() is None
        Counted.bulk_create([])
        assert device.log() == []


def test_a_key_that_the_database_makes_by_chance_is_fine(open_device: OpenDevice) -> None:
    class Thing(SyncModel):
        code = peewee.CharField(
            primary_key=True, constraints=[peewee.SQL("DEFAULT (lower(hex(randomblob(16))))")]
        )
        name = peewee.TextField()

    device = open_device([Thing])
    with device:
        Thing.insert(name="a").execute()
        stored = Thing.get()
        assert [(e.operation, e.pk, e.value) for e in device.log()] == [
            ("create", stored.code, {"name": "a"})
        ]
        Thing.update(name="b").where(Thing.code == stored.code).execute()
        assert device.log()[1].value == {"name": "b"}


# -- what is known of a model ------------------------------------------------------------


def registry_of(*models: Any) -> Registry:
    return Registry(peewee.SqliteDatabase(":memory:"), models)


def test_through_models_come_along() -> None:
    names = [tracked.collection for tracked in registry_of(*MODELS)]
    assert names[:7] == ["tag", "note", "comment", "reply", "article", "price", "shelf"]
    assert set(names[7:]) == {"note_tag_through", "article_tag_through"}
    assert [t.collection for t in registry_of(Note)] == ["note"]
    assert [t.collection for t in registry_of(NoteTag, Note, Tag)].count("note_tag_through") == 1


def test_a_through_model_is_known_by_its_pair() -> None:
    tracked = registry_of(Article, Tag).model(ArticleTag)
    assert tracked is not None
    assert [column.name for column in tracked.key] == ["article", "tag"]
    assert tracked.columns == []


def test_a_through_model_of_ones_own(open_device: OpenDevice) -> None:
    deferred: Any = peewee.DeferredThroughModel()

    class Left(SyncModel):
        pass

    class Right(SyncModel):
        lefts: Any = peewee.ManyToManyField(Left, through_model=deferred)

    class Link(SyncModel):
        left = peewee.ForeignKeyField(Left)
        right = peewee.ForeignKeyField(Right)
        weight = peewee.IntegerField(default=1)

    deferred.set_model(Link)
    device = open_device([Left, Right, Link])
    with device:
        right, left = Right.create(), Left.create()
        right.lefts.add(left)
        right.lefts.clear()
    assert [(e.operation, e.collection) for e in device.log()[2:]] == [
        ("create", "link"),
        ("delete", "link"),
    ]


def test_parents_come_before_children() -> None:
    order = [tracked.collection for tracked in registry_of(*reversed(MODELS)).in_order]
    for parent, child in (("tag", "note"), ("note", "comment"), ("comment", "reply")):
        assert order.index(parent) < order.index(child)


def test_names_are_quoted(open_device: OpenDevice) -> None:
    class Odd(SyncModel):
        select = peewee.TextField(column_name='a "quoted" column')
        order = peewee.IntegerField(null=True, column_name="it's")

        class Meta:
            table_name = 'the "table"; --'

    device = open_device([Odd], create=False)
    with device:
        device.database.execute_sql(
            'CREATE TABLE "the ""table""; --" '
            '(id TEXT PRIMARY KEY, "a ""quoted"" column" TEXT, "it\'s" INTEGER)'
        )
        tracked = device.sync.registry.model(Odd)
        assert tracked is not None
        for sql in (tracked.upsert_sql, tracked.update_sql(["select"]), tracked.delete_sql):
            device.database.execute_sql("EXPLAIN " + sql, (None,) * sql.count("?"))


def test_models_of_another_table_of_that_name_are_told_apart(
    open_device: OpenDevice, tmp_path: Path
) -> None:
    class Thing(SyncModel):
        name = peewee.TextField()

    class Elsewhere(peewee.Model):
        name = peewee.TextField()

        class Meta:
            table_name = "thing"
            schema = "other"

    device = open_device([Thing])
    device.database.attach(str(tmp_path / "other.db"), "other")
    with device, Elsewhere.bind_ctx(device.database):
        Elsewhere.create_table()
        Elsewhere.create(name="a")
        other = peewee.Table("thing", ("id", "name"), schema="other").bind(device.database)
        other.update(name="b").execute()
        assert device.log() == []
        Thing.create(id=uuid7(), name="c")
        assert len(device.log()) == 1


def test_a_tracked_table_in_an_attached_database(open_device: OpenDevice, tmp_path: Path) -> None:
    class Thing(SyncModel):
        name = peewee.TextField(unique=True)
        count = peewee.IntegerField(null=True, constraints=[peewee.SQL("DEFAULT 3")])

        class Meta:
            schema = "other"

    device = open_device([Thing], create=False)
    device.database.attach(str(tmp_path / "other.db"), "other")
    with device:
        Thing.create_table()
        Thing.create(name="a")
        Thing.update(name="b").where(Thing.count == 3).execute()
        Thing.replace(name="b", count=5).execute()
        Thing.delete().execute()
    assert [(e.operation, e.value) for e in device.log()] == [
        ("create", {"name": "a", "count": 3}),
        ("modify", {"name": "b"}),
        ("delete", None),
        ("create", {"name": "b", "count": 5}),
        ("delete", None),
    ]


# -- keys that compare otherwise, and unique values that the model does not know ---------


def test_a_key_with_a_collation_names_the_row_that_was_met(open_device: OpenDevice) -> None:
    class Thing(SyncModel):
        code = peewee.CharField(primary_key=True, collation="NOCASE")
        n = peewee.IntegerField(default=0)

    device = open_device([Thing])
    with device:
        Thing.create(code="abc")
        Thing.update(n=1).where(Thing.code == "ABC").execute()
        Thing.insert(code="ABC", n=7).on_conflict(
            conflict_target=[Thing.code], update={Thing.n: 2}
        ).execute()
        Thing.replace(code="aBC", n=3).execute()
        Thing.delete_by_id("ABc")
    assert [(e.operation, e.pk, e.value) for e in device.log()] == [
        ("create", "abc", {"n": 0}),
        ("modify", "abc", {"n": 1}),
        ("modify", "abc", {"n": 2}),
        ("delete", "abc", None),
        ("create", "aBC", {"n": 3}),
        ("delete", "aBC", None),
    ]


def test_replace_displaces_by_indexes_that_only_the_database_knows(
    open_device: OpenDevice,
) -> None:
    class Thing(SyncModel):
        name = peewee.TextField()
        n = peewee.IntegerField(default=0)
        state = peewee.TextField(default="")

    statements = (
        "CREATE UNIQUE INDEX one ON thing (n) WHERE state = 'active'",
        "CREATE UNIQUE INDEX two ON thing (lower(name))",
        "CREATE UNIQUE INDEX three ON thing (name COLLATE NOCASE)",
    )
    for statement in statements:
        device = open_device([Thing])
        with device:
            device.database.execute_sql(statement)
            Thing.create(name="a", n=1, state="active")
            Thing.create(name="b", n=1)
            Thing.replace(name="A", n=1, state="active").execute()
            assert Thing.select().count() == 2
        assert [e.operation for e in device.log()] == ["create", "create", "delete", "create"]
        assert device.log()[2].pk == device.log()[0].pk


def test_a_default_that_only_the_database_knows(open_device: OpenDevice) -> None:
    class Thing(SyncModel):
        name = peewee.TextField(null=True)

    device = open_device([Thing], create=False)
    with device:
        device.database.execute_sql(
            "CREATE TABLE thing (id TEXT NOT NULL PRIMARY KEY, name TEXT DEFAULT 'nobody')"
        )
        Thing.create()
        Thing.create(name=None)
    assert [entry.value for entry in device.log()] == [{"name": "nobody"}, {"name": None}]


def test_a_table_may_be_made_after_recording_began(open_device: OpenDevice) -> None:
    class Thing(SyncModel):
        name = peewee.TextField(null=True)

    device = open_device([Thing], create=False)
    with device:
        with pytest.raises(peewee.OperationalError):
            Thing.create()
        device.database.execute_sql(
            "CREATE TABLE thing (id TEXT NOT NULL PRIMARY KEY, name TEXT DEFAULT 'nobody')"
        )
        Thing.create()
    assert [entry.value for entry in device.log()] == [{"name": "nobody"}]


def test_foreign_keys_that_nobody_enforces_change_nothing(open_device: OpenDevice) -> None:
    device = open_device(MODELS, pragmas={"foreign_keys": 0})
    with device:
        Article.create(code="a", shelf=1, place=1)
        Price.create(article="a", currency="EUR")
        Article.update(code="b").execute()
        Article.delete().execute()
        assert Price.select().count() == 1
    assert [(e.operation, e.collection) for e in device.log()[2:]] == [
        ("delete", "article"),
        ("create", "article"),
        ("delete", "article"),
    ]
