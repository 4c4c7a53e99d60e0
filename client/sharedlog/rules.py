"""Merge rules: what a field's value is, where it is not simply its latest write. Pure.

The state of a field that has a rule is the *set* of its writes since the row's latest deletion,
and its value is a function of that set. A write is a version and an *operand*: what this write
does to the field. Merging is union, so order, repetition and batching change nothing. A rule says

- what a local write, seen as the value before and after it, adds to the set (`written`);
- which writes can never matter again, whatever still arrives (all others: `keep`);
- which writes count, as the row's latest deletion is so and so (`live`);
- which value the writes make (`value`).

docs/protocol.md says the same for other languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .changes import CREATE, Change, Wire, dumps, loads
from .clock import Version
from .orders import UNORDERED, by_text
from .raw import EXACT_INTEGER, RAW, is_escape

Writes: TypeAlias = list[tuple[Version, Wire]]
"""Writes of one field in the order of their versions, each version once."""


class NothingDone:
    """What `written` answers for a write that did nothing to the field."""


NOTHING_DONE = NothingDone()


class MergeRule:
    """A rule for one field. `name` is what travels: it means the same on all devices."""

    name: str

    def fits(self, value: Wire, *, plain: bool) -> bool:
        """Whether a change may say this of the field. `plain`: it must be a value of the field,
        because the change is a creation, or does not name this rule."""
        raise NotImplementedError

    def operand(self, value: Wire, *, created: bool) -> Wire:
        """What a change says, as it is kept. `created`: it is a creation."""
        return value

    def written(self, before: Wire, after: Wire, writes: Writes, device: str) -> Wire:
        """What a change has to say of a write on this device, or `NOTHING_DONE`."""
        return after

    def restated(self, value: Wire, writes: Writes) -> Wire:
        """What a creation has to say so that the field keeps this value, beside its writes."""
        return value

    def keep(self, writes: Writes) -> Writes:
        """The writes without those that later ones make irrelevant, whatever still arrives."""
        raise NotImplementedError

    def live(self, writes: Writes, died: Version | None) -> Writes:
        """The writes that count where `died` is the row's latest deletion."""
        return writes if died is None else [write for write in writes if write[0] > died]

    def value(self, writes: Writes) -> Wire:
        """The field's value."""
        raise NotImplementedError


# -- the largest, the smallest -----------------------------------------------------------


class Maximum(MergeRule):
    """The largest value that was written since the row's latest deletion.

    A NULL is less than everything. `order` is chosen by the field's type.
    """

    name = "maximum"

    def __init__(self, order: Callable[[Wire], Any] = by_text) -> None:
        self._order = order

    def fits(self, value: Wire, *, plain: bool) -> bool:
        try:
            return value is None or self._order(value) is not None
        except UNORDERED:
            return False

    def keep(self, writes: Writes) -> Writes:
        """Those that are larger than every later one: a deletion may yet take the later ones'
        betters."""
        kept: Writes = []
        best: Any = None
        for version, value in reversed(writes):
            place = None if value is None else self._order(value)
            if not kept or (place is not None and (best is None or self._beats(place, best))):
                kept.append((version, value))
                best = place
        return kept[::-1]

    def value(self, writes: Writes) -> Wire:
        kept = self.keep(writes)
        return kept[0][1] if kept else None

    def _beats(self, one: Any, other: Any) -> bool:
        return bool(one > other)


class Minimum(Maximum):
    """The smallest value that was written since the row's latest deletion.

    A NULL is no value. `order` is chosen by the field's type.
    """

    name = "minimum"

    def _beats(self, one: Any, other: Any) -> bool:
        return bool(one < other)


# -- counters ----------------------------------------------------------------------------

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


# -- sets --------------------------------------------------------------------------------

REMOVE = "remove"


def members_of(value: Wire) -> dict[str, Wire]:
    """The members of a list by their JSON text, in the order of these texts."""
    if is_escape(value) and type(value[RAW]) is str:
        value = loads(value[RAW])  # a list that is stored in another way than ours
    if type(value) is not list and value is not None:
        raise ValueError(f"{value!r:.100} is no list")
    members = {dumps(member): member for member in value or ()}
    return dict(sorted(members.items()))


