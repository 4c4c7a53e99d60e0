"""Entries that become another device's: their versions in the states of rows, their counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from ..changes import Wire, dumps, loads
from ..clock import Version
from ..evolution.formerly import FormerNames
from ..journal.journal import Journal, LocalEntry
from ..merge.reconcile import Listed, RowState
from ..merge.rules import with_write
from ..merge.runs import COUNTER, NewRuns, handed_over, is_increment
from .versions import Versions

Before = tuple[str, Version, Wire]
"""What a run of a field came to before it was left: the field, the run, the increment."""

Restate = Callable[[LocalEntry, str, Wire], tuple[Wire, tuple[Version, Wire] | None]]
"""What an increment of a field says as another device's (see `NewRuns.restated`)."""


class Reattribution:
    """Everything needs an open transaction, and entries that are folded."""

    def __init__(self, journal: Journal, versions: Versions) -> None:
        self._journal = journal
        self._versions = versions
        self._names = versions.names

    def hand_over(self, entries: Sequence[LocalEntry], *, of: str, to: str) -> None:
        """What one device made is another one's from here on, and means what it meant."""
        self._replace(entries, of, to, lambda _, __, value: (handed_over(value, of), None))

    def begin_anew(self, batches: Iterable[Sequence[LocalEntry]], *, of: str, to: str) -> None:
        """The same for all that is not in the log, in order, where `of` goes on elsewhere."""
        runs = NewRuns(of)

        def restate(
            entry: LocalEntry, name: str, value: Wire
        ) -> tuple[Wire, tuple[Version, Wire] | None]:
            collection = self._names.table(entry.collection)
            return runs.restated((collection, entry.pk, name), entry.ticks, value)

        for entries in batches:
            self._replace(entries, of, to, restate)

    def _replace(self, entries: Sequence[LocalEntry], of: str, to: str, restate: Restate) -> None:
        rows: dict[str, dict[str, _Row]] = defaultdict(lambda: defaultdict(lambda: _Row(of, to)))
        changed = []
        for entry in entries:
            row = rows[self._names.table(entry.collection)][entry.pk]
            row.operands[entry.ticks] = {}
            if entry.rules is not None and (said := row.take(entry, restate, self._names)):
                changed.append((dumps({**loads(entry.value or "{}"), **said}), entry.ticks))
        self._journal.run_many("UPDATE sharedlog_entry SET value = ? WHERE ticks = ?", changed)
        for collection, some in rows.items():
            states = self._versions.load(collection, list(some))
            for pk, state in states.items():
                some[pk].rewrite(state)
            self._versions.store(collection, states.items())


class _Row:
    """What becomes of one row."""

    def __init__(self, of: str, to: str) -> None:
        self._of, self._to = of, to
        self.operands: dict[int, dict[str, Wire]] = {}
        """By the timestamps of the entries: what they say of counters."""
        self._left: list[Before] = []

    def take(self, entry: LocalEntry, restate: Restate, names: FormerNames) -> dict[str, Wire]:
        """Note what the entry says of counters; return what it says now, where that is anything
        else, under the names that it was recorded with."""
        values, rules = loads(entry.value or "{}"), loads(entry.rules or "{}")
        said: dict[str, Wire] = {}
        for name, rule in rules.items():
            if rule == COUNTER and is_increment(values.get(name)):
                today = names.field(entry.collection, name)
                value, before = restate(entry, today, values[name])
                if value != values[name]:
                    said[name] = self.operands[entry.ticks][today] = value
                if before is not None:
                    self._left.append((today, *before))
        return said

    def rewrite(self, state: RowState) -> None:
        for name, (rule, writes) in state.writes.items():
            said = [(v, self._operand(name, v, operand)) for v, operand in writes]
            for field, run, operand in self._left:
                if field == name:
                    said = with_write(said, run, operand)
            state.writes[name] = Listed(rule, said)
        state.rename(self._version)

    def _version(self, version: Version) -> Version:
        mine = version.device == self._of and version.ticks in self.operands
        return Version(version.ticks, self._to) if mine else version

    def _operand(self, name: str, version: Version, operand: Wire) -> Wire:
        if version.device != self._of:
            return operand
        return self.operands.get(version.ticks, {}).get(name, operand)
