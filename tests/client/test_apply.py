"""Applying to real tables: what stands in them, and what is held, is what the model says."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import peewee
import pytest
from hypothesis import given, settings, strategies as st

from sharedlog import Entry, SyncModel, Version
from sharedlog.apply.applier import Applied, Applier
from sharedlog.changes import Change, decode, dumps
from sharedlog.journal.inbox import Inbox
from sharedlog.journal.journal import Journal
from sharedlog.models.registry import Registry
from sharedlog.tables.versions import Versions

from ..dictmodel import Row, Write, row_of
from ..tablemodel import ForeignKey, Standing, Table, standing

Models = dict[str, type[peewee.Model]]


class Replica:
    """A database file with tables, and what it takes to apply entries to them."""

    def __init__(
        self,
        path: str,
        models: Models,
        create: Callable[[peewee.Database], object] | None = None,
    ) -> None:
        pragmas = {"foreign_keys": 1, "synchronous": 0, "journal_mode": "memory"}
        self.database = peewee.SqliteDatabase(path, pragmas=pragmas)
        self.models = models
        with self.database.bind_ctx(models.values()):
            if create is None:
                self.database.create_tables(models.values())
            else:
                create(self.database)
        self.registry = Registry(self.database, models.values())
        self.journal = Journal(self.database, lambda: 0)
        self.journal.create_tables()
        self.journal.set_state(device="me")
        self.versions = Versions(self.journal)
        self.applier = Applier(self.registry, self.journal, self.versions, decode)

    def apply(self, entries: Sequence[Entry]) -> Applied:
        with self.database.bind_ctx(self.models.values()), self.journal.transaction():
            return self.applier.apply(entries)

    def table(self, name: str) -> dict[str, dict[str, Any]]:
        """What stands in a table: pk as JSON -> values by field name."""
        tracked = self.registry.collection(name)
        assert tracked is not None
        with self.database.bind_ctx(self.models.values()):
            rows = tracked.model.select().dicts().execute(self.database)
            return {
                dumps(tracked.pk_wire([row[c.name] for c in tracked.key])): {
                    c.name: row[c.name] for c in tracked.columns
                }
                for row in rows
            }

    def row(self, collection: str, pk: str) -> Row:
        """What is known of a row, values from the table and what is held together."""
        state = self.versions.load(collection, [pk])[pk]
        versions = {name: state.version_of(name) for name in state.written_fields()}
        table = self.table(collection) if self.registry.collection(collection) else {}
        values = {n: v for n, v in {**table.get(pk, {}), **state.held}.items() if n in versions}
        return Row(state.alive, state.died, values, {n: v for n, v in versions.items() if v})

    def parked(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Alive rows that are not in their tables, with the values that are held for them."""
        cursor = self.database.execute_sql(
            "SELECT collection, pk, held FROM sharedlog_row WHERE parked IS NOT NULL"
        )
        return {(row[0], row[1]): json.loads(row[2] or "{}") for row in cursor.fetchall()}

    def everything(self) -> Any:
        """Tables, parked rows and versions, comparable between replicas."""
        states = {}
        for name in sorted(c.collection for c in self.registry):
            cursor = self.database.execute_sql(
                "SELECT pk FROM sharedlog_row WHERE collection = ?", (name,)
            )
            pks = sorted(row[0] for row in cursor.fetchall())
            for pk, state in self.versions.load(name, pks).items():
                versions = {f: state.version_of(f) for f in state.written_fields()}
                states[name, pk] = (state.born, state.died, versions, state.held, state.parked)
        return [self.table(c.collection) for c in self.registry], states

    def check_foreign_keys(self) -> None:
        assert self.database.execute_sql("PRAGMA foreign_key_check").fetchall() == []

    def close(self) -> None:
        self.database.close()


def entry(collection: str, pk: Any, write: Write) -> Entry:
    data = {
        "operation": write.operation,
        "collection": collection,
        "pk": pk,
        "field": None,
        "value": write.value,
    }
    return Entry(write.stamp[1], write.stamp[0], 0, dumps(data))


