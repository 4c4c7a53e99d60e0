"""Leaving in an orderly way when told to: Ctrl-C, a termination, a closed terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """While entered, each signal becomes an exception, so that `finally` clauses run.

    Within `held()` it waits until the end of the block: a process is never started without
    being known, and never left half stopped. Python drops exceptions in some places, as in what is
    called when an object goes (imports do that): `check()` raises again what got lost there.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._holding = False
        self._pending: int | None = None
        self._told: int | None = None

    def __enter__(self) -> Signals:
        for name in NAMES:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        outer, self._holding = self._holding, True
        try:
            yield
        finally:
            self._holding = outer
        if not outer and self._pending is not None:
            number, self._pending = self._pending, None
            self._leave(number)

    def check(self) -> None:
        """Leave, if that was told before and did not happen."""
        if self._told is not None:
            self._leave(self._told)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._pending = number
        else:
            self._leave(number)

    def _leave(self, number: int) -> None:
        self._told = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
