"""What there is to know about one tracked model: its key, its columns, its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import peewee

from .changes import Wire
from .errors import AutoIncrementKey, ConfigurationError, NotASyncModel, ValueRefused
from .fields import Codec, NotCanonical, check_text, codec_for, escape
from .models import SyncModel

CASCADING = frozenset(("CASCADE", "SET NULL"))


class TrackedColumn:
    """One field of a tracked model, with its conversions."""

    def __init__(self, database: peewee.Database, field: peewee.Field) -> None:
        self.field: Any = field
        self.name: str = field.name
        self.codec: Codec = codec_for(field)
        self.quoted = quote(field.column_name)
        self._context = database.get_sql_context
        self.marker, self._wrapped = self._placeholder(database)

    def _placeholder(self, database: peewee.Database) -> tuple[str, bool]:
        """What stands for the value in SQL: `?`, or `json(?)` and the like."""
        if isinstance(self.field, peewee.JSONField):
            sql, parameters = self._context().sql(self.field.to_value({})).query()
            return (sql, True) if len(parameters) == 1 else (database.param, False)
        return database.param, False

    def to_wire(self, value: Any) -> Wire:
        """The wire form of a value that is in the table, whatever its type."""
        if value is None:
            return None
        try:
            return self.codec.to_wire(value)
        except NotCanonical:
            return escape(value)

    def exact_wire(self, value: Any) -> Wire:
        """The wire form of a value about to be written; NotCanonical if the table decides."""
        if value is None:
            return None
        if isinstance(value, peewee.Node):
            if not isinstance(value, peewee.Model):
                raise NotCanonical
            value = getattr(value, self.field.rel_field.safe_name)
        try:
            return self.codec.to_wire(value)
        except ValueRefused as refused:
            raise ValueRefused(
                f"{self.field.model.__name__}.{self.name}: {refused.message}", hint=refused.hint
            ) from None

    def to_parameter(self, wire: Wire) -> Any:
        """What the database driver takes for a wire value."""
        if wire is None or type(wire) is self.codec.plain:
            return wire
        value = self.codec.from_wire(wire)
        if self._wrapped:
            return self._context().sql(self.field.to_value(value)).query()[1][0]
        return self.field.db_value(value)


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Tracked:
    """A tracked model. `key` identifies a row in the log; `columns` are the other fields."""

    def __init__(
        self, database: peewee.Database, model: type[peewee.Model], key: Sequence[peewee.Field]
    ) -> None:
        meta = model._meta
        self.model = model
        self.collection: str = meta.table_name
        self.table = quote(self.collection)
        if meta.schema:
            self.table = f"{quote(meta.schema)}.{self.table}"
        self.key = [TrackedColumn(database, field) for field in key]
        names = {column.name for column in self.key}
        self.columns = [
            TrackedColumn(database, field)
            for field in meta.sorted_fields
            if field.name not in names and not isinstance(field, peewee.AutoField)
        ]
        self.by_name = {column.name: column for column in self.columns}
        self.by_field = {column.field: column for column in (*self.key, *self.columns)}
        self.names = frozenset(self.by_name)
        self._parameter = database.param
        self.parents = [
            column
            for column in (*self.key, *self.columns)
            if isinstance(column.field, peewee.ForeignKeyField)
        ]

    def __repr__(self) -> str:
        return f"<Tracked {self.collection}>"

    def pk_wire(self, values: Iterable[Any], *, exact: bool = False) -> Wire:
        """The pk of a row, from the Python values of its key, in order."""
        convert = TrackedColumn.exact_wire if exact else TrackedColumn.to_wire
        wires = [convert(column, value) for column, value in zip(self.key, values, strict=True)]
        return wires[0] if len(wires) == 1 else wires

    def pk_json(self, pk: Wire) -> str:
        return check_text(pk, f"The key of {self.collection}")

    def value_json(self, values: Mapping[str, Wire]) -> str:
        try:
            return check_text(values, f"A value of {self.collection}")
        except ValueRefused:
            for name, value in values.items():  # name the field
                check_text(value, f"{self.model.__name__}.{name}")
            raise

    def key_parameters(self, pk: Wire) -> list[Any]:
        """Driver values of a pk from the wire. Raises ValueError where it does not fit."""
        if len(self.key) == 1:
            return [self.key[0].to_parameter(pk)]
        if type(pk) is not list or len(pk) != len(self.key):
            raise ValueError(f"the key of {self.collection} has {len(self.key)} parts")
        return [c.to_parameter(part) for c, part in zip(self.key, pk, strict=True)]

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

    @cached_property
    def delete_sql(self) -> str:
        return f"DELETE FROM {self.table} WHERE {self.where_key}"

    def default_wire(self, name: str) -> Wire:
        """What a column holds when no change ever wrote it: the field's default, or NULL."""
        column = self.by_name[name]
        default = column.field.default
        if default is None or callable(default):
            # A callable (now(), uuid()) would differ from device to device.
            return None
        return column.to_wire(default)


