"""Constraints between devices: what is parked, kept and cleared, told, and decided."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    ConfigurationError,
    Entry,
    MemorySharedLog,
    NotParked,
    Sync,
    SyncModel,
)
from sharedlog.events import Event, RowKept, RowParked, RowReturned
from sharedlog.remote.sharedlog import Outgoing

from .devices import Device, stored_rows


class Author(SyncModel):
    key = peewee.CharField(primary_key=True)
    email = peewee.CharField(null=True, unique=True)
    name = peewee.CharField(default="")


class Shelf(SyncModel):
    key = peewee.CharField(primary_key=True)
    label = peewee.CharField(default="")


class Book(SyncModel):
    key = peewee.CharField(primary_key=True)
    title = peewee.CharField(default="")
    author = peewee.ForeignKeyField(Author, null=True)  # NO ACTION: the author is kept
    shelf = peewee.ForeignKeyField(Shelf, null=True, on_delete="SET NULL")


class Page(SyncModel):
    key = peewee.CharField(primary_key=True)
    book = peewee.ForeignKeyField(Book, on_delete="CASCADE")


class Wish(SyncModel):
    key = peewee.CharField(primary_key=True)
    text = peewee.CharField(default="")
    count = peewee.IntegerField(default=0)

    class Meta:
        update_wins = True


MODELS = (Author, Shelf, Book, Page, Wish)


class Fleet:
    """Devices at one shared log. What they were told is in `told`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._time = 1_800_000_000_000
        self.log = MemorySharedLog(now=self.now)
        self.devices: list[Device] = []
        self.told: list[list[Event]] = []
        for _ in range(2):
            self.add()

    def add(self) -> Device:
        path = self._folder / f"{len(self.devices)}.db"
        device = Device(path, MODELS, shared_log=self.log, now=self.now)
        self.devices.append(device)
        self.told.append([])
        device.sync.on_event(self.told[-1].append)
        return device

    def now(self) -> int:
        self._time += 1
        return self._time

    def sync(self, *order: int) -> None:
        """Everybody syncs until everybody has everything, in this order."""
        for _ in range(2):
            for number in order or range(len(self.devices)):
                with self.devices[number]:
                    self.devices[number].sync.sync()

    def same(self) -> dict[str, list[Any]]:
        """All tables, which are the same on all devices; and so is what is parked."""
        found = [device.stored() for device in self.devices]
        assert all(each == found[0] for each in found)
        parked = [list(map(_told, device.sync.parked())) for device in self.devices]
        assert all(each == parked[0] for each in parked), parked
        for device in self.devices:
            assert not device.database.execute_sql("PRAGMA foreign_key_check").fetchall()
        return found[0]

    def keys(self, model: Any) -> list[str]:
        return [row[1] for row in self.same()[model._meta.table_name]]

    def close(self) -> None:
        for device in self.devices:
            device.close()


def _told(parked: Any) -> tuple[Any, ...]:
    return parked.code, parked.reason, parked.collection, parked.pk, dict(parked.values)


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet, None, None]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


ORDERS = [(0, 1), (1, 0)]


# -- unique values -----------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_unique_value_belongs_to_the_older_row_on_every_device(
    fleet: Fleet, order: Sequence[int]
) -> None:
    one, two = fleet.devices
    with one:
        Author.create(key="ann", email="a@x")
    with two:
        Author.create(key="bob", email="a@x")
    fleet.sync(*order)

    assert fleet.keys(Author) == ["ann"]
    (parked,) = two.sync.parked()
    assert (parked.code, parked.pk, parked.values["email"]) == ("UNIQUE", "bob", "a@x")
    assert parked.reason == 'email "a@x" belongs to "ann"'
    assert [e.row.pk for told in fleet.told for e in told if isinstance(e, RowParked)] == [
        "bob",
        "bob",
    ]


