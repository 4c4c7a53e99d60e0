"""Bringing rows into the log that nobody recorded: from before tracking, or behind its back.

What stands in a table and has no creation in the log is recorded as created now; a value that
no entry ever wrote, as modified now; what the log says is there and is not, as deleted now. It
goes through the tables in key order and commits every few hundred rows, so it can be stopped
at any time and simply be run again.

Which *value* the log last gave a field is not kept beside the table. Whether it is another one
than what stands there is known only by reading the log: `adopt_changed` takes it from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ..changes import CREATE, DELETE, MODIFY, Wire, dumps, loads
from ..clock import BEFORE_TRACKING
from ..errors import ValueRefused
from ..journal.journal import Journal, Record
from ..merge.reconcile import RowState
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import Uncarried
from ..tables.digest import DIFFERS, Difference, text_of
from ..tables.rows import as_wires, rows_after
from ..tables.ruled import RuledWrites, restated
from ..tables.statements import record
from ..tables.versions import Versions

CHUNK = 500
"""Rows in one transaction, and so in one group of entries."""


@dataclass(slots=True)
class Adopted:
    """What `adopt()` recorded, in rows. `refused` are rows whose values cannot be carried: the
    collection, the pk, and why."""

    created: int = 0
    modified: int = 0
    deleted: int = 0
    unchanged: int = 0
    refused: list[tuple[str, Wire, str]] = field(default_factory=list)


def _has_odd_key(tracked: Tracked, row: Sequence[Any]) -> bool:
    """Whether nothing can be looked for behind this row, because its key cannot be said."""
    return any(isinstance(part, Uncarried) for part in row[: len(tracked.key)])


def unsaid_of(tracked: Tracked, state: RowState, values: Mapping[str, Wire]) -> dict[str, Wire]:
    """What stands in a row and no entry ever wrote."""
    return {
        name: value
        for name, value in values.items()
        if state.version_of(name) is None and text_of(value) != text_of(tracked.default_wire(name))
    }


class Adoption:
    """One pass over all tracked tables, or these `only`. `writing` opens a write transaction."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        writing: Callable[[], AbstractContextManager[None]],
        progress: Callable[[Adopted], None],
        only: Container[str] | None = None,
    ) -> None:
        self._registry = registry
        self._tables = [t for t in registry.in_order if only is None or t.collection in only]
        self._journal = journal
        self._versions = versions
        self._writing = writing
        self._progress = progress
        self.adopted = Adopted()

    def adopt_rows(self) -> None:
        """Record what stands in the tables and was never said."""
        for tracked in self._tables:
            self.chunk_by_chunk(tracked, self._adopt_standing, self.rows_after)

    def run(self) -> Adopted:
        self.adopt_rows()
        for tracked in reversed(self._tables):
            self.chunk_by_chunk(tracked, self._adopt_deleted, self._states_after)
        return self.adopted

    def chunk_by_chunk(
        self,
        tracked: Tracked,
        adopt: Callable[[Tracked, list[Any]], None],
        after: Callable[[Tracked, Any], list[Any]],
    ) -> None:
        last: Any = None
        while True:
            with self._writing():
                self._versions.fold_local()
                chunk = after(tracked, last)
                if chunk:
                    adopt(tracked, chunk)
            if not (keyed := [row for row in chunk if not _has_odd_key(tracked, row)]):
                return
            last = keyed[-1]
            self._progress(self.adopted)

    # -- rows that the log does not know -------------------------------------------------

    def rows_after(self, tracked: Tracked, last: Sequence[Any] | None) -> list[Any]:
        return rows_after(self._journal.database, tracked, last, CHUNK)

    def _adopt_standing(self, tracked: Tracked, rows: list[Any]) -> None:
        found = dict(self.readable(tracked, rows))
        states = self._versions.load(tracked.collection, list(found))
        records: list[Record] = []
        for pk, values in found.items():
            state = states.get(pk)
            # A row from before tracking stands, too, but nobody else has it.
            if state is None or not state.stands or state.born == BEFORE_TRACKING:
                values = restated(tracked, state, values) if state else values
                records += self._recorded(tracked, CREATE, pk, values)
                continue
            unsaid = unsaid_of(tracked, state, values)
            if unsaid and not state.kept:
                records += self._recorded(tracked, MODIFY, pk, unsaid)
            else:
                self.adopted.unchanged += 1
        self._append(records)

    def readable(self, tracked: Tracked, rows: list[Any]) -> Iterator[tuple[str, dict[str, Wire]]]:
        """Rows by their pk; one that cannot be carried is noted and passed over."""
        for row in rows:
            pk: Wire = None
            try:
                pk = tracked.pk_of_stored(row)
                yield from as_wires(tracked, [row]).items()
            except ValueRefused as error:
                told = (tracked.collection, pk, error.message)
                if told not in self.adopted.refused:  # the next chunk may begin with it
                    self.adopted.refused.append(told)

    def _recorded(
        self, tracked: Tracked, operation: str, pk: str, values: dict[str, Wire]
    ) -> Iterator[Record]:
        """The record of a row; values that cannot be carried are noted and passed over."""
        try:
            made = record(tracked, operation, pk, values)
        except ValueRefused as error:
            self.adopted.refused.append((tracked.collection, loads(pk), error.message))
            return
        self.adopted.created += operation == CREATE
        self.adopted.modified += operation == MODIFY
        yield made

    def _append(self, records: list[Record]) -> None:
        if records:
            self._journal.append(records)

    # -- values that changed -------------------------------------------------------------

    def adopt_changed(self, differences: Iterable[Difference]) -> None:
        """Record values that are others in the tables than in the log; in the transaction in
        which they were found."""
        records: list[Record] = []
        ruled = RuledWrites(self._journal, self._registry)
        known: dict[str, dict[str, Mapping[str, Wire]]] = defaultdict(dict)
        for found in differences:
            tracked = self._registry.collection(found.collection)
            if found.kind == DIFFERS and found.here and tracked is not None:
                pk, said, there = dumps(found.pk), dict(found.here), found.there or {}
                if tracked.rules:
                    said = ruled.said(tracked, pk, there, said)
                    known[found.collection][pk] = there
                records += self._recorded(tracked, MODIFY, pk, said)
                self.adopted.unchanged -= 1
        self._append(records)
        if known:
            ruled.settle(known)

    # -- rows that are gone --------------------------------------------------------------

    def _states_after(self, tracked: Tracked, last: str | None) -> list[Any]:
        cursor = self._journal.run(
            "SELECT pk FROM sharedlog_row WHERE collection = ? AND pk > ? "
            "AND (born IS NOT NULL AND parked IS NULL OR kept = 1) "
            f"ORDER BY pk LIMIT {CHUNK}",
            (tracked.collection, last or ""),
        )
        return [row[0] for row in cursor.fetchall()]

    def _adopt_deleted(self, tracked: Tracked, pks: list[Any]) -> None:
        gone = []
        for pk in pks:
            cursor = self._journal.run(
                f"SELECT 1 FROM {tracked.table} WHERE {tracked.where_key}",
                tracked.key_parameters(loads(pk)),
            )
            if cursor.fetchone() is None:
                gone.append(record(tracked, DELETE, pk, None))
        self._append(gone)
        self.adopted.deleted += len(gone)
