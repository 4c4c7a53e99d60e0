"""Who has a unique value: the older row. Step 2 of docs/protocol.md.

Rows of a table claim their unique values in the order of their creations. A row that meets a
value which an older one claimed is parked, whichever of the two came first to this device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import peewee

from ..changes import Wire, dumps
from ..clock import Version
from ..models.tracked import Tracked
from ..raw import one_number
from ..tables.collations import Collations
from ..tables.expressed import Claim, Expressed
from ..tables.rows import UNFIT, UNTAKEN, Work
from ..tables.uniques import Unique, expressed_sets, rows_with, unique_sets
from .atwork import AtWork
from .parents import Park

Attempt = Callable[[], AbstractContextManager[None]]
"""A savepoint."""


class Claims:
    """Decides for the rows of one page. Changes works and their states; writes nothing."""

    def __init__(
        self,
        database: peewee.Database,
        collations: Collations,
        at_work: AtWork,
        attempt: Attempt,
        park: Park,
    ) -> None:
        self._database = database
        self._collations = collations
        self._at_work = at_work
        self._attempt = attempt
        self._park = park

    def decide(self) -> None:
        """Park the rows whose unique values belong to older ones."""
        for some in list(self._at_work.works.values()):
            if some:
                tracked = some[0].tracked
                found = unique_sets(self._database, tracked, committed=True)
                uniques = [unique for unique in found if self._is_decidable(unique, tracked)]
                expressed = expressed_sets(self._database, tracked, found)
                if uniques or expressed:
                    self._decide(tracked, uniques, expressed, some)

    def _decide(
        self,
        tracked: Tracked,
        uniques: Sequence[Unique],
        expressed: Sequence[Expressed],
        works: Sequence[Work],
    ) -> None:
        concerned = {column for unique in uniques for column in unique.columns}
        concerned |= {column for index in expressed for column in index.columns}
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
        asked = [self._claims_by(index, claiming, values) for index in expressed]
        rivals = [self._rivals(tracked, unique, claiming, values) for unique in uniques]
        rivals += [i.rivals(found.values()) for i, found in zip(expressed, asked, strict=True)]
        for rows in rivals:
            for work, current in self._at_work.found(tracked, rows):
                if work.stands and work.in_table and work.pk not in contenders:
                    contenders[work.pk], values[work.pk] = work, current
        some = list(contenders.values())
        said = [(_names(unique), self._claims(unique, some, values)) for unique in uniques]
        for index, found in zip(expressed, asked, strict=True):
            found |= self._claims_by(index, some[len(claiming) :], values)
            said.append((index.names, found))
        self._take(sorted(some, key=_age), values, said)

    def _take(
        self,
        works: Iterable[Work],
        values: Mapping[str, Mapping[str, Wire]],
        said: Sequence[tuple[str, Mapping[str, Claim]]],
    ) -> None:
        """Let rows, one after the other, have what they claim: of each unique set, its name and
        the claims by pk."""
        taken: dict[tuple[int, Claim], str] = {}
        for work in works:
            claims = [
                (number, found[work.pk])
                for number, (_, found) in enumerate(said)
                if work.pk in found
            ]
            clash = next((claim for claim in claims if claim in taken), None)
            if clash is None:
                taken.update(dict.fromkeys(claims, work.pk))
            else:
                names, claimed = said[clash[0]][0], ", ".join(map(_text, clash[1]))
                reason = f"UNIQUE: {names} {claimed} belongs to {taken[clash]}"
                self._park(work, reason, values[work.pk] if work.in_table else None)

    def _is_decidable(self, unique: Unique, tracked: Tracked) -> bool:
        """Whether rows can claim it here; see `Expressed` for what only the database can tell."""
        if unique.others or unique.partial:
            return False
        if set(unique.columns) == set(tracked.key) and not unique.folds:
            return False  # rows with one key are one row
        return all(map(self._collations.knows, unique.collations))

    def _claims(
        self, unique: Unique, works: Iterable[Work], values: Mapping[str, Mapping[str, Wire]]
    ) -> dict[str, Claim]:
        """What rows claim, by pk."""
        wires = {
            work.pk: [_value(work, values[work.pk], column.name) for column in unique.columns]
            for work in works
        }
        for place, column in enumerate(unique.columns):
            if column.mixes_numbers:
                for said in wires.values():
                    said[place] = one_number(said[place])
        compared = []
        for place, (column, name) in enumerate(zip(unique.columns, unique.collations, strict=True)):
            compared.append(self._collations.named(name, column.codec))
            if compared[-1].asks:
                compared[-1].learn([said[place] for said in wires.values()])
        # As texts: Python takes True and 1 for equal.
        return {
            pk: tuple(c.text(value) for c, value in zip(compared, said, strict=True))
            for pk, said in wires.items()
            if unique.takes_nulls or None not in said
        }

    def _claims_by(
        self,
        expressed: Expressed,
        works: Iterable[Work],
        values: Mapping[str, Mapping[str, Wire]],
    ) -> dict[str, Claim]:
        """What rows claim as the database says. What it cannot tell, it may refuse."""
        rows = {}
        for work in works:
            with suppress(*UNFIT):  # else it cannot stand
                rows[work.pk] = _stored(work, values[work.pk])
        if rows:
            with suppress(*UNTAKEN, peewee.OperationalError), self._attempt():
                return expressed.claims(rows)
        return {}

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
            wanted[dumps(wires)] = stored
        return rows_with(self._database, tracked, unique, wanted.values())


def _value(work: Work, current: Mapping[str, Wire], name: str) -> Wire:
    if work.in_table and name in work.tracked.by_name and name not in work.written:
        return current.get(name)
    return work.wire(name)


def _age(work: Work) -> tuple[bool, Version, str]:
    return work.state.kept, work.state.age, work.pk


def _names(unique: Unique) -> str:
    return ", ".join(column.name for column in unique.columns)


def _text(claimed: Any) -> str:
    return claimed if isinstance(claimed, str) else repr(claimed)


def _stored(work: Work, current: Mapping[str, Wire]) -> list[Any]:
    """The row as it would be in the table."""
    row = work.tracked.checked_key(work.key)
    return row + [c.to_parameter(_value(work, current, c.name)) for c in work.tracked.columns]
