"""The largest and the smallest value as merge rules, and the order in which values stand. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ..changes import Wire
from ..raw import RAW, is_escape
from .rules import MergeRule, Writes, is_plain, value_in, without_replaced


def by_text(wire: Wire) -> Any:
    """The order of texts, by code point; dates and times are such texts."""
    if type(wire) is not str:
        raise ValueError(f"{wire!r:.100} is no text")
    return wire


def by_number(wire: Wire) -> Any:
    """The order of numbers, whether they travel as numbers or as text."""
    value = wire[RAW] if is_escape(wire) else wire
    number = Decimal(value) if type(value) is str else value
    if not isinstance(number, int | float | Decimal) or number != number:
        raise ValueError(f"{wire!r:.100} is no number")
    return number


def by_moment(wire: Wire) -> Any:
    """The order of instants; a time without an offset counts as UTC."""
    moment = datetime.fromisoformat(wire)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


UNORDERED = (ValueError, TypeError, InvalidOperation)
"""What an order may raise for a value that has no place in it."""


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
        betters. And the latest that named no rule, since it replaces what is older; another one may
        replace it, so it makes nothing else irrelevant."""
        left = without_replaced(writes)
        better = self._better([write for write in left if not is_plain(write[1])])
        return [write for write in left if write in better or is_plain(write[1])]

    def value(self, writes: Writes) -> Wire:
        better = self._better(without_replaced(writes))
        return value_in(better[0][1]) if better else None

    def _better(self, writes: Writes) -> Writes:
        """Each that is larger than every later one; the largest first."""
        kept: Writes = []
        best: Any = None
        for version, operand in reversed(writes):
            value = value_in(operand)
            place = None if value is None else self._order(value)
            if not kept or (place is not None and (best is None or self._beats(place, best))):
                kept.append((version, operand))
                best = place
        return kept[::-1]

    def _beats(self, one: Any, other: Any) -> bool:
        return bool(one > other)


class Minimum(Maximum):
    """The smallest value that was written since the row's latest deletion.

    A NULL is no value. `order` is chosen by the field's type.
    """

    name = "minimum"

    def _beats(self, one: Any, other: Any) -> bool:
        return bool(one < other)
