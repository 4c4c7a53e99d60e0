"""Reading everything again, when the log has forgotten deletions that this device has not seen.

A device that was away for very long may have rows that were deleted meanwhile, and the log has
nothing to say of them any more. So what was known of all rows is forgotten but for what only this
device has, the log is read from its beginning as by a new device, and what stands in the tables
and was not said by then is no more: rows that the log does not know, and values of fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apply.applier import Applier
from ..apply.arrivals import Changes
from ..capture.adopt import Adoption, unsaid_of
from ..changes import DELETE, Change, loads
from ..clock import BEFORE_TRACKING, Version
from ..journal.journal import SENT, Journal
from ..merge.reconcile import RowState
from ..models.tracked import Tracked
from ..tables.statements import Values
from ..tables.versions import Versions
from .identity import Identity

FIRST = Version(1, "")
"""Later than what is from before tracking, and earlier than all that was ever recorded."""


def forget(journal: Journal, identity: Identity, versions: Versions) -> None:
    """Become another device, which has read nothing, inside the open transaction."""
    journal.raise_floor_over_sent()
    # What the log had is read from it, as far as it still is there, and is not offered again.
    journal.run(f"DELETE FROM sharedlog_entry WHERE status = {SENT}")
    identity.fork()
    parked = {name: versions.parked(name) for name in sorted(versions.waiting_collections())}
    journal.run("DELETE FROM sharedlog_row")
    journal.set_state(checkpoint=None, folded_until=None, seen_until=None, relearning="1")
    versions.fold_local()
    for collection, states in parked.items():
        _park_again(versions, collection, states)


def _park_again(versions: Versions, collection: str, parked: Mapping[str, RowState]) -> None:
    """Local entries are taken to stand in their tables, once they are folded; these do not."""
    states = versions.load(collection, list(parked))
    for pk, state in states.items():
        written = state.written_fields()
        state.parked = parked[pk].parked
        state.held = {name: v for name, v in parked[pk].held.items() if name in written}
    versions.store(collection, states.items())


class Clearance(Adoption):
    """One pass over all tracked tables, after all was read: what nobody said goes."""

    def clear(self, applier: Applier) -> None:
        def clear_chunk(tracked: Tracked, rows: list[Any]) -> None:
            found = dict(self.readable(tracked, rows))
            states = self._versions.load(tracked.collection, list(found))
            standing = {pk: state for pk, state in states.items() if state.stands}
            if deletions := _deletions(tracked, found, standing):
                applier.merge(tracked.collection, deletions)

        for tracked in reversed(self._tables):
            self.chunk_by_chunk(tracked, clear_chunk, self.rows_after)
        with self._writing():
            self._clear_parked(applier)
            self._journal.set_state(relearning=None)

    def _clear_parked(self, applier: Applier) -> None:
        """What was in a table, and was parked because of what was read."""
        for tracked in reversed(self._tables):
            states = self._versions.parked(tracked.collection)
            found = {pk: state.held for pk, state in states.items()}
            if deletions := _deletions(tracked, found, states):
                applier.merge(tracked.collection, deletions)


def _deletions(
    tracked: Tracked, found: Mapping[str, Values], states: Mapping[str, RowState]
) -> Changes:
    """Of rows of which something was not said, by their values and, as far as they are known,
    their states."""
    return {
        pk: [(FIRST, Change(DELETE, tracked.collection, loads(pk), None))]
        for pk, values in found.items()
        if pk not in states
        or states[pk].born == BEFORE_TRACKING
        or unsaid_of(tracked, states[pk], values)
    }
