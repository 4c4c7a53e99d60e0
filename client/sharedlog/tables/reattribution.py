"""Entries that become another device's: their versions in the states of rows, their counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

from ..changes import Wire
from ..clock import Version
from ..journal.journal import Journal, LocalEntry
from ..merge.counter import alone_of, is_increment, is_lost
from ..merge.reconcile import Listed, RowState
from ..merge.rules import with_write
from ..merge.runs import COUNTER, Handover, counts_of
from .versions import Versions

Before = tuple[str, Version, Wire]
"""What a run of a field came to before it was left: the field, the run, the increment."""


class Reattribution:
    """Everything needs an open transaction, and entries that are folded."""

    def __init__(self, journal: Journal, versions: Versions) -> None:
        self._journal = journal
        self._versions = versions
        self._names = versions.names

    def hand_over(
        self,
        batches: Iterable[Sequence[LocalEntry]],
        *,
        of: str,
        to: str,
        left: Container[str] = (),
    ) -> bool:
        """What one device made is another one's from here on, and means what it meant. Increments
        leave the runs of `left`; then the entries are all that are not in the log, in order.
        Return whether any did."""
        handover = Handover(of, to, left)
        for entries in batches:
            self._replace(entries, of, to, handover)
        return handover.has_left

    def _replace(self, entries: Sequence[LocalEntry], of: str, to: str, handover: Handover) -> None:
        rows: dict[str, dict[str, _Row]] = defaultdict(lambda: defaultdict(lambda: _Row(of, to)))
        for entry in entries:
            collection = self._names.table(entry.collection)
            row = rows[collection][entry.pk]
            row.operands[entry.ticks] = {}
            said = {}
            for name, value in counts_of(entry.value, entry.rules).items():
                field = self._names.field(entry.collection, name)
                restated, before = value, None
                if is_increment(value):
                    key = (collection, entry.pk, field)
                    restated, before = handover.restated(key, entry.ticks, value)
                row.operands[entry.ticks][field] = value, restated
                if restated != value:
                    said[name] = restated
                if before is not None:
                    row.left.append((field, *before))
            if said:
                self._journal.restate(entry, said)
        for collection, some in rows.items():
            states = self._versions.load(collection, list(some))
            for pk, state in states.items():
                some[pk].rewrite(state)
            self._versions.store(collection, states.items())


class _Row:
    """What becomes of one row."""

    def __init__(self, of: str, to: str) -> None:
        self._of, self._to = of, to
        self.operands: dict[int, dict[str, tuple[Wire, Wire]]] = {}
        """By the timestamps of the entries: what they said of counters, and say now."""
        self.left: list[Before] = []

    def rewrite(self, state: RowState) -> None:
        theirs: list[Before] = []
        for name, (rule, writes) in state.writes.items():
            if rule == COUNTER:
                some = [write for write in writes if self._is_theirs(name, *write)]
                said = [(v, self._said(name, v, o)) for v, o in writes if (v, o) not in some]
                for field, run, operand in self.left:
                    if field == name:
                        said = with_write(said, run, operand)
                state.writes[name] = Listed(rule, said)
                theirs += [(name, *write) for write in some]
        state.rename(self._version)
        for name, version, operand in theirs:
            writes = with_write(state.writes[name].writes, version, operand)
            state.writes[name] = Listed(COUNTER, writes)

    def _is_theirs(self, name: str, version: Version, operand: Wire) -> bool:
        """Whether this was read, of another copy that wrote at the same tick."""
        if version.device != self._of or version.ticks not in self.operands or is_lost(operand):
            return False
        mine, _ = self.operands[version.ticks].get(name, (None, None))
        if is_increment(mine) and is_increment(operand):
            return alone_of(version, mine) != alone_of(version, operand)
        return is_increment(mine) or is_increment(operand)

    def _version(self, version: Version) -> Version:
        mine = version.device == self._of and version.ticks in self.operands
        return Version(version.ticks, self._to) if mine else version

    def _said(self, name: str, version: Version, operand: Wire) -> Wire:
        if version.device != self._of:
            return operand
        _, said = self.operands.get(version.ticks, {}).get(name, (None, operand))
        return said
