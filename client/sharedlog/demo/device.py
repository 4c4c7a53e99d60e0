"""One device of the demonstration: a database file of its own, kept in step by a `Sync`.

Both devices live in this process and share nothing but the model classes, which are bound to
one database at a time. (An application has one database and binds nothing.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee

from ..events import Event, Progress, Received, Sending, SyncResult
from ..sync import Sync
from .models import MODELS


@dataclass(frozen=True, slots=True)
class Exchange:
    """One `sync()`: what it did, how long it took, how much JSON went each way."""

    result: SyncResult
    seconds: float
    bytes_sent: int
    bytes_received: int

    @property
    def changes(self) -> int:
        return self.result.sent + self.result.received

    @property
    def bytes(self) -> int:
        return self.bytes_sent + self.bytes_received


class Device:
    """A Peewee application on one database file."""

    def __init__(self, name: str, folder: Path, *, url: str, token: str) -> None:
        self.name = name
        self.path = folder / f"{name}.db"
        self.database = peewee.SqliteDatabase(
            str(self.path), pragmas={"journal_mode": "wal", "foreign_keys": 1}
        )
        self._sync = Sync(self.database, MODELS, url=url, token=token, device_name=name)
        self._sync.setup()
        self._sync.on_event(self._hear)
        self._advance: Callable[[int], None] = lambda changes: None
        self._bytes_sent = self._bytes_received = 0
        with self.bound():
            self.database.create_tables(MODELS)

    def bound(self) -> Any:
        """Within this, the models mean this device's database."""
        return self.database.bind_ctx(MODELS)

    def sync(self, advance: Callable[[int], None] = lambda changes: None) -> Exchange:
        """Sync once; `advance` is told how many changes went over so far."""
        self._advance = advance
        self._bytes_sent = self._bytes_received = 0
        begin = time.perf_counter()
        result = self._sync.sync()
        seconds = time.perf_counter() - begin
        return Exchange(result, seconds, self._bytes_sent, self._bytes_received)

    def _hear(self, event: Event) -> None:
        match event:
            case Sending(entries):
                self._bytes_sent += sum(len(entry.data.encode()) for entry in entries)
            case Received(entries):
                self._bytes_received += sum(len(entry.data.encode()) for entry in entries)
            case Progress(sent, received):
                self._advance(sent + received)
            case _:
                pass

    @property
    def id(self) -> str | None:
        """What the service calls this device, once it has met it."""
        return self._sync.status().device

    @property
    def pending(self) -> int:
        """How many changes are recorded here and not sent yet."""
        return self._sync.status().pending

    def close(self) -> None:
        """End the application. May be called again."""
        if not self.database.is_closed():
            self._sync.close()
            self.database.close()
