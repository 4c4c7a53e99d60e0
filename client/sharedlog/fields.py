"""How each Peewee field's values travel: a codec per field, from the field's class.

Every codec answers two questions: which JSON value stands for this Python value (`to_wire`),
and which Python value does this JSON value stand for (`from_wire`). `to_wire` takes only
what the field itself would give back after a round trip through the table; anything else
(an integer given to a text field, say) raises `NotCanonical`, and the recorder reads the
row back instead of guessing what the database made of it.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peewee

from .changes import Wire, dumps
from .errors import ValueRefused

EXACT_INTEGER = 2**53
"""Beyond it a JSON number is not exact everywhere; such integers travel as text."""


class NotCanonical(Exception):
    """The value is not of the type that the field gives back; read it back from the table."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one field travel.

    Attributes:
        to_wire: Python value (never None) to JSON value.
        from_wire: JSON value (never None) to Python value.
        plain: JSON values of this type are what the database driver takes, unchanged.
    """

    to_wire: Callable[[Any], Wire]
    from_wire: Callable[[Wire], Any]
    plain: type | None = None


def codec_for(field: peewee.Field) -> Codec:
    """The codec of a field; a foreign key travels as the field that it points to."""
    if isinstance(field, peewee.ForeignKeyField):
        return codec_for(field.rel_field)
    for known, make in _KNOWN:
        if isinstance(field, known):
            if _same_conversion(type(field), known):
                return _with_escape(field, make(field))
            break
    return _through_the_database(field)


def _same_conversion(cls: type[peewee.Field], known: type[peewee.Field]) -> bool:
    """Whether a subclass converts as its base does (so it is no type of its own)."""
    methods = ("db_value", "python_value", "adapt")
    return all(getattr(cls, name) is getattr(known, name) for name in methods)


def _with_escape(field: peewee.Field, codec: Codec) -> Codec:
    """Let `{"raw": …}` stand for what a table holds although it is not of the field's type."""

    def from_wire(value: Wire) -> Any:
        if type(value) is dict:
            return untag(value["raw"])
        return codec.from_wire(value)

    return (
        codec
        if isinstance(field, peewee.JSONField)
        else Codec(codec.to_wire, from_wire, codec.plain)
    )


def escape(value: Any) -> Wire:
    """The wire form of a value that is not of its field's type."""
    return {"raw": tag(value)}


def tag(value: Any) -> Wire:
    """A database value as JSON, exactly: what JSON lacks becomes a one-member object."""
    if value is None or type(value) in (bool, str):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= EXACT_INTEGER else {"integer": str(value)}
    if isinstance(value, float):
        return _float_to_wire(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": _bytes_to_wire(value)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, uuid.UUID):
        return {"uuid": str(value)}
    raise ValueRefused(
        f"A value of type {type(value).__name__} cannot be carried.",
        hint="Let the field's db_value() return text, a number, bytes or None.",
    )


_UNTAG: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("integer", int),
    ("bytes", base64.b64decode),
    ("decimal", decimal.Decimal),
    ("datetime", datetime.datetime.fromisoformat),
    ("uuid", uuid.UUID),
)


def untag(value: Wire) -> Any:
    """The inverse of `tag`."""
    if type(value) is not dict:
        return float(value) if value in ("Infinity", "-Infinity") else value
    for name, convert in _UNTAG:
        if name in value:
            return convert(value[name])
    raise ValueError(f"unknown tagged value {sorted(value)}")


def _through_the_database(field: peewee.Field) -> Codec:
    """An application's own field class: what it gives the database travels, tagged."""

    def to_wire(value: Any) -> Wire:
        stored = field.db_value(value)
        if isinstance(stored, peewee.Node):
            raise NotCanonical
        return tag(stored)

    return Codec(to_wire, lambda value: field.python_value(untag(value)))


def _of_type(cls: type, convert: Callable[[Any], Wire]) -> Callable[[Any], Wire]:
    def to_wire(value: Any) -> Wire:
        if type(value) is not cls:
            raise NotCanonical
        return convert(value)

    return to_wire


def _text_to_wire(value: Any) -> Wire:
    if type(value) is not str:
        raise NotCanonical
    return value


def _integer_to_wire(value: Any) -> Wire:
    if type(value) is not int:
        raise NotCanonical
    if -EXACT_INTEGER <= value <= EXACT_INTEGER:
        return value
    if not -(2**63) <= value < 2**63:
        raise ValueRefused(f"The integer {value} does not fit in 64 bits.")
    return str(value)


def _bool_to_wire(value: Any) -> Wire:
    if type(value) is not bool:
        raise NotCanonical
    return value


def _float_to_wire(value: Any) -> Wire:
    if type(value) is not float:
        raise NotCanonical
    if math.isfinite(value):
        return value if value else 0.0  # SQLite keeps no negative zero
    if math.isnan(value):
        raise ValueRefused(
            "NaN cannot be carried: databases disagree on it and SQLite stores NULL.",
            hint="Store None for a value that is not known.",
        )
    return "Infinity" if value > 0 else "-Infinity"


