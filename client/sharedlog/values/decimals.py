"""How decimal numbers travel: as text, the same for the same number, wherever it is kept.

A column of SQLite keeps a decimal as an integer or as a binary fraction. What it cannot keep so
is refused there; databases with real decimals can send it to each other.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from typing import Any

import peewee

from ..changes import Wire
from ..errors import ValueRefused
from ..raw import EXACT_INTEGER, RAW, NotCanonical


def check_decimal(value: Any) -> None:
    """Raise unless this is a decimal number."""
    if type(value) is not decimal.Decimal:
        raise NotCanonical
    if not value.is_finite():
        raise ValueRefused(
            f"The decimal {value} cannot be carried.",
            hint="Store None for a value that is not known.",
        )


def decimal_to_wire(field: peewee.Field) -> Callable[[Any], Wire]:
    def to_wire(value: Any) -> Wire:
        check_decimal(value)
        value = field.db_value(value)
        stored = _as_stored(value)
        if stored is None:
            raise ValueRefused(
                f"SQLite cannot hold the decimal {value} exactly: it keeps a binary fraction.",
                hint="Use at most 15 digits, or a field that stores the decimal as text.",
            )
        return str(stored)

    return to_wire


def _as_stored(value: decimal.Decimal) -> decimal.Decimal | None:
    """What comes back for a decimal from a column of NUMERIC affinity; None if not the same."""
    if value.as_tuple().exponent == 0 and -(2**63) <= value < 2**63:
        return value  # digits only: SQLite makes it an integer
    stored = float(value)
    if decimal.Decimal(repr(stored)) != value:
        return None
    if stored.is_integer() and abs(stored) <= EXACT_INTEGER:
        return decimal.Decimal(int(stored))
    same = decimal.Decimal(repr(stored))
    if len(same.as_tuple().digits) > 15:
        return None  # of more digits not every one survives SQLite's own conversion from text
    if not _is_short(same):
        raise NotCanonical
    return same


def _is_short(value: decimal.Decimal) -> bool:
    """Whether SQLite makes the same float of this text on every machine. With more decimals it
    depends on the processor, so the float itself travels."""
    _, digits, exponent = value.as_tuple()
    return len(digits) <= 15 and isinstance(exponent, int) and -5 <= exponent <= 0


def decimal_from_stored(stored: Any) -> Wire:
    if type(stored) is int:
        return str(stored)
    if type(stored) is float and math.isfinite(stored):
        value = decimal.Decimal(repr(stored))
        if _is_short(value):
            return str(value)
    raise NotCanonical


def decimal_to_stored(value: Wire) -> Any:
    number = decimal.Decimal(value)
    stored = float(number)
    if not math.isfinite(stored):
        raise ValueError(f"{value!r} is no decimal number")
    whole = number == number.to_integral_value() and -(2**63) <= number < 2**63
    if not whole and decimal.Decimal(repr(stored)) != number:
        raise ValueError(f"SQLite cannot hold the decimal {value} exactly")
    return int(number) if whole else stored


def decimal_wire(value: decimal.Decimal) -> Wire:
    """As SQLite's columns have it: a number of few digits as text, a float as what it is there.
    What none can hold there travels as text, too, with all its digits."""
    whole = value == value.to_integral_value()
    if whole and -(2**63) <= value < 2**63:
        return str(int(value))
    _, digits, exponent = value.normalize(decimal.Context(prec=10_000)).as_tuple()
    assert isinstance(exponent, int)
    stored = float(value)
    if decimal.Decimal(repr(stored)) == value:
        if len(digits) > 15 or not -5 <= exponent <= 0:
            return {RAW: stored}
        if stored.is_integer() and abs(stored) <= EXACT_INTEGER:
            return str(int(stored))
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
