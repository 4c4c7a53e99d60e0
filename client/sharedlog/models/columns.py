"""The columns of a tracked model: what their values become on their way, and back."""

from __future__ import annotations

from typing import Any

import peewee

from ..changes import Wire, dumps
from ..dialects import quote
from ..errors import ValueRefused
from ..raw import RAW, NotCanonical, Uncarried, escape, is_escape, tag, untag
from ..values.fields import Codec
from ..values.typed import same_json


class Converted(peewee.Value):
    """A value that its field's own class converted already: just once, so that what is
    recorded is what is written, also where converting gives another result each time."""

    def __init__(self, stored: Any) -> None:
        super().__init__(stored, converter=False, unpack=False)
        self.wire = tag(stored)


def _stays(stored: Any) -> bool:
    """Whether a column of another type keeps this value as it is (SQLite's affinities)."""
    if type(stored) is not str:
        return type(stored) is bytes
    try:
        float(stored)
    except ValueError:
        return True
    return False


UNBOUND = (list, dict)
"""What JSON has and no column takes."""


class TrackedColumn:
    """One field of a tracked model, with its conversions."""

    def __init__(self, field: peewee.Field, codec: Codec) -> None:
        self.field: Any = field
        self.name: str = field.name
        self.codec = codec
        self.plain = self.codec.plain
        self.quoted = quote(field.column_name)
        self.marker = "?"
        """What stands for a stored value in SQL (see `Dialect.text`)."""

    def wire_of_stored(self, stored: Any) -> Wire:
        """The wire form of what stands in the table, whatever its type."""
        if stored is None or (type(stored) is str and self.plain is str):
            return stored
        try:
            return self.codec.from_stored(stored)
        except NotCanonical:
            return escape(stored)

    def exact_wire(self, value: Any) -> Wire:
        """The wire form of a value about to be written; NotCanonical if the table decides."""
        if value is None or type(value) is self.plain:
            return value
        if isinstance(value, peewee.Node):
            if type(value) is Converted:
                return value.wire
            value = self._referred(value)
        try:
            return self.codec.to_wire(value)
        except ValueRefused as refused:
            raise self._named(refused) from None

    def converted(self, value: Any) -> Any:
        """The value as the field's own class gives it to the database; else the value."""
        if value is None or (
            isinstance(value, peewee.Node) and not isinstance(value, peewee.Model)
        ):
            return value
        stored = self._db_value(value)
        if isinstance(stored, peewee.Node):
            return stored
        try:
            return Converted(stored)
        except ValueRefused as refused:
            raise self._named(refused) from None

    def _db_value(self, value: Any) -> Any:
        return self.field.db_value(value)

    def _referred(self, node: peewee.Node) -> Any:
        """What a foreign key to an instance holds."""
        field = self.field
        if isinstance(field, peewee.ForeignKeyField) and isinstance(node, field.rel_model):
            value = getattr(node, field.rel_field.safe_name)
            if value is not None:
                return value
        raise NotCanonical

    def to_parameter(self, wire: Wire) -> Any:
        """What the database driver takes for a wire value. Raises one of `rows.UNFIT` if it
        takes none: the value may come from anybody."""
        if wire is None or (type(wire) is str and self.plain is str):
            return wire
        if is_escape(wire):
            stored = untag(wire[RAW])
        else:
            stored = wire if type(wire) is self.plain else self.codec.to_stored(wire)
        if type(stored) in UNBOUND or (type(stored) is int and not -(2**63) <= stored < 2**63):
            raise ValueError(f"{stored!r:.100} is not a value of {self.name}")
        return stored

    def key_parameter(self, wire: Wire) -> Any:
        """The same for a part of a key, which must be as this library would write it.

        1, true and "1" are one key to a column of numbers, but three rows in the log: which of
        them stood in the table would depend on the order of their arrival.
        """
        if type(wire) is str and self.plain is str:
            return wire
        stored = self.to_parameter(wire)
        same = self.wire_of_stored(stored)
        if dumps(same) != dumps(wire) or (is_escape(wire) and not _stays(stored)):
            raise ValueError(f"{wire!r:.100} is not how a key {self.name} is written")
        return stored

    def keeps(self, wire: Wire) -> bool:
        """Whether the column leaves what the field's own class gave as it is, whatever the type
        of the column."""
        return _stays(wire)

    @property
    def mixes_numbers(self) -> bool:
        """Whether there may be equal numbers in it that are not the same on the wire: integers
        and floats side by side, as the field's own class gives them, and no text made of them."""
        declared = str(self.field.field_type or "").upper()
        return self.codec.own and not any(word in declared for word in ("CHAR", "CLOB", "TEXT"))

    def same(self, wire: Wire, other: Wire) -> bool:
        """Whether two wire values are one."""
        return dumps(wire) == dumps(other)

    def default_wire(self) -> Wire:
        """The field's default, or None; a callable (now(), uuid()) would differ from device to
        device."""
        default = self.field.default
        if default is None or callable(default):
            return None
        try:
            return self.exact_wire(default)
        except NotCanonical:
            return self._inexact_default(default)

    def _inexact_default(self, default: Any) -> Wire:
        return escape(self.field.db_value(default))  # an integer for a decimal, say

    def placeholder(self, text: str) -> Any:
        """What can stand in the column for a moment, and means nothing."""
        return text

    def _named(self, refused: ValueRefused) -> ValueRefused:
        """The refusal that says which field it is."""
        return ValueRefused(f"{self}: {refused.message}", hint=refused.hint)

    def __str__(self) -> str:
        return f"{self.field.model.__name__}.{self.name}"


class TypedColumn(TrackedColumn):
    """The same in a database whose columns take values of their own type only."""

    mixes_numbers = False

    def wire_of_stored(self, stored: Any) -> Wire:
        if stored is None or isinstance(stored, Uncarried):
            return stored
        try:
            return self.codec.from_stored(stored)
        except ValueRefused:
            return Uncarried()
        except NotCanonical:
            pass
        try:
            return escape(stored)
        except NotCanonical:
            return Uncarried()

    def to_parameter(self, wire: Wire) -> Any:
        if wire is None:
            return None
        stored = wire if type(wire) is self.plain else self.codec.to_stored(wire)
        unbound = type(stored) is int and not -(2**63) <= stored < 2**63
        if unbound or (type(stored) is str and "\0" in stored and not self.codec.takes_nul):
            raise ValueError(f"{stored!r:.100} is not a value of {self.name}")
        return stored

    def key_parameter(self, wire: Wire) -> Any:
        stored = self.to_parameter(wire)
        if dumps(self.wire_of_stored(stored)) != dumps(wire):
            raise ValueError(f"{wire!r:.100} is not how a key {self.name} is written")
        return stored

    def keeps(self, wire: Wire) -> bool:
        return False

    def same(self, wire: Wire, other: Wire) -> bool:
        if isinstance(wire, Uncarried):
            return False
        return dumps(wire) == dumps(other) or (self.codec.loose and same_json(wire, other))

    def _db_value(self, value: Any) -> Any:
        stored = self.field.db_value(value)
        # psycopg's sign for bytes, which it takes as well without
        return stored.obj if type(stored).__name__ == "Binary" else stored

    def _inexact_default(self, default: Any) -> Wire:
        try:
            return self.exact_wire(self.field.python_value(self.field.db_value(default)))
        except NotCanonical:
            return None  # only the database can tell what it makes of it

    def placeholder(self, text: str) -> Any:
        return self.codec.placeholder(text)
