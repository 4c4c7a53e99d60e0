"""How each field's values travel to and from columns that take values of their own type only.

What travels is the same as with SQLite (see `fields`), so that devices with different databases
understand each other: numbers without the zeros that a column may add, instants of time zones in
UTC. A value that another database holds and this one has no place for is no value of the column:
`to_stored` raises, and the row is parked.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import peewee

from ..changes import Wire, canonical, dumps
from ..raw import RAW, NotCanonical, is_escape
from .decimals import check_decimal, decimal_wire
from .fields import Codec, codec_for

MYSQL, POSTGRES = "mysql", "postgres"


def typed_codec(field: peewee.Field, database: str) -> Codec:
    """The codec of a field in a database of this name."""
    return replace(_typed_codec(field, database), takes_nul=database != POSTGRES)


def _typed_codec(field: peewee.Field, database: str) -> Codec:
    if isinstance(field, peewee.ForeignKeyField):
        return _typed_codec(field.rel_field, database)
    usual = codec_for(field)
    if type(field) is peewee.FixedCharField:
        return _fixed_char(usual)
    if usual.own:
        return usual
    for known, make in _KNOWN:
        if isinstance(field, known):
            return make(field, database, replace(usual, to_stored=_unescaped(usual.to_stored)))
    return replace(usual, to_stored=_unescaped(usual.to_stored))


def same_json(one: Wire, other: Wire) -> bool:
    """Whether two JSON values mean the same."""
    if is_escape(one) and is_escape(other):
        with suppress(TypeError, ValueError):
            one, other = json.loads(one[RAW]), json.loads(other[RAW])
    return dumps(canonical(one)) == dumps(canonical(other))


def _unescaped(to_stored: Callable[[Wire], Any]) -> Callable[[Wire], Any]:
    def convert(wire: Wire) -> Any:
        if is_escape(wire):
            raise ValueError(f"{dumps(wire):.100} is of another type than the column")
        return to_stored(wire)

    return convert


def _number_of(text: str) -> int:
    """A negative number that no key has, for all that can be told."""
    return -1 - int.from_bytes(blake2b(text.encode(), digest_size=3).digest())


def _uuid_of(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=blake2b(text.encode(), digest_size=16).digest())


# -- texts and numbers -------------------------------------------------------------------


def _integer(field: Any, database: str, usual: Codec) -> Codec:
    return replace(usual, placeholder=_number_of)


def _float(field: Any, database: str, usual: Codec) -> Codec:
    def to_stored(wire: Wire) -> float:
        number = float(usual.to_stored(wire))
        if database == MYSQL and not math.isfinite(number):
            raise ValueError(f"MySQL has no number {number}")
        return number

    return replace(usual, to_stored=to_stored, placeholder=_number_of)


def _fixed_char(usual: Codec) -> Codec:
    """The spaces that fill up a text are no part of it."""

    def from_stored(stored: Any) -> Wire:
        return usual.from_stored(stored.rstrip(" ") if type(stored) is str else stored)

    return replace(usual, from_stored=from_stored)


def _decimal(field: Any, database: str, usual: Codec) -> Codec:
    def to_wire(value: Any) -> Wire:
        check_decimal(value)
        return decimal_wire(value)

    def to_stored(wire: Wire) -> decimal.Decimal:
        if is_escape(wire):
            wire = wire[RAW]
            if type(wire) not in (int, float):
                raise ValueError(f"{wire!r:.100} is no decimal number")
            return decimal.Decimal(repr(wire))
        if type(wire) is not str:
            raise ValueError(f"{wire!r:.100} is no decimal number")
        number = decimal.Decimal(wire)
        if not number.is_finite():
            raise ValueError(f"{wire!r:.100} is no decimal number")
        return number

    return Codec(to_wire, to_wire, to_stored, placeholder=_number_of)


# -- bytes and keys ----------------------------------------------------------------------


def _uuid(field: Any, database: str, usual: Codec) -> Codec:
    if database != POSTGRES:
        return replace(usual, placeholder=lambda text: _uuid_of(text).hex)

    def from_stored(stored: Any) -> Wire:
        if type(stored) is uuid.UUID:
            return str(stored)
        return usual.from_stored(stored)

    def to_stored(wire: Wire) -> uuid.UUID:
        return uuid.UUID(usual.to_stored(wire))

    return replace(usual, from_stored=from_stored, to_stored=to_stored, placeholder=_uuid_of)


def _binary_uuid(field: Any, database: str, usual: Codec) -> Codec:
    return replace(usual, placeholder=lambda text: _uuid_of(text).bytes)


def _bytes(field: Any, database: str, usual: Codec) -> Codec:
    return replace(usual, placeholder=str.encode)


# -- dates and times ---------------------------------------------------------------------


def _datetime(field: Any, database: str, usual: Codec) -> Codec:
    return _moment(datetime.datetime, usual)


def _date(field: Any, database: str, usual: Codec) -> Codec:
    return _moment(datetime.date, usual)


def _time(field: Any, database: str, usual: Codec) -> Codec:
    return _moment(datetime.time, usual)


def _moment(cls: Any, usual: Codec) -> Codec:
    def from_stored(stored: Any) -> Wire:
        if cls is datetime.time and type(stored) is datetime.timedelta:
            stored = _time_of(stored)
        if type(stored) is not cls:
            raise NotCanonical
        if cls is datetime.datetime and stored.tzinfo is not None:
            stored = stored.astimezone(datetime.UTC)
        return str(stored.isoformat())

    def to_stored(wire: Wire) -> Any:
        if type(wire) is not str:
            raise ValueError(f"{dumps(wire):.100} is of another type than the column")
        return cls.fromisoformat(wire)

    return replace(usual, from_stored=from_stored, to_stored=to_stored)


def _time_of(stored: datetime.timedelta) -> Any:
    """A time of day from how MySQL's driver gives it; what is longer is none."""
    if stored.days:
        return stored
    return (datetime.datetime.min + stored).time()


