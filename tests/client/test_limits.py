"""What the service takes is known to the device, and kept in mind when a change is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sharedlog import Entry, MemorySharedLog, ValueRefused
from sharedlog.clock import TICKS_PER_MS
from sharedlog.events import Sending
from sharedlog.limits import Limits
from tests.system.copies import NOON_MS, File, MemoryHome, files

NewFile = Callable[..., File]

SMALL = Limits(entry_bytes=2_000, batch_entries=5, batch_bytes=10_000)
DAY_MS = 24 * 3_600_000


class Clock:
    ms = NOON_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(clock: Clock) -> MemoryHome:
    home = MemoryHome(clock)
    home._log.limits = SMALL
    return home


@pytest.fixture
def new_file(tmp_path: Path, home: MemoryHome, clock: Clock) -> Iterator[NewFile]:
    with files(tmp_path, home, clock) as make:
        yield make


def test_a_device_that_never_met_the_service_keeps_to_the_usual_limits(new_file: NewFile) -> None:
    file = new_file("a")
    file.put("x", text="x" * 499_000)
    with pytest.raises(ValueRefused, match="500,000 can be carried"):
        file.put("y", text="y" * 500_000)
    assert list(file.items()) == ["x"]


def test_what_the_service_would_refuse_is_refused_when_it_is_written(new_file: NewFile) -> None:
    file = new_file("a")
    file.sync()
    file.put("x", text="x" * 1_800)
    for key, text in (("y", "y" * 2_000), ("x", "ü" * 999)):
        with pytest.raises(ValueRefused, match="1,907 can be carried"):
            file.put(key, text=text)
    assert file.items() == {"x": ("x" * 1_800, "")}
    assert file.sync().sent == 1


def test_a_key_that_leaves_no_room_for_values_is_refused(new_file: NewFile) -> None:
    file = new_file("a")
    file.put("x" * 19_000, text="x" * 499_000)
    for key in ("y" * 20_000, "ü" * 10_001):
        with pytest.raises(ValueRefused, match="20,000 can be carried"):
            file.put(key, text="")
    assert len(file.items()) == 1


def test_limits_are_remembered_offline(new_file: NewFile) -> None:
    file = new_file("a")
    file.sync()
    file.close()
    file.wire.lost = lambda: "request"
    file.open()
    with pytest.raises(ValueRefused):
        file.put("y", text="y" * 2_000)


def test_a_larger_limit_is_used_too(new_file: NewFile, home: MemoryHome) -> None:
    home._log.limits = Limits(entry_bytes=2_000_000)
    file = new_file("a")
    file.sync()
    file.put("x", text="x" * 1_900_000)
    assert file.sync().sent == 1


def test_limits_are_asked_for_now_and_then(
    new_file: NewFile, home: MemoryHome, clock: Clock
) -> None:
    file = new_file("a")
    file.sync()
    home._log.limits = Limits()
    file.sync()
    with pytest.raises(ValueRefused):
        file.put("x", text="x" * 2_000)
    clock.ms += DAY_MS
    file.sync()
    file.put("x", text="x" * 2_000)


def test_a_transaction_is_divided_as_the_service_takes_it(
    new_file: NewFile, home: MemoryHome
) -> None:
    file = new_file("a")
    file.sync()
    batches: list[int] = []
    file.sync_object.on_event(
        lambda event: batches.append(len(event.entries)) if isinstance(event, Sending) else None
    )
    with file.database.atomic():
        for number in range(12):
            file.put(f"{number:02}", text="x")
    starts = {entry.ticks - entry.offset for entry in _sent(file, home)}
    assert len(starts) == 3
    assert batches == [5, 5, 2]


def test_a_transaction_of_large_values_is_divided_by_size(
    new_file: NewFile, home: MemoryHome
) -> None:
    file = new_file("a")
    file.sync()
    with file.database.atomic():
        for number in range(5):
            file.put(f"{number:02}", text="x" * 1_500)
    sizes: dict[int, int] = {}
    for entry in _sent(file, home):
        start = entry.ticks - entry.offset
        sizes[start] = sizes.get(start, 0) + len(entry.data)
    assert len(sizes) == 2
    assert max(sizes.values()) <= SMALL.batch_bytes // 2


def _sent(file: File, home: MemoryHome) -> list[Entry]:
    file.sync()
    entries = home.entries()
    assert entries and all(entry.ticks >= NOON_MS * TICKS_PER_MS for entry in entries)
    return entries


def test_a_log_may_be_made_with_other_limits() -> None:
    assert MemorySharedLog(limits=SMALL).about().limits == SMALL
    assert MemorySharedLog().about().limits == Limits()


@pytest.mark.parametrize("limits", [Limits(), SMALL, Limits(1, 1, 1)])
def test_groups_fit_into_a_request(limits: Limits) -> None:
    assert limits.group_entries <= limits.batch_entries
    assert limits.group_bytes <= limits.batch_bytes
    assert limits.value_bytes < limits.entry_bytes
