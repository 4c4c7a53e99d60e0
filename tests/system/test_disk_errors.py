"""A call to the disk fails, or memory runs out: whole or absent, told, and no longer than it lasts.

For every transaction of the service, and everything it reads: the n-th call of SQLite to its file
system fails, for every n, once or from there on, because the disk is broken or because it is full.
The request is refused with `UNAVAILABLE`, nothing of it is there, and the same store, without a
restart, does it when the disk is well again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from sharedlog_service.entries import EntryFilter
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store
from tests.memory import folder_in_memory
from tests.system.disk.disk import Disk, Failure
from tests.system.store_work import (
    Contents,
    Operation,
    World,
    check_whole,
    contents,
    first_operations,
    operations,
)

WORK = [*first_operations(), *operations(0)]

READS: dict[str, Callable[[Store], object]] = {
    "a page": lambda store: store.read("ada", "register a device/1", None).packed,
    "entries": lambda store: store.find("ada", EntryFilter(), count=100).rows,
    "history": lambda store: store.history("ada", "notes 0", "0-0-1", 10).rows,
    "stats": lambda store: store.stats("ada"),
    "devices": lambda store: store.devices("ada"),
    "users": lambda store: store.users(),
    "tokens": lambda store: [token.hash for token in store.tokens()],
    "a token's user": lambda store: store.grant("none"),
    "health": lambda store: store.check(),
}

CHECKPOINT_PAGES = 4
"""So small that most transactions bring the log into the file."""

MEMORY_STEP = 1_000
"""So many bytes more each time, until there is enough memory."""


class Known(NamedTuple):
    """The files before a transaction, and all that is in them before and after it."""

    folder: Path
    before: Contents
    after: Contents


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with folder_in_memory() as folder:
        yield Bench(folder)


class Bench:
    """Does a transaction on fresh copies of the same files, again and again."""

    def __init__(self, folder: Path) -> None:
        self._here = folder / "here"
        self.known: list[Known] = []
        self._here.mkdir()
        with self.store():
            pass
        for index, operation in enumerate(WORK):
            copy = folder / f"before {index}"
            shutil.copytree(self._here, copy)
            before = committed(self._here / "log.db")
            with self.store() as (store, world):
                world.perform(operation, store)
            self.known.append(Known(copy, before, committed(self._here / "log.db")))
        self.done = folder / "done"
        shutil.copytree(self._here, self.done)

    @contextmanager
    def store(self, files: Path | None = None) -> Iterator[tuple[Store, World]]:
        """A store on a fresh copy of some files; closed at the end, and then they are sound."""
        if files is not None:
            shutil.rmtree(self._here)
            shutil.copytree(files, self._here)
        world = World(self._here / "log.db")
        store = world.open()
        yield store, world
        store.close()
        check_whole(committed(world.path))


def committed(path: Path) -> Contents:
    """What another process would see; it sees the real disk."""
    connection = apsw.Connection(str(path), vfs="unix")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return contents(connection)
    finally:
        connection.close()


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A simulated disk under everything that is opened."""
    disk = Disk()
    apsw.connection_hooks.append(checkpoint_as_sqlite_does)
    with disk.mounted():
        yield disk
    apsw.connection_hooks.remove(checkpoint_as_sqlite_does)


def checkpoint_as_sqlite_does(connection: Any) -> None:
    """SQLite ignores it when the checkpoint after a commit fails. An exception of Python's, from
    the simulated disk, would come through; so this does the same in Python."""

    def after_commit(connection: Any, name: str, pages: int) -> int:
        if pages >= CHECKPOINT_PAGES:
            with suppress(apsw.Error):
                connection.wal_checkpoint(name)
        return apsw.SQLITE_OK

    connection.set_wal_hook(after_commit)


def attempt(act: Callable[[], object]) -> bool:
    """Whether it was done; if not, it was refused in the one right way."""
    try:
        act()
    except Refused as refused:
        assert refused.code is Code.UNAVAILABLE
        return False
    return True


FAILURES = [Failure(0), Failure(0, lasting=True), Failure(0, full=True, lasting=True)]


def ids(failure: Failure) -> str:
    return f"{'full' if failure.full else 'broken'}, {'lasting' if failure.lasting else 'once'}"


