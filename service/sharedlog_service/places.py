"""A log as one transaction sees it, and the places in it: cursors that are checked.

Runs inside the caller's transaction or snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

from sharedlog_service.entries import Cursor, check_of, key
from sharedlog_service.errors import Code, Refused
from sharedlog_service.session import Session


class LogState(NamedTuple):
    """A log as one transaction sees it."""

    id: int
    epoch: str
    head: int
    bytes: int
    shared_on: int

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
        if cursor is not None and cursor.check and cursor != self.cursor(db, seq):
            raise Refused(Code.EPOCH_CHANGED, epoch=self.epoch)
        return seq

    def cursor(self, db: Session, seq: int) -> Cursor:
        sql = "SELECT device, created_on, shared_on FROM entries WHERE id = ?"
        for found in db.rows(sql, key(self.id, seq)):
            return Cursor(self.epoch, seq, check_of(*found))
        return Cursor(self.epoch, seq)


def log_of(db: Session, user: str, *, writing: bool = False) -> LogState:
    """Return a user's log. Who is `writing` has it for himself until the end of the transaction:
    numbers are given, and identities looked for, by one at a time."""
    sql = 'SELECT id, epoch, head, bytes, shared_on FROM logs WHERE "user" = ?'
    for row in db.rows(sql + db.locking if writing else sql, user):
        return LogState(*row)
    raise Refused(Code.USER_UNKNOWN)
