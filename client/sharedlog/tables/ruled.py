"""Local writes to fields with a merge rule: what is recorded of them, and what comes of them.

What such a write does (adds two, removes a member) is told by the values before and after it,
and by what this device wrote to the field before. What comes of it may be another value than
the one that was written (of a smaller one in a field that keeps the largest, say); so the
table gets it in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..changes import TICKS_END, Wire, loads
from ..clock import Version
from ..errors import ValueRefused
from ..journal.journal import Journal, Record
from ..merge.reconcile import RowState
from ..merge.rules import NOTHING_DONE, MergeRule, Writes, stands_alone
from ..models.registry import Registry
from ..models.tracked import Tracked
from .statements import Values
from .versions import Known, Versions


class RuledWrites:
    """Works inside the open transaction, which has the write lock.

    It is the application's transaction and may be rolled back, so nothing is cached here. `holds`
    is as in `Versions`.
    """

    def __init__(self, journal: Journal, registry: Registry, *, holds: bool = False) -> None:
        self._journal = journal
        self._registry = registry
        self._holds = holds

    def operands(
        self, tracked: Tracked, before: Mapping[str, Values], after: Mapping[str, Values]
    ) -> dict[str, Values]:
        """What a statement did to the fields with a rule of rows that stood and stand: by pk and
        name, what a change says of it, or `NOTHING_DONE`."""
        if not tracked.rules:
            return {}
        versions = self._versions()
        versions.fold_local()
        pks = [pk for pk in after if pk in before]
        states = versions.load(tracked.collection, pks)
        me = self._journal.device_id()
        found: dict[str, Values] = {}
        for pk in pks:
            found[pk] = {}
            for name, rule in tracked.rules.items():
                if name not in after[pk]:
                    continue
                writes = _live(states.get(pk), name, rule)
                old, new = before[pk][name], after[pk][name]
                try:
                    found[pk][name] = rule.written(old, new, writes, me)
                except ValueError as error:
                    raise ValueRefused(f"{tracked.by_name[name]}: {error}.") from None
        return found

    def said(self, tracked: Tracked, pk: str, held: Mapping[str, Wire], values: Values) -> Values:
        """What a change has to say so that a row with the values `held` gets these."""
        before = {name: held.get(name, values[name]) for name in values}
        operands = self.operands(tracked, {pk: before}, {pk: values})[pk]
        said = {name: operands.get(name, value) for name, value in values.items()}
        return {name: value for name, value in said.items() if value is not NOTHING_DONE}

    def settle(self, known: Known | None = None) -> None:
        """Merge what was just recorded, and let the tables have what comes of it. `known` is
        what stood in the rows before."""
        self._versions().fold_local(known)

    def settle_new(self, tracked: Tracked, records: Sequence[Record]) -> None:
        """The same for creations. Usually there is nothing to do: nothing else is known of the
        row, and its values are as the rules have them."""
        known, now = self._versions().load, Version(TICKS_END, "")
        if known(tracked.collection, [record.pk for record in records]) or not all(
            stands_alone(
                now, loads(record.value or "{}"), loads(record.rules or "{}"), tracked.rules
            )
            for record in records
        ):
            self.settle()

    def _versions(self) -> Versions:
        return Versions(self._journal, self._registry, holds=self._holds)


def restated(tracked: Tracked, state: RowState, values: Values) -> Values:
    """The values of a creation after which the row has just these values."""
    said = {
        name: rule.restated(values[name], _live(state, name, rule))
        for name, rule in tracked.rules.items()
        if name in values
    }
    return {**values, **said}


def _live(state: RowState | None, name: str, rule: MergeRule) -> Writes:
    listed = state.writes.get(name) if state is not None else None
    return rule.live(listed.writes, state.died) if state and listed else []
