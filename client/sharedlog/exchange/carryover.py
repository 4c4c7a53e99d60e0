"""Carrying over what a device knows to a program whose models changed. Once an upgrade.

The application migrates its own tables. What is kept beside them follows here: the states of rows
get the names of today and held values pass the upgraders, before anything is recorded; what was
held for a name that is known now comes into the tables, before anything is exchanged. Local
entries stay as they were recorded: an entry may have reached the log already, and the same entry
must not have two contents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..changes import DELETE, Change, Entry, dumps, loads
from ..clock import BEFORE_TRACKING, Version
from ..errors import EntryUnreadable
from ..evolution.formerly import Fields
from ..evolution.restating import (
    ASIDE,
    aside_of,
    changes_of,
    forget,
    rename_fields,
    said_of,
    upgrade,
)
from ..merge.reconcile import RowState
from ..merge.rules import misfit
from ..models.registry import Registry
from ..models.tracked import Tracked
from .replica import Replica

VALUES = "coalesce(held, buried, cleared, writes) IS NOT NULL"
"""The rows with values beside their tables."""

LEARNED = "learned"
"""Where it is kept what is still to be brought into the tables: new fields by collection."""


class Carryover:
    """What is to be done for a program that is not the last one. Needs an open transaction."""

    def __init__(self, replica: Replica, registry: Registry) -> None:
        self._journal = replica.journal
        self._inbox = replica.inbox
        self._versions = replica.versions
        self._applier = replica.applier
        self._encode = replica.pipeline.encode
        self._evolution = replica.pipeline.evolution
        self._names = registry.names
        self._registry = registry

    def begin(self) -> None:
        """Compare the program with the last one, and let the states of rows follow it. Writes to
        no table of the application; does nothing if the program is the same, or the first."""
        self._versions.forget_numbers()  # another attempt may have failed
        before = self._journal.state("program")
        last = None if before is None else loads(before)
        tables = {tracked.collection: sorted(tracked.names) for tracked in self._registry}
        given_up = self._given_up(last or {}, "tables")
        self._applier.give_up(given_up)
        program = {
            "schema": self._evolution.schema,
            "tables": {**tables, **given_up},
            "formerly": {"tables": self._names.tables, "fields": self._names.fields},
            "rules": {**self._rules(last), **self._given_up(last or {}, "rules")},
        }
        now = dumps(program)
        if before != now:
            if last is not None:
                self._follow(last)
            self._journal.set_state(program=now)

    def _given_up(self, last: Mapping[str, Any], what: str) -> dict[str, Any]:
        """What the last program said of tables that this one does not have, under no name."""
        mine = {
            n for t in self._registry for n in (t.collection, *self._names.of_table(t.collection))
        }
        return {name: said for name, said in last.get(what, {}).items() if name not in mine}

    def _rules(self, last: Mapping[str, Any] | None) -> dict[str, dict[str, tuple[str, int]]]:
        """The rules of this program, and since when this device knows each: what it has of a field
        that is older was written without the rule."""
        now = 0 if last is None or "rules" not in last else self._journal.newest()
        found: dict[str, dict[str, tuple[str, int]]] = {}
        for tracked in self._registry:
            before = self._rules_before(tracked, last or {})
            for name, rule in tracked.rules.items():
                known, ticks = before.get(name, (rule.name, now))
                since = ticks if known == rule.name else now
                tracked.rules[name] = rule.known_since(since)
                found.setdefault(tracked.collection, {})[name] = rule.name, since
        return found

    def _rules_before(self, tracked: Tracked, last: Mapping[str, Any]) -> dict[str, Any]:
        """What the last program said of the rules of this table, by the names of today."""
        names = (tracked.collection, *self._names.of_table(tracked.collection))
        rules = last.get("rules", {})
        said: dict[str, Any] = next((rules[name] for name in names if name in rules), {})
        fields = self._names.fields.get(tracked.collection, {})
        return {new: known for name, known in said.items() for new in fields.get(name, (name,))}

    def aside(self) -> list[str]:
        """What is set aside of tables that are known: by the last program, or by another one that
        is running."""
        known = self._registry.collection
        return [aside for aside in self._versions.asides() if known(said_of(aside)[0])]

    def finish(self) -> None:
        """Bring into the tables what can stand there now. They have to be migrated."""
        found, asides = self._journal.state(LEARNED), self.aside()
        if found is None and not asides:
            return
        self._versions.fold_local()  # what was written here since is newer
        for aside in asides:
            self._merge_again(aside)
        if found is None:
            return
        learned = [(self._registry.collection(name), names) for name, names in loads(found).items()]
        self._applier.release_held([(t, frozenset(names)) for t, names in learned if t])
        self._journal.set_state(**{LEARNED: None})

    def _follow(self, last: Mapping[str, Any]) -> None:
        for aside in self._versions.asides():  # of an earlier upgrade
            collection, *what = said_of(aside)
            self._rename_rows(aside, aside_of(self._names.table(collection), *what))
        for tracked in self._registry:
            self._rename_fields(tracked)
        learned = loads(self._journal.state(LEARNED) or "{}")
        for tracked in self._registry:
            own = self._rename_table(tracked, last["tables"])
            new = tracked.names.difference(last["tables"].get(own, ())).union(learned.pop(own, ()))
            if new:
                learned[tracked.collection] = sorted(new)
        self._journal.set_state(**{LEARNED: dumps(learned)})
        if last["schema"] < self._evolution.schema:
            self._upgrade_values(last["schema"])

    # -- names ---------------------------------------------------------------------------

    def _rename_fields(self, tracked: Tracked) -> None:
        fields, collection = self._names.fields.get(tracked.collection), tracked.collection
        if not fields:
            return
        asides = [aside for aside in self._versions.asides() if said_of(aside)[0] == collection]
        for name in (collection, *self._names.of_table(collection), *asides):
            self._rename_shapes(name, fields)
            for states in self._versions.each(name, f"fields IS NOT NULL OR {VALUES}"):
                clashing = {pk: rename_fields(state, fields) for pk, state in states.items()}
                self._versions.store(name, states.items())
                self._versions.store(
                    aside_of(collection, "fields", name),
                    ((pk, state) for pk, state in clashing.items() if state is not None),
                )

    def _rename_shapes(self, collection: str, fields: Fields) -> None:
        """The same for rows of which only a creation is known: for all of them at once."""
        for number, old in list(self._versions.shapes.values().items()):
            new = frozenset(name for former in old for name in fields.get(former, (former,)))
            if new != old:
                self._journal.run(
                    "UPDATE sharedlog_row SET shape = ? WHERE collection = ? AND shape = ? "
                    f"AND NOT (fields IS NOT NULL OR {VALUES})",
                    (self._versions.shapes.of(new), collection, number),
                )

    def _rename_table(self, tracked: Tracked, known: Mapping[str, Any]) -> str:
        """Give the rows of a table its new name; return the one that it had. What was held under
        one of its other names, by a program that did not know that, is set aside."""
        names = (tracked.collection, *self._names.of_table(tracked.collection))
        own = next((name for name in names if name in known), tracked.collection)
        if len(names) > 1:
            for name in names:
                if name not in known:
                    self._rename_rows(name, aside_of(tracked.collection, "rows", name))
            if own != tracked.collection:
                self._rename_rows(own, tracked.collection)
        return own

    def _rename_rows(self, old: str, new: str) -> None:
        self._journal.run(
            "UPDATE sharedlog_row SET collection = ? WHERE collection = ?", (new, old)
        )

    def _merge_again(self, aside: str) -> None:
        collection, *_ = said_of(aside)
        for states in self._versions.each(aside):
            rows = {
                pk: list(self._fitting(changes_of(collection, loads(pk), state)))
                for pk, state in states.items()
            }
            self._versions.forget([(aside, pk) for pk in states])
            self._applier.merge(collection, {pk: some for pk, some in rows.items() if some})

    def _fitting(
        self, changes: Iterable[tuple[Version, Change]]
    ) -> Iterator[tuple[Version, Change]]:
        """Those of these changes that today's rules can merge; the others wait as entries."""
        for version, change in changes:
            tracked = self._registry.collection(change.collection)
            reason = misfit(change, tracked.rules) if tracked and tracked.rules else None
            if reason is None:
                yield version, change
            else:
                data = self._encode(change._replace(schema=self._evolution.schema))
                self._inbox.keep([Entry(version.device, version.ticks, 0, data)], reason)

    # -- values --------------------------------------------------------------------------

    def _upgrade_values(self, schema: int) -> None:
        """Let values beside the tables pass the upgraders from this schema version on."""
        for name in self._versions.collections(VALUES):
            collection = said_of(name)[0] if name.startswith(ASIDE) else name
            for states in self._versions.each(name, VALUES):
                upgraded = [
                    (pk, self._upgraded(collection, pk, state, schema))
                    for pk, state in states.items()
                ]
                self._versions.store(name, upgraded)

    def _upgraded(self, collection: str, pk: str, state: RowState, schema: int) -> RowState:
        """What cannot be upgraded is set aside, as if it had just arrived."""
        key = loads(pk)
        try:
            return upgrade(state, collection, key, schema, self._evolution)
        except EntryUnreadable as error:
            if state.born == BEFORE_TRACKING or state.writes:
                return state  # it has no entries that could be set aside
            self._inbox.keep(
                (
                    Entry(device, ticks, 0, self._encode(change._replace(schema=schema)))
                    for (ticks, device), change in changes_of(collection, key, state)
                    if change.operation != DELETE
                ),
                error.message,
            )
            return forget(state)
