"""Stored values of any type as JSON, exactly: `{"raw": …}` on the wire.

That is how a value travels that its field would not write, and what an application's own field
class gives the database.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from .changes import Wire
from .errors import ValueRefused

EXACT_INTEGER = 2**53
"""Beyond it a JSON number is not exact everywhere; such integers travel as text."""

RAW = "raw"
"""`{"raw": x}` means the stored value x, whatever the field's type."""


class NotCanonical(Exception):
    """The value is not of the type that the field gives back; the table decides what it is."""


class Uncarried:
    """In place of a value that no other device could have, NaN for one: not JSON, so that it is
    refused where it would be recorded, with the name of its field. All that look alike are equal:
    what one becomes another of is not told either."""

    hint = "Store None for what is not known, and dates of the years 1 to 9999."

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uncarried) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return "a value that cannot be carried"

    def __str__(self) -> str:
        return "no other database needs to have such a value"


def carried(values: Mapping[str, Wire]) -> dict[str, Wire]:
    """The values that can be: what is kept beside the tables is JSON, too."""
    return {name: wire for name, wire in values.items() if not isinstance(wire, Uncarried)}


def escape(stored: Any) -> Wire:
    """The wire form of a stored value that its field would not write."""
    return {RAW: tag(stored)}


def is_escape(wire: Wire) -> bool:
    return type(wire) is dict and len(wire) == 1 and RAW in wire


def tag(stored: Any) -> Wire:
    """A stored value as JSON, exactly: what JSON lacks becomes a one-member object."""
    if stored is None or type(stored) in (bool, str):
        return stored
    if isinstance(stored, int):
        return int(stored) if abs(stored) <= EXACT_INTEGER else {"integer": str(int(stored))}
    if isinstance(stored, float):
        value = float(stored)
        return value if math.isfinite(value) else {"float": infinity_of(value)}
    if isinstance(stored, str):
        return str.__str__(stored)  # of an enumeration, str() would give the member's name
    if isinstance(stored, bytes | bytearray | memoryview):
        return {"bytes": base64_of(stored)}
    for name, cls, to_text, _ in _TAGS:
        if isinstance(stored, cls):
            return {name: to_text(stored)}
    raise NotCanonical


def one_number(wire: Wire) -> Wire:
    """The same of all numbers that are equal to SQLite, 1 and 1.0 for two; else the value."""
    number = untag(wire) if type(wire) is dict and wire.keys() == {"integer"} else wire
    if type(number) is bool or (type(number) is float and number.is_integer()):
        number = int(number)
    return tag(number) if type(number) is int else wire


def base64_of(value: bytes | bytearray | memoryview) -> str:
    return base64.b64encode(bytes(value)).decode()


def unbase64(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def infinity_of(value: float) -> str:
    if math.isnan(value):
        raise ValueRefused(
            "NaN cannot be carried: databases disagree on it and SQLite stores NULL.",
            hint="Store None for a value that is not known.",
        )
    return "Infinity" if value > 0 else "-Infinity"


def _iso(value: datetime.datetime) -> str:
    return value.isoformat()


_TAGS: tuple[tuple[str, type, Callable[[Any], str], Callable[[str], Any]], ...] = (
    ("decimal", decimal.Decimal, str, decimal.Decimal),
    ("datetime", datetime.datetime, _iso, datetime.datetime.fromisoformat),
    ("date", datetime.date, str, datetime.date.fromisoformat),
    ("time", datetime.time, str, datetime.time.fromisoformat),
    ("uuid", uuid.UUID, str, uuid.UUID),
)

_UNTAG: Mapping[str, Callable[[str], Any]] = {
    "integer": int,
    "float": float,
    "bytes": unbase64,
    **{name: from_text for name, _, _, from_text in _TAGS},
}


def untag(value: Wire) -> Any:
    """The inverse of `tag`."""
    if type(value) is not dict:
        return value
    for name, content in value.items():
        if name in _UNTAG:
            return _UNTAG[name](content)
    raise ValueError(f"unknown tagged value {sorted(value)}")
