"""Where a device keeps its data: in a file, or in a database on a server."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import peewee

from sharedlog.journal.recorder import Capture
from tests.client.servers import Server, serving

from .models import Models, Rules

PRAGMAS = {"foreign_keys": 1, "journal_mode": "memory", "synchronous": 0}
UNTOLD = ("SELECT", "PRAGMA", "SET ", "SAVEPOINT", "RELEASE", "--")

RAW: Mapping[str, Sequence[str]] = {
    "sqlite": (
        'UPDATE "per son" SET count = count + 1',
        "DELETE FROM link WHERE slot = 1",
        "INSERT OR REPLACE INTO node (name, best) VALUES ('a', 3)",
        "UPDATE node SET best = best + 1",
        "DELETE FROM firm WHERE code = 'a'",
        "UPDATE OR IGNORE firm SET title = 'z'",
        "REPLACE INTO firm (code, title) VALUES ('b', 'a')",
        "UPDATE firm SET code = code || 'x' WHERE code = 'c'",
    ),
    "postgres": (
        'UPDATE "per son" SET count = count + 1',
        "DELETE FROM link WHERE slot = 1",
        "INSERT INTO node (name, best) VALUES ('a', 3) ON CONFLICT (name) DO UPDATE SET best = 3",
        "UPDATE node SET best = best + 1",
        "DELETE FROM firm WHERE code = 'a'",
        "UPDATE firm SET title = 'z' WHERE code = 'b'",
        "INSERT INTO firm (code, title) VALUES ('b', 'a') ON CONFLICT DO NOTHING",
        "UPDATE firm SET code = code || 'x' WHERE code = 'c'",
    ),
}
"""For devices whose triggers see it, by the kind of their database."""

Tell = Callable[[str], None]


class Place(ABC):
    """One device's. `kind` is the kind of database."""

    kind: str

    @abstractmethod
    def open(self, models: Models, tell: Tell) -> Any:
        """A database object that has the models' tables, and tells its statements."""

    @abstractmethod
    def run_beside(self, statement: str) -> None:
        """As another program does."""

    @abstractmethod
    def dangling(self, database: Any, models: Models) -> list[Any]:
        """What refers to no row."""


class File(Place):
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, models: Models, tell: Tell) -> Any:
        database: Any = peewee.SqliteDatabase(str(self.path), pragmas=PRAGMAS)
        database.bind(models.all)
        database.create_tables(models.all)
        database.connection().set_trace_callback(tell)
        return database

    def run_beside(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = 1")
            connection.execute(statement)

    def dangling(self, database: Any, models: Models) -> list[Any]:
        return list(database.execute_sql("PRAGMA foreign_key_check").fetchall())


class Served(Place):
    """Made once for tables that say the same, and emptied for each fleet."""

    def __init__(self, kind: str, server: Server, rules: Rules) -> None:
        self.kind = kind
        self.rules = rules
        self._server = server
        self._place = server.place()
        self._beside: Any = server.database(self._place)

    def open(self, models: Models, tell: Tell) -> Any:
        database: Any = self._server.database(self._place)
        database.bind(models.all)
        if not database.table_exists("firm"):
            if self.kind == "mysql":  # whose texts are equal without case, unless it is told
                database.execute_sql(f"ALTER DATABASE {self._place} COLLATE utf8mb4_bin")
            database.create_tables(models.all)
            models.firm._schema.create_foreign_key(models.firm.boss)
        database.query_hooks.append(lambda event: tell(f"{event.sql} {event.params}"))
        return database

    def empty(self) -> Place:
        # With what sharedlog keeps: that of another fleet would be of another device.
        self._server.empty_tables(self._beside, self._beside.get_tables())
        return self

    def run_beside(self, statement: str) -> None:
        self._beside.execute_sql(statement)

    def dangling(self, database: Any, models: Models) -> list[Any]:
        found = []
        for model in models.all:
            for field in model._meta.refs:
                parent = field.rel_model.alias()
                key = getattr(parent, field.rel_field.name)
                rows = model.select(field).join(parent, peewee.JOIN.LEFT_OUTER, on=(field == key))
                lost = rows.where(field.is_null(False) & key.is_null()).tuples()
                found += [(model.__name__, field.name, *row) for row in lost]
        return found

    def close(self) -> None:
        self._beside.close()


class Places:
    """Of these kinds of databases, for one fleet after the other."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._served: dict[tuple[str, Capture, int], Served] = {}

    def place(self, kind: str, capture: Capture, number: int, rules: Rules, folder: Path) -> Place:
        """An empty one, for the device of this number."""
        if kind == "sqlite":
            return File(folder / f"device{number}.db")
        which = kind, capture, number  # triggers stay where they were made
        found = self._served.get(which)
        if found is None or found.rules != rules:
            if found is not None:
                found.close()
            found = self._served[which] = Served(kind, self._servers[kind], rules)
        return found.empty()

    def close(self) -> None:
        for served in self._served.values():
            served.close()


IN_FILES = Places({})


@contextmanager
def places(kinds: Sequence[str]) -> Iterator[Places]:
    """On servers, as far as the kinds are no files; or a skip that says how to start one."""
    with ExitStack() as stack:
        servers = {
            k: stack.enter_context(serving(k)) for k in dict.fromkeys(kinds) if k != "sqlite"
        }
        with closing(Places(servers)) as found:
            yield found
