"""The world's time, and the clocks that show it, more or less."""

from __future__ import annotations

from random import Random

START_MS = 1_800_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


class WorldTime:
    """True time in milliseconds. Only the world moves it."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


class Clock:
    """What a machine takes for the time: true time, shifted, in coarse steps, or standing still."""

    def __init__(self, time: WorldTime, offset_ms: int = 0, step_ms: int = 1) -> None:
        self._time = time
        self._offset_ms = offset_ms
        self._step_ms = step_ms
        self._frozen_ms: int | None = None
        self._started_ms = self()

    def __call__(self) -> int:
        if self._frozen_ms is not None:
            return self._frozen_ms
        return (self._time.ms + self._offset_ms) // self._step_ms * self._step_ms

    def set(self, offset_ms: int) -> None:
        self._offset_ms, self._frozen_ms = offset_ms, None

    def start(self, *, anew: bool) -> None:
        """The machine starts: the clock shows what it showed at the last start, if `anew`."""
        if anew:
            self.set(self._started_ms - self._time.ms)
        self._started_ms = self()

    def freeze(self) -> None:
        """Show the same time until it is set again: every reading repeats the one before."""
        self._frozen_ms = self()


def any_step(chance: Random) -> int:
    """How fine a clock is. In coarse steps devices often write at the same time."""
    return chance.choice((1, 1, 1, 2 * HOUR))


def any_offset(chance: Random) -> int:
    """How wrong a clock may be: hardly, by minutes, by days, either way."""
    bound = chance.choice((0, 0, 0, 5, SECOND, 4 * MINUTE, HOUR, 30 * DAY))
    return chance.randint(-bound, bound)
