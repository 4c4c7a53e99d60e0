"""A measured figure, and the arithmetic of repeated measurements."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        benchmark: The module that measured it.
        name: What was measured.
        rows: How many rows the work had.
        value: What came out, in `unit`.
        unit: "x" for a multiple of the limit's cost, "share" for a share of the limit's rate,
            else a unit of measurement.
        limit: What the limit reaches, in the same unit; None where there is none.
        target: What is to be reached; None where the figure is only told.
        at_least: Whether more is better.
        details: The single measurements, for whoever wants to know.
    """

    benchmark: str
    name: str
    rows: int
    value: float
    unit: str
    limit: float | None = None
    target: float | None = None
    at_least: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process: what a busy machine and a slow disk do not change."""
    return _timed(work, time.process_time)


def seconds(work: Callable[[], object]) -> float:
    """Time that passes."""
    return _timed(work, time.perf_counter)


def seconds_on_the_go(work: Callable[[], object]) -> float:
    """Time that passes when nothing else was done before, garbage collection neither: with what
    the processor has at hand from the last time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    start = clock()
    work()
    return clock() - start


def middle(values: Sequence[float]) -> float:
    return float(median(values))
