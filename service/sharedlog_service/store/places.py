"""A log as one transaction sees it, and the places in it: cursors that are checked.

Runs inside the caller's transaction or snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

from sharedlog_service.engines.session import Session
from sharedlog_service.entries import Cursor, check_of, key
from sharedlog_service.errors import Code, Refused


class Horizon(NamedTuple):
    """How far deletions were forgotten (see compacting.py): who has not read as far as `seq` has
    missed some, and what was written up to `ticks` could bring their rows back."""

    seq: int = 0
    ticks: int = 0


class Seen(NamedTuple):
    """What a reader has: everything up to `seq`, of a log that it began `since` (see `Cursor`)."""

    seq: int
    since: int


class LogState(NamedTuple):
    """A log as one transaction sees it."""

    id: int
    epoch: str
    head: int
    bytes: int
    shared_on: int
    dropped: int
    horizon: Horizon

    def seq(self, cursor: Cursor | None) -> int:
        """Return a cursor's seq, after making sure that it is one of this log's life."""
        if cursor is None:
            return 0
        if cursor.epoch != self.epoch:
            raise Refused(Code.EPOCH_CHANGED, epoch=self.epoch)
        if cursor.seq > self.head:
            head = Cursor(self.epoch, self.head)
            raise Refused(Code.CURSOR_AHEAD, epoch=self.epoch, head=str(head))
        return cursor.seq

    def checked_seq(self, db: Session, cursor: Cursor | None) -> int:
        """The same, after making sure that what was there is there still."""
        seq = self.seq(cursor)
        if cursor is not None and cursor.check and cursor.check != self.cursor(db, seq).check:
            raise Refused(Code.EPOCH_CHANGED, epoch=self.epoch)
        return seq

    def seen(self, db: Session, cursor: Cursor | None, *, anew: bool) -> Seen:
        """The same, after making sure that the reader has missed nothing that is forgotten. `anew`:
        it has nothing of this log yet, so where it names no cursor it begins at the beginning."""
        seq, since = self.checked_seq(db, cursor), cursor.since if cursor else 0
        if cursor is None and anew:
            since = self.horizon.seq
        if seq < self.horizon.seq and since != self.horizon.seq:
            beginning = Cursor(self.epoch, 0, since=self.horizon.seq)
            raise Refused(Code.HORIZON_PASSED, beginning=str(beginning))
        return Seen(seq, since)

    def cursor(self, db: Session, seq: int, since: int = 0) -> Cursor:
        since = since if seq < self.horizon.seq else 0
        for table in ("entries", "dropped") if seq else ():  # nothing stands at the beginning
            sql = f"SELECT device, created_on, shared_on FROM {table} WHERE id = ?"
            for found in db.rows(sql, key(self.id, seq)):
                return Cursor(self.epoch, seq, check_of(*found), since)
        return Cursor(self.epoch, seq, since=since)


LOG = """
    SELECT id, epoch, head, bytes, shared_on, dropped, horizon, horizon_ticks
    FROM logs WHERE "user" = ?
"""


def log_of(db: Session, user: str, *, writing: bool = False) -> LogState:
    """Return a user's log. Who is `writing` has it for himself until the end of the transaction:
    numbers are given, and identities looked for, by one at a time."""
    for *state, seq, ticks in db.rows(LOG + db.locking if writing else LOG, user):
        return LogState._make([*state, Horizon(seq, ticks)])
    raise Refused(Code.USER_UNKNOWN)