def test_a_value_that_is_unique_to_the_collation_of_an_index_belongs_to_the_older_row(
    fleet: Fleet,
) -> None:
    for device in fleet.devices:
        device.database.execute_sql("CREATE UNIQUE INDEX n ON author (name COLLATE NOCASE)")
    one, two = fleet.devices
    with one:
        Author.create(key="ann", name="Ann")
    with two:
        Author.create(key="bob", name="ANN")
    fleet.sync()
    assert fleet.keys(Author) == ["ann"]


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_keys_that_differ_and_are_equal_to_their_collation(
    tmp_path: Path, recorder: str, order: Sequence[int]
) -> None:
    """The older row has the place; neither gets what was written to the other one."""

    words, devices = words_without_case(tmp_path, recorder)
    with devices[0]:
        words[0].create(text="older")
    with devices[1]:
        words[1].create(text="OLDER")
        words[1].update(count=5).execute()
    for n in (*order, *order, *order):
        with devices[n]:
            devices[n].sync.sync()
    check_older_stands(words, devices)


def test_an_older_key_comes_where_the_row_that_has_it_is_read_anew(
    tmp_path: Path, recorder: str
) -> None:
    words, devices = words_without_case(tmp_path, recorder)
    with devices[0]:
        words[0].create(text="older")
    with devices[1]:
        words[1].create(text="OLDER", count=5)
        devices[1].sync.sync()
        devices[1].sync.reset()
    for n in (0, 1, 0):
        with devices[n]:
            devices[n].sync.sync()
    check_older_stands(words, devices)


def words_without_case(tmp_path: Path, recorder: str) -> tuple[list[Any], list[Device]]:
    """Two devices with a table whose keys compare without case."""

    def word() -> Any:
        class Word(SyncModel):
            text = peewee.CharField(primary_key=True, collation="NOCASE")
            count = peewee.IntegerField(default=0)

        return Word

    log, words = MemorySharedLog(), [word(), word()]
    return words, [
        Device(tmp_path / f"{n}.db", [each], shared_log=log, recorder=recorder)
        for n, each in enumerate(words)
    ]


def check_older_stands(words: list[Any], devices: list[Device]) -> None:
    for device, each in zip(devices, words, strict=True):
        with device:
            assert list(each.select(each.text, each.count).tuples()) == [("older", 0)]
            (parked,) = device.sync.parked()
            assert (parked.pk, parked.code, parked.values) == ("OLDER", "UNIQUE", {"count": 5})
            assert device.sync.verify().equal
        device.close()


def _clash(fleet: Fleet) -> None:
    one, two = fleet.devices
    with one:
        Author.create(key="ann", email="a@x", name="Ann")
    with two:
        Author.create(key="bob", email="a@x", name="Bob")
        Book.create(key="b1", author="bob")
    fleet.sync()
    assert [p.pk for p in one.sync.parked()] == ["bob", "b1"]


def _rename(device: Device) -> None:
    parked, _ = device.sync.parked()
    device.sync.resolve(parked, email="b@x")


def _keep_the_other(device: Device) -> None:
    Author.delete_by_id("ann")
    device.sync.reconcile()


def _merge(device: Device) -> None:
    parked, book = device.sync.parked()
    Author.update(name=f"Ann or {parked.values['name']}").where(Author.key == "ann").execute()
    device.sync.resolve(book, author="ann")
    device.sync.discard(parked)


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize(
    ("decide", "authors", "owner"),
    [
        (_rename, {"ann": "Ann", "bob": "Bob"}, "bob"),
        (_keep_the_other, {"bob": "Bob"}, "bob"),
        (_merge, {"ann": "Ann or Bob"}, "ann"),
    ],
)
def test_the_application_decides_and_all_devices_follow(
    fleet: Fleet, decide: Callable[[Device], None], authors: dict[str, str], owner: str, by: int
) -> None:
    _clash(fleet)
    with fleet.devices[by]:
        decide(fleet.devices[by])
        assert fleet.devices[by].sync.parked() == []
    fleet.sync(by, 1 - by)

    fleet.same()
    for device in fleet.devices:
        with device:
            assert {author.key: author.name for author in Author.select()} == authors
            assert Book.get_by_id("b1").author_id == owner
        assert device.sync.parked() == []
    returned = [e.pk for e in fleet.told[1 - by] if isinstance(e, RowReturned)]
    assert "b1" in returned


