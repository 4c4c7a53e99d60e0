"""Devices of different versions of one program: what is written by one is read by all."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    Change,
    ConfigurationError,
    Counter,
    DatabaseTooNew,
    Entry,
    MemorySharedLog,
    Sync,
    SyncModel,
)
from sharedlog.care.inspection import opened
from sharedlog.remote.sharedlog import Outgoing
from tests.client.devices import PRAGMAS
from tests.client.programs import (
    PROGRAMS,
    RENAMED,
    RULED,
    WANDERING,
    Clock,
    Folder,
    Headed,
    Memo,
    Phone,
    Program,
    Tally,
    Titled,
    TopStock,
    best_to_top,
    price_to_cents,
)
from tests.dictmodel import Row, Write, row_of


class World:
    """A log, a time, and phones. `chance` gives the phones their ids: whose is the greater one
    decides where two wrote at one time."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.clock = Clock()
        self._chance = chance
        self.log = MemorySharedLog(now=self.clock)
        self.phones: list[Phone] = []
        self._folder = folder
        self._databases: dict[str, peewee.SqliteDatabase] = {}

    def phone(
        self,
        version: int = 1,
        programs: Sequence[Program] = PROGRAMS,
        capture: str = "signals",
    ) -> Phone:
        path = self._folder / f"{len(self.phones)}.db"
        phone = Phone(path, self.log, self.clock, version, programs, capture, self._new_id)
        self.phones.append(phone)
        return phone

    def _new_id(self) -> str:
        return f"{self._chance.getrandbits(128):032x}"

    def copy(self, phone: Phone) -> Phone:
        """Another phone with a copy of this one's file."""
        phone.close()
        shutil.copy(phone.path, self._folder / f"{len(self.phones)}.db")
        return self.phone(phone.version, phone.programs)

    def settle(self) -> None:
        for phone in (*self.phones, *self.phones):
            phone.sync()

    def upgrade(self, version: int = 3) -> None:
        for phone in self.phones:
            phone.upgrade(version)

    def close(self) -> None:
        for phone in self.phones:
            phone.close()
        for database in self._databases.values():
            database.close()

    @contextmanager
    def running(self, name: str, *models: type[SyncModel], **options: Any) -> Iterator[Sync]:
        """A device by its name, with other models than those of the phones."""
        database = self.database(name)
        with database.bind_ctx(models):
            database.create_tables(models)
            options = {"shared_log": self.log, "now": self.clock, **options}
            with Sync(database, models, **options) as sync:
                yield sync

    def database(self, name: str) -> peewee.SqliteDatabase:
        if name not in self._databases:
            path = str(self._folder / f"{name}.db")
            self._databases[name] = peewee.SqliteDatabase(path, pragmas=dict(PRAGMAS))
        return self._databases[name]

    def says(self, key: str) -> Row:
        """What the log says of a note or paper, in the names and values of version 3."""
        return row_of(write for entry in self.log.entries for write in as_written(entry, key))


def as_written(entry: Entry, key: str) -> Iterator[Write]:
    """The change of a row, worked out without a look at the library."""
    change = json.loads(entry.data)
    if change["pk"] == key:
        value = change["value"]
        if value is not None and change["collection"] not in ("memo", "note"):
            new = {"title": "headline", "heading": "headline"}
            value = {new.get(name, name): wire for name, wire in value.items()}
        elif value is not None:
            new = {"title": "heading", "price": "cents"}
            value = {new.get(name, name): wire for name, wire in value.items()}
            if "cents" in value and change.get("schema", 1) == 1:
                value["cents"] *= 100
        yield Write((entry.ticks, entry.device), change["operation"], value)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, random.Random(0))
    yield made
    made.close()


def headings(phone: Phone) -> dict[str, str]:
    return {key: note[name_of(phone)] for key, note in phone.notes().items()}


# -- the whole ---------------------------------------------------------------------------

KEYS = ("a", "b")
WHAT = ("name", "name", "price", "price", "colour", "delete", "sync", "sync", "sync", "upgrade")
SEEDS = range(8)


of_each_application = pytest.mark.parametrize(
    "programs", [PROGRAMS, RENAMED, WANDERING], ids=["notes", "papers", "wandering"]
)


of_each_recorder = pytest.mark.parametrize("capture", ["signals", "triggers"])


def lived(folder: Path, programs: Sequence[Program], capture: str, seed: int) -> World:
    """A world in which three phones did what they liked, and then all were upgraded."""
    chance = random.Random(seed)
    world = World(folder, chance)
    for _ in range(3):
        world.phone(programs=programs, capture=capture)
    for number in range(1, 40):
        do(chance.choice(world.phones), chance.choice(WHAT), chance.choice(KEYS), number)
    for phone in chance.sample(world.phones, 3):
        phone.upgrade(3)
    world.settle()
    return world


