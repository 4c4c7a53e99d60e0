"""How each Peewee field's values travel: a codec per field, from the field's class.

A value has three forms: what the application gives or gets (Python), what stands in the table
(*stored*), and what travels (*wire*, JSON). The promise is about the stored form: what one
device has in its table, to the bit, another one will have. A codec answers three questions:

- `to_wire`: which JSON stands for this Python value? It takes only what the field itself gives
  back after a round trip through the table; for anything else (an integer given to a text
  field, say) it raises `NotCanonical`, and the recorder reads the row back instead of guessing
  what the database made of it.
- `from_stored`: which JSON stands for this stored value? `NotCanonical` if it is none that the
  field would write; then `{"raw": …}` travels in its place, and every device stores just that.
- `to_stored`: which value has to be given to the database for this JSON?
"""

from __future__ import annotations

import datetime
import json
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peewee

from ..changes import Wire, dumps
from ..errors import ValueRefused
from ..raw import (
    EXACT_INTEGER,
    RAW,
    NotCanonical,
    Uncarried,
    base64_of,
    infinity_of,
    is_escape,
    tag,
    unbase64,
    untag,
)
from .decimals import decimal_from_stored, decimal_to_stored, decimal_to_wire


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one field travel. None of the functions ever sees None.

    Attributes:
        to_wire: Python value to JSON value.
        from_stored: Stored value to JSON value.
        to_stored: JSON value to stored value. ValueError or TypeError if there is none.
        plain: Values of this type are the same in all three forms.
        own: The field is of the application's own class.
        loose: The database keeps what JSON means, not its text.
        placeholder: Something of the column's type that stands for no value, from a text.
        takes_nul: Whether the database can so much as be asked for a text with this character.
    """

    to_wire: Callable[[Any], Wire]
    from_stored: Callable[[Any], Wire]
    to_stored: Callable[[Wire], Any]
    plain: type | None = None
    own: bool = False
    loose: bool = False
    placeholder: Callable[[str], Any] = str
    takes_nul: bool = True


def codec_for(field: peewee.Field) -> Codec:
    """The codec of a field; a foreign key travels as the field that it points to."""
    if isinstance(field, peewee.ForeignKeyField):
        return codec_for(field.rel_field)
    for known, make in _KNOWN:
        if isinstance(field, known):
            if _same_conversion(type(field), known):
                return make(field)
            break
    return Codec(_own_to_wire(field), tag, untag, own=True)


def _same_conversion(cls: type[peewee.Field], known: type[peewee.Field]) -> bool:
    """Whether a subclass converts as its base does (so it is no type of its own)."""
    methods = ("db_value", "python_value", "adapt", "to_value")
    return all(getattr(cls, name) is getattr(known, name) for name in methods)


# -- an application's own fields ---------------------------------------------------------


def _own_to_wire(field: peewee.Field) -> Callable[[Any], Wire]:
    """An application's own field class: what it gives the database travels, tagged."""

    def to_wire(value: Any) -> Wire:
        stored = field.db_value(value)
        if isinstance(stored, peewee.Node):
            raise NotCanonical
        return tag(stored)

    return to_wire


# -- Peewee's own fields -----------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


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
        raise ValueRefused(
            f"The integer {value} does not fit in 64 bits.", hint="Store it as text."
        )
    return str(value)


def _bool_to_wire(value: Any) -> Wire:
    if type(value) is not bool:
        raise NotCanonical
    return value


def _bool_from_stored(stored: Any) -> Wire:
    if type(stored) in (int, bool) and stored in (0, 1):
        return bool(stored)
    raise NotCanonical


def _float_to_wire(value: Any) -> Wire:
    if type(value) is not float:
        raise NotCanonical
    if math.isfinite(value):
        return value if value else 0.0  # SQLite keeps no negative zero in a float column
    return infinity_of(value)


def _float_from_stored(stored: Any) -> Wire:
    # A whole number is an integer inside SQLite, and RETURNING may show it as one.
    if type(stored) is int and float(stored) == stored:
        return float(stored)
    return _float_to_wire(stored)


def _bytes_to_wire(value: Any) -> Wire:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise NotCanonical
    return base64_of(value)


def _uuid_to_wire(value: Any) -> Wire:
    if type(value) is not uuid.UUID:
        raise NotCanonical
    return str(value)


# By their texts: most keys are UUIDs, and to make an object of each takes longer than all else.
_UUID_HEX = re.compile(r"[0-9a-f]{32}")
_UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _uuid_from_stored(stored: Any) -> Wire:
    if type(stored) is str and _UUID_HEX.fullmatch(stored):
        return f"{stored[:8]}-{stored[8:12]}-{stored[12:16]}-{stored[16:20]}-{stored[20:]}"
    raise NotCanonical


def _uuid_to_stored(wire: Any) -> str:
    if type(wire) is str and _UUID_TEXT.fullmatch(wire):
        return wire.replace("-", "")
    return uuid.UUID(wire).hex


def _binary_uuid_from_stored(stored: Any) -> Wire:
    if type(stored) is bytes and len(stored) == 16:
        return str(uuid.UUID(bytes=stored))
    raise NotCanonical


