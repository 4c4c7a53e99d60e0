"""The writing thread: a shared commit, a failure alone, an answer only after the commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store
from sharedlog_service.store.writer import Inline, Workers
from tests.engines import Engine, Sqlite
from tests.service.support import NOON, entries, flat, read_all


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """One writer, whose commits are shared: `test_postgres` has the other case."""
    return Sqlite(tmp_path)


@pytest.fixture
def writer(store: Store) -> str:
    return store.create_device("ada")


@asynccontextmanager
async def working(store: Store) -> AsyncIterator[Workers]:
    workers = Workers(store, readers=2)
    workers.start()
    try:
        yield workers
    finally:
        assert await workers.close()


class Gate:
    """Holds the writing thread until the test has queued what it wants to see together."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, store: Store) -> None:
        self.entered.set()
        assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


def push(device: str, turn: int) -> Callable[[Store], int]:
    return lambda store: store.write("ada", device, entries(1, start=NOON + turn)).accepted


async def behind_a_gate(
    workers: Workers, works: list[Callable[[Store], int]]
) -> list[int | BaseException]:
    """Queue works while the writing thread is busy, so that it finds them all at once."""
    gate = Gate()
    held = asyncio.ensure_future(workers.write(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    waiting = [asyncio.ensure_future(workers.write(work)) for work in works]
    await asyncio.sleep(0)
    gate.open()
    await held
    return await asyncio.gather(*waiting, return_exceptions=True)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_requests_that_come_together_share_a_commit(store: Store, writer: str) -> None:
    async def test() -> None:
        async with working(store) as workers:
            results = await behind_a_gate(workers, [push(writer, turn) for turn in range(20)])
            assert results == [1] * 20
            assert workers.commits == 2

    run(test)
    assert store.stats("ada").head.seq == 20


def test_no_more_than_64_share_a_commit(store: Store, writer: str) -> None:
    async def test() -> None:
        async with working(store) as workers:
            await behind_a_gate(workers, [push(writer, turn) for turn in range(130)])
            assert workers.commits == 1 + 3

    run(test)
    assert store.stats("ada").head.seq == 130


def test_a_request_that_fails_is_undone_alone(store: Store, writer: str) -> None:
    def failing(store: Store) -> int:
        store.write("ada", writer, entries(1, start=NOON + 500))
        raise RuntimeError("after writing")

    async def test() -> None:
        async with working(store) as workers:
            works = [push(writer, 1), failing, push(writer, 2)]
            first, failed, last = await behind_a_gate(workers, works)
            assert (first, last) == (1, 1)
            assert isinstance(failed, RuntimeError)
            assert workers.commits == 2

    run(test)
    reader = store.create_device("ada")
    kept = [entry.data for turn in (1, 2) for entry in entries(1, start=NOON + turn)]
    assert flat(read_all(store, "ada", reader)) == kept


def test_when_the_commit_fails_nobody_is_told_that_it_worked(store: Store, writer: str) -> None:
    def lose_everything(store: Store) -> int:
        with store._database.transaction() as db:
            db.rows("ROLLBACK")
        return 1

    async def test() -> None:
        async with working(store) as workers:
            works = [push(writer, 1), lose_everything, push(writer, 2)]
            for result in await behind_a_gate(workers, works):
                assert isinstance(result, Refused)
                assert result.code is Code.UNAVAILABLE
            assert await workers.write(push(writer, 3)) == 1

    run(test)
    assert store.stats("ada").head.seq == 1


def test_an_answer_means_that_others_can_see_it(store: Store, writer: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with working(store) as workers:
            for turn in range(5):
                await workers.write(push(writer, turn))
                other = apsw.Connection(str(tmp_path / "log.db"))
                assert list(other.execute("SELECT count(*) FROM entries")) == [(turn + 1,)]
                other.close()

    run(test)


def test_reading_does_not_wait_for_writing(store: Store, writer: str) -> None:
    async def test() -> None:
        async with working(store) as workers:
            gate = Gate()
            held = asyncio.ensure_future(workers.write(gate))
            await asyncio.to_thread(gate.entered.wait, 10)
            head = await workers.read(lambda store: store.stats("ada").head.seq)
            assert head == 0
            gate.open()
            await held

    run(test)


def test_the_event_loop_goes_on_while_the_database_works(store: Store) -> None:
    async def test() -> None:
        async with working(store) as workers:
            thread = await workers.read(lambda store: threading.current_thread())
            assert thread is not threading.main_thread()
            thread = await workers.write(lambda store: threading.current_thread())
            assert thread.name == "sharedlog-writer-0"

    run(test)


def test_what_is_queued_is_done_before_closing_and_nothing_after(store: Store, writer: str) -> None:
    async def test() -> None:
        workers = Workers(store, readers=1)
        workers.start()
        waiting = [asyncio.ensure_future(workers.write(push(writer, n))) for n in range(100)]
        await asyncio.sleep(0)
        assert await workers.close()
        assert await asyncio.gather(*waiting) == [1] * 100
        with pytest.raises(Refused):
            await workers.write(push(writer, 1000))
        workers.later(push(writer, 1000))

    run(test)
    assert store.stats("ada").head.seq == 100


def test_a_client_that_went_away_disturbs_nobody(store: Store, writer: str) -> None:
    troubles: list[object] = []

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, what: troubles.append(what))
        async with working(store) as workers:
            gate = Gate()
            held = asyncio.ensure_future(workers.write(gate))
            await asyncio.to_thread(gate.entered.wait, 10)
            gone = asyncio.ensure_future(workers.write(push(writer, 1)))
            stays = asyncio.ensure_future(workers.write(push(writer, 2)))
            await asyncio.sleep(0)
            gone.cancel()
            gate.open()
            assert await stays == 1
            await held
            assert gone.cancelled()

    run(test)
    assert troubles == []
    # It is in the log nevertheless, and its repetition will be a duplicate.
    assert store.stats("ada").head.seq == 2


def test_later_is_dropped_under_load_and_never_fails_anybody(store: Store, writer: str) -> None:
    calls: list[int] = []

    def note(store: Store) -> None:
        calls.append(1)

    def fail(store: Store) -> None:
        raise Refused(Code.DEVICE_UNKNOWN)

    async def test() -> None:
        async with working(store) as workers:
            gate = Gate()
            held = asyncio.ensure_future(workers.write(gate))
            await asyncio.to_thread(gate.entered.wait, 10)
            workers.later(fail)
            for _ in range(1000):
                workers.later(note)
            gate.open()
            await held
            assert await workers.write(push(writer, 1)) == 1

    run(test)
    assert len(calls) == 255


def test_inline_does_the_same_in_the_calling_thread(store: Store, writer: str) -> None:
    inline = Inline(store)
    assert inline.write(push(writer, 1)) == 1
    assert inline.read(lambda store: store.stats("ada").head.seq) == 1
    assert inline.write_then_read(push(writer, 2), lambda store, n: n + 10) == 11
    inline.later(push(writer, 3))
    assert inline.read(lambda store: store.stats("ada").head.seq) == 3


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert "sharedlog-writer" not in [thread.name for thread in threading.enumerate()]