@of_each_application
@of_each_recorder
@pytest.mark.parametrize("seed", SEEDS)
def test_devices_that_upgrade_whenever_they_like_end_equal(
    tmp_path: Path, programs: Sequence[Program], capture: str, seed: int
) -> None:
    world = lived(tmp_path, programs, capture, seed)
    note = programs[-1].note
    blank = {name: field.default for name, field in note._meta.fields.items() if name != "key"}
    expected = {}
    for key in KEYS:
        row = world.says(key)
        if row.alive:
            expected[key] = blank | dict(row.values)
    for phone in world.phones:
        assert phone.notes() == expected
        assert phone.query("SELECT * FROM sharedlog_inbox") == []
        names = {name for (name,) in phone.query("SELECT DISTINCT collection FROM sharedlog_row")}
        assert names <= {note._meta.table_name}
    world.close()


@of_each_recorder
@pytest.mark.parametrize("seed", SEEDS)
def test_fields_with_rules_are_carried_over_with_all_their_writes(
    tmp_path: Path, capture: str, seed: int
) -> None:
    world = lived(tmp_path, RULED, capture, seed)
    for phone in world.phones:
        assert phone.notes() == world.phones[0].notes()
        with phone.running() as sync:
            assert sync.parked() == []
            assert sync.verify().equal  # with what a program of today makes of the whole log
    world.close()


def do(phone: Phone, what: str, key: str, number: int) -> None:
    fields = phone.program.note._meta.fields
    if "count" in fields or "pieces" in fields:
        count = "count" if "count" in fields else "pieces"
        best = "top" if "top" in fields else "best"
        if what == "price":
            phone.add(count, key, number)
            return
        if what == "colour":
            phone.put(key, **{best: number % 5})
            return
    if what == "name":
        phone.put(key, **{name_of(phone): f"{number}"})
    elif what == "price":
        phone.put(key, **{"cents" if "cents" in fields else "price": number})
    elif what == "colour" and "colour" in fields:
        phone.put(key, colour=f"{number}")
    elif what == "delete":
        phone.delete(key)
    elif what == "sync":
        phone.sync()
    elif what == "upgrade":
        phone.upgrade(min(phone.version + 1, len(PROGRAMS)))


def name_of(phone: Phone) -> str:
    """The field that gets other names."""
    names = ("title", "heading", "headline")
    return next(name for name in names if name in phone.program.note._meta.fields)


BLANK = {"heading": "", "cents": 0, "folder": None, "colour": "white"}


# -- names -------------------------------------------------------------------------------


def test_entries_of_older_devices_apply_under_the_new_names(world: World) -> None:
    old, new = world.phone(), world.phone(2)
    old.put("a", title="from the past", price=3)
    old.sync()
    new.sync()
    assert new.notes() == {
        "a": {"heading": "from the past", "price": 3, "folder": None, "colour": "white"}
    }


def test_a_device_that_is_not_upgraded_keeps_the_new_names_until_it_is(world: World) -> None:
    old, new = world.phone(), world.phone(2)
    old.put("a", title="from the past")
    old.put("gone", title="from the past")
    old.sync()
    new.sync()
    new.put("a", heading="renamed", colour="red")
    new.put("b", heading="only here")
    new.delete("gone")
    new.sync()
    old.sync()
    assert headings(old) == {"a": "from the past", "gone": "from the past"}
    old.upgrade(2)
    old.sync()
    assert headings(old) == {"a": "renamed", "b": "only here"}
    assert old.notes() == new.notes()
    old.sync()
    assert old.notes() == new.notes()


