"""Carrying over what a device knows to a program whose models changed. Once an upgrade.

The application migrates its own tables. What is kept beside them follows here: the states of rows
get the names of today, held values pass the upgraders, and values that were held for a name that
is known now come into the tables. Local entries stay as they were recorded: an entry may have
reached the log already, and the same entry must not have two contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .changes import DELETE, MODIFY, Change, Entry, Wire, dumps, loads
from .clock import BEFORE_TRACKING
from .errors import EntryUnreadable
from .exchange import Replica
from .formerly import Fields
from .journal import CHUNK
from .reconcile import BIRTH, Listed, RowState
from .registry import Registry
from .restating import changes_of, forget, rename_fields
from .tracked import Tracked

ASIDE = "sharedlog_aside "
"""Begins the collection of what stands in no table, until the rows of a table have its names."""

VALUES = "(held IS NOT NULL OR buried IS NOT NULL OR cleared IS NOT NULL OR writes IS NOT NULL)"
"""The rows with values beside their tables."""


class Carryover:
    """What is to be done for a program that is not the last one. Needs an open transaction."""

    def __init__(self, replica: Replica, registry: Registry) -> None:
        self._journal = replica.journal
        self._inbox = replica.inbox
        self._versions = replica.versions
        self._applier = replica.applier
        self._encode = replica.pipeline.encode
        self._evolution = replica.pipeline.evolution
        self._names = replica.pipeline.evolution.names
        self._registry = registry
        self._aside: dict[str, Tracked] = {}

    def run(self) -> None:
        """Compare the program with the last one; do nothing if it is the same, or the first."""
        program = {
            "schema": self._evolution.schema,
            "tables": {tracked.collection: sorted(tracked.names) for tracked in self._registry},
            "formerly": {"tables": self._names.tables, "fields": self._names.fields},
        }
        before, now = self._journal.state("program"), dumps(program)
        if before != now:
            if before is not None:
                self._carry_over(loads(before))
            self._journal.set_state(program=now)

    def _carry_over(self, last: Mapping[str, Any]) -> None:
        self._aside = {}
        for tracked in self._registry:
            self._rename_fields(tracked)
        learned = []
        for tracked in self._registry:
            own = self._rename_table(tracked, last["tables"])
            if new := tracked.names.difference(last["tables"].get(own, ())):
                learned.append((tracked, new))
        if last["schema"] < self._evolution.schema:
            self._upgrade_values(last["schema"])
        # Only now local entries may be folded: all states have the names of today.
        self._versions.fold_local()
        for name, tracked in self._aside.items():
            self._merge_again(name, tracked)
        self._applier.release_held(learned)

    # -- names ---------------------------------------------------------------------------

    def _rename_fields(self, tracked: Tracked) -> None:
        fields = self._names.fields.get(tracked.collection)
        if fields:
            for name in (tracked.collection, *self._names.of_table(tracked.collection)):
                aside = f"{ASIDE}fields of {name}"
                self._aside[aside] = tracked
                self._rename_shapes(name, fields)
                for states in self._states(name, f"fields IS NOT NULL OR {VALUES}"):
                    clashing = {pk: rename_fields(state, fields) for pk, state in states.items()}
                    self._versions.store(name, states.items())
                    self._versions.store(aside, ((pk, s) for pk, s in clashing.items() if s))

    def _rename_shapes(self, collection: str, fields: Fields) -> None:
        """The same for rows of which only a creation is known: for all of them at once."""
        shapes = self._journal.run("SELECT number, fields FROM sharedlog_shape").fetchall()
        for number, text in shapes:
            old = frozenset(loads(text))
            new = frozenset(name for former in old for name in fields.get(former, (former,)))
            if new != old:
                self._journal.run(
                    "UPDATE sharedlog_row SET shape = ? WHERE collection = ? AND shape = ? "
                    f"AND fields IS NULL AND NOT {VALUES}",
                    (self._versions.shape_number(new), collection, number),
                )

    def _rename_table(self, tracked: Tracked, known: Mapping[str, Any]) -> str:
        """Give the rows of a table its new name; return the one that it had. What was held under
        one of its other names, by a program that did not know that, is set aside."""
        names = (tracked.collection, *self._names.of_table(tracked.collection))
        own = next((name for name in names if name in known), tracked.collection)
        if len(names) > 1:
            for name in names:
                if name not in known:
                    aside = f"{ASIDE}rows of {name}"
                    self._aside[aside] = tracked
                    self._rename_rows(name, aside)
            if own != tracked.collection:
                self._rename_rows(own, tracked.collection)
        return own

    def _rename_rows(self, old: str, new: str) -> None:
        self._journal.run(
            "UPDATE sharedlog_row SET collection = ? WHERE collection = ?", (new, old)
        )

    def _merge_again(self, aside: str, tracked: Tracked) -> None:
        for states in self._states(aside):
            rows = {
                pk: changes_of(tracked.collection, loads(pk), state) for pk, state in states.items()
            }
            self._journal.run_many(
                "DELETE FROM sharedlog_row WHERE collection = ? AND pk = ?",
                [(aside, pk) for pk in states],
            )
            self._applier.merge(tracked.collection, {pk: some for pk, some in rows.items() if some})

    def _states(self, collection: str, condition: str = "1") -> Iterator[dict[str, RowState]]:
        """The states of a collection's rows, a few hundred at a time."""
        last = ""
        while True:
            cursor = self._journal.run(
                "SELECT pk FROM sharedlog_row WHERE collection = ? AND pk > ? "
                f"AND ({condition}) ORDER BY pk LIMIT {CHUNK}",
                (collection, last),
            )
            pks = [row[0] for row in cursor.fetchall()]
            if not pks:
                return
            yield self._versions.load(collection, pks)
            last = pks[-1]

    # -- values --------------------------------------------------------------------------

    def _upgrade_values(self, schema: int) -> None:
        """Let values beside the tables pass the upgraders from this schema version on."""
        collections = self._journal.run(
            f"SELECT DISTINCT collection FROM sharedlog_row WHERE {VALUES}"
        ).fetchall()
        for (name,) in collections:
            collection = self._aside[name].collection if name in self._aside else name
            for states in self._states(name, VALUES):
                upgraded = [
                    (pk, self._upgraded(collection, pk, state, schema))
                    for pk, state in states.items()
                ]
                self._versions.store(name, upgraded)

    def _upgraded(self, collection: str, pk: str, state: RowState, schema: int) -> RowState:
        """What cannot be upgraded is set aside, as if it had just arrived."""
        key = loads(pk)

        def upgraded(
            values: Mapping[str, Wire], rules: Mapping[str, str] | None = None
        ) -> dict[str, Wire]:
            older = Change(MODIFY, collection, key, values, rules, schema)
            change = self._evolution.current(older)
            return {} if change is None else dict(change.value or {})

        def upgraded_writes(name: str, listed: Listed) -> Listed:
            of, writes = listed
            some = [(v, upgraded({name: operand}, {name: of})) for v, operand in writes]
            return Listed(of, [(v, values[name]) for v, values in some if name in values])

        buried = {name: value for name, (_, value) in state.buried.items() if name != BIRTH}
        try:
            held, cleared = upgraded(state.held), upgraded(state.cleared)
            buried = upgraded(buried)
            writes = {name: upgraded_writes(name, found) for name, found in state.writes.items()}
        except EntryUnreadable as error:
            if state.born == BEFORE_TRACKING:
                return state  # it has no entry that could be set aside
            self._inbox.keep(
                (
                    Entry(device, ticks, 0, self._encode(change._replace(schema=schema)))
                    for (ticks, device), change in changes_of(collection, key, state)
                    if change.operation != DELETE
                ),
                error.message,
            )
            return forget(state)
        if len(held) < len(state.held):  # dropped
            return forget(state)
        state.held, state.cleared, state.writes = held, cleared, writes
        state.buried |= {name: (state.buried[name][0], value) for name, value in buried.items()}
        return state
