"""The shared log in memory, as a service that can die: what it has not answered is done or not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from sharedlog import Entry, MemorySharedLog, SharedLog

from .clocks import Clock
from .faults import Crash
from .service import Logged

T = TypeVar("T")


class MemoryService:
    """Does what `service.Service` does, with `MemorySharedLog` in the place of the store."""

    def __init__(self, clock: Clock, chance: Random) -> None:
        self._chance = chance
        self._clock = clock
        self._lives = 0
        self._log = MemorySharedLog(now=clock, epoch="life-0")
        self._backup: tuple[str, list[Entry]] | None = None

    def answer(self, request: Callable[[SharedLog], T], *, dies: bool = False) -> T:
        if dies and self._chance.random() < 0.5:
            raise Crash("before everything")
        reply = request(self._log)
        if dies:
            raise Crash("after everything")
        return reply

    def restart(self) -> None:
        """What it has is durable by definition."""

    def stop(self) -> None:
        """Nothing is open."""

    def begin_new_life(self) -> None:
        self._lives += 1
        self._log.begin_new_life(f"life-{self._lives}")

    def back_up(self) -> None:
        self._backup = f"life-{self._lives}", list(self._log.entries)

    def restore(self, *, renew: bool) -> None:
        assert self._backup is not None
        epoch, entries = self._backup
        if renew:
            self._lives += 1
            epoch = f"life-{self._lives}"
        self._log.begin_new_life(epoch, entries)

    def wipe(self) -> None:
        self._lives += 1
        self._backup = None
        log = MemorySharedLog(now=self._clock, epoch=f"life-{self._lives}")
        # It counts where a service draws at random: what it gives out must not come again.
        log._writes = self._log._writes
        self._log = log

    @property
    def has_backup(self) -> bool:
        return self._backup is not None

    def entries(self) -> list[Logged]:
        return [Logged(seq, *entry) for seq, entry in enumerate(self._log.entries, 1)]
