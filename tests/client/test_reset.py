"""Beginning anew as another device: nothing sent is lost, nothing deleted comes back."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import peewee
import pytest

from sharedlog import Change, ConnectionFailed, MemorySharedLog, SyncModel, UnsentWork
from sharedlog.remote.sharedlog import Page, Receipt, Rejection

from .conftest import OpenDevice
from .devices import Device


class Owner(SyncModel):
    name = peewee.CharField(primary_key=True)
    note = peewee.TextField(default="")


class Item(SyncModel):
    owner = peewee.ForeignKeyField(Owner, null=True, on_delete="CASCADE")
    place = peewee.IntegerField()
    weight = peewee.FloatField(null=True)
    size = peewee.IntegerField(default=0)

    class Meta:
        primary_key = peewee.CompositeKey("owner", "place")


MODELS = (Owner, Item)
WAL = {"foreign_keys": 1, "journal_mode": "wal"}


class Line(MemorySharedLog):
    """A log that can be cut off, that refuses some entries, and lets things happen meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.refused = ""
        self.meanwhile: Callable[[], object] = lambda: None

    def write(self, device: str, entries: Any, **options: Any) -> Receipt:
        self._carry()
        bad = [i for i, entry in enumerate(entries) if self.refused and self.refused in entry.data]
        good = [entry for i, entry in enumerate(entries) if i not in bad]
        rejected = [Rejection(index, "ENTRY_INVALID", "no") for index in bad]
        return replace(super().write(device, good, **options), rejected=rejected)

    def read(self, device: str, **options: Any) -> Page:
        self._carry()
        page = super().read(device, **options)
        self.meanwhile()
        return page

    def _carry(self) -> None:
        if self.cut:
            raise ConnectionFailed


@pytest.fixture
def log() -> Line:
    return Line()


@pytest.fixture
def pair(open_device: OpenDevice, log: Line) -> tuple[Device, Device]:
    """Two devices with the same rows, each of which wrote some."""
    one = open_device(MODELS, name="one", shared_log=log, pragmas=WAL)
    two = open_device(MODELS, name="two", shared_log=log, pragmas=WAL)
    with one:
        Owner.create(name="ann")
        Item.insert_many([{"owner": "ann", "place": place} for place in range(30)]).execute()
        one.sync.sync()
    with two:
        two.sync.sync()
        Owner.create(name="bob")
        Item.insert_many([{"owner": "bob", "place": place} for place in range(30)]).execute()
        Item.update(weight=1.5).where(Item.place == 5).execute()
        two.sync.sync()
    one.sync.sync()
    return one, two


def assert_equal(*devices: Device) -> None:
    """After everybody has heard of everything, all have the same, and it is what the log says."""
    for _ in range(2):
        for device in devices:
            device.sync.sync()
    for device in devices:
        assert device.stored() == devices[0].stored()
        status = device.sync.status()
        assert (status.pending, status.refused) == (0, 0)
        verified = device.sync.verify()
        assert verified.equal, verified.differences


def test_a_reset_device_is_another_one_with_the_same_rows(
    pair: tuple[Device, Device], log: Line
) -> None:
    one, two = pair
    before, rows = one.sync.status(), one.stored()
    sent = len(log.entries)
    one.sync.reset()
    status = one.sync.status()
    assert (status.device, status.checkpoint, status.last_contact) == (None, None, None)
    assert (one.stored(), one.log()) == (rows, [])
    one.sync.sync()
    assert one.sync.status().device not in (None, before.device, two.sync.status().device)
    assert one.stored() == rows
    assert len(log.entries) == sent  # there was nothing new to say
    assert_equal(one, two)


def test_what_was_deleted_elsewhere_stays_deleted(pair: tuple[Device, Device]) -> None:
    one, two = pair
    with two:
        Item.delete().where(Item.place < 10).execute()
        Owner.delete_by_id("bob")
        two.sync.sync()
    one.sync.reset()
    one.sync.sync()
    with one:
        assert Item.select().count() == 20
        assert [owner.name for owner in Owner.select()] == ["ann"]
    assert_equal(one, two)