def test_an_upgrade_that_failed_is_done_anew_as_if_it_never_began(world: World) -> None:
    """A list of names had got a number, which was remembered when it was taken back."""
    older, other = world.phone(programs=RENAMED), world.phone(programs=RENAMED)
    older.put("a", title="older")
    other.put("b", title="to be merged with")
    other.sync()
    with world.running("upgraded", Titled) as sync:
        Titled.create(key="a", title="newer")
        sync.sync()
    database = world.database("upgraded")
    database.execute_sql("ALTER TABLE paper RENAME COLUMN title TO heading")
    database.execute_sql(
        "CREATE TRIGGER broken BEFORE INSERT ON sharedlog_state WHEN NEW.key = 'program' "
        "BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    upgraded = Sync(database, [Headed], shared_log=world.log, now=world.clock)
    with pytest.raises(peewee.IntegrityError, match="broken"):
        upgraded.setup()
    database.execute_sql("DROP TRIGGER broken")
    older.sync()
    with database.bind_ctx([Headed]), upgraded:
        upgraded.sync()
        assert Headed.get_by_id("a").heading == "newer"


@of_each_application
@pytest.mark.parametrize("last", ["old", "new"])
def test_of_the_old_name_and_the_new_one_the_later_write_wins(
    world: World, last: str, programs: Sequence[Program]
) -> None:
    old, new, third = (world.phone(version, programs) for version in (1, 2, 1))
    old.put("a", title="first")
    world.settle()
    writes = {"old": lambda: old.put("a", title="old"), "new": lambda: new.put("a", heading="new")}
    for name in ("new", "old") if last == "old" else ("old", "new"):
        writes[name]()
    world.settle()
    assert headings(new) == {"a": last}
    assert headings(old) == headings(third) == {"a": "old"}  # which knows of one name only
    world.upgrade()
    world.settle()
    assert [headings(phone) for phone in world.phones] == [{"a": last}] * 3


@of_each_application
def test_two_upgrades_without_a_sync_in_between_lose_nothing(
    world: World, programs: Sequence[Program]
) -> None:
    old, newer, newest = (world.phone(version, programs) for version in (1, 2, 3))
    for key in "abcd":
        old.put(key, title="first", price=1)
    world.settle()
    newer.put("a", heading="newer", price=2, colour="red")
    newer.put("n", heading="new", colour="blue")
    newer.delete("b")
    newer.sync()
    newest.put("c", **{name_of(newest): "newest"})
    newest.sync()
    old.sync()
    old.put("d", title="unsent")
    for version in (2, 3):
        old.upgrade(version)
        with old.running() as sync:  # only set up
            assert {row.collection for row in sync.parked() if row.collection} <= {
                "tag",
                old.program.note._meta.table_name,
            }
    old.put("e", **{name_of(old): "latest"})
    world.upgrade()
    world.settle()
    assert headings(old) == {"a": "newer", "n": "new", "c": "newest", "d": "unsent", "e": "latest"}
    assert {key: note["colour"] for key, note in old.notes().items()} == {
        **dict.fromkeys("cde", "white"),
        "a": "red",
        "n": "blue",
    }
    assert old.notes() == newer.notes() == newest.notes()


def test_what_the_program_writes_between_the_upgrade_and_the_sync_is_the_latest(
    world: World,
) -> None:
    """Values that were kept for a column came over what the user had written in it since."""
    old, new = world.phone(), world.phone(2)
    old.put("a", title="first")
    world.settle()
    new.put("a", heading="new", colour="red")
    world.settle()
    old.upgrade(2)
    old.put("a", heading="latest", colour="blue")
    world.settle()
    for phone in world.phones:
        assert (phone.notes()["a"]["heading"], phone.notes()["a"]["colour"]) == ("latest", "blue")


def test_versions_follow_their_fields(world: World) -> None:
    """A write of the old name that is older than what stands under the new one arrives last."""
    phone, late = world.phone(), world.phone()
    phone.put("a", title="first")
    world.settle()
    late.put("a", title="late")
    phone.put("a", title="later")
    phone.sync()
    phone.upgrade(2)
    phone.sync()
    late.sync()
    phone.sync()
    assert headings(phone) == {"a": "later"}


def test_entries_that_were_recorded_before_are_sent_as_they_were_recorded(world: World) -> None:
    """An answer may have been lost, and the log has them already: were they changed by an
    upgrade, one identity would have two contents."""
    phone, other = world.phone(), world.phone()
    phone.put("a", title="unsent", price=2)

    class LosesAnswers:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.log, name)

        def write(self, *args: Any, **options: Any) -> Any:
            world.log.write(*args, **options)
            raise ConnectionError

    with phone.running(shared_log=LosesAnswers()) as sync, pytest.raises(ConnectionError):
        sync.sync()
    sent = [entry.data for entry in world.log.entries]
    phone.upgrade(3)
    phone.put("a", heading="upgraded")
    with phone.running() as sync:
        result = sync.sync()
    assert (result.duplicates, result.refused, result.sent) == (1, 0, 2)
    assert [entry.data for entry in world.log.entries[:1]] == sent
    other.sync()
    assert headings(other) == {"a": "unsent"}
    world.upgrade()
    world.settle()
    assert other.notes() == phone.notes()
    assert other.notes()["a"] == BLANK | {"heading": "upgraded", "cents": 200}


def test_new_timestamps_reach_the_versions_of_renamed_rows(world: World) -> None:
    """Entries that were recorded under the old names get new timestamps after the upgrade."""
    phone, other = world.phone(), world.phone()
    world.clock.ms += 3_600_000  # an hour ahead while it writes
    phone.put("a", title="ahead")
    world.clock.ms -= 3_600_000
    phone.upgrade(2)
    with phone.running() as sync:
        sync.adopt()  # which carries over, and folds
        assert sync.sync().sent == 1
    other.sync()
    world.clock.ms += 1_000
    other.put("a", title="later")
    world.settle()
    assert headings(phone) == {"a": "later"}


def test_a_deletion_under_either_name_deletes(world: World) -> None:
    old, new = world.phone(), world.phone(2)
    for key in "ab":
        old.put(key, title="first")
    world.settle()
    old.delete("a")
    new.delete("b")
    world.settle()
    assert headings(new) == {}
    old.upgrade(2)
    world.settle()
    assert headings(old) == {}
    assert len(old.query("SELECT * FROM sharedlog_row WHERE died IS NOT NULL")) == 2


def test_parked_rows_are_renamed_with_all_they_hold(world: World) -> None:
    old, new = world.phone(), world.phone(2)
    write = {"operation": "create", "collection": "memo", "pk": "a", "field": None}
    value = {"title": "waiting", "price": 1, "folder": "f"}
    stranger = world.log.register("stranger", "stranger")
    deliver(world, stranger, {**write, "value": value})
    world.settle()
    assert headings(old) == headings(new) == {}
    world.upgrade()
    world.settle()
    deliver(
        world,
        stranger,
        {**write, "collection": "folder", "pk": "f", "value": {"name": "at last"}},
    )
    world.settle()
    for phone in world.phones:
        assert phone.notes() == {
            "a": {"heading": "waiting", "cents": 100, "folder": "f", "colour": "white"}
        }


