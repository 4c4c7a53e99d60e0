"""What is to be done with a row, by its state alone: before it is looked at who else is there."""

from __future__ import annotations

from ..changes import DELETE, Change, loads
from ..clock import Version
from ..merge.reconcile import RowState
from ..models.tracked import Tracked
from ..tables.rows import KEPT, Work


def needs_table(
    state: RowState,
    changes: list[tuple[Version, Change]],
    local_since: int | None,
    tracked: Tracked,
) -> bool:
    """Whether merging needs the values that are in the table now."""
    if not state.alive or state.parked is not None:
        return False
    if tracked.rules:
        return True
    if (state.fields or tracked.buries) and any(c.operation == DELETE for _, c in changes):
        return True
    return local_since is not None and any(
        version is not None and version.ticks >= local_since
        for version in (state.born, *state.fields.values())
    )


def prepared(work: Work, *, recreated: bool) -> Work:
    """Decide what is to be done with a merged row's table, and hold what it cannot take."""
    state, names = work.state, work.tracked.names
    if not state.alive:
        state.held.update(work.written)
        state.parked, state.cleared = None, {}
        return work
    state.kept = False
    if not work.in_table:
        return to_insert(work)
    state.parked = None
    # A row that was kept holds what was written after its deletion.
    values = {**state.held, **work.written} if state.held else work.written
    state.held = {name: value for name, value in values.items() if name not in names}
    work.written = {name: value for name, value in values.items() if name in names}
    if recreated:
        for name in names:
            if state.version_of(name) is None:
                work.written[name] = work.tracked.default_wire(name)
    for name in work.written:
        state.cleared.pop(name, None)
    return work


def before_of(state: RowState) -> str | None:
    """Why a row was parked until now; KEPT if it was kept."""
    return state.parked or (KEPT if state.kept else None)


def tried_again(tracked: Tracked, pk: str, state: RowState) -> Work:
    """A row that waits. One that was parked and never let go is written anew in its table."""
    is_there, before = state.kept, before_of(state)
    if state.dead or state.parked is None:
        state.parked = None
        return Work(tracked, pk, loads(pk), state, {}, state.stands, before=before)
    state.kept = False
    work = to_insert(Work(tracked, pk, loads(pk), state, {}, False, before=before))
    if is_there:
        work.is_found()
    return work


def to_insert(work: Work) -> Work:
    """Collect all values of an alive row that is not in its table."""
    state, tracked = work.state, work.tracked
    state.parked = None
    values = {**state.held, **work.written}
    state.held = {name: value for name, value in values.items() if name not in tracked.names}
    work.values = {
        name: values[name] if name in values else tracked.default_wire(name)
        for name in tracked.by_name
    }
    work.values |= state.ruled(tracked.rules)
    return work
