"""Devices for tests: an application's database file, tracked or not, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import peewee

from sharedlog import MemorySharedLog, Sync
from sharedlog.clock import Now, system_now
from sharedlog.exchange.identity import random_id
from sharedlog.journal.journal import OPERATION_NAMES

Models = Sequence[type[peewee.Model]]

PRAGMAS: Mapping[str, Any] = {"foreign_keys": 1, "synchronous": 0, "journal_mode": "memory"}
SHARED: Mapping[str, Any] = {"foreign_keys": 1, "synchronous": 0, "journal_mode": "wal"}
"""For files that several connections write at once."""

RECORDERS = ("signals", "triggers")
"""The ways of recording. What is expected of one is expected of each."""


class Logged(NamedTuple):
    """An entry of the client log. `group` is the timestamp that its transaction began with."""

    operation: str
    collection: str
    pk: Any
    value: Any
    ticks: int
    group: int

    @property
    def change(self) -> tuple[str, str, Any, Any]:
        return self[:4]


class Device:
    """A database file with an application's tables; use the models inside `with device:`.

    `outside` are models that are not given to Sync.
    """

    def __init__(
        self,
        path: Path,
        models: Models,
        *,
        outside: Models = (),
        tracked: bool = True,
        recorder: Any = "signals",
        shared_log: Any = None,
        now: Now = system_now,
        proxy: bool = False,
        create: bool = True,
        pragmas: Mapping[str, Any] = PRAGMAS,
        database: peewee.Database | None = None,
        **options: Any,
    ) -> None:
        assert recorder in RECORDERS
        given, models = models, (*models, *outside)
        self.models = models
        self.recorder = recorder
        self._has_log = False
        plain = database is None and not options and not path.exists()
        self.database: Any = database or peewee.SqliteDatabase(
            str(path), pragmas=dict(pragmas), **options
        )
        self.bound: Any = self.database
        if proxy:
            self.bound = peewee.DatabaseProxy()
            self.bound.initialize(self.database)
        self._bindings: list[Any] = []
        with self:
            if create and plain:
                self.database.connection().executescript(tables_of(tuple(models)))
            elif create:
                with self.database.atomic():
                    self.database.create_tables(with_through_models(models))
            self.sync = Sync(
                self.bound,
                given,
                shared_log=shared_log or MemorySharedLog(),
                capture=recorder,
                now=now,
                # So that it is known whose changes win where two are made at one time.
                new_id=lambda: f"device-{path.stem}-{random_id()}",
            )
            if tracked:
                self.sync.setup()

    def __enter__(self) -> Device:
        binding = self.bound
        self._bindings.append(_Binding(self.models, binding))
        self._bindings[-1].__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bindings.pop().__exit__(kind, error, traceback)

    def close(self) -> None:
        self.sync.close()
        self.database.close()

    # -- what is in it -------------------------------------------------------------------

    def stored(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables, each value with its storage class."""
        return {table: stored_rows(self.database, table) for table in tables(self.models)}

    def log(self) -> list[Logged]:
        """The client log, in order; empty where nothing is tracked.

        With what triggers noted, as it will be in it; they are left where they are.
        """
        self._has_log = self._has_log or self.database.table_exists("sharedlog_entry")
        if not self._has_log:
            return []
        recorder = self.sync._recording.recorder
        if self.recorder == "signals" or not recorder.waiting():
            return self._read_log()
        if self.sync.journal.in_transaction():
            with suppress(LookupError), self.sync.journal.savepoint():
                recorder.harvest()
                log = self._read_log()
                raise LookupError
            return log
        with self.database.atomic() as transaction:
            self.sync.journal.take_write_lock()
            recorder.harvest()
            log = self._read_log()
            transaction.rollback()
        return log

    def _read_log(self) -> list[Logged]:
        cursor = self.database.execute_sql(
            "SELECT ticks, offset_ticks, collection, pk, operation, value "
            "FROM sharedlog_entry ORDER BY ticks"
        )
        return [
            Logged(
                OPERATION_NAMES[operation],
                collection,
                json.loads(pk),
                None if value is None else json.loads(value),
                ticks,
                ticks - offset,
            )
            for ticks, offset, collection, pk, operation, value in cursor.fetchall()
        ]


class _Binding:
    """Binds models, and those they bring along, and binds them back."""

    def __init__(self, models: Models, database: Any) -> None:
        self._models = with_through_models(models)
        self._database = database
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before = [model._meta.database for model in self._models]
        for model in self._models:
            model.bind(self._database, bind_refs=False, bind_backrefs=False)

    def __exit__(self, *error: Any) -> None:
        for model, database in zip(self._models, self._before, strict=True):
            model.bind(database, bind_refs=False, bind_backrefs=False)


@cache
def tables_of(models: tuple[type[peewee.Model], ...]) -> str:
    """What makes the tables of models in an SQLite file, as Peewee says it: it is slow to say."""
    database = peewee.SqliteDatabase(":memory:")
    with _Binding(models, database):
        database.create_tables(with_through_models(models))
        made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        said = ";\n".join(sql for (sql,) in database.execute_sql(made))
    database.close()
    return said


def with_through_models(models: Models) -> list[type[peewee.Model]]:
    result = list(models)
    for model in models:
        for field in model._meta.manytomany.values():
            through = field.get_through_model()
            if through not in result:
                result.append(through)
    return result


def tables(models: Models) -> list[str]:
    return [model._meta.table_name for model in with_through_models(models)]


def stored_rows(database: peewee.Database, table: str) -> list[tuple[Any, ...]]:
    """A table's rows as (storage class, value, storage class, value, …), in their own order."""
    quote = database.quote
    empty = database.execute_sql(f"SELECT * FROM {quote[0]}{table}{quote[1]} WHERE 1 = 0")
    names = [name for name, *_ in empty.description]
    # A through model's own number is of its database: no other one knows it.
    names = [name for name in names if not (name == "id" and table.endswith("_through"))]
    columns = [f"{quote[0]}{name}{quote[1]}" for name in names]
    if isinstance(database, peewee.SqliteDatabase):
        columns = [f"typeof({column}), {column}" for column in columns]
    rows: Iterable[tuple[Any, ...]] = database.execute_sql(
        f"SELECT {', '.join(columns)} FROM {quote[0]}{table}{quote[1]}"
    )
    return sorted(rows, key=repr)
