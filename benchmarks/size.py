"""Bytes per change: in the service's file, and in a device's file beside the application's data."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .devices import Device, Untracked
from .figures import Figure
from .records import as_change, records
from .service import Service

SERVICE_TARGET, CLIENT_TARGET = 400.0, 250.0


def measure(folder: Path, rows: int) -> Iterator[Figure]:
    work = list(records(rows))
    json = sum(len(as_change(record).encode()) for record in work) / rows

    def figure(name: str, used: float, target: float | None, limit: float | None = None) -> Figure:
        return Figure("size", name, rows, used / rows, "bytes", limit=limit, target=target)

    with Service(folder / "empty.db"):
        pass
    empty = _used_bytes(folder / "empty.db")
    # A device's file with nothing in it, and what the data would be without sharedlog.
    new, plain = Device(folder / "new.db"), Untracked(folder / "plain.db")
    data = new.used_bytes() - plain.used_bytes()
    plain.insert(work)
    data += plain.used_bytes()
    new.close()
    plain.close()
    path = folder / "service.db"
    with Service(path) as service:
        sender = Device(folder / "sender.db", service.shared_log())
        receiver = Device(folder / "receiver.db", service.shared_log())
        sender.insert(work)
        recorded = sender.used_bytes() - data
        sender.sync.sync()
        receiver.sync.sync()
        sent = sender.used_bytes() - data
        received = receiver.used_bytes() - data
        sender.sync.prune(keep_ms=0)
        pruned = sender.used_bytes() - data
        sender.close()
        receiver.close()
    yield figure("a change on the service", _used_bytes(path) - empty, SERVICE_TARGET, json)
    yield figure("beside the data, sender, not sent yet", recorded, None)
    yield figure("beside the data, sender, before prune()", sent, None)
    yield figure("beside the data, sender, after prune()", pruned, CLIENT_TARGET)
    yield figure("beside the data, receiver", received, CLIENT_TARGET)
    for used in folder.iterdir():
        used.unlink()


def _used_bytes(path: Path) -> int:
    connection = sqlite3.connect(path)
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    connection.close()
    return int((pages - free) * size)