def items() -> Models:
    class Item(SyncModel):
        key = peewee.CharField(primary_key=True)
        x = peewee.IntegerField(null=True)
        y = peewee.CharField(default="?")

        class Meta:
            table_name = "item"

    return {"Item": Item}


Opener = Callable[[Models], Replica]


def openers(folder: Path) -> Generator[Opener, None, None]:
    """Something that opens replicas, which are closed afterwards."""
    replicas: list[Replica] = []

    def opened(models: Models) -> Replica:
        replicas.append(Replica(str(folder / f"{len(replicas)}.db"), models))
        return replicas[-1]

    try:
        yield opened
    finally:
        for replica in replicas:
            replica.close()


@pytest.fixture
def open_replica(tmp_path: Path) -> Generator[Opener, None, None]:
    yield from openers(tmp_path)


# -- every life of a row, with every split into applied and new --------------------------

KINDS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("create", {"x": 1, "y": "1", "z": 1}),
    ("create", {"x": 2}),
    ("modify", {"x": 3}),
    ("modify", {"y": "4", "z": 4}),
    ("delete", None),
)


def lives(length: int) -> Iterator[list[Write]]:
    """Every sequence of operations; `z` is a field that the table does not have."""
    for kinds in product(KINDS, repeat=length):
        yield [
            Write((tick, "a"), operation, value and {n: _marked(v, tick) for n, v in value.items()})
            for tick, (operation, value) in enumerate(kinds, 1)
        ]


def _marked(value: Any, tick: int) -> Any:
    """A value that tells which operation wrote it."""
    return value + tick * 10 if type(value) is int else f"{value}@{tick}"


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("backwards", [False, True])
def test_every_life_with_every_split_into_applied_and_new(
    open_replica: Opener, length: int, backwards: bool
) -> None:
    replica = open_replica(items())
    cases: dict[str, list[Write]] = {}
    applied: list[Entry] = []
    new: list[Entry] = []
    for number, life in enumerate(lives(length)):
        for split in range(2**length):
            pk = f"{number}/{split}"
            cases[pk] = life
            for index, write in enumerate(life):
                (applied if split >> index & 1 else new).append(entry("item", pk, write))
    for part in (applied, new):
        replica.apply(part[::-1] if backwards else part)
    states = replica.versions.load("item", [dumps(pk) for pk in cases])
    table = replica.table("item")
    for pk, life in cases.items():
        row, state = row_of(life), states[dumps(pk)]
        values = {**state.held, **table.get(dumps(pk), {})}
        assert state.alive == row.alive == (dumps(pk) in table), (pk, life)
        assert {n: v for n, v in values.items() if n in row.versions} == row.values, (pk, life)
        assert {n: state.version_of(n) for n in state.written_fields()} == row.versions, (pk, life)
        if row.alive:
            expected = {"x": row.values.get("x"), "y": row.values.get("y", "?")}
            assert table[dumps(pk)] == expected, (pk, life)
            assert set(state.held) == set(row.values) - {"x", "y"}, (pk, life)
        else:
            assert state.held == row.values, (pk, life)


def test_a_row_that_died_and_came_back_at_once_holds_nothing_old(open_replica: Opener) -> None:
    """Found by the properties of test_reconcile: the value that a modification left in the
    table was also held, and came back when the row was created again, much later."""
    replica = open_replica(items())

    def apply(*writes: Write) -> None:
        replica.apply([entry("item", "k", write) for write in writes])

    apply(Write((2, "a"), "create", {"x": 2, "y": "2"}))
    apply(Write((5, "a"), "modify", {"x": 5}))
    apply(Write((3, "b"), "delete"), Write((4, "b"), "create", {"y": "4"}))
    apply(Write((9, "a"), "modify", {"x": 9}))
    apply(Write((8, "b"), "delete"))
    apply(Write((10, "b"), "create", {"y": "10"}))
    assert replica.table("item") == {'"k"': {"x": 9, "y": "10"}}


