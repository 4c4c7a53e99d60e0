"""What there is to know about one tracked model: its key, its columns, its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import peewee

from ..changes import Wire, dumps, loads
from ..dialects import dialect_of, quote
from ..errors import ValueRefused
from ..limits import Limits
from ..merge.rules import MergeRule
from ..raw import RAW, is_escape
from ..values.fields import check_text, codec_for
from ..values.typed import typed_codec
from .columns import TrackedColumn, TypedColumn

ESCAPED = f'{{"{RAW}":'
"""What JSON says where a value is not one that its field would write."""


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
        self.rules: dict[str, MergeRule] = {}
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
        self.doubted = [c for c in self.own if c in self.key or c in self.references]
        """What names rows and is of an application's own class: a column may turn what that gives
        into another type, and one row would have two keys (see `is_told_by_table`)."""

    def _column(self, field: peewee.Field) -> TrackedColumn:
        if self.dialect.typed:
            return TypedColumn(field, typed_codec(field, self.dialect.name))
        return TrackedColumn(field, codec_for(field))

    def __repr__(self) -> str:
        return f"<Tracked {self.collection}>"

    def is_told_by_table(self, column: TrackedColumn, wire: Wire) -> bool:
        """Whether only the table tells how this stands."""
        return column in self.doubted and not column.keeps(wire)

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

    def check_key(self, pk: str) -> None:
        """Refuse a key that no other device would take, an index of ours, or the service beside
        values."""
        if ESCAPED in pk:
            key = loads(pk)
            try:
                self.checked_key(key)
            except ValueError:
                parts = key if type(key) is list else [key]
                said = ", ".join(repr(part[RAW]) for part in parts if is_escape(part))
                raise ValueRefused(
                    f"A key of {self.model.__name__} is of another type than its field: {said}.",
                    hint="Give it a value of the field's type, or change the field: another "
                    "database would make something else of this one.",
                ) from None
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
