"""Timestamps: always later than everything given out or seen, whatever the wall clock does."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest
from hypothesis import given, settings, strategies as st

from sharedlog import Change, MemorySharedLog, Sync, SyncModel
from sharedlog.clock import (
    BEFORE_TRACKING,
    TICKS_PER_MS,
    Version,
    from_created_on,
    next_ticks,
    to_created_on,
)
from sharedlog.exchange.identity import random_id

NOON_MS = 1_800_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

MILLISECONDS = st.integers(-(2**41), 2**43)


class Note(SyncModel):
    key = peewee.CharField(primary_key=True)
    title = peewee.CharField(default="")


class Device:
    """A database file, its Sync, and a clock that shows what it is told."""

    def __init__(self, path: Path, log: Any, **options: Any) -> None:
        self.now_ms = NOON_MS
        self.database = peewee.SqliteDatabase(str(path), pragmas={"synchronous": 0})
        with self.database.bind_ctx([Note]):
            self.database.create_tables([Note])
        self.sync_object = Sync(
            self.database,
            [Note],
            shared_log=log,
            now=lambda: self.now_ms,
            new_id=lambda: f"device-{path.stem}-{random_id()}",
            **options,
        ).setup()

    def write(self, key: str, title: str) -> None:
        with self.database.bind_ctx([Note]):
            if not Note.update(title=title).where(Note.key == key).execute():
                Note.create(key=key, title=title)

    def sync(self) -> Any:
        with self.database.bind_ctx([Note]):
            return self.sync_object.sync()

    def titles(self) -> dict[str, str]:
        rows = self.database.execute_sql("SELECT key, title FROM note ORDER BY key")
        return dict(rows.fetchall())

    def ticks(self) -> list[int]:
        rows = self.database.execute_sql("SELECT ticks FROM sharedlog_entry ORDER BY rowid")
        return [row[0] for row in rows.fetchall()]

    def close(self) -> None:
        self.sync_object.close()
        self.database.close()


class Service(MemorySharedLog):
    """A log with a clock that shows what it is told."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS
        super().__init__(now=lambda: self.now_ms)

    def lose(self, count: int) -> None:
        """As after restoring a backup that lacks the newest entries."""
        self.begin_new_life("second", self.entries[: len(self.entries) - count])


NewDevice = Callable[..., Device]


@pytest.fixture
def service() -> Service:
    return Service()


def devices_of(folder: Path, service: Service) -> Generator[NewDevice, None, None]:
    """Something that makes devices, which are closed afterwards."""
    devices: list[Device] = []

    def make(**options: Any) -> Device:
        devices.append(Device(folder / f"{len(devices)}.db", service, **options))
        return devices[-1]

    try:
        yield make
    finally:
        for device in devices:
            device.close()


@pytest.fixture
def new_device(tmp_path: Path, service: Service) -> Generator[NewDevice, None, None]:
    yield from devices_of(tmp_path, service)


# -- the value ----------------------------------------------------------------------------


@given(st.integers(0, 2**53 - 1))
def test_the_wires_milliseconds_are_exact(ticks: int) -> None:
    assert from_created_on(to_created_on(ticks)) == ticks
    assert to_created_on(ticks) * TICKS_PER_MS == ticks


@given(st.lists(MILLISECONDS, max_size=20))
def test_timestamps_only_grow_whatever_the_wall_clock_does(walls: list[int]) -> None:
    last = 0
    for wall in walls:
        ticks = next_ticks(wall, last)
        assert ticks > last and ticks >= wall * TICKS_PER_MS
        last = ticks


versions = st.builds(Version, st.integers(0, 5), st.text(max_size=2))


@given(st.lists(versions, max_size=8))
def test_python_and_sql_order_versions_alike(some: list[Version]) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE v (ticks INTEGER, device TEXT)")
        db.executemany("INSERT INTO v VALUES (?, ?)", some)
        in_sql = [Version(*row) for row in db.execute("SELECT * FROM v ORDER BY ticks, device")]
    assert in_sql == sorted(some)
    assert all(version >= BEFORE_TRACKING for version in some)


# -- the clock of a device ----------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from((-DAY, -1, 0, 0, 1, DAY)), min_size=1, max_size=12))
def test_a_jumping_or_standing_clock_never_repeats_or_goes_back(steps: list[int]) -> None:
    log = Service()
    device = Device(Path(":memory:"), log)
    for number, step in enumerate(steps):
        device.now_ms += step
        device.write(str(number % 3), str(number))
    ticks = device.ticks()
    assert len(ticks) == len(steps)
    assert ticks == sorted(set(ticks))
    device.close()


def test_a_restart_does_not_forget_what_was_given_out_or_seen(
    new_device: NewDevice, service: Service, tmp_path: Path
) -> None:
    other, device = new_device(), new_device()
    other.now_ms += 4 * MINUTE
    other.write("theirs", "")
    other.sync()
    device.sync()
    again = Device(tmp_path / "1.db", service)
    again.now_ms -= DAY
    again.write("mine", "")
    assert again.ticks() == [other.ticks()[0] + 1]
    again.write("mine", "again")
    assert again.ticks() == [other.ticks()[0] + 1, other.ticks()[0] + 2]
    again.close()


def test_local_changes_follow_what_was_seen(new_device: NewDevice, service: Service) -> None:
    other, slow = new_device(), new_device()
    slow.now_ms -= DAY
    other.write("a", "other")
    other.sync()
    slow.sync()
    slow.write("a", "slow, and later")
    slow.sync()
    other.sync()
    assert other.titles() == slow.titles() == {"a": "slow, and later"}


