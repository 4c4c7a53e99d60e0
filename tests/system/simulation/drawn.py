"""Applications drawn by lot: three to seven tables with all sorts of keys, references, unique
constraints and fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import peewee

from sharedlog import Counter, Custom, Maximum, Members, Minimum, SyncModel

from . import kinds
from .kinds import CHAR, COUNT, INTEGER, LIST, TEXT, UUID, Kind
from .shapes import Column, Shape, longest

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")

ON_DELETE = ("CASCADE", "CASCADE", "SET NULL", "SET NULL", "RESTRICT", "NO ACTION", None)


@dataclass(frozen=True)
class Drawn:
    """The model classes, by table, and the tables that they were made of."""

    by_name: Mapping[str, Any]
    shapes: Mapping[str, Shape]

    @property
    def given(self) -> list[Any]:
        return list(self.by_name.values())

    all = given


def draw_shapes(chance: Random) -> Mapping[str, Shape]:
    return Drawing(chance).shapes()


class Drawing:
    """Draws the tables of one application."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._keys: dict[str, tuple[Column, ...]] = {}
        self._names = NAMES[: chance.randint(3, 7)]

    def shapes(self) -> Mapping[str, Shape]:
        for name in self._names:
            self._keys[name] = self._key()
        return {name: self._shape(name) for name in self._names}

    def _shape(self, name: str) -> Shape:
        chance, key = self._chance, self._keys[name]
        number = chance.choice((0, 1, 1, 2, 2, 3))
        references = [self._reference(name, f"ref{n}") for n in range(number)]
        values = [self._value(f"val{n}") for n in range(chance.randint(1, 4))]
        columns = (*key, *references, *values)
        shape = Shape(name, tuple(column.name for column in key), columns)
        return replace(shape, unique=self._unique(shape), update_wins=chance.random() < 0.25)

    # -- keys ----------------------------------------------------------------------------

    def _key(self) -> tuple[Column, ...]:
        kind = self._chance.choice(("uuid", "uuid", "text", "integer", "composite", "reference"))
        if kind == "uuid":
            return (Column("id", UUID),)
        if kind == "reference" and self._targets():
            return (self._key_reference("owner"),)
        if kind == "composite" and self._targets():
            return (self._part("one"), self._part("two"))
        return (Column("code", self._chance.choice((TEXT, INTEGER))),)

    def _part(self, name: str) -> Column:
        if self._chance.random() < 0.5:
            return Column(name, self._chance.choice((CHAR, INTEGER)))
        return self._key_reference(name)

    def _key_reference(self, name: str) -> Column:
        """Part of a key that refers to a table that has its key already."""
        return replace(self._to(name, self._chance.choice(self._targets())), null=False)

    def _targets(self) -> list[str]:
        """The tables that can be referred to."""
        return [name for name, key in self._keys.items() if len(key) == 1]

    def _kind_of(self, name: str) -> Kind:
        (column,) = self._keys[name]
        return column.kind

    # -- other columns -------------------------------------------------------------------

    def _reference(self, table: str, name: str) -> Column:
        """Rows of a later table need not be there: nobody could begin to fill a circle."""
        column = self._to(name, self._chance.choice(self._targets()))
        later = column.parent is not None and column.parent > table
        return replace(column, unique=self._chance.random() < 0.1, null=column.null or later)

    def _to(self, name: str, parent: str) -> Column:
        chance, kind = self._chance, self._kind_of(parent)
        on_update = "CASCADE" if kind is not UUID and chance.random() < 0.3 else None
        return Column(
            name,
            kind,
            null=chance.random() < 0.75,
            parent=parent,
            on_delete=chance.choice(ON_DELETE),
            on_update=on_update,
            deferrable=chance.choice((None, None, None, "INITIALLY DEFERRED")),
        )

    def _value(self, name: str) -> Column:
        chance = self._chance
        if chance.random() < 0.2:
            return self._ruled(name)
        kind = chance.choice(kinds.ALL)
        if chance.random() < 0.25:
            kind = chance.choice((TEXT, INTEGER))
            return Column(name, kind, default=kind.values[0])
        unique = kind in kinds.SINGLY and chance.random() < 0.5
        return Column(name, kind, null=chance.random() < 0.6, unique=unique)

    def _ruled(self, name: str) -> Column:
        """A column with a merge rule."""
        chance = self._chance
        rule = chance.choice(("counter", "counter", "members", "maximum", "minimum", "longest"))
        if rule == "counter":
            return Column(name, COUNT, default=chance.choice((0, 5)), rule=rule)
        if rule == "members":
            return Column(name, LIST, null=True, rule=rule)
        kind = TEXT if rule == "longest" else chance.choice((COUNT, TEXT))
        return Column(name, kind, null=True, rule=rule)

    def _unique(self, shape: Shape) -> tuple[tuple[str, ...], ...]:
        """Sets of columns, of which one may be a part of the key."""
        free = [column for column in shape.others if column.rule is None]
        names = [c.name for c in free if c.parent or c.kind in kinds.UNIQUE]
        if len(shape.key) > 1:
            names.append(shape.key[0])
        if len(names) < 2 or self._chance.random() < 0.5:
            return ()
        return (tuple(self._chance.sample(names, 2)),)


