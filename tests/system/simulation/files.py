"""Database files whose program can die at any statement."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from typing import Any

import peewee

from .faults import Crash

STATEMENTS_KEPT = 2_000
"""So many prepared ones: more than there are texts of them."""


class Fuse:
    """Burns down with every statement, and then everything is over, until it is replaced."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._after = False
        self.blown = False
        self.where = ""

    def light(self, chance: random.Random, statements: int) -> None:
        """Let it blow before or after one of the next statements, if there are so many."""
        self._left = chance.randint(1, statements)
        self._after = chance.random() < 0.5

    def put_out(self) -> None:
        self._left = None

    def run(self, sql: str, statement: Callable[[], Any]) -> Any:
        if self.blown:
            raise Crash("dead already")
        if self._left is None:
            return statement()
        self._left -= 1
        if self._left > 0:
            return statement()
        if self._after:
            statement()
        self.blown, self.where = True, f"{'after' if self._after else 'before'} {sql.split()[0]}"
        raise Crash(self.where)


def open_database(path: str, fuse: Fuse) -> peewee.SqliteDatabase:
    """The application's database. Durability is not what is simulated, so nothing is synced."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            return fuse.run(sql, lambda: super(Cursor, self).execute(sql, parameters))

        def executemany(self, sql: str, rows: Any) -> Any:
            return fuse.run(sql, lambda: super(Cursor, self).executemany(sql, rows))

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    pragmas = {"journal_mode": "wal", "synchronous": 0, "foreign_keys": 1}
    return peewee.SqliteDatabase(
        path, pragmas=pragmas, factory=Connection, cached_statements=STATEMENTS_KEPT
    )


def abandon(database: peewee.SqliteDatabase) -> None:
    """What the end of a process does to its connection: what was not committed is gone."""
    raw = database._state.conn  # type: ignore[attr-defined]
    if raw is not None:
        raw.rollback()  # closing alone leaves the lock to whatever cursor is still alive
        raw.close()
    database._state.reset()  # type: ignore[attr-defined]
