"""One application in several versions, and devices that run one of them after the other.

1. memos have a title and a price;
2. memos are called notes, titles headings; notes may have a colour;
3. prices are in cents. Programs of version 1 and 2 cannot read that, so it is a schema version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee
from peewee import CharField, ForeignKeyField, IntegerField, TextField

from sharedlog import Change, Counter, Maximum, MemorySharedLog, Sync, SyncModel
from sharedlog.exchange.identity import random_id
from tests.client.devices import PRAGMAS


class Folder(SyncModel):
    key = CharField(primary_key=True)
    name = TextField(default="")


class Memo(SyncModel):
    key = CharField(primary_key=True)
    title = TextField(default="")
    price = IntegerField(default=0)
    folder = ForeignKeyField(Folder, null=True)


class Note(SyncModel):
    key = CharField(primary_key=True)
    heading = TextField(default="")
    price = IntegerField(default=0)
    folder = ForeignKeyField(Folder, null=True)
    colour = TextField(default="white")

    class Meta:
        formerly_table = "memo"
        formerly = {"heading": "title"}  # noqa: RUF012


class CentNote(SyncModel):
    key = CharField(primary_key=True)
    heading = TextField(default="")
    cents = IntegerField(default=0)
    folder = ForeignKeyField(Folder, null=True)
    colour = TextField(default="white")

    class Meta:
        table_name = "note"
        formerly_table = "memo"
        formerly = {"heading": "title", "cents": ("price",)}  # noqa: RUF012


def price_to_cents(change: Change) -> Change:
    value = dict(change.value or {})
    if change.collection == "note" and "cents" in value:
        value["cents"] *= 100
    return change._replace(value=value)


@dataclass(frozen=True)
class Program:
    """A version of the application: its models, how it migrates its tables, its options."""

    models: Sequence[type[SyncModel]]
    migration: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def note(self) -> Any:
        return self.models[-1]


ONE = Program([Folder, Memo])
TWO = Program(
    [Folder, Note],
    [
        "ALTER TABLE memo RENAME TO note",
        "ALTER TABLE note RENAME COLUMN title TO heading",
        "ALTER TABLE note ADD COLUMN colour TEXT NOT NULL DEFAULT 'white'",
    ],
)
THREE = Program(
    [Folder, CentNote],
    ["ALTER TABLE note RENAME COLUMN price TO cents", "UPDATE note SET cents = cents * 100"],
    {"schema_version": 2, "upgraders": {1: price_to_cents}},
)
PROGRAMS = (ONE, TWO, THREE)


class Titled(SyncModel):
    key = CharField(primary_key=True)
    title = TextField(default="")
    price = IntegerField(default=0)
    colour = TextField(default="white")

    class Meta:
        table_name = "paper"


class Headed(SyncModel):
    key = CharField(primary_key=True)
    heading = TextField(default="")
    price = IntegerField(default=0)
    colour = TextField(default="white")

    class Meta:
        table_name = "paper"
        formerly = {"heading": "title"}  # noqa: RUF012


class Headlined(SyncModel):
    key = CharField(primary_key=True)
    headline = TextField(default="")
    price = IntegerField(default=0)
    colour = TextField(default="white")

    class Meta:
        table_name = "paper"
        formerly = {"headline": ["heading", "title"]}  # noqa: RUF012


RENAMED = (
    Program([Titled]),
    Program([Headed], ["ALTER TABLE paper RENAME COLUMN title TO heading"]),
    Program([Headlined], ["ALTER TABLE paper RENAME COLUMN heading TO headline"]),
)
"""An application of which one field gets other names, and nothing else changes."""


class First(Titled):
    class Meta:
        table_name = "first"


class Second(Headed):
    class Meta:
        table_name = "second"
        formerly_table = "first"


class Third(Headlined):
    class Meta:
        table_name = "third"
        formerly_table = ("second", "first")


WANDERING = (
    Program([First]),
    Program(
        [Second],
        [
            "ALTER TABLE first RENAME TO second",
            "ALTER TABLE second RENAME COLUMN title TO heading",
        ],
    ),
    Program(
        [Third],
        [
            "ALTER TABLE second RENAME TO third",
            "ALTER TABLE third RENAME COLUMN heading TO headline",
        ],
    ),
)
"""The same, and its table gets another name, too, each time."""


class Tally(SyncModel):
    key = CharField(primary_key=True)
    title = TextField(default="")
    count = IntegerField(default=0)
    best = IntegerField(default=0)

    class Meta:
        merge = {"count": Counter(), "best": Maximum()}  # noqa: RUF012


class Stock(SyncModel):
    key = CharField(primary_key=True)
    heading = TextField(default="")
    pieces = IntegerField(default=0)
    best = IntegerField(default=0)

    class Meta:
        formerly_table = "tally"
        formerly = {"heading": "title", "pieces": "count"}  # noqa: RUF012
        merge = {"pieces": Counter(), "best": Maximum()}  # noqa: RUF012


class TopStock(SyncModel):
    key = CharField(primary_key=True)
    heading = TextField(default="")
    pieces = IntegerField(default=0)
    top = IntegerField(default=0)

    class Meta:
        table_name = "stock"
        formerly_table = "tally"
        formerly = {"heading": "title", "pieces": "count", "top": "best"}  # noqa: RUF012
        merge = {"pieces": Counter(), "top": Maximum()}  # noqa: RUF012


def best_to_top(change: Change) -> Change:
    value = dict(change.value or {})
    if "top" in value:
        value["top"] *= 10
    return change._replace(value=value)


RULED = (
    Program([Tally]),
    Program(
        [Stock],
        [
            "ALTER TABLE tally RENAME TO stock",
            "ALTER TABLE stock RENAME COLUMN title TO heading",
            "ALTER TABLE stock RENAME COLUMN count TO pieces",
        ],
    ),
    Program(
        [TopStock],
        ["ALTER TABLE stock RENAME COLUMN best TO top", "UPDATE stock SET top = top * 10"],
        {"schema_version": 2, "upgraders": {1: best_to_top}},
    ),
)
"""An application whose fields have merge rules."""


class Clock:
    """One time for everybody: a millisecond later each time it is asked."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