# -- editions -------------------------------------------------------------------------------


def older(shapes: Mapping[str, Shape], chance: Random) -> Mapping[str, Shape]:
    """The tables as they were before a table, or some columns, were added."""
    referred = {c.parent for s in shapes.values() for c in s.columns if c.parent != s.name}
    free = [n for n, s in shapes.items() if n not in referred and all(map(_is_new, s.columns))]
    if free and len(shapes) > 2 and chance.random() < 0.4:
        added = chance.choice(free)
        return {name: shape for name, shape in shapes.items() if name != added}
    return {name: shape.without(_added(shape, chance)) for name, shape in shapes.items()}


def _is_new(column: Column) -> bool:
    """Whether a column can be new: it may restrict no deletion, because a device that did not know
    of that keeps nothing of the rows that it deleted."""
    return column.parent is None or (column.on_delete == "SET NULL" and column.null)


def _added(shape: Shape, chance: Random) -> list[str]:
    """Columns that can be added to a table that has rows."""
    together = {name for names in shape.unique for name in names}
    return [
        column.name
        for column in shape.others
        if not column.is_required
        and _is_new(column)
        and column.name not in together
        and chance.random() < 0.3
    ]


def upgrade(database: peewee.Database, models: Drawn) -> None:
    """Bring a database of an older edition up to this one, as an application would."""
    for name, model in models.by_name.items():
        shape = models.shapes[name]
        if not model.table_exists():
            model.create_table()
            continue
        there = {column.name for column in database.get_columns(name)}
        for column in shape.columns:
            field = model._meta.fields[column.name]
            if field.column_name not in there:
                context = database.get_sql_context()
                ddl, _ = context.sql(field.ddl(context)).query()
                rest = _rest(models, column, ddl)
                database.execute_sql(f'ALTER TABLE "{name}" ADD COLUMN {ddl}{rest}')
        model._schema.create_indexes(safe=True)


def _rest(models: Drawn, column: Column, ddl: str) -> str:
    """What Peewee writes elsewhere: a reference, a default of the database."""
    if column.parent is not None and "REFERENCES" not in ddl:
        return f" {_constraint(models.shapes[column.parent], column)}"
    return "" if column.default is None else f" DEFAULT {column.default!r}"


# -- model classes --------------------------------------------------------------------------


RULES: Mapping[str, Callable[[], Any]] = {
    "counter": Counter,
    "members": Members,
    "maximum": Maximum,
    "minimum": Minimum,
    "longest": lambda: Custom("longest", longest),
}


def define(shapes: Mapping[str, Shape]) -> Drawn:
    """The model classes, bound to nothing."""
    models: dict[str, Any] = {}
    for name, shape in shapes.items():
        attributes: dict[str, Any] = {"Meta": _meta(shape), "__module__": __name__}
        for column in shape.columns:
            if not (column.name == "id" and shape.key == ("id",)):  # which SyncModel brings
                attributes[column.name] = _field(shapes, shape, column, models)
        models[name] = type(name.capitalize(), (SyncModel,), attributes)
    return Drawn(models, shapes)


