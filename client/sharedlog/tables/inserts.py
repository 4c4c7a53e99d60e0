"""The rows of an insert before they are written: what Peewee would write, and their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import peewee

from ..changes import CREATE
from ..errors import AutoIncrementKey
from ..journal.journal import OPERATION_CODES, Record
from ..models.columns import Converted, TrackedColumn
from ..models.tracked import Tracked
from ..raw import NotCanonical
from .statements import Said, Values, field_of

_CREATE = OPERATION_CODES[CREATE]

SHORT_KEY = 64
"""Characters of a key, as JSON, that fit anywhere: most are not worth a closer look."""


class Shape:
    """The fields of rows, in order, and where the columns of a table find their values."""

    __slots__ = ("blank", "doubted", "fields", "given", "key", "missing", "own", "place", "texts")

    def __init__(self, tracked: Tracked, fields: Sequence[peewee.Field]) -> None:
        self.fields = fields
        self.texts: tuple[str, str] | None = None
        """The insert of one such row, as Peewee wrote it once, and what each further row adds."""
        self.place = place = {field: index for index, field in enumerate(fields)}
        self.key = [(column.exact_wire, place.get(column.field)) for column in tracked.key]
        self.given = [
            (column.name, column.plain, column.exact_wire, place[column.field])
            for column in tracked.columns
            if column.field in place
        ]
        self.own = [
            (column.converted, place[column.field])
            for column in tracked.own
            if column.field in place
        ]
        self.doubted = [
            (column, place[column.field]) for column in tracked.doubted if column.field in place
        ]
        self.blank: Values = dict.fromkeys(tracked.by_name)
        self.missing = [c.name for c in tracked.columns if c.field not in place]


class Rows(NamedTuple):
    """What an insert is about to insert."""

    shape: Shape
    rows: Sequence[list[Any]]

    def values(self) -> Iterator[tuple[peewee.Field, Any]]:
        for row in self.rows:
            yield from zip(self.shape.fields, row, strict=True)


def in_hand(tracked: Tracked, query: Any) -> tuple[Any, Rows | None]:
    """The query with its rows in a list, and these rows: they are looked at before they are
    written, and a generator can be read, a default be called, only once. None if the rows come
    from a select, or if their columns are none of the model's."""
    kind = query._query_type
    if kind == peewee.Insert.QUERY:
        return query, None
    if kind == peewee.Insert.MULTI and not isinstance(query._insert, list | tuple):
        query = query.clone()
        query._insert = list(query._insert)
    try:
        if kind == peewee.Insert.SIMPLE:
            found = Rows(*_one_row(tracked, query))
        else:
            found = _many_rows(tracked, query)
    except NotCanonical:
        return query, None
    shape, rows = found
    if query.table is tracked.model and rows:
        for convert, index in shape.own:
            for row in rows:
                with suppress(NotCanonical):  # what the driver makes of it, the table tells
                    row[index] = convert(row[index])
        if shape.own or kind != peewee.Insert.SIMPLE or len(shape.fields) != len(query._insert):
            query = query.clone()
            query._columns, query._insert = shape.fields, rows
    return query, found


def _one_row(tracked: Tracked, query: Any) -> tuple[Shape, list[list[Any]]]:
    """The row of a plain insert. That is what `create()` does, so it is made fast: instances
    name the same fields each time."""
    insert = query._insert
    same = query.table, *map(id, insert)
    known = tracked.shapes.get(same)
    if known is None:
        fields = {field_of(tracked, key): None for key in insert}
        lacking = {f: d for f, d in _defaults(tracked, query).items() if f not in fields}
        shape = Shape(tracked, [*fields, *lacking])
        known = list(insert), shape, list(lacking.values())
        if all(isinstance(key, peewee.Field) for key in insert):  # which live as long as we do
            tracked.shapes[same] = known
    _, shape, defaults = known
    row = list(insert.values())
    if defaults:
        row += [default() if callable(default) else default for default in defaults]
    return shape, [row]


def _many_rows(tracked: Tracked, query: Any) -> Rows:
    source = query._insert
    if not source:
        return Rows(Shape(tracked, ()), [])
    columns = query._columns or (
        list(source[0]) if isinstance(source[0], Mapping) else query.get_default_columns()
    )
    defaults = _defaults(tracked, query)
    fields = dict.fromkeys(field_of(tracked, column) for column in columns or ())
    fields |= dict.fromkeys(defaults)
    lookups = [_lookups(field, defaults) for field in fields]
    same = tuple(map(id, fields))
    shape = tracked.shapes.get(same)
    if shape is None:
        shape = tracked.shapes[same] = Shape(tracked, list(fields))
    return Rows(shape, [_row_of(lookups, row) for row in source])


def _defaults(tracked: Tracked, query: Any) -> Mapping[peewee.Field, Any]:
    found: Mapping[peewee.Field, Any] = tracked.model._meta.defaults
    return found if query.table is tracked.model else {}


