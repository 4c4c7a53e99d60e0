"""Many worlds, one after the other."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from .world import run_world


@dataclass
class Totals:
    """What came together."""

    worlds: int = 0
    device_days: float = 0.0
    entries: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.worlds} worlds, {self.device_days:,.0f} device-days, {self.entries:,} entries, "
            f"{self.faults.total():,} faults in {self.seconds:.1f} s\n"
            f"{_listed(self.faults)}\n reached:\n{_listed(self.reached)}"
        )


def run_fleet(
    *,
    first: int = 1,
    seconds: float = 60.0,
    device_days: float = float("inf"),
    faults_wanted: int = 0,
    days: float = 3.0,
    faults: float = 1.0,
    memory: bool = False,
) -> Totals:
    """Run worlds of successive seeds until there are enough of both, or the time is over."""
    totals, began = Totals(), time.monotonic()
    for seed in count(first):
        report = run_world(seed, days=days, faults=faults, memory=memory)
        totals.worlds += 1
        totals.device_days += report.device_days
        totals.entries += report.entries
        totals.faults += report.faults
        totals.reached += report.reached
        totals.seconds = time.monotonic() - began
        enough = totals.device_days >= device_days and totals.faults.total() >= faults_wanted
        if enough or totals.seconds >= seconds:
            return totals
    raise AssertionError("unreachable")


def _listed(counts: Counter[str]) -> str:
    return "\n".join(f"  {number:7,}  {kind}" for kind, number in counts.most_common())
