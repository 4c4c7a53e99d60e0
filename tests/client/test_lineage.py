"""Answers that got lost, files that are copies, logs that lost their end: told apart."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sharedlog import (
    Change,
    ConnectionFailed,
    DeviceRefused,
    LineageChanged,
    MemorySharedLog,
    SyncResult,
)
from sharedlog.changes import decode, encode
from sharedlog.events import Event, Forked, LogShrunk, Restamped
from sharedlog.exchange.identity import ID_CHARS_MAX, descendant
from sharedlog.exchange.pipeline import Pipeline
from sharedlog.journal.journal import LocalEntry
from sharedlog.remote.sharedlog import About, Outgoing, Receipt, akin
from tests.system.copies import (
    MINUTE,
    NOON_MS,
    File,
    MemoryHome,
    copy_by_backup,
    copy_by_files,
    expected,
    files,
)

NewFile = Callable[..., File]


class Time:
    def __init__(self) -> None:
        self.ms = NOON_MS

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def home(time: Time) -> MemoryHome:
    return MemoryHome(time)


@pytest.fixture
def new_file(tmp_path: Path, home: MemoryHome, time: Time) -> Iterator[NewFile]:
    with files(tmp_path, home, time) as make:
        yield make


def words(home: MemoryHome) -> list[str]:
    """What was written, in the order of the log."""
    values = [json.loads(entry.data)["value"] or {} for entry in home.entries()]
    return [value.get("text", "") for value in values]


def settle(home: MemoryHome, *some: File) -> None:
    """Everybody syncs; then all are equal, nothing is left to do, nothing is there twice."""
    for file in [*some, *some]:
        file.sync()
    assert {file.path.name: file.items() for file in some} == {
        file.path.name: expected(home.entries()) for file in some
    }
    assert [file.sync_object.status().pending for file in some] == [0] * len(some)
    assert sorted(set(words(home))) == sorted(words(home))
    for file in some:
        with file.database.atomic():
            file.sync_object.versions.fold_local()
    states = [
        {
            pk: (state.born, state.died, {n: state.version_of(n) for n in state.written_fields()})
            for pk, state in file.sync_object.versions.load("item", list(every_pk(home))).items()
        }
        for file in some
    ]
    assert all(state == states[0] for state in states)


def every_pk(home: MemoryHome) -> set[str]:
    return {json.dumps(json.loads(entry.data)["pk"]) for entry in home.entries()}


def lose_one_answer(file: File) -> SyncResult:
    """A sync whose first exchange is done and not answered; returns what the next sync did."""
    lost = iter(["answer"])
    file.wire.lost = lambda: next(lost, "no")
    with pytest.raises(ConnectionFailed):
        file.sync()
    file.wire.lost = lambda: "no"
    result: SyncResult = file.sync()
    return result


# -- answers that get lost ----------------------------------------------------------------


def test_a_lost_answer_is_no_copy(new_file: NewFile, home: MemoryHome) -> None:
    file, other = new_file("a"), new_file("b")
    file.sync()
    file.put("x", text="one")
    file.put("y", text="two")
    result = lose_one_answer(file)
    assert (result.sent, result.duplicates) == (2, 2)
    file.put("x", text="three")
    assert file.sync().duplicates == 0
    assert file.events == []
    settle(home, file, other)


def test_an_answer_lost_to_a_larger_batch_than_the_next(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    file = new_file("a")
    file.sync()
    for number in range(9):
        file.put(str(number), text=str(number))
    lost = iter(["answer"])
    file.wire.lost = lambda: next(lost, "no")
    with pytest.raises(ConnectionFailed):
        file.sync()
    file.close()
    again = new_file("a", batch_size=2)
    again.put("later", text="later")
    result = again.sync()
    assert (result.sent, result.duplicates) == (10, 9)
    assert again.events == []
    settle(home, again)


def test_a_lost_answer_when_what_was_sent_before_is_pruned(
    new_file: NewFile, home: MemoryHome
) -> None:
    file = new_file("a")
    file.put("x", text="one")
    file.sync()
    assert file.sync_object.prune(0) == 1
    file.put("x", text="two")
    assert lose_one_answer(file).duplicates == 1
    assert file.events == []
    settle(home, file, new_file("b"))


class Nonces:
    """A serializer that never writes the same twice, as encryption may."""

    def __init__(self) -> None:
        self.count = 0

    def encode(self, change: Change) -> str:
        self.count += 1
        return base64.b64encode(f"{self.count} {encode(change)}".encode()).decode()

    def decode(self, data: str) -> Change:
        return decode(base64.b64decode(data).decode().partition(" ")[2])


def test_a_lost_answer_of_what_is_sealed_anew_each_time(
    new_file: NewFile, home: MemoryHome
) -> None:
    file = new_file("a", serializer=Nonces())
    file.sync()
    file.put("x", text="one")
    result = lose_one_answer(file)
    assert (result.sent, result.refused, file.events) == (1, 0, [])
    assert len(home.entries()) == 1


def test_an_entry_that_is_processed_otherwise_now_is_found_all_the_same(
    new_file: NewFile, home: MemoryHome
) -> None:
    def shouting(change: Change) -> Change:
        return change._replace(value={**(change.value or {}), "text": "!"})

    file = new_file("a", pre_send=shouting)
    file.sync()
    file.put("x", text="one")
    assert lose_one_answer(file).duplicates == 1
    assert file.events == []


# -- copies -------------------------------------------------------------------------------


@pytest.fixture
def pair(new_file: NewFile, tmp_path: Path) -> tuple[File, File]:
    """A file that was in use, and its copy."""
    file = new_file("a")
    file.put("x", text="common")
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    return file, new_file("copy")


def test_a_copy_goes_on_under_another_id(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    copy.put("y", text="by the copy")
    file.sync()
    former = copy.device
    copy.sync()
    assert copy.events == [Forked(former, copy.device)]
    assert copy.device != former and akin(copy.device, former)
    status = copy.sync_object.status()
    assert (status.device, status.former) == (copy.device, (former,))
    assert file.sync_object.status().former == ()
    settle(home, file, copy, new_file("b"))
    assert file.events == []
    # Once only: from here on they are two devices.
    file.put("x", text="1")
    copy.put("x", text="2")
    settle(home, file, copy)
    assert len(copy.events) == 1 and file.device == former
    assert [entry.device for entry in home.entries()] == [
        former, former, copy.device, former, copy.device
    ]  # fmt: skip


def test_it_is_found_out_before_anything_is_taken(pair: tuple[File, File]) -> None:
    """Also by who has nothing to send, and before the checkpoint moves."""
    file, copy = pair
    before = copy.sync_object.status().checkpoint
    file.put("x", text="by the first")
    file.sync()
    answered: list[str] = []
    copy.wire.answered = answered.append
    told: list[str | None] = []
    copy.sync_object.on_event(
        lambda event: (
            told.append(copy.sync_object.status().checkpoint) if isinstance(event, Forked) else None
        )
    )
    former = copy.device
    copy.sync()
    assert told == [before]
    assert former not in answered
    assert copy.items() == file.items()


def test_whoever_writes_second_is_the_copy(pair: tuple[File, File], home: MemoryHome) -> None:
    file, copy = pair
    copy.put("y", text="by the copy")
    copy.sync()
    file.put("x", text="by the first")
    file.sync()
    assert (len(file.forks), copy.forks) == (1, [])
    settle(home, file, copy)


def test_a_copy_that_nobody_writes_to_may_stay_the_same(
    pair: tuple[File, File], home: MemoryHome
) -> None:
    """As a file that was moved: nothing tells it from the first one, and nothing needs to."""
    copy = pair[1]
    copy.sync()
    copy.put("y", text="by the copy")
    settle(home, copy)
    assert copy.events == []


def test_a_restored_backup(new_file: NewFile, home: MemoryHome, tmp_path: Path) -> None:
    file, other = new_file("a"), new_file("b")
    file.put("x", text="one")
    file.sync()
    copy_by_backup(file.path, tmp_path / "backup.db")
    file.put("x", text="two")
    file.put("y", text="three")
    file.sync()
    file.restored(tmp_path / "backup.db")
    file.put("z", text="after the backup was put back")
    file.sync()
    assert len(file.forks) == 1
    settle(home, file, other)
    assert file.items()["y"] == ("three", "")


def test_a_backup_that_is_put_back_again_and_again(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """The ids do not grow with it, nor does what it takes to find out."""
    file = new_file("a")
    file.put("x", text="one")
    file.sync()
    file.put("x", text="unsent when it was backed up")
    copy_by_backup(file.path, tmp_path / "backup.db")
    ids = set()
    for number in range(5):
        file.put(str(number), text=str(number))
        file.sync()
        ids.add(file.device)
        file.events.clear()
        file.restored(tmp_path / "backup.db")
        file.sync()
        assert len(file.forks) <= 2
    assert len(ids) == 5
    assert max(map(len, ids)) <= len(file.device.partition(".")[0]) + 2 * 9
    settle(home, file, new_file("b"))


def test_what_copies_have_unsent_in_common_is_sent_once(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """Whoever is first, and also when a third copy was faster than both."""
    file = new_file("a")
    copy_by_backup(file.path, tmp_path / "early.db")
    early = new_file("early")
    file.put("x", text="unsent")
    file.put("y", text="unsent, too")
    for number in range(3):
        copy_by_files(file.path, tmp_path / f"copy{number}.db")
    copies = [new_file(f"copy{number}") for number in range(3)]
    early.put("z", text="early")
    early.sync()
    for number, copy in enumerate(copies):
        copy.put(f"own{number}", text=f"own {number}")
        copy.sync()
    settle(home, file, early, *copies)
    assert words(home).count("unsent") == 1
    assert len({each.device for each in (early, *copies)}) == 4


def overtaken(new_file: NewFile, folder: Path) -> tuple[File, File, File]:
    """A file, and two copies of what it was, the second of which syncs when the first has read all
    there is and is about to send: as machines do that are started together from one image."""
    file = new_file("a")
    file.put("x", text="common")
    file.sync()
    copy_by_backup(file.path, folder / "image.db")
    file.put("x", text="by the first")
    file.sync()
    image = new_file("image")
    image.put("y", text="unsent in the image")
    copy_by_files(image.path, folder / "copy.db")
    copy, write = new_file("copy"), image.wire.write

    def meanwhile(device: str, entries: Any, **options: Any) -> Any:
        if device != file.device:
            image.wire.write = write  # type: ignore[method-assign]
            copy.sync()
        return write(device, entries, **options)

    image.wire.write = meanwhile  # type: ignore[method-assign]
    return file, image, copy


def test_copies_that_find_out_at_the_same_time(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    file, image, copy = overtaken(new_file, tmp_path)
    image.sync()
    assert len(image.forks) == len(copy.forks) == 1
    copy.put("z", text="by the copy")
    image.put("z", text="by the image")
    settle(home, file, image, copy)
    assert len({file.device, image.device, copy.device}) == 3


@pytest.mark.parametrize("shared_tick", [True, False])
def test_copies_that_write_at_the_same_tick(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, shared_tick: bool
) -> None:
    now = iter([NOON_MS] * 3 + [NOON_MS + 5, NOON_MS + (5 if shared_tick else 6)] * 99)
    file = new_file("a", now=lambda: next(now))
    file.put("x", text="common")
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: next(now))
    file.put("x", text="mine")
    copy.put("x", text="yours")
    settle(home, file, copy, new_file("b"))
    assert len(copy.forks) == 1


@pytest.mark.parametrize(
    ("mine", "yours", "same"), [("0", "false", False), ("1", "1.0", False), ("0", "0", True)]
)
def test_only_what_is_written_alike_is_taken_for_the_same_entry(
    mine: str, yours: str, same: bool
) -> None:
    """As copies write at one tick: what Python takes for equal is not the same in a table."""
    entry = LocalEntry(5, 0, "item", '"x"', 1, f'{{"text":{mine}}}')
    data = f'{{"value":{{"text":{yours}}},"pk":"x","collection":"item","operation":"modify"}}'
    assert Pipeline().same(entry, data, "a", "a.b") is same


def test_a_copy_of_a_copy(pair: tuple[File, File], new_file: NewFile, home: MemoryHome) -> None:
    file, copy = pair
    file.put("x", text="1")
    file.sync()
    copy.put("x", text="2")
    copy.sync()
    copy_by_backup(copy.path, copy.path.with_name("third.db"))
    third = new_file("third")
    copy.put("x", text="3")
    third.put("x", text="4")
    settle(home, file, copy, third)
    assert akin(third.device, file.device)
    assert third.sync_object.status().former == (file.device, copy.device)


def test_a_file_that_was_copied_before_it_ever_met_the_log(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """As with a program that is delivered with data."""
    image = new_file("image")
    for key in "abc":
        image.put(key, text=f"delivered {key}")
    for number in range(3):
        copy_by_files(image.path, tmp_path / f"shop{number}.db")
    shops = [new_file(f"shop{number}") for number in range(3)]
    for number, shop in enumerate(shops):
        shop.put("a", text=f"changed by {number}")
    settle(home, *shops)
    assert len(home.entries()) == 3 + 3
    assert len({shop.device for shop in shops}) == 3


def test_a_copy_that_only_sends(pair: tuple[File, File], home: MemoryHome) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    assert copy.sync_object.send().sent == 1
    assert "x" in copy.items() and copy.items()["x"] == ("common", "")
    assert copy.sync_object.reconcile().modified == 1
    settle(home, file, copy)


def test_a_copy_that_only_receives(pair: tuple[File, File], home: MemoryHome) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    assert copy.sync_object.receive().received == 1
    assert len(copy.forks) == 1
    copy.sync_object.reconcile()
    assert copy.items() == file.items()


def test_another_process_finds_out_first(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    beside = new_file("copy")
    original, read_own = copy.wire, copy.wire.read_own

    def overtaken(*arguments: Any, **options: Any) -> Any:
        original.read_own = read_own  # type: ignore[method-assign]
        beside.sync()
        return read_own(*arguments, **options)

    original.read_own = overtaken  # type: ignore[method-assign]
    copy.sync()
    assert (len(copy.forks), len(beside.forks)) == (0, 1)
    assert copy.device == beside.device
    settle(home, file, copy)


def test_a_sync_that_fails_after_the_fork_is_taken_up(
    pair: tuple[File, File], home: MemoryHome
) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")

    def fail(*arguments: Any) -> str:
        raise ConnectionFailed("no")

    register = copy.wire.register
    copy.wire.register = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed):
        copy.sync()
    assert len(copy.forks) == 1
    copy.wire.register = register  # type: ignore[method-assign]
    settle(home, file, copy)
    assert len(copy.forks) == 1


class Unmarked(MemorySharedLog):
    """A log that renews no lineages: all that is left is that a timestamp is taken."""

    def _check_lineage(self, device: str, lineage: str | None) -> None:
        pass


def test_a_timestamp_that_is_taken_is_a_sign_of_a_copy(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    home._log = Unmarked(now=lambda: NOON_MS)
    file = new_file("a", now=lambda: NOON_MS)
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: NOON_MS)
    file.put("x", text="mine")
    copy.put("y", text="yours")
    file.sync()
    result = copy.sync()
    assert (len(copy.forks), result.refused) == (1, 0)
    settle(home, file, copy)


# -- logs that lose what they had -----------------------------------------------------------


@pytest.mark.parametrize("renew", [True, False])
def test_what_a_restored_log_lacks_comes_back(
    new_file: NewFile, home: MemoryHome, renew: bool
) -> None:
    one, two = new_file("a"), new_file("b")
    one.put("x", text="old")
    settle(home, one, two)
    home.back_up()
    one.put("x", text="new")
    two.put("y", text="new, too")
    settle(home, one, two)
    home.restore(renew=renew)
    assert len(home.entries()) == 1
    # The log has grown again before anybody who knew its end comes back.
    third = new_file("c")
    for key in "pqrs":
        third.put(key, text=key)
    third.sync()
    settle(home, one, two, third)
    assert len(home.entries()) == 7
    assert LogShrunk(1) in one.events and LogShrunk(1) in two.events
    assert [each.forks for each in (one, two, third)] == [[], [], []]


@pytest.mark.parametrize("renew", [True, False])
def test_an_answer_from_before_the_log_was_put_back_counts_no_more(
    new_file: NewFile, home: MemoryHome, renew: bool
) -> None:
    """Another process of this device has asked the log since, and knows better."""
    file, beside = new_file("a"), new_file("a")
    file.put("x", text="before")
    file.sync()
    home.back_up()
    file.put("y", text="lost")
    file.sync()
    file.put("z", text="on its way")
    wire, write = file.wire, file.wire.write

    def overtaken(*arguments: Any, **options: Any) -> Receipt:
        wire.write = write  # type: ignore[method-assign]
        receipt: Receipt = write(*arguments, **options)
        home.restore(renew=renew)
        beside.sync_object.receive()
        return receipt

    wire.write = overtaken  # type: ignore[method-assign]
    file.sync()
    assert sorted(words(home)) == ["before", "lost", "on its way"]
    settle(home, file)


def test_a_log_that_lost_nothing_gets_nothing_again(new_file: NewFile, home: MemoryHome) -> None:
    file = new_file("a")
    file.put("x", text="one")
    file.sync()
    home.back_up()
    home.restore(renew=True)
    assert file.sync().sent == 0
    assert file.events == []


def test_a_wiped_log_gets_everything_again(new_file: NewFile, home: MemoryHome) -> None:
    one, two = new_file("a"), new_file("b")
    one.put("x", text="one")
    two.put("y", text="two")
    settle(home, one, two)
    ids = one.device, two.device
    home.wipe()
    two.put("y", text="meanwhile")
    settle(home, two, one, new_file("c"))
    assert (one.device, two.device) == ids
    assert len(home.entries()) == 3


def test_a_log_that_is_wiped_while_a_copy_finds_out(
    pair: tuple[File, File], home: MemoryHome
) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    wire, read_own = copy.wire, copy.wire.read_own

    def wiped(*arguments: Any, **options: Any) -> Any:
        wire.read_own = read_own  # type: ignore[method-assign]
        home.wipe()
        return read_own(*arguments, **options)

    wire.read_own = wiped  # type: ignore[method-assign]
    copy.sync()
    settle(home, copy, file)
    assert sorted(words(home)) == ["by the copy", "by the first", "common"]


def test_entries_sent_before_a_fork_come_back_too(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    """Although nobody has the id any more under which they were sent."""
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    copy.sync()
    home.wipe()
    copy.sync()
    assert sorted(words(home)) == ["by the copy", "common"]
    settle(home, copy, file, new_file("b"))


def apart(pair: tuple[File, File]) -> tuple[File, File]:
    """The two, when each has found out who it is."""
    file, copy = pair
    file.put("y", text="by the first")
    file.sync()
    copy.put("z", text="by the copy")
    copy.sync()
    return file, copy


@pytest.mark.parametrize("first", [0, 1])
def test_what_a_copy_sent_since_this_one_looked_for_it_is_not_sent_again(
    pair: tuple[File, File], home: MemoryHome, first: int
) -> None:
    some = apart(pair)
    file, copy = some[first], some[1 - first]
    home.wipe()
    wire, write = file.wire, file.wire.write

    def lost(device: str, entries: Any, **options: Any) -> Receipt:
        if not entries:  # it asks before it reads
            receipt: Receipt = write(device, entries, **options)
            return receipt
        wire.write = write  # type: ignore[method-assign]
        raise ConnectionFailed("the request got lost")

    wire.write = lost  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed):
        file.sync()
    copy.sync()
    settle(home, file, copy)
    assert [event for event in file.events if isinstance(event, LogShrunk)] == [LogShrunk(2)]


def test_what_copies_look_for_at_one_time_comes_back_once(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    """Neither can know that the other one is about to send it, too; who is second is told."""
    file, copy = apart(pair)
    home.wipe()
    wire, write = file.wire, file.wire.write

    def overtaken(*arguments: Any, **options: Any) -> Receipt:
        wire.write = write  # type: ignore[method-assign]
        copy.sync()
        receipt: Receipt = write(*arguments, **options)
        return receipt

    wire.write = overtaken  # type: ignore[method-assign]
    file.sync()
    copy.sync()
    common = [entry for entry in home.entries() if "common" in entry.data]
    assert [entry.device for entry in common] == [copy.device]
    assert len(home.entries()) == 3
    some = file, copy, new_file("b")
    some[-1].sync()
    assert [each.items() for each in some] == [expected(home.entries())] * 3
    assert [each.sync_object.verify().equal for each in some] == [True] * 3


def test_a_log_that_has_them_still_does_not_get_them_twice(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    file, copy = pair
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    copy.sync()
    home.back_up()
    copy.put("y", text="lost")
    copy.sync()
    home.restore(renew=True)
    settle(home, copy, file, new_file("b"))
    assert len(home.entries()) == 4


def test_pruned_entries_that_the_log_has_are_not_taken_for_a_copys(
    new_file: NewFile, home: MemoryHome
) -> None:
    file = new_file("a")
    file.put("x", text="pruned")
    file.sync()
    file.sync_object.prune(0)
    file.put("x", text="kept")
    file.sync()
    home.back_up()
    file.put("x", text="lost")
    file.sync()
    home.restore(renew=False)
    settle(home, file, new_file("b"))
    assert file.forks == []


@pytest.mark.parametrize("renew", [True, False])
def test_a_log_that_is_put_back_just_as_a_copy_takes_another_id(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, renew: bool
) -> None:
    """What was acknowledged is the copy's to send again, also if it has read nothing yet: the
    other file may never come back."""
    file = new_file("a")
    file.sync_object.send()
    home.back_up()
    file.put("x", text="acknowledged")
    file.sync_object.send()
    copy_by_backup(file.path, tmp_path / "copy.db")
    file.put("y", text="by the first")
    file.sync_object.send()
    copy = new_file("copy")

    @copy.sync_object.on_event
    def put_back(event: Event) -> None:
        if isinstance(event, Forked):
            home.restore(renew=renew)

    copy.sync()
    assert copy.events == [Forked(file.device, copy.device), LogShrunk(1)]
    assert words(home) == ["acknowledged"]
    settle(home, copy, new_file("b"))


def test_a_copy_in_sync_does_not_read_again_what_it_has(
    pair: tuple[File, File], new_file: NewFile, home: MemoryHome
) -> None:
    file, copy = pair
    other = new_file("b")
    other.put("y", text="read before")
    other.sync()
    copy.sync()
    file.put("x", text="by the first")
    file.sync()
    assert copy.sync().received == 1
    assert len(copy.forks) == 1


@pytest.mark.parametrize("cut_off", [True, False])
def test_a_log_that_is_put_back_while_a_device_is_finding_out(
    new_file: NewFile, home: MemoryHome, cut_off: bool
) -> None:
    """What it has found so far was in another log."""
    file = new_file("a")
    file.sync()
    home.back_up()
    for key in "xyz":
        file.put(key, text=key)
    lost = iter(["answer"])
    file.wire.lost = lambda: next(lost, "no")
    with pytest.raises(ConnectionFailed):
        file.sync()
    file.close()
    again = new_file("a", batch_size=1)
    pages = count(1)
    read_own = again.wire.read_own

    def put_back(*arguments: Any, **options: Any) -> Any:
        if next(pages) == 2:
            home.restore(renew=False)
            if cut_off:
                raise ConnectionFailed("the request got lost")
        return read_own(*arguments, **options)

    again.wire.read_own = put_back  # type: ignore[method-assign]
    with suppress(ConnectionFailed):
        again.sync()
    settle(home, again)
    assert words(home) == ["x", "y", "z"]
    assert again.forks == []


def test_what_a_copy_counted_before_counts_once(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """Of one run, the log has the first part, has lost the second, and never had the third."""
    file = new_file("a")
    file.count("t", 1)
    file.sync()
    home.back_up()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy, other = new_file("copy"), new_file("b")
    file.count("t", 2)
    file.sync()
    other.sync()
    file.count("t", 4)
    home.restore(renew=True)
    copy.put("x", text="by the copy")
    for each in (copy, file, other, copy):
        each.sync()
    assert len(file.forks) == 1
    some = file, copy, other, new_file("c")
    some[-1].sync()
    assert [each.tallies() for each in some] == [{"t": 7}] * 4


def counted_by(*some: File) -> list[dict[str, int]]:
    """What everybody has counted when all have synced."""
    for file in [*some, *some]:
        file.sync()
    return [file.tallies() for file in some]


def test_what_a_copy_sends_under_other_timestamps_before_it_applies_anything_counts_once(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, time: Time
) -> None:
    file = new_file("a")
    file.count("t", 1)
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: time() + 60 * MINUTE)
    file.put("x", text="by the first")
    file.sync()
    copy.count("t", 2)
    restamped: list[Event] = []
    copy.sync_object.on_event(
        lambda event: restamped.append(event) if isinstance(event, Restamped) else None
    )
    copy.sync_object.send()
    assert restamped and len(copy.forks) == 1
    copy.sync_object.reconcile()
    assert counted_by(file, copy) == [{"t": 3}] * 2


@pytest.mark.parametrize("prunes", [True, False])
def test_what_a_copy_counted_before_counts_once_also_where_it_sends_before_it_applies(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, prunes: bool
) -> None:
    file = new_file("a")
    file.count("t", 1)
    file.sync()
    home.back_up()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy")
    file.count("t", 2)
    file.sync()
    file.count("t", 4)
    home.restore(renew=True)
    copy.put("x", text="by the copy")
    copy.sync()
    file.sync_object.send()
    if prunes:
        file.sync_object.prune(0)
    assert counted_by(file, copy) == [{"t": 7}] * 2
    assert len(file.forks) == 1


@pytest.mark.parametrize("applied", [True, False])
def test_what_a_log_took_untold_and_lost_counts_once_also_where_it_was_read(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, applied: bool
) -> None:
    file, other = new_file("a"), new_file("b")
    file.put("x", text="common")
    file.sync()
    home.back_up()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy")
    file.count("t", 1)
    lost = iter(["answer"])
    file.wire.lost = lambda: next(lost, "no")
    with pytest.raises(ConnectionFailed):
        file.sync()
    read = other.sync if applied else other.sync_object.receive
    read()
    home.restore(renew=True)
    copy.put("y", text="by the copy")
    read()
    other.sync_object.reconcile()
    assert other.tallies() == {"t": 1}  # although the log does not have it now
    assert counted_by(copy, file, other) == [{"t": 1}] * 3
    assert other.sync_object.verify().equal


def test_what_both_copies_count_in_a_log_that_lost_its_end_counts(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """Each goes on with the run that it had; the log had the one, and takes the other."""
    file, other = new_file("a"), new_file("b")
    file.count("t", 1)
    file.sync()
    home.back_up()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy")
    file.count("t", 2)
    file.sync()
    other.sync()
    file.count("t", 4)
    home.restore(renew=True)
    copy.count("t", 8)
    assert counted_by(copy, file, other, new_file("c")) == [{"t": 15}] * 4
    for number, each in enumerate((copy, file)):
        each.count("t", 16 << number)
    assert counted_by(copy, file, other) == [{"t": 63}] * 3
    assert other.sync_object.verify().equal


@pytest.mark.parametrize("told", [True, False])
def test_what_copies_have_in_common_and_the_log_lost_counts_once(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, told: bool
) -> None:
    """Two have it, and a third copy, which has not, was faster; one of the two sent it before."""
    file, other = new_file("a"), new_file("b")
    file.count("t", 1)
    file.sync()
    home.back_up()
    copy_by_backup(file.path, tmp_path / "early.db")
    early = new_file("early")
    file.count("t", 2)
    if told:
        file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy")
    file.sync()
    other.sync()
    home.restore(renew=True)
    early.count("t", 4)
    early.sync()
    copy.count("t", 8)
    file.count("t", 16)
    assert counted_by(copy, file, other, early, new_file("c")) == [{"t": 31}] * 5
    assert len({each.device for each in (early, copy, file)}) == 3
    assert other.sync_object.verify().equal


def left_run(new_file: NewFile, home: MemoryHome, folder: Path) -> tuple[File, File, File]:
    """A file, a copy that has unsent in common with it, and a third that was faster, so that the
    copy takes what it counted out of its run. The home has a backup from before."""
    file = new_file("a")
    file.put("x", text="common")
    file.sync()
    home.back_up()
    copy_by_backup(file.path, folder / "early.db")
    early = new_file("early")
    file.count("t", 1)
    copy_by_backup(file.path, folder / "copy.db")
    copy = new_file("copy")
    early.count("t", 2)
    early.sync()
    copy.sync()
    assert len(copy.forks) == 1
    return file, copy, early


@pytest.mark.parametrize("first", ["file", "copy"])
def test_copies_agree_in_which_runs_the_log_has_what_they_both_have(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, first: str
) -> None:
    """Whoever is second has it as the log has it: in its run, or out of it."""
    file, copy, early = left_run(new_file, home, tmp_path)
    home.wipe()
    some = (file, copy) if first == "file" else (copy, file)
    for each in some:
        each.count("t", 4)
        each.sync()
    assert (len(file.forks), len(copy.forks)) == ((0, 1) if first == "file" else (1, 1))
    assert counted_by(*some, early, new_file("b")) == [{"t": 11}] * 4


def test_a_run_that_a_copy_goes_on_with_under_another_id_is_left(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """The log is wiped, and who comes first had sent more of the run that it has in common with the
    second one, under the id of both; it has another one since."""
    file = new_file("a")
    file.count("t", 1)
    file.sync()
    copy_by_backup(file.path, tmp_path / "early.db")
    early = new_file("early")
    file.count("t", 2)
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy")
    file.put("x", text="by the first")
    file.sync()
    copy.put("y", text="by the copy")
    copy.sync()
    early.count("t", 4)
    home.wipe()
    copy.sync()
    assert counted_by(early, copy, new_file("b")) == [{"t": 7}] * 3
    assert (len(copy.forks), len(early.forks)) == (1, 1)


@pytest.mark.parametrize("first", ["file", "copy", "early"])
def test_a_file_that_was_where_the_log_was_put_back_to_looks_before_it_sends(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, first: str
) -> None:
    """It has no sign that the log lost anything, or that there are copies, but what these write."""
    file, copy, early = left_run(new_file, home, tmp_path)
    home.restore(renew=False)
    {"file": file, "copy": copy, "early": early}[first].sync()
    some = file, copy, early, new_file("b")
    assert counted_by(*some) == [{"t": 3}] * 4
    assert [each.sync_object.verify().equal for each in some] == [True] * 4


def test_copies_that_count_at_the_same_tick_both_count(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    file = new_file("a", now=lambda: NOON_MS)
    file.sync()
    copy_by_backup(file.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: NOON_MS)
    file.count("t", 1)
    copy.count("t", 2)
    file.sync()
    home.wipe()
    copy.sync()
    assert counted_by(file, copy, new_file("b")) == [{"t": 3}] * 3


def test_copies_that_write_one_row_at_the_same_tick_end_equal(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """What a log lost gets an id that is later than that of what was read before."""
    file = new_file("a", now=lambda: NOON_MS, new_id=lambda: "f" * 16)
    file.sync()
    for name in ("early", "copy"):
        copy_by_backup(file.path, tmp_path / f"{name}.db")
    early, copy = (new_file(name, now=lambda: NOON_MS) for name in ("early", "copy"))
    file.put("x", text="by the first")
    copy.put("x", note="by the copy")
    early.put("y", text="early")
    for each in (file, copy):
        each.sync()
    home.wipe()
    for each in (early, copy):
        each.sync()
    settle(home, file, early, copy, new_file("b"))
    assert file.device > copy.device


# -- whose file it is -----------------------------------------------------------------------


def test_a_file_of_another_user_is_refused(
    new_file: NewFile, home: MemoryHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file("a")
    file.put("x", text="mine")
    file.sync()
    file.close()

    def theirs(log: MemorySharedLog) -> About:
        return About("somebody else", log.limits)

    home.wipe()
    monkeypatch.setattr(MemorySharedLog, "about", theirs)
    file.open()
    file.put("x", text="not theirs")
    with pytest.raises(DeviceRefused, match="belongs to the log of 'memory'") as refused:
        file.sync()
    assert "database file of their own" in (refused.value.hint or "")
    assert home.entries() == []
    assert file.sync_object.status().pending == 1


def test_a_log_that_never_agrees_is_given_up_on(new_file: NewFile, home: MemoryHome) -> None:
    file = new_file("a")
    file.put("x", text="one")

    def never(device: str, entries: Any, **options: Any) -> Receipt:
        raise LineageChanged

    file.wire.write = never  # type: ignore[method-assign]
    with pytest.raises(LineageChanged):
        file.sync()
    assert file.sync_object.status().pending == 1


# -- ids ------------------------------------------------------------------------------------

WORDS = st.text("0123456789abcdef", min_size=8, max_size=8)
IDS = st.text("0123456789abcdef", min_size=1, max_size=24)


@given(IDS, IDS, WORDS)
def test_a_descendant_stands_among_others_where_its_ancestor_does(
    device: str, other: str, word: str
) -> None:
    new = descendant(device, word)
    assert new > device and akin(new, device)
    if not other.startswith(device):
        assert (new < other) == (device < other)


@given(st.lists(WORDS, max_size=60))
def test_an_id_never_gets_too_long(some: list[str]) -> None:
    device = "3f9a00000000000000000000"
    for word in some:
        before, device = device, descendant(device, word)
        assert device != before or device.endswith(word)
        assert len(device) <= ID_CHARS_MAX


@pytest.mark.parametrize("ahead", ["both", "the first", "the second"])
@pytest.mark.parametrize("counts_on", [True, False])
def test_what_copies_have_in_common_counts_once_also_where_it_is_dated_anew(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, time: Time, ahead: str, counts_on: bool
) -> None:
    """Each copy for itself gives it other timestamps; it says the first one, too."""
    first = new_file("a", now=lambda: time() + 60 * MINUTE)
    first.put("x", text="in common")
    first.count("t", 1)
    first.count("t", 2)
    if ahead == "the second":
        first.now = time
    copy_by_backup(first.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: time() + 90 * MINUTE)
    other = new_file("b")
    if counts_on:
        first.count("t", 4)
        copy.count("t", 8)
    copy.put("y", text="by the copy")
    assert counted_by(first, copy, other) == [{"t": 15 if counts_on else 3}] * 3
    assert sorted(filter(None, words(home))) == ["by the copy", "in common"]
    assert first.items() == copy.items() == other.items() == expected(home.entries())
    assert [file.sync_object.status().pending for file in (first, copy, other)] == [0] * 3
    assert all(file.sync_object.verify().equal for file in (first, copy, other))


@pytest.mark.parametrize("parts", [False, True], ids=["sync", "receive and reconcile"])
@pytest.mark.parametrize("read_before", [False, True])
def test_what_others_did_between_the_two_dates_stands(
    new_file: NewFile,
    home: MemoryHome,
    tmp_path: Path,
    time: Time,
    parts: bool,
    read_before: bool,
) -> None:
    """The copy has later timestamps for what the first file sent, and believed that it won."""
    first, other = new_file("a", now=lambda: time() + 60 * MINUTE), new_file("b")
    first.sync()
    other.put("x", text="from before")
    other.sync()
    for file in (first, other):
        file.sync()
    first.put("x", text="in common")
    first.put("y", text="in common, too")
    copy_by_backup(first.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: time() + 90 * MINUTE)
    if read_before:  # before the first file sends anything
        other.put("x", text="by the other")
        other.sync()
        copy.sync_object.receive()
        copy.sync_object.reconcile()
    first.sync()
    other.sync()
    other.put("x", text="later")
    other.delete("y")
    other.sync()
    copy.put("z", text="by the copy")
    if parts:
        copy.sync_object.receive()
        copy.sync_object.reconcile()
    settle(home, first, copy, other)
    assert copy.items()["x"] == ("later", "")
    assert "y" not in copy.items()
    assert all(file.sync_object.verify().equal for file in (first, copy, other))
    assert copy.sync_object.journal.state("rereading") is None


def test_what_a_copy_writes_after_it_took_the_other_ones_date_is_later(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, time: Time
) -> None:
    """Its timestamps come before those that it took back."""
    first = new_file("a", now=lambda: time() + 60 * MINUTE)
    first.put("x", text="in common")
    copy_by_backup(first.path, tmp_path / "copy.db")
    copy = new_file("copy")
    first.sync()
    copy.sync()
    assert copy.forks
    copy.put("x", text="by the copy")
    settle(home, first, copy)
    assert first.items() == {"x": ("by the copy", "")}


@pytest.mark.parametrize("said", ['{"total":1}', '{"add":"x","total":1}', '{"add":1,"total":[]}'])
@pytest.mark.parametrize("dated", ["", ',"recorded":%d'])
def test_what_is_no_increment_stops_no_copy(
    new_file: NewFile, home: MemoryHome, said: str, dated: str
) -> None:
    """Somebody writes under an id that looks like a copy's, at the time of an unsent increment."""
    file = new_file("a")
    file.count("t", 1)
    file.sync()
    file.count("t", 2)
    [*_, unsent] = file.held()
    data = (
        '{"operation":"modify","collection":"tally","pk":"t","field":null,'
        f'"value":{{"count":{said}}},"rules":{{"count":"counter"}}'
    )
    data += (dated % unsent.ticks if dated else "") + "}"
    strange = f"{file.device}.strange"
    home.log.register("strange", strange)
    ticks = unsent.ticks - 5 if dated else unsent.ticks
    outgoing = [Outgoing(ticks, 0, data)]
    home.log.write(strange, outgoing, after=None, now_ms=NOON_MS, limit=9, byte_limit=999)
    assert counted_by(file, new_file("b")) == [{"t": 3}] * 2
    assert len(file.sync_object.parked()) == 1


