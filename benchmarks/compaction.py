"""The first sync of a device: of a log that was compacted, beside one that only ever had as much.

One device creates rows and writes each of them again and again. What a new device has to read then
is the whole history, and after compaction about what there is of live rows. The limit is a log that
holds each row's creation and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sharedlog_service.settings import Policy
from sharedlog_service.store.store import Store

from .devices import Device
from .figures import Figure, middle, seconds
from .records import records
from .service import Service

WRITES = 10
"""How often each row is written after its creation: all of it in one field."""

TARGET = 3.0
"""A row comes to two entries: how it began, and how it was last written."""


def measure(folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    plain = _first_syncs(folder / "plain", rows, rounds, writes=0, compacted=False)
    whole = _first_syncs(folder / "whole", rows, rounds, writes=WRITES, compacted=False)
    short = _first_syncs(folder / "short", rows, rounds, writes=WRITES, compacted=True)

    def figure(name: str, found: list[float], target: float | None) -> Figure:
        value = middle(found) / middle(plain)
        details = {"seconds": found, "limit_seconds": plain}
        return Figure("compaction", name, rows, value, "x", 1.0, target, details=details)

    yield figure(f"first sync, each row written {WRITES} times more", whole, None)
    yield figure("the same, compacted", short, TARGET)


def _first_syncs(
    folder: Path, rows: int, rounds: int, *, writes: int, compacted: bool
) -> list[float]:
    folder.mkdir()
    with Service(folder / "service.db") as service:
        with closing(Device(folder / "one.db", service.shared_log())) as one:
            one.insert(records(rows))
            one.sync.sync()
            for turn in range(writes):
                one.model.update(title=f"written again {turn}").execute()
                one.sync.sync()
        if compacted:
            # The service runs meanwhile.
            with closing(Store.open(folder / "service.db")) as store:
                for user in store.users():
                    store.compact(user, Policy())
        return [_first_sync(folder / f"new-{n}.db", service, rows) for n in range(rounds)]


def _first_sync(path: Path, service: Service, rows: int) -> float:
    with closing(Device(path, service.shared_log())) as device:
        took = seconds(device.sync.sync)
        if device.count() != rows:
            raise RuntimeError(f"{device.count()} of {rows} rows arrived.")
        return took