def _lookups(field: peewee.Field, defaults: Mapping[Any, Any]) -> tuple[Any, Callable[[], Any]]:
    """The keys by which a row may name the field, and what stands where it does not."""

    def missing() -> Any:
        if field in defaults:
            default = defaults[field]
            return default() if callable(default) else default
        if field.null:
            return None
        raise ValueError(f"Missing value for {field.name}.")

    return (field, *dict.fromkeys((field.name, field.column_name))), missing


def _row_of(lookups: Sequence[tuple[Any, Callable[[], Any]]], row: Any) -> list[Any]:
    values = []
    if isinstance(row, Mapping):
        for keys, missing in lookups:
            for key in keys:
                try:
                    values.append(row[key])
                    break
                except KeyError:
                    pass
            else:
                values.append(missing())
        return values
    for index, (_, missing) in enumerate(lookups):
        try:
            values.append(row[index])
        except IndexError:
            values.append(missing())
    return values


def check_key(tracked: Tracked, found: Rows | None) -> None:
    """Refuse to let SQLite number the rows of an integer key that the application left out."""
    column = tracked.numbered
    if column is None or found is None or not found.rows:
        return
    index = found.shape.place.get(column.field)
    if index is None or any(row[index] is None for row in found.rows):
        raise AutoIncrementKey(
            f"{column} has no value: SQLite would number the row itself, and two devices give "
            "the same number to different rows.",
            hint=f"Give each row a key of its own, or remove {column.name!r} from "
            f"{tracked.model.__name__} (SyncModel brings a UUID key).",
        )


def inserted(
    tracked: Tracked, query: Any, found: Rows | None, defaults: Callable[[Tracked], frozenset[str]]
) -> Said | None:
    """The records of a plain insert with these rows.

    `defaults` tells which columns have a default of the database's own.
    """
    if found is None or query._on_conflict is not None:
        return None
    shape, rows = found
    if not rows:
        return Said(query, [])
    if not all(_stands(c, row[place]) for c, place in shape.doubted for row in rows):
        return None
    if shape.missing and not defaults(tracked).isdisjoint(shape.missing):
        return None
    return Said(query, [_created(tracked, shape, row) for row in rows])


def _stands(column: TrackedColumn, value: Any) -> bool:
    """Whether this will be in the column just as it is given."""
    return value is None or (type(value) is Converted and column.keeps(value.wire))


def prepared(database: peewee.Database, query: Any, found: Rows) -> tuple[str, list[Any]] | None:
    """The text and the parameters of a plain insert; None if only Peewee can tell.

    The text is the same for all rows of a shape, and to write it is most of what an insert costs
    Peewee. So it is asked once, and believed only if its parameters are those expected here.
    """
    shape, rows = found
    if query._returning or query._cte_list:
        return None
    fields = shape.fields if query._columns else sorted(shape.fields, key=_sort_key)
    columns = [(field, shape.place[field]) for field in fields]
    parameters = [_parameter(field, row[place]) for row in rows for field, place in columns]
    if any(isinstance(parameter, peewee.Node) for parameter in parameters):
        return None
    if shape.texts is None:
        shape.texts = _texts(database, query, parameters[: len(columns)])
        if shape.texts is None:
            return None
    first, further = shape.texts
    return first + further * (len(rows) - 1), parameters


def _texts(
    database: peewee.Database, query: Any, parameters: Sequence[Any]
) -> tuple[str, str] | None:
    """What Peewee writes for the first row, and adds for a second one; None if not as expected."""
    one, two = query, None
    if query._query_type == peewee.Insert.MULTI:
        one, two = query.clone(), query.clone()
        one._insert, two._insert = query._insert[:1], query._insert[:1] * 2
    first, asked = database.get_sql_context().sql(one).query()
    if list(map(_typed, asked)) != list(map(_typed, parameters)):
        return None
    if two is None:
        return first, ""
    both, asked = database.get_sql_context().sql(two).query()
    further = both.removeprefix(first)
    if list(map(_typed, asked)) != list(map(_typed, [*parameters, *parameters])):
        return None
    return (first, further) if first + further == both else None


def _sort_key(field: Any) -> Any:
    return field._sort_key


def _typed(parameter: Any) -> tuple[type, Any]:
    return type(parameter), parameter


def _parameter(field: Any, value: Any) -> Any:
    """What Peewee gives the driver for a value; an expression stays what it is."""
    if isinstance(value, Converted):
        return value.value
    if isinstance(value, peewee.Node) and not isinstance(value, peewee.Model):
        return value
    return field.db_value(value)


def _created(tracked: Tracked, shape: Shape, row: Sequence[Any]) -> Record:
    pk = []
    for exact_wire, place in shape.key:
        wire = None if place is None else exact_wire(row[place])
        if wire is None:
            raise NotCanonical  # the database makes it
        pk.append(wire)
    values = shape.blank.copy()
    for name, plain, exact_wire, index in shape.given:
        value = row[index]
        if value is not None:
            values[name] = value if type(value) is plain else exact_wire(value)
    key = tracked.pk_json(pk[0] if len(pk) == 1 else pk)
    if len(key) > SHORT_KEY:
        tracked.check_key(key)
    rules = tracked.rules_json(values, created=True) if tracked.rules else None
    return Record(tracked.collection, key, _CREATE, tracked.value_json(values), rules)
