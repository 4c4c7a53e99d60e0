"""What `sync()` tells while it works, and what it returns.

A `Conflict` is an event, too: each one is told after the page that brought it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .apply.applier import Applied
from .apply.conflicts import Conflict
from .apply.parking import Parked
from .changes import Entry, Wire
from .remote.sharedlog import Outgoing, Receipt


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins; `method` is the one that was called: sync, send, receive or reconcile.
    `Finished` or `Failed` follows."""

    method: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run did all that it had to do."""

    result: SyncResult


@dataclass(frozen=True, slots=True)
class Failed:
    """A run was given up; its method is about to raise this. `status()` keeps it, too."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Sending:
    """A batch is about to be sent."""

    entries: Sequence[Outgoing]


@dataclass(frozen=True, slots=True)
class Sent:
    """The service answered: what it accepted is durable there."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Received:
    """Entries of other devices arrived; nothing of them is stored yet."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Reconciling:
    """Entries are about to be merged and applied."""

    entries: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Merged, applied and committed, together with the checkpoint."""

    applied: Applied


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts so far in this sync; `pending` is what is left to send."""

    sent: int
    received: int
    pending: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused an entry, or (`VALUE_REFUSED`) what another program wrote cannot be
    carried; it is kept in the client log with the reason."""

    ticks: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Restamped:
    """This device's clock is ahead: unsent entries got new timestamps, in order."""

    entries: int
    lead_ms: int


@dataclass(frozen=True, slots=True)
class RowParked:
    """A row cannot stand in its table, or for another reason than before."""

    row: Parked


@dataclass(frozen=True, slots=True)
class RowReturned:
    """A row that was parked stands in its table."""

    collection: str
    pk: Wire


@dataclass(frozen=True, slots=True)
class RowKept:
    """A row that somebody deleted stands: a child, a later change, or a trigger of the application
    keeps it."""

    collection: str
    pk: Wire


@dataclass(frozen=True, slots=True)
class Forked:
    """This file is a copy of another one that is in use, or was put back from a backup: it goes
    on under another device id. Nothing is lost."""

    former: str
    device: str


@dataclass(frozen=True, slots=True)
class BegunAnew:
    """The log has forgotten deletions that this device had not seen: it was away for too long. It
    reads everything again, as another device; rows that are not in the log any more are deleted.
    What was not sent yet is kept, and sent."""

    former: str
    device: str


@dataclass(frozen=True, slots=True)
class LogShrunk:
    """The log lost entries that it had of this device, as when the service is put back from a
    backup. So many are sent again."""

    entries: int


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """Triggers were missing, or not as we made them, and are put back. What changed in these
    tables meanwhile may be in no log: `adopt()` finds the rows that came and went."""

    collections: Sequence[str]


@dataclass(frozen=True, slots=True)
class PokesBegan:
    """`Live` is told at once, from here on, when another device has written."""


@dataclass(frozen=True, slots=True)
class PokesEnded:
    """`Live` is not told any more, and asks now and then; it tries to be told again after so many
    seconds."""

    error: Exception
    again_s: float


@dataclass(frozen=True, slots=True)
class Postponed:
    """A run by `Live` failed; it is tried again after so many seconds."""

    error: Exception
    again_s: float


Event: TypeAlias = (
    Started
    | Finished
    | Failed
    | Sending
    | Sent
    | Received
    | Reconciling
    | Reconciled
    | Conflict
    | Progress
    | Refused
    | Restamped
    | Forked
    | BegunAnew
    | LogShrunk
    | RowParked
    | RowReturned
    | RowKept
    | Unrecorded
    | PokesBegan
    | PokesEnded
    | Postponed
)
Listener: TypeAlias = Callable[[Event], None]


def told(applied: Applied) -> Iterator[Event]:
    """The events of what was applied, to be told once it is committed."""
    yield Reconciled(applied)
    yield from applied.conflicts
    yield from (RowParked(row) for row in applied.newly_parked)
    yield from (RowReturned(row.collection, row.pk) for row in applied.returned)
    yield from (RowKept(row.collection, row.pk) for row in applied.kept)


@dataclass(slots=True)
class SyncResult:
    """What one `sync()` did.

    Attributes:
        sent: Entries that the service accepted (or had already: `duplicates`).
        duplicates: Of these, those it had already.
        refused: Entries that it refused; they are kept, with the reason.
        received: Entries of other devices.
        created, modified, deleted: Rows changed in the application's tables.
        unreadable: Received entries that were set aside because they are no changes.
        parked: Rows that cannot stand in their table yet.
        conflicts: What met a change of this device, and how each was decided.
        exchanges: Round trips to the service.
    """

    sent: int = 0
    duplicates: int = 0
    refused: int = 0
    received: int = 0
    created: int = 0
    modified: int = 0
    deleted: int = 0
    unreadable: int = 0
    parked: int = 0
    exchanges: int = 0
    conflicts: list[Conflict] = field(default_factory=list)

    def add(self, applied: Applied) -> None:
        self.received += applied.entries
        self.created += applied.created
        self.modified += applied.modified
        self.deleted += applied.deleted
        self.unreadable += applied.unreadable
        self.parked = applied.parked
        self.conflicts += applied.conflicts