def deliver(world: World, device: str, *changes: dict[str, Any]) -> None:
    start = world.clock() * 1024
    entries = [Outgoing(start + n, n, json.dumps(change)) for n, change in enumerate(changes)]
    world.log.write(device, entries, after=None, now_ms=0, limit=100, byte_limit=1_000_000)


@pytest.mark.parametrize("version", [2, 3])
def test_a_device_is_verified_against_entries_of_all_versions(world: World, version: int) -> None:
    phone, other = world.phone(), world.phone(2)
    phone.put("a", title="x", price=2)
    other.put("b", heading="y", price=3)
    world.settle()
    phone.put("a", title="unsent", price=4)
    phone.upgrade(version)
    phone.put("c", heading="z")
    with phone.running() as sync:
        verified = sync.verify()
        assert (verified.equal, verified.rows) == (True, 3)
        sync.sync()
    with opened(phone.path) as file:
        if version == 2:
            assert file.verify(world.log, 9, lambda _: None).equal
        else:
            with pytest.raises(ConfigurationError, match="upgrades older ones"):
                file.verify(world.log, 9, lambda _: None)


# -- values ------------------------------------------------------------------------------


def test_a_change_of_an_older_schema_version_is_upgraded(world: World) -> None:
    old, new = world.phone(), world.phone(3)
    old.put("a", title="dear", price=5)
    old.put("a", price=7)
    old.sync()
    new.sync()
    assert new.notes()["a"]["cents"] == 700


def test_a_change_of_a_newer_schema_version_is_set_aside_until_the_upgrade(world: World) -> None:
    old, new = world.phone(), world.phone(3)
    old.put("a", title="dear", price=5)
    world.settle()
    new.put("a", cents=550)
    new.put("b", heading="newer", cents=1)
    new.sync()
    with old.running() as sync:
        assert sync.sync().unreadable == 2
        assert sync.status().unreadable == 2
        assert {reason for _, reason in sync.inbox.unreadable()} == {
            "Written under schema version 2; this program has 1."
        }
    assert [note["price"] for note in old.notes().values()] == [5]
    old.put("a", title="cheap")
    world.settle()
    assert new.notes()["a"] == BLANK | {"heading": "cheap", "cents": 550}
    world.upgrade()
    world.settle()
    assert old.notes() == new.notes()
    assert set(new.notes()) == {"a", "b"}
    with old.running() as sync:
        assert sync.status().unreadable == 0


def test_only_changes_of_a_later_schema_version_name_it(world: World) -> None:
    one, three = world.phone(), world.phone(3)
    one.put("a", title="x")
    three.put("b", heading="y")
    world.settle()
    first, second = (entry.data for entry in world.log.entries)
    assert first.endswith('"value":{"title":"x","price":0,"folder":null}}')
    assert second.endswith(',"colour":"white"},"schema":2}')


def test_a_device_that_skips_a_version_reads_what_it_held_of_it(world: World) -> None:
    old, new = world.phone(), world.phone(2)
    new.put("a", heading="x", price=5)
    new.sync()
    old.sync()
    old.upgrade(3)
    old.sync()
    assert old.notes() == {"a": BLANK | {"heading": "x", "cents": 500}}


def test_held_values_are_upgraded(world: World) -> None:
    """Of dead rows and of fields that are not known, as of parked rows above."""
    old, new = world.phone(), world.phone(2)
    old.put("a", title="first", price=1)
    world.settle()
    old.delete("a")
    world.settle()
    stranger = world.log.register("stranger", "stranger")
    write = {"collection": "memo", "pk": "a", "field": None}
    deliver(world, stranger, {**write, "operation": "modify", "value": {"price": 9}})
    world.settle()
    world.upgrade()
    world.settle()
    new.put("a", heading="again")
    deliver(world, stranger, {**write, "operation": "modify", "value": {"price": 8}})
    world.settle()
    assert [phone.notes()["a"]["cents"] for phone in world.phones] == [800, 800]


@pytest.mark.parametrize("drops", [False, True])
def test_a_value_that_no_upgrader_understands_is_set_aside_alone(world: World, drops: bool) -> None:
    new = world.phone(3)
    stranger = world.log.register("stranger", "stranger")
    write = {"operation": "create", "collection": "memo", "field": None}
    values = {"bad": {"price": None}, "good": {"price": 2}}
    deliver(world, stranger, *({**write, "pk": pk, "value": v} for pk, v in values.items()))

    def repaired(change: Change) -> Change | None:
        if change.value == {"cents": None}:
            return None if drops else change._replace(value={"cents": 0})
        return price_to_cents(change)

    with new.running() as sync:
        assert sync.sync().unreadable == 1
        [(entry, reason)] = sync.inbox.unreadable()
    assert json.loads(entry.data)["pk"] == "bad"
    assert reason.startswith("The upgrader of schema version 1 failed: TypeError(")
    assert set(new.notes()) == {"good"}
    with new.running(upgraders={1: repaired}) as sync:
        sync.sync()
        assert sync.status().unreadable == 0
    assert set(new.notes()) == ({"good"} if drops else {"bad", "good"})


