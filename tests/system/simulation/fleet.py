"""Many worlds, one after the other, in several processes."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from .report import Report
from .world import run_world

PROCESSES = 2


@dataclass
class Totals:
    """What came together."""

    worlds: int = 0
    device_days: float = 0.0
    entries: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        self.worlds += 1
        self.device_days += report.device_days
        self.entries += report.entries
        self.processor_seconds += report.processor_seconds
        self.faults += report.faults
        self.reached += report.reached

    def figures(self) -> dict[str, float]:
        return {
            "worlds": self.worlds,
            "device-days": self.device_days,
            "entries": self.entries,
            "faults": self.faults.total(),
            "seconds": self.seconds,
            "seconds of a processor": self.processor_seconds,
        }

    def __str__(self) -> str:
        figures = ", ".join(f"{figure:,.0f} {name}" for name, figure in self.figures().items())
        return f"{figures}\n{_listed(self.faults)}\n reached:\n{_listed(self.reached)}"


def run_fleet(
    *,
    first: int = 1,
    seconds: float = 60.0,
    device_days: float = float("inf"),
    faults_wanted: int = 0,
    kinds: Collection[str] = (),
    processes: int = PROCESSES,
    **asked: Any,
) -> Totals:
    """Run worlds of successive seeds until there is enough of both, and of each of these kinds of
    faults one, or the time is over.

    `asked` is what all worlds have in common (see `plan`). The first seed that fails raises.
    """
    totals, began = Totals(), time.monotonic()
    with _reports(first, processes, asked) as reports:
        for report in reports:
            totals.add(report)
            totals.seconds = time.monotonic() - began
            enough = totals.device_days >= device_days and totals.faults.total() >= faults_wanted
            if (enough and totals.faults.keys() >= set(kinds)) or totals.seconds >= seconds:
                break
    return totals


@contextmanager
def _reports(first: int, processes: int, asked: dict[str, Any]) -> Iterator[Iterator[Report]]:
    """The worlds' reports, in the order of their seeds."""
    run = partial(run_world, **asked)
    if processes == 1:
        yield map(run, count(first))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield _ahead(pool, run, count(first), 2 * processes)
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ProcessPoolExecutor, run: Any, seeds: Iterator[int], ahead: int
) -> Iterator[Report]:
    """Let so many worlds run, or wait to run, while their reports are asked for."""
    running: deque[Future[Report]] = deque(pool.submit(run, next(seeds)) for _ in range(ahead))
    while True:
        running.append(pool.submit(run, next(seeds)))
        yield running.popleft().result()


def _listed(counts: Counter[str]) -> str:
    return "\n".join(f"  {number:7,}  {kind}" for kind, number in counts.most_common())
