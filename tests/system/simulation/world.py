"""One world: a service and some devices, events in time, from a seed to a report."""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sharedlog import MemorySharedLog, SharedLogError
from sharedlog.remote import Outgoing

from .checks import (
    Bad,
    check_acknowledged,
    check_agreement,
    check_ledger,
    check_log,
    check_quiet,
    check_tables,
)
from .clocks import DAY, MINUTE, SECOND, Clock, WorldTime, any_offset
from .device import Device, any_habits
from .faults import Crash, Faults
from .network import Link, Network, Stuck
from .oracle import expected
from .service import Service
from .trace import Trace
from .workload import Workload

CHANGES_A_DAY = 24
"""On one device: the measure of a device-day."""

ROUNDS_MAX = 3
"""After the healing: everyone sends, everyone receives what the later ones sent, all is quiet."""

FOREIGN = (
    "",
    "not json",
    "null",
    "[]",
    '{"operation":"explode","collection":"note","pk":1,"value":{}}',
    '{"operation":"create","collection":"note","pk":null,"value":{}}',
    '{"operation":"modify","collection":"","pk":"x","value":{}}',
    '{"operation":"create","collection":"note","pk":"x","value":5}',
)
"""What no device of ours would write."""


@dataclass(frozen=True)
class Report:
    """What a run did, and its digest."""

    seed: int
    devices: int
    changes: int
    faults: Counter[str]
    entries: int
    digest: str

    @property
    def device_days(self) -> float:
        return self.changes / CHANGES_A_DAY


class World:
    """Runs once: `World(seed, folder).run()`."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        days: float = 3.0,
        faults: float = 1.0,
        show: bool = False,
    ) -> None:
        self.seed = seed
        self._chance = self._source("world")
        self._time = WorldTime()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._end_ms = self._time.ms + round(days * DAY)
        self.trace = Trace(show=show)
        self.faults = Faults(self._source("faults"), scale=faults)
        self._service_clock = Clock(self._time)
        self.service = Service(folder, self._service_clock, self._source("service"))
        self.network = Network(self, self.service, self.faults, self._source("network"), self.trace)
        self._restores = self._chance.random() < 0.5
        self.devices = [self._device(f"device{n}", folder) for n in range(self._chance.randint(2, 5))]
        self._busy: set[str] = set()

    def _source(self, name: str) -> Random:
        """A source of chance of its own for each part, so that one does not disturb another."""
        return Random(f"{self.seed}/{name}")

    def _device(self, name: str, folder: Path) -> Device:
        chance = self._source(name)
        link = Link(name, self.network, lambda: self._meanwhile(device))
        device = Device(
            name,
            folder,
            link,
            Clock(self._time, any_offset(chance)),
            any_habits(chance, may_prune=not self._restores),
            chance,
            self.trace,
            self._time,
        )
        device.link = link
        device.workload = Workload(self._source(f"{name}/workload"), self.faults)
        return device

    # -- time ----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._time.ms

    def pass_time(self, ms: int) -> None:
        self._time.ms += ms

    def later(self, delay_ms: int, event: Callable[[], None]) -> None:
        """Let something happen in the future. Events of one instant keep their order."""
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._scheduled, event))

    def _now_and_then(self, per_day: float, event: Callable[[], None]) -> None:
        """Let something happen again and again, at random, until the end."""

        def happen() -> None:
            if self.now < self._end_ms:
                self._now_and_then(per_day, event)
                event()

        self.later(round(self._chance.expovariate(per_day) * DAY), happen)
