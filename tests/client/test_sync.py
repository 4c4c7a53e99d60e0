"""The front door: stages, events, processors, serializers, limits, and misuse."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    Change,
    ConfigurationError,
    MemorySharedLog,
    MissingToken,
    NotSetUp,
    ServiceFailed,
    Sync,
    SyncModel,
)
from sharedlog.changes import decode, encode
from sharedlog.events import (
    Event,
    Finished,
    Progress,
    Received,
    Reconciled,
    Reconciling,
    Sending,
    Sent,
    Started,
)
from sharedlog.remote.sharedlog import Outgoing, Receipt


class Note(SyncModel):
    title = peewee.TextField()
    number = peewee.IntegerField(default=0)


class Device:
    """A database file and its Sync; every use is inside `with device:`."""

    def __init__(self, path: Path, log: Any, **options: Any) -> None:
        pragmas = {"journal_mode": "wal", "foreign_keys": 1}
        self.database = peewee.SqliteDatabase(str(path), pragmas=pragmas)
        self._bound = self.database.bind_ctx([Note])
        with self.database.bind_ctx([Note]):
            self.database.create_tables([Note])
        options.setdefault("new_id", lambda: f"device-{path.stem}")
        self.sync = Sync(self.database, [Note], shared_log=log, **options).setup()

    def __enter__(self) -> Sync:
        self._bound.__enter__()
        return self.sync

    def __exit__(self, *error: Any) -> None:
        self._bound.__exit__(*error)

    def rows(self) -> list[tuple[Any, ...]]:
        return sorted(self.database.execute_sql("SELECT title, number FROM note").fetchall())

    def close(self) -> None:
        self.sync.close()
        self.database.close()


NewDevice = Callable[..., Device]


@pytest.fixture
def new_device(tmp_path: Path) -> Iterator[NewDevice]:
    devices: list[Device] = []

    def make(log: Any, **options: Any) -> Device:
        devices.append(Device(tmp_path / f"device{len(devices)}.db", log, **options))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


def test_events_tell_the_story_in_order(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    writer, reader = new_device(log), new_device(log)
    with writer as sync:
        Note.create(title="a")
        told: list[Event] = []
        sync.on_event(told.append)
        sync.sync()
    # The batch goes out, then comes the page that the answer brought.
    assert [type(event) for event in told] == [
        Started, Sending, Sent, Received, Reconciling, Reconciled, Progress, Finished,
    ]  # fmt: skip

    with reader as sync:
        told = []
        sync.on_event(told.append)
        result = sync.sync()
    received = [event for event in told if isinstance(event, Received)]
    assert [entry.data for event in received for entry in event.entries] == [log.entries[0].data]
    assert told[-2:] == [Progress(sent=0, received=1, pending=0), Finished(result)]
    assert (result.received, result.created, result.exchanges) == (1, 1, 1)


def test_progress_counts_down(new_device: NewDevice) -> None:
    device = new_device(MemorySharedLog(), batch_size=2)
    told: list[Event] = []
    device.sync.on_event(told.append)
    with device as sync:
        for number in range(5):
            Note.create(title=str(number))
        assert sync.sync().exchanges == 3
    progress = [(e.sent, e.pending) for e in told if isinstance(e, Progress)]
    assert progress == [(2, 3), (4, 1), (5, 0)]


def test_a_listener_that_fails_loses_nothing(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    writer, reader = new_device(log), new_device(log)
    with writer as sync:
        Note.create(title="a")
        sync.sync()

    failing = True

    def listener(event: Event) -> None:
        if failing and isinstance(event, Received):
            raise RuntimeError("listener")

    reader.sync.on_event(listener)
    with reader as sync:
        with pytest.raises(RuntimeError, match="listener"):
            sync.sync()
        failing = False
        sync.sync()
    assert reader.rows() == writer.rows()


def test_stages_run_alone(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    one, two = new_device(log), new_device(log)
    with one as sync:
        Note.create(title="one")
        assert sync.send().sent == 1
    with two as sync:
        Note.create(title="two")
        assert sync.send().sent == 1
        assert sync.receive().received == 1
        assert two.rows() == [("two", 0)]
        assert sync.reconcile().created == 1
    assert two.rows() == [("one", 0), ("two", 0)]
    assert one.rows() == [("one", 0)]


def test_processors_change_and_drop(new_device: NewDevice) -> None:
    def pre_send(change: Change) -> Change | None:
        if change.value and change.value.get("title") == "secret":
            return None
        return change

    def post_receive(change: Change) -> Change | None:
        if change.value and change.value.get("number") == 13:
            return None
        value = dict(change.value or {})
        return change._replace(value={**value, "title": value["title"].upper()})

    log = MemorySharedLog()
    writer, reader = new_device(log, pre_send=pre_send), new_device(log, post_receive=post_receive)
    with writer as sync:
        for title, number in (("a", 1), ("secret", 2), ("b", 13), ("c", 3)):
            Note.create(title=title, number=number)
        assert sync.sync().sent == 3
        assert sync.status().pending == 0
        assert sync.sync().sent == 0
    with reader as sync:
        sync.sync()
    assert len(log.entries) == 3
    assert reader.rows() == [("A", 1), ("C", 3)]


class Mistaken:
    """A processor whose answer is none, until it is mended."""

    mended = False

    def __call__(self, change: Change) -> Any:
        return change if self.mended else change.value


def test_an_answer_that_is_no_change_is_refused_and_loses_nothing(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    send, receive = Mistaken(), Mistaken()
    writer, reader = new_device(log, pre_send=send), new_device(log, post_receive=receive)
    with writer as sync:
        Note.create(title="a")
        with pytest.raises(ConfigurationError, match=r"pre_send returned \{.*neither"):
            sync.sync()
        send.mended = True
        assert sync.sync().sent == 1
    with reader as sync:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"post_receive returned \{.*neither"):
                sync.sync()
        receive.mended = True
        assert sync.sync().created == 1


def test_a_serializer_that_makes_no_text_is_told(new_device: NewDevice) -> None:
    class Bytes(Sealed):
        def encode(self, change: Change) -> Any:
            return super().encode(change).encode()

    class Dict(Sealed):
        def decode(self, data: str) -> Any:
            return super().decode(data)._asdict()

    log = MemorySharedLog()
    writer, reader = new_device(log, serializer=Bytes()), new_device(log, serializer=Dict())
    with writer as sync:
        Note.create(title="a")
        with pytest.raises(ConfigurationError, match="is no text"):
            sync.sync()
        assert sync.status().pending == 1
    good = new_device(log, serializer=Sealed())
    with good as sync:
        Note.create(title="b")
        sync.sync()
    with reader as sync:
        assert sync.sync().unreadable == 1
        assert r"decode() returned" in sync.inbox.unreadable()[0][1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"serializer": object()}, "has no method encode"),
        ({"pre_send": "x"}, "pre_send is 'x'"),
        ({"post_receive": 1}, "post_receive is 1"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(option: dict[str, Any], said: str) -> None:
    database = peewee.SqliteDatabase(":memory:")
    with database.bind_ctx([Note]), pytest.raises(ConfigurationError, match=said):
        Sync(database, [Note], shared_log=MemorySharedLog(), **option)


@pytest.mark.parametrize("given", [None, "note", 7])
def test_what_is_not_parked_cannot_be_resolved(new_device: NewDevice, given: Any) -> None:
    with new_device(MemorySharedLog()) as sync:
        for decide in (sync.resolve, sync.discard):
            with pytest.raises(ConfigurationError, match="is not what parked"):
                decide(given)


class Sealed:
    """Stands for encryption: nothing of the change is readable in the log."""

    def encode(self, change: Change) -> str:
        return base64.b85encode(encode(change).encode()).decode()

    def decode(self, data: str) -> Change:
        return decode(base64.b85decode(data).decode())


def test_a_serializer_decides_what_the_log_holds(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    writer, reader = new_device(log, serializer=Sealed()), new_device(log, serializer=Sealed())
    stranger = new_device(log)
    with writer as sync:
        Note.create(title="a")
        sync.sync()
    assert "note" not in log.entries[0].data
    with reader as sync:
        sync.sync()
    with stranger as sync:
        assert sync.sync().unreadable == 1
    assert reader.rows() == writer.rows()
    assert stranger.rows() == []


def test_a_serializer_that_fails_sets_the_entry_aside(new_device: NewDevice) -> None:
    log = MemorySharedLog()
    writer, reader = new_device(log), new_device(log, serializer=Sealed())
    with writer as sync:
        Note.create(title="a")
        sync.sync()
    with reader as sync:
        assert sync.sync().unreadable == 1
        assert "serializer" in sync.inbox.unreadable()[0][1]


class Small(MemorySharedLog):
    """A log whose service takes so many characters in one request, and no more."""

    limit = 400

    def write(self, device: str, entries: Any, **options: Any) -> Receipt:
        if sum(len(entry.data) for entry in entries) > self.limit:
            raise ServiceFailed("too large", service_code="BATCH_TOO_LARGE")
        return super().write(device, entries, **options)


def test_a_batch_that_is_too_large_is_sent_in_parts(new_device: NewDevice) -> None:
    log = Small()
    writer, reader = new_device(log), new_device(log)
    with writer as sync:
        with writer.database.atomic():
            for number in range(9):
                Note.create(title=str(number))
        assert sync.sync().sent == 9
    with reader as sync:
        sync.sync()
    assert reader.rows() == writer.rows()


def test_an_entry_that_is_too_large_is_refused_and_the_others_go(new_device: NewDevice) -> None:
    log = Small()
    device = new_device(log)
    with device as sync:
        Note.create(title="a")
        Note.create(title="b" * 1000)
        Note.create(title="c")
        result = sync.sync()
        assert (result.sent, result.refused, sync.status().pending) == (2, 1, 0)
    reason = device.database.execute_sql(
        "SELECT reason FROM sharedlog_entry WHERE reason IS NOT NULL"
    ).fetchall()
    assert reason == [("BATCH_TOO_LARGE: too large",)]


def test_a_log_that_began_a_new_life_gets_everything_again(new_device: NewDevice) -> None:
    class Switch:
        """Two logs behind one address: the first, and what is there after a wipe."""

        def __init__(self) -> None:
            self.log = MemorySharedLog(epoch="one")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.log, name)

    switch = Switch()
    one, two = new_device(switch), new_device(switch)
    with one as sync:
        Note.create(title="one")
        sync.sync()
    with two as sync:
        Note.create(title="two")
        sync.sync()

    wiped = MemorySharedLog(epoch="two")
    wiped._devices = switch.log._devices  # the devices are still known
    switch.log = wiped
    for device in (one, two, one):
        with device as sync:
            sync.sync()
    assert one.rows() == two.rows() == [("one", 0), ("two", 0)]
    assert len(wiped.entries) == 2


def test_a_clock_that_is_ahead_is_corrected_and_later_changes_too(new_device: NewDevice) -> None:
    hour = 3_600_000
    log = MemorySharedLog(now=lambda: 100 * hour)
    fast, right = new_device(log, now=lambda: 130 * hour), new_device(log, now=lambda: 100 * hour)
    with fast as sync:
        note = Note.create(title="fast")
        with fast.database.atomic():
            Note.create(title="x")
            Note.create(title="y")
        assert sync.sync().sent == 3
        note.title = "fast again"
        note.save()
        result = sync.sync()
        assert (result.sent, result.exchanges) == (1, 1)
    with right as sync:
        sync.sync()
        Note.update(title="right").where(Note.id == note.id).execute()
        sync.sync()
    with fast as sync:
        sync.sync()
    assert fast.rows() == right.rows() == [("right", 0), ("x", 0), ("y", 0)]
    groups = {entry.ticks - entry.offset for entry in log.entries}
    assert len(groups) == len(log.entries) - 1  # x and y are one group still


def test_a_service_whose_clock_fell_behind_is_tried_again_later(new_device: NewDevice) -> None:
    day = 24 * 3_600_000
    now = [100 * day]
    log = MemorySharedLog(now=lambda: now[0])
    device, other = new_device(log, now=lambda: 100 * day), new_device(log, now=lambda: 100 * day)
    with other as sync:
        Note.create(title="seen")
        sync.sync()
    with device as sync:
        sync.sync()
        now[0] = 90 * day
        Note.create(title="waits")
        with pytest.raises(ServiceFailed) as error:
            sync.sync()
        assert error.value.service_code == "CLOCK_AHEAD"
        assert sync.status().pending == 1
        now[0] = 100 * day
        assert sync.sync().sent == 1


def test_sync_ends_while_others_go_on_writing(new_device: NewDevice) -> None:
    device = new_device(MemorySharedLog(), batch_size=2)

    @device.sync.on_event
    def write_more(event: Event) -> None:
        if isinstance(event, Sending):
            for number in range(3):
                Note.create(title="meanwhile", number=number)

    with device as sync:
        Note.create(title="before")
        assert sync.sync().sent == 1
        assert sync.status().pending == 3


def test_pruning_changes_no_outcome(new_device: NewDevice) -> None:
    ticking = count(1_000_000)
    log = MemorySharedLog()
    one, two = new_device(log, now=lambda: next(ticking)), new_device(log, now=lambda: 999_999)
    with one as sync:
        note = Note.create(title="first")
        sync.sync()
    with two as sync:
        sync.sync()
        Note.update(title="older").execute()
    with one as sync:
        note.title = "newer"
        note.save()
        sync.sync()
        assert sync.prune(keep_ms=0) == 2
        assert sync.prune(keep_ms=0) == 0
    for device in (two, one, two):
        with device as sync:
            sync.sync()
    assert one.rows() == two.rows() == [("newer", 0)]
    with one as sync:
        note.title = "after"
        note.save()
        sync.sync()
    assert len({(entry.device, entry.ticks) for entry in log.entries}) == 4


def test_unsent_entries_are_not_pruned(new_device: NewDevice) -> None:
    device = new_device(MemorySharedLog())
    with device as sync:
        Note.create(title="a")
        assert sync.prune(keep_ms=0) == 0
        assert sync.sync().sent == 1


def test_misuse_says_what_to_write(tmp_path: Path) -> None:
    database = peewee.SqliteDatabase(str(tmp_path / "app.db"))
    with pytest.raises(NotSetUp, match="setup"):
        Sync(database, [Note], shared_log=MemorySharedLog()).sync()
    with pytest.raises(ConfigurationError, match="url="):
        Sync(database, [Note])
    with pytest.raises(MissingToken, match="token create"):
        Sync(database, [Note], url="http://localhost:8000/graphql")
    with pytest.raises(ConfigurationError, match=r"\[Note, Tag\]"):
        Sync(database, [], shared_log=MemorySharedLog())
    with pytest.raises(ConfigurationError, match="http"):
        Sync(database, [Note], url="localhost:8000", token="slog_x")


def test_outgoing_is_what_the_wire_takes() -> None:
    assert tuple(Outgoing(1, 0, "x")) == (1, 0, "x")