class Members(MergeRule):
    """A JSON list as a set: devices add and remove members, and each one's latest write decides.

    Operands are `{"add": […], "remove": […]}`, and a list, which replaces what was there. The
    list of a creation only adds, so that two creations of one row give the members of both.
    The value is the list of members in the order of their JSON texts; NULL is an empty set.
    """

    name = "members"

    def fits(self, value: Wire, *, plain: bool) -> bool:
        if not plain and type(value) is dict and not is_escape(value):
            return type(value.get(ADD)) is list and type(value.get(REMOVE)) is list
        try:
            return members_of(value) is not None
        except ValueError:
            return False

    def operand(self, value: Wire, *, created: bool) -> Wire:
        if type(value) is dict and not is_escape(value):
            return {kind: list(members_of(value[kind]).values()) for kind in (ADD, REMOVE)}
        members = list(members_of(value).values())
        return {ADD: members, REMOVE: []} if created else members

    def written(self, before: Wire, after: Wire, writes: Writes, device: str) -> Wire:
        try:
            old = members_of(before)
        except ValueError:
            old = {}
        new = members_of(after)
        added = [new[text] for text in new if text not in old]
        removed = [old[text] for text in old if text not in new]
        return {ADD: added, REMOVE: removed} if added or removed else NOTHING_DONE

    def keep(self, writes: Writes) -> Writes:
        """Of each write the members that no later one adds or removes; and the latest write,
        because a set that nobody wrote is not an empty one."""
        kept: Writes = []
        seen: set[str] = set()
        for version, operand in reversed(writes):
            if type(operand) is list:
                kept.append((version, _without(operand, seen)))
                break
            rest = {kind: _without(operand[kind], seen) for kind in (ADD, REMOVE)}
            seen.update(dumps(member) for kind in (ADD, REMOVE) for member in rest[kind])
            if rest[ADD] or rest[REMOVE] or not kept:
                kept.append((version, rest))
        return kept[::-1]

    def value(self, writes: Writes) -> Wire:
        members: dict[str, Wire] = {}
        for _, operand in writes:
            if type(operand) is list:
                members = members_of(operand)
            else:
                for text in members_of(operand[REMOVE]):
                    members.pop(text, None)
                members |= members_of(operand[ADD])
        return [members[text] for text in sorted(members)]


def _without(members: Sequence[Wire], texts: set[str]) -> list[Wire]:
    return [member for member in members if dumps(member) not in texts]


# -- the application's own ---------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


class Custom(MergeRule):
    """An application's own rule.

    Args:
        name: What travels. The function of this name must be the same on all devices.
        function: Gets every value that was written since the row's latest deletion, the latest
            last, and returns the field's value. It must be pure, and take any such list. (All
            these writes are kept; so it is not for fields that are written day by day.)
    """

    def __init__(
        self,
        name: str,
        function: Callable[[list[Any]], Any],
        *,
        decode: Callable[[Wire], Any] = _same,
        encode: Callable[[Any], Wire] = _same,
    ) -> None:
        self.name = name
        self.function = function
        self._decode = decode
        self._encode = encode

    def fits(self, value: Wire, *, plain: bool) -> bool:
        try:
            self._decode(value)
        except Exception:
            return False
        return True

    def keep(self, writes: Writes) -> Writes:
        return writes

    def value(self, writes: Writes) -> Wire:
        try:
            return self._encode(self.function([self._decode(value) for _, value in writes]))
        except Exception as error:  # a value that no column takes, so that the row is parked
            return {RAW: {f"the rule {self.name!r} failed: {error!a}": None}}


# -- changes and rules -------------------------------------------------------------------

Rules: TypeAlias = Mapping[str, MergeRule]
"""The rules of a model, by field name."""

BUILT_IN: frozenset[str] = frozenset(rule.name for rule in (Maximum, Minimum, Counter, Members))


def misfit(change: Change, rules: Rules) -> str | None:
    """Why a change cannot be merged by these rules, or None."""
    named = change.rules or {}
    created = change.operation == CREATE
    for name, value in (change.value or {}).items():
        rule = rules.get(name)
        asked = named.get(name)
        if asked is not None and (rule is None or rule.name != asked):
            return f"The field {name} has not the merge rule {asked!r} here."
        if rule is not None and not rule.fits(value, plain=created or asked is None):
            return f"{value!r:.100} is nothing that the merge rule {rule.name!r} knows for {name}."
    return None


def with_write(writes: Writes, version: Version, operand: Wire) -> Writes:
    """The writes and this one, once, in order."""
    others = [write for write in writes if write[0] != version]
    return sorted([*others, (version, operand)], key=lambda write: write[0])


def stands_alone(values: Mapping[str, Wire], rules: Rules) -> bool:
    """Whether a creation that is all that is known of a row gives it just these values."""
    anything = Version(1, "")
    for name, rule in rules.items():
        if name in values:
            writes = [(anything, rule.operand(values[name], created=True))]
            if dumps(rule.value(writes)) != dumps(values[name]):
                return False
    return True
