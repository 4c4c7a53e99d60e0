"""Carrying over what a device knows to a program whose models changed. Once an upgrade.

The application migrates its own tables. What is kept beside them follows here: the states of rows
get the names of today, held values pass the upgraders, and values that were held for a name that
is known now come into the tables. Local entries stay as they were recorded: an entry may have
reached the log already, and the same entry must not have two contents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from .apply import Applier
from .changes import CREATE, DELETE, MODIFY, Change, Entry, Wire, dumps, loads
from .clock import BEFORE_TRACKING, Version
from .errors import EntryUnreadable
from .evolution import Evolution
from .formerly import Fields
from .inbox import Inbox
from .journal import CHUNK, Journal
from .reconcile import RowState
from .registry import Registry
from .tracked import Tracked
from .versions import Versions

ASIDE = "sharedlog_aside "
"""Begins the collection of rows that stand in no table, while those of a table take its name."""


class Carryover:
    """What is to be done for a program that is not the last one. Needs an open transaction."""

    def __init__(
        self,
        journal: Journal,
        inbox: Inbox,
        versions: Versions,
        applier: Applier,
        registry: Registry,
        evolution: Evolution,
        encode: Callable[[Change], str],
    ) -> None:
        self._journal = journal
        self._inbox = inbox
        self._versions = versions
        self._applier = applier
        self._registry = registry
        self._evolution = evolution
        self._encode = encode

    def run(self) -> None:
        """Compare the program with the last one; do nothing if it is the same."""
        tables = {tracked.collection: sorted(tracked.names) for tracked in self._registry}
        names = self._evolution.names
        program = {
            "schema": self._evolution.schema,
            "tables": tables,
            "formerly": {"tables": names.tables, "fields": names.fields},
        }
        before, now = self._journal.state("program"), dumps(program)
        if before != now:
            self._carry_over(loads(before) if before else {**program, "tables": {}})
            self._journal.set_state(program=now)

    def _carry_over(self, last: dict[str, Any]) -> None:
        for collection, fields in self._evolution.names.fields.items():
            for name in (collection, *self._evolution.names.of_table(collection)):
                self._rename_fields(name, fields)
        if last["schema"] < self._evolution.schema:
            self._upgrade_held(last["schema"])
        aside: list[tuple[Tracked, str]] = []
        learned = []
        for tracked in self._registry:
            own = self._rename_table(tracked, last["tables"], aside)
            if new := tracked.names.difference(last["tables"].get(own, ())):
                learned.append((tracked, new))
        # Only now local entries may be folded: all states have the names of today.
        self._versions.fold_local()
        for tracked, name in aside:
            self._merge_aside(tracked, name)
        self._applier.release_held(learned)

    # -- names ---------------------------------------------------------------------------

    def _rename_table(
        self, tracked: Tracked, known: dict[str, Any], aside: list[tuple[Tracked, str]]
    ) -> str:
        """Give the rows of a table its new name; return the one that it had. Rows that were
        held under one of its other names are added to `aside`."""
        names = (tracked.collection, *self._evolution.names.of_table(tracked.collection))
        own = next((name for name in names if name in known), tracked.collection)
        if len(names) > 1:
            for name in names:
                if name not in known:
                    self._rename_rows(name, ASIDE + name)
                    aside.append((tracked, ASIDE + name))
            if own != tracked.collection:
                self._rename_rows(own, tracked.collection)
        return own

    def _rename_rows(self, old: str, new: str) -> None:
        self._journal.run(
            "UPDATE sharedlog_row SET collection = ? WHERE collection = ?", (new, old)
        )

    def _merge_aside(self, tracked: Tracked, aside: str) -> None:
        """Merge rows that were held for a table under a name that was not known."""
        for states in self._states(aside):
            rows = {pk: changes_of(tracked.collection, pk, state) for pk, state in states.items()}
            self._journal.run_many(
                "DELETE FROM sharedlog_row WHERE collection = ? AND pk = ?",
                [(aside, pk) for pk in states],
            )
            self._applier.merge(tracked.collection, rows)

    def _rename_fields(self, collection: str, fields: Fields) -> None:
        shapes = self._journal.run("SELECT number, fields FROM sharedlog_shape").fetchall()
        for number, text in shapes:  # as most rows have nothing else to rename
            old = frozenset(loads(text))
            new = frozenset(name for former in old for name in fields.get(former, (former,)))
            if new != old:
                self._journal.run(
                    "UPDATE sharedlog_row SET shape = ? WHERE collection = ? AND shape = ? "
                    "AND fields IS NULL AND held IS NULL",
                    (self._versions.shape_number(new), collection, number),
                )
        for states in self._states(collection, "fields IS NOT NULL OR held IS NOT NULL"):
            for state in states.values():
                rename_fields(state, fields)
            self._versions.store(collection, states.items())

    def _states(self, collection: str, condition: str = "1") -> Iterator[dict[str, RowState]]:
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

    def _upgrade_held(self, schema: int) -> None:
        collections = self._journal.run(
            "SELECT DISTINCT collection FROM sharedlog_row WHERE held IS NOT NULL"
        ).fetchall()
        for (collection,) in collections:
            for states in self._states(collection, "held IS NOT NULL"):
                for pk, state in states.items():
                    self._upgrade_row(collection, pk, state, schema)
                self._versions.store(collection, states.items())

    def _upgrade_row(self, collection: str, pk: str, state: RowState, schema: int) -> None:
        """Upgrade held values. What cannot be, is set aside as if it had just arrived."""
        change = Change(MODIFY, collection, loads(pk), dict(state.held), schema)
        try:
            upgraded = self._evolution.current(change)
        except EntryUnreadable as error:
            if state.born == BEFORE_TRACKING:
                return  # it has no entry that could be set aside
            self._inbox.keep(
                (
                    Entry(by, ticks, 0, self._encode(change._replace(schema=schema)))
                    for (ticks, by), change in changes_of(collection, pk, state)
                    if change.operation != DELETE
                ),
                error.message,
            )
            upgraded = None
        if upgraded is None:
            forget_held(state)
        else:
            state.held = dict(upgraded.value or {})


def changes_of(collection: str, pk: str, state: RowState) -> list[tuple[Version, Change]]:
    """The changes that held values come from: as good as their entries."""
    written: dict[Version, dict[str, Wire]] = defaultdict(dict)
    for name in state.written_fields():
        version = state.version_of(name)
        if version is not None and name in state.held:
            written[version][name] = state.held[name]
    if state.born is not None and state.parked is not None:
        written.setdefault(state.born, {})
    key = loads(pk)
    changes = [
        (version, Change(CREATE if version == state.born else MODIFY, collection, key, values))
        for version, values in written.items()
    ]
    if state.died is not None:
        changes.append((state.died, Change(DELETE, collection, key, None)))
    return changes


def forget_held(state: RowState) -> None:
    """Make a state as if the changes that held values come from had never arrived."""
    if state.parked is not None:
        state.born = state.parked = None
    state.fields = {n: v for n, v in state.fields.items() if n not in state.held}
    state.shape = state.shape.difference(state.held) if state.alive else frozenset()
    state.held = {}


def rename_fields(state: RowState, fields: Fields) -> None:
    """Give the fields of a state the names of today. Of two that become one, the later stays."""
    versions = {name: state.version_of(name) for name in state.written_fields()}
    for old, names in fields.items():
        version, is_held = versions.pop(old, None), old in state.held
        value = state.held.pop(old, None)
        for new in names:
            current = versions.get(new)
            if version is not None and (current is None or version > current):
                versions[new] = version
                state.held.pop(new, None)
            elif current is not None:
                continue
            if is_held:
                state.held[new] = value
    state.shape = frozenset(n for n, v in versions.items() if v and v == state.born)
    state.fields = {n: v for n, v in versions.items() if v and v != state.born}