def test_copies_that_did_the_same_at_the_same_time_are_two_all_the_same(
    new_file: NewFile, home: MemoryHome, tmp_path: Path
) -> None:
    """What the one sent is what the other one has not sent yet; but that has more before it."""
    clocks = {"a": NOON_MS, "copy": NOON_MS}
    first, other = new_file("a", now=lambda: clocks["a"]), new_file("b")
    first.put("e", text="in common")
    first.sync()
    copy_by_backup(first.path, tmp_path / "copy.db")
    copy = new_file("copy", now=lambda: clocks["copy"])
    clocks["copy"] += MINUTE
    copy.put("b", text="by the copy")
    clocks["copy"] = clocks["a"] = NOON_MS + 2 * MINUTE
    for file in (first, copy):
        file.delete("e")
    settle(home, first, copy, other)
    assert first.items() == {"b": ("by the copy", "")}


@pytest.mark.parametrize("ids", ["bmz", "zmb", "mbz", "mzb"])
@pytest.mark.parametrize("sends", [False, True], ids=["reads first", "sends first"])
def test_what_copies_wrote_at_one_time_is_decided_by_who_sent_it(
    new_file: NewFile, home: MemoryHome, tmp_path: Path, ids: str, sends: bool
) -> None:
    """Two have one write in common, and a third one has another one of the same time. An id, which
    decides, is not known before something is sent."""
    ms = [NOON_MS]

    def now() -> int:
        return ms[0]

    first = new_file("a", now=now)
    first.put("x", text="before")
    first.sync()
    names = ("one", "rival", "two")
    for name in names[:2]:
        copy_by_backup(first.path, tmp_path / f"{name}.db")
    one, rival = (
        new_file(name, now=now, new_id=lambda word=word: word * 8)
        for name, word in zip(names[:2], ids, strict=False)
    )
    ms[0] += MINUTE
    first.put("y", text="as the first one")
    first.sync()
    one.put("x", text="in common")
    rival.put("x", text="rival")
    copy_by_backup(one.path, tmp_path / "two.db")
    two = new_file("two", now=now, new_id=lambda: ids[2] * 8)
    rival.sync()
    if sends:
        two.sync()
    else:
        two.sync_object.receive()
    one.sync()
    settle(home, first, one, rival, two)