def test_a_transaction_that_was_rolled_back_leaves_no_hole_and_no_repetition(
    new_device: NewDevice,
) -> None:
    device = new_device()
    with pytest.raises(ZeroDivisionError), device.database.atomic():
        device.write("a", "never")
        raise ZeroDivisionError
    with device.database.atomic():
        with pytest.raises(ZeroDivisionError), device.database.atomic():
            device.write("b", "never")
            raise ZeroDivisionError
        device.now_ms -= DAY  # time is set back in the middle of a transaction
        device.write("c", "1")
        device.write("c", "2")
    rows = device.database.execute_sql("SELECT ticks, offset_ticks FROM sharedlog_entry")
    assert [(t - device.ticks()[0], o) for t, o in rows.fetchall()] == [(0, 0), (1, 1)]
    assert device.sync().sent == 2


# -- clocks that are far ahead --------------------------------------------------------------


def lead_of(device: Device, service: Service) -> int:
    """How far ahead of the service a change made now would be, in milliseconds."""
    return device.sync_object.journal.next_ticks() // TICKS_PER_MS - service.now_ms


@pytest.mark.parametrize("ahead", [6 * MINUTE, HOUR, 30 * DAY])
def test_a_clock_that_is_far_ahead_blocks_nobody_and_does_not_win(
    new_device: NewDevice, service: Service, ahead: int
) -> None:
    fast, other = new_device(), new_device()
    fast.now_ms += ahead
    for number in range(3):
        fast.write("a", f"fast {number}")
    result = fast.sync()
    assert (result.sent, result.refused) == (3, 0)
    service.now_ms += 1_000
    other.now_ms += 1_000
    other.sync()
    other.write("a", "other")
    other.sync()
    fast.sync()
    assert fast.titles() == other.titles() == {"a": "other"}
    assert lead_of(fast, service) <= MINUTE


def test_pruning_does_not_make_a_wrong_clock_final(new_device: NewDevice, service: Service) -> None:
    """Found by the simulation, seed 27: the floor of the clock was raised over entries that
    were never sent, and the device could not write for a month."""
    fast = new_device()
    fast.now_ms += 30 * DAY
    fast.write("a", "1")
    fast.sync_object.prune(0)
    assert fast.sync().sent == 1
    assert lead_of(fast, service) <= MINUTE


def test_an_entry_dropped_before_sending_does_not_make_a_wrong_clock_final(
    new_device: NewDevice, service: Service
) -> None:
    def drop(change: Change) -> Change | None:
        return None if change.pk == "secret" else change

    fast = new_device(pre_send=drop)
    fast.now_ms += 30 * DAY
    fast.write("a", "1")
    fast.write("secret", "2")
    assert fast.sync().sent == 1
    assert lead_of(fast, service) <= MINUTE
    fast.write("a", "3")
    assert fast.sync().sent == 1
    assert fast.titles() == {"a": "3", "secret": "2"}


def test_entries_that_others_have_keep_their_timestamps(
    new_device: NewDevice, service: Service
) -> None:
    """After a new life of the log everything counts as unsent. Correcting a wrong clock then
    must not make old changes new: they would win over what came after them."""
    fast, other, third = new_device(), new_device(), new_device()
    fast.write("a", "old")
    fast.write("c", "old")
    fast.sync()
    service.now_ms += MINUTE
    other.now_ms += MINUTE
    other.sync()
    other.write("a", "new")
    other.write("c", "new")
    other.sync()
    service.lose(3)
    fast.now_ms += 30 * DAY
    fast.write("b", "ahead")
    assert fast.sync().sent == 2  # what is new, and what the log lost
    for device in (other, fast, third, other):
        device.sync()
    assert fast.titles() == {"a": "new", "b": "ahead", "c": "new"}
    assert fast.titles() == other.titles() == third.titles()
    assert len(service.entries) == 5


def test_a_clock_that_was_set_right_is_trusted_again(
    new_device: NewDevice, service: Service
) -> None:
    """Otherwise the device would live in the past for ever and lose every conflict."""
    fast = new_device()
    fast.now_ms += HOUR
    fast.write("a", "1")
    fast.sync()
    fast.now_ms = NOON_MS
    assert lead_of(fast, service) <= 0
    service.now_ms += DAY
    fast.now_ms += DAY
    fast.sync()
    assert abs(lead_of(fast, service)) <= MINUTE


def test_a_new_life_is_noticed_without_a_cursor_of_the_old_one(
    new_device: NewDevice, service: Service
) -> None:
    """Found by the simulation, seed 4: a device that had only sent had no checkpoint, so nothing
    told it that the log had lost what it sent."""
    device, other = new_device(), new_device()
    device.write("a", "1")
    with device.database.bind_ctx([Note]):
        device.sync_object.send()
    service.lose(1)
    device.write("b", "2")
    device.sync()
    other.sync()
    assert other.titles() == device.titles() == {"a": "1", "b": "2"}


def test_many_devices_with_random_clocks_agree(new_device: NewDevice, service: Service) -> None:
    chance = random.Random(5)
    devices = [new_device() for _ in range(3)]
    for number in range(60):
        device = chance.choice(devices)
        device.now_ms = service.now_ms + chance.choice((-30 * DAY, -1, 0, 0, 1, 30 * DAY))
        device.write(chance.choice("abc"), str(number))
        if chance.random() < 0.5:
            device.sync()
        service.now_ms += chance.randint(0, MINUTE)
    for device in [*devices, *devices]:
        device.sync()
    assert devices[0].titles() == devices[1].titles() == devices[2].titles()
    assert all(device.sync_object.status().pending == 0 for device in devices)
