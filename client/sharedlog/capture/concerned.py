"""Which rows a statement may change, for databases that do not say which ones it changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import peewee

from ..models.tracked import Tracked
from ..tables.inserts import Rows
from ..tables.rows import all_rows, as_wires, read_rows
from ..tables.statements import action_of, is_cut, same_rows, set_by
from .comparing import Found
from .rivals import offered_keys, rivals_of


class Concerned(NamedTuple):
    """The rows that a statement may change or displace, as they are before it.

    Attributes:
        written: The pks of rows that it writes, as far as that is known; None if only the whole
            table can tell.
        names: The fields that it sets in rows that stand.
        moves, deletes: Whether it may change what others refer to, or take away rows.
    """

    rows: Found
    written: Collection[str] | None
    names: Collection[str]
    moves: bool = False
    deletes: bool = False


def concerned_by(
    database: peewee.Database, tracked: Tracked, query: Any, found: Rows | None
) -> Concerned:
    """What a write query is about to do; `found` are the rows that an insert offers."""
    if isinstance(query, peewee.Insert):
        return _by_insert(database, tracked, query, found)
    sets = set_by(tracked, query)
    if sets.moves:
        return _anything(database, tracked)
    rows = as_wires(tracked, tracked.dialect.rows(database.execute(same_rows(tracked, query))))
    is_update = isinstance(query, peewee.Update)
    written = () if is_cut(query) else rows
    return Concerned(rows, written, sets.names, moves=is_update, deletes=not is_update)


def _by_insert(
    database: peewee.Database, tracked: Tracked, query: Any, found: Rows | None
) -> Concerned:
    offered = offered_keys(tracked, query, found)
    if offered is None:
        return _anything(database, tracked)
    action = action_of(query)
    if action not in ("replace", "update"):
        keys = [tracked.key_parameters(pk) for pk in offered.values()]
        return Concerned(read_rows(database, tracked, keys), offered, ())
    sets = set_by(tracked, query)
    rivals = rivals_of(database, tracked, query, found)
    if rivals is None or sets.moves:
        return _anything(database, tracked)
    replaces = action == "replace"
    names = tracked.names if replaces else sets.names
    return Concerned(rivals, {*offered, *rivals}, names, moves=True, deletes=replaces)


def _anything(database: peewee.Database, tracked: Tracked) -> Concerned:
    return Concerned(all_rows(database, tracked), None, tracked.names, moves=True, deletes=True)
