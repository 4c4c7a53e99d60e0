"""Devices: a database file of the reference work, tracked or not, durable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import peewee

from sharedlog import MemorySharedLog, SharedLog, Sync, SyncModel
from sharedlog.journal.recorder import Capture

from .records import CREATE_TABLE, record_model

PRAGMAS = {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1}

ROWS_PER_INSERT = 500


class Untracked:
    """A database file with the records' table and plain Peewee."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = peewee.SqliteDatabase(str(path), pragmas=PRAGMAS)
        self.model = record_model(self.database, self._base())
        self.database.create_tables([self.model])

    def _base(self) -> Any:
        return peewee.Model

    def insert(self, rows: Iterable[dict[str, Any]]) -> None:
        """Insert rows in bulk, some hundred in a statement and in a transaction."""
        iterator = iter(rows)
        while chunk := list(islice(iterator, ROWS_PER_INSERT)):
            self.model.insert_many(chunk).execute()

    def count(self) -> int:
        return int(self.model.select().count())

    def used_bytes(self) -> int:
        """The size of the file without its free pages."""
        self.database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        pages, free, size = (
            self.database.execute_sql(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def close(self) -> None:
        self.database.close()


class Device(Untracked):
    """The same with its records tracked, and a way to a shared log."""

    def __init__(
        self, path: Path, shared_log: SharedLog | None = None, capture: Capture = "signals"
    ) -> None:
        super().__init__(path)
        log = shared_log or MemorySharedLog()
        self.sync = Sync(self.database, [self.model], shared_log=log, capture=capture).setup()

    def _base(self) -> Any:
        return SyncModel

    def close(self) -> None:
        self.sync.close()
        super().close()


def raw_file(path: Path) -> sqlite3.Connection:
    """A durable file with the records' table, without Peewee: a part of the limit."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.execute(CREATE_TABLE)
    connection.execute("CREATE TABLE checkpoint (seq INTEGER)")
    connection.execute("INSERT INTO checkpoint VALUES (0)")
    connection.commit()
    return connection
