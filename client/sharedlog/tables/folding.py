"""Merging local changes, whose values stand in the tables already, into what is known of a row."""

from __future__ import annotations

from collections.abc import Mapping

from ..changes import CREATE, DELETE, MODIFY, Change, Wire, dumps
from ..clock import Version
from ..merge.reconcile import NO_RULES, Listed, RowState, merge
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


def fold_listing(
    state: RowState,
    version: Version,
    change: Change,
    tracked: Tracked | None,
    known: Values | None,
    rules: Rules,
) -> None:
    """Merge a local change while the log is read again. What stands in the table is what rules made
    of more than is known of the row now. So lists say what was written, also where the version of
    a field and its value usually do, and the table stays as it is."""
    before, said = dict(state.writes), change.value or {}
    fold(state, version, change, tracked, known, rules)
    for name, listed in before.items():
        if name not in said and state.version_of(name) is not None:
            state.writes.setdefault(name, listed)
    for name, value in said.items():
        rule = rules.get(name)
        if rule and name not in state.writes and state.version_of(name) == version:
            named = change.rules is not None and name in change.rules
            operand = rule.operand(value, created=change.operation == CREATE, named=named)
            state.writes[name] = Listed(rule.name, rule.keep([(version, operand)]))


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
