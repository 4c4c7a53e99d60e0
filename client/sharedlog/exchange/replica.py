"""The parts of one device, as an exchange works with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..apply.applier import Applier
from ..changes import Entry
from ..events import Event
from ..journal.inbox import Inbox
from ..journal.journal import Journal, LocalEntry
from ..remote.sharedlog import SharedLog
from ..tables.versions import Versions
from .identity import Identity
from .pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """`writing` opens a write transaction of the local database; `emit` tells listeners."""

    journal: Journal
    inbox: Inbox
    versions: Versions
    identity: Identity
    applier: Applier
    pipeline: Pipeline
    shared_log: SharedLog
    batch_size: int
    byte_limit: int
    writing: Callable[[], AbstractContextManager[None]]
    emit: Callable[[Event], None]

    def merge_own(self, entries: Sequence[LocalEntry]) -> None:
        """Merge local entries once more, inside the open transaction. At once, also where what was
        read waits: they may get other timestamps yet, or become another device's, and what is in
        the inbox would not hear of it. (Of tables that this program has not, they are known by
        the folding of the client log alone.)"""
        given_up, today = self.applier.given_up, self.versions.names.table
        batch, _ = self.pipeline.outgoing(
            [entry for entry in entries if today(entry.collection) not in given_up]
        )
        authors = {entry.ticks: entry.author or self.identity.device for entry in entries}
        self.applier.apply([Entry(authors[entry.ticks], *entry) for entry in batch])

    @property
    def entries_max(self) -> int:
        """Entries in one exchange, each way."""
        return min(self.batch_size, self.journal.limits.batch_entries)

    @property
    def bytes_max(self) -> int:
        """Bytes of entries in one exchange, each way."""
        return min(self.byte_limit, self.journal.limits.batch_bytes)
