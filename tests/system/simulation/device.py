"""One replica: a database file, the application's models on it, a `Sync`. It can die."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from sharedlog import ConnectionFailed, ServiceFailed, Sync
from sharedlog.events import Listener
from tests.tablemodel import Key, as_json

from . import switches
from .clocks import Clock
from .drawn import upgrade
from .files import Fuse, abandon, open_database
from .network import Link
from .shapes import Application, Shape, User

STATEMENTS = 45
"""Within so many statements it dies, if it is to die at a statement."""

PAGES = 12
"""About so many at most make a whole log."""

ENTRY_BYTES = 200
"""About so large is one."""


LEDGER = (
    """CREATE TABLE IF NOT EXISTS ledger (
        number INTEGER PRIMARY KEY AUTOINCREMENT, recorded INTEGER, ticks INTEGER,
        operation INTEGER, collection TEXT, pk TEXT, value TEXT)""",
    """CREATE TRIGGER IF NOT EXISTS ledger_written AFTER INSERT ON sharedlog_entry BEGIN
        INSERT INTO ledger (recorded, ticks, operation, collection, pk, value)
        VALUES (new.ticks, new.ticks, new.operation, new.collection, new.pk,
            iif(new.operation = 2, NULL, new.value));
    END""",
    """CREATE TRIGGER IF NOT EXISTS ledger_dated_anew AFTER UPDATE OF ticks ON sharedlog_entry BEGIN
        UPDATE ledger SET ticks = new.ticks
        WHERE number = (SELECT max(number) FROM ledger WHERE ticks = old.ticks);
    END""",
    """CREATE TRIGGER IF NOT EXISTS ledger_counted_anew AFTER UPDATE OF value ON sharedlog_entry
    WHEN old.operation <> 2 BEGIN
        UPDATE ledger SET value = new.value
        WHERE number = (SELECT max(number) FROM ledger WHERE ticks = old.ticks);
    END""",
    """CREATE TRIGGER IF NOT EXISTS ledger_taken_back AFTER DELETE ON sharedlog_entry
    WHEN old.status = 0 BEGIN
        DELETE FROM ledger WHERE number = (SELECT max(number) FROM ledger WHERE ticks = old.ticks);
    END""",
)
"""A copy of every change that this device ever committed, kept by the database itself."""


@dataclass(frozen=True)
class Habits:
    """How a device is set up."""

    prunes: bool
    capture: str


def any_habits(chance: Random, *, may_prune: bool) -> Habits:
    return Habits(
        may_prune and chance.random() < 0.5,
        "triggers" if switches.TRIGGERS and chance.random() < 0.5 else "signals",
    )


class Bounds(NamedTuple):
    """Of a page."""

    batch_size: int
    byte_limit: int


def any_bounds(chance: Random, entries: int) -> Bounds:
    """Small ones only as long as there are few entries in the log."""
    least = entries // PAGES
    size = chance.choices((1, 3, 10, 50, 1000), (2, 3, 4, 5, 6))[0]
    byte_limit = chance.choices((1, 2_000, 1_000_000), (1, 4, 10))[0]
    return Bounds(max(size, least), max(byte_limit, least * ENTRY_BYTES))


class Committed(NamedTuple):
    """A change that a device made; `pk` and `value` are JSON text. `recorded`: by its first
    timestamp."""

    recorded: int
    operation: int
    collection: str
    pk: str
    value: str | None


class Device:
    """A device. All methods may raise Crash; `restart()` brings it up again."""

    def __init__(
        self,
        path: str,
        *,
        link: Link,
        clock: Clock,
        habits: Habits,
        application: Application,
        user: User,
        chance: Random,
        listener: Listener,
    ) -> None:
        self.name = link.name
        self.link = link
        self.clock = clock
        self.habits = habits
        self._path = path
        self.application = application
        self._user = user
        self._chance = chance
        self._listener = listener
        self._models: Any = application.define()
        self.has_synced = False
        self._open()
        self.database.create_tables(self._models.all)
        self._set_up()
        for statement in LEDGER:
            self.database.execute_sql(statement)
        (self._inherited,) = self.run("SELECT ifnull(max(number), 0) FROM ledger")[0]
        """Up to here, changes are of the device that this one is a copy of."""
        self.was_put_back = False

    def _open(self) -> None:
        self.fuse = Fuse()
        self.database = open_database(self._path, self.fuse)
        self.database.bind(self._models.all, bind_refs=False, bind_backrefs=False)

    def _set_up(self) -> None:
        self.sync_object = self._sync_on(self.database)

    def _sync_on(self, database: Any) -> Sync:
        bounds = any_bounds(self._chance, self.link.entries)
        sync = Sync(
            database,
            self._models.given,
            shared_log=self.link,
            device_name=self.name,
            batch_size=bounds.batch_size,
            byte_limit=bounds.byte_limit,
            now=self.clock,
            **self._capture(),
            new_id=lambda: f"{self._chance.getrandbits(64):x}",
        )
        sync.on_event(self._listener)
        return sync.setup()

    def _capture(self) -> dict[str, Any]:
        return {"capture": self.habits.capture} if switches.TRIGGERS else {}

    def copy_to(self, path: str) -> None:
        """Copy the database as it is now."""
        with closing(sqlite3.connect(path)) as copy:
            self.database.connection().backup(copy)

    def put_back(self, path: str, application: Application) -> None:
        """Replace the database by a copy that was made when it ran this edition."""
        abandon(self.database)
        gc.collect()  # a connection that a crash left behind would still hold the file
        for suffix in ("-wal", "-shm"):
            Path(self._path + suffix).unlink(missing_ok=True)
        shutil.copyfile(path, self._path)
        self.application, self._models = application, application.define()
        self.was_put_back = True
        self._open()
        self._set_up()

    def restart(self) -> None:
        """After a crash, or just so: nothing survives but the file."""
        abandon(self.database)
        self._open()
        self._set_up()

    def upgrade(self, application: Application) -> str:
        """From here on it runs this edition of the application."""
        abandon(self.database)
        self.application, self._models = application, application.define()
        self._open()
        with self.database.atomic():
            upgrade(self.database, self._models)
        self._set_up()
        return f"upgraded to {application.name}"

    def close(self) -> None:
        abandon(self.database)

    # -- what it does --------------------------------------------------------------------

    def work(self) -> str:
        """Let the user do something; say what."""
        return self._worked(self._user.act(self.database, self._models))

    def work_at_noon(self) -> str:
        return self._worked(self._user.at_noon(self._models))

    def _worked(self, said: str) -> str:
        newest, changes = self.run(
            "SELECT (SELECT max(ticks) FROM sharedlog_entry), (SELECT max(number) FROM ledger)"
        )[0]
        return f"{said} {newest} {changes}"

    def exchange(self) -> str:
        """One of the ways to sync. Says how it ended."""
        sync = self.sync_object
        self.link.exchanges = 0
        ways: tuple[Callable[[], Any], ...] = (sync.sync, sync.send, sync.receive, sync.reconcile)
        way = self._chance.choices(ways, (12, 1, 1, 1))[0]
        return self._said(way)

    def sync(self) -> str:
        self.link.exchanges = 0
        return self._said(self.sync_object.sync)

    def _said(self, way: Callable[[], Any]) -> str:
        try:
            result = way()
        except ConnectionFailed:
            self.has_synced = False
            return f"{way.__name__} failed"
        except ServiceFailed as error:
            if error.service_code != "CLOCK_AHEAD":
                raise
            self.has_synced = False
            return f"{way.__name__} failed: the service lives in the past"
        self.has_synced = way.__name__ == "sync"
        counts = (result.sent, result.received, result.created, result.modified, result.deleted)
        return f"{way.__name__} {counts} parked {result.parked} after {result.exchanges}"

    def sync_beside(self) -> str:
        """Another process on the same file syncs, while this one waits for an answer."""
        mine = self.database
        database = open_database(self._path, self.fuse)
        self.database = database
        try:
            database.bind(self._models.all, bind_refs=False, bind_backrefs=False)
            sync = self._sync_on(database)
            return self._said(sync.sync)
        finally:
            abandon(database)
            self.database = mine
            mine.bind(self._models.all, bind_refs=False, bind_backrefs=False)

    def prune(self) -> str:
        return f"pruned {self.sync_object.prune(0)}"

    # -- what it holds -------------------------------------------------------------------

    def run(self, sql: str, *parameters: Any) -> list[Any]:
        rows: list[Any] = self.database.execute_sql(sql, parameters).fetchall()
        return rows

    @property
    def id(self) -> str:
        return self.sync_object.journal.device_id()

    def ledger(self) -> list[Committed]:
        """Every change that was committed here, in order."""
        return self._committed_after(0)

    def own_ledger(self) -> list[Committed]:
        """Those that were made here, and not inherited."""
        return self._committed_after(self._inherited)

    def _committed_after(self, number: int) -> list[Committed]:
        sql = (
            "SELECT recorded, operation, collection, pk, value FROM ledger WHERE number > ? "
            "ORDER BY number"
        )
        return [Committed(*row) for row in self.run(sql, number)]

    def tables(self) -> dict[Key, dict[str, Any]]:
        """Every row of every table, as on the wire."""
        found = {}
        for shape in self.application.shapes.values():
            names = [column.name for column in shape.columns]
            for row in self.run(_select(shape)):
                wires = {
                    name: None if stored is None else shape.by_name[name].kind.wire(stored)
                    for name, stored in zip(names, row, strict=True)
                }
                parts = [wires.pop(name) for name in shape.key]
                found[shape.name, as_json(parts if len(parts) > 1 else parts[0])] = wires
        return found

    def states(self) -> dict[Key, dict[str, Any]]:
        """What is known of each row, apart from the table: comparable between devices."""
        versions = self.sync_object.versions
        with self.database.atomic():
            versions.fold_local()
        keys: dict[str, list[str]] = {}
        for collection, pk in self.run("SELECT collection, pk FROM sharedlog_row ORDER BY 1, 2"):
            keys.setdefault(collection, []).append(pk)
        return {
            (collection, pk): {
                "alive": state.alive,
                "died": state.died,
                "versions": {n: state.version_of(n) for n in sorted(state.written_fields())},
                "held": {**state.held, **state.cleared},
                "parked": state.parked is not None,
            }
            for collection, pks in keys.items()
            for pk, state in versions.load(collection, pks).items()
        }

    def unreadable(self) -> list[tuple[str, int]]:
        """The entries that it keeps until it can read them, by device and ticks."""
        rows = self.run("SELECT device, ticks FROM sharedlog_inbox WHERE reason IS NOT NULL")
        return [(device, ticks) for device, ticks in rows]

    @property
    def checkpoint(self) -> int:
        """How far it has read, as a position."""
        return int((self.sync_object.status().checkpoint or ".0").rpartition(".")[2])

    def broken_references(self) -> list[Any]:
        return self.run("PRAGMA foreign_key_check")


def _select(shape: Shape) -> str:
    columns = [f"{c.name}_id" if c.parent else c.name for c in shape.columns]
    quoted = ", ".join(f'"{column}"' for column in columns)
    return f'SELECT {quoted} FROM "{shape.name}"'


def same(one: Any, other: Any) -> bool:
    """Equal also in what Python takes for equal: 0 and False, 1 and 1.0."""
    return json.dumps(_listed(one)) == json.dumps(_listed(other))


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted(([str(k), _listed(v)] for k, v in value.items()), key=lambda pair: pair[0])
    return value
