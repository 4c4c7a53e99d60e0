"""Devices and a log in memory, from a seed to a digest; and many of these."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from random import Random

from sharedlog import MemorySharedLog, SharedLog
from sharedlog.journal.recorder import Capture
from tests.memory import folder_in_memory
from tests.system.simulation.trace import Trace
from tests.system.simulation.world import collected_afterwards

from .device import Device
from .logs import CompactedLog
from .places import IN_FILES, File, Place, Places
from .plan import Plan, plan

BEGINNING_MS = 1_800_000_000_000
TICK_MS = 7
DEVICES_MAX = 5
ROUNDS = 4
"""After so many syncs of everybody all is quiet."""


class Unequal(AssertionError):
    """Devices that have read the same differ, or one is not done."""


class Failed(AssertionError):
    """A fleet in which something went wrong: the message says how to see it again."""


class Fleet:
    """Runs once."""

    def __init__(self, plan: Plan, places: Places, folder: Path, trace: Trace) -> None:
        self._plan = plan
        self._places = places
        self._folder = folder
        self._trace = trace
        self._time_ms = BEGINNING_MS
        self._chance = plan.source("beginning")
        self._log: SharedLog = MemorySharedLog(now=self._tick)
        self._compacted: CompactedLog | None = None
        if plan.forgets is not None:
            file = folder / "log.db"
            self._compacted = CompactedLog(file, plan.forgets, self._tick, self._bits)
            self._log = self._compacted.shared
        self._backups: dict[str, Path] = {}
        self.devices: list[Device] = []

    def _tick(self) -> int:
        self._time_ms += TICK_MS
        return self._time_ms

    def _bits(self, number: int) -> int:
        return self._chance.getrandbits(number)

    def _tell(self, who: str, *what: object) -> None:
        self._trace.add(self._time_ms, who, *what)

    def _begin(self, name: str, place: Place, capture: Capture, ahead_ms: int) -> None:
        """Let a device begin, with what is in its place, if there is something."""
        device = Device(
            name,
            place,
            log=self._log,
            capture=capture,
            ahead_ms=ahead_ms,
            rules=self._plan.rules,
            nocase=self._plan.nocase,
            habits=self._plan.habits,
            unfit=self._plan.unfit,
            now=self._tick,
            bits=self._bits,
            tell=self._tell,
        )
        self.devices.append(device)

    def run(self, steps: Collection[int]) -> None:
        """Let these steps happen; come to rest; check. Raises what goes wrong."""
        try:
            for number, (kind, capture) in enumerate(
                zip(self._plan.kinds, self._plan.captures, strict=True)
            ):
                place = self._places.place(kind, capture, number, self._plan.rules, self._folder)
                self._begin(f"device{number}", place, capture, self._plan.ahead[number])
                if refusal := self._plan.refusals[number]:
                    self.devices[-1].refuse(refusal)
            for step in steps:
                self._chance = self._plan.source(step)
                self._step(self._chance)
            self._chance = self._plan.source("end")
            self._come_to_rest()
            for device in self.devices:
                device.heal()
            self._come_to_rest()
            self._check()
        finally:
            for device in self.devices:
                device.close()
            if self._compacted is not None:
                self._compacted.close()

    def _come_to_rest(self) -> None:
        for _ in range(ROUNDS):
            for device in self.devices:
                self._sync(device)
            if self._compacted is not None:
                self._tell("log", "compacted", self._compacted.compact())

    def _step(self, chance: Random) -> None:
        device, event = chance.choice(self.devices), chance.random()
        if event < 0.72:
            device.act(chance)
        elif event < 0.75 and self._compacted is not None:
            self._tell("log", "compacted", self._compacted.compact())
        elif event < 0.92:
            self._sync(device)
        elif event < 0.94:
            self._tell(device.name, "pruned", device.prune())
        elif event < 0.97 and self._plan.copies:
            if isinstance(device.place, File):
                chance.choice((self._back_up, self._put_back, self._copy))(device)
        elif self._plan.resets:
            self._tell(device.name, "reset", device.reset())

    def _sync(self, device: Device) -> None:
        self._tell(device.name, "syncs")
        result = device.sync()
        self._tell(device.name, "synced", result.sent, result.received, result.parked)

    def _back_up(self, device: Device) -> None:
        self._backups[device.name] = path = self._folder / f"{device.name}.backup"
        device.copy_to(path)
        self._tell(device.name, "backed up")

    def _put_back(self, device: Device) -> None:
        if path := self._backups.get(device.name):
            device.put_back(path)
            self._tell(device.name, "put back")

    def _copy(self, device: Device) -> None:
        if len(self.devices) < DEVICES_MAX:
            name = f"copy{len(self.devices)}"
            file = File(self._folder / f"{name}.db")
            device.copy_to(file.path)
            self._begin(name, file, device.capture, device.ahead_ms)
            self.devices[-1].refusal = device.refusal
            self._tell(device.name, "copied as", name)

    def _check(self) -> None:
        first, *others = self.devices
        rows, parked = first.rows(), first.parked()
        self._tell("finally", rows, parked)
        for device in others:
            for table, theirs in device.rows().items():
                if theirs != rows[table]:
                    raise Unequal(f"{table}: {rows[table]}, on {device.name} {theirs}")
            if device.parked() != parked:
                raise Unequal(f"parked: {parked}, on {device.name} {device.parked()}")
        for device in self.devices:
            if wrongs := device.wrongs():
                raise Unequal(f"{device.name}: {', '.join(wrongs)}")


def run_fleet(
    seed: int,
    *,
    only: Collection[int] | None = None,
    show: bool = False,
    kinds: Sequence[str] = ("sqlite",),
    places: Places = IN_FILES,
) -> str:
    """Run a fleet, or `only` these of its steps; return the digest of what happened."""
    trace, drawn = Trace(show=show), plan(seed, kinds)
    steps = range(drawn.steps) if only is None else only
    with folder_in_memory() as folder, collected_afterwards():
        try:
            Fleet(drawn, places, folder, trace).run(steps)
        except Exception as error:
            told = f"{drawn}\n{trace.tail()}\n{type(error).__name__}: {error}\nReplay it with:\n"
            raise Failed(f"{told}    {replay(seed, only, kinds)}") from error
    return trace.digest


def replay(seed: int, only: Collection[int] | None, kinds: Sequence[str] = ("sqlite",)) -> str:
    chosen = "" if {*kinds} == {"sqlite"} else f" --databases {','.join(kinds)}"
    chosen += "" if only is None else f" --only {','.join(map(str, only))}"
    return f"python -m tests.system.odd --seed {seed}{chosen}"


def run_fleets(
    first: int,
    processor_seconds: float,
    kinds: Sequence[str] = ("sqlite",),
    places: Places = IN_FILES,
) -> int:
    """Run fleets of successive seeds for a while; return how many. The first failure raises."""
    began = time.process_time()
    for number in count(1):
        run_fleet(first + number - 1, kinds=kinds, places=places)
        if time.process_time() - began >= processor_seconds:
            break
    return number