def test_ties_are_decided_by_the_device_in_the_table_too(open_replica: Opener) -> None:
    for devices in ("ab", "ba"):
        replica = open_replica(items())
        for device in devices:
            create = Write((5, device), "create", {"x": ord(device), "y": device})
            replica.apply([entry("item", "k", create)])
        assert replica.table("item") == {'"k"': {"x": ord("b"), "y": "b"}}


def test_rows_that_stood_before_tracking_are_older_than_every_change(open_replica: Opener) -> None:
    replica = open_replica(items())
    with replica.database.bind_ctx(replica.models.values()):
        for key in "abc":
            replica.models["Item"].create(key=key, x=1, y="old")
    replica.apply(
        [
            entry("item", "a", Write((1, "b"), "modify", {"x": 2})),
            entry("item", "b", Write((1, "b"), "delete")),
            entry("item", "c", Write((1, "b"), "create", {"x": 3, "y": "new"})),
        ]
    )
    assert replica.table("item") == {
        '"a"': {"x": 2, "y": "old"},
        '"c"': {"x": 3, "y": "new"},
    }


# -- whole devices: tables with parents ---------------------------------------------------


def tree() -> Models:
    """Foreign keys of every sort: to itself, nullable, part of a key, the key itself."""

    class Folder(SyncModel):
        key = peewee.CharField(primary_key=True)
        name = peewee.CharField(default="")
        parent = peewee.ForeignKeyField("self", null=True, on_delete="CASCADE")

        class Meta:
            table_name = "folder"

    class Note(SyncModel):
        key = peewee.CharField(primary_key=True)
        folder = peewee.ForeignKeyField(Folder, null=True, on_delete="SET NULL")
        other = peewee.ForeignKeyField(Folder, null=True, backref="others")
        text = peewee.CharField(default="")

        class Meta:
            table_name = "note"

    class Label(SyncModel):
        note = peewee.ForeignKeyField(Note, on_delete="CASCADE")
        word = peewee.CharField()

        class Meta:
            table_name = "label"
            primary_key = peewee.CompositeKey("note", "word")

    class Cover(SyncModel):
        note = peewee.ForeignKeyField(Note, primary_key=True, on_delete="CASCADE")
        colour = peewee.CharField(default="")

        class Meta:
            table_name = "cover"

    return {"Folder": Folder, "Note": Note, "Label": Label, "Cover": Cover}


KEYS = ("p", "q", "r")
REFERENCE = st.sampled_from((None, *KEYS))
TEXT = st.sampled_from(("", "s", "t"))
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "folder": {"name": TEXT, "parent": REFERENCE},
    "note": {"folder": REFERENCE, "other": REFERENCE, "text": TEXT},
    "label": {},
    "cover": {"colour": TEXT},
}


@st.composite
def tree_entries(draw: st.DrawFn) -> list[Entry]:
    stamps = draw(
        st.lists(st.tuples(st.integers(1, 12), st.sampled_from("abc")), max_size=14, unique=True)
    )
    entries = []
    for stamp in stamps:
        name = draw(st.sampled_from(tuple(FIELDS)))
        pk: Any = draw(st.sampled_from(KEYS))
        if name == "label":
            pk = [pk, draw(TEXT)]
        operation = draw(st.sampled_from(("create", "create", "modify", "delete")))
        values: Any = None
        if operation == "create":
            values = draw(st.fixed_dictionaries(FIELDS[name]))
        elif operation == "modify":
            values = draw(st.fixed_dictionaries({}, optional=FIELDS[name]))
        entries.append(entry(name, pk, Write(stamp, operation, values)))
    return entries


TABLES = {
    "folder": Table(
        ("key",), {"name": "", "parent": None}, (ForeignKey("parent", "folder", "CASCADE"),)
    ),
    "note": Table(
        ("key",),
        {"folder": None, "other": None, "text": ""},
        (ForeignKey("folder", "folder", "SET NULL"), ForeignKey("other", "folder")),
    ),
    "label": Table(("note", "word"), {}, (ForeignKey("note", "note", "CASCADE"),)),
    "cover": Table(("note",), {"colour": ""}, (ForeignKey("note", "note", "CASCADE"),)),
}


