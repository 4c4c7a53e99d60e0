"""Bringing rows into the log that nobody recorded: from before tracking, or behind its back.

What stands in a table and has no creation in the log is recorded as created now; what the
log says is there and is not, as deleted now. It goes through the tables in key order and
commits every few hundred rows, so it can be stopped at any time and simply be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from .changes import CREATE, DELETE, Wire, loads
from .clock import BEFORE_TRACKING
from .errors import ValueRefused
from .journal import OPERATION_CODES, Journal, Record
from .registry import Registry
from .ruled import restated
from .tracked import Tracked
from .versions import Versions

CHUNK = 500
"""Rows in one transaction, and so in one group of entries."""


@dataclass(slots=True)
class Adopted:
    """What `adopt()` recorded. `refused` are rows whose values cannot be carried: pk, why."""

    created: int = 0
    deleted: int = 0
    unchanged: int = 0
    refused: list[tuple[str, Wire, str]] = field(default_factory=list)


class Adoption:
    """One pass over all tracked tables. `writing` opens a write transaction."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        writing: Callable[[], AbstractContextManager[None]],
        progress: Callable[[Adopted], None],
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._versions = versions
        self._writing = writing
        self._progress = progress
        self.adopted = Adopted()

    def run(self) -> Adopted:
        for tracked in self._registry.in_order:
            self._chunk_by_chunk(tracked, self._adopt_created, self._rows_after)
        for tracked in reversed(self._registry.in_order):
            self._chunk_by_chunk(tracked, self._adopt_deleted, self._states_after)
        return self.adopted

    def _chunk_by_chunk(
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
            if not chunk:
                return
            last = chunk[-1]
            self._progress(self.adopted)

    # -- rows that the log does not know -------------------------------------------------

    def _rows_after(self, tracked: Tracked, last: Sequence[Any] | None) -> list[Any]:
        """The next rows of a table in key order, as the driver gives them."""
        every = ", ".join(c.quoted for c in (*tracked.key, *tracked.columns))
        key = ", ".join(c.quoted for c in tracked.key)
        where, parameters = "", list[Any]()
        if last is not None:
            parameters = list(last[: len(tracked.key)])
            where = f"WHERE ({key}) > ({', '.join('?' * len(parameters))})"
        cursor = self._journal.run(
            f"SELECT {every} FROM {tracked.table} {where} ORDER BY {key} LIMIT {CHUNK}", parameters
        )
        return list(cursor.fetchall())

    def _adopt_created(self, tracked: Tracked, rows: list[Any]) -> None:
        found = {pk: (value, rules) for pk, value, rules in self._readable(tracked, rows)}
        states = self._versions.load(tracked.collection, list(found))
        records = []
        for pk, (value, rules) in found.items():
            state = states.get(pk)
            # A row from before tracking stands, too, but nobody else has it.
            if state is not None and state.stands and (state.kept or state.born != BEFORE_TRACKING):
                self.adopted.unchanged += 1
            else:
                if state is not None and state.writes:
                    value = restated(tracked, state, value)
                code = OPERATION_CODES[CREATE]
                records.append(Record(tracked.collection, pk, code, value, rules))
        if records:
            self._journal.append(records)
            self.adopted.created += len(records)

    def _readable(self, tracked: Tracked, rows: list[Any]) -> Iterator[tuple[str, str, str | None]]:
        """Rows as pk, values and rules in JSON; what cannot be carried is noted and passed over."""
        width = len(tracked.key)
        for row in rows:
            pk: Wire = None
            try:
                pk = tracked.pk_of_stored(row)
                wire = {
                    c.name: c.wire_of_stored(stored)
                    for c, stored in zip(tracked.columns, row[width:], strict=True)
                }
                rules = tracked.rules_json(wire, created=True)
                yield tracked.pk_json(pk), tracked.value_json(wire), rules
            except ValueRefused as error:
                self.adopted.refused.append((tracked.collection, pk, error.message))

    # -- rows that are gone --------------------------------------------------------------

    def _states_after(self, tracked: Tracked, last: str | None) -> list[Any]:
        cursor = self._journal.run(
            "SELECT pk FROM sharedlog_row WHERE collection = ? AND pk > ? "
            "AND (born IS NOT NULL AND parked IS NULL OR kept IS NOT NULL) "
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
                gone.append(Record(tracked.collection, pk, OPERATION_CODES[DELETE], None))
        if gone:
            self._journal.append(gone)
            self.adopted.deleted += len(gone)
