"""What is new, on top of what is old: one change, and some thousand, after a long history.

The history is real: one device adopts all rows and sends them, the other receives them. The
histories of all lengths are made first; then they take turns, so that a machine that is slow
for a while is slow for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from .devices import Device, raw_file
from .figures import Figure, middle, percentile, seconds
from .records import INSERT, as_row, records
from .service import Service

TARGET_MS = 10.0
GROWTH_TARGET = 1.25
WARM_UP = 10


def measure(folder: Path, histories: list[int], changes: int, bulk: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        worlds = [
            stack.enter_context(World(folder / str(history), history))
            for history in sorted(histories)
        ]
        for number in range(WARM_UP + changes):
            for world in worlds:
                world.change_one(number)
        for world in worlds:
            yield world.latency()
        for world in worlds[1:]:
            yield world.compared("one change, sync on both sides", world.both, worlds[0].both)
        for turn in range(5):
            for world in worlds:
                world.add_many(turn, bulk)
        for world in worlds[1:]:
            what = f"{bulk:,} new rows, push"
            yield world.compared(what, world.pushes, worlds[0].pushes)
            what = f"{bulk:,} new rows, pull and apply"
            yield world.compared(what, world.pulls, worlds[0].pulls)


class World:
    """A service and two devices that have so many rows and entries behind them."""

    def __init__(self, folder: Path, history: int) -> None:
        self.history = history
        self.both: list[float] = []
        self.nothing_new: list[float] = []
        self.pushes: list[float] = []
        self.pulls: list[float] = []
        self._folder = folder
        self._keys = [record["id"] for record in records(history)]
        self._chance = random.Random(1)
        self._stack = ExitStack()

    def __enter__(self) -> World:
        self._folder.mkdir()
        raw = raw_file(self._folder / "one.db")
        raw.executemany(INSERT, (as_row(record) for record in records(self.history)))
        raw.commit()
        raw.close()
        service = self._stack.enter_context(Service(self._folder / "service.db"))
        self._one = Device(self._folder / "one.db", service.shared_log())
        self._other = Device(self._folder / "other.db", service.shared_log())
        self._one.sync.adopt()
        self._one.sync.sync()
        self._other.sync.sync()
        self._check(self.history)
        return self

    def __exit__(self, *error: object) -> None:
        self._one.close()
        self._other.close()
        self._stack.close()
        for path in self._folder.iterdir():
            path.unlink()

    def change_one(self, number: int) -> None:
        """Change one old row here, and sync here and there."""
        row = self._one.model.get_by_id(self._chance.choice(self._keys))
        row.title = f"changed {number}"
        row.save()
        both = seconds(self._one.sync.sync) + seconds(self._other.sync.sync)
        if self._other.model.get_by_id(row.id).title != row.title:
            raise RuntimeError("A change did not arrive.")
        nothing_new = seconds(self._one.sync.sync)
        if number >= WARM_UP:
            self.both.append(both)
            self.nothing_new.append(nothing_new)

    def add_many(self, turn: int, count: int) -> None:
        """Add rows here, and sync here and there."""
        self._one.insert(records(count, prefix=f"b{turn}"))
        self.pushes.append(seconds(self._one.sync.sync))
        self.pulls.append(seconds(self._other.sync.sync))
        self._check(self.history + count * (turn + 1))

    def _check(self, rows: int) -> None:
        arrived = self._other.count()
        if arrived != rows:
            raise RuntimeError(f"{arrived} of {rows} rows arrived.")

    def latency(self) -> Figure:
        return Figure(
            "incremental",
            "one change, sync on both sides",
            self.history,
            middle(self.both) * 1000,
            "ms",
            target=TARGET_MS,
            details={
                "p95_ms": percentile(self.both, 0.95) * 1000,
                "nothing_new_ms": middle(self.nothing_new) * 1000,
                "changes": len(self.both),
            },
        )

    def compared(self, what: str, here: list[float], shortest: list[float]) -> Figure:
        """How much longer it takes than after the shortest history, in the same turns."""
        return Figure(
            "incremental",
            f"{what}, to the shortest history's",
            self.history,
            middle([long / short for long, short in zip(here, shortest, strict=True)]),
            "x",
            limit=1.0,
            target=GROWTH_TARGET,
        )
