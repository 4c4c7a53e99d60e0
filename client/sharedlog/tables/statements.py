"""What a write query says of itself: its rows, its columns, its key; records if it says all.

Nothing here touches the database. `NotCanonical` means: only the table can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import peewee

from ..changes import CREATE, DELETE, MODIFY, Wire, dumps
from ..journal.journal import FINALLY_DELETED, OPERATION_CODES, Record
from ..models.columns import Converted, TrackedColumn
from ..models.tracked import Tracked
from ..raw import NotCanonical, carried, tag
from ..values.fields import check_text

Values = dict[str, Wire]
"""The columns of a row beside its key, by field name."""


class Said(NamedTuple):
    """A query that says all it does: what is to be run, and what is to be recorded."""

    query: Any
    records: list[Record]


def code_of(tracked: Tracked, operation: str) -> int:
    """The number of an operation on a tracked table."""
    final = operation == DELETE and tracked.final
    return FINALLY_DELETED if final else OPERATION_CODES[operation]


def record(tracked: Tracked, operation: str, pk: str, values: Mapping[str, Wire] | None) -> Record:
    code = code_of(tracked, operation)
    if tracked.dialect.typed or (values is not None and operation != DELETE):
        tracked.check_key(pk)
    if values is None or (operation == DELETE and not tracked.buries):
        return Record(tracked.collection, pk, code, None)
    if operation == DELETE:
        return Record(tracked.collection, pk, code, dumps(carried(values)))
    rules = tracked.rules_json(values, created=operation == CREATE) if tracked.rules else None
    return Record(tracked.collection, pk, code, tracked.value_json(values), rules)


# -- updates and deletions ---------------------------------------------------------------


def updated(tracked: Tracked, query: Any) -> Said | None:
    """The record of an update of one row by its key with plain values; else None. What a write
    does to a field with a rule is told by what stood there."""
    if query._from:
        return None
    pk = _one_row(tracked, query)
    if pk is None:
        return None
    values: Values = {}
    sets: dict[Any, Any] = {}
    for key, value in query._update.items():
        column = column_of(tracked, key)
        if column is None or column.name not in tracked.by_name or column.name in tracked.rules:
            return None
        if column.codec.own:
            value = column.converted(value)
        sets[key] = value
        values[column.name] = wire = column.exact_wire(value)
        if tracked.is_told_by_table(column, wire):
            return None
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
        if wire is None or tracked.is_told_by_table(column, wire):
            return None
        pk.append(wire)
    return pk[0] if len(pk) == 1 else pk


class Sets(NamedTuple):
    """What an update sets: names of fields, and whether the key is among them."""

    names: list[str]
    moves: bool


def set_by(tracked: Tracked, query: Any) -> Sets:
    """What an update sets; or an insert, in a row that is in its way."""
    conflict = getattr(query, "_on_conflict", None)
    keys = [*(getattr(query, "_update", None) or ())]
    if conflict is not None:
        keys += [*(conflict._preserve or ()), *(conflict._update or ())]
    columns = [column_of(tracked, key) for key in keys]
    return Sets(
        [c.name for c in columns if c is not None and c.name in tracked.by_name],
        any(c is not None and c.name not in tracked.by_name for c in columns),
    )


def action_of(query: Any) -> str:
    """What an insert does where a row is in its way, as Peewee calls it; "" if that is an error."""
    conflict = getattr(query, "_on_conflict", None)
    return "" if conflict is None else (conflict._action or "update").lower()


def is_cut(query: Any) -> bool:
    """Whether an update or deletion touches only some of the rows that it speaks of (LIMIT): which
    ones, the database decides, and SQLite does not answer with them."""
    return not isinstance(query, peewee.Insert) and (
        query._limit is not None or query._offset is not None or bool(query._order_by)
    )


def same_rows(tracked: Tracked, query: Any) -> Any:
    """A select of the rows that an update or deletion is about to touch, or of more, if it
    `is_cut`."""
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


def field_of(tracked: Tracked, key: Any) -> peewee.Field:
    if isinstance(key, peewee.Field) and key.model is tracked.model:
        return key
    column = column_of(tracked, key)
    if column is None:
        raise NotCanonical
    field: peewee.Field = column.field
    return field


def check_constants(
    tracked: Tracked, query: Any, given: Iterable[tuple[peewee.Field, Any]] = ()
) -> None:
    """Refuse what cannot be carried before it is written, also where the table will be read:
    it would make something else of it. `given` are the values of an insert's rows."""
    pairs: list[tuple[Any, Any]] = list(given)
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