def test_both_decide_differently_and_end_equal(fleet: Fleet) -> None:
    _clash(fleet)
    for device, decide in zip(fleet.devices, (_rename, _merge), strict=True):
        with device:
            decide(device)
    fleet.sync()
    fleet.sync(1, 0)
    fleet.same()


def test_values_are_passed_on_in_a_circle(fleet: Fleet) -> None:
    one, _ = fleet.devices
    with one:
        for key in "abc":
            Author.create(key=key, email=key)
    fleet.sync()
    with one, one.database.atomic():
        Author.update(email=None).execute()
        for key, email in zip("abc", "bca", strict=True):
            Author.update(email=email).where(Author.key == key).execute()
    fleet.sync()
    fleet.same()
    assert fleet.told[1] and not any(isinstance(e, RowParked) for e in fleet.told[1])


def test_what_is_not_parked_any_more_cannot_be_decided(fleet: Fleet) -> None:
    _clash(fleet)
    one, _ = fleet.devices
    parked, _ = one.sync.parked()
    with one:
        with pytest.raises(ConfigurationError, match="no field 'mail'"):
            one.sync.resolve(parked, mail="b@x")
        one.sync.resolve(parked, email="b@x")
        with pytest.raises(NotParked):
            one.sync.resolve(parked, email="c")
        with pytest.raises(NotParked):
            one.sync.discard(parked)


# -- parents that somebody deleted -------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_child_keeps_a_parent_that_was_deleted_elsewhere(
    fleet: Fleet, order: Sequence[int]
) -> None:
    one, two = fleet.devices
    with one:
        Author.create(key="ann", email="a@x", name="Ann")
    fleet.sync()
    with one:
        Author.update(name="Anne").where(Author.key == "ann").execute()
        Author.delete_by_id("ann")
    with two:
        Book.create(key="b1", author="ann")
    fleet.sync(*order)

    assert fleet.keys(Book) == ["b1"]
    for device, told in zip(fleet.devices, fleet.told, strict=True):
        with device:
            assert Author.get_by_id("ann").name == "Anne"
        assert any(isinstance(event, RowKept) and event.pk == "ann" for event in told)

    with one:
        Book.delete_by_id("b1")
    fleet.sync(*order)
    assert (fleet.keys(Author), fleet.keys(Book)) == ([], [])


