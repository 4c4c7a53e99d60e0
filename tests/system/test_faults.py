"""The eleven faults of the reference implementation (RELIABILITY A.1), each shown absent here.

F1 to F11 are what a reading of WorldBrain's storex-sync at dc189da found. Every test runs real
devices on database files against the real service, and fails if our code had that fault:
tests/system/test_planted.py plants each of them and sees it caught.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import Change, ConnectionFailed, LineageChanged, SharedLog, Sync, SyncModel, changes
from sharedlog.clock import TICKS_PER_MS
from sharedlog.remote.sharedlog import About, Outgoing, OwnPage, Page, Receipt

from .simulation.clocks import DAY, HOUR, MINUTE, Clock, WorldTime
from .simulation.faults import Crash
from .simulation.files import Fuse, abandon, open_database
from .simulation.service import Logged, Service

VALUES: dict[str, Any] = {"text": "", "number": 0, "flag": False, "real": 0.0, "data": None}
"""A row of falsy values."""


class Item(SyncModel):
    key = peewee.CharField(primary_key=True)
    text = peewee.TextField(default="?")
    number = peewee.IntegerField(default=-1)
    flag = peewee.BooleanField(default=True)
    real = peewee.FloatField(default=-1.0)
    data = peewee.JSONField(null=True)

    class Meta:
        table_name = "item"


class Wire:
    """A way to the service that calls `before` and `after` around each exchange."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.exchanges = 0
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None

    def about(self) -> About:
        return self._service.answer(lambda log: log.about())

    def register(self, name: str | None, device: str) -> str:
        return self._service.answer(lambda log: log.register(name, device))

    def write(self, device: str, entries: Sequence[Outgoing], **options: Any) -> Receipt:
        receipt: Receipt = self._carry(lambda log: log.write(device, entries, **options))
        return receipt

    def read(self, device: str, **options: Any) -> Page:
        page: Page = self._carry(lambda log: log.read(device, **options))
        return page

    def read_all(self, device: str, **options: Any) -> Page:
        page: Page = self._carry(lambda log: log.read_all(device, **options))
        return page

    def read_own(self, device: str, **options: Any) -> OwnPage:
        return self._service.answer(lambda log: log.read_own(device, **options))

    def close(self) -> None:
        pass

    def _carry(self, request: Callable[[SharedLog], Any]) -> Any:
        self.exchanges += 1
        self.before()
        reply = self._service.answer(request)
        self.after()
        return reply


class Device:
    """A database file with items, a clock that may be wrong, and a `Sync`."""

    def __init__(self, path: Path, service: Service, clock: Clock, **options: Any) -> None:
        self.path = str(path)
        self.clock = clock
        self.wire = Wire(service)
        self._options = options
        self.open()

    def open(self) -> None:
        self.fuse = Fuse()
        self.database = open_database(self.path, self.fuse)
        with self.database.bind_ctx([Item]):
            self.database.create_tables([Item])
        self.sync_object = Sync(
            self.database, [Item], shared_log=self.wire, now=self.clock, **self._options
        ).setup()

    def put(self, key: str, **values: Any) -> None:
        with self.database.bind_ctx([Item]):
            if not Item.update(**values).where(Item.key == key).execute():
                Item.create(key=key, **values)

    def sync(self) -> Any:
        with self.database.bind_ctx([Item]):
            return self.sync_object.sync()

    def items(self) -> dict[str, dict[str, Any]]:
        with self.database.bind_ctx([Item]):
            rows = Item.select().order_by(Item.key).dicts()
            return {row.pop("key"): row for row in [dict(row) for row in rows]}

    def texts(self) -> dict[str, str]:
        return {key: row["text"] for key, row in self.items().items()}

    @property
    def status(self) -> Any:
        return self.sync_object.status()

    def restart(self) -> None:
        abandon(self.database)
        self.open()


