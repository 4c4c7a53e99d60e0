"""Counting as a merge rule: the increments of all devices add up. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..changes import Wire, dumps, loads
from ..clock import Version
from ..raw import EXACT_INTEGER
from .rules import NOTHING_DONE, MergeRule, Writes

ADD, TOTAL, SINCE, OF = "add", "total", "since", "of"
_WHOLE = re.compile(r"-?\d+", re.ASCII)


def whole(wire: Wire) -> int:
    """The whole number that a wire value stands for; ValueError if it is none."""
    if type(wire) is int:
        return wire
    if type(wire) is str and _WHOLE.fullmatch(wire):
        return int(wire)
    raise ValueError(f"{wire!r:.100} is no whole number")


def number(value: int) -> Wire:
    return value if abs(value) <= EXACT_INTEGER else str(value)


def _is_whole(wire: Wire) -> bool:
    return type(wire) is int or (type(wire) is str and _WHOLE.fullmatch(wire) is not None)


class Counter(MergeRule):
    """A whole number to which the increments of all devices are added.

    Operands are plain numbers (the base: the latest counts) and increments, `{"add": 2,
    "total": 5, "since": ticks}`. A device's increments of one field form a *run*: `total` is
    their sum so far, `since` the timestamp of the first one (which does not say it). So the
    latest increment of a run says it all. A run that began before the row's latest deletion
    belongs to an earlier life of the row and does not count; a device begins a new one when it
    hears of such a deletion. (`of` names the device that began the run, if that is not the one
    whose entry it is: see `runs`.)
    """

    name = "counter"

    def __init__(self, default: int = 0) -> None:
        self._default = default

    def fits(self, value: Wire, *, plain: bool) -> bool:
        if type(value) is not dict:
            return _is_whole(value)
        return (
            not plain
            and _is_whole(value.get(ADD))
            and _is_whole(value.get(TOTAL))
            and (SINCE not in value or type(value[SINCE]) is int)
            and (OF not in value or type(value[OF]) is str)
        )

    def written(self, before: Wire, after: Wire, writes: Writes, device: str) -> Wire:
        added = whole(after) - (whole(before) if _is_whole(before) else 0)
        if not added:
            return NOTHING_DONE
        run = [w for w in writes if type(w[1]) is dict and run_of(*w).device == device][-1:]
        if not run:
            return {ADD: number(added), TOTAL: number(added)}
        [(version, operand)] = run
        return {
            ADD: number(added),
            TOTAL: number(whole(operand[TOTAL]) + added),
            SINCE: run_of(version, operand).ticks,
        }

    def restated(self, value: Wire, writes: Writes) -> Wire:
        return number(whole(value) - self._increments(writes)) if _is_whole(value) else value

    def live(self, writes: Writes, died: Version | None) -> Writes:
        """Bases after the deletion, and increments of runs that began after it."""
        if died is None:
            return writes
        return [write for write in writes if run_of(*write) > died]

    def keep(self, writes: Writes) -> Writes:
        """The latest base, and the latest increment of each run."""
        kept: Writes = []
        seen: set[Version | None] = set()
        for version, operand in reversed(writes):
            run = run_of(version, operand) if type(operand) is dict else None
            if run not in seen:
                seen.add(run)
                kept.append((version, operand))
        return kept[::-1]

    def value(self, writes: Writes) -> Wire:
        base = self._default
        for _, operand in writes:
            if type(operand) is not dict:
                base = whole(operand)
        return number(base + self._increments(writes))

    def _increments(self, writes: Writes) -> int:
        return sum(whole(o[TOTAL]) for _, o in self.keep(writes) if type(o) is dict)


def run_of(version: Version, operand: Wire) -> Version:
    """When the run of an increment began, and on which device; a base is its own beginning."""
    if type(operand) is not dict:
        return version
    return Version(operand.get(SINCE, version.ticks), operand.get(OF, version.device))


def restamped(value: Wire, renamed: Mapping[int, int]) -> Wire:
    """What a change of this device says of a counter, after its timestamps were replaced."""
    if type(value) is dict and value.get(SINCE) in renamed:
        return {**value, SINCE: renamed[value[SINCE]]}
    return value


def restamped_json(values_json: str, rules_json: str, renamed: Mapping[int, int]) -> str:
    """The values of such a change, as JSON text. `rules_json` names their rules."""
    values, rules = loads(values_json), loads(rules_json)
    counters = [name for name, rule in rules.items() if rule == Counter.name]
    return dumps({**values, **{name: restamped(values[name], renamed) for name in counters}})
