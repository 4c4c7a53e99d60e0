"""The runs of counters (see `counter.Counter`), where increments change hands. Pure.

A run belongs to the device that began it. Where somebody else sends an increment, it says whose
run it is of. But a copy that has the same past must not go on with the same runs: the increments
that are not in the log stand alone from then on, each under a name that follows from how it was
recorded. So it is the same whichever copy sends it, and counts once.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping

from ..changes import Change, Wire, loads
from ..clock import Version
from .counter import (
    ADD,
    OF,
    TOTAL,
    Counter,
    alone,
    is_increment,
    is_readable,
    lost,
    number,
    run_of,
    whole,
)

COUNTER = Counter.name

Values = dict[str, Wire]


def handed_over(value: Wire, device: str) -> Wire:
    """What an increment of this device says when it becomes another one's."""
    return {**value, OF: device} if is_increment(value) and OF not in value else value


def increments(values: Mapping[str, Wire] | None, rules: Mapping[str, str] | None) -> Values:
    """Those among the values of a change that are increments, whoever wrote it."""
    counts = {name for name, rule in (rules or {}).items() if rule == COUNTER}
    return {n: v for n, v in (values or {}).items() if n in counts and is_readable(v)}


def doubted(change: Change) -> Change:
    """A change that the log may have lost: so are its increments."""
    counted = increments(change.value, change.rules)
    if not counted:
        return change
    value = {**(change.value or {}), **{name: lost(operand) for name, operand in counted.items()}}
    return change._replace(value=value)


def counts_of(value_json: str | None, rules_json: str | None) -> Values:
    """What a change in a client log says of counters: increments, and bases."""
    if value_json is None or rules_json is None:
        return {}
    values, rules = loads(value_json), loads(rules_json)
    return {name: v for name, v in values.items() if rules.get(name) == COUNTER}


class Handover:
    """Restates increments of one device that become another one's, one after the other. They leave
    the runs of the devices in `left`."""

    def __init__(self, device: str, to: str, left: Container[str]) -> None:
        self._device = device
        self._goes_on = device == to
        self._left = left
        self._begun: set[Hashable] = set()
        self.has_left = False
        """Whether any increment left its run."""

    def restated(
        self, field: Hashable, ticks: int, value: Wire
    ) -> tuple[Wire, tuple[Version, Wire] | None]:
        """What an increment of a field of a row says then; and, with the first one that leaves a
        run which goes on, what that run came to before it."""
        version = Version(ticks, self._device)
        run = run_of(version, value)
        if run.device not in self._left:
            return value if self._goes_on else handed_over(value, self._device), None
        self.has_left = True
        first = run.ticks != ticks and (field, run) not in self._begun
        self._begun.add((field, run))
        before = number(whole(value[TOTAL]) - whole(value[ADD]))
        return alone(version, value), (run, lost({ADD: before, TOTAL: before})) if first else None
