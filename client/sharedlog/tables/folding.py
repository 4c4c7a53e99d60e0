"""Merging local changes, whose values stand in the tables already, into what is known of a row."""

from __future__ import annotations

from collections.abc import Mapping

from ..changes import DELETE, MODIFY, Change, Wire, dumps
from ..clock import Version
from ..merge.reconcile import NO_RULES, RowState, merge
from ..merge.rules import Rules
from ..models.tracked import Tracked

Values = Mapping[str, Wire]


def fold(
    state: RowState,
    version: Version,
    change: Change,
    tracked: Tracked | None,
    known: Values | None = None,
    rules: Rules = NO_RULES,
) -> Values:
    """Merge a local change. Its values stand in the table, but for those of parked rows, and
    those of dead ones are held, too. A deletion may say what the row was (see `Record`)."""
    buries = tracked is not None and tracked.buries
    if change.operation == DELETE:
        known, buries, change = change.value, change.value is not None, change._replace(value=None)
    written = merge(state, [(version, change)], known=known, bury=buries, rules=rules)
    if change.operation != MODIFY:
        state.parked, state.kept, state.cleared = None, False, {}
    if not state.alive or state.parked is not None:
        state.held.update(written)
    else:
        for name in written:
            state.held.pop(name, None)
            state.cleared.pop(name, None)
    return written


def note_due(
    due: dict[str, Wire], state: RowState, change: Change, written: Values, rules: Rules
) -> None:
    """Note what the table lacks after a local change, which stands there as it was said."""
    said = change.value or {}
    found = {**written, **state.ruled(rules, kept=state.kept)}
    for name in rules:
        if name in said or name in written:
            due.pop(name, None)
            if name in found and not (name in said and dumps(said[name]) == dumps(found[name])):
                due[name] = found[name]