def test_a_kept_row_can_be_written_and_created_again(fleet: Fleet) -> None:
    one, two = fleet.devices
    with one:
        Author.create(key="ann", name="Ann")
    fleet.sync()
    with one:
        Author.delete_by_id("ann")
    with two:
        Book.create(key="b1", author="ann")
    fleet.sync()
    with one:
        Author.update(name="Anna").where(Author.key == "ann").execute()
    fleet.sync()
    third = fleet.add()
    fleet.sync()
    with third:
        assert Author.get_by_id("ann").name == "Anna"
    with two:
        Book.delete_by_id("b1")
        Author.delete_by_id("ann")
        Author.create(key="ann", email="new", name="New")
    fleet.sync()
    assert fleet.keys(Author) == ["ann"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_reference_is_cleared_and_comes_back(fleet: Fleet, order: Sequence[int]) -> None:
    one, two = fleet.devices
    with one:
        Shelf.create(key="s", label="top")
    fleet.sync()
    with one:
        Shelf.delete_by_id("s")
    with two:
        Book.create(key="b1", shelf="s")
    fleet.sync(*order)
    for device in fleet.devices:
        with device:
            assert Book.get_by_id("b1").shelf_id is None
    fleet.same()

    with one:
        Shelf.create(key="s", label="again")
    fleet.sync(*order)
    for device in fleet.devices:
        with device:
            assert Book.get_by_id("b1").shelf_id == "s"
    fleet.same()


@pytest.mark.parametrize("order", ORDERS)
def test_children_fall_with_their_parents(fleet: Fleet, order: Sequence[int]) -> None:
    one, two = fleet.devices
    with one:
        Book.create(key="b1", title="first")
    fleet.sync()
    with one:
        Book.delete_by_id("b1")
    with two:
        Page.create(key="p1", book="b1")
    fleet.sync(*order)
    assert (fleet.keys(Book), fleet.keys(Page)) == ([], [])
    (parked,) = one.sync.parked()
    assert (parked.code, parked.pk) == ("PARENT_DELETED", "p1")

    with two:
        Book.create(key="b1", title="second")
    fleet.sync(*order)
    assert (fleet.keys(Book), fleet.keys(Page)) == (["b1"], ["p1"])


# -- rows that a modification revives ----------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_later_modification_wins_over_a_deletion_where_the_model_says_so(
    fleet: Fleet, order: Sequence[int]
) -> None:
    one, two = fleet.devices
    with one:
        Wish.create(key="w", text="a boat", count=1)
        Wish.create(key="v", text="a horse")
    fleet.sync()
    with one:
        Wish.update(count=2).where(Wish.key == "v").execute()  # before the deletion
        Wish.delete().execute()
    with two:
        Wish.update(count=3).where(Wish.key == "w").execute()
    fleet.sync(*order)
    for device in fleet.devices:
        with device:
            assert list(Wish.select().tuples()) == [("w", "a boat", 3)]
    fleet.same()
    with two:
        Wish.delete_by_id("w")
    fleet.sync(*order)
    assert fleet.keys(Wish) == []


def test_update_wins_is_yes_or_no(tmp_path: Path) -> None:
    class Odd(SyncModel):
        class Meta:
            update_wins = "sometimes"

    with pytest.raises(ConfigurationError, match="update_wins"):
        Sync(peewee.SqliteDatabase(":memory:"), [Odd], shared_log=MemorySharedLog())


# -- one bad entry -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("no json", "UNREADABLE"),
        (
            '{"operation":"create","collection":"page","pk":"x","value":{"book":"?"}}',
            "PARENT_MISSING",
        ),
        ('{"operation":"create","collection":"author","pk":"x","value":{"email":"500"}}', "UNIQUE"),
        (
            '{"operation":"create","collection":"author","pk":"x","value":{"name":[]}}',
            "VALUE_UNFIT",
        ),
        (
            '{"operation":"create","collection":"author","pk":"x","value":{"name":null}}',
            "CONSTRAINT",
        ),
        ('{"operation":"create","collection":"planet","pk":"x","value":{}}', "UNKNOWN_COLLECTION"),
    ],
)
def test_one_bad_entry_in_a_thousand_blocks_none(fleet: Fleet, data: str, code: str) -> None:
    one, _ = fleet.devices
    log, device = fleet.log, fleet.log.register("foreign", "foreign")
    entries = [
        Outgoing(
            1000 + n,
            0,
            f'{{"operation":"create","collection":"author","pk":"{n}","value":{{"email":"{n}"}}}}',
        )
        for n in range(1000)
    ]
    entries.insert(700, Outgoing(9000, 0, data))
    log.write(device, entries, after=None, now_ms=fleet.now(), limit=1, byte_limit=1)
    with one:
        result = one.sync.sync()
        assert Author.select().count() == 1000
    (parked,) = one.sync.parked()
    assert parked.code == code
    assert result.parked + result.unreadable == (code != "UNKNOWN_COLLECTION")
    with one:
        one.sync.discard(parked)
    assert one.sync.parked() == []
    assert isinstance(parked.entry, Entry) == (code == "UNREADABLE")
    assert len(stored_rows(one.database, "author")) == 1000
