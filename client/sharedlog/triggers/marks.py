"""Where the transactions of this program begin and end, noted between what triggers note.

SQLite tells a trigger nothing of its transaction. What other programs write is told apart by time
alone (see `traces`); what passes this database object is marked.
"""

from __future__ import annotations

import re
import threading
from typing import Any

import peewee

BEGIN, END = 4, 5
"""Operations of a trace that is none."""

WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|REPLACE|WITH\b.*\b(INSERT|UPDATE|DELETE)\b)", re.I | re.S
)
ENDS = re.compile(r"\s*(COMMIT|END)\b", re.I)
GOES_BACK = re.compile(r"\s*ROLLBACK\b", re.I)


class _Local(threading.local):
    begin: int | None = None
    """The number of this thread's open mark."""


class Marks:
    """Marks the transactions of a database object while it is watched.

    A transaction is marked before its first write and not at all if it has none, nor if nothing
    of what it wrote is tracked. A mark that is missing makes groups larger, never smaller.
    """

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self._local = _Local()
        self._begin_it: Any = database.begin
        self._execute_sql: Any = database.execute_sql
        self._commit: Any = database.commit

    def watch(self) -> None:
        database = self._database
        self._begin_it, self._commit = database.begin, database.commit
        self._execute_sql = database.execute_sql
        database.begin = self._watched_begin  # type: ignore[method-assign]
        database.commit = self._watched_commit  # type: ignore[method-assign]
        database.execute_sql = self._watched_execute_sql  # type: ignore[method-assign]

    def unwatch(self) -> None:
        self._database.begin = self._begin_it  # type: ignore[method-assign]
        self._database.commit = self._commit  # type: ignore[method-assign]
        self._database.execute_sql = self._execute_sql  # type: ignore[method-assign]

    def _watched_begin(self, *args: Any, **options: Any) -> Any:
        self._local.begin = None
        return self._begin_it(*args, **options)

    def _watched_execute_sql(self, sql: str, params: Any = None) -> Any:
        connection = self._database._state.conn  # type: ignore[attr-defined]
        if connection is None or not connection.in_transaction:
            self._local.begin = None
        elif self._local.begin is None:
            if WRITES.match(sql) and "sharedlog_" not in sql:
                self._begin()
        elif ENDS.match(sql):
            self._end()
        elif GOES_BACK.match(sql):
            result = self._execute_sql(sql, params)
            self._look_again()
            return result
        return self._execute_sql(sql, params)

    def _watched_commit(self) -> Any:
        connection = self._database._state.conn  # type: ignore[attr-defined]
        if connection is not None and connection.in_transaction:
            self._end()
        return self._commit()

    def _run(self, sql: str, *parameters: Any) -> Any:
        """Past everybody who counts the application's statements."""
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            return self._database._state.conn.execute(sql, parameters)  # type: ignore[attr-defined]

    def _begin(self) -> None:
        cursor = self._run("INSERT INTO sharedlog_trace (operation) VALUES (?)", BEGIN)
        self._local.begin = cursor.lastrowid

    def _end(self) -> None:
        begin, self._local.begin = self._local.begin, None
        if begin is None:
            return
        if self._run("SELECT max(number) FROM sharedlog_trace").fetchone()[0] == begin:
            self._run("DELETE FROM sharedlog_trace WHERE number = ?", begin)  # it wrote nothing
        else:
            self._run("INSERT INTO sharedlog_trace (operation) VALUES (?)", END)

    def _look_again(self) -> None:
        """The mark may be gone with the savepoint that it was made in."""
        found = self._run("SELECT 1 FROM sharedlog_trace WHERE number = ?", self._local.begin)
        if found.fetchone() is None:
            self._local.begin = None
