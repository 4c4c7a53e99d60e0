"""What there is to know about one tracked model: its key, its columns, its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import peewee

from .changes import Wire, dumps
from .errors import AutoIncrementKey, ConfigurationError, NotASyncModel, ValueRefused
from .fields import Codec, check_text, codec_for
from .models import SyncModel
from .raw import RAW, NotCanonical, escape, is_escape, tag, untag

ACTING = frozenset(("CASCADE", "SET NULL", "SET DEFAULT"))
"""What a foreign key may tell the database to do to children."""


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

    def __init__(self, database: peewee.Database, field: peewee.Field) -> None:
        self.field: Any = field
        self.name: str = field.name
        self.codec: Codec = codec_for(field)
        self.plain = self.codec.plain
        self.quoted = quote(field.column_name)
        self.marker = database.param
        """What stands for a stored value in SQL."""

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
        stored = self.field.db_value(value)
        if isinstance(stored, peewee.Node):
            return stored
        try:
            return Converted(stored)
        except ValueRefused as refused:
            raise self._named(refused) from None

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

    def _named(self, refused: ValueRefused) -> ValueRefused:
        """The refusal that says which field it is."""
        return ValueRefused(f"{self}: {refused.message}", hint=refused.hint)

    def __str__(self) -> str:
        return f"{self.field.model.__name__}.{self.name}"


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
        self.every = (*self.key, *self.columns)
        self.by_name = {column.name: column for column in self.columns}
        self.by_field = {column.field: column for column in self.every}
        self.by_column = {column.field.column_name: column for column in self.every}
        self.names = frozenset(self.by_name)
        self.exact_key = not any(c.field.collation or c.field.constraints for c in self.key)
        """Whether `key = value` holds only for the very same value."""
        self.own = [column for column in self.every if column.codec.own]
        self.parents = [
            column for column in self.every if isinstance(column.field, peewee.ForeignKeyField)
        ]

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
        try:
            return column.exact_wire(default)
        except NotCanonical:
            return escape(column.field.db_value(default))  # an integer for a decimal, say


class Rule(NamedTuple):
    """A foreign key that tells the database to change `child` when `referred` changes."""

    child: Tracked
    column: TrackedColumn
    referred: TrackedColumn
    on_delete: str
    on_update: str


class Registry:
    """All tracked models of one `Sync`, by model, by table, by collection."""

    def __init__(self, database: peewee.Database, models: Iterable[type[peewee.Model]]) -> None:
        self._by_collection: dict[str, Tracked] = {}
        for model in _with_through_models(_checked(models)):
            tracked = Tracked(database, model, _key_of(model))
            other = self._by_collection.setdefault(tracked.collection, tracked)
            if other.model is not model:
                raise ConfigurationError(
                    f"{other.model.__name__} and {model.__name__} both use the table "
                    f"{tracked.collection!r}; a collection is one table."
                )
        self._by_model: dict[Any, Tracked] = {tracked.model: tracked for tracked in self}
        self._by_table = {
            (tracked.model._meta.schema, tracked.collection): tracked for tracked in self
        }
        models = [tracked.model for tracked in self]
        order = peewee.sort_models(models)  # type: ignore[attr-defined]
        self.in_order = [self._by_model[model] for model in order if model in self._by_model]
        self.rules = self._find_rules()
        """By collection of the parent: what the database does to children on its own."""

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._by_collection.values())

    def __len__(self) -> int:
        return len(self._by_collection)

    def collection(self, name: str) -> Tracked | None:
        return self._by_collection.get(name)

    def model(self, model: Any) -> Tracked | None:
        return self._by_model.get(model)

    def table(self, table: Any) -> Tracked | None:
        """The tracked model of a write query's target: the model itself, its plain `Table`,
        or another model of the same table."""
        tracked = self._by_model.get(table)
        if tracked is None and isinstance(table, peewee.Table):
            tracked = self._by_table.get((table._schema, table.__name__))  # type: ignore[attr-defined]
        elif tracked is None:
            meta = table._meta
            tracked = self._by_table.get((meta.schema, meta.table_name))
        return tracked

    def children(self, parent: Tracked) -> list[tuple[Tracked, TrackedColumn]]:
        """The tracked foreign keys that point to a model."""
        return [
            (child, column)
            for child in self
            for column in child.parents
            if column.field.rel_model is parent.model
        ]

    def _find_rules(self) -> dict[str, list[Rule]]:
        rules: dict[str, list[Rule]] = {}
        for parent in self:
            for child, column in self.children(parent):
                field = column.field
                if field.rel_field not in parent.by_field:
                    raise AutoIncrementKey(
                        f"{column} refers to {parent.model.__name__}.{field.rel_field.name}, "
                        "which the database numbers: it is another number on each device.",
                        hint=f"Refer to what identifies a row of {parent.model.__name__}.",
                    )
                rule = Rule(
                    child,
                    column,
                    parent.by_field[field.rel_field],
                    (field.on_delete or "").upper(),
                    (field.on_update or "").upper(),
                )
                if ACTING & {rule.on_delete, rule.on_update}:
                    rules.setdefault(parent.collection, []).append(rule)
        return rules


def _checked(models: Iterable[type[peewee.Model]]) -> list[type[peewee.Model]]:
    """The models, if that is what they are."""
    result = list(models)
    for model in result:
        if not (isinstance(model, type) and issubclass(model, peewee.Model)):
            raise NotASyncModel(
                f"{model!r} is not a model.",
                hint="Give Sync the model classes: Sync(database, [Note, Tag], …).",
            )
    return result


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
    if not issubclass(model, SyncModel):
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
