"""What a world did, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

CHANGES_A_DAY = 24
"""On one device: the measure of a device-day."""


@dataclass(frozen=True)
class Report:
    """What a run did, and its digest."""

    seed: int
    devices: int
    changes: int
    faults: Counter[str]
    reached: Counter[str]
    entries: int
    digest: str
    processor_seconds: float = field(default=0.0, compare=False)

    @property
    def device_days(self) -> float:
        return self.changes / CHANGES_A_DAY
