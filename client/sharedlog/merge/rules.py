"""Merge rules: what a field's value is, where it is not simply its latest write. Pure.

The state of a field that has a rule is the *set* of its writes since the row's latest deletion,
and its value is a function of that set. A write is a version and an *operand*: what this write
does to the field. Merging is union, so order, repetition and batching change nothing. A rule says

- what a local write, seen as the value before and after it, adds to the set (`written`);
- which writes can never matter again, whatever still arrives (all others: `keep`);
- which writes count, as the row's latest deletion is so and so (`live`);
- which value the writes make (`value`).

docs/protocol.md says the same for other languages. The rules themselves: `extremes`, `counter`,
`members`, `custom`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import copy
from typing import Self, TypeAlias

from ..changes import CREATE, Change, Wire, dumps
from ..clock import Version

Writes: TypeAlias = list[tuple[Version, Wire]]
"""Writes of one field in the order of their versions, each version once."""


PLAIN, SAID = "plain", "said"
"""Mark operands that are values of the field: of a write that named no rule, and of another one
whose value looks like a mark."""


class NothingDone:
    """What `written` answers for a write that did nothing to the field."""


NOTHING_DONE = NothingDone()


class MergeRule:
    """A rule for one field. `name` is what travels: it means the same on all devices."""

    name: str

    since = 0
    """Up to this timestamp, what this device knows of the field is from before it knew the rule."""

    def known_since(self, ticks: int) -> Self:
        """The same rule, as a device has it that knows it since then."""
        rule = copy(self)
        rule.since = ticks
        return rule

    def was_known(self, version: Version) -> bool:
        """Whether this device knew the rule when it heard of this write, or the write is from
        before there was a log: where no list says otherwise, it named the rule."""
        return not 0 < version.ticks <= self.since

    def fits(self, value: Wire, *, plain: bool) -> bool:
        """Whether a change may say this of the field. `plain`: it must be a value of the field,
        because the change is a creation, or does not name this rule."""
        raise NotImplementedError

    def operand(self, value: Wire, *, created: bool, named: bool) -> Wire:
        """What a change says, as it is kept. `created`: it is a creation; `named`: it names the
        rule. One that does not was written without it, and replaced what others like it said."""
        return marked(value) if named else {PLAIN: value}

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


def marked(value: Wire) -> Wire:
    """A value of the field as an operand."""
    is_mark = type(value) is dict and len(value) == 1 and (PLAIN in value or SAID in value)
    return {SAID: value} if is_mark else value


def is_plain(operand: Wire) -> bool:
    return type(operand) is dict and len(operand) == 1 and PLAIN in operand


def value_in(operand: Wire) -> Wire:
    """The value of the field in an operand that is one."""
    if type(operand) is dict and len(operand) == 1:
        for mark in (PLAIN, SAID):
            if mark in operand:
                return operand[mark]
    return operand


def without_replaced(writes: Writes) -> Writes:
    """The writes without those that named no rule, but for the latest: who wrote without the rule
    knew no other, and neither does a log that was compacted."""
    plain = [version for version, operand in writes if is_plain(operand)]
    return [write for write in writes if not is_plain(write[1]) or write[0] == plain[-1]]


Rules: TypeAlias = Mapping[str, MergeRule]
"""The rules of a model, by field name."""


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
    return in_order([*(write for write in writes if write[0] != version), (version, operand)])


def in_order(writes: Writes) -> Writes:
    """The writes as they are kept, by their versions."""
    return sorted(writes, key=lambda write: write[0])


def stands_alone(
    version: Version, values: Mapping[str, Wire], named: Container[str], rules: Rules
) -> bool:
    """Whether a creation that is all that is known of a row gives it just these values, and needs
    no list. `named` are the fields of which it names the rule."""
    for name, rule in rules.items():
        if name in values:
            if name not in named or not rule.was_known(version):
                return False
            operand = rule.operand(values[name], created=True, named=True)
            if dumps(rule.value([(version, operand)])) != dumps(values[name]):
                return False
    return True
