"""MySQL and MariaDB, by PyMySQL.

They cannot say which rows a statement wrote, so rows are compared before and after it. A
transaction that saw the database at an earlier moment would compare what is not true any more:
the transactions of a watched database object read what is committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import peewee

from .base import (
    PLAIN,
    TEXTS_AND_NAMES,
    Dialect,
    ForeignKey,
    UniqueIndex,
    as_foreign_keys,
    as_unique_indexes,
)

IN_TRANSACTION = 1
"""The flag in what the server tells of itself with each answer."""

LOCK_S = 60
"""How long to wait for others who make our tables."""

KEYS: Mapping[str, str] = {
    "collection": "VARCHAR(255)",
    "pk": "VARCHAR(512)",
    "device": "VARCHAR(255)",
    "key": "VARCHAR(255)",
}
"""Columns of indexes, which MySQL bounds to 3,072 bytes together."""

INDEXES: Mapping[str, Sequence[str]] = {
    "sharedlog_entry": ("reason(8)",),
    "sharedlog_row": ("parked(8)", "held(8)", "kept", "cleared(8)"),
}
"""In place of partial indexes, which MySQL has not: those that hold NULL find the others, too."""

_UPSERT = re.compile(r"ON CONFLICT \(([^)]*)\) DO (?:UPDATE SET (.*)|NOTHING)", re.S)
_EXCLUDED = re.compile(r'excluded\.("(?:[^"]|"")*"|\w+)')

UNFIT = frozenset((1264, 1265, 1292, 1364, 1366, 1406, 1411, 3140))
"""The numbers of errors for values that do not fit."""

REFUSED = frozenset((1644, 3819, 4025))
"""Those of CHECK constraints, and of triggers that refuse a row."""

# One table of information_schema at a time: to join two of them, the server looks into every
# table that it has (15 to 40 ms beside 0.5).
_UNIQUE_INDEXES = """SELECT index_name, column_name, sub_part FROM information_schema.statistics
    WHERE table_name = ? AND table_schema = coalesce(?, database()) AND non_unique = 0
    ORDER BY index_name, seq_in_index"""

_COLLATIONS = """SELECT column_name, collation_name FROM information_schema.columns
    WHERE table_name = ? AND table_schema = coalesce(?, database())"""

_FOREIGN_KEYS = """SELECT table_name, constraint_name, column_name, referenced_table_name
    FROM information_schema.key_column_usage
    WHERE table_schema = coalesce(?, database()) AND referenced_table_name IS NOT NULL
    ORDER BY table_name, constraint_name, ordinal_position"""

_ACTS = """SELECT table_name, constraint_name, delete_rule, update_rule
    FROM information_schema.referential_constraints
    WHERE constraint_schema = coalesce(?, database())"""


class MySQL(Dialect):
    name = "mysql"
    tokens = re.compile(rf"{TEXTS_AND_NAMES}|\?|%|\b(?:key|schema)\b")
    returning = False
    usual = "READ COMMITTED"
    writing = "READ COMMITTED"

    @staticmethod
    def in_transaction(connection: Any) -> bool:
        return bool(connection.server_status & IN_TRANSACTION)

    def words(self, sql: str) -> str:
        sql = sql.replace("INSERT OR IGNORE", "INSERT IGNORE")
        sql = sql.replace("INSERT OR REPLACE", "REPLACE")
        return _UPSERT.sub(_upsert, sql)

    def _token(self, match: re.Match[str]) -> str:
        return f"`{match[0]}`" if match[0].isalpha() else super()._token(match)

    def quoted(self, name: str) -> str:
        return "`" + name[1:-1].replace('""', '"').replace("`", "``") + "`"

    def layout(self, statement: str) -> str | None:
        if statement.lstrip().startswith("CREATE INDEX"):
            return None  # see INDEXES
        statement = re.sub(r"\bWITHOUT ROWID\b", "", statement)
        statement = statement.replace("AUTOINCREMENT", "AUTO_INCREMENT")
        statement = re.sub(r"\bINTEGER\b", "BIGINT", statement)
        statement = re.sub(r"\bTEXT UNIQUE\b", "LONGTEXT", statement)
        statement = re.sub(r"\b(\w+) TEXT\b", _text_type, statement)
        if found := re.match(r"\s*CREATE TABLE IF NOT EXISTS (\w+)", statement):
            indexes = "".join(f", INDEX ({part})" for part in INDEXES.get(found[1], ()))
            statement = f"{statement.rstrip().removesuffix(')')}{indexes})"
            statement += " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        return statement

    def differs(self, column: str) -> str:
        return f"NOT ({column} <=> ?)"

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except (peewee.OperationalError, peewee.InternalError) as error:
            number = error.args[0] if error.args else None
            if number in UNFIT:
                raise peewee.DataError(*error.args) from error
            if number in REFUSED:
                raise peewee.IntegrityError(*error.args) from error
            raise

    def savepoint(self, depth: int) -> str:
        return f"sharedlog_{depth}"  # two of one name would be one

    @contextmanager
    def making_tables(self, database: peewee.Database) -> Iterator[None]:
        """Making a table commits, so only a lock of the connection holds that long."""
        self.run(database, "SELECT get_lock('sharedlog', ?)", (LOCK_S,)).fetchone()
        try:
            yield
        finally:
            self.run(database, "SELECT release_lock('sharedlog')").fetchone()

    def unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        rows = self.run(database, _UNIQUE_INDEXES, (table, schema)).fetchall()
        collations = self._collations(database, table, schema)
        found = as_unique_indexes(
            (index, False, None if part else column, _weighable(collations.get(column)))
            for index, column, part in rows
        )
        return list(found.values())

    def collation(
        self, database: peewee.Database, schema: str | None, table: str, column: str
    ) -> str:
        return _weighable(self._collations(database, table, schema).get(column))

    def _collations(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> dict[str, str | None]:
        return dict(self.run(database, _COLLATIONS, (table, schema)).fetchall())

    def weights(
        self, database: peewee.Database, collation: str, texts: Sequence[str]
    ) -> Sequence[str]:
        text = "convert(? using utf8mb4)"
        if "nopad" not in collation and "_0900_" not in collation:
            text = f"rtrim({text})"
        each = f"hex(weight_string({text} COLLATE {collation}))"
        sql = f"SELECT {', '.join([each] * len(texts))}"
        # As bytes, which pass a connection of any character set.
        row: Sequence[str] = self.run(database, sql, [text.encode() for text in texts]).fetchone()
        return row

    def foreign_keys(self, database: peewee.Database, schema: str | None) -> list[ForeignKey]:
        keys = self.run(database, _FOREIGN_KEYS, (schema,)).fetchall()
        acts = {(key[0], key[1]): key[2:] for key in self.run(database, _ACTS, (schema,))}
        return as_foreign_keys((*key, *acts[key[:2]]) for key in keys if key[:2] in acts)

    def defer_foreign_keys(self, database: peewee.Database) -> AbstractContextManager[None]:
        """It cannot defer them. So they are off: that all parents are there is seen to before."""
        return _foreign_keys(database, check=False)

    def deleting(self, database: peewee.Database) -> AbstractContextManager[None]:
        return _foreign_keys(database, check=True)


def _weighable(collation: str | None) -> str:
    """A collation of all texts that there are: of others it is not known here what is equal."""
    return collation if collation and collation.startswith("utf8mb4_") else PLAIN


@contextmanager
def _foreign_keys(database: peewee.Database, *, check: bool) -> Iterator[None]:
    (before,) = database.execute_sql("SELECT @@foreign_key_checks").fetchone()
    database.execute_sql("SET foreign_key_checks = %s", (int(check),))
    try:
        yield
    finally:
        database.execute_sql("SET foreign_key_checks = %s", (before,))


def _text_type(match: re.Match[str]) -> str:
    return f"{match[1]} {KEYS.get(match[1], 'LONGTEXT')}"


def _upsert(match: re.Match[str]) -> str:
    key, sets = match[1], match[2]
    if sets is None:
        first = key.split(",")[0]
        return f"ON DUPLICATE KEY UPDATE {first} = {first}"
    return "ON DUPLICATE KEY UPDATE " + _EXCLUDED.sub(r"VALUES(\1)", sets)