# -- JSON --------------------------------------------------------------------------------


def _json(field: Any, database: str, usual: Codec) -> Codec:
    own = field._dumps is not json.dumps or field._loads is not json.loads

    def from_stored(stored: Any) -> Wire:
        value = json.loads(stored) if database == MYSQL else _floats(stored)
        if own:  # SQLite keeps the text that the field's own function makes
            return {RAW: _without_space(field._dumps(value))}
        return {RAW: "null"} if value is None else usual.to_wire(value)

    def to_stored(wire: Wire) -> Any:
        value = json.loads(wire[RAW]) if is_escape(wire) and type(wire[RAW]) is str else wire
        if is_escape(value) and value is wire:
            raise ValueError(f"{dumps(wire):.100} is no JSON")
        return _jsonb(value) if database == POSTGRES else _compact(value)

    return replace(usual, from_stored=from_stored, to_stored=to_stored, loose=True)


def _floats(value: Any) -> Any:
    """PostgreSQL writes large floats with all their digits, as if they were integers."""
    if type(value) is int and not -(2**63) <= value < 2**63:
        with suppress(OverflowError):
            number = float(value)
            return number if decimal.Decimal(repr(number)) == value else value
    if type(value) is list:
        return [_floats(item) for item in value]
    return {key: _floats(item) for key, item in value.items()} if type(value) is dict else value


def _jsonb(value: Any) -> Any:
    return peewee.Jsonb_pg3(value)  # type: ignore[attr-defined]


def _without_space(text: str) -> str:
    return re.sub(r'("(?:[^"\\]|\\.)*")|\s+', r"\1", text)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


_KNOWN: tuple[tuple[Any, Callable[[Any, str, Codec], Codec]], ...] = (
    (peewee.BinaryUUIDField, _binary_uuid),
    (peewee.UUIDField, _uuid),
    (peewee.BlobField, _bytes),
    (peewee.IntegerField, _integer),
    (peewee.DecimalField, _decimal),
    (peewee.FloatField, _float),
    (peewee.DateTimeField, _datetime),
    (peewee.DateField, _date),
    (peewee.TimeField, _time),
    (peewee.JSONField, _json),
)