def _meta(shape: Shape) -> type:
    inside: dict[str, Any] = {
        "table_name": shape.name,
        "indexes": tuple((names, True) for names in shape.unique),
        "update_wins": shape.update_wins,
    }
    rules = {column.name: RULES[column.rule]() for column in shape.others if column.rule}
    if rules:
        inside["merge"] = dict(reversed(rules.items()))  # not in the order of the columns
    if len(shape.key) > 1:
        inside["primary_key"] = peewee.CompositeKey(*shape.key)
    return type("Meta", (), inside)


def _field(
    shapes: Mapping[str, Shape], shape: Shape, column: Column, models: Mapping[str, Any]
) -> Any:
    options: dict[str, Any] = {**column.kind.options, "null": column.null, "unique": column.unique}
    if column.default is not None:
        options["default"] = column.default
    if shape.key == (column.name,):
        options["primary_key"] = True
        del options["unique"]
    if column.parent is None:
        return column.kind.field(**options)
    options.pop("default", None)
    acts = {"on_delete": column.on_delete, "on_update": column.on_update}
    options |= {**acts, "backref": f"{shape.name}_{column.name}_set"}
    if column.parent == shape.name or column.parent in models:
        target: Any = "self" if column.parent == shape.name else models[column.parent]
        return peewee.ForeignKeyField(target, deferrable=column.deferrable, **options)
    # Peewee makes no constraint for these where the database cannot add one later.
    sql = _constraint(shapes[column.parent], column)
    return peewee.DeferredForeignKey(
        column.parent.capitalize(), constraints=[peewee.SQL(sql)], **options
    )


def _constraint(parent: Shape, column: Column) -> str:
    key = parent.key_column
    name = f"{key.name}_id" if key.parent else key.name
    parts = [f'REFERENCES "{parent.name}" ("{name}")']
    parts += [f"ON DELETE {column.on_delete}"] if column.on_delete else []
    parts += [f"ON UPDATE {column.on_update}"] if column.on_update else []
    parts += [f"DEFERRABLE {column.deferrable}"] if column.deferrable else []
    return " ".join(parts)


# -- strangers ------------------------------------------------------------------------------

UNREADABLE = ("", "not json", "null", "[]", '{"operation":"explode","collection":"ant","pk":1}')


def strangers(shapes: Mapping[str, Shape], chance: Random) -> Sequence[str]:
    """Entries that no device of this application writes: of another version, or none at all."""
    data = list(UNREADABLE)
    for shape in shapes.values():
        keys = [_some_key(shapes, shape, chance) for _ in range(2)]
        data += [
            _entry("create", shape, keys[0], {}),
            _entry("create", shape, keys[1], {"shade": 0, **_some_values(shape, chance)}),
            _entry("modify", shape, keys[0], {"shade": ""}),
            _entry("modify", shape, keys[1], _some_values(shape, chance)),
            _entry("delete", shape, keys[0], None),
            _entry("create", shape, ["?"], {}),
        ]
        plain = [column for column in shape.others if column.rule is None]
        misfit = [column.name for column in plain if not column.kind.takes(column.name, ["?"])]
        if misfit:
            data.append(_entry("modify", shape, keys[1], {chance.choice(misfit): ["?"]}))
    planet = Shape("planet", ("id",), ())
    return [*data, _entry("create", planet, 1, {"x": None}), _entry("modify", planet, 1, {"y": 0})]


def _entry(operation: str, shape: Shape, pk: Any, value: Mapping[str, Any] | None) -> str:
    change = {"operation": operation, "collection": shape.name, "pk": pk}
    change |= {"field": None, "value": value}
    return json.dumps(change, ensure_ascii=False)


def _some_key(shapes: Mapping[str, Shape], shape: Shape, chance: Random) -> Any:
    parts = [_some_wire(shape.by_name[name], chance) for name in shape.key]
    return parts[0] if len(parts) == 1 else parts


def _some_values(shape: Shape, chance: Random) -> dict[str, Any]:
    plain = (TEXT, CHAR, INTEGER, UUID)
    columns = [c for c in shape.others if c.kind in plain and c.rule is None]
    some = chance.sample(columns, min(len(columns), 2))
    return {column.name: chance.choice((None, _some_wire(column, chance))) for column in some}


def _some_wire(column: Column, chance: Random) -> Any:
    value = chance.choice(column.kind.values[:3])
    return str(value) if column.kind is UUID else value
