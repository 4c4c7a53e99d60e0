"""Listening for pokes, for as long as a program runs: a thread that comes back when it was cut off.

The waits between tries grow and have chance in them, so that a service which comes back is not met
by all its devices at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Thread

from ..errors import RateLimited, SharedLogError, Unauthorized
from .sharedlog import Pokes

FIRST_S, MAX_S = 1.0, 60.0

JOIN_S = 1.0
"""How long a thread that is about to connect is waited for; it ends by itself then."""

Wait = Callable[[Event, float], object]
"""Waits until the event is set, or so many seconds are over."""

Random = Callable[[], float]
"""A number from 0 to 1."""


class Backoff:
    """How long to wait before the next try: twice as long each time, up to a minute, give or take
    a half."""

    def __init__(self, chance: Random = random.random) -> None:
        self._chance = chance
        self._next_s = FIRST_S

    def reset(self) -> None:
        self._next_s = FIRST_S

    def after(self, error: Exception) -> float:
        """Seconds to wait after a failure. Who is not let in twice has no hurry; once may be for a
        token that has ended, and there is another one by now."""
        if isinstance(error, Unauthorized) and self._next_s > FIRST_S:
            self._next_s = MAX_S
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, MAX_S)
        wait_s *= 0.5 + self._chance()
        return max(wait_s, error.retry_after) if isinstance(error, RateLimited) else wait_s


class Listening:
    """Listens in a thread of its own.

    Args:
        pokes: Opens the connection by which pokes come.
        poked: Called with the cursor of each poke.
        lost: Called when there are no pokes (any more), with the reason and how many seconds
            later they are tried for again.
    """

    def __init__(
        self,
        pokes: Callable[[], AbstractContextManager[Pokes] | None],
        poked: Callable[[str], None],
        lost: Callable[[Exception, float], None],
        *,
        wait: Wait = Event.wait,
        chance: Random = random.random,
    ) -> None:
        self._open = pokes
        self._poked = poked
        self._lost = lost
        self._wait = wait
        self._backoff = Backoff(chance)
        self._closing = Event()
        self._pokes: Pokes | None = None
        self._thread = Thread(target=self._run, name="sharedlog-pokes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if (pokes := self._pokes) is not None:
            pokes.close()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (SharedLogError, OSError) as error:  # also where there is no token now
                if self._closing.is_set():
                    return
                wait_s = self._backoff.after(error)
                self._lost(error, wait_s)
                self._wait(self._closing, wait_s)

    def _listen(self) -> None:
        opening = self._open()
        assert opening is not None
        with opening as pokes:
            self._pokes = pokes
            try:
                if self._closing.is_set():  # close() has seen no connection yet
                    return
                for cursor in pokes:
                    self._backoff.reset()
                    self._poked(cursor)
            finally:
                self._pokes = None