@pytest.mark.parametrize("kind", FAILURES, ids=ids)
@pytest.mark.parametrize("index", range(len(WORK)), ids=[operation.name for operation in WORK])
def test_a_transaction_is_whole_or_absent(
    bench: Bench, disk: Disk, index: int, kind: Failure
) -> None:
    operation, known = WORK[index], bench.known[index]
    results: Counter[bool] = Counter()
    for number in numbers(bench, disk, known, operation):
        with bench.store(known.folder) as (store, world):
            disk.fail(Failure(number, kind.lasting, kind.full))
            done = attempt(lambda: world.perform(operation, store))
            disk.fail(None)
            assert committed(world.path) == (known.after if done else known.before)
            if not done:
                world.perform(operation, store)
            assert committed(world.path) == known.after
        results[done] += 1
    print(operation.name, ids(kind), dict(results), sep=": ")  # noqa: T201
    assert results[False] > 0


def numbers(bench: Bench, disk: Disk, known: Known, operation: Operation) -> range:
    """The numbers of the calls that a transaction makes."""
    with bench.store(known.folder) as (store, world):
        disk.fail(None)
        world.perform(operation, store)
        count = len(disk.asked)
    return range(1, count + 1)


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", READS)
def test_reading_is_refused_and_then_goes_on(
    bench: Bench, disk: Disk, name: str, lasting: bool
) -> None:
    with bench.store(bench.done) as (store, _):
        disk.fail(None)
        expected = READS[name](store)
        count = len(disk.asked)
    for number in range(1, count + 1):
        with bench.store(bench.done) as (store, _):
            disk.fail(Failure(number, lasting))
            assert not attempt(lambda: READS[name](store))
            disk.fail(None)
            assert READS[name](store) == expected
            assert store.create_user("still writes")


def opened(world: World) -> Store | None:
    """A store, unless opening it was refused."""
    stores: list[Store] = []
    attempt(lambda: stores.append(world.open()))
    return stores[0] if stores else None


@pytest.mark.parametrize("files", ["none", "closed", "killed"])
def test_opening_is_refused_and_works_the_next_time(
    bench: Bench, disk: Disk, memory: Path, files: str
) -> None:
    source = {"none": memory / "none", "closed": bench.done, "killed": memory / "killed"}[files]
    (memory / "none").mkdir()
    with bench.store(bench.done) as (alive, world):
        alive.create_user("in the log only")
        shutil.copytree(world.path.parent, memory / "killed")
    number, count, refused = 0, 1, 0
    while number <= count:
        number += 1
        here = memory / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(source, here)
        world = World(here / "log.db")
        disk.fail(Failure(number))
        store = opened(world)
        refused += store is None
        count = len(disk.asked)
        disk.fail(None)
        store = store or world.open()
        assert ("ada" in store.users()) == (files != "none")
        assert ("in the log only" in store.users()) == (files == "killed")
        store.close()
    assert refused > 5


@pytest.mark.parametrize("index", range(len(WORK)), ids=[operation.name for operation in WORK])
def test_a_transaction_without_memory_is_whole_or_absent(bench: Bench, index: int) -> None:
    operation, known = WORK[index], bench.known[index]
    refused, done = 0, False
    while not done:
        with bench.store(known.folder) as (store, world):
            with memory_limit(refused * MEMORY_STEP):
                done = attempt(lambda: world.perform(operation, store))
            assert committed(world.path) == (known.after if done else known.before)
            if not done:
                world.perform(operation, store)
            assert committed(world.path) == known.after
        refused += not done
    print(f"{operation.name}: refused {refused} times")  # noqa: T201
    assert refused > 3


@pytest.mark.parametrize("name", READS)
def test_reading_without_memory_is_refused_and_then_goes_on(bench: Bench, name: str) -> None:
    with bench.store(bench.done) as (store, _):
        expected = READS[name](store)
    refused, done = 0, False
    while not done:
        with bench.store(bench.done) as (store, _):
            with memory_limit(refused * MEMORY_STEP * 4):
                done = attempt(lambda: READS[name](store))
            assert READS[name](store) == expected
            assert store.create_user("still writes")
        refused += not done
    assert refused > 3


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """SQLite may ask for so many bytes more than it has, and no more."""
    apsw.hard_heap_limit(apsw.memory_used() + more)
    try:
        yield
    finally:
        apsw.hard_heap_limit(0)
