"""Counting as a merge rule: the increments of all devices add up. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b

from ..changes import Wire, dumps, loads
from ..clock import Version
from ..raw import EXACT_INTEGER
from .rules import NOTHING_DONE, MergeRule, Writes

ADD, TOTAL, SINCE, OF = "add", "total", "since", "of"
LOST = "lost"
"""Marks an increment that the log may not have any more. It never travels."""

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

    An increment that left its run stands alone, in a run of its own (see `runs`). What was in a log
    that lost its end (`lost`) counts until it is there again, in whatever run, or something later
    of its run is.
    """

    name = "counter"

    def __init__(self, default: int = 0) -> None:
        self._default = default

    def fits(self, value: Wire, *, plain: bool) -> bool:
        return _is_whole(value) or (not plain and is_readable(value))

    def operand(self, value: Wire, *, created: bool, named: bool) -> Wire:
        return value

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
        """The latest base, and the latest increment of each run; before it, if that is lost, the
        latest one that is not."""
        kept: Writes = []
        seen: set[Version | None] = set()
        lost: set[Version | None] = set()
        there = _names_there(writes)
        for version, operand in reversed(writes):
            run = run_of(version, operand) if type(operand) is dict else None
            if run in seen:
                continue
            if not is_lost(operand):
                seen.add(run)
            elif run in lost or alone_of(version, operand) in there:
                continue
            else:
                lost.add(run)
            kept.append((version, operand))
        return kept[::-1]

    def value(self, writes: Writes) -> Wire:
        base = self._default
        for _, operand in writes:
            if type(operand) is not dict:
                base = whole(operand)
        return number(base + self._increments(writes))

    def _increments(self, writes: Writes) -> int:
        some = self.keep(writes) if any(is_lost(operand) for _, operand in writes) else writes
        counted = {run_of(*write): write[1][TOTAL] for write in some if type(write[1]) is dict}
        return sum(map(whole, counted.values()))


def _names_there(writes: Writes) -> set[Version]:
    """Which increments are not lost, in whatever run, as far as anything is lost."""
    if not any(is_lost(operand) for _, operand in writes):
        return set()
    return {alone_of(v, o) for v, o in writes if is_increment(o) and not is_lost(o)}


def is_readable(value: Wire) -> bool:
    """Whether it is an increment with all that one says."""
    return (
        type(value) is dict
        and _is_whole(value.get(ADD))
        and _is_whole(value.get(TOTAL))
        and (SINCE not in value or type(value[SINCE]) is int)
        and (OF not in value or type(value[OF]) is str)
    )


def is_increment(value: Wire) -> bool:
    return type(value) is dict and TOTAL in value


def is_lost(value: Wire) -> bool:
    return type(value) is dict and LOST in value


def lost(value: Wire) -> Wire:
    return {**value, LOST: True} if is_increment(value) else value


def run_of(version: Version, operand: Wire) -> Version:
    """When the run of an increment began, and on which device; a base is its own beginning."""
    if type(operand) is not dict:
        return version
    return Version(operand.get(SINCE, version.ticks), operand.get(OF, version.device))


def is_alone(ticks: int, value: Wire) -> bool:
    """Whether an increment has left the run that it was recorded in."""
    return type(value) is dict and value.get(SINCE) == ticks


def alone_of(version: Version, operand: Wire) -> Version:
    """The run of an increment when it stands alone. It is named by how the increment was recorded:
    copies of one device may count at the same tick."""
    run = run_of(version, operand)
    if is_alone(version.ticks, operand):
        return run
    said = dumps([operand[ADD], operand[TOTAL], operand.get(SINCE)])
    name = blake2b(said.encode(), digest_size=4).hexdigest()
    return Version(version.ticks, f"{run.device}.{name}")


def alone(version: Version, operand: Wire) -> Wire:
    """What an increment says when it stands alone."""
    ticks, name = alone_of(version, operand)
    return {ADD: operand[ADD], TOTAL: operand[ADD], SINCE: ticks, OF: name}


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
