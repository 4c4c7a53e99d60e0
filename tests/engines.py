"""The databases that the contract of the store is tested on: an SQLite file, and PostgreSQL.

PostgreSQL is the server that SHAREDLOG_TEST_POSTGRES names, or this machine's. A run of the tests
has a schema of its own there, which is dropped after it.
"""

from __future__ import annotations

import functools
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Protocol

import psycopg

SERVER = os.environ.get("SHAREDLOG_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


class Engine(Protocol):
    """One database. `place` is what opens it. Nobody has it open while it is copied."""

    place: Path | str

    def back_up(self) -> None:
        """Keep a copy of everything."""

    def restore(self) -> None:
        """Put the copy in place."""

    def close(self) -> None:
        """Remove what a test's folder does not."""


class Sqlite:
    def __init__(self, folder: Path) -> None:
        self.place: Path | str = folder / "log.db"
        self._file, self._backup = folder / "log.db", folder / "backup.db"

    def back_up(self) -> None:
        _copy(self._file, self._backup)

    def restore(self) -> None:
        _copy(self._backup, self._file)

    def close(self) -> None:
        pass


class Postgres:
    """A schema of its own, empty again for each test: to make tables takes longer than most."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema or new_schema()
        separator = "&" if "?" in SERVER else "?"
        self.place: Path | str = f"{SERVER}{separator}options=-csearch_path%3D{self.schema}"

    def back_up(self) -> None:
        backup = f"{self.schema}_backup"
        run(
            f"CREATE SCHEMA {backup}",
            *(f"CREATE TABLE {backup}.{t} AS TABLE {self.schema}.{t}" for t in self.tables()),
        )

    def restore(self) -> None:
        backup = f"{self.schema}_backup"
        run(
            "SET LOCAL session_replication_role = replica",  # no foreign key is checked meanwhile
            *(f"DELETE FROM {self.schema}.{t}" for t in self.tables()),
            *(f"INSERT INTO {self.schema}.{t} TABLE {backup}.{t}" for t in self.tables()),
        )

    def close(self) -> None:
        tables = [f"{self.schema}.{table}" for table in self.tables() if table != "meta"]
        if self._is_large():  # what is deleted is in the way of later tests until it is vacuumed
            emptied = [f"TRUNCATE {', '.join(tables)}"]
        else:
            emptied = [f"DELETE FROM {table}" for table in tables]
        run(
            "SET LOCAL client_min_messages = warning",
            "SET LOCAL session_replication_role = replica",
            f"DROP SCHEMA IF EXISTS {self.schema}_backup CASCADE",
            *emptied,
        )

    def _is_large(self) -> bool:
        sql = "SELECT coalesce(pg_relation_size(to_regclass(%s)), 0)"
        found = _connection().execute(sql, [f"{self.schema}.entries"]).fetchone()
        return found is not None and found[0] > 100_000

    def tables(self) -> list[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        return [name for (name,) in _connection().execute(sql, [self.schema])]


def new_schema() -> str:
    schema = f"test_{uuid.uuid4().hex}"
    run(f"CREATE SCHEMA {schema}")
    return schema


def drop_schema(schema: str) -> None:
    run("SET LOCAL client_min_messages = warning", f"DROP SCHEMA {schema} CASCADE")


def run(*statements: str) -> None:
    """Run statements in one transaction."""
    with _connection().transaction():
        for statement in statements:
            _connection().execute(statement.encode())


@functools.cache
def _connection() -> psycopg.Connection[tuple[Any, ...]]:
    """One for all that is asked here: to begin one takes longer than most."""
    return psycopg.connect(SERVER, autocommit=True)


@functools.cache
def unreachable() -> str | None:
    """Why PostgreSQL cannot be asked, None if it can."""
    try:
        psycopg.connect(SERVER, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        return f"no PostgreSQL at {SERVER}; SHAREDLOG_TEST_POSTGRES names another one: {error}"
    return None


def _copy(source: Path, target: Path) -> None:
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(source, target)