class Fleet:
    """A service and devices, all at one true time."""

    def __init__(self, folder: Path) -> None:
        self.time = WorldTime()
        self.service = Service(folder, Clock(self.time), random.Random(1))
        self.devices: list[Device] = []
        self._folder = folder

    def device(self, *, ahead_ms: int = 0, **options: Any) -> Device:
        path = self._folder / f"device{len(self.devices)}.db"
        self.devices.append(Device(path, self.service, Clock(self.time, ahead_ms), **options))
        return self.devices[-1]

    def log(self) -> list[Logged]:
        return self.service.entries()

    def offer(self, *data: str) -> None:
        """Write entries that no device of ours would."""
        first = self.time.ms * TICKS_PER_MS

        def request(log: SharedLog) -> Receipt:
            device = log.register(None, "foreign")
            entries = [Outgoing(first + i, i, text) for i, text in enumerate(data)]
            return log.write(
                device, entries, after=None, now_ms=self.time.ms, limit=1, byte_limit=1
            )

        self.service.answer(request)

    def settle(self) -> None:
        """Two rounds: everyone sends, everyone receives. Then all must be equal and quiet."""
        for device in [*self.devices, *self.devices]:
            device.sync()
        assert all(device.items() == self.devices[0].items() for device in self.devices)
        assert all(device.status.pending == 0 for device in self.devices)

    def close(self) -> None:
        for device in self.devices:
            abandon(device.database)
        self.service.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


def test_f1_a_slow_clock_does_not_hide_what_it_writes(fleet: Fleet) -> None:
    """There: the cursor was the writer's clock, compared with `>`."""
    right, slow, reader = fleet.device(), fleet.device(ahead_ms=-DAY), fleet.device()
    slow.put("early", text="slow")
    right.put("right", text="right")
    right.sync()
    reader.sync()
    assert reader.texts() == {"right": "right"}
    slow.sync()
    assert reader.sync().received == 1
    assert reader.texts() == {"right": "right", "early": "slow"}


def test_f1_equal_timestamps_are_not_skipped(fleet: Fleet) -> None:
    one, other, reader = fleet.device(), fleet.device(), fleet.device(batch_size=1)
    one.put("a", text="one")
    other.put("b", text="other")
    one.sync()
    reader.sync()
    other.sync()
    reader.sync()
    assert len({entry.ticks for entry in fleet.log()}) == 1
    assert reader.texts() == {"a": "one", "b": "other"}


def test_f2_reading_nothing_does_not_move_past_what_comes(fleet: Fleet) -> None:
    """There: with nothing new, the cursor jumped to the reader's now."""
    reader, writer = fleet.device(ahead_ms=4 * MINUTE), fleet.device()
    writer.put("a", text="made before, sent after")
    fleet.time.ms += MINUTE
    for _ in range(3):
        assert reader.sync().received == 0
    writer.sync()
    assert reader.sync().received == 1
    assert reader.texts() == {"a": "made before, sent after"}


def test_f3_only_what_was_sent_is_marked_as_sent(fleet: Fleet) -> None:
    """There: a batch of any entries was marked up to its newest timestamp."""
    device, reader = fleet.device(batch_size=2), fleet.device()
    for number in range(7):
        device.put(str(number), text=str(number))

    def write_meanwhile() -> None:
        if device.wire.exchanges <= 3:
            device.put(f"written meanwhile {len(device.items())}", text="!")

    device.wire.before = device.wire.after = write_meanwhile
    device.sync()
    committed = len(device.items())
    assert committed == 13
    assert len(fleet.log()) + device.status.pending == committed
    device.sync()
    reader.sync()
    assert reader.items() == device.items()
    assert [entry.ticks for entry in fleet.log()] == sorted({e.ticks for e in fleet.log()})


class Verbose:
    """A serializer that makes the row "b" too large for the service."""

    def encode(self, change: Change) -> str:
        return changes.encode(change) + " " * (600_000 if change.pk == "b" else 0)

    def decode(self, data: str) -> Change:
        return changes.decode(data)


def test_f3_a_refused_entry_is_not_taken_for_sent(fleet: Fleet) -> None:
    device, reader = fleet.device(serializer=Verbose()), fleet.device()
    device.put("a", text="1")
    device.put("b", text="2")
    device.put("c", text="3")
    result = device.sync()
    assert (result.sent, result.refused) == (2, 1)
    reader.sync()
    assert reader.texts() == {"a": "1", "c": "3"}
    assert device.status.pending == 0
    sql = "SELECT pk, reason FROM sharedlog_entry WHERE status = 2"
    [(pk, reason)] = device.database.execute_sql(sql).fetchall()
    assert pk == '"b"' and reason.startswith("ENTRY_TOO_LARGE")