@pytest.mark.parametrize("dead", [False, True])
def test_a_held_value_that_no_upgrader_understands_is_set_aside_alone(
    world: World, dead: bool
) -> None:
    phone = world.phone()
    stranger = world.log.register("stranger", "stranger")
    write = {"operation": "modify" if dead else "create", "collection": "memo", "field": None}
    values = {"bad": "much", "good": 2}  # which SQLite would take, in a column of integers
    deliver(
        world,
        stranger,
        *({**write, "pk": k, "value": {"price": v, "folder": "f"}} for k, v in values.items()),
    )
    phone.sync()
    assert phone.notes() == {}
    phone.upgrade(3)

    def strict(change: Change) -> Change:
        if "much" in (change.value or {}).values():
            raise ValueError
        return price_to_cents(change)

    with phone.running(upgraders={1: strict}) as sync:
        sync.sync()
        [(entry, reason)] = sync.inbox.unreadable()
    assert json.loads(entry.data) == {
        **write,
        "collection": "note",
        "pk": "bad",
        "value": {"cents": "much", "folder": "f"},
    }
    assert "ValueError" in reason
    [(held,)] = phone.query("SELECT held FROM sharedlog_row WHERE held IS NOT NULL")
    assert json.loads(held).items() >= {"cents": 200, "folder": "f"}.items()
    with phone.running(upgraders={1: lambda change: change}) as sync:
        sync.sync()
        assert sync.inbox.unreadable() == []
    assert len(phone.query("SELECT held FROM sharedlog_row WHERE held IS NOT NULL")) == 2


@pytest.mark.parametrize(
    "upgrader",
    [
        lambda change: change._replace(value={**change.value, "colour": "red"}),
        lambda change: change._replace(value={}),
        lambda change: change._replace(pk="other"),
        lambda change: change._replace(collection="other"),
        lambda change: change._replace(operation="delete"),
        lambda change: dict(change.value),
    ],
)
def test_an_upgrader_that_changes_more_than_values_is_not_believed(
    world: World, upgrader: Any
) -> None:
    """Who read a change before the upgrade would know of other writes than who reads it after."""
    old, new = world.phone(), world.phone(3)
    old.put("a", title="x", price=1)
    old.delete("a")
    old.sync()
    with new.running(upgraders={1: upgrader}) as sync:
        assert sync.sync().unreadable == 1
        [(_, reason)] = sync.inbox.unreadable()
        assert reason.startswith("The upgrader of schema version 1 ")


# -- other models ------------------------------------------------------------------------


