"""References that are equal to what they refer to only by its collation: they refer to it, on
every device, as the database has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, permutations
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.journal.recorder import Capture
from tests.volume import times

from .devices import RECORDERS

FLEETS = times(1)
STEPS = 16
NAMES = ("acme", "ACME", "Acme", "box", "BOX")

KEEPING = (None, "RESTRICT", "NO ACTION")
ON_DELETE = (*KEEPING, "CASCADE", "SET NULL")


class Device:
    """Firms, and people who refer to firms: by the key, or by a unique name `beside` it. Firms
    refer to a land, by its key."""

    def __init__(
        self,
        name: str,
        log: MemorySharedLog,
        now: Callable[[], int],
        on_delete: str | None = None,
        *,
        collation: str | None = "NOCASE",
        beside: bool = False,
        on_update: str | None = None,
        capture: Capture = "signals",
        batch_size: int = 1000,
    ) -> None:
        self.beside = beside
        self.database = database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
        acts = {"on_delete": on_delete, "on_update": on_update}
        to_firm: Any = {"field": "name" if beside else "id", "null": True, **acts}

        class Land(SyncModel):
            code: Any = peewee.CharField(primary_key=True, collation=collation)

            class Meta:
                table_name = "land"

        class Firm(SyncModel):
            id: Any = peewee.CharField(primary_key=True, collation=None if beside else collation)
            name: Any = peewee.CharField(unique=True, null=True, collation=collation)
            land = peewee.ForeignKeyField(Land, null=True, on_delete="CASCADE")
            owner = peewee.ForeignKeyField("self", **to_firm)

            class Meta:
                table_name = "firm"

        class Person(SyncModel):
            id: Any = peewee.CharField(primary_key=True)
            firm = peewee.ForeignKeyField(Firm, **to_firm)

            class Meta:
                table_name = "person"

        class Badge(SyncModel):
            """Its key is made of two references."""

            firm = peewee.ForeignKeyField(
                Firm, field="name" if beside else "id", on_delete=on_delete
            )
            person = peewee.ForeignKeyField(Person, on_delete="CASCADE")

            class Meta:
                table_name = "badge"
                primary_key = peewee.CompositeKey("firm", "person")

        self.badge: Any = Badge
        self.land: Any = Land
        self.firm: Any = Firm
        self.person: Any = Person
        models = [Land, Firm, Person, *(() if beside else (Badge,))]
        self.models: Any = models
        database.bind(models)
        database.create_tables(models)
        ids = (f"{name}{n}" for n in count())
        self.sync = Sync(
            database,
            models,
            shared_log=log,
            now=now,
            new_id=lambda: next(ids),
            capture=capture,
            batch_size=batch_size,
        ).setup()

    def found(self, name: str, land: str | None = None) -> None:
        """Create a firm."""
        values = {"id": f"of {name}", "name": name} if self.beside else {"id": name}
        self.firm.create(**values, land=land)
        self.harvest()

    def close(self, name: str) -> None:
        """Delete a firm."""
        self.firm.delete().where(self.firm.id == (f"of {name}" if self.beside else name)).execute()
        self.harvest()

    def hire(self, id: str, firm: str | None) -> None:
        self.person.create(id=id, firm=firm)
        self.harvest()

    def harvest(self) -> None:
        """Let what triggers noted be dated now."""
        self.sync.status()

    def firms(self) -> list[str]:
        name = self.firm.name if self.beside else self.firm.id
        return sorted(n for (n,) in self.firm.select(name).tuples())

    def people(self) -> list[tuple[str, str | None]]:
        return sorted(self.person.select(self.person.id, self.person.firm).tuples())

    def rows(self) -> list[Any]:
        return [sorted(map(repr, model.select().tuples())) for model in self.models]

    def parked(self) -> list[tuple[Any, ...]]:
        return sorted((row.collection, row.pk, row.code) for row in self.sync.parked())

    def recorded(self) -> list[tuple[str, str, str]]:
        """What this device wrote."""
        sql = "SELECT operation, collection, pk FROM sharedlog_entry ORDER BY ticks"
        words = ("created", "modified", "deleted", "deleted")
        return [(words[code], *row) for code, *row in self.database.execute_sql(sql).fetchall()]


Fleet = Sequence[Device]


@contextmanager
def fleet(on_delete: str | None = None, size: int = 3, **options: Any) -> Iterator[Fleet]:
    log, now = MemorySharedLog(), count(1_790_000_000_000)
    with ExitStack() as stack:
        devices = []
        for name in ("one", "two", "three")[:size]:
            device = Device(name, log, lambda: next(now), on_delete, **options)
            stack.enter_context(closing(device.database))
            devices.append(device)
        yield devices


def check_equal(devices: Fleet) -> None:
    for _ in range(4):
        done = [device.sync.sync() for device in devices]
        if not any(result.sent or result.received for result in done):
            break
    for device in devices:
        assert device.database.execute_sql("PRAGMA foreign_key_check").fetchall() == []
        assert (device.rows(), device.parked()) == (devices[0].rows(), devices[0].parked())
        assert device.sync.verify().equal


def check_anew(devices: Fleet) -> None:
    """Each comes to the same again when it reads all from the beginning."""
    check_equal(devices)
    before = devices[0].rows(), devices[0].parked()
    for device in devices:
        device.sync.reset()
        device.sync.sync()
        assert (device.rows(), device.parked()) == before


each_recorder = pytest.mark.parametrize("capture", RECORDERS)
each_place = pytest.mark.parametrize("beside", [False, True], ids=["key", "beside"])
each_way = pytest.mark.parametrize(
    ("beside", "capture"), [(False, "signals"), (True, "triggers")], ids=["key", "beside"]
)


@each_recorder
@each_place
@pytest.mark.parametrize(
    ("collation", "written"), [("NOCASE", "ACME"), ("nocase", "Acme"), ("RTRIM", "acme  ")]
)
def test_a_reference_in_other_letters_stands_everywhere(
    collation: str, written: str, beside: bool, capture: Capture
) -> None:
    with fleet(collation=collation, beside=beside, capture=capture) as devices:
        devices[0].found("acme")
        devices[0].hire("ann", written)
        check_anew(devices)
        assert devices[2].people() == [("ann", written)]


def test_what_the_collation_keeps_apart_is_apart() -> None:
    with fleet(size=2) as (one, two):
        one.database.execute_sql("PRAGMA foreign_keys = 0")
        one.found("é")
        one.hire("ann", "É")
        check_equal_but_for_enforcing(one, two)
        assert two.parked() == [("person", "ann", "PARENT_MISSING")]


def check_equal_but_for_enforcing(*devices: Device) -> None:
    for device in devices * 2:
        device.sync.sync()


@each_place
@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_in_any_order(order: Sequence[int], size: int, beside: bool) -> None:
    with fleet(beside=beside, batch_size=size) as devices:
        one, two, three = devices
        two.sync.sync()
        for device in devices:
            device.database.execute_sql("PRAGMA foreign_keys = 0")
        one.hire("ann", "ACME")
        two.found("acme")
        three.hire("bob", "Acme")
        for device in devices:
            device.database.execute_sql("PRAGMA foreign_keys = 1")
        for n in order:
            devices[n].sync.sync()
        check_anew(devices)
        assert one.people() == [("ann", "ACME"), ("bob", "Acme")]


@each_recorder
@each_place
def test_a_parent_that_arrives_later(beside: bool, capture: Capture) -> None:
    with fleet(beside=beside, capture=capture) as devices:
        one, two, three = devices
        one.database.execute_sql("PRAGMA foreign_keys = 0")
        one.hire("ann", "ACME")
        one.database.execute_sql("PRAGMA foreign_keys = 1")
        one.sync.sync()
        three.sync.sync()
        assert three.parked() == [("person", "ann", "PARENT_MISSING")]
        two.found("aCME")
        check_anew(devices)
        assert three.people() == [("ann", "ACME")]
        assert three.parked() == []


@each_recorder
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_a_parent_deleted_while_it_gets_a_child(
    on_delete: str | None, first: int, capture: Capture
) -> None:
    with fleet(on_delete, capture=capture) as devices:
        one, two, three = devices
        one.found("acme")
        for device in devices:
            device.sync.sync()
        one.close("acme")
        two.hire("ann", "ACME")
        devices[first].sync.sync()
        check_anew(devices)
        if on_delete in KEEPING:
            assert (three.firms(), three.people()) == (["acme"], [("ann", "ACME")])
            two.person.delete_by_id("ann")
            check_anew(devices)
            assert not any(three.rows())
        elif on_delete == "CASCADE":
            assert not any(three.rows())
            assert three.parked() == [("person", "ann", "PARENT_DELETED")]
        else:
            assert (three.firms(), three.people()) == ([], [("ann", None)])


@each_recorder
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_a_parent_that_comes_back_in_other_letters(on_delete: str | None, capture: Capture) -> None:
    with fleet(on_delete, capture=capture) as devices:
        one, two, three = devices
        one.found("acme")
        for device in devices:
            device.sync.sync()
        one.close("acme")
        two.hire("ann", "Acme")
        check_equal(devices)
        with suppress(peewee.IntegrityError):
            three.found("ACME")
        check_anew(devices)
        assert three.people() == [("ann", "Acme")]
        assert three.firms() == (["acme"] if on_delete in KEEPING else ["ACME"])
        assert three.parked() == []


@each_place
@each_recorder
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_a_parent_that_is_replaced_while_it_has_children(
    on_delete: str | None, capture: Capture, beside: bool
) -> None:
    """Whoever deletes 'acme' and creates 'ACME' knows of no child; where there is one, it stays."""
    with fleet(on_delete, capture=capture, beside=beside) as devices:
        one, two, three = devices
        one.found("acme")
        for device in devices:
            device.sync.sync()
        two.hire("ann", "Acme")
        two.sync.sync()
        three.sync.sync()
        one.close("acme")
        one.found("ACME")
        check_anew(devices)
        assert (three.firms(), three.people()) == (["ACME"], [("ann", "Acme")])
        assert three.parked() == []


@each_way
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_two_parents_that_are_one_to_the_collation(
    on_delete: str | None, order: Sequence[int], capture: Capture, beside: bool
) -> None:
    """The older one stands, with the children of both."""
    with fleet(on_delete, capture=capture, beside=beside) as devices:
        one, two, three = devices
        one.found("acme")
        one.hire("ann", "Acme")
        two.found("ACME")
        two.hire("bob", "ACME")
        two.hire("cid", "acme")
        for n in order:
            devices[n].sync.sync()
        check_anew(devices)
        assert three.firms() == ["acme"]
        assert three.people() == [("ann", "Acme"), ("bob", "ACME"), ("cid", "acme")]
        assert [row[2] for row in three.parked()] == ["UNIQUE"]
        three.sync.discard(three.sync.parked()[0])
        check_anew(devices)
        assert (len(three.people()), three.parked()) == (3, [])


@each_recorder
@pytest.mark.parametrize("on_delete", ["CASCADE", "SET NULL"])
@each_place
def test_what_the_database_does_to_children_is_recorded(
    beside: bool, on_delete: str, capture: Capture
) -> None:
    with fleet(on_delete, capture=capture, beside=beside) as devices:
        one, two, _ = devices
        one.found("acme")
        one.hire("ann", "ACME")
        check_equal(devices)
        before = len(one.recorded())
        one.close("acme")
        said = "modified" if on_delete == "SET NULL" else "deleted"
        assert (said, "person", '"ann"') in one.recorded()[before:]
        check_anew(devices)
        assert two.people() == ([("ann", None)] if on_delete == "SET NULL" else [])
        assert two.parked() == []


@each_recorder
def test_children_follow_a_new_value(capture: Capture) -> None:
    with fleet("CASCADE", on_update="CASCADE", beside=True, capture=capture) as devices:
        one, two, _ = devices
        one.found("acme")
        one.hire("ann", "ACME")
        check_equal(devices)
        one.firm.update(name="box").execute()
        check_anew(devices)
        assert two.people() == [("ann", "box")]


@each_way
@pytest.mark.parametrize("on_update", [None, "CASCADE", "SET NULL", "RESTRICT"])
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_a_parent_gets_other_letters(
    beside: bool, on_delete: str | None, on_update: str | None, capture: Capture
) -> None:
    with fleet(on_delete, on_update=on_update, capture=capture, beside=beside) as devices:
        one, two, _ = devices
        one.found("acme")
        one.hire("ann", "acme")
        check_equal(devices)
        field = one.firm.name if beside else one.firm.id
        one.firm.update({field: "ACME"}).execute()
        check_anew(devices)
        assert (two.firms(), two.people(), two.parked()) == (["ACME"], [("ann", "acme")], [])


@each_recorder
def test_of_several_deleted_parents_the_oldest_is_kept(capture: Capture) -> None:
    with fleet(capture=capture) as devices:
        one, two, three = devices
        one.found("acme")
        check_equal(devices)
        two.hire("ann", "ACME")
        one.close("acme")
        one.found("Acme")
        one.close("Acme")
        one.sync.sync()
        three.sync.sync()
        check_anew(devices)
        assert (three.firms(), three.people()) == (["acme"], [("ann", "ACME")])


@each_recorder
def test_who_falls_with_a_parent_in_other_letters_takes_its_own_children_along(
    capture: Capture,
) -> None:
    with fleet("CASCADE", capture=capture) as devices:
        one, two, three = devices
        one.land.create(code="de")
        check_equal(devices)
        one.land.delete_by_id("de")
        two.found("acme", "DE")
        two.hire("ann", "ACME")
        check_anew(devices)
        assert not any(three.rows())
        assert [row[1:] for row in three.parked()] == [
            ("acme", "PARENT_DELETED"),
            ("ann", "PARENT_DELETED"),
        ]
        three.land.create(code="De")
        check_anew(devices)
        assert three.people() == [("ann", "ACME")]


@each_recorder
def test_who_is_kept_keeps_a_parent_in_other_letters(capture: Capture) -> None:
    with fleet("RESTRICT", capture=capture) as devices:
        one, two, three = devices
        one.land.create(code="de")
        one.found("acme", "De")
        check_equal(devices)
        one.close("acme")
        one.land.delete_by_id("de")
        two.hire("ann", "ACME")
        check_anew(devices)
        assert three.rows()[0] == ["('de',)"]
        assert (three.firms(), three.people()) == (["acme"], [("ann", "ACME")])


@each_recorder
@pytest.mark.parametrize("on_delete", ["CASCADE", "RESTRICT"])
def test_a_reference_that_is_part_of_a_key(on_delete: str, capture: Capture) -> None:
    with fleet(on_delete, capture=capture) as devices:
        one, two, three = devices
        one.found("acme")
        one.hire("ann", None)
        check_equal(devices)
        two.badge.create(firm="Acme", person="ann")
        two.sync.sync()
        three.sync.sync()
        one.close("acme")
        one.found("ACME")
        check_anew(devices)
        assert (three.firms(), three.parked()) == (["ACME"], [])
        assert three.rows()[-1] == ["('Acme', 'ann')"]


@each_place
@each_recorder
@pytest.mark.parametrize("on_delete", ON_DELETE)
def test_a_row_that_refers_to_itself(on_delete: str | None, beside: bool, capture: Capture) -> None:
    """SQLite takes such a row only in two steps."""
    with fleet(on_delete, capture=capture, beside=beside) as devices:
        one, two, three = devices
        one.found("acme")
        one.firm.update(owner="acme").execute()
        one.firm.update({one.firm.name if beside else one.firm.id: "ACME"}).execute()
        check_anew(devices)
        assert (three.firms(), [firm.owner_id for firm in three.firm]) == (["ACME"], ["acme"])
        assert three.parked() == []
        two.firm.update(owner=None).execute()
        two.firm.delete().execute()
        check_anew(devices)
        assert not any(three.rows())


@each_recorder
@pytest.mark.parametrize("on_delete", ON_DELETE)
@pytest.mark.parametrize("on_update", [None, "RESTRICT", "CASCADE", "SET NULL"])
def test_a_row_that_refers_to_itself_and_is_replaced_elsewhere(
    on_delete: str | None, on_update: str | None, capture: Capture
) -> None:
    with fleet(on_delete, on_update=on_update, capture=capture) as devices:
        one, two, three = devices
        one.found("acme")
        check_equal(devices)
        two.firm.update(owner="acme").execute()
        two.harvest()
        one.close("acme")
        one.found("ACME")
        check_anew(devices)
        assert (three.firms(), [firm.owner_id for firm in three.firm]) == (["ACME"], [None])
        assert three.parked() == []


@each_recorder
def test_a_table_that_is_made_anew(capture: Capture) -> None:
    with fleet("CASCADE", collation=None, capture=capture) as devices:
        one, two, three = devices
        for name in ("acme", "box"):
            one.found(name)
        one.hire("bob", "box")
        check_equal(devices)
        one.close("box")
        check_equal(devices)
        for device in devices:
            with device.sync.migrating():
                compare_without_case(device.database, "firm")
        one.hire("ann", "ACME")
        check_anew(devices)
        assert three.people() == [("ann", "ACME")]
        one.close("acme")
        check_anew(devices)
        assert (two.people(), two.parked()) == ([], [])


def compare_without_case(database: Any, table: str) -> None:
    """Make a table anew, whose first column compares without case."""
    found = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY rowid"
    made, *indexes = (sql for (sql,) in database.execute_sql(found, (table,)).fetchall())
    database.execute_sql("PRAGMA foreign_keys = 0")
    anew = made.replace(f'"{table}"', '"anew"', 1).replace("NOT NULL", "NOT NULL COLLATE NOCASE", 1)
    for sql in (
        anew,
        f'INSERT INTO "anew" SELECT * FROM "{table}"',
        f'DROP TABLE "{table}"',
        f'ALTER TABLE "anew" RENAME TO "{table}"',
        *indexes,
        "PRAGMA foreign_keys = 1",
    ):
        database.execute_sql(sql)


def test_unique_values_pass_on_from_a_row_that_is_replaced() -> None:
    with fleet() as devices:
        one, _, three = devices
        for name, title in (("acme", "a"), ("box", "b")):
            one.firm.create(id=name, name=title)
        one.hire("ann", "ACME")
        check_equal(devices)
        one.person.update(firm=None).execute()
        one.close("acme")
        one.firm.update(name="a").where(one.firm.id == "box").execute()
        one.firm.create(id="ACME", name="b")
        one.person.update(firm="acme").execute()
        one.sync.sync()
        assert three.sync.sync().parked == 0
        check_anew(devices)
        assert (three.people(), three.parked()) == ([("ann", "acme")], [])
        assert three.rows()[1] == ["('ACME', 'b', None, None)", "('box', 'a', None, None)"]


def test_an_applications_own_class_of_texts() -> None:
    class Word(peewee.CharField):
        def db_value(self, value: Any) -> Any:
            return value and f"{value}!"

    def models() -> list[Any]:
        class Firm(SyncModel):
            id: Any = Word(primary_key=True, collation="NOCASE")

        class Person(SyncModel):
            id: Any = peewee.CharField(primary_key=True)
            firm = peewee.ForeignKeyField(Firm, on_delete="CASCADE")

        return [Firm, Person]

    with several(models) as ((one, (firm, person)), (two, (_, other))):
        firm.create(id="acme")
        person.create(id="ann", firm="ACME")
        sync(one, two)
        assert ([row.firm_id for row in other.select()], two.parked()) == (["ACME!"], [])
        assert two.verify().equal


def test_a_reference_that_compares_by_less_than_what_it_refers_to() -> None:
    """SQLite goes by the column that is referred to."""

    def models() -> list[Any]:
        class Firm(SyncModel):
            id: Any = peewee.CharField(primary_key=True)

        class Person(SyncModel):
            id: Any = peewee.CharField(primary_key=True)
            firm = peewee.ForeignKeyField(Firm, on_delete="CASCADE", collation="NOCASE")

        return [Firm, Person]

    with several(models) as ((one, (firm, person)), (two, (_, other))):
        for name in ("acme", "ACME"):
            firm.create(id=name)
            person.create(id=f"of {name}", firm=name)
        sync(one, two)
        assert "NOCASE" in str(two.database.execute_sql("SELECT sql FROM sqlite_master").fetchall())
        firm.delete_by_id("acme")
        sync(one, two)
        for each in (person, other):
            assert [row.id for row in each.select()] == ["of ACME"]
        assert two.parked() == []
        assert two.verify().equal


@each_recorder
def test_a_parent_that_is_not_tracked(capture: Capture) -> None:
    def models() -> list[Any]:
        class Firm(peewee.Model):
            id: Any = peewee.CharField(primary_key=True, collation="NOCASE")

        class Person(SyncModel):
            id: Any = peewee.CharField(primary_key=True)
            firm = peewee.ForeignKeyField(Firm, on_delete="CASCADE")

        return [Person, Firm]

    with several(models, tracked=1, capture=capture) as (
        (one, (person, firm)),
        (two, (other, another)),
    ):
        for each in (firm, another):
            each.create(id="acme")
        person.create(id="ann", firm="ACME")
        sync(one, two)
        assert ([row.firm_id for row in other.select()], two.parked()) == (["ACME"], [])
        firm.delete().execute()
        sync(one, two)
        assert list(other.select()) == []


@contextmanager
def several(
    models: Callable[[], list[Any]], tracked: int = 2, capture: Capture = "signals"
) -> Iterator[list[tuple[Sync, list[Any]]]]:
    """Two devices with some models, of which so many are tracked."""
    log, now, found = MemorySharedLog(), count(1_790_000_000_000), []
    with ExitStack() as stack:
        for _ in range(2):
            database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
            stack.enter_context(closing(database))
            some = models()
            database.bind(some)
            database.create_tables(some)
            given = some[:tracked]
            made = Sync(database, given, shared_log=log, now=lambda: next(now), capture=capture)
            found.append((made.setup(), some))
        yield found


def sync(one: Sync, two: Sync) -> None:
    for each in (one, two, one):
        each.sync()


def do_something(device: Device, chance: Random) -> None:
    """One change, or a sync; what the database refuses is left."""
    name, other, id = chance.choice(NAMES), chance.choice((None, *NAMES)), chance.choice("xyz")
    field = device.firm.name if device.beside else device.firm.id
    land, taken = chance.choice((None, "de", "DE")), chance.choice(("de", "DE"))
    actions: list[Callable[[], object]] = [
        *[lambda: device.found(name, land)] * 3,
        *[lambda: device.close(name)] * 2,
        *[lambda: device.hire(id, other)] * 4,
        lambda: device.firm.update({field: other}).where(field == name).execute(),
        lambda: device.firm.update(land=land).where(field == name).execute(),
        *[lambda: device.firm.update(owner=other).where(field == name).execute()] * 2,
        lambda: device.person.update(firm=other).where(device.person.id == id).execute(),
        lambda: device.person.delete_by_id(id),
        *[lambda: device.badge.create(firm=name, person=id)] * (not device.beside),
        lambda: device.land.create(code=taken),
        lambda: device.land.delete_by_id(taken),
        *[device.sync.sync] * 4,
    ]
    with suppress(peewee.IntegrityError):
        chance.choice(actions)()
    device.harvest()


@each_way
@pytest.mark.parametrize("on_delete", [None, "RESTRICT", "CASCADE", "SET NULL"])
@pytest.mark.parametrize("on_update", [None, "CASCADE"])
def test_fleets_end_equal(
    on_update: str | None, on_delete: str | None, beside: bool, capture: Capture
) -> None:
    for seed in range(FLEETS):
        chance = Random(seed)
        size = chance.choice((1, 3, 1000))
        options: dict[str, Any] = {"beside": beside, "on_update": on_update, "batch_size": size}
        with fleet(on_delete, capture=capture, **options) as devices:
            for _ in range(STEPS):
                do_something(chance.choice(devices), chance)
            check_anew(devices)
