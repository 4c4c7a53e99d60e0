"""Kinds of columns: what applications write in them, and how it must look on the wire."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import peewee

from tests.tablemodel import anything


def as_it_is(stored: Any) -> Any:
    return stored


def _integer(stored: int) -> Any:
    return str(stored) if abs(stored) > 2**53 else stored


def _uuid(stored: str) -> str:
    return str(uuid.UUID(stored))


def _is_uuid(column: str, value: Any) -> bool:
    try:
        return bool(str(uuid.UUID(value)) == value)
    except (ValueError, AttributeError, TypeError):
        return False


def _is_scalar(column: str, value: Any) -> bool:
    return not isinstance(value, list | dict)


class Kind(NamedTuple):
    """Attributes:
    field: Peewee's field class, with `options`.
    values: What applications write. The first ones also serve as keys and unique values.
    wire: What stands in the table, as on the wire.
    takes: Whether the column can hold a value from the wire.
    """

    field: Callable[..., Any]
    values: Sequence[Any]
    wire: Callable[[Any], Any] = as_it_is
    takes: Callable[[str, Any], bool] = _is_scalar
    options: Mapping[str, Any] = {}


WORDS = ("", "a", "b", "0", "null", "käse", "日本", "'\"\\", "two\nlines")
NUMBERS = (0, 1, -1, 7, 2**53, 2**53 + 1, -(2**63))
JSON: tuple[Any, ...] = (
    0, "", False, True, [], {}, [None], {"k": 0}, 1.5, {"deep": {"list": [1, "", None]}},
)  # fmt: skip

UUID = Kind(peewee.UUIDField, [uuid.UUID(int=n) for n in (1, 2, 3)], _uuid, _is_uuid)
TEXT = Kind(peewee.TextField, WORDS)
CHAR = Kind(peewee.CharField, WORDS)
INTEGER = Kind(peewee.IntegerField, NUMBERS, _integer)
BIG = Kind(peewee.BigIntegerField, NUMBERS, _integer)
BOOLEAN = Kind(peewee.BooleanField, (False, True), bool, anything)
FLOAT = Kind(peewee.FloatField, (0.0, 0.1, -1.5, 1e300, 3.0))
DECIMAL = Kind(
    peewee.DecimalField,
    [decimal.Decimal(text) for text in ("0", "1.5", "-2.25", "100")],
    lambda stored: str(decimal.Decimal(repr(stored))),
)
BLOB = Kind(
    peewee.BlobField, (b"", b"\x00\xff", b"abc"), lambda stored: base64.b64encode(stored).decode()
)
DATETIME = Kind(
    peewee.DateTimeField,
    (datetime.datetime(2020, 1, 2, 3, 4, 5), datetime.datetime(1999, 12, 31, 0, 0, 0, 7)),
    lambda stored: stored.replace(" ", "T"),
)
DATE = Kind(peewee.DateField, (datetime.date(2020, 2, 29), datetime.date(1, 1, 1)))
TIME = Kind(peewee.TimeField, (datetime.time(0, 0), datetime.time(23, 59, 59, 5)))
TIMESTAMP = Kind(peewee.TimestampField, (0, 1, 1_600_000_000), options={"default": None})
JSON_ = Kind(peewee.JSONField, JSON, json.loads, anything)

COUNT = Kind(peewee.IntegerField, (0, 1, -1, 7, 100))
LIST = Kind(
    peewee.JSONField,
    ([], ["a"], ["b", "a"], [1, None, "a"], [{"k": [0]}, "b"]),
    json.loads,
    anything,
)

SINGLY = (TEXT, CHAR, INTEGER, DATE, FLOAT, UUID)
"""Kinds of values that may be unique by themselves; they clash often."""

UNIQUE = (*SINGLY, BOOLEAN)

ALL = (*UNIQUE, BIG, DECIMAL, BLOB, DATETIME, TIME, TIMESTAMP, JSON_)