def placed(entries: Iterable[Entry]) -> Standing:
    """What must stand in the tables, and which rows must be parked."""
    return standing(TABLES, lives_of(entries))


def lives_of(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Write]]:
    """The writes of each row."""
    writes: dict[tuple[str, str], list[Write]] = {}
    for item in entries:
        change = decode(item.data)
        write = Write((item.ticks, item.device), change.operation, change.value)
        writes.setdefault((change.collection, dumps(change.pk)), []).append(write)
    return writes


def delivered(replica: Replica, entries: list[Entry], chance: random.Random) -> None:
    """Apply the entries in some order, some of them again, in pages of any size."""
    order = entries + chance.choices(entries, k=3) if entries else []
    chance.shuffle(order)
    while order:
        size = chance.randint(1, len(order))
        replica.apply(order[:size])
        replica.check_foreign_keys()
        del order[:size]


@settings(max_examples=80, deadline=None)
@given(tree_entries(), st.integers(0, 2**32))
def test_devices_end_equal_whatever_the_order_repetition_and_paging(
    entries: list[Entry], seed: int
) -> None:
    chance = random.Random(seed)
    wanted = placed(entries)
    outcomes = []
    for _ in range(3):
        replica = Replica(":memory:", tree())
        delivered(replica, entries, chance)
        outcomes.append(replica.everything())
        found = {
            (c.collection, pk): row
            for c in replica.registry
            for pk, row in replica.table(c.collection).items()
        }
        assert found == wanted.rows
        assert set(replica.parked()) == set(wanted.parked)
        replica.close()
    assert outcomes[0][0] == outcomes[1][0] == outcomes[2][0]
    assert [_comparable(o[1]) for o in outcomes[1:]] == [_comparable(outcomes[0][1])] * 2


def _comparable(states: dict[Any, Any]) -> dict[Any, Any]:
    """States without the wording of why a row is parked: of two missing parents either may
    be named."""
    return {key: (*state[:4], state[4] is not None) for key, state in states.items()}


def test_versions_of_the_tree_are_the_models(open_replica: Opener) -> None:
    chance = random.Random(7)
    writes = [
        Write(
            (tick, chance.choice("abc")),
            *chance.choice(
                (
                    ("create", {"name": f"n{tick}", "parent": None}),
                    ("modify", {"name": f"m{tick}"}),
                    ("modify", {"unheard of": tick}),
                    ("delete", None),
                )
            ),
        )
        for tick in range(1, 40)
    ]
    replica = open_replica(tree())
    delivered(replica, [entry("folder", "p", write) for write in writes], chance)
    assert replica.row("folder", '"p"') == row_of(writes)


# -- parking ------------------------------------------------------------------------------


def create(table: str, pk: Any, tick: int, /, **values: Any) -> Entry:
    return entry(table, pk, Write((tick, "a"), "create", values))


def test_a_child_waits_for_its_parent_and_the_cycle_arrives_at_once(open_replica: Opener) -> None:
    replica = open_replica(tree())
    replica.apply([create("note", "n", 1, folder="p", other=None, text="t")])
    assert replica.parked() == {("note", '"n"'): {"folder": "p", "other": None, "text": "t"}}
    replica.apply([create("folder", "p", 2, name="", parent="q")])
    assert set(replica.parked()) == {("note", '"n"'), ("folder", '"p"')}
    replica.apply([create("folder", "q", 3, name="", parent="p")])
    assert not replica.parked()
    assert set(replica.table("folder")) == {'"p"', '"q"'}
    assert set(replica.table("note")) == {'"n"'}


def test_a_row_whose_new_parent_is_missing_takes_its_children_along(open_replica: Opener) -> None:
    """Found by the whole devices above: the row left its table alone, the database's own
    ON DELETE CASCADE ran over its children, and nobody knew of it."""
    replica = open_replica(tree())
    replica.apply(
        [
            create("folder", "p", 1, name="", parent=None),
            create("folder", "q", 2, name="", parent="p"),
            create("note", "n", 3, folder="q", other=None, text="t"),
            create("cover", "n", 4, colour="red"),
        ]
    )
    replica.apply([entry("folder", "p", Write((5, "b"), "modify", {"parent": "missing"}))])
    assert len(replica.parked()) == 4
    replica.check_foreign_keys()
    replica.apply([entry("folder", "p", Write((6, "b"), "modify", {"parent": None}))])
    assert not replica.parked()
    assert replica.table("note") == {'"n"': {"folder": "q", "other": None, "text": "t"}}
    assert replica.table("cover") == {'"n"': {"colour": "red"}}


