"""In which order the values of a field stand, as they travel: for the largest and the smallest."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from .changes import Wire
from .raw import RAW, is_escape


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