def _iso(cls: Any, separator: str) -> Codec:
    """Dates and times: ISO 8601 on the wire; stored so, too, as text, but for the separator."""
    usual = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.(?!000000)\d{6})?", re.ASCII)

    def to_wire(value: Any) -> Wire:
        if type(value) is not cls:
            raise NotCanonical
        return value.isoformat()

    def from_stored(stored: Any) -> Wire:
        if type(stored) is str:
            try:
                value = cls.fromisoformat(stored)
            except ValueError:
                raise NotCanonical from None
            text: str = value.isoformat()
            if text.replace("T", separator) == stored:
                return text
        raise NotCanonical

    def to_stored(wire: Wire) -> str:
        value = cls.fromisoformat(wire)
        plain = cls is datetime.datetime and usual.fullmatch(wire)
        return str(wire.replace("T", separator) if plain else value)  # the same, but faster

    return Codec(to_wire, from_stored, to_stored)


def _timestamp(field: peewee.Field) -> Codec:
    """TimestampField travels as its stored integer: the instant, whatever the local zone."""

    def to_wire(value: Any) -> Wire:
        if not isinstance(value, datetime.datetime | int):
            raise NotCanonical
        return _integer_to_wire(field.db_value(value))

    return Codec(to_wire, _integer_to_wire, int)


def _ip(field: peewee.Field) -> Codec:
    def to_wire(value: Any) -> Wire:
        return field.python_value(field.db_value(value))  # 127.1 is 127.0.0.1

    def from_stored(stored: Any) -> Wire:
        if type(stored) is int and 0 <= stored < 2**32:
            return field.python_value(stored)
        raise NotCanonical

    def to_stored(value: Wire) -> Any:
        try:
            return field.db_value(value)
        except OSError as error:
            raise ValueError(f"{value!r} is no address: {error}") from None

    return Codec(to_wire, from_stored, to_stored)


def _json(field: Any) -> Codec:
    """JSON travels as it is. What stands in the table is its text without white space, as
    SQLite's json() leaves it."""
    if field._dumps is not json.dumps or field._loads is not json.loads:
        return Codec(_not_canonical, _not_canonical, _compact)  # so the text itself travels

    def to_wire(value: Any) -> Wire:
        try:
            _check_json(value)
        except RecursionError:
            raise ValueRefused(
                "The JSON is nested too deeply.", hint="JSON must be no deeper than 254."
            ) from None
        return {RAW: _compact(value)} if is_escape(value) else value

    def from_stored(stored: Any) -> Wire:
        try:
            value = json.loads(stored)
            if value is not None and _compact(value) == stored and dumps(value):
                return to_wire(value)
        except (TypeError, ValueError, RecursionError, ValueRefused):
            pass
        raise NotCanonical

    return Codec(to_wire, from_stored, _compact)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _not_canonical(value: Any) -> Any:
    raise NotCanonical


def _check_json(value: Any) -> None:
    """Refuse what would change or break on its way through JSON text."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefused(f"JSON has no {value}.", hint="Store None or a text instead.")
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise ValueRefused(
                    f"The JSON key {key!r} is not text.", hint="JSON objects have text keys only."
                )
            _check_json(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueRefused(
            f"The integer {value} does not fit in 64 bits.", hint="Store it as text."
        )
    elif not (value is None or isinstance(value, str | int)):
        raise ValueRefused(
            f"JSON cannot hold a {type(value).__name__}.", hint="Store it as text or a number."
        )


_TEXT = Codec(_text_to_wire, _text_to_wire, _same, plain=str)
_INTEGER = Codec(_integer_to_wire, _integer_to_wire, int)
_BOOL = Codec(_bool_to_wire, _bool_from_stored, bool, plain=bool)
_FLOAT = Codec(_float_to_wire, _float_from_stored, float)
_BYTES = Codec(_bytes_to_wire, _bytes_to_wire, unbase64)
_UUID = Codec(_uuid_to_wire, _uuid_from_stored, _uuid_to_stored)
_BINARY_UUID = Codec(_uuid_to_wire, _binary_uuid_from_stored, lambda value: uuid.UUID(value).bytes)

# The first match decides, so subclasses stand before their bases.
_KNOWN: tuple[tuple[type[peewee.Field], Callable[[Any], Codec]], ...] = (
    (peewee.TimestampField, _timestamp),
    (peewee.IPField, _ip),
    (peewee.BigBitField, lambda field: _BYTES),
    (peewee.BinaryUUIDField, lambda field: _BINARY_UUID),
    (peewee.UUIDField, lambda field: _UUID),
    (peewee.BlobField, lambda field: _BYTES),
    (peewee.BitField, lambda field: _INTEGER),
    (peewee.IntegerField, lambda field: _INTEGER),
    (peewee.BooleanField, lambda field: _BOOL),
    (peewee.FloatField, lambda field: _FLOAT),
    (
        peewee.DecimalField,
        lambda field: Codec(decimal_to_wire(field), decimal_from_stored, decimal_to_stored),
    ),
    (peewee.CharField, lambda field: _TEXT),
    (peewee.TextField, lambda field: _TEXT),
    (peewee.DateTimeField, lambda field: _iso(datetime.datetime, " ")),
    (peewee.DateField, lambda field: _iso(datetime.date, "T")),
    (peewee.TimeField, lambda field: _iso(datetime.time, "T")),
    (peewee.JSONField, _json),
)


def check_text(value: Wire, what: str) -> str:
    """JSON text of a wire value; `ValueRefused` for what JSON text cannot hold."""
    if isinstance(value, Uncarried):
        raise ValueRefused(f"{what} cannot be carried: {value}.", hint=value.hint)
    try:
        return dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueRefused(
            f"{what} cannot be carried: {error}.",
            hint="Text must be valid Unicode (no lone surrogates); JSON no deeper than 254.",
        ) from None