def numbered() -> Models:
    class Series(SyncModel):
        key = peewee.IntegerField(primary_key=True)
        size = peewee.IntegerField(default=0)

        class Meta:
            table_name = "series"

    class Volume(SyncModel):
        key = peewee.IntegerField(primary_key=True)
        series = peewee.ForeignKeyField(Series, on_delete="CASCADE")

        class Meta:
            table_name = "volume"

    return {"Series": Series, "Volume": Volume}


def test_a_row_with_a_value_that_does_not_fit_is_parked_with_its_children(
    open_replica: Opener,
) -> None:
    replica = open_replica(numbered())
    replica.apply(
        [
            create("volume", 1, 1, series=1),
            create("series", 1, 2, size="as a text"),
            create("series", "key", 3, size=1),
            create("series", 2, 4, size=1),
            create("volume", 2, 5, series=2),
            create("volume", 3, 6, series="none of them"),
        ]
    )
    waiting = {("series", "1"), ("series", '"key"'), ("volume", "1"), ("volume", "3")}
    assert set(replica.parked()) == waiting
    assert set(replica.table("volume")) == {"2"}
    replica.apply([entry("series", 2, Write((7, "b"), "modify", {"size": "a text again"}))])
    assert set(replica.parked()) == waiting | {("series", "2"), ("volume", "2")}
    replica.apply([entry("series", n, Write((8, "b"), "modify", {"size": 8})) for n in (1, 2)])
    assert set(replica.parked()) == {("series", '"key"'), ("volume", "3")}
    assert replica.table("series") == {"1": {"size": 8}, "2": {"size": 8}}


def test_a_child_that_moves_to_another_parent_survives_the_first_ones_deletion(
    open_replica: Opener,
) -> None:
    """The database's own ON DELETE CASCADE must not see it at its old place any more."""
    replica = open_replica(tree())
    replica.apply(
        [
            create("folder", "p", 1, name="", parent=None),
            create("folder", "q", 2, name="", parent="p"),
            create("note", "n", 3, folder="p", other=None, text="t"),
        ]
    )
    replica.apply(
        [
            entry("folder", "p", Write((4, "b"), "delete")),
            create("folder", "r", 5, name="", parent=None),
            entry("folder", "q", Write((6, "b"), "modify", {"parent": "r"})),
            entry("note", "n", Write((7, "b"), "modify", {"folder": "r"})),
        ]
    )
    assert not replica.parked()
    assert replica.table("folder") == {
        '"q"': {"name": "", "parent": "r"},
        '"r"': {"name": "", "parent": None},
    }
    assert replica.table("note") == {'"n"': {"folder": "r", "other": None, "text": "t"}}


def people() -> Models:
    """A unique field that others refer to."""

    class Person(SyncModel):
        key = peewee.CharField(primary_key=True)
        email = peewee.CharField(unique=True)

        class Meta:
            table_name = "person"

    class Letter(SyncModel):
        key = peewee.CharField(primary_key=True)
        to = peewee.ForeignKeyField(Person, field="email", on_delete="CASCADE")

        class Meta:
            table_name = "letter"

    return {"Person": Person, "Letter": Letter}


def test_a_reference_to_a_field_that_is_not_the_key_follows_its_value(
    open_replica: Opener,
) -> None:
    replica = open_replica(people())
    replica.apply(
        [
            create("person", "a", 1, email="a@x"),
            create("letter", "l", 2, to="a@x"),
            create("letter", "m", 3, to="b@x"),
        ]
    )
    assert set(replica.parked()) == {("letter", '"m"')}
    replica.apply([entry("person", "a", Write((4, "b"), "modify", {"email": "b@x"}))])
    assert set(replica.parked()) == {("letter", '"l"')}
    assert replica.table("letter") == {'"m"': {"to": "b@x"}}
    replica.apply([create("person", "b", 5, email="a@x")])
    assert not replica.parked()
    replica.check_foreign_keys()