def test_f4_the_checkpoint_follows_the_log_page_by_page(fleet: Fleet) -> None:
    """There: the last of an unordered result was taken for the newest."""
    writers = [fleet.device(ahead_ms=ahead) for ahead in (0, -DAY, MINUTE, -HOUR)]
    for number in range(12):
        writer = writers[number % 4]
        writer.put(str(number), text=str(number))
        writer.sync()
    reader = fleet.device(batch_size=3)
    checkpoints: list[int] = []

    def note() -> None:
        checkpoints.append(int((reader.status.checkpoint or ".0").rpartition(".")[2]))

    reader.wire.before = note
    assert reader.sync().received == 12
    note()
    assert checkpoints == [0, 3, 6, 9, 12]
    assert len(reader.items()) == 12


def test_f4_a_slower_process_does_not_move_the_checkpoint_back(fleet: Fleet) -> None:
    writer, reader = fleet.device(), fleet.device(batch_size=1)
    for number in range(6):
        writer.put(str(number), text=str(number))
        writer.sync()
    beside = Device(Path(reader.path), fleet.service, reader.clock)

    def overtake() -> None:
        reader.wire.after = lambda: None
        beside.sync()

    reader.wire.after = overtake  # the other process reads everything while one page is coming
    reader.sync()
    abandon(beside.database)
    assert reader.status.checkpoint == f"{writer.status.checkpoint}"
    assert reader.wire.exchanges == 2  # nothing was read again
    assert reader.items() == writer.items()


def test_f5_falsy_values_arrive_as_they_are(fleet: Fleet) -> None:
    """There: `value || null`."""
    one, other = fleet.device(), fleet.device()
    one.put("created", **VALUES)
    one.put("modified", text="x", number=1, flag=True, real=1.0, data=[1])
    fleet.settle()
    for name, value in VALUES.items():
        one.put("modified", **{name: value})
    other.put("mine", data={})
    fleet.settle()
    for data in (0, "", False, [], {}, [None], {"k": None}):
        one.put("created", data=data)
        fleet.settle()
        found = other.items()["created"]["data"]
        assert (found, type(found)) == (data, type(data))
    modified = other.items()["modified"]
    assert modified == VALUES
    assert [type(value) for value in modified.values()] == [type(v) for v in VALUES.values()]
    assert json.loads(fleet.log()[2].data)["value"] == {"text": ""}


def test_f6_ties_are_settled_alike_everywhere(fleet: Fleet) -> None:
    """There: equal timestamps were decided by the order of arrival."""
    one, other, third = fleet.device(), fleet.device(), fleet.device()
    for device in fleet.devices:
        device.sync()
    one.put("a", text="one")
    other.put("a", text="other")
    other.sync()
    third.sync()
    one.sync()
    fleet.settle()
    assert len({entry.ticks for entry in fleet.log()}) == 1
    winner = max(fleet.log(), key=lambda entry: entry.device)
    assert third.texts() == {"a": json.loads(winner.data)["value"]["text"]}


@pytest.mark.parametrize("byte_limit", [1, 100, 20_000])
def test_f7_a_large_entry_goes_although_it_exceeds_the_batch(fleet: Fleet, byte_limit: int) -> None:
    """There: a batch that cannot shrink under the limit threw, every time."""
    device, reader = fleet.device(byte_limit=byte_limit), fleet.device(byte_limit=byte_limit)
    device.put("a", text="small")
    device.put("b", text="large " * 10_000)
    with device.database.atomic():
        device.put("c", text="large " * 5_000)
        device.put("d", text="large " * 5_000)
    device.put("e", text="small")
    fleet.settle()
    assert list(reader.items()) == ["a", "b", "c", "d", "e"]
    assert device.wire.exchanges <= 8


def test_f8_an_entry_that_is_no_change_blocks_nobody(fleet: Fleet) -> None:
    """There: what could not be parsed threw in the middle of every pull."""
    writer, reader = fleet.device(), fleet.device(batch_size=2)
    writer.put("a", text="before")
    writer.sync()
    bad = ("{", "null", '{"operation":"explode","collection":"item","pk":"z","value":{}}')
    fleet.offer(*bad)
    writer.put("b", text="after")
    writer.sync()
    result = reader.sync()
    assert reader.texts() == {"a": "before", "b": "after"}
    assert (result.unreadable, reader.status.unreadable) == (3, 3)
    assert [entry.data for entry, _ in reader.sync_object.inbox.unreadable()] == list(bad)
    writer.put("c", text="and on")
    writer.sync()
    assert reader.sync().received == 1