def _decimal_to_wire(field: peewee.Field) -> Callable[[Any], Wire]:
    def to_wire(value: Any) -> Wire:
        if type(value) is not decimal.Decimal:
            raise NotCanonical
        if value.is_finite():
            value = field.db_value(value)
        else:
            raise ValueRefused(f"The decimal {value} cannot be carried.")
        database = field.model._meta.database
        database = getattr(database, "obj", database)
        if isinstance(database, peewee.SqliteDatabase):
            stored = decimal.Decimal(str(float(value)))
            if stored != value:
                raise ValueRefused(
                    f"SQLite cannot hold the decimal {value} of field {field.name!r} exactly: "
                    f"it keeps a binary fraction and would give back {stored}.",
                    hint="Use at most 15 digits, or a field that stores the decimal as text.",
                )
            value = stored
            if value == value.to_integral_value() and abs(value) < 10**15:
                # The column's NUMERIC affinity turns a whole number into an integer.
                value = decimal.Decimal(int(value))
        return str(value)

    return to_wire


def _bytes_to_wire(value: Any) -> Wire:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise NotCanonical
    return base64.b64encode(bytes(value)).decode()


def _uuid_to_wire(value: Any) -> Wire:
    if type(value) is not uuid.UUID:
        raise NotCanonical
    return str(value)


def _datetime_to_wire(value: Any) -> Wire:
    if type(value) is not datetime.datetime:
        raise NotCanonical
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        value = value.replace(tzinfo=datetime.timezone(value.utcoffset() or datetime.timedelta()))
    return value.isoformat()


def _json_to_wire(value: Any) -> Wire:
    _check_json(value)
    return value


def _check_json(value: Any) -> None:
    """Refuse what would change or break on its way through JSON text."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefused(f"JSON has no {value}.", hint="Store None or a text instead.")
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise ValueRefused(f"The JSON key {key!r} is not text.")
            _check_json(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueRefused(f"The integer {value} does not fit in 64 bits.")
    elif not (value is None or isinstance(value, str | int)):
        raise ValueRefused(f"JSON cannot hold a {type(value).__name__}.")


def _timestamp(field: peewee.Field) -> Codec:
    """TimestampField travels as its stored integer: the instant, whatever the local zone."""

    def to_wire(value: Any) -> Wire:
        if not isinstance(value, datetime.datetime | int):
            raise NotCanonical
        return _integer_to_wire(field.db_value(value))

    return Codec(to_wire, lambda value: field.python_value(int(value)))


def _float_from_wire(value: Wire) -> Any:
    return float(value)


def _same(value: Wire) -> Any:
    return value


_TEXT = Codec(_text_to_wire, _same, plain=str)
_INTEGER = Codec(_integer_to_wire, int, plain=int)
_BOOL = Codec(_bool_to_wire, bool, plain=bool)
_FLOAT = Codec(_float_to_wire, _float_from_wire)
_BYTES = Codec(_bytes_to_wire, base64.b64decode)
_UUID = Codec(_uuid_to_wire, uuid.UUID)
_DATETIME = Codec(_datetime_to_wire, datetime.datetime.fromisoformat)
_DATE = Codec(_of_type(datetime.date, datetime.date.isoformat), datetime.date.fromisoformat)
_TIME = Codec(_of_type(datetime.time, datetime.time.isoformat), datetime.time.fromisoformat)
_JSON = Codec(_json_to_wire, _same)

# The first match decides, so subclasses stand before their bases.
_KNOWN: tuple[tuple[type[peewee.Field], Callable[[peewee.Field], Codec]], ...] = (
    (peewee.TimestampField, _timestamp),
    (peewee.IPField, lambda field: _TEXT_CONVERTED),
    (peewee.BigBitField, lambda field: _BYTES),
    (peewee.BinaryUUIDField, lambda field: _UUID),
    (peewee.UUIDField, lambda field: _UUID),
    (peewee.BlobField, lambda field: _BYTES),
    (peewee.BitField, lambda field: _INTEGER),
    (peewee.IntegerField, lambda field: _INTEGER),
    (peewee.BooleanField, lambda field: _BOOL),
    (peewee.FloatField, lambda field: _FLOAT),
    (peewee.DecimalField, lambda field: Codec(_decimal_to_wire(field), decimal.Decimal)),
    (peewee.CharField, lambda field: _TEXT),
    (peewee.TextField, lambda field: _TEXT),
    (peewee.DateTimeField, lambda field: _DATETIME),
    (peewee.DateField, lambda field: _DATE),
    (peewee.TimeField, lambda field: _TIME),
    (peewee.JSONField, lambda field: _JSON),
)
_TEXT_CONVERTED = Codec(_text_to_wire, _same)


def check_text(value: Wire, what: str) -> str:
    """JSON text of a wire value; `ValueRefused` for what JSON text cannot hold."""
    try:
        return dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueRefused(
            f"{what} cannot be carried: {error}.",
            hint="Text must be valid Unicode (no lone surrogates); JSON no deeper than 254.",
        ) from None
