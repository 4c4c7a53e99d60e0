"""Who has a unique value: the older row. Step 2 of docs/protocol.md.

Rows of a table claim their unique values in the order of their creations. A row that meets a
value which an older one claimed is parked, whichever of the two came first to this device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import peewee

from ..changes import Wire, dumps
from ..clock import Version
from ..journal.journal import chunks
from ..models.tracked import Tracked, TrackedColumn
from ..tables.rows import UNFIT, Work, select_rows
from .atwork import AtWork
from .parents import Park


class Unique(NamedTuple):
    """Columns that are unique together, each with what makes texts equal in it."""

    columns: Sequence[TrackedColumn]
    folds: Sequence[Callable[[Wire], Wire]]

    def claim(self, work: Work, current: Mapping[str, Wire]) -> tuple[str, ...] | None:
        """What a row claims; None if one of the values is NULL, which equals nothing."""
        values = [_value(work, current, column.name) for column in self.columns]
        if None in values:
            return None
        return tuple(dumps(fold(v)) for fold, v in zip(self.folds, values, strict=True))


class Claims:
    """Decides for the rows of one page. Changes works and their states; writes nothing."""

    def __init__(self, database: peewee.Database, at_work: AtWork, park: Park) -> None:
        self._database = database
        self._at_work = at_work
        self._park = park

    def decide(self) -> None:
        """Park the rows whose unique values belong to older ones."""
        for some in list(self._at_work.works.values()):
            if some and (uniques := unique_sets(self._database, some[0].tracked)):
                self._decide(some[0].tracked, uniques, some)

    def _decide(self, tracked: Tracked, uniques: Sequence[Unique], works: Sequence[Work]) -> None:
        concerned = {column for unique in uniques for column in unique.columns}
        columns = [column for column in tracked.every if column in concerned]
        claiming = [
            work for work in works if work.stands and any(work.writes(column) for column in columns)
        ]
        if not claiming:
            return
        values: dict[str, Mapping[str, Wire]] = {work.pk: {} for work in claiming}
        values |= self._at_work.read([work for work in claiming if work.in_table])
        contenders = {work.pk: work for work in claiming}
        for work in claiming:
            if work.in_table:
                work.yields = [column for column in columns if column.name in work.written]
        for unique in uniques:
            rows = self._rivals(tracked, unique, claiming, values)
            for work, current in self._at_work.found(tracked, rows):
                if work.stands and work.in_table and work.pk not in contenders:
                    contenders[work.pk], values[work.pk] = work, current
        taken: dict[tuple[int, tuple[str, ...]], str] = {}
        for work in sorted(contenders.values(), key=_age):
            claims = [
                (number, claim)
                for number, unique in enumerate(uniques)
                if (claim := unique.claim(work, values[work.pk])) is not None
            ]
            clash = next((claim for claim in claims if claim in taken), None)
            if clash is None:
                taken.update(dict.fromkeys(claims, work.pk))
            else:
                names = ", ".join(column.name for column in uniques[clash[0]].columns)
                reason = f"UNIQUE: {names} {', '.join(clash[1])} belongs to {taken[clash]}"
                self._park(work, reason, values[work.pk] if work.in_table else None)

    def _rivals(
        self,
        tracked: Tracked,
        unique: Unique,
        works: Iterable[Work],
        values: Mapping[str, Mapping[str, Wire]],
    ) -> dict[str, dict[str, Wire]]:
        """The rows in the table that have what these rows claim."""
        wanted: dict[str, list[Any]] = {}
        for work in works:
            wires = [_value(work, values[work.pk], column.name) for column in unique.columns]
            try:
                stored = [c.to_parameter(w) for c, w in zip(unique.columns, wires, strict=True)]
            except UNFIT:
                continue  # it cannot stand, and nothing in the table has its value
            if None not in stored:
                wanted[dumps(wires)] = stored
        where = " AND ".join(f"{column.quoted} = {column.marker}" for column in unique.columns)
        found: dict[str, dict[str, Wire]] = {}
        for chunk in chunks(wanted.values(), 200):
            condition = " OR ".join([f"({where})"] * len(chunk))
            parameters = [value for row in chunk for value in row]
            found |= select_rows(self._database, tracked, condition, parameters)
        return found


def _value(work: Work, current: Mapping[str, Wire], name: str) -> Wire:
    if work.in_table and name in work.tracked.by_name and name not in work.written:
        return current.get(name)
    return work.wire(name)


def _age(work: Work) -> tuple[bool, Version, str]:
    return work.state.kept, work.state.age, work.pk


# -- what the database has ---------------------------------------------------------------


def unique_sets(database: peewee.Database, tracked: Tracked) -> list[Unique]:
    """The unique constraints of a table, beside its key, as the database has them.

    Partial ones and ones over expressions are left out: only the database can tell what they
    mean, so what it refuses is parked, whoever came first.
    """
    schema = tracked.model._meta.schema
    listed = tracked.dialect.unique_indexes(database, tracked.collection, schema)
    uniques = [unique for parts in listed if (unique := _unique(tracked, parts)) is not None]
    return [unique for unique in uniques if set(unique.columns) != set(tracked.key)]


def _unique(tracked: Tracked, parts: Sequence[tuple[str | None, str]]) -> Unique | None:
    columns = [tracked.by_column.get(name) for name, _ in parts if name is not None]
    folds = [_FOLDS.get(collation.upper()) for _, collation in parts]
    known = [column for column in columns if column is not None]
    folding = [fold for fold in folds if fold is not None]
    return Unique(known, folding) if len(known) == len(folding) == len(parts) else None


def _same(value: Wire) -> Wire:
    return value


def _without_case(value: Wire) -> Wire:
    """As SQLite's NOCASE has it: the 26 letters only."""
    if type(value) is not str:
        return value
    return "".join(c.lower() if c.isascii() else c for c in value)


def _without_trailing_spaces(value: Wire) -> Wire:
    return value.rstrip(" ") if type(value) is str else value


_FOLDS: Mapping[str, Callable[[Wire], Wire]] = {
    "BINARY": _same,
    "NOCASE": _without_case,
    "RTRIM": _without_trailing_spaces,
}
