"""Databases on servers, for devices that do not keep theirs in a file. See also `tests.engines`."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import peewee
import pymysql
import pytest

from tests.engines import SERVER, drop_schema, new_schema, unreachable

MYSQL = os.environ.get("SHAREDLOG_TEST_MYSQL", "mysql://root@127.0.0.1:3306")

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
    def close(self) -> None:
        """Remove all places."""

    @abstractmethod
    def empty_tables(self, database: peewee.Database, tables: Sequence[str]) -> None:
        """Leave no row in them, and nothing that counts, whoever refers to them."""


class PostgresServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self._places: list[str] = []

    def place(self) -> str:
        self._places.append(new_schema())
        return self._places[-1]

    def database(self, place: str, **options: Any) -> peewee.Database:
        # Nothing here has to outlive the machine.
        settings = f"-c search_path={place} -c synchronous_commit=off -c lock_timeout=20s"
        options.setdefault("prefer_psycopg3", True)
        return peewee.PostgresqlDatabase(SERVER, options=settings, **options)

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
        for place in self._places:
            drop_schema(place)


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
def serving(kind: str) -> Iterator[Server]:
    """The server of this kind, or a skip that says how to start one."""
    reason = unreachable() if kind == "postgres" else _unreachable_mysql()
    if reason:
        pytest.skip(reason)
    server = PostgresServer() if kind == "postgres" else MySQLServer()
    try:
        yield server
    finally:
        server.close()


@functools.cache
def _unreachable_mysql() -> str | None:
    try:
        MySQLServer().close()
    except pymysql.err.OperationalError as error:
        return (
            f"no MySQL at {MYSQL} (docker run -e MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 "
            f"-p 3306:3306 mariadb); SHAREDLOG_TEST_MYSQL names another one: {error}"
        )
    return None
