"""The rows at work for one page: those that changed, and those that are found in the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import peewee

from ..changes import Wire, loads
from ..clock import BEFORE_TRACKING
from ..journal.journal import chunks
from ..merge.reconcile import RowState
from ..models.columns import TrackedColumn
from ..models.tracked import Tracked
from ..tables.collations import Collation
from ..tables.rows import UNFIT, Work, read_rows, select_rows
from ..tables.versions import Versions

Found = list[tuple[Work, Mapping[str, Wire]]]
"""Rows with the values that are in the table."""


class AtWork:
    """Rows by collection, and by pk. Reads the tables; writes nothing.

    Args:
        works: The rows that changed. Rows that are found in the tables are added.
    """

    def __init__(
        self, database: peewee.Database, versions: Versions, works: dict[str, list[Work]]
    ) -> None:
        self.works = works
        self._database = database
        self._versions = versions
        self._index = {(name, work.pk): work for name, some in works.items() for work in some}

    def get(self, collection: str, pk: str) -> Work | None:
        return self._index.get((collection, pk))

    def add(self, work: Work) -> None:
        name = work.tracked.collection
        self._index[name, work.pk] = work
        self.works.setdefault(name, []).append(work)

    def referring(
        self, child: Tracked, column: TrackedColumn, texts: Collection[str], collation: Collation
    ) -> Found:
        """The rows of a table that have these values (JSON texts) in a column, compared by the
        collation of what it refers to."""
        return self.found(child, self.standing(child, column, texts, collation))

    def standing(
        self, child: Tracked, column: TrackedColumn, texts: Collection[str], collation: Collation
    ) -> dict[str, dict[str, Wire]]:
        """The same as they stand in the table, and no more at work than before."""
        rows: dict[str, dict[str, Wire]] = {}
        parameters = []
        for text in texts:
            try:
                parameters.append(column.to_parameter(loads(text)))
            except UNFIT:
                continue  # no value of this column
        for chunk in chunks(parameters):
            where = (
                f"{column.quoted}{collation.said} IN ({', '.join([column.marker] * len(chunk))})"
            )
            rows |= select_rows(self._database, child, where, chunk)
        return rows

    def found(self, tracked: Tracked, rows: Mapping[str, Mapping[str, Wire]]) -> Found:
        """Rows that were read from a table; they are at work from here on."""
        name = tracked.collection
        states = self._versions.load(name, [pk for pk in rows if (name, pk) not in self._index])
        found: Found = []
        for pk, values in rows.items():
            work = self._index.get((name, pk))
            if work is None:
                state = states.get(pk) or RowState(BEFORE_TRACKING)
                work = Work(tracked, pk, loads(pk), state, {}, True)
                self.add(work)
            found.append((work, values))
        return found

    def read(self, works: Sequence[Work]) -> dict[str, dict[str, Wire]]:
        """What is in the table of these rows of one collection, by pk."""
        if not works:
            return {}
        keys = [work.key_parameters() for work in works]
        return read_rows(self._database, works[0].tracked, keys)
