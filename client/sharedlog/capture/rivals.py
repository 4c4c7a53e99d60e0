"""Which rows stand in the way of an insert: those that an upsert updates or a REPLACE displaces."""

from __future__ import annotations

from typing import Any

import peewee

from ..changes import Wire
from ..dialects.base import PLAIN
from ..models.columns import TrackedColumn
from ..models.tracked import Tracked
from ..raw import NotCanonical, is_escape
from ..tables.inserts import Rows
from ..tables.statements import Values, column_of
from ..tables.uniques import Unique, rows_with, unique_sets


def offered_keys(tracked: Tracked, query: Any, found: Rows | None) -> dict[str, Wire] | None:
    """The keys of the rows that an insert offers, by their JSON; None if only the table knows."""
    if found is None:
        return None
    place = found.shape.place
    if any(column.field not in place for column in tracked.key):
        return None
    keys = [(column, place[column.field]) for column in tracked.key]
    offered = {}
    for row in found.rows:
        wires = [_certain_wire(tracked, query, column, row[index]) for column, index in keys]
        if None in wires:
            return None
        pk = wires[0] if len(wires) == 1 else wires
        offered[tracked.pk_json(pk)] = pk
    return offered


def _certain_wire(tracked: Tracked, query: Any, column: TrackedColumn, value: Any) -> Wire:
    """What will stand in the key; None if that is not certain."""
    try:
        stored = _stored(tracked, query, column, value)
        wire = column.wire_of_stored(stored)
    except NotCanonical:
        return None
    return None if is_escape(wire) else wire


def _stored(tracked: Tracked, query: Any, column: TrackedColumn, value: Any) -> Any:
    """What is given to the database for a value; NotCanonical for an expression."""
    if query.table is tracked.model:
        try:
            return column.to_parameter(column.exact_wire(value))
        except NotCanonical:
            value = column.converted(value)
            if isinstance(value, peewee.Value) and not value.multi:
                value = value.value
    if isinstance(value, peewee.Node):
        raise NotCanonical
    return value


def rivals_of(
    database: peewee.Database, tracked: Tracked, query: Any, found: Rows | None
) -> dict[str, Values] | None:
    """The rows that share the key or another unique value with a row that an insert offers;
    None if that cannot be told without looking at all of them."""
    key = Unique(tracked.key, [PLAIN] * len(tracked.key))
    uniques = [key, *unique_sets(database, tracked, committed=False)]
    if found is None or any(unique.others for unique in uniques):
        return None
    place = {column_of(tracked, field): index for index, field in enumerate(found.shape.fields)}
    if any(column not in place for unique in uniques for column in unique.columns):
        return None  # the database fills in what it likes
    rivals: dict[str, Values] = {}
    for unique in uniques:
        places = [(column, place[column]) for column in unique.columns]
        try:
            offered = [
                [_stored(tracked, query, c, row[i]) for c, i in places] for row in found.rows
            ]
        except NotCanonical:
            return None
        rivals |= rows_with(database, tracked, unique, offered)
    return rivals
