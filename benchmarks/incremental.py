"""One change, sync on both sides: how long it takes, whatever the log holds already.

The history is real: one device adopts all rows and sends them, the other receives them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from .devices import Device, raw_file
from .figures import Figure, middle, percentile, seconds
from .records import INSERT, as_row, records
from .service import Service

TARGET_MS = 10.0
GROWTH_TARGET = 1.25
WARM_UP = 10


def measure(folder: Path, histories: list[int], changes: int) -> Iterator[Figure]:
    first: float | None = None
    for history in sorted(histories):
        times, idle = _with_history(folder / f"incremental-{history}", history, changes)
        p50 = middle(times) * 1000
        yield Figure(
            "incremental",
            "one change, sync on both sides",
            history,
            p50,
            "ms",
            target=TARGET_MS,
            details={
                "p95_ms": percentile(times, 0.95) * 1000,
                "nothing_new_ms": middle(idle) * 1000,
                "changes": changes,
            },
        )
        if first is None:
            first = p50
        else:
            name = "the same, as a multiple of the shortest history's"
            yield Figure("incremental", name, history, p50 / first, "x", target=GROWTH_TARGET)


def _with_history(folder: Path, history: int, changes: int) -> tuple[list[float], list[float]]:
    folder.mkdir()
    raw = raw_file(folder / "one.db")
    raw.executemany(INSERT, (as_row(record) for record in records(history)))
    raw.commit()
    raw.close()
    with Service(folder / "service.db") as service:
        one = Device(folder / "one.db", service.shared_log())
        other = Device(folder / "other.db", service.shared_log())
        one.sync.adopt()
        one.sync.sync()
        other.sync.sync()
        if other.count() != history:
            raise RuntimeError(f"{other.count()} of {history} rows arrived.")
        keys = [record["id"] for record in records(history)]
        times, idle = _take_times(one, other, keys, changes)
        one.close()
        other.close()
    for path in folder.iterdir():
        path.unlink()
    return times, idle


def _take_times(
    one: Device, other: Device, keys: list[str], changes: int
) -> tuple[list[float], list[float]]:
    rng = random.Random(1)
    times, idle = [], []
    for number in range(WARM_UP + changes):
        row = one.model.get_by_id(rng.choice(keys))
        row.title = f"changed {number}"
        row.save()
        times.append(seconds(one.sync.sync) + seconds(other.sync.sync))
        idle.append(seconds(one.sync.sync))
        if other.model.get_by_id(row.id).title != row.title:
            raise RuntimeError("A change did not arrive.")
    return times[WARM_UP:], idle[WARM_UP:]
