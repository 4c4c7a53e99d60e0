"""A log as one transaction sees it, and the places in it: cursors that are checked.

Runs inside the caller's transaction or snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

import peewee

from sharedlog_service.database import rows
from sharedlog_service.entries import Cursor, check_of, key
from sharedlog_service.errors import Code, Refused


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

    def checked_seq(self, db: peewee.Database, cursor: Cursor | None) -> int:
        """The same, after making sure that what was there is there still."""
        seq = self.seq(cursor)
        if cursor is not None and cursor.check and cursor != self.cursor(db, seq):
            raise Refused(Code.EPOCH_CHANGED, epoch=self.epoch)
        return seq

    def cursor(self, db: peewee.Database, seq: int) -> Cursor:
        sql = "SELECT device, created_on, shared_on FROM entries WHERE id = ?"
        for found in rows(db, sql, key(self.id, seq)):
            return Cursor(self.epoch, seq, check_of(*found))
        return Cursor(self.epoch, seq)


def log_of(db: peewee.Database, user: str) -> LogState:
    sql = 'SELECT id, epoch, head, bytes, shared_on FROM logs WHERE "user" = ?'
    for row in rows(db, sql, user):
        return LogState(*row)
    raise Refused(Code.USER_UNKNOWN)
