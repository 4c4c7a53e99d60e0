"""What a field with a merge rule has: the operands of docs/protocol.md, whole sets of them at a
time, as simply as possible, and written from that text alone. (`rulemodel` says the same in the
words of what people do.)"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.dictmodel import Stamp, Write


class Operand(NamedTuple):
    """What one change says of the field."""

    stamp: Stamp
    value: Any
    by_creation: bool
    names_rule: bool


Functions = Mapping[str, Callable[[list[Any]], Any]]
"""The application's own rules, by name."""


def operands(writes: Sequence[Write], name: str) -> list[Operand]:
    """What some changes of a row say of one field, the latest last."""
    found = [
        Operand(write.stamp, write.value[name], write.operation == "create", name in write.ruled)
        for write in writes
        if write.value is not None and name in write.value
    ]
    return sorted(found, key=lambda operand: operand.stamp)


def value_of(
    rule: str, said: Sequence[Operand], died: Stamp | None, default: Any, functions: Functions
) -> Any:
    """The field's value, of what was said after the row's latest deletion (at `died`)."""
    if rule == "counter":
        return _count(said, died, default)
    if rule == "members":
        return _members(said)
    left = [operand for operand in said if not operand.names_rule][-1:]
    said = [operand for operand in said if operand.names_rule or operand in left]
    if rule in ("maximum", "minimum"):
        return _extreme(rule, said)
    return functions[rule]([operand.value for operand in said])


def _extreme(rule: str, said: Sequence[Operand]) -> Any:
    """Of equal ones the latest. (Here only of numbers that JSON holds, and of texts.)"""
    values = [operand.value for operand in said if operand.value is not None]
    choose = max if rule == "maximum" else min
    return choose(reversed(values), default=None)


def _count(said: Sequence[Operand], died: Stamp | None, default: Any) -> int:
    bases = [operand.value for operand in said if not isinstance(operand.value, dict)]
    total = int(bases[-1] if bases else default or 0)
    runs: dict[Stamp, int] = {}
    for operand in said:
        if isinstance(operand.value, dict):
            ticks, device = operand.stamp
            began = operand.value.get("since", ticks), operand.value.get("of", device)
            runs[began] = int(operand.value["total"])
    return total + sum(n for began, n in runs.items() if died is None or began > died)


def _members(said: Sequence[Operand]) -> Any:
    if said and not said[-1].names_rule:
        return said[-1].value
    inside: dict[str, Any] = {}
    for _, value, by_creation, names_rule in said:
        if isinstance(value, dict):
            for member in value["remove"]:
                inside.pop(_text(member), None)
            inside |= {_text(member): member for member in value["add"]}
        else:
            if not (by_creation and names_rule):
                inside.clear()
            inside |= {_text(member): member for member in value or ()}
    return [inside[text] for text in sorted(inside)]


def _text(member: Any) -> str:
    return json.dumps(member, ensure_ascii=False, separators=(",", ":"))
