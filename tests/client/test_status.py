"""The status: what it tells is so, whatever happened before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    Change,
    ConfigurationError,
    ConnectionFailed,
    Failure,
    MemorySharedLog,
    QuotaExceeded,
    RateLimited,
    Status,
    Sync,
    SyncModel,
)
from sharedlog.events import Event, Failed, Finished, Received, Started
from sharedlog.layout import LAYOUT
from sharedlog.remote.sharedlog import Outgoing, Page, Receipt, Rejection

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Note(SyncModel):
    title = peewee.TextField()


class Clock:
    """Tells the time it was told."""

    def __init__(self, time: datetime = NOON) -> None:
        self.time = time

    def __call__(self) -> int:
        return int(self.time.timestamp() * 1000)


class Line(MemorySharedLog):
    """A log that can be cut off, and that refuses entries with a certain word in them."""

    cut = False
    wait_s: float | None = None
    places: int | None = None
    """How often somebody may still ask for a place that there is not; None: there is one."""

    def register(self, name: str | None, device: str) -> str:
        if self.places is None:
            return super().register(name, device)
        self.places -= 1
        assert self.places >= 0
        raise QuotaExceeded("No place.", hint="Ask somebody.")

    def lose_devices(self) -> None:
        self._devices.clear()

    def write(self, device: str, entries: Any, **options: Any) -> Receipt:
        self._carry()
        good = [entry for entry in entries if "unwanted" not in entry.data]
        rejected = [
            Rejection(index, "ENTRY_INVALID", "nobody wants it")
            for index, entry in enumerate(entries)
            if entry not in good
        ]
        return replace(super().write(device, good, **options), rejected=rejected)

    def read(self, device: str, **options: Any) -> Page:
        self._carry()
        return super().read(device, **options)

    def _carry(self) -> None:
        if self.cut:
            raise ConnectionFailed("The line is cut.")
        if self.wait_s is not None:
            raise RateLimited("Too much.", retry_after=self.wait_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service_clock() -> Clock:
    return Clock()


@pytest.fixture
def line(service_clock: Clock) -> Line:
    return Line(now=service_clock)


OpenSync = Callable[..., Sync]


@pytest.fixture
def opened(tmp_path: Path, line: Line, clock: Clock) -> Iterator[OpenSync]:
    syncs: list[Sync] = []

    def opening(name: str = "a", **options: Any) -> Sync:
        database = peewee.SqliteDatabase(str(tmp_path / f"{name}.db"))
        Note.bind(database)
        database.create_tables([Note])
        options = {
            "shared_log": line,
            "now": clock,
            "new_id": lambda: f"device-{name}",
            **options,
        }
        syncs.append(Sync(database, [Note], **options).setup())
        return syncs[-1]

    yield opening
    for sync in syncs:
        sync.close()
        sync.database.close()


def test_status_before_the_service_was_ever_met(opened: OpenSync) -> None:
    sync = opened()
    Note.create(title="a")
    assert sync.status() == Status(
        device=None,
        name=None,
        pending=1,
        refused=0,
        waiting=0,
        unreadable=0,
        parked=0,
        checkpoint=None,
        last_contact=None,
        last_error=None,
        clock_offset_ms=None,
        layout=LAYOUT,
    )


def test_contact_tells_when_and_how_far_the_clocks_are_apart(
    opened: OpenSync, clock: Clock, service_clock: Clock
) -> None:
    sync = opened(device_name="laptop")
    clock.time = NOON + timedelta(seconds=90)
    sync.sync()
    status = sync.status()
    assert (status.last_contact, status.clock_offset_ms) == (clock.time, 90_000)
    assert (status.device, status.name, status.checkpoint) == (
        "device-a",
        "laptop",
        "memory.0",
    )

    Note.create(title="a")
    clock.time = NOON + timedelta(hours=1)
    service_clock.time = clock.time + timedelta(milliseconds=250)
    sync.send()
    assert (sync.status().last_contact, sync.status().clock_offset_ms) == (clock.time, -250)


def test_exchanges_in_quick_succession_that_bring_nothing_write_nothing(
    opened: OpenSync, clock: Clock
) -> None:
    sync = opened()
    sync.sync()
    connection = sync.database.connection()
    changes = connection.total_changes
    clock.time = NOON + timedelta(milliseconds=999)
    sync.sync()
    assert (connection.total_changes, sync.status().last_contact) == (changes, NOON)
    clock.time = NOON + timedelta(seconds=1)
    sync.sync()
    assert sync.status().last_contact == clock.time
    clock.time = NOON - timedelta(days=1)
    sync.sync()
    assert sync.status().last_contact == clock.time


def test_a_failed_sync_is_remembered_until_one_succeeds(
    opened: OpenSync, line: Line, clock: Clock
) -> None:
    sync = opened()
    sync.sync()
    met = sync.status()
    Note.create(title="a")
    clock.time, line.cut = NOON + timedelta(hours=1), True
    for method in (sync.sync, sync.send, sync.receive):
        with pytest.raises(ConnectionFailed):
            method()
        status = sync.status()
        assert status.last_error == Failure("CONNECTION_FAILED", "The line is cut.", clock.time)
        # Nobody was met.
        assert (status.last_contact, status.checkpoint) == (met.last_contact, met.checkpoint)
        assert status.pending == 1
    line.cut = False
    sync.sync()
    status = sync.status()
    assert (status.last_error, status.last_contact, status.pending) == (None, clock.time, 0)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(30.0, 30), (90 * 24 * 3600.0, 3600)])
def test_a_service_that_asks_to_wait_is_left_alone_so_long_and_no_longer(
    opened: OpenSync, line: Line, clock: Clock, asked_s: float, waited_s: int
) -> None:
    sync = opened()
    Note.create(title="a")
    line.wait_s = asked_s
    with pytest.raises(RateLimited):
        sync.sync()
    until = NOON + timedelta(seconds=waited_s)
    assert sync.status().held_until == until
    line.wait_s = None
    # Also after something that needs no service, by any method, and in another process.
    sync.reconcile()
    clock.time = until - timedelta(seconds=2)
    for method in (sync.sync, sync.send, sync.receive, opened().sync):
        with pytest.raises(RateLimited) as error:
            method()
        assert error.value.retry_after == 2
        assert sync.status().held_until == until
    assert line.entries == []
    clock.time = until
    assert sync.sync().sent == 1
    assert sync.status().last_error is None


def test_a_clock_that_is_set_back_makes_nobody_wait_for_longer(
    opened: OpenSync, line: Line, clock: Clock
) -> None:
    sync = opened()
    Note.create(title="a")
    line.wait_s = 30
    with pytest.raises(RateLimited):
        sync.sync()
    line.wait_s = None
    clock.time = NOON - timedelta(days=300)
    assert sync.sync().sent == 1


def test_an_error_after_contact_is_an_error(opened: OpenSync, line: Line) -> None:
    """The service was met and answered; what came could not be taken."""
    other = opened("other")
    Note.create(title="a")
    other.sync()
    sync = opened()

    @sync.on_event
    def stumble(event: Event) -> None:
        if isinstance(event, Received) and event.entries:
            raise RuntimeError("stumbled")

    with pytest.raises(RuntimeError):
        sync.sync()
    status = sync.status()
    assert status.last_error == Failure("RuntimeError", "stumbled", NOON)
    assert (status.checkpoint, status.last_contact) == (None, None)  # nothing of it was kept


def test_an_error_of_the_program_is_remembered_too(opened: OpenSync) -> None:
    sync = opened()
    sync.database.drop_tables([Note])
    with pytest.raises(ConfigurationError):
        sync.sync()
    failure = sync.status().last_error
    assert failure is not None
    assert failure.code == "CONFIGURATION"


def test_a_message_that_is_no_text_for_the_database_is_kept_anyway(opened: OpenSync) -> None:
    sync = opened()

    @sync.on_event
    def stumble(event: Event) -> None:
        raise ValueError("lone \ud800")

    with pytest.raises(ValueError):
        sync.sync()
    assert sync.status().last_error == Failure("ValueError", "lone ?", NOON)


def test_a_failure_that_cannot_be_noted_does_not_hide_the_error(
    opened: OpenSync, line: Line, tmp_path: Path
) -> None:
    sync = opened()
    sync.sync()
    sync.database.execute_sql("PRAGMA busy_timeout = 1")
    line.cut = True
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConnectionFailed):
            sync.sync()
    assert sync.status().last_error is None


def test_a_run_is_told_from_its_beginning_to_its_end(opened: OpenSync, line: Line) -> None:
    sync = opened()
    told: list[Event] = []
    sync.on_event(told.append)
    result = sync.sync()
    assert (told[0], told[-1]) == (Started("sync"), Finished(result))
    told.clear()
    line.cut = True
    with pytest.raises(ConnectionFailed) as caught:
        sync.receive()
    assert told == [Started("receive"), Failed(caught.value)]


def test_what_waits_is_refused_or_set_aside_is_counted(opened: OpenSync, line: Line) -> None:
    def private(change: Change) -> Change | None:
        values = change.value or {}
        return None if values.get("title") == "private" else change

    sync = opened(pre_send=private)
    for title in ("fine", "unwanted", "private"):
        Note.create(title=title)
    sync.sync()
    status = sync.status()
    # What the application itself keeps back was not refused by anybody.
    assert (status.pending, status.refused) == (0, 1)

    writer = line.register(None, "writer")
    strange = [Outgoing(1, 0, "no change"), Outgoing(2, 0, "neither")]
    line.write(writer, strange, after=None, now_ms=0, limit=9, byte_limit=999)
    sync.receive()
    assert (sync.status().waiting, sync.status().unreadable) == (2, 0)
    sync.reconcile()
    assert (sync.status().waiting, sync.status().unreadable) == (0, 2)


def test_status_is_of_one_moment(opened: OpenSync, tmp_path: Path) -> None:
    """Somebody else writes between two questions of the status: it sees neither or both."""
    sync = opened()
    sync.database.execute_sql("PRAGMA journal_mode = wal")
    written: list[str] = []

    def write_behind(statement: str) -> None:
        if "sharedlog_inbox" in statement or "sharedlog_row" in statement:
            written.append(f"{len(written)}")
            with closing(sqlite3.connect(tmp_path / "a.db")) as other:
                for sql in (
                    "INSERT INTO sharedlog_inbox VALUES (NULL, ?, 0, 0, '', NULL)",
                    "INSERT INTO sharedlog_row (collection, pk, parked) VALUES ('t', ?, 'why')",
                ):
                    other.execute(sql, written[-1:])
                other.commit()

    sync.database.connection().set_trace_callback(write_behind)
    status = sync.status()
    sync.database.connection().set_trace_callback(None)
    assert len(written) > 1
    assert status.waiting == status.parked


def test_as_text_and_as_json(opened: OpenSync, line: Line, clock: Clock) -> None:
    sync = opened(device_name="laptop")
    sync.sync()
    Note.create(title="a")
    line.cut = True
    with pytest.raises(ConnectionFailed):
        sync.sync()
    status = sync.status()
    lines = str(status).splitlines()
    assert lines[0] == "device        device-a (laptop)"
    assert "last contact  2026-11-27 12:00:00 UTC" in lines
    assert "last error    CONNECTION_FAILED, 2026-11-27 12:00:00 UTC: The line is cut." in lines
    assert "to send       1 entry" in lines
    assert max(map(len, lines)) <= 100

    found = json.loads(json.dumps(status.to_json()))
    assert found["last_contact"] == "2026-11-27T12:00:00+00:00"
    assert found["last_error"] == {
        "code": "CONNECTION_FAILED",
        "message": "The line is cut.",
        "at": "2026-11-27T12:00:00+00:00",
    }
    assert (found["pending"], found["device"]) == (1, "device-a")


@pytest.mark.parametrize("stage", ["sync", "send", "receive"])
def test_a_device_that_the_log_lost_and_has_no_place_for_is_told_so_and_loses_nothing(
    opened: OpenSync, line: Line, stage: str
) -> None:
    sync = opened()
    sync.sync()
    Note.create(title="one")
    line.lose_devices()
    line.places = 2
    for _ in range(2):
        with pytest.raises(QuotaExceeded, match=r"No place\.\n.*sharedlog devices revoke"):
            getattr(sync, stage)()
    status = sync.status()
    assert (status.pending, status.device) == (1, None)
    assert status.last_error is not None and status.last_error.code == "QUOTA_EXCEEDED"
    line.places = None
    assert sync.sync().sent == 1
    assert sync.status().last_error is None
