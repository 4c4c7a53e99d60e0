"""The proof that two databases are equal, by plain sqlite3: nothing of sharedlog takes part."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows a table has, and the SHA-256 of them all, sorted."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table in two files."""

    table: str
    left: Digest
    right: Digest

    @property
    def equal(self) -> bool:
        return self.left == self.right


def compare(left: Path, right: Path, tables: Sequence[str]) -> list[Comparison]:
    """Compare the tables of two database files, row by row, column by column."""
    return [Comparison(table, digest(left, table), digest(right, table)) for table in tables]


def digest(path: Path, table: str) -> Digest:
    with closing(sqlite3.connect(path)) as database:
        rows = sorted(map(repr, database.execute(f'SELECT * FROM "{table}"')))
    return Digest(len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())


def broken_references(path: Path) -> int:
    """How many foreign keys of a database point to rows that are not there."""
    with closing(sqlite3.connect(path)) as database:
        return len(database.execute("PRAGMA foreign_key_check").fetchall())