def test_a_row_whose_unique_value_is_taken_waits_with_its_children(open_replica: Opener) -> None:
    """Which one of two rows stands is not decided by their versions yet; but nobody is stuck."""
    replica = open_replica(tree() | people())
    replica.apply([create("person", "a", 1, email="a@x")])
    replica.apply(
        [
            create("letter", "l", 2, to="b@x"),
            create("person", "c", 3, email="a@x"),
            create("person", "b", 4, email="b@x"),
        ]
    )
    assert set(replica.parked()) == {("person", '"c"')}
    replica.apply([entry("person", "b", Write((5, "b"), "modify", {"email": "a@x"}))])
    replica.check_foreign_keys()
    assert set(replica.parked()) == {
        ("person", '"b"'),
        ("person", '"c"'),
        ("letter", '"l"'),
    }
    replica.apply([entry("person", "a", Write((6, "b"), "delete"))])
    assert len(replica.table("person")) == 1


def everything() -> Models:
    class Thing(SyncModel):
        key = peewee.CharField(primary_key=True)
        text = peewee.TextField(null=True)
        number = peewee.BigIntegerField(null=True)
        flag = peewee.BooleanField(null=True)
        real = peewee.FloatField(null=True)
        exact = peewee.DecimalField(null=True)
        at = peewee.DateTimeField(null=True)
        day = peewee.DateField(null=True)
        time = peewee.TimeField(null=True)
        stamp = peewee.TimestampField(null=True)
        uuid = peewee.UUIDField(null=True)
        blob = peewee.BlobField(null=True)
        data = peewee.JSONField(null=True)
        other = peewee.ForeignKeyField("self", null=True)

        class Meta:
            table_name = "thing"

    class Plain(SyncModel):
        key = peewee.IntegerField(primary_key=True)
        text = peewee.CharField(null=True)

        class Meta:
            table_name = "plain"

    return {"Thing": Thing, "Plain": Plain}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ("", "a", "0", "1.5", "NaN", "true", "2026-13-40", "2026-01-01", "====", "\0")
    )
    | st.just("00000000-0000-4000-8000-000000000001"),
    lambda children: (
        st.lists(children, max_size=2)
        | st.dictionaries(st.sampled_from(("raw", "bytes", "decimal", "k")), children, max_size=2)
    ),
    max_leaves=4,
)
THING = ("text", "number", "flag", "real", "exact", "at", "day", "time", "stamp", "uuid", "blob")


@st.composite
def odd_entries(draw: st.DrawFn) -> list[Entry]:
    """Changes as no device of ours would make them: any value for any field, any key."""
    entries = []
    for tick in range(1, draw(st.integers(2, 8))):
        table = draw(st.sampled_from(("thing", "plain")))
        pk = draw(st.sampled_from(("k", 1)) | JSON.filter(_is_key))
        operation = draw(st.sampled_from(("create", "create", "modify", "delete")))
        fields = (*THING, "data", "other") if table == "thing" else ("text",)
        names = draw(st.lists(st.sampled_from(fields), unique=True))
        value = None if operation == "delete" else {name: draw(JSON) for name in names}
        entries.append(entry(table, pk, Write((tick, "a"), operation, value)))
    return entries


def _is_key(value: Any) -> bool:
    return value is not None and not isinstance(value, dict)


@settings(max_examples=100, deadline=None)
@given(odd_entries(), st.integers(0, 2**32))
def test_any_value_anywhere_blocks_nobody(entries: list[Entry], seed: int) -> None:
    """A value that does not fit is parked with its row; all devices end equal all the same."""
    chance = random.Random(seed)
    good = [create("plain", 10**9 + i, 100 + i, text="good") for i in range(2)]
    outcomes = []
    for _ in range(2):
        replica = Replica(":memory:", everything())
        delivered(replica, entries + good, chance)
        rows = replica.database.execute_sql("SELECT * FROM plain").fetchall()
        assert {(10**9, "good"), (10**9 + 1, "good")} <= set(rows)
        rows += replica.database.execute_sql("SELECT * FROM thing").fetchall()
        parked = sorted(replica.parked())
        outcomes.append((sorted(map(repr, rows)), parked))
        replica.close()
    assert outcomes[0] == outcomes[1]


