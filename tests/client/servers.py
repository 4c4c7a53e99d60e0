"""Databases on the servers that run here: one of our own in a session, a schema for each device.

Where they are is said by the environment; where none answers, the tests are skipped.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import peewee
import psycopg
import pymysql
import pytest

POSTGRES = os.environ.get("SHAREDLOG_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
MYSQL = os.environ.get("SHAREDLOG_TEST_MYSQL", "mysql://root@127.0.0.1:3306")

HOW = {
    "postgres": "start one (docker run -e POSTGRES_HOST_AUTH_METHOD=trust -p 5432:5432 postgres) "
    "or name one in SHAREDLOG_TEST_POSTGRES",
    "mysql": "start one (docker run -e MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 -p 3306:3306 mariadb) "
    "or name one in SHAREDLOG_TEST_MYSQL",
}
NAME = f"sharedlog_test_{os.getpid()}"


class Server(ABC):
    """One server. A *place* is what a device's database object connects to."""

    def __init__(self) -> None:
        self._numbers = count()

    @abstractmethod
    def place(self) -> str:
        """A new one, empty."""

    @abstractmethod
    def database(self, place: str, **options: Any) -> peewee.Database: ...

    @abstractmethod
    def empty_tables(self, database: peewee.Database, tables: Sequence[str]) -> None:
        """Leave no row in them, and nothing that counts, whoever refers to them."""


class PostgresServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self.admin = psycopg.connect(POSTGRES, autocommit=True)
        self.admin.execute(f"CREATE DATABASE {NAME}")
        self._inside = psycopg.connect(f"{POSTGRES}/{NAME}", autocommit=True)

    def place(self) -> str:
        name = f"place_{next(self._numbers)}"
        self._inside.execute(f"CREATE SCHEMA {name}")
        return name

    def database(self, place: str, **options: Any) -> peewee.Database:
        # Nothing here has to outlive the machine.
        settings = f"-c search_path={place} -c synchronous_commit=off -c lock_timeout=20s"
        options.setdefault("prefer_psycopg3", True)
        return peewee.PostgresqlDatabase(f"{POSTGRES}/{NAME}", options=settings, **options)

    def empty_tables(self, database: peewee.Database, tables: Sequence[str]) -> None:
        script = [f'DELETE FROM "{table}"' for table in tables]
        script += [
            f"SELECT setval('{table}_id_seq', 1, false)"
            for table in tables
            if table.endswith("_through")
        ]
        # As a replica, so that no trigger acts.
        role = "SET session_replication_role ="
        connection: Any = database.connection()
        connection.execute(";".join([f"{role} replica", *script, f"{role} origin"]))

    def close(self) -> None:
        self._inside.close()
        self.admin.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
        self.admin.close()


class MySQLServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self._address = urlsplit(MYSQL)
        self.admin = pymysql.connect(**self._where())
        self._places: list[str] = []

    def _where(self) -> dict[str, Any]:
        return {
            "host": self._address.hostname,
            "port": self._address.port or 3306,
            "user": self._address.username,
            "password": self._address.password or "",
        }

    def _run(self, sql: str) -> Any:
        cursor = self.admin.cursor()
        cursor.execute(sql)
        return cursor.fetchone()

    def place(self) -> str:
        self._places.append(f"{NAME}_{next(self._numbers)}")
        self._run(f"CREATE DATABASE {self._places[-1]}")
        return self._places[-1]

    def database(self, place: str, **options: Any) -> peewee.Database:
        version = str(self._run("SELECT version()")[0])
        options.setdefault("mariadb", "maria" in version.lower())
        return peewee.MySQLDatabase(place, **self._where(), **options)

    def empty_tables(self, database: peewee.Database, tables: Sequence[str]) -> None:
        database.execute_sql("SET foreign_key_checks = 0")
        for table in tables:
            database.execute_sql(f"DELETE FROM `{table}`")
        database.execute_sql("SET foreign_key_checks = 1")

    def close(self) -> None:
        for place in self._places:
            self._run(f"DROP DATABASE {place}")
        self.admin.close()


@contextmanager
def serving(kind: str) -> Iterator[Any]:
    """The server of this kind, or a skip."""
    make: Any = {"postgres": PostgresServer, "mysql": MySQLServer}[kind]
    try:
        server = make()
    except (psycopg.OperationalError, pymysql.err.OperationalError) as error:
        first = str(error).splitlines()[0]
        pytest.skip(f"no {kind} server answers ({first}): {HOW[kind]}")
    try:
        yield server
    finally:
        with suppress(psycopg.Error, pymysql.Error):
            server.close()