class Registry:
    """All tracked models of one `Sync`, by model, by table, by collection."""

    def __init__(self, database: peewee.Database, models: Iterable[type[peewee.Model]]) -> None:
        self._by_collection: dict[str, Tracked] = {}
        for model in _with_through_models(list(models)):
            tracked = Tracked(database, model, _key_of(model))
            other = self._by_collection.setdefault(tracked.collection, tracked)
            if other.model is not model:
                raise ConfigurationError(
                    f"{other.model.__name__} and {model.__name__} both use the table "
                    f"{tracked.collection!r}; a collection is one table."
                )
        self._by_model = {tracked.model: tracked for tracked in self._by_collection.values()}
        models = [tracked.model for tracked in self]
        order = peewee.sort_models(models)  # type: ignore[attr-defined]
        self.in_order = [self._by_model[model] for model in order if model in self._by_model]

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._by_collection.values())

    def __len__(self) -> int:
        return len(self._by_collection)

    def collection(self, name: str) -> Tracked | None:
        return self._by_collection.get(name)

    def model(self, model: Any) -> Tracked | None:
        return self._by_model.get(model)

    def table(self, table: Any) -> Tracked | None:
        """The tracked model of a write query's target: a model, or its plain `Table`."""
        if isinstance(table, peewee.Table):
            return self._by_collection.get(table.__name__)
        return self._by_model.get(table)

    def children(self, parent: Tracked) -> list[tuple[Tracked, TrackedColumn]]:
        """The tracked foreign keys that point to a model."""
        return [
            (child, column)
            for child in self
            for column in child.parents
            if column.field.rel_model is parent.model
        ]


def _with_through_models(models: list[type[peewee.Model]]) -> list[type[peewee.Model]]:
    """The models, and the through models of many-to-many fields between two of them."""
    result = list(dict.fromkeys(models))
    for model in models:
        for field in model._meta.manytomany.values():
            if field.rel_model in models and field.model in models:
                through = field.get_through_model()
                if through not in result:
                    result.append(through)
    return result


def _key_of(model: type[peewee.Model]) -> list[peewee.Field]:
    """The fields that identify a row on every device; an error says what to write instead."""
    meta = model._meta
    through = _through_key(model)
    if through is not None:
        return through
    if not (isinstance(model, type) and issubclass(model, SyncModel)):
        raise NotASyncModel(
            f"{model.__name__} is not a SyncModel.",
            hint=f"Write `class {model.__name__}(SyncModel)` in place of its base class.",
        )
    if meta.primary_key is False:
        raise ConfigurationError(
            f"{model.__name__} has no primary key; rows without one cannot be told apart.",
            hint="Remove `primary_key = False` from its Meta.",
        )
    fields: list[peewee.Field] = list(meta.get_primary_keys())
    for field in fields:
        if isinstance(_target(field), peewee.AutoField):
            raise AutoIncrementKey(
                f"{model.__name__}.{field.name} is an auto-increment key: the database numbers "
                "rows 1, 2, 3, so two devices give the same number to different rows.",
                hint=f"Remove {field.name!r} from {model.__name__} (SyncModel brings a UUID key), "
                "or write `id = UUIDField(primary_key=True, default=uuid7)`.",
            )
    return fields


def _target(field: Any) -> Any:
    while isinstance(field, peewee.ForeignKeyField):
        field = field.rel_field
    return field


def _through_key(model: type[peewee.Model]) -> list[peewee.Field] | None:
    """The two foreign keys of a through model that Peewee made: they identify the pair."""
    meta = model._meta
    references = list(meta.refs)
    if isinstance(meta.primary_key, peewee.AutoField) and len(meta.sorted_fields) == 3:
        pair = {field.name for field in references}
        unique = [set(names) for names, is_unique in _plain_indexes(meta.indexes) if is_unique]
        if len(references) == 2 and pair in unique and not issubclass(model, SyncModel):
            return references
    return None


def _plain_indexes(indexes: Iterable[Any]) -> list[tuple[tuple[str, ...], bool]]:
    return [index for index in indexes if isinstance(index, tuple) and len(index) == 2]
