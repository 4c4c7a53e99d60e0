"""Timestamps for entries that are older than what a log remembers: just behind that.

They stay as old as they can be, so that what was written after them, here or elsewhere, still wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from .journal import Journal


def lift(journal: Journal, ticks: Sequence[int], horizon: int) -> dict[int, int]:
    """Give these unsent entries the first free timestamps after `horizon`, in their order, inside
    the open transaction; return the new ones by the old ones."""
    renamed: dict[int, int] = {}
    starts: dict[int, int] = {}
    moves = []
    last = horizon
    for old, entry in sorted(journal.entries_at(ticks).items()):
        last += 1
        while journal.entries_at([last]):
            last += 1
        renamed[old] = last
        start = starts.setdefault(old - entry.offset, last)
        moves.append((last, last - start, old))
    if renamed:
        journal.rename_counters(min(renamed), renamed)
        journal.run_many(
            "UPDATE sharedlog_entry SET ticks = ?, offset_ticks = ? WHERE ticks = ?", moves
        )
        journal.set_state(all_sent_until="0")
    return renamed
