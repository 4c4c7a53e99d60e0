"""What an SQLite file says of its own tables: columns, keys, references, and what hangs on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..dialects import quote
from .ddl import is_without_rowid

ROWID_NAMES = ("rowid", "_rowid_", "oid")

_INSIDES = frozenset(
    (
        *("config", "content", "data", "docsize", "idx", "segdir", "segments", "stat"),
        *("node", "parent", "rowid"),
    )
)
"""How the tables inside of a full-text or R-tree table end."""

Column = tuple[str, str]
"""A table and a column of it, both in lower case."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A column of `table` that refers to a column of another table, or of the same one."""

    table: str
    column: str
    parent: str
    parent_column: str

    @property
    def child(self) -> Column:
        return self.table, self.column

    @property
    def target(self) -> Column:
        return self.parent, self.parent_column


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column as the file has it. `computed` ones are generated: nothing can be put there."""

    name: str
    type: str
    default: str | None
    key_part: int
    computed: bool

    @property
    def is_integer(self) -> bool:
        return "INT" in self.type.upper()


@dataclass(frozen=True, slots=True)
class StoredTable:
    """An ordinary table. `numbered` is the key that SQLite itself numbers, if there is one."""

    name: str
    sql: str
    columns: tuple[StoredColumn, ...]
    without_rowid: bool
    numbered: str | None

    @property
    def id(self) -> str:
        return self.name.lower()

    @property
    def key(self) -> list[str]:
        """The columns of the primary key, in lower case."""
        parts = sorted((c.key_part, c.name.lower()) for c in self.columns if c.key_part)
        return [name for _, name in parts]

    @property
    def rowid(self) -> str | None:
        """A name for the number that SQLite gives every row, unless columns took them all."""
        taken = {column.name.lower() for column in self.columns}
        free = (name for name in ROWID_NAMES if name not in taken)
        return None if self.without_rowid else next(free, None)

    def column(self, name: str) -> StoredColumn | None:
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)


class Item(NamedTuple):
    """An index, a trigger or a view, with the statement that makes it."""

    kind: str
    name: str
    table: str
    sql: str


class Catalog:
    """The schema of one file as it is now. Names of tables are in lower case."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        rows = self._run("SELECT type, name, tbl_name, sql FROM main.sqlite_master").fetchall()
        self.virtual = {
            name.lower(): sql
            for kind, name, _, sql in rows
            if kind == "table" and sql.upper().startswith("CREATE VIRTUAL")
        }
        self.items = [Item(*row) for row in rows if row[0] != "table" and row[3] is not None]
        self.tables = {
            name.lower(): self._table(name, sql)
            for kind, name, _, sql in rows
            if kind == "table" and not self._is_internal(name.lower())
        }
        self.references = [ref for table in self.tables.values() for ref in self._declared(table)]

    def of_kind(self, *kinds: str) -> list[Item]:
        return [item for item in self.items if item.kind in kinds]

    def _is_internal(self, name: str) -> bool:
        """Whether it is SQLite's own, ours, or holds what is inside of a virtual table."""
        owner, _, part = name.rpartition("_")
        inside = owner in self.virtual and part in _INSIDES
        return name.startswith(("sqlite_", "sharedlog_")) or name in self.virtual or inside

    def _table(self, name: str, sql: str) -> StoredTable:
        columns = tuple(
            StoredColumn(column, kind, default, part, hidden in (2, 3))
            for _, column, kind, _, default, part, hidden in self._pragma("table_xinfo", name)
        )
        without_rowid = is_without_rowid(sql)
        key = [column for column in columns if column.key_part]
        numbered = None
        if len(key) == 1 and key[0].type.upper() == "INTEGER" and not without_rowid:
            # With an index of its own the key is no row number (INTEGER PRIMARY KEY DESC).
            indexed = any(row[3] == "pk" for row in self._pragma("index_list", name))
            numbered = None if indexed else key[0].name
        return StoredTable(name, sql, columns, without_rowid, numbered)

    def _declared(self, table: StoredTable) -> Iterator[Reference]:
        for _, place, parent, column, to, *_ in self._pragma("foreign_key_list", table.name):
            known = self.tables.get(parent.lower())
            if to is None and known is not None and place < len(known.key):
                to = known.key[place]
            if to is not None:
                yield Reference(table.id, column.lower(), parent.lower(), to.lower())

    def _pragma(self, name: str, table: str) -> Sequence[Any]:
        return self._run(f"PRAGMA main.{name}({quote(table)})").fetchall()