def test_what_this_device_deleted_and_sent_stays_deleted(pair: tuple[Device, Device]) -> None:
    one, two = pair
    with one:
        Item.delete().where(Item.place < 10).execute()
        one.sync.sync()
        one.sync.prune(keep_ms=0)
    one.sync.reset()
    assert_equal(one, two)
    with one:
        assert Item.select().where(Item.place < 10).count() == 0


def test_unsent_work_is_not_given_up_by_mistake(pair: tuple[Device, Device]) -> None:
    one, two = pair
    with one:
        Item.update(weight=7).where(Item.place == 1).execute()
        Item.delete().where(Item.place == 2).execute()
        Owner.create(name="eve")
    before = (one.stored(), one.log(), one.sync.status())
    with pytest.raises(UnsentWork, match="5 changes") as caught:
        one.sync.reset()
    assert caught.value.count == 5
    assert (one.stored(), one.log(), one.sync.status()) == before

    one.sync.reset(force=True)
    assert_equal(one, two)
    with one:
        # The log wins over what was changed and deleted; it never heard of what was created.
        assert {i.weight for i in Item.select().where(Item.place == 1)} == {None}
        assert Item.select().where(Item.place == 2).count() == 2
        assert Owner.select().where(Owner.name == "eve").count() == 1


def test_what_the_service_refused_is_unsent_work(pair: tuple[Device, Device], log: Line) -> None:
    one, _ = pair
    log.refused = "unwanted"
    with one:
        Owner.create(name="unwanted")
    one.sync.sync()
    assert one.sync.status().refused == 1
    with pytest.raises(UnsentWork, match="1 change ") as caught:
        one.sync.reset()
    assert caught.value.count == 1


def test_what_the_application_kept_back_itself_is_none(open_device: OpenDevice, log: Line) -> None:
    device = open_device(MODELS, shared_log=log)
    keep: Callable[[Change], Change | None] = lambda change: None  # noqa: E731
    object.__setattr__(device.sync._replica.pipeline, "pre_send", keep)
    with device:
        Owner.create(name="private")
    device.sync.sync()
    assert (device.sync.status().pending, device.sync.status().refused) == (0, 0)
    device.sync.reset()


def test_rows_that_the_log_never_heard_of_are_recorded(pair: tuple[Device, Device]) -> None:
    one, two = pair
    one.database.execute_sql("INSERT INTO owner VALUES ('eve', 'raw')")
    one.database.execute_sql("INSERT INTO item VALUES ('eve', 1, 2.5, 3)")
    one.sync.reset()
    assert_equal(one, two)
    with two:
        assert [(i.place, i.weight, i.size) for i in Owner.get_by_id("eve").item_set] == [
            (1, 2.5, 3)
        ]


def test_what_was_changed_behind_the_recorders_back_becomes_what_the_log_says(
    pair: tuple[Device, Device],
) -> None:
    one, two = pair
    one.database.execute_sql("UPDATE item SET weight = 99")
    one.database.execute_sql("DELETE FROM item WHERE place = 4")
    one.sync.reset()
    assert_equal(one, two)
    with one:
        assert Item.select().where(Item.weight == 99).count() == 0
        assert Item.select().where(Item.place == 4).count() == 2


def test_fields_that_the_log_never_heard_of_are_recorded(open_device: OpenDevice) -> None:
    """Entries of a program that did not know the column yet: its values here are only here."""
    log = Line()
    device = log.register(None, "old program")
    data = '{"operation":"%s","collection":"owner","pk":"%s","value":%s}'
    from sharedlog.remote.sharedlog import Outgoing

    batch = [
        Outgoing(1, 0, data % ("create", "ann", "{}")),
        Outgoing(2, 0, data % ("create", "bob", "{}")),
        Outgoing(3, 0, data % ("modify", "bob", '{"later":1}')),
    ]
    log.write(device, batch, after=None, now_ms=0, limit=9, byte_limit=999)
    one, two = open_device(MODELS, shared_log=log), open_device(MODELS, shared_log=log)
    one.sync.sync()
    one.database.execute_sql("UPDATE owner SET note = 'migrated' WHERE name = 'bob'")
    one.sync.reset()
    assert_equal(one, two)
    with two:
        assert Owner.get_by_id("bob").note == "migrated"


