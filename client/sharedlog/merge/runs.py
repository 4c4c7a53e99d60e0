"""The runs of counters (see `counter.Counter`), where increments change hands. Pure.

A run belongs to the device that began it. Where somebody else sends an increment, it says whose
run it is of. And where a device goes on under another id beside one that has the same past, both
would go on with the same runs: the increments that it has not sent begin runs of their own.
"""

from __future__ import annotations

from collections.abc import Hashable

from ..changes import Wire
from ..clock import Version
from .counter import ADD, OF, SINCE, TOTAL, Counter, number, run_of, whole

COUNTER = Counter.name


def is_increment(value: Wire) -> bool:
    return type(value) is dict and TOTAL in value


def handed_over(value: Wire, device: str) -> Wire:
    """What an increment of this device says when it becomes another one's."""
    return {**value, OF: device} if is_increment(value) and OF not in value else value


class NewRuns:
    """Restates the increments that become another device's, one after the other."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._begun: set[Hashable] = set()
        self._sums: dict[Hashable, tuple[int, int]] = {}

    def restated(
        self, field: Hashable, ticks: int, value: Wire
    ) -> tuple[Wire, tuple[Version, Wire] | None]:
        """What an increment of a field of a row says then; and, with the first one of a run that
        goes on, what that run came to before it."""
        run = run_of(Version(ticks, self._device), value)
        key = (field, run)
        if run.device != self._device or key in self._begun:
            return value, None
        if run.ticks == ticks:
            self._begun.add(key)
            return value, None
        added = whole(value[ADD])
        first, total = self._sums.get(key, (ticks, 0))
        self._sums[key] = first, total + added
        restated = {ADD: value[ADD], TOTAL: number(total + added)}
        if first != ticks:
            return {**restated, SINCE: first}, None
        before = number(whole(value[TOTAL]) - added)
        return restated, (run, {ADD: before, TOTAL: before})