def test_values_of_a_table_that_is_not_known_are_held(open_replica: Opener) -> None:
    replica = open_replica(tree())
    life = [Write((1, "a"), "create", {"x": 1}), Write((2, "b"), "modify", {"x": 2})]
    replica.apply([entry("unknown", "k", write) for write in reversed(life)])
    assert replica.parked() == {("unknown", '"k"'): {"x": 2}}
    assert replica.row("unknown", '"k"') == row_of(life)


def test_a_row_of_an_unknown_table_that_dies_and_comes_back_in_one_page_keeps_its_values(
    open_replica: Opener,
) -> None:
    """There is no table that would still have them."""
    replica = open_replica(items())
    life = [Write((1, "a"), "create", {"x": 1}), Write((4, "b"), "modify", {"x": 4})]
    life += [Write((2, "b"), "delete", None), Write((3, "a"), "create", {"x": 3})]
    entries = [entry("unknown", "k", write) for write in life]
    replica.apply(entries[:2])
    replica.apply(entries[2:])
    assert replica.parked() == {("unknown", '"k"'): {"x": 4}}


OPERATIONS = ("create", "create", "modify", "modify", "delete")


def test_rows_of_unknown_tables_are_held_as_they_are(open_replica: Opener) -> None:
    """Whatever happens to a row, in whatever order that is heard of."""
    replica, chance = open_replica(items()), random.Random(5)
    for number in range(1_000):
        life = []
        for tick in range(1, 7):
            operation = chance.choice(OPERATIONS)
            names = chance.sample("xy", 2 if operation == "create" else 1)
            values = None if operation == "delete" else dict.fromkeys(names, tick)
            life.append(Write((tick, "a"), operation, values))
        order = chance.sample([entry("unknown", number, write) for write in life], k=len(life))
        cut = chance.randrange(len(order))
        replica.apply(order[:cut])
        replica.apply(order[cut:])
        found, expected = replica.row("unknown", str(number)), row_of(life)
        assert found.alive == expected.alive
        assert found == expected or not expected.alive, life


def test_an_entry_that_is_no_change_is_set_aside_and_blocks_nobody(open_replica: Opener) -> None:
    replica = open_replica(items())
    bad = ("", "{", "null", "5", '{"operation":"explode"}', '{"operation":"create"}')
    good = [create("item", str(i), 10 + i, x=i, y="") for i in range(3)]
    applied = replica.apply(
        [*good[:1], *(Entry("b", i, 0, data) for i, data in enumerate(bad)), *good[1:]]
    )
    assert applied.unreadable == len(bad)
    assert len(replica.table("item")) == 3
    assert [entry.data for entry, _ in Inbox(replica.journal).unreadable()] == list(bad)


def test_applying_lifts_the_clock_over_everything_seen(open_replica: Opener) -> None:
    replica = open_replica(items())
    replica.apply([create("item", "k", 2**41, x=1, y="")])
    assert replica.journal.next_ticks() == 2**41 + 1
    assert Version(2**41 + 1, "") > Version(2**41, "zzz")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_collected_when_a_page_is_applied_not_meanwhile(
    open_replica: Opener, monkeypatch: pytest.MonkeyPatch, enabled: bool, fails: bool
) -> None:
    replica = open_replica(items())
    seen = []

    def decoded(data: str) -> Change:
        seen.append(gc.isenabled())
        if fails:
            raise RuntimeError
        return decode(data)

    monkeypatch.setattr(replica.applier, "_decode_data", decoded)
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(RuntimeError) if fails else nullcontext():
            replica.apply([create("item", "k", 10, x=1, y="")])
        assert seen == [False]
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