class Person(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.TextField()


class SplitPerson(SyncModel):
    key = peewee.CharField(primary_key=True)
    first = peewee.TextField()
    last = peewee.TextField()

    class Meta:
        table_name = "person"
        formerly = {"first": "name", "last": "name"}  # noqa: RUF012


def split(change: Change) -> Change:
    value = dict(change.value or {})
    for name, place in (("first", 0), ("last", -1)):
        if name in value:
            value[name] = value[name].split()[place]
    return change._replace(value=value)


def test_two_fields_come_of_one(world: World) -> None:
    with world.running("1", Person) as sync:
        Person.create(key="a", name="Ada Byron")
        sync.sync()
    with world.running("2", Person) as sync:
        sync.sync()
        Person.update(name="Ada Lovelace").execute()
        sync.sync()
    database = world.database("1")
    for statement in (
        "ALTER TABLE person RENAME COLUMN name TO first",
        "ALTER TABLE person ADD COLUMN last",
        "UPDATE person SET last = substr(first, 5), first = substr(first, 1, 3)",
    ):
        database.execute_sql(statement)
    with world.running("1", SplitPerson, schema_version=2, upgraders={1: split}) as sync:
        assert [(p.first, p.last) for p in SplitPerson.select()] == [("Ada", "Byron")]
        sync.sync()
        assert [(p.first, p.last) for p in SplitPerson.select()] == [("Ada", "Lovelace")]


class Tag(SyncModel):
    key = peewee.CharField(primary_key=True)
    text = peewee.TextField(default="")


def test_a_table_more_gets_what_was_kept_for_it_and_its_rows_by_adopt(world: World) -> None:
    with world.running("new", Person, Tag) as sync:
        for key in ("a", "b", "gone"):
            Tag.create(key=key, text="from the other")
        Tag.delete_by_id("gone")
        sync.sync()
    with world.running("old", Person) as sync:
        assert sync.sync().received == 4
        assert sync.status().parked == 2
        with sync.database.bind_ctx([Tag]):
            sync.database.create_tables([Tag])
            Tag.create(key="mine", text="from before")  # nobody tracks it yet
    with world.running("old", Person, Tag) as sync:
        assert sync.adopt().created == 1
        sync.sync()
        assert sync.status().parked == 0
        assert {tag.key for tag in Tag.select()} == {"a", "b", "mine"}
    with world.running("new", Person, Tag) as sync:
        sync.sync()
        assert {tag.key for tag in Tag.select()} == {"a", "b", "mine"}


def test_a_table_that_was_given_up_for_a_while_loses_nothing(world: World) -> None:
    """Its rows came back with nothing but what had changed meanwhile, and defaults."""
    for name in "ab":
        with world.running(name, Person, Tag) as sync:
            if name == "a":
                Tag.create(key="t", text="first")
                Person.create(key="p", name="p")
                Person.create(key="q", name="q")
            sync.sync()
    with world.running("a", Tag) as sync:
        sync.sync()
    with world.running("b", Person, Tag) as sync:
        Person.update(name="changed").where(Person.key == "p").execute()
        sync.sync()
    with world.running("a", Tag) as sync:
        sync.sync()
        assert sync.status().parked == 0
    with world.running("a", Person, Tag) as sync:
        sync.sync()
        assert {(p.key, p.name) for p in Person.select()} == {("p", "changed"), ("q", "q")}


class Counted(SyncModel):
    key = peewee.CharField(primary_key=True)
    number = peewee.IntegerField(default=0)

    class Meta:
        table_name = "counted"
        merge = {"number": Counter()}  # noqa: RUF012


class Recounted(SyncModel):
    key = peewee.CharField(primary_key=True)
    total = peewee.IntegerField(default=0)

    class Meta:
        table_name = "counted"
        formerly = {"total": "number"}  # noqa: RUF012
        merge = {"total": Counter()}  # noqa: RUF012


def test_a_counter_that_gets_another_name_goes_on(world: World) -> None:
    def add(name: str, model: Any, field: Any, number: int) -> None:
        with world.running(name, model) as sync:
            model.update({field: field + number}).execute()
            sync.sync()

    with world.running("a", Counted) as sync:
        Counted.create(key="c")
        sync.sync()
    for name in "bab":
        with world.running(name, Counted) as sync:
            sync.sync()
        add(name, Counted, Counted.number, 10)
    world.database("a").execute_sql("ALTER TABLE counted RENAME COLUMN number TO total")
    add("a", Recounted, Recounted.total, 1)
    add("b", Counted, Counted.number, 100)
    with world.running("a", Recounted) as sync:
        sync.sync()
        assert Recounted.get().total == 131
    world.database("b").execute_sql("ALTER TABLE counted RENAME COLUMN number TO total")
    with world.running("b", Recounted) as sync:
        sync.sync()
        assert Recounted.get().total == 131


def test_a_copied_file_that_was_upgraded_goes_on_as_another_device(world: World) -> None:
    """Its entries become another device's, also those that have the old names."""
    phone = world.phone(programs=RULED)
    phone.put("a", title="x")
    phone.add("count", "a", 1)
    phone.sync()
    phone.add("count", "a", 2)
    copied = world.copy(phone)
    phone.sync()
    phone.put("a", title="original")
    copied.add("count", "a", 4)
    copied.put("b", title="copy")
    copied.upgrade(3)
    copied.add("pieces", "a", 8)
    copied.put("b", heading="copy, upgraded")
    world.settle()
    world.upgrade()
    world.settle()
    expected = {"a": ("original", 15), "b": ("copy, upgraded", 0)}
    for one in world.phones:
        assert {k: (n["heading"], n["pieces"]) for k, n in one.notes().items()} == expected
        with one.running() as sync:
            assert sync.verify().equal
    assert len({entry.device for entry in world.log.entries}) == 2


class CascadingMemo(SyncModel):
    key = peewee.CharField(primary_key=True)
    title = peewee.TextField(default="")
    folder = peewee.ForeignKeyField(Folder, null=True, on_delete="CASCADE")

    class Meta:
        table_name = "memo"


class Topic(SyncModel):
    key = peewee.CharField(primary_key=True)


class Essay(SyncModel):
    key = peewee.CharField(primary_key=True)
    topics = peewee.ManyToManyField(Topic)


class Subject(SyncModel):
    key = peewee.CharField(primary_key=True)

    class Meta:
        formerly_table = "topic"


class Article(SyncModel):
    key = peewee.CharField(primary_key=True)
    subjects = peewee.ManyToManyField(Subject)

    class Meta:
        formerly_table = ("draft", "essay")


def test_tables_between_renamed_tables_are_renamed_with_them(world: World) -> None:
    for name in "ab":
        with world.running(name, Topic, Essay, Essay.topics.get_through_model()) as sync:
            if name == "a":
                essay = Essay.create(key="e")
                for key in "xyz":
                    essay.topics.add(Topic.create(key=key))
            sync.sync()
            assert {topic.key for topic in Essay.get().topics} == set("xyz")
    with world.running("a", Topic, Essay, Essay.topics.get_through_model()) as sync:
        Essay.get().topics.remove(Topic.get_by_id("x"))
        sync.sync()
    database = world.database("b")
    for statement in (
        "ALTER TABLE topic RENAME TO subject",
        "ALTER TABLE essay RENAME TO article",
        "ALTER TABLE essay_topic_through RENAME TO article_subject_through",
        "ALTER TABLE article_subject_through RENAME COLUMN essay_id TO article_id",
        "ALTER TABLE article_subject_through RENAME COLUMN topic_id TO subject_id",
    ):
        database.execute_sql(statement)
    with world.running("b", Subject, Article, Article.subjects.get_through_model()) as sync:
        sync.sync()
        assert {subject.key for subject in Article.get().subjects} == set("yz")


class Shelf(SyncModel):
    key = peewee.CharField(primary_key=True)
    height = peewee.IntegerField()


class Book(SyncModel):
    key = peewee.CharField(primary_key=True)
    shelf = peewee.ForeignKeyField(Shelf, null=True)
    lent = peewee.ForeignKeyField(Person, null=True, on_delete="SET NULL")


class MetricShelf(SyncModel):
    key = peewee.CharField(primary_key=True)
    mm = peewee.IntegerField()

    class Meta:
        table_name = "shelf"
        formerly = {"mm": "height"}  # noqa: RUF012


class LentBook(SyncModel):
    key = peewee.CharField(primary_key=True)
    shelf = peewee.ForeignKeyField(MetricShelf, null=True)
    reader = peewee.ForeignKeyField(Person, null=True, on_delete="SET NULL")

    class Meta:
        table_name = "book"
        formerly = {"reader": "lent"}  # noqa: RUF012


METRIC = (
    "ALTER TABLE shelf RENAME COLUMN height TO mm",
    "UPDATE shelf SET mm = mm * 10",
    "ALTER TABLE book RENAME COLUMN lent_id TO reader_id",
)


def to_metric(change: Change) -> Change:
    value = dict(change.value or {})
    if "mm" in value:
        value["mm"] *= 10
    if "reader" in value:
        value["reader"] = value["reader"] and value["reader"].lower()
    return change._replace(value=value)


def test_deleted_rows_that_are_needed_and_cleared_references_are_carried_over(
    world: World,
) -> None:
    models = (Person, Shelf, Book)
    for name in "abc":
        with world.running(name, *models) as sync:
            if name == "a":
                Shelf.create(key="s", height=3)
                Person.create(key="P", name="Ada")
            sync.sync()
    with world.running("b", *models):
        Book.create(key="one", shelf="s")
        Book.create(key="two", lent="P")
    with world.running("c", *models):
        Book.create(key="three", shelf="s")
    with world.running("a", *models) as sync:
        Shelf.delete_by_id("s")
        Person.delete_by_id("P")
        sync.sync()
    with world.running("b", *models) as sync:
        sync.sync()
        assert Book.get_by_id("two").lent_id is None  # and the shelf is kept for the first
        Book.delete_by_id("one")
        sync.sync()
        assert Shelf.select().count() == 0
    database = world.database("b")
    for statement in METRIC:
        database.execute_sql(statement)
    with world.running("c", *models) as sync:
        sync.sync()
    metric = {"schema_version": 2, "upgraders": {1: to_metric}}
    with world.running("b", Person, MetricShelf, LentBook, **metric) as sync:
        sync.sync()
        assert MetricShelf.get().mm == 30  # for the third
        Person.create(key="p", name="Ada again")
        sync.sync()
        assert LentBook.get_by_id("two").reader_id == "p"


def test_what_a_local_deletion_says_of_the_row_is_upgraded(world: World) -> None:
    """It was recorded by the old program, and is merged by the new one."""
    models = (Person, Shelf, Book)
    for name in "ab":
        with world.running(name, *models) as sync:
            if name == "a":
                Shelf.create(key="s", height=3)
            sync.sync()
    with world.running("b", *models) as sync:
        Book.create(key="one", shelf="s")
        sync.sync()
    with world.running("a", *models):
        Shelf.delete_by_id("s")
    for statement in METRIC:
        world.database("a").execute_sql(statement)
    metric = {"schema_version": 2, "upgraders": {1: to_metric}}
    with world.running("a", Person, MetricShelf, LentBook, **metric) as sync:
        sync.sync()
        assert MetricShelf.get().mm == 30  # kept for the book


def test_what_triggers_noted_before_the_upgrade_is_upgraded(world: World) -> None:
    """A rule makes the field's value of it, after the application migrated its table."""
    with world.running("a", Tally, capture="triggers") as sync:
        Tally.create(key="t", best=3)
        sync.sync()
        Tally.update(best=4).execute()
        Tally.create(key="new", best=5)
    options: dict[str, Any] = {"schema_version": 2, "upgraders": {1: best_to_top}}
    options["capture"] = "triggers"
    database = world.database("a")
    with database.bind_ctx([TopStock]):
        sync = Sync(database, [TopStock], shared_log=world.log, now=world.clock, **options)
        with sync.migrating():
            for program in RULED:
                for statement in program.migration:
                    database.execute_sql(statement)
        with sync:
            sync.sync()
            assert {row.key: row.top for row in TopStock.select()} == {"t": 40, "new": 50}
            assert sync.verify().equal
            TopStock.update(top=39).execute()
            sync.sync()
            assert {row.key: row.top for row in TopStock.select()} == {"t": 40, "new": 50}


def test_values_from_before_tracking_are_never_dropped(world: World) -> None:
    """There is no entry of them that could be set aside."""
    database = world.database("a")
    with database.bind_ctx([Folder, Memo]):
        database.create_tables([Folder, Memo])
        Folder.create(key="f")
        Memo.create(key="m", title="old", price=1, folder="f")
    phone = world.phone()
    stranger = world.log.register("stranger", "stranger")
    with world.running("a", Folder, CascadingMemo) as sync:
        deliver(
            world,
            stranger,
            {
                "operation": "delete",
                "collection": "folder",
                "pk": "f",
                "field": None,
                "value": None,
            },
        )
        sync.sync()
        [parked] = sync.parked()
        assert parked.values["title"] == "old"

    def fails(change: Change) -> Change:
        raise ValueError

    options = {"schema_version": 2, "upgraders": {1: fails}}
    with world.running("a", Folder, CascadingMemo, **options) as sync:
        sync.sync()
        assert [row.values["title"] for row in sync.parked() if row.entry is None] == ["old"]
    assert phone.notes() == {}


# -- what is refused ---------------------------------------------------------------------


def test_an_older_program_is_refused_and_changes_nothing(world: World) -> None:
    phone = world.phone(3)
    phone.put("a", heading="new")
    phone.sync()
    before = phone.query("SELECT * FROM sharedlog_state ORDER BY 1")
    phone.version = 2
    with (
        pytest.raises(DatabaseTooNew, match="schema version 2, where this one has 1"),
        phone.running(),
    ):
        pass
    assert phone.query("SELECT * FROM sharedlog_state ORDER BY 1") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema_version": 0}, "whole number from 1"),
        ({"schema_version": "2"}, "whole number from 1"),
        ({"schema_version": True}, "whole number from 1"),
        ({"upgraders": {1: price_to_cents}}, "does not fit schema_version=1"),
        ({"schema_version": 2, "upgraders": {0: price_to_cents}}, "does not fit"),
        ({"schema_version": 2, "upgraders": {2: price_to_cents}}, "does not fit"),
        ({"schema_version": 2, "upgraders": {1: "cents"}}, "does not fit"),
    ],
)
def test_versions_and_upgraders_must_fit(
    world: World, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message), world.running("x", Person, **options):
        pass