class Phone:
    """A device: a database file, and the version of the program that used it last."""

    def __init__(
        self,
        path: Path,
        log: MemorySharedLog,
        clock: Clock,
        version: int = 1,
        programs: Sequence[Program] = PROGRAMS,
        capture: str = "signals",
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self._capture = capture
        self._new_id = new_id
        self.path = path
        self.version = version
        self.programs = programs
        self._log = log
        self._clock = clock
        self._database = peewee.SqliteDatabase(str(path), pragmas=dict(PRAGMAS))
        with self._database.bind_ctx(self.program.models):
            self._database.create_tables(self.program.models)

    @property
    def program(self) -> Program:
        return self.programs[self.version - 1]

    def upgrade(self, version: int) -> None:
        """Migrate the application's tables; the program itself starts with `running()`."""
        while self.version < version:
            self.version += 1
            models = self.program.models
            with self._database.bind_ctx(models), self._sync().migrating():
                for statement in self.program.migration:
                    self._database.execute_sql(statement)

    def _sync(self, **options: Any) -> Sync:
        fixed = {
            "shared_log": self._log,
            "now": self._clock,
            "new_id": self._new_id,
            "capture": self._capture,
        }
        options = {**fixed, **self.program.options, **options}
        return Sync(self._database, self.program.models, **options)

    @contextmanager
    def running(self, **options: Any) -> Iterator[Sync]:
        with self._database.bind_ctx(self.program.models), self._sync(**options) as sync:
            yield sync

    def sync(self) -> None:
        with self.running() as sync:
            sync.sync()

    def put(self, key: str, **values: Any) -> None:
        """Create a note, or change it; nothing is synced."""
        with self.running():
            note = self.program.note
            if not note.update(**values).where(note.key == key).execute():
                note.create(key=key, **values)

    def add(self, name: str, key: str, number: int) -> None:
        """Add to a number of a note that is there."""
        with self.running():
            note = self.program.note
            field = note._meta.fields[name]
            note.update({field: field + number}).where(note.key == key).execute()

    def delete(self, key: str) -> None:
        with self.running():
            self.program.note.delete_by_id(key)

    def notes(self) -> dict[str, dict[str, Any]]:
        with self._database.bind_ctx(self.program.models):
            return {row.pop("key"): row for row in self.program.note.select().dicts()}

    def query(self, sql: str) -> list[Any]:
        rows: list[Any] = self._database.execute_sql(sql).fetchall()
        return rows

    def close(self) -> None:
        self._database.close()
