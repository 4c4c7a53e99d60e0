"""What a write query says of itself: its rows, its columns, its key; records if it says all.

Nothing here touches the database. `NotCanonical` means: only the table can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import peewee

from .changes import CREATE, DELETE, MODIFY, Wire
from .errors import AutoIncrementKey
from .fields import check_text
from .journal import OPERATION_CODES, Record
from .raw import NotCanonical, tag
from .tracked import Converted, Tracked, TrackedColumn

Values = dict[str, Wire]
"""The columns of a row beside its key, by field name."""


class Said(NamedTuple):
    """A query that says all it does: what is to be run, and what is to be recorded."""

    query: Any
    records: list[Record]


class Rows(NamedTuple):
    """What an insert is about to insert: its fields, and for each row their values."""

    fields: list[peewee.Field]
    rows: list[list[Any]]


def record(tracked: Tracked, operation: str, pk: str, values: Mapping[str, Wire] | None) -> Record:
    text = None if values is None else tracked.value_json(values)
    return Record(tracked.collection, pk, OPERATION_CODES[operation], text)


# -- inserts -----------------------------------------------------------------------------


def in_hand(tracked: Tracked, query: Any) -> tuple[Any, Rows | None]:
    """The query with its rows in a list, and these rows: they are looked at before they are
    written, and a generator can be read, a default be called, only once. None if the rows come
    from a select, or if their columns are none of the model's."""
    rows = query._insert
    if query._query_type == peewee.Insert.QUERY:
        return query, None
    if query._query_type == peewee.Insert.MULTI and not isinstance(rows, list | tuple):
        query = query.clone()
        query._insert = list(rows)
    try:
        found = _rows_of(tracked, query)
    except NotCanonical:
        return query, None
    if query.table is tracked.model and found.rows:
        simple = query._query_type == peewee.Insert.SIMPLE
        if tracked.own:
            _convert_own(tracked, found)
        elif simple and len(found.fields) == len(query._insert):
            return query, found
        query = query.clone()
        query._columns, query._insert = found
    return query, found


def _convert_own(tracked: Tracked, found: Rows) -> None:
    place = {field: index for index, field in enumerate(found.fields)}
    for column in tracked.own:
        index = place.get(column.field)
        if index is not None:
            for row in found.rows:
                row[index] = column.converted(row[index])


def inserted(
    tracked: Tracked, query: Any, found: Rows | None, defaults: Callable[[Tracked], frozenset[str]]
) -> Said | None:
    """The records of a plain insert with these rows.

    `defaults` tells which columns have a default of the database's own.
    """
    if found is None or query._on_conflict is not None:
        return None
    if not found.rows:
        return Said(query, [])
    place = {field: index for index, field in enumerate(found.fields)}
    if any(column.field not in place for column in tracked.key):
        return None
    missing = [column.name for column in tracked.columns if column.field not in place]
    if missing and not defaults(tracked).isdisjoint(missing):
        return None
    return Said(query, _created(tracked, place, found.rows))


def _created(
    tracked: Tracked, place: Mapping[peewee.Field, int], rows: Sequence[Sequence[Any]]
) -> list[Record]:
    keys = [(column, place[column.field]) for column in tracked.key]
    given = [(c.name, c, place[c.field]) for c in tracked.columns if c.field in place]
    blank: Values = dict.fromkeys(tracked.by_name)
    records = []
    for row in rows:
        pk = [column.exact_wire(row[index]) for column, index in keys]
        if None in pk:
            raise NotCanonical
        values = blank.copy()
        for name, column, index in given:
            value = row[index]
            values[name] = (
                value if value is None or type(value) is column.plain else column.exact_wire(value)
            )
        text = tracked.pk_json(pk[0] if len(pk) == 1 else pk)
        records.append(Record(tracked.collection, text, _CREATE, tracked.value_json(values)))
    return records


_CREATE = OPERATION_CODES[CREATE]


def _rows_of(tracked: Tracked, query: Any) -> Rows:
    """An insert's rows with the model's defaults: what Peewee would write."""
    defaults = tracked.model._meta.defaults if query.table is tracked.model else {}
    if query._query_type == peewee.Insert.SIMPLE:
        row = {_field_of(tracked, key): value for key, value in query._insert.items()}
        for field, default in defaults.items():
            if field not in row:
                row[field] = default() if callable(default) else default
        return Rows(list(row), [list(row.values())])
    source = query._insert
    if not source:
        return Rows([], [])
    columns = query._columns or (
        list(source[0]) if isinstance(source[0], Mapping) else query.get_default_columns()
    )
    fields = dict.fromkeys(_field_of(tracked, column) for column in columns or ())
    fields |= dict.fromkeys(defaults)
    lookups = [(field, _lookups(field, defaults)) for field in fields]
    return Rows(list(fields), [_row_of(lookups, row) for row in source])


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


def _row_of(lookups: Sequence[tuple[Any, Any]], row: Any) -> list[Any]:
    values = []
    if isinstance(row, Mapping):
        for _, (keys, missing) in lookups:
            for key in keys:
                try:
                    values.append(row[key])
                    break
                except KeyError:
                    pass
            else:
                values.append(missing())
        return values
    for index, (_, (_, missing)) in enumerate(lookups):
        try:
            values.append(row[index])
        except IndexError:
            values.append(missing())
    return values


