"""PostgreSQL, by psycopg 3."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import peewee

from ..errors import ConfigurationError
from ..layout import REPLACED
from ..raw import Uncarried
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

IDLE, FAILED = 0, 3
"""The status of a connection without a transaction, and of one that an error spoiled, in libpq's
numbers."""

MAKING_TABLES = 0x5AED1060
"""The number of the advisory lock under which our tables are made."""

UNKNOWN = 0
"""In place of the number of a type that psycopg does not know."""

_INSERT = re.compile(r"\s*INSERT OR (IGNORE|REPLACE) INTO (\w+)")

_UNIQUE_INDEXES = """SELECT index.indexrelid, index.indpred IS NOT NULL, attribute.attname,
        pg_get_indexdef(index.indexrelid, CAST(part.place AS int), true),
        pg_get_expr(index.indpred, index.indrelid),
        to_jsonb(index) ->> 'indnullsnotdistinct'
    FROM pg_index AS index
    CROSS JOIN LATERAL unnest(index.indkey) WITH ORDINALITY AS part (number, place)
    LEFT JOIN pg_attribute AS attribute
        ON attribute.attrelid = index.indrelid AND attribute.attnum = part.number
    WHERE index.indrelid = to_regclass(?) AND index.indisunique
        AND part.place <= index.indnkeyatts
    ORDER BY 1, part.place"""

_TRIGGERS = r"""SELECT tgname, relname,
        concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled, md5(pg_get_functiondef(tgfoid))),
        tgrelid::regclass::text
    FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = tgrelid
    JOIN pg_proc AS p ON p.oid = tgfoid
    WHERE NOT tgisinternal AND tgparentid = 0
        AND proname = 'sharedlog_note' AND pronamespace = current_schema()::regnamespace
    ORDER BY 2, 1"""

_FIXED_FOREIGN_KEYS = """SELECT conname FROM pg_constraint
    WHERE conrelid = to_regclass(?) AND contype = 'f' AND NOT condeferrable ORDER BY 1"""

# Where another table has a constraint of that name that cannot be deferred, neither can be by name.
_DEFERRABLE_FOREIGN_KEYS = """SELECT quote_ident(nspname) || '.' || quote_ident(conname)
    FROM pg_constraint AS made
    JOIN pg_namespace AS space ON space.oid = connamespace
    WHERE conrelid IN (SELECT to_regclass(name) FROM unnest(CAST(? AS text[])) AS name)
        AND contype = 'f' AND condeferrable AND conparentid = 0
        AND NOT EXISTS (SELECT 1 FROM pg_constraint AS other WHERE other.conname = made.conname
            AND other.connamespace = made.connamespace AND NOT other.condeferrable)"""

_DEFERRABLE_UNIQUES = """SELECT conname, ARRAY(SELECT CAST(attname AS text) FROM pg_attribute
        WHERE attrelid = conrelid AND attnum = ANY(conkey))
    FROM pg_constraint
    WHERE conrelid = to_regclass(?) AND contype IN ('p', 'u') AND condeferrable ORDER BY 1"""

_FOREIGN_KEYS = """SELECT child.relname, made.oid, part.attname, parent.relname,
        made.confdeltype, made.confupdtype
    FROM pg_constraint AS made
    JOIN pg_class AS child ON child.oid = made.conrelid
    JOIN pg_namespace AS space ON space.oid = child.relnamespace
    JOIN pg_class AS parent ON parent.oid = made.confrelid
    CROSS JOIN LATERAL unnest(made.conkey) WITH ORDINALITY AS member (number, place)
    JOIN pg_attribute AS part ON part.attrelid = made.conrelid AND part.attnum = member.number
    WHERE made.contype = 'f' AND made.conparentid = 0
        AND space.nspname = coalesce(CAST(? AS text), current_schema())
    ORDER BY child.relname, made.oid, member.place"""

_COLUMNS = """SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"""

Load = Callable[[Any], Any]
"""Makes a value of what the server says."""

_ACTS: Mapping[str, str] = {
    "a": "NO ACTION",
    "r": "RESTRICT",
    "c": "CASCADE",
    "n": "SET NULL",
    "d": "SET DEFAULT",
}


class Postgres(Dialect):
    name = "postgres"

    @staticmethod
    def in_transaction(connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status != IDLE)

    def has_failed(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == FAILED)

    def rows(self, cursor: Any, ours: int | None = None) -> list[Any]:
        """Python has no date that psycopg could make of `infinity`, of one before Christ, or of one
        with five digits."""
        try:
            return list(cursor.fetchall())
        except cursor.connection.DataError:
            return list(_readable(cursor, ours))

    def run_one(self, cursor: Any, sql: str, row: Sequence[Any]) -> None:
        """Prepared at once, as for many rows. What psycopg has run without that, and prepares for
        many rows when one before it is refused, it takes for prepared from then on, and it is not:
        rows that fit would be refused, too."""
        cursor.execute(sql, row, prepare=True)

    def storable(self, text: str) -> str:
        """It takes no NUL. (What holds one is not JSON: it would not be readable either.)"""
        return text.replace("\0", "\N{SYMBOL FOR NULL}")

    def words(self, sql: str) -> str:
        sql = sql.replace("ifnull(", "coalesce(")
        found = _INSERT.match(sql)
        if found is None:
            return sql
        sql = f"INSERT INTO {found[2]}{sql[found.end() :]}"
        if found[1] == "IGNORE":
            return f"{sql} ON CONFLICT DO NOTHING"
        key, others = REPLACED[found[2]]
        sets = ", ".join(f"{name} = excluded.{name}" for name in others.split(", "))
        return f"{sql} ON CONFLICT ({key}) DO UPDATE SET {sets}"

    def layout(self, statement: str) -> str:
        statement = re.sub(r"\bWITHOUT ROWID\b", "", statement)
        statement = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', statement)
        statement = statement.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGSERIAL PRIMARY KEY")
        return re.sub(r"\bINTEGER\b", "BIGINT", statement)

    def differs(self, column: str) -> str:
        return f"{column} IS DISTINCT FROM ?"

    @contextmanager
    def making_tables(self, database: peewee.Database) -> Iterator[None]:
        self.run(database, "SELECT pg_advisory_xact_lock(?)", (MAKING_TABLES,))
        yield

    def column_names(
        self, database: peewee.Database, table: str, schema: str | None = None
    ) -> set[str]:
        """By what the views of information_schema are made of: they take ten times as long."""
        return {name for (name,) in self.run(database, _COLUMNS, (_name(table, schema),))}

    def unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        rows = self.run(database, _UNIQUE_INDEXES, (_name(table, schema),)).fetchall()
        found = as_unique_indexes((*row[:3], PLAIN) for row in rows)
        for name, _, _, said, where, takes_nulls in rows:
            # Text, and none of servers before 15, which do not have that.
            found[name] = found[name]._replace(takes_nulls=takes_nulls == "true")
            if not found[name].is_plain:
                found[name] = found[name]._replace(said=(*found[name].said, said), where=where)
        return list(found.values())

    def foreign_keys(self, database: peewee.Database, schema: str | None) -> list[ForeignKey]:
        rows = self.run(database, _FOREIGN_KEYS, (schema,)).fetchall()
        return as_foreign_keys((*said, _ACTS[d], _ACTS[u]) for *said, d, u in rows)

    def triggers(self, database: peewee.Database) -> list[Trigger]:
        """A trigger that is switched off is not as it was made."""
        return [Trigger(*row) for row in self.run(database, _TRIGGERS).fetchall()]

    def prepare_foreign_keys(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> Sequence[str]:
        """A constraint that is checked with each statement still is, unless we ask otherwise."""
        name = _name(table, schema)
        fixed = [row[0] for row in self.run(database, _FIXED_FOREIGN_KEYS, (name,)).fetchall()]
        for constraint in fixed:
            try:
                with database.atomic():
                    self.run(
                        database,
                        f"ALTER TABLE {name} ALTER CONSTRAINT {quote(constraint)} "
                        "DEFERRABLE INITIALLY IMMEDIATE",
                    )
            except peewee.ProgrammingError as error:
                raise ConfigurationError(
                    f"The foreign key {constraint!r} of {table!r} cannot be deferred, and this "
                    f"user may not change it: {error}",
                    hint="Let the owner of the table run: ALTER TABLE … ALTER CONSTRAINT … "
                    "DEFERRABLE INITIALLY IMMEDIATE; or make the table with "
                    "ForeignKeyField(deferrable='INITIALLY IMMEDIATE').",
                ) from error
        return fixed

    def defer_foreign_keys(self, database: peewee.Database) -> AbstractContextManager[None]:
        """And all else that can wait: a trigger may be content when all rows are there."""
        database.execute_sql("SET CONSTRAINTS ALL DEFERRED")
        return nullcontext()

    def check_at_once(self, database: peewee.Database, referring: Sequence[str] = ()) -> None:
        database.execute_sql("SET CONSTRAINTS ALL IMMEDIATE")
        if referring:
            found = self.run(database, _DEFERRABLE_FOREIGN_KEYS, (list(referring),)).fetchall()
            if names := ", ".join(name for (name,) in found):
                self.run(database, f"SET CONSTRAINTS {names} DEFERRED")

    def deferred_keys(
        self, database: peewee.Database, table: str, schema: str | None, key: Sequence[str]
    ) -> list[str]:
        rows = self.run(database, _DEFERRABLE_UNIQUES, (_name(table, schema),)).fetchall()
        return [name for name, columns in rows if set(columns) == set(key)]


def _readable(cursor: Any, ours: int | None) -> Iterator[tuple[Any, ...]]:
    """All that it found once more, value by value."""
    result, width = cursor.pgresult, cursor.pgresult.nfields
    loads = [_load(cursor, result.ftype(n), result.fformat(n)) for n in range(width)]
    for place in range(0 if ours is None else width - ours, width):
        loads[place] = _forgiving(loads[place], cursor.connection.DataError)
    for row in range(result.ntuples):
        found = [result.get_value(row, place) for place in range(width)]
        pairs = zip(loads, found, strict=True)
        yield tuple(None if value is None else load(value) for load, value in pairs)


def _load(cursor: Any, kind: int, form: int) -> Load:
    """What psycopg itself would load a value of this type with."""
    find = cursor.adapters.get_loader
    loader = find(kind, form) or find(UNKNOWN, form)
    load: Load = loader(kind, cursor).load
    return load


def _forgiving(load: Load, error: type[Exception]) -> Load:
    def loaded(value: Any) -> Any:
        try:
            return load(value)
        except error:
            return Uncarried()

    return loaded


def _name(table: str, schema: str | None) -> str:
    return f"{quote(schema)}.{quote(table)}" if schema else quote(table)