class Forgetful:
    """A serializer from before there were schema versions."""

    def encode(self, change: Change) -> str:
        return json.dumps([*change[:3], dict(change.value or {})])

    def decode(self, data: str) -> Change:
        return Change(*json.loads(data))


def test_a_serializer_must_carry_the_schema_version(world: World) -> None:
    with world.running("x", Person, serializer=Forgetful()) as sync:
        Person.create(key="a", name="x")
        sync.sync()
    with pytest.raises(ConfigurationError, match="loses the schema version"):
        world.running("x", Person, serializer=Forgetful(), schema_version=2).__enter__()


def test_entries_keep_their_schema_version_whatever_a_processor_makes_of_them(
    world: World,
) -> None:
    def made_anew(change: Change) -> Change:
        return Change(change.operation, change.collection, change.pk, change.value)

    one, three = world.phone(), world.phone(3)
    one.put("a", title="x")
    one.upgrade(3)
    three.put("b", heading="y")
    for phone in world.phones:
        with phone.running(pre_send=made_anew) as sync:
            sync.sync()
    assert [json.loads(entry.data).get("schema") for entry in world.log.entries] == [None, 2]


def declared(**names: Any) -> type[SyncModel]:
    meta = type("Meta", (), {"table_name": "declared", **names})
    fields = {"key": peewee.CharField(primary_key=True), "heading": peewee.TextField()}
    model: type[SyncModel] = type("Declared", (SyncModel,), {**fields, "Meta": meta})
    return model


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"formerly": ["title"]}, "formerly is"),
        ({"formerly": {"title": "heading"}}, "'title', which is no field"),
        ({"formerly": {"heading": "key"}}, "'key', which is a field of today"),
        ({"formerly": {"heading": 5}}, "no name"),
        ({"formerly": {"heading": ("title", "")}}, "no name"),
        ({"formerly_table": {"memo"}}, "no name"),
        ({"formerly_table": "person"}, "another tracked model's"),
    ],
)
def test_names_that_cannot_be_former_ones_are_refused(
    world: World, names: dict[str, Any], message: str
) -> None:
    with (
        pytest.raises(ConfigurationError, match=message),
        world.running("x", Person, declared(**names)),
    ):
        pass


