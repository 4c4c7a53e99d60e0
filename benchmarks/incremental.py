"""What is new, on top of what is old: one change, and some thousand, after a long history.

The history is real: one device adopts all rows and sends them, the other receives them. The
histories of all lengths are made first; then they take turns, so that a machine that is slow
for a while is slow for all of them. So does the limit: one change that the bare route takes and
hands out again, with a commit on either side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import orjson

from sharedlog.sync import BATCH_SIZE

from .devices import Device, raw_file
from .figures import Figure, middle, percentile, seconds, seconds_on_the_go
from .records import INSERT, as_change, as_row, records
from .service import BareRoute, Service

ONE_CHANGE = "one change, sync on both sides"
TARGET_MS = 10.0
GROWTH_TARGET = 1.25
WARM_UP = 10
"""At most: no more than there are changes to measure."""

Timed = Callable[[Callable[[], object]], float]


def measure(folder: Path, histories: list[int], changes: int, bulk: int) -> Iterator[Figure]:
    warm_up = min(WARM_UP, changes)
    with ExitStack() as stack:
        worlds = [
            stack.enter_context(World(folder / str(history), history))
            for history in sorted(histories)
        ]
        bare = stack.enter_context(BareWorld(folder / "bare"))
        for number in range(-warm_up, changes):
            bare.change_one(number)
            for world in worlds:
                world.change_one(number)
        for world in worlds:
            world.change_one_after_the_other(warm_up, changes)
            yield world.latency(f"{ONE_CHANGE}, one after the other", world.series, TARGET_MS)
        for world in worlds:
            yield world.latency(f"{ONE_CHANGE}, after a pause", world.both, None)
            yield world.to_bare(bare.both)
        for world in worlds[1:]:
            yield world.grown(ONE_CHANGE, world.both, worlds[0].both)
        for turn in range(5):
            for world in worlds:
                world.add_many(turn, bulk)
        for world in worlds[1:]:
            what = f"{bulk:,} new rows, push"
            yield world.grown(what, world.pushes, worlds[0].pushes)
            what = f"{bulk:,} new rows, pull and apply"
            yield world.grown(what, world.pulls, worlds[0].pulls)


class World:
    """A service and two devices that have so many rows and entries behind them."""

    def __init__(self, folder: Path, history: int) -> None:
        self.history = history
        self.both: list[float] = []
        self.series: list[float] = []
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

    def change_one_after_the_other(self, warm_up: int, changes: int) -> None:
        for number in range(-warm_up, changes):
            both = self._change(f"next {number}", seconds_on_the_go)
            if number >= 0:
                self.series.append(both)

    def change_one(self, number: int) -> None:
        """Those with a negative number are for warming up."""
        both = self._change(f"changed {number}", seconds)
        if number >= 0:
            self.both.append(both)

    def _change(self, title: str, timed: Timed) -> float:
        """Change one old row here, and sync here and there; return how long the syncs took."""
        row = self._one.model.get_by_id(self._chance.choice(self._keys))
        row.title = title
        row.save()
        both = timed(self._one.sync.sync) + timed(self._other.sync.sync)
        if self._other.model.get_by_id(row.id).title != row.title:
            raise RuntimeError("A change did not arrive.")
        return both

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

    def latency(self, what: str, took: list[float], target: float | None) -> Figure:
        return Figure(
            "incremental",
            what,
            self.history,
            middle(took) * 1000,
            "ms",
            target=target,
            details={"p95_ms": percentile(took, 0.95) * 1000, "changes": len(took)},
        )

    def grown(self, what: str, here: list[float], shortest: list[float]) -> Figure:
        """How much longer it takes than after the shortest history, in the same turns."""
        return self._compared(what, here, shortest, "the shortest history's", GROWTH_TARGET)

    def to_bare(self, bare: list[float]) -> Figure:
        """How much longer one change takes than by the bare route, in the same turns."""
        return self._compared(ONE_CHANGE, self.both, bare, "the bare route's", None)

    def _compared(
        self, what: str, here: list[float], there: list[float], whose: str, target: float | None
    ) -> Figure:
        ratio = middle([ours / theirs for ours, theirs in zip(here, there, strict=True)])
        details = {"limit_ms": middle(there) * 1000}
        name = f"{what}, to {whose}"
        return Figure("incremental", name, self.history, ratio, "x", 1.0, target, details=details)


class BareWorld:
    """The bare route, and what stands for two devices."""

    def __init__(self, folder: Path) -> None:
        self.both: list[float] = []
        self._folder = folder
        self._stack = ExitStack()
        self._records = enumerate(records(1_000_000))

    def __enter__(self) -> BareWorld:
        self._folder.mkdir()
        self._bare = self._stack.enter_context(BareRoute(self._folder / "bare.db"))
        self._one, self._other = (
            self._stack.enter_context(closing(raw_file(self._folder / f"{name}.db")))
            for name in ("one", "other")
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for path in self._folder.iterdir():
            path.unlink()

    def change_one(self, number: int) -> None:
        place, record = next(self._records)
        self._one.execute(INSERT, as_row(record))
        self._one.commit()
        entry = (place, place, as_change(record))
        both = seconds(lambda: self._push(entry)) + seconds(lambda: self._pull(place))
        if number >= 0:
            self.both.append(both)

    def _push(self, entry: tuple[int, int, str]) -> None:
        self._bare.push([entry])
        self._one.execute("UPDATE checkpoint SET seq = ?", (entry[0],))
        self._one.commit()

    def _pull(self, after: int) -> None:
        [(seq, _, _, data)] = self._bare.pull(after, BATCH_SIZE)
        change = orjson.loads(data)
        self._other.execute(INSERT, (change["pk"], *change["value"].values()))
        self._other.execute("UPDATE checkpoint SET seq = ?", (seq,))
        self._other.commit()