def test_the_application_goes_on_writing(pair: tuple[Device, Device], log: Line) -> None:
    one, two = pair
    one.sync.reset()
    with one:
        Item.update(weight=3).where(Item.place == 3).execute()
        Item.delete().where(Item.place == 6).execute()
        Owner.update(note="later").execute()
        Owner.create(name="eve")
        Item.create(owner="eve", place=1)
    assert_equal(one, two)
    with two:
        assert {item.weight for item in Item.select().where(Item.place == 3)} == {3}
        assert Item.select().where(Item.place == 6).count() == 0
        assert {owner.note for owner in Owner.select()} == {"later", ""}


def test_timestamps_are_not_given_out_again(open_device: OpenDevice, log: Line) -> None:
    time = iter((5_000_000, 5_000_000))
    device = open_device(MODELS, shared_log=log, now=lambda: next(time, 0))
    with device:
        Owner.create(name="ann")
        device.sync.sync()
        [sent] = device.log()
        device.sync.reset()
        Owner.create(name="eve")
    [recorded] = device.log()
    assert recorded.ticks > sent.ticks


@pytest.mark.parametrize("step", range(3, 200, 14))
def test_interrupted_anywhere_it_goes_on(open_device: OpenDevice, step: int) -> None:
    log = Line()
    one = open_device(MODELS, name="one", shared_log=log)
    two = open_device(MODELS, name="two", shared_log=log)
    with two:
        Owner.create(name="bob")
        Item.insert_many([{"owner": "bob", "place": place} for place in range(900)]).execute()
        two.sync.sync()
    one.sync.sync()
    with two:
        Item.delete().where(Item.place > 800).execute()
        two.sync.sync()
    one.database.execute_sql("INSERT INTO owner VALUES ('raw', '')")
    with one, one.database.atomic():
        rows = [("raw", place, None, 0) for place in range(700)]
        one.database.cursor().executemany("INSERT INTO item VALUES (?, ?, ?, ?)", rows)
    one.sync.reset()

    instructions = iter(range(10_000))
    one.database.connection().set_progress_handler(lambda: next(instructions) == step, 1_000)
    with suppress(peewee.OperationalError, sqlite3.OperationalError):
        one.sync.sync()
        pytest.fail(f"it came to its end in {next(instructions)} steps")
    one.database.connection().set_progress_handler(None, 0)
    assert_equal(one, two)
    with two:
        assert Item.select().count() == 801 + 700


def test_nothing_is_recorded_before_everything_was_read(
    pair: tuple[Device, Device], log: Line
) -> None:
    """Else what others deleted would be recorded as new."""
    one, two = pair
    with two:
        Item.delete().where(Item.place < 10).execute()
        two.sync.sync()
    one.sync.reset()
    one.sync.receive()
    one.sync.send()
    assert one.log() == []
    log.cut = True
    with pytest.raises(ConnectionFailed):
        one.sync.sync()
    assert one.log() == []
    log.cut = False
    one.sync.sync()
    assert one.log() == []
    assert_equal(one, two)