def test_two_tables_cannot_have_been_one(world: World) -> None:
    class Other(SyncModel):
        class Meta:
            formerly_table = "memo"

    with pytest.raises(ConfigurationError, match="another tracked model's"):
        world.running("x", Other, declared(formerly_table="memo")).__enter__()


def test_a_key_may_get_another_name(world: World) -> None:
    """It travels without one."""
    with world.running("x", declared(formerly={"key": "code"})):
        pass


def test_history_goes_back_to_the_former_names_of_a_table(world: World) -> None:
    with world.running("a", Topic) as sync:
        topic = Topic.create(key="x")
        sync.sync()
    with world.running("b", Topic) as sync:
        sync.sync()
    world.database("a").execute_sql("ALTER TABLE topic RENAME TO subject")
    with world.running("a", Subject) as sync:
        sync.sync()
        Subject.get_by_id("x").delete_instance()
        sync.sync()
        told = sync.history(Subject(key="x"))
        assert [entry.change.collection for entry in told] == ["topic", "subject"]
        assert [entry.change.operation for entry in told] == ["create", "delete"]
    with world.running("b", Topic) as sync:  # of the former version, and later
        topic.delete_instance()
        sync.sync()
    with world.running("a", Subject) as sync:
        told = sync.history(Subject(key="x"))
        assert [entry.change.collection for entry in told] == ["topic", "subject", "topic"]
        assert sync.history(Subject(key="x"), limit=2) == told[:2]
