"""SQLite: our statements are written for it, and a column keeps a value of any type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import peewee

from .base import (
    PLAIN,
    Dialect,
    ForeignKey,
    Trigger,
    UniqueIndex,
    as_foreign_keys,
    as_unique_indexes,
    quote,
)
from .tokens import conflict_words, index_said

_UNIQUE_INDEXES = """SELECT list.name, list.partial, part.name, part.coll
    FROM pragma_index_list(?, ?) AS list, pragma_index_xinfo(list.name, ?) AS part
    WHERE list."unique" AND part.key ORDER BY list.seq, part.seqno"""

_FOREIGN_KEYS = """SELECT made.name, part.id, part."from", part."table", part.on_delete,
        part.on_update
    FROM {}sqlite_master AS made, pragma_foreign_key_list(made.name, ?) AS part
    WHERE made.type = 'table' ORDER BY made.name, part.id, part.seq"""

# No pragma tells what a column compares by. So it is asked to; the first part gives its collation.
_COMPARED = """SELECT value = 'Aé', value = 'AÉ', value = 'aé '
    FROM (SELECT {} AS value FROM {} WHERE 0 UNION ALL SELECT 'aé')"""

_COLLATIONS: Mapping[tuple[int, ...], str] = {(1, 0, 0): "NOCASE", (0, 0, 1): "RTRIM"}

_ENDS = re.compile(r"\bRAISE\s*\(\s*ROLLBACK\b", re.IGNORECASE)


class SQLite(Dialect):
    name = "sqlite"
    typed = False
    greatest = "max"
    key_chars = None
    # No row is changed: beginning to look for one takes the lock.
    write_lock = "UPDATE sharedlog_clock SET floor = floor WHERE one = 0"
    # A transaction that reads first and writes later fails at once, whatever the busy timeout,
    # when another connection wrote in between.
    writing = "IMMEDIATE"
    # With a write-ahead log no writer has to wait for it.
    reading = "DEFERRED"
    in_transaction = attrgetter("in_transaction")

    def __init__(self) -> None:
        super().__init__()
        self._unique: dict[tuple[str, str | None], tuple[int, list[UniqueIndex]]] = {}

    def run(self, database: peewee.Database, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return database.execute_sql(sql, parameters)

    def _text(self, sql: str) -> str:
        return sql

    def layout(self, statement: str) -> str:
        return statement

    def differs(self, column: str) -> str:
        return f"{column} IS NOT ?"

    def committed_unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        prefix = f"{quote(schema)}." if schema else ""
        # The number of changes of the schema, and one pragma in place of many.
        changes = database.execute_sql(f"PRAGMA {prefix}schema_version").fetchone()[0]
        known = self._unique.get((table, schema))
        if known is None or known[0] != changes:
            found = self.unique_indexes(database, table, schema)
            known = self._unique[table, schema] = changes, found
        return known[1]

    def unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        rows = database.execute_sql(_UNIQUE_INDEXES, (table, schema, schema)).fetchall()
        prefix = f"{quote(schema)}." if schema else ""
        made = f"SELECT sql FROM {prefix}sqlite_master WHERE type = 'index' AND name = ?"
        found = as_unique_indexes(rows)
        for name, index in found.items():
            if not index.is_plain:
                (sql,) = database.execute_sql(made, (name,)).fetchone()
                said, where = index_said(sql)
                found[name] = index._replace(said=said, where=where)
        return list(found.values())

    def collation(
        self, database: peewee.Database, schema: str | None, table: str, column: str
    ) -> str:
        place = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
        found = database.execute_sql(_COMPARED.format(quote(column), place)).fetchone()
        return _COLLATIONS.get(tuple(found), PLAIN)

    def foreign_keys(self, database: peewee.Database, schema: str | None) -> list[ForeignKey]:
        sql = _FOREIGN_KEYS.format(f"{quote(schema)}." if schema else "")
        try:
            rows = database.execute_sql(sql, (schema or "main",)).fetchall()
        except peewee.OperationalError:  # the schema's database is yet to be attached
            return []
        return as_foreign_keys(rows)

    def triggers(self, database: peewee.Database) -> list[Trigger]:
        cursor = database.execute_sql(
            "SELECT name, tbl_name, sql FROM sqlite_master "
            "WHERE type = 'trigger' AND name GLOB 'sharedlog_*'"
        )
        return [Trigger(name, on, sql, quote(on)) for name, on, sql in cursor.fetchall()]

    def ending_triggers(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[str]:
        found = _made(database, "trigger", table, schema)
        return [name for name, sql in found if _ENDS.search(sql)]

    def conflict_clauses(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[str]:
        return [
            word
            for _, sql in _made(database, "table", table, schema)
            for word in conflict_words(sql)
            if word != "ABORT"
        ]

    def defer_foreign_keys(self, database: peewee.Database) -> AbstractContextManager[None]:
        database.execute_sql("PRAGMA defer_foreign_keys = 1")
        return nullcontext()


def _made(
    database: peewee.Database, kind: str, table: str, schema: str | None
) -> list[tuple[str, str]]:
    """What made a table, or its triggers: names and statements."""
    prefix = f"{quote(schema)}." if schema else ""
    sql = f"SELECT name, sql FROM {prefix}sqlite_master WHERE type = ? AND tbl_name = ?"
    try:
        return list(database.execute_sql(f"{sql} COLLATE NOCASE", (kind, table)).fetchall())
    except peewee.OperationalError:  # the schema's database is yet to be attached
        return []
