"""Several processes at one listening socket: each takes the connections that it gets, and one that
dies is replaced.

The first process only looks after the others. It forks them before anything runs in threads, so
they share the memory of what is loaded; and what they work on is in PostgreSQL.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

PROCESSES_MAX = 64

TICK_S = 0.2
"""How often it is looked at who has died."""

YOUNG_S = 1.0
"""Who dies sooner is replaced later: what killed it may be there still."""

FAILED = 3
"""How a process ends that could not begin to serve, as uvicorn has it."""

logger = logging.getLogger("sharedlog.service")

Work = Callable[[Callable[[], None]], int]
"""Serves until it is told to end; calls what it is given once it serves. Returns the exit code."""


class Processes:
    """So many processes that do the same work; runs once.

    Args:
        count: How many.
        work: What each does.
        ready: Called here, once all of them serve.
        seconds, sleep: The sources of time and of waiting.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        ready: Callable[[], None],
        *,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._count = count
        self._work = work
        self._ready = ready
        self._seconds = seconds
        self._sleep = sleep
        self._born: dict[int, float] = {}
        self._serving = 0
        self._leaving = False
        self._failed = False

    def run(self) -> int:
        """Start them all, replace who dies, and pass signals on; return when all have ended."""
        self._signs, self._sign = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        for _ in range(self._count):
            self._start()
        while self._born:
            if select.select([self._signs], [], [], TICK_S)[0]:
                self._count_ready(len(os.read(self._signs, PROCESSES_MAX)))
            self._bury()
        return FAILED if self._failed else 0

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(self._be_one())
        self._born[pid] = self._seconds()
        if self._leaving:  # told while this one was being made, and was not among those then
            os.kill(pid, signal.SIGTERM)

    def _be_one(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        try:
            return self._work(self._give_sign)
        except BaseException:
            logger.exception("a process of the service failed")
            return 1

    def _give_sign(self) -> None:
        os.write(self._sign, b".")

    def _count_ready(self, more: int) -> None:
        before, self._serving = self._serving, self._serving + more
        if before < self._count <= self._serving:
            self._ready()

    def _bury(self) -> None:
        while self._born:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            age = self._seconds() - self._born.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._leaving:
                continue
            if code == FAILED:  # another one would not be able to, either
                self._failed = True
                self._pass_on(signal.SIGTERM, None)
                continue
            logger.error("a process of the service ended (%d); another one takes its place", code)
            if age < YOUNG_S:
                self._sleep(YOUNG_S)
            if not self._leaving:
                self._start()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._leaving = True
        for pid in list(self._born):
            os.kill(pid, number)


def is_orphan_of(parent: int) -> Callable[[], bool]:
    """Return what tells whether the process that started this one is gone."""
    return lambda: os.getppid() != parent
