"""Received entries that are not applied: waiting for `reconcile()`, or not readable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..changes import Entry
from .journal import Journal

DOUBTFUL = ""
"""In the place of a reason: the log that the entry came from lost its end since."""

WAITING = f"ifnull(reason, '{DOUBTFUL}') = '{DOUBTFUL}'"
UNREADABLE = f"reason <> '{DOUBTFUL}'"


class Waiting(NamedTuple):
    """An entry that nobody tried to apply yet. The log may not have it any more, if `doubtful`."""

    number: int
    entry: Entry
    doubtful: bool


class Inbox:
    """Entries of others. What writes needs an open transaction."""

    def __init__(self, journal: Journal) -> None:
        self._run = journal.run
        self._run_many = journal.run_many
        self._storable = journal.dialect.storable

    def keep(self, entries: Iterable[Entry], unreadable: str | None = None) -> None:
        """Keep entries unapplied; `unreadable` says why they cannot be. The same entry twice
        is kept once: as it was read last, from what may be another log by now."""
        storable = self._storable
        self._run_many(
            "INSERT INTO sharedlog_inbox (device, ticks, offset_ticks, data, reason) "
            "VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (device, ticks) DO UPDATE SET "
            "offset_ticks = excluded.offset_ticks, data = excluded.data, reason = excluded.reason",
            (
                (device, ticks, offset, storable(data), unreadable)
                for device, ticks, offset, data in entries
            ),
        )

    def waiting(self, limit: int) -> list[Waiting]:
        """Entries that nobody tried to apply yet, in order of arrival.

        About so many: never half a transaction of their author.
        """
        cursor = self._run(
            "SELECT number, device, ticks, offset_ticks, data, reason FROM sharedlog_inbox "
            f"WHERE {WAITING} ORDER BY number"
        )
        waiting: list[Waiting] = []
        for number, *rest, reason in cursor:
            entry = Entry(*rest)
            if len(waiting) >= limit and entry.group != waiting[-1].entry.group:
                break
            waiting.append(Waiting(number, entry, reason == DOUBTFUL))
        cursor.close()
        return waiting

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget entries that were applied; those found unreadable meanwhile stay."""
        self._run_many(
            f"DELETE FROM sharedlog_inbox WHERE number = ? AND {WAITING}",
            ((number,) for number in numbers),
        )

    def unreadable(self) -> list[tuple[Entry, str]]:
        """The entries that are set aside, and why."""
        cursor = self._run(
            "SELECT device, ticks, offset_ticks, data, reason FROM sharedlog_inbox "
            f"WHERE {UNREADABLE} ORDER BY number"
        )
        return [(Entry(*row[:4]), row[4]) for row in cursor.fetchall()]

    def forget(self, entry: Entry) -> None:
        """Drop an unreadable entry for good."""
        self._run(
            f"DELETE FROM sharedlog_inbox WHERE device = ? AND ticks = ? AND {UNREADABLE}",
            (entry.device, entry.ticks),
        )

    def try_again(self) -> None:
        """Let unreadable entries wait again: a newer program may understand them. Nobody knows what
        became of the log meanwhile."""
        self._run(f"UPDATE sharedlog_inbox SET reason = '{DOUBTFUL}' WHERE {UNREADABLE}")

    def doubt(self) -> None:
        """The log may have lost what waits."""
        self._run(f"UPDATE sharedlog_inbox SET reason = '{DOUBTFUL}' WHERE reason IS NULL")

    def forget_doubtful(self, until: int) -> None:
        """The log says itself what it has up to this timestamp."""
        self._run(
            f"DELETE FROM sharedlog_inbox WHERE reason = '{DOUBTFUL}' AND ticks <= ?", (until,)
        )