def check_key(tracked: Tracked, found: Rows | None) -> None:
    """Refuse to let SQLite number the rows of an integer key that the application left out."""
    column = tracked.key[0]
    if (
        found is None
        or len(tracked.key) > 1
        or not isinstance(column.field, peewee.IntegerField)
        or column.field.constraints
    ):
        return
    place = {field: index for index, field in enumerate(found.fields)}
    index = place.get(column.field)
    if index is None or any(row[index] is None for row in found.rows):
        raise AutoIncrementKey(
            f"{column} has no value: SQLite would number the row itself, and two devices give "
            "the same number to different rows.",
            hint=f"Give each row a key of its own, or remove {column.name!r} from "
            f"{tracked.model.__name__} (SyncModel brings a UUID key).",
        )


# -- updates and deletions ---------------------------------------------------------------


def updated(tracked: Tracked, query: Any) -> Said | None:
    """The record of an update of one row by its key with plain values; else None."""
    if query._from:
        return None
    pk = _one_row(tracked, query)
    if pk is None:
        return None
    values: Values = {}
    sets: dict[Any, Any] = {}
    for key, value in query._update.items():
        column = column_of(tracked, key)
        if column is None or column.name not in tracked.by_name:
            return None
        if column.codec.own:
            value = column.converted(value)
        sets[key] = value
        values[column.name] = column.exact_wire(value)
    if tracked.own:
        query = query.clone()
        query._update = sets
    return Said(query, [record(tracked, MODIFY, tracked.pk_json(pk), values)])


def deleted(tracked: Tracked, query: Any) -> Said | None:
    """The record of a deletion of one row by its key; else None."""
    pk = _one_row(tracked, query)
    return None if pk is None else Said(query, [record(tracked, DELETE, tracked.pk_json(pk), None)])


def _one_row(tracked: Tracked, query: Any) -> Wire | None:
    """The pk if the query is for just the row with that key."""
    if (
        query._returning
        or query._cte_list
        or query._order_by
        or query._limit is not None
        or query._offset is not None
        or not tracked.exact_key
    ):
        return None
    found: dict[Any, Any] = {}
    stack = [query._where]
    while stack:
        node = stack.pop()
        if type(node) is not peewee.Expression:
            return None
        if node.op == peewee.OP.AND:
            stack += [node.lhs, node.rhs]
        elif (
            node.op == peewee.OP.EQ and isinstance(node.lhs, peewee.Field) and node.lhs not in found
        ):
            found[node.lhs] = node.rhs
        else:
            return None
    if len(found) != len(tracked.key):
        return None
    pk = []
    for column in tracked.key:
        wire = column.exact_wire(found.get(column.field))
        if wire is None:
            return None
        pk.append(wire)
    return pk[0] if len(pk) == 1 else pk


class Sets(NamedTuple):
    """What an update sets: names of fields, and whether the key is among them."""

    names: list[str]
    moves: bool


def sets_of(tracked: Tracked, keys: Iterable[Any]) -> Sets:
    columns = [column_of(tracked, key) for key in keys]
    return Sets(
        [c.name for c in columns if c is not None and c.name in tracked.by_name],
        any(c is not None and c.name not in tracked.by_name for c in columns),
    )


def same_rows(tracked: Tracked, query: Any) -> Any:
    """A select of the rows that an update or deletion is about to touch."""
    target, others = query.table, getattr(query, "_from", None) or ()
    table = target if isinstance(target, peewee.Table) else target._meta.table
    columns = [peewee.Column(table, column.field.column_name) for column in tracked.every]
    select: Any
    if target is table:
        select = peewee.Select([target, *others], columns)
    else:
        select = target.select(*columns)
        if others:
            select = select.from_(target, *others)
    select._cte_list, select._where = query._cte_list, query._where
    select._order_by, select._limit, select._offset = query._order_by, query._limit, query._offset
    return select


# -- names and constants -----------------------------------------------------------------


def column_of(tracked: Tracked, key: Any) -> TrackedColumn | None:
    """The column that a field, a plain column or a name stands for, as Peewee takes them."""
    if isinstance(key, peewee.Field):
        column = tracked.by_field.get(key)
        return tracked.by_column.get(key.column_name) if column is None else column
    if isinstance(key, str):
        field = tracked.model._meta.combined.get(key)
        return tracked.by_field.get(field)
    return tracked.by_column.get(getattr(key, "name", None))


def _field_of(tracked: Tracked, key: Any) -> peewee.Field:
    if isinstance(key, peewee.Field) and key.model is tracked.model:
        return key
    column = column_of(tracked, key)
    if column is None:
        raise NotCanonical
    field: peewee.Field = column.field
    return field


def check_constants(tracked: Tracked, query: Any, found: Rows | None = None) -> None:
    """Refuse what cannot be carried before it is written, also where the table will be read:
    it would make something else of it."""
    pairs: list[tuple[Any, Any]] = []
    if found is not None:
        pairs += [pair for row in found.rows for pair in zip(found.fields, row, strict=True)]
    conflict = getattr(query, "_on_conflict", None)
    pairs += ((conflict and conflict._update) or {}).items()
    pairs += (getattr(query, "_update", None) or {}).items()
    for key, value in pairs:
        column = column_of(tracked, key)
        if column is not None:
            for constant in _within(value):
                _check(tracked, query, column, constant)


def _check(tracked: Tracked, query: Any, column: TrackedColumn, value: Any) -> None:
    try:
        if query.table is not tracked.model:
            wire = tag(value)
        else:
            wire = column.exact_wire(column.converted(value) if column.codec.own else value)
    except NotCanonical:
        return
    check_text(wire, str(column))


def _within(value: Any) -> Iterator[Any]:
    if isinstance(value, peewee.Case):  # bulk_update
        for _, item in value.expression_tuples:
            yield from _within(item)
    elif isinstance(value, peewee.Value) and not isinstance(value, Converted):
        if not value.multi:
            yield value.value
    elif isinstance(value, Converted | peewee.Model) or not isinstance(value, peewee.Node):
        yield value
