"""Bringing merged rows into their tables, in bulk, and parking what cannot stand there.

A row can stand if its values fit its columns, if every row that it refers to stands, and if
the database takes it. Rows are first assumed to stand and then taken out until nothing
changes, so that rows that need each other (cycles) arrive together. What cannot stand is
*parked*: its values are held in the row's state, with the reason, and it is tried again with
every page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import peewee

from ..capture.comparing import enforces_foreign_keys
from ..changes import Wire
from ..journal.journal import Journal
from ..models.columns import TrackedColumn
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import carried
from ..tables.rows import (
    CONSTRAINT,
    UNFIT,
    UNTAKEN,
    Conversion,
    ValueAltered,
    Work,
    check_written,
    conversions,
    read_rows,
    refusal,
)
from ..tables.versions import Versions
from .atwork import AtWork
from .claims import Claims
from .fates import Fates
from .letters import Letters
from .names import Names
from .parents import Parents, Relations


class _Tried(Exception):
    """Takes back what was only tried."""


class _Again(Exception):
    """Takes back what was written: with what is known now, less will be."""


STILL = "and is in its table still"


class Placement:
    """Places the rows of one page. Counts what it does."""

    def __init__(
        self, registry: Registry, relations: Relations, journal: Journal, versions: Versions
    ) -> None:
        self.created = self.modified = self.deleted = 0
        self.refused = False
        """Whether the database refused a row that it had not refused before."""
        self._database = journal.database
        self._registry = registry
        self._relations = relations
        self._dialect = journal.dialect
        self._attempt = journal.attempt
        self._run_many = journal.run_many
        self._versions = versions
        self._letters = Letters(self._database, relations, self._attempt, self._run_many)
        self._touched: set[int] = set()
        """Which works are not in their tables as they were."""
        self._held: list[Work] = []
        self._row_by_row = False
        """Whether constraints that can wait are asked with each row, because in the end there was
        one that refused, and did not say which row."""

    def place(self, works: dict[str, list[Work]]) -> None:
        """Bring these rows, by collection, into their tables.

        Rows that have to leave because of them are added to `works`.
        """
        with self._dialect.defer_foreign_keys(self._database):
            self._place(works)

    def _place(self, works: dict[str, list[Work]]) -> None:
        at_work = AtWork(self._database, self._versions, works)
        enforces = enforces_foreign_keys(self._database)
        if self._dialect.typed:
            self._relations.learn(works)
        parents = None
        if enforces:
            parents = Parents(self._database, self._relations, at_work, self._park)
        Fates(
            self._registry,
            Names(self._registry, self._relations, self._versions, at_work),
            self._versions,
            at_work,
            self._park,
            references=enforces,
        ).decide()
        Claims(
            self._database, self._relations.collations, at_work, self._attempt, self._park
        ).decide()
        if parents is not None:
            for some in works.values():
                for old in self._letters.hand_over(some):
                    self.deleted += not old.state.alive
            parents.shield()
        self._convert(works)
        while not self._is_written(works, parents):
            pass

    def _is_written(self, works: dict[str, list[Work]], parents: Parents | None) -> bool:
        """Bring the tables to what stands; or find out that less can, and write nothing."""
        counts = self.created, self.modified, self.deleted
        before = {
            id(work): (work.in_table, dict(work.written), work.values, work.yields)
            for some in works.values()
            for work in some
        }
        try:
            with self._attempt():
                if self._row_by_row:
                    referring = [tracked.table for tracked in self._registry if tracked.parents]
                    self._dialect.check_at_once(self._database, referring)
                self._write_all(works, parents)
                self._check()
            return True
        except _Again:
            for work in self._held:
                work.state.kept = False
            for work in (work for some in works.values() for work in some):
                # Those that are at work since then were found in their tables.
                was = before.get(id(work), (True, dict[str, Wire](), None, ()))
                work.in_table, work.written, work.values, work.yields = was
            self.created, self.modified, self.deleted = counts
            self._touched, self._held = set(), []
            if parents is not None:
                parents.begin_again()
            return False

    def _check(self) -> None:
        """Hear what constraints that can wait have against all of it."""
        try:
            self._dialect.check_at_once(self._database)
        except UNTAKEN:
            if self._row_by_row:
                raise
            self._row_by_row = True
            raise _Again from None

    def _write_all(self, works: dict[str, list[Work]], parents: Parents | None) -> None:
        gone = [work for some in works.values() for work in some if not work.stands]
        written = False
        while True:
            if parents is not None:
                gone += parents.left_behind(gone, written=written)
                while refused := self._detach(parents.detached()):
                    gone += refused + parents.left_behind(refused, written=written)
            self._remove(gone, parents)
            gone, written = self._write(works), True
            if any(work.in_table for work in gone):
                raise _Again  # others may have got what these were to have, or gave up
            if not gone:
                return

    def _convert(self, works: dict[str, list[Work]]) -> None:
        for some in works.values():
            columns = conversions(some[0].tracked.columns) if some else []
            for work in some:
                if work.stands:
                    try:
                        work.parameters = _parameters(work, columns)
                    except UNFIT as error:
                        self._park(work, f"VALUE_UNFIT: {error}")

    def _park(self, work: Work, reason: str, current: Mapping[str, Wire] | None = None) -> None:
        """Hold all values of a row; `current` are those in its table."""
        if not work.state.alive:  # nobody can keep it: what it is, its state says anyway
            work.state.kept, work.state.parked = False, reason if work.lives else None
            return
        if work.state.parked is not None:
            return  # what it should be is held; in its table it is what it was
        values = work.values
        if work.in_table:
            if current is None:
                rows = read_rows(self._database, work.tracked, [work.key_parameters()])
                current = rows.get(work.pk, {})
            values = {**carried(current), **work.written}
        work.state.held.update({**(values or {}), **work.state.cleared})
        work.state.parked, work.state.cleared = reason, {}

    # -- writing -------------------------------------------------------------------------

    def _remove(self, gone: Iterable[Work], parents: Parents | None) -> None:
        """Delete rows from their tables, children before parents."""
        leaving = [work for work in gone if work.in_table]
        held: list[Work] = []
        try:
            with self._attempt():
                self._delete(leaving)
        except UNTAKEN:
            try:
                with self._attempt():
                    # Rows that refer to each other, so that none of them can go first.
                    self._blank(leaving, lambda work, column: True)
                    self._delete(leaving)
            except UNTAKEN as error:
                held = self._hold(leaving, parents, error)
        for work in leaving:
            work.in_table = work in held
            self.deleted += not work.state.alive and not work.in_table

    def _hold(self, leaving: list[Work], parents: Parents | None, error: Exception) -> list[Work]:
        """Delete what the database lets go, and keep the rest in its table until it does: a
        trigger of the application may hold it. What that refers to stays, too."""
        held: list[Work] = []
        with suppress(_Tried), self._attempt():
            held = self._let_go(leaving)
            raise _Tried
        if parents is not None:
            held += parents.above(held, leaving)
            for work in (renamed := parents.renamed_above(held)):
                self._park(work, refusal(error))
            if renamed:
                raise _Again
        if any(id(work) in self._touched for work in held):
            raise _Again  # it stays as it was
        self._held += held
        for work in held:
            if work.state.parked is not None and STILL not in work.state.parked:
                work.state.parked += f" ({STILL}: {error})"
            work.state.kept, work.written, work.yields = True, {}, ()
        self._let_go([work for work in leaving if work not in held])
        return held

    def _let_go(self, works: Sequence[Work]) -> list[Work]:
        """Delete what the database lets go, row by row, when each has let go its parents as far as
        it may; return the rest."""
        for work in works:
            with suppress(*UNTAKEN), self._attempt():
                self._blank([work], lambda work, column: True)
        order = [tracked.collection for tracked in reversed(self._registry.in_order)]
        rest = sorted(works, key=lambda work: order.index(work.tracked.collection))
        while len(left := [work for work in rest if not self._goes(work)]) < len(rest):
            rest = left
        return rest

    def _goes(self, work: Work) -> bool:
        with suppress(*UNTAKEN), self._attempt():
            self._delete([work])
            return True
        return False

    def _delete(self, works: Iterable[Work]) -> None:
        keys: dict[str, list[Any]] = defaultdict(list)
        for work in works:
            keys[work.tracked.collection].append(work.key_parameters())
        with self._dialect.deleting(self._database):
            for tracked in reversed(self._registry.in_order):
                if some := keys.get(tracked.collection):
                    self._run_many(tracked.delete_sql, some)

    def _detach(self, works: Iterable[Work]) -> list[Work]:
        """Let rows refer to nothing until they are written; park and return those that a trigger
        of the application does not let change."""
        refused = []
        for work in works:
            self._touched.add(id(work))
            try:
                with self._attempt():
                    self._blank([work], lambda work, column: column.name in work.written)
                work.parameters = _parameters(work, ())
            except UNTAKEN as error:
                self._park(work, refusal(error))
                refused.append(work)
        return refused

    def _blank(self, works: Iterable[Work], which: Callable[[Work, TrackedColumn], bool]) -> None:
        """Let rows refer to nothing for a moment. (Foreign keys are deferred.)"""
        for work in works:
            for column in work.tracked.parents:
                if column.name in work.tracked.by_name and which(work, column):
                    self._blank_one(work, column)

    def _blank_one(self, work: Work, column: TrackedColumn) -> None:
        tracked = work.tracked
        sql = (
            f"UPDATE {tracked.table} SET {column.quoted} = {column.marker} "
            f"WHERE {tracked.where_key}"
        )
        self._run_many(sql, [(work.blank(column), *work.key_parameters())])

    def _vacate(self, works: Iterable[Work]) -> None:
        """Give up the unique values that rows are about to change, so that they can be passed
        on among them, in a circle too."""
        for work in works:
            for column in work.yields:
                self._touched.add(id(work))
                with suppress(*UNTAKEN), self._attempt():
                    self._blank_one(work, column)

    def _write(self, works: dict[str, list[Work]]) -> list[Work]:
        """Insert and update, parents before children; return the rows that clash."""
        clashing = []
        for tracked in self._registry.in_order:
            standing = [work for work in works.get(tracked.collection, ()) if work.stands]
            new = [work for work in standing if not work.in_table]
            if len(standing) > 1:
                self._vacate(work for work in standing if work.in_table)
            clashing += self._insert(tracked, new)
            clashing += self._update([work for work in standing if work.in_table])
        return clashing

    def _insert(self, tracked: Tracked, works: list[Work]) -> list[Work]:
        clashing = self._run_or_park(tracked.upsert_sql, works)
        for work in works:
            if work.stands:
                self._touched.add(id(work))
                work.in_table, work.written, work.values = True, {}, None
        self.created += len(works) - len(clashing)
        return clashing

    def _update(self, works: Iterable[Work]) -> list[Work]:
        by_statement: dict[tuple[str, ...], list[Work]] = defaultdict(list)
        for work in works:
            if work.stands and work.written:
                by_statement[work.tracked.collection, *sorted(work.written)].append(work)
        clashing = []
        for (_, *names), some in by_statement.items():
            failed = self._run_or_park(some[0].tracked.update_sql(names), some)
            for work in some:
                if work.stands:
                    self._touched.add(id(work))
                work.written, work.yields = {}, ()
            self.modified += len(some) - len(failed)
            clashing += failed
        return clashing

    def _run_or_park(self, sql: str, works: list[Work]) -> list[Work]:
        """Run a statement for all rows at once; if that fails, one by one, and park the bad."""
        if not works:
            return []
        inward = self._letters.turned_inward(works[0].tracked, works)
        failed = self._run_or_park_each(sql, works)
        for each in inward:
            if each.work.stands:
                try:
                    self._letters.turn(each)
                except UNTAKEN as error:
                    each.work.is_found()
                    self._park(each.work, refusal(error))
                    failed.append(each.work)
        return failed

    def _run_or_park_each(self, sql: str, works: list[Work]) -> list[Work]:
        try:
            self._run_works(sql, works)
            return []
        except (*UNTAKEN, ValueAltered):
            pass
        failed = []
        for work in works:
            try:
                self._run_works(sql, [work])
            except (peewee.DataError, ValueAltered) as error:
                self._park(work, f"VALUE_UNFIT: {error}")
                failed.append(work)
            except UNTAKEN as error:
                self._park(work, refusal(error))
                self.refused |= not (work.before or "").startswith(CONSTRAINT)
                failed.append(work)
        return failed

    def _run_works(self, sql: str, works: list[Work]) -> None:
        with self._attempt():
            self._run_many(sql, [work.parameters for work in works])
            if self._dialect.typed:
                expected = {w.pk: w.written if w.values is None else w.values for w in works}
                keys = [work.key_parameters() for work in works]
                check_written(self._database, works[0].tracked, keys, expected)


def _parameters(work: Work, columns: Iterable[Conversion]) -> list[Any]:
    if not work.in_table:
        values = work.values or {}
        row = work.tracked.checked_key(work.key)
        for name, plain, convert in columns:
            wire = values[name]
            row.append(wire if type(wire) is plain else convert(wire))
        return row
    by_name = work.tracked.by_name
    row = [by_name[name].to_parameter(work.written[name]) for name in sorted(work.written)]
    return row + work.key_parameters() if row else row
