"""Received entries that are not applied: waiting for `reconcile()`, or not readable."""

from __future__ import annotations

from collections.abc import Iterable

from ..changes import Entry
from .journal import Journal


class Inbox:
    """Entries of others. What writes needs an open transaction."""

    def __init__(self, journal: Journal) -> None:
        self._run = journal.run
        self._run_many = journal.run_many
        self._storable = journal.dialect.storable

    def keep(self, entries: Iterable[Entry], unreadable: str | None = None) -> None:
        """Keep entries unapplied; `unreadable` says why they cannot be. The same entry twice
        is kept once."""
        storable = self._storable
        self._run_many(
            "INSERT INTO sharedlog_inbox (device, ticks, offset_ticks, data, reason) "
            "VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (device, ticks) DO UPDATE SET reason = excluded.reason",
            (
                (device, ticks, offset, storable(data), unreadable)
                for device, ticks, offset, data in entries
            ),
        )

    def waiting(self, limit: int) -> list[tuple[int, Entry]]:
        """Entries that nobody tried to apply yet, in order of arrival, with their numbers.

        About so many: never half a transaction of their author.
        """
        cursor = self._run(
            "SELECT number, device, ticks, offset_ticks, data FROM sharedlog_inbox "
            "WHERE reason IS NULL ORDER BY number"
        )
        waiting: list[tuple[int, Entry]] = []
        for number, *rest in cursor:
            entry = Entry(*rest)
            if len(waiting) >= limit and entry.group != waiting[-1][1].group:
                break
            waiting.append((number, entry))
        cursor.close()
        return waiting

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget entries that were applied; those found unreadable meanwhile stay."""
        self._run_many(
            "DELETE FROM sharedlog_inbox WHERE number = ? AND reason IS NULL",
            ((number,) for number in numbers),
        )

    def unreadable(self) -> list[tuple[Entry, str]]:
        """The entries that are set aside, and why."""
        cursor = self._run(
            "SELECT device, ticks, offset_ticks, data, reason FROM sharedlog_inbox "
            "WHERE reason IS NOT NULL ORDER BY number"
        )
        return [(Entry(*row[:4]), row[4]) for row in cursor.fetchall()]

    def forget(self, entry: Entry) -> None:
        """Drop an unreadable entry for good."""
        self._run(
            "DELETE FROM sharedlog_inbox WHERE device = ? AND ticks = ? AND reason IS NOT NULL",
            (entry.device, entry.ticks),
        )

    def try_again(self) -> None:
        """Let unreadable entries wait again: a newer program may understand them."""
        self._run("UPDATE sharedlog_inbox SET reason = NULL WHERE reason IS NOT NULL")
