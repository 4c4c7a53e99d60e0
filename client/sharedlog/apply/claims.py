"""Who has a unique value: the older row. Step 2 of docs/protocol.md.

Rows of a table claim their unique values in the order of their creations. A row that meets a
value which an older one claimed is parked, whichever of the two came first to this device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import peewee

from ..changes import Wire, dumps
from ..clock import Version
from ..journal.journal import chunks
from ..models.tracked import Tracked
from ..tables.collations import Collation, Collations
from ..tables.rows import UNFIT, Work, select_rows
from ..tables.uniques import Unique, unique_sets
from .atwork import AtWork
from .parents import Park


class Claims:
    """Decides for the rows of one page. Changes works and their states; writes nothing."""

    def __init__(
        self, database: peewee.Database, collations: Collations, at_work: AtWork, park: Park
    ) -> None:
        self._database = database
        self._collations = collations
        self._at_work = at_work
        self._park = park

    def decide(self) -> None:
        """Park the rows whose unique values belong to older ones."""
        for some in list(self._at_work.works.values()):
            if some:
                tracked = some[0].tracked
                found = unique_sets(self._database, tracked, committed=True)
                if uniques := [unique for unique in found if self._is_decidable(unique, tracked)]:
                    self._decide(tracked, uniques, some)

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
        compared = [self._compared(unique, contenders.values(), values) for unique in uniques]
        taken: dict[tuple[int, tuple[str, ...]], str] = {}
        for work in sorted(contenders.values(), key=_age):
            claims = [
                (number, claim)
                for number, unique in enumerate(uniques)
                if (claim := _claim(unique, compared[number], work, values[work.pk])) is not None
            ]
            clash = next((claim for claim in claims if claim in taken), None)
            if clash is None:
                taken.update(dict.fromkeys(claims, work.pk))
            else:
                names = ", ".join(column.name for column in uniques[clash[0]].columns)
                reason = f"UNIQUE: {names} {', '.join(clash[1])} belongs to {taken[clash]}"
                self._park(work, reason, values[work.pk] if work.in_table else None)

    def _is_decidable(self, unique: Unique, tracked: Tracked) -> bool:
        """Whether rows can claim it here. What partial indexes and those over expressions mean,
        only the database can tell, so what it refuses is parked, whoever came first."""
        if unique.others or unique.partial:
            return False
        if set(unique.columns) == set(tracked.key) and not unique.folds:
            return False  # rows with one key are one row
        return all(map(self._collations.knows, unique.collations))

    def _compared(
        self, unique: Unique, works: Iterable[Work], values: Mapping[str, Mapping[str, Wire]]
    ) -> Sequence[Collation]:
        """By what the values of these rows are compared."""
        compared = []
        for column, name in zip(unique.columns, unique.collations, strict=True):
            compared.append(self._collations.named(name, column.codec))
            if compared[-1].asks:
                compared[-1].learn([_value(work, values[work.pk], column.name) for work in works])
        return compared

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
        found: dict[str, dict[str, Wire]] = {}
        for chunk in chunks(wanted.values(), 200):
            condition = " OR ".join([unique.condition] * len(chunk))
            parameters = [value for row in chunk for value in row]
            found |= select_rows(self._database, tracked, condition, parameters)
        return found


def _value(work: Work, current: Mapping[str, Wire], name: str) -> Wire:
    if work.in_table and name in work.tracked.by_name and name not in work.written:
        return current.get(name)
    return work.wire(name)


def _age(work: Work) -> tuple[bool, Version, str]:
    return work.state.kept, work.state.age, work.pk


def _claim(
    unique: Unique, compared: Sequence[Collation], work: Work, current: Mapping[str, Wire]
) -> tuple[str, ...] | None:
    """What a row claims; None if one of the values is NULL, which equals nothing."""
    values = [_value(work, current, column.name) for column in unique.columns]
    if None in values:
        return None
    return tuple(c.text(value) for c, value in zip(compared, values, strict=True))
