"""What SQLite takes only in steps where texts are equal by a collation and not the same.

A row may take the place of one whose key is equal to its own, and a row may refer to itself in
other letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import peewee

from ..changes import Wire
from ..models.columns import TrackedColumn
from ..models.tracked import Tracked
from ..tables.rows import UNFIT, UNTAKEN, Work, read_rows, target_of
from ..tables.uniques import unique_sets
from .parents import Relations


class Inward(NamedTuple):
    """A row that is to refer to itself, by a column, in other letters than those of its own."""

    work: Work
    column: TrackedColumn
    referred: TrackedColumn
    own: Wire
    value: Wire


class Letters:
    """Writes in the tables, inside the open transaction.

    Args:
        attempt: Opens a savepoint.
        run_many: Runs a statement for rows of parameters.
    """

    def __init__(
        self,
        database: peewee.Database,
        relations: Relations,
        attempt: Callable[[], AbstractContextManager[None]],
        run_many: Callable[[str, Sequence[Sequence[Any]]], object],
    ) -> None:
        self._database = database
        self._relations = relations
        self._attempt = attempt
        self._run_many = run_many

    def hand_over(self, works: Iterable[Work]) -> Iterator[Work]:
        """Of the rows of one table: give the places of those that leave to those with keys that are
        equal. So nothing happens to who refers to them. Tells which ones left."""
        some = list(works)
        collation = self._relations.of_key(some[0].tracked) if some else None
        if collation is None or collation.fold is None:
            return
        leaving = {collation.text(w.key): w for w in some if w.in_table and not w.stands}
        for work in some:
            old = leaving.get(collation.text(work.key))
            if old is not None and work.stands and not work.in_table:
                with suppress(*UNFIT, *UNTAKEN):
                    self._rename(old, work)
                    yield old

    def _rename(self, old: Work, work: Work) -> None:
        tracked = old.tracked
        with self._attempt():
            for column in tracked.parents:
                if _refers_to_itself(column, tracked):
                    # It is written anew anyway, and SQLite does not take it along.
                    self._set(old, column, old.blank(column))
            self._set(old, tracked.key[0], tracked.checked_key(work.key)[0])
        old.in_table = False
        work.is_found()
        uniques = unique_sets(self._database, tracked, committed=True)
        names = {column.name for unique in uniques for column in unique.columns}
        work.yields = [column for column in tracked.columns if column.name in names]

    def turned_inward(self, tracked: Tracked, works: Sequence[Work]) -> list[Inward]:
        """Rows that SQLite would not take: let them refer to themselves in their own letters."""
        found: list[Inward] = []
        if tracked.dialect.typed:
            return found
        for column in tracked.parents:
            to_itself = _refers_to_itself(column, tracked)
            collation = self._relations.collation(target_of(column)) if to_itself else None
            if collation is not None and collation.fold is not None:
                referred = tracked.by_field[column.field.rel_field]
                writing = [work for work in works if work.writes(column)]
                owns = self._owns(tracked, referred, writing)
                for work in writing:
                    own, value = owns[work.pk], work.wire(column.name)
                    if own != value and collation.text(own) == collation.text(value):
                        _let_refer(work, column, own)
                        found.append(Inward(work, column, referred, own, value))
        return found

    def _owns(
        self, tracked: Tracked, referred: TrackedColumn, works: Sequence[Work]
    ) -> Mapping[str, Wire]:
        """What these rows are referred to by."""
        unsaid = [
            work for work in works if referred.name in tracked.names and not work.writes(referred)
        ]
        current = read_rows(self._database, tracked, [work.key_parameters() for work in unsaid])
        return {work.pk: work.wire(referred.name) for work in works} | {
            pk: values[referred.name] for pk, values in current.items()
        }

    def turn(self, inward: Inward) -> None:
        """Let the row refer to itself as it should: it has to be found by these letters then."""
        work, column, referred, own, value = inward
        with self._attempt():
            self._set(work, referred, referred.to_parameter(value))
            self._set(work, column, column.to_parameter(value))
            self._set(work, referred, referred.to_parameter(own))

    def _set(self, work: Work, column: TrackedColumn, parameter: Any) -> None:
        tracked = work.tracked
        sql = f"UPDATE {tracked.table} SET {column.quoted} = {column.marker}"
        self._run_many(f"{sql} WHERE {tracked.where_key}", [[parameter, *work.key_parameters()]])


def _refers_to_itself(column: TrackedColumn, tracked: Tracked) -> bool:
    return column.field.rel_model is tracked.model and column.name in tracked.by_name


def _let_refer(work: Work, column: TrackedColumn, value: Wire) -> None:
    """Give the statement that writes a row another value for a column."""
    tracked, parameters = work.tracked, list(work.parameters)
    names = (
        sorted(work.written)
        if work.in_table
        else [*(c.name for c in tracked.key), *tracked.by_name]
    )
    parameters[names.index(column.name)] = column.to_parameter(value)
    work.parameters = parameters
