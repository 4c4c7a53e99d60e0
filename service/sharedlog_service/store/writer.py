"""Where the store's work runs: inline in the caller's thread, or in threads beside an event loop.

Both faces are the same three methods, so the resolvers know of neither. `Workers` has as many
writing threads as can write at a time, and a few reading ones; a single one's queue makes
concurrent requests share a commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store

T = TypeVar("T")
U = TypeVar("U")

Work = Callable[[Store], T]

SHARED_COMMIT_MAX = 64
"""How many requests share a commit at most: bounds what waits in the write-ahead log."""

DROPPABLE_QUEUE_MAX = 256

CLOSE_S = 1
"""How long what is queued may take at the end, after everybody who waited was told or gone."""

logger = logging.getLogger("sharedlog.service")


class Runner(Protocol):
    """Runs work on the store and returns its result, or something to await for it."""

    def read(self, work: Work[T]) -> Awaitable[T] | T:
        """Run work that changes nothing."""

    def write(self, work: Work[T]) -> Awaitable[T] | T:
        """Run work that is whole or absent; the result means it is durable."""

    def write_then_read(self, work: Work[T], then: Callable[[Store, T], U]) -> Awaitable[U] | U:
        """Run reading work on the result of writing work, after that is durable."""

    def later(self, work: Work[object]) -> None:
        """Run writing work some time, or, under load, never. Returns at once."""


class Inline:
    """Runs everything at once in the calling thread: for tests, simulation, one process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, work: Work[T]) -> T:
        return work(self._store)

    def write(self, work: Work[T]) -> T:
        with self._store.transaction():
            return work(self._store)

    def write_then_read(self, work: Work[T], then: Callable[[Store, T], U]) -> U:
        return then(self._store, self.write(work))

    def later(self, work: Work[object]) -> None:
        self.write(work)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A piece of writing work, and who waits for it."""

    work: Work[Any]
    waiting: asyncio.Future[Any] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to."""

    job: Job
    result: Any = None
    error: Exception | None = None

    def deliver(self) -> None:
        """Wake who waits; runs on their event loop."""
        waiting = self.job.waiting
        if waiting is None or waiting.done():
            return
        if self.error is not None:
            waiting.set_exception(self.error)
        else:
            waiting.set_result(self.result)


class Workers:
    """Runs work in threads, for an event loop that must not block."""

    def __init__(self, store: Store, *, readers: int) -> None:
        self._store = store
        self._limiter = anyio.CapacityLimiter(readers)
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        # Several would not be faster where only one can write, and there they share a commit.
        # Where they can, each has its own: they must not wait for each other's locks.
        self._share = SHARED_COMMIT_MAX if store.writers == 1 else 1
        self._threads = [
            Thread(target=self._run, name=f"sharedlog-writer-{number}", daemon=True)
            for number in range(store.writers)
        ]
        self._closed = False
        self.commits = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    async def close(self, patience_s: float = CLOSE_S) -> bool:
        """Finish what is queued, then stop. Returns whether that was in time; what was not, nobody
        was told of."""
        self._closed = True
        self._queue.put(None)
        return await asyncio.to_thread(self._join, patience_s)

    def _join(self, patience_s: float) -> bool:
        end = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    async def read(self, work: Work[T]) -> T:
        return await anyio.to_thread.run_sync(work, self._store, limiter=self._limiter)

    async def write(self, work: Work[T]) -> T:
        if self._closed:
            raise Refused(Code.UNAVAILABLE)
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(Job(work, waiting))
        return await waiting

    async def write_then_read(self, work: Work[T], then: Callable[[Store, T], U]) -> U:
        result = await self.write(work)
        return await self.read(lambda store: then(store, result))

    def later(self, work: Work[object]) -> None:
        if not self._closed and self._queue.qsize() < DROPPABLE_QUEUE_MAX:
            self._queue.put(Job(work))

    def _run(self) -> None:
        while jobs := self._take():
            self._hand_out(self._commit(jobs))

    def _take(self) -> list[Job]:
        """Wait for a job and take with it what came up meanwhile. Returns none at the end."""
        job = self._queue.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == self._share:
                return jobs
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs
        self._queue.put(None)  # for the other threads, and for this one's next turn
        return jobs

    def _commit(self, jobs: list[Job]) -> list[Outcome]:
        if self._share == 1:  # the store's own transactions are enough
            return [self._attempt(job, nullcontext()) for job in jobs]
        try:
            with self._store.transaction():
                outcomes = [self._attempt(job, self._store.transaction()) for job in jobs]
        except Exception as error:
            return [Outcome(job, error=error) for job in jobs]
        self.commits += 1
        return outcomes

    def _attempt(self, job: Job, scope: AbstractContextManager[None]) -> Outcome:
        """Run one job in a scope of its own: when it fails, it is rolled back alone."""
        try:
            with scope:
                return Outcome(job, job.work(self._store))
        except Exception as error:
            if job.waiting is None:
                logger.debug("work that nobody waits for failed: %s", type(error).__name__)
            return Outcome(job, error=error)

    def _hand_out(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if (waiting := outcome.job.waiting) is not None:
                try:
                    waiting.get_loop().call_soon_threadsafe(outcome.deliver)
                except RuntimeError:
                    # The event loop is gone, and with it everybody who could be told.
                    return