@pytest.mark.parametrize("after", [False, True])
def test_f9_dying_at_any_statement_of_a_pull_changes_nothing(fleet: Fleet, after: bool) -> None:
    """There: entries were stored one by one and the cursor set in another step, so that the next
    pull met its own leftovers."""
    writer = fleet.device()
    for number in range(3):
        writer.put(str(number), text=str(number))
    writer.sync()
    survived = False
    for statement in range(1, 200):
        reader = fleet.device(batch_size=2)
        reader.fuse.light(_Exactly(statement, after), statement)
        try:
            reader.sync()
            survived = True
        except Crash:
            pass
        reader.restart()
        reader.sync()
        assert reader.items() == writer.items()
        assert reader.status.checkpoint.endswith(".3")
        if survived:
            break
    assert survived and statement > 20


class _Exactly(random.Random):
    """Chance that always says the same."""

    def __init__(self, statement: int, after: bool) -> None:
        super().__init__(0)
        self._statement, self._after = statement, after

    def randint(self, a: int, b: int) -> int:
        return self._statement

    def random(self) -> float:
        return 0.0 if self._after else 1.0


def test_f10_a_clock_that_repeats_makes_no_identity_twice(fleet: Fleet) -> None:
    """There: (device, createdOn) was the identity, and the clock could repeat."""
    device, reader = fleet.device(), fleet.device()
    device.clock.freeze()
    for number in range(50):
        device.put("a", text=str(number))
    device.sync()
    fleet.time.ms += MINUTE
    device.clock.set(0)
    assert device.sync_object.prune(0) == 50  # what was given out must be remembered without them
    device.clock.set(-MINUTE)
    device.restart()
    for number in range(50, 100):
        device.put("a", text=str(number))
    assert device.sync().refused == 0
    reader.sync()
    assert reader.texts() == {"a": "99"}
    identities = [(entry.device, entry.ticks) for entry in fleet.log()]
    assert len(set(identities)) == 100
    assert identities == sorted(identities)


def test_f11_two_creations_of_one_key_merge(fleet: Fleet) -> None:
    """There: the second creation threw, and reconciling stopped for good."""
    one, other = fleet.device(), fleet.device()
    one.put("theme", text="light", number=1)
    fleet.time.ms += 1
    other.put("theme", text="dark")
    other.put("later", text="!")
    fleet.settle()
    assert one.items()["theme"]["text"] == "dark"
    assert one.items()["theme"]["number"] == -1  # a creation says all fields
    assert "later" in one.items()


# -- beyond the eleven ----------------------------------------------------------------------


@pytest.mark.parametrize("sent_again", [True, False])
def test_a_copy_of_a_refused_request_that_comes_minutes_late_changes_nothing(
    fleet: Fleet, sent_again: bool
) -> None:
    """It was refused for its time, and would be in time by now: but the device has given its
    entries other timestamps."""
    fast, other = fleet.device(ahead_ms=6 * MINUTE), fleet.device()
    fast.sync()
    fast.put("a", text="fast")
    copies: list[tuple[str, Sequence[Outgoing], dict[str, Any]]] = []
    write = fast.wire.write

    def copying(device: str, entries: Sequence[Outgoing], **options: Any) -> Receipt:
        if copies and not sent_again:
            raise ConnectionFailed("cut off")
        copies.append((device, list(entries), options))
        return write(device, entries, **options)

    fast.wire.write = copying  # type: ignore[method-assign]
    with nullcontext() if sent_again else pytest.raises(ConnectionFailed):
        fast.sync()
    other.sync()
    fleet.time.ms += 2 * MINUTE
    other.put("a", text="other, and later")
    other.sync()
    device, entries, options = copies[0]
    with suppress(LineageChanged):
        fleet.service.answer(lambda log: log.write(device, entries, **options))
    fast.wire.write = write  # type: ignore[method-assign]
    fleet.settle()
    assert other.texts() == {"a": "other, and later"}
    assert len(fleet.log()) == 2