def test_what_another_process_received_and_did_not_apply_yet_was_not_read(
    open_device: OpenDevice, log: Line
) -> None:
    one = open_device(MODELS, name="one", shared_log=log, pragmas=WAL)
    two = open_device(MODELS, name="two", shared_log=log, pragmas=WAL)
    again = open_device(MODELS, name="one", shared_log=log, pragmas=WAL, create=False)
    with two:
        Owner.create(name="bob")
        two.sync.sync()
        one.sync.sync()
        Owner.delete_by_id("bob")
        two.sync.sync()
    one.sync.reset()

    def receive() -> None:
        log.meanwhile = lambda: None
        again.sync.receive()

    log.meanwhile = receive
    one.sync.sync()
    assert (one.sync.status().waiting, one.log()) == (2, [])
    assert_equal(one, two)
    assert one.stored()["owner"] == []


def test_another_process_that_is_in_the_middle_of_a_sync(
    open_device: OpenDevice, log: Line
) -> None:
    """What it still gets as the old device is not taken for the new one's."""
    one = open_device(MODELS, name="one", shared_log=log, pragmas=WAL)
    two = open_device(MODELS, name="two", shared_log=log, pragmas=WAL)
    again = open_device(MODELS, name="one", shared_log=log, pragmas=WAL, create=False)
    with one:
        Owner.create(name="ann")
        one.sync.send()  # so the device is in the log, and has no checkpoint yet
    with two:
        Owner.create(name="bob")
        two.sync.sync()

    def reset() -> None:
        log.meanwhile = lambda: None
        one.database.execute_sql("DELETE FROM owner")
        one.sync.reset()

    log.meanwhile = reset
    again.sync.sync()
    assert_equal(again, two)
    with two:
        assert sorted(owner.name for owner in Owner.select()) == ["ann", "bob"]


def test_versions_of_the_old_device_are_not_taken_for_the_new_ones(
    open_device: OpenDevice, log: Line
) -> None:
    one = open_device(MODELS, name="one", shared_log=log, pragmas=WAL)
    two = open_device(MODELS, name="two", shared_log=log, pragmas=WAL)
    again = open_device(MODELS, name="one", shared_log=log, pragmas=WAL, create=False)
    with one:
        Owner.create(name="ann")
    with two:
        Owner.create(name="bob")
        two.sync.sync()
    again.sync.sync()
    again.sync.sync()
    old = again.sync.status().device
    one.sync.reset()
    again.sync.sync()
    assert again.sync.status().device != old
    states = again.sync.versions.load("owner", ['"ann"', '"bob"'])
    assert states['"ann"'].born is not None
    assert states['"ann"'].born.device == old


def do_something(device: Device, chance: random.Random) -> None:
    """One thing that happens to a device, recorded or not."""
    name, place = chance.choice(["ann", "bob", "eve", "zoe"]), chance.randrange(4)
    value = chance.randrange(1_000)
    match chance.randrange(12):
        case 0:
            Owner.insert(name=name).on_conflict_ignore().execute()
        case 1:
            Owner.update(note=f"{value}").where(Owner.name == name).execute()
        case 2:
            Owner.delete_by_id(name)
        case 3 if Owner.get_or_none(Owner.name == name):
            Item.insert(owner=name, place=place).on_conflict_ignore().execute()
        case 4:
            Item.update(size=value).where(Item.place == place).execute()
        case 5:
            Item.delete().where(Item.place == place).execute()
        case 6:
            device.database.execute_sql(f"UPDATE item SET weight = {value} WHERE place = {place}")
        case 7:
            device.database.execute_sql(f"DELETE FROM item WHERE place = {place}")
        case 8:
            device.database.execute_sql(f"INSERT OR IGNORE INTO owner VALUES ('{name}', 'raw')")
        case 9:
            device.sync.prune(keep_ms=0)
        case 10:
            device.sync.reset(force=True)
        case _:
            device.sync.sync()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happened_before_all_end_equal(open_device: OpenDevice, seed: int) -> None:
    chance = random.Random(seed)
    log = Line()
    devices = [open_device(MODELS, name=f"{n}", shared_log=log) for n in range(3)]
    for _ in range(60):
        device = chance.choice(devices)
        with device:
            do_something(device, chance)
    for device in devices:
        device.sync.reset(force=True)
        device.sync.sync()
    assert_equal(*devices)
