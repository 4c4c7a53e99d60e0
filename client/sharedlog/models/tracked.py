"""What there is to know about one tracked model: its key, its columns, its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import peewee

from ..changes import Wire, dumps
from ..dialects import dialect_of, quote
from ..errors import ValueRefused
from ..limits import Limits
from ..merge.rules import MergeRule
from ..raw import RAW, NotCanonical, escape, is_escape, tag, untag
from ..values.fields import Codec, check_text, codec_for
from ..values.typed import same_json, typed_codec


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


class Uncarried:
    """In place of a value that no other device could have, NaN for one: not JSON, so that it is
    refused where it would be recorded, with the name of its field."""

    def __repr__(self) -> str:
        return "a value that cannot be carried"


class TypedColumn(TrackedColumn):
    """The same in a database whose columns take values of their own type only."""

    def wire_of_stored(self, stored: Any) -> Wire:
        if stored is None:
            return None
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

    def same(self, wire: Wire, other: Wire) -> bool:
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


class Tracked:
    """A tracked model. `key` identifies a row in the log; `columns` are the other fields, or those
    of them that `fields` has."""

    def __init__(
        self,
        database: peewee.Database,
        model: type[peewee.Model],
        key: Sequence[peewee.Field],
        fields: Iterable[peewee.Field] | None = None,
    ) -> None:
        meta = model._meta
        self.model = model
        self.collection: str = meta.table_name
        self.table = self.quoted_name = quote(self.collection)
        if meta.schema:
            self.table = f"{quote(meta.schema)}.{self.table}"
        self.dialect = dialect_of(database)
        self.key = [self._column(field) for field in key]
        names = {column.name for column in self.key}
        self.columns = [
            self._column(field)
            for field in (meta.sorted_fields if fields is None else fields)
            if field.name not in names and not isinstance(field, peewee.AutoField)
        ]
        self.every = (*self.key, *self.columns)
        self.by_name = {column.name: column for column in self.columns}
        self.by_field = {column.field: column for column in self.every}
        self.by_column = {column.field.column_name: column for column in self.every}
        self.names = frozenset(self.by_name)
        self.exact_key = not any(c.field.collation or c.field.constraints for c in self.key)
        """Whether `key = value` holds only for the very same value."""
        self.own = [column for column in self.every if column.codec.own]
        self.numbered = self._numbered()
        self.rules: Mapping[str, MergeRule] = {}
        """The merge rules of fields that have one."""
        self.value_bytes = Limits().value_bytes
        self.shapes: dict[Any, Any] = {}
        """What `inserts` knows of inserts that it has seen."""
        self.update_wins: bool = getattr(meta, "update_wins", False)
        """Whether a modification revives a deleted row."""
        self.buries = self.final = False
        """Whether a child, or a later change, may need a deleted row; whether nobody ever can."""
        self.references = [c for c in self.every if isinstance(c.field, peewee.ForeignKeyField)]
        self.parents = self.references
        """Those of them that the database keeps, too."""

    def _column(self, field: peewee.Field) -> TrackedColumn:
        if self.dialect.typed:
            return TypedColumn(field, typed_codec(field, self.dialect.name))
        return TrackedColumn(field, codec_for(field))

    def __repr__(self) -> str:
        return f"<Tracked {self.collection}>"

    def pk_wire(self, values: Sequence[Any]) -> Wire:
        """The pk of a row, from the Python values of its key."""
        wires = [c.exact_wire(value) for c, value in zip(self.key, values, strict=True)]
        return wires[0] if len(wires) == 1 else wires

    def pk_of_stored(self, stored: Sequence[Any]) -> Wire:
        """The pk of a row, from what stands in its key columns (and maybe more after them)."""
        wires = [c.wire_of_stored(value) for c, value in zip(self.key, stored, strict=False)]
        return wires[0] if len(wires) == 1 else wires

    def _numbered(self) -> TrackedColumn | None:
        """The key, if SQLite would number the rows where it gets none."""
        column = self.key[0]
        is_number = isinstance(column.field, peewee.IntegerField) and not column.field.constraints
        return column if is_number and len(self.key) == 1 else None

    def pk_json(self, pk: Wire) -> str:
        try:
            return dumps(pk)
        except (TypeError, ValueError):
            return check_text(pk, f"The key of {self.collection}")

    def check_length(self, pk: str) -> None:
        """Refuse a key that an index of ours would not take, or the service not beside values."""
        longest = self.dialect.key_chars
        if longest is not None and len(pk) > longest:
            raise ValueRefused(
                f"The key of {self.collection} has {len(pk)} characters as JSON; {longest} can be "
                "kept beside the table.",
                hint="Use a shorter key.",
            )
        if len(pk) > self.value_bytes // 100 and len(pk.encode()) > self.value_bytes // 25:
            raise ValueRefused(
                f"A key of {self.collection} has {len(pk.encode()):,} bytes as JSON; "
                f"{self.value_bytes // 25:,} can be carried.",
                hint="Use a shorter key.",
            )

    def value_json(self, values: Mapping[str, Wire]) -> str:
        """Values as JSON text; `ValueRefused` names the field, or the size, that is too much."""
        try:
            text = dumps(values)
        except (TypeError, ValueError):
            for name, value in values.items():  # name the field
                check_text(value, f"{self.model.__name__}.{name}")
            return check_text(values, f"A value of {self.collection}")
        if len(text) > self.value_bytes // 4 and len(text.encode()) > self.value_bytes:
            raise ValueRefused(
                f"A change of {self.model.__name__} has {len(text.encode()):,} bytes as JSON; "
                f"{self.value_bytes:,} can be carried.",
                hint="Keep large data in files and store their names.",
            )
        return text

    def rules_json(self, values: Mapping[str, Wire], *, created: bool) -> str | None:
        """The names of the rules by which these values are to be merged, as JSON text."""
        named = {}
        for name, rule in self.rules.items():
            if name in values:
                if not rule.fits(values[name], plain=created):
                    raise ValueRefused(
                        f"{self.by_name[name]}: {values[name]!r:.100} cannot be merged by the "
                        f"rule {rule.name!r}.",
                        hint="Store another value, or give the field another rule.",
                    )
                named[name] = rule.name
        return dumps(named) if named else None

    def key_parameters(self, pk: Wire) -> list[Any]:
        """Driver values of a pk from the wire. Raises ValueError where it does not fit."""
        if len(self.key) == 1:
            return [self.key[0].to_parameter(pk)]
        if type(pk) is not list or len(pk) != len(self.key):
            raise ValueError(f"the key of {self.collection} has {len(self.key)} parts")
        return [c.to_parameter(part) for c, part in zip(self.key, pk, strict=True)]

    def checked_key(self, pk: Wire) -> list[Any]:
        """The same for a pk that may come from anybody."""
        parts = [pk] if len(self.key) == 1 else pk
        if type(parts) is not list or len(parts) != len(self.key):
            raise ValueError(f"the key of {self.collection} has {len(self.key)} parts")
        return [column.key_parameter(part) for column, part in zip(self.key, parts, strict=True)]

    @cached_property
    def where_key(self) -> str:
        return " AND ".join(f"{column.quoted} = {column.marker}" for column in self.key)

    @cached_property
    def upsert_sql(self) -> str:
        """Insert a row with all its columns; where the key stands already, overwrite it."""
        every = [*self.key, *self.columns]
        sets = ", ".join(f"{c.quoted} = excluded.{c.quoted}" for c in self.columns)
        return (
            f"INSERT INTO {self.table} ({', '.join(c.quoted for c in every)}) "
            f"VALUES ({', '.join(c.marker for c in every)}) "
            f"ON CONFLICT ({', '.join(c.quoted for c in self.key)}) DO "
            + (f"UPDATE SET {sets}" if sets else "NOTHING")
        )

    def update_sql(self, names: Sequence[str]) -> str:
        sets = ", ".join(f"{self.by_name[n].quoted} = {self.by_name[n].marker}" for n in names)
        return f"UPDATE {self.table} SET {sets} WHERE {self.where_key}"

    def correct_sql(self, name: str) -> str:
        """Set one field of a row, if it is not so already."""
        column = self.by_name[name]
        return f"{self.update_sql([name])} AND {self.dialect.differs(column.quoted)}"

    @cached_property
    def delete_sql(self) -> str:
        return f"DELETE FROM {self.table} WHERE {self.where_key}"

    def can_clear(self, column: TrackedColumn) -> bool:
        """Whether a reference can be taken out of its column."""
        takes = column.field.null or self.cleared_wire(column) is not None
        return bool(takes) and column.name in self.by_name

    def cleared_wire(self, column: TrackedColumn) -> Wire:
        """What stands in place of a reference to a deleted row, by SET NULL or SET DEFAULT."""
        if (column.field.on_delete or "").upper() != "SET DEFAULT" or column.name not in self.names:
            return None
        return self.default_wire(column.name)

    def default_wire(self, name: str) -> Wire:
        """What a column holds when no change ever wrote it: the field's default, or NULL."""
        return self.by_name[name].default_wire()
