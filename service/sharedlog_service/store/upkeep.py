"""What the service does for its logs by itself, now and then: compaction."""

from __future__ import annotations

import asyncio
import logging
from threading import Event, Thread

from sharedlog_service.errors import Refused
from sharedlog_service.settings import Policy
from sharedlog_service.store.store import Job, Store
from sharedlog_service.store.writer import Workers

PATIENCE_S = 1

logger = logging.getLogger("sharedlog.service")


class Stopped(Exception):
    """The service ends; the next run goes on where this one was."""


class Upkeep:
    """Compacts all logs at intervals, in a thread that reads; what it writes takes its turn with
    everybody's writing."""

    def __init__(self, store: Store, workers: Workers, policy: Policy, every_ms: int) -> None:
        self._store = store
        self._workers = workers
        self._policy = policy
        self._every_s = every_ms / 1000
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sharedlog-upkeep", daemon=True)

    def start(self) -> None:
        """Call it on the event loop that the workers answer to."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                for user in self._store.users():
                    self._store.compact(user, self._policy, write=self._write)
            except Stopped:
                return
            except Refused as refused:  # the next turn is another try
                logger.warning("compaction was interrupted: %s", refused.code.name)
            except Exception:
                logger.exception("compaction failed")

    def _write(self, job: Job) -> None:
        if self._stop.is_set():
            raise Stopped
        asyncio.run_coroutine_threadsafe(self._workers.write(job), self._loop).result()
