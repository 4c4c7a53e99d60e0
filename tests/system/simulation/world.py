"""One world: a service and some devices, events in time, from a seed to a report."""

from __future__ import annotations

import gc
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sharedlog import SharedLog
from sharedlog.clock import TICKS_PER_MS
from sharedlog.events import Event, Reconciled, Restamped
from sharedlog.remote.sharedlog import Outgoing
from tests.memory import folder_in_memory

from . import switches
from .checks import (
    check_acknowledged,
    check_agreement,
    check_ledgers,
    check_log,
    check_quiet,
    check_tables,
    check_verified,
)
from .clocks import DAY, HOUR, MINUTE, SECOND, Clock, WorldTime, any_offset, any_step
from .device import STATEMENTS, Device, any_habits
from .faults import Crash, Faults
from .memory_service import MemoryService
from .network import Link, Network, Stuck
from .oracle import Oracle
from .plan import Plan, plan
from .report import CHANGES_A_DAY, Report
from .service import Logged, Service
from .shapes import Application
from .trace import Trace

CALM = 0.4
"""How much goes wrong on a calm day, in proportion to a stormy one."""

UNHURRIED = 0.75
"""How many of a stormy day's syncs nobody makes on a calm one."""

ROUNDS_MAX = 3
"""After the healing: everyone sends, everyone receives what the later ones sent, all is quiet."""

DEVICES_MAX = 7
"""With all copies."""

ENCORE = 8
"""How often each user does something after all has healed."""

WRONG_MAX_MS = HOUR
"""How wrong the service's clock gets."""


class World:
    """Runs once: `World(seed, folder).run()`."""

    def __init__(self, plan: Plan, folder: Path, trace: Trace) -> None:
        self.plan = plan
        self._source = plan.source
        self._chance = self._source("world")
        self.application = plan.application
        self._oracle = Oracle()
        self._time = WorldTime()
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._scheduled = 0
        self._end_ms = self._time.ms + round(plan.days * DAY)
        self.trace = trace
        self.faults = Faults(self._source("faults"), scale=plan.faults * CALM)
        self._stormy = False
        self.reached: Counter[str] = Counter()
        self._service_clock = Clock(self._time)
        chance = self._source("service")
        self.service: Service | MemoryService = (
            MemoryService(self._service_clock, chance)
            if plan.memory
            else Service(folder, self._service_clock, chance)
        )
        self.network = Network(self, self.service, self.faults, self._source("network"), self.trace)
        self._beside: set[str] = set()
        self._foreign: list[Outgoing] = []
        self._offer_foreign()
        self._resting = False
        self._folder = folder
        self._backups: dict[str, tuple[str, Application]] = {}
        self.devices = [self._device(n, edition) for n, edition in enumerate(plan.editions)]

    def _device(self, number: int, application: Application) -> Device:
        name = f"device{number}"
        chance = self._source(name)
        return Device(
            self._file(name),
            link=Link(name, self.network, lambda: self._meanwhile(name)),
            clock=Clock(self._time, any_offset(chance), any_step(chance)),
            habits=any_habits(chance, may_prune=not self.plan.restores),
            application=application,
            user=application.user(self._source(f"{name}/workload"), self.faults),
            chance=chance,
            listener=self._notice,
        )

    def _file(self, name: str) -> str:
        return str(self._folder / f"{name}.db")

    def _notice(self, event: Event) -> None:
        """Count what the run gets to see, so that it is known what it tests."""
        if isinstance(event, Restamped):
            self.reached["timestamps corrected"] += 1
        elif isinstance(event, Reconciled):
            applied = event.applied
            self.reached["conflicts"] += len(applied.conflicts)
            self.reached["pages with unreadable entries"] += applied.unreadable > 0
            self.reached["rows deleted by others"] += applied.deleted
            self.reached["rows that came back"] += len(applied.returned)
            self.reached["dead rows kept"] += len(applied.kept)
            for parked in applied.newly_parked:
                self.reached[f"rows parked: {parked.code}"] += 1

    # -- time ----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._time.ms

    def pass_time(self, ms: int) -> None:
        self._time.ms += ms

    def later(self, delay_ms: int, event: Callable[[], object]) -> None:
        """Let something happen in the future. Events of one instant keep their order."""
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._scheduled, event))

    def _now_and_then(self, per_day: float, event: Callable[[], object]) -> None:
        """Let something happen again and again, at random, until the end."""

        def happen() -> None:
            if self.now < self._end_ms:
                self._now_and_then(per_day, event)
                event()

        self.later(round(self._chance.expovariate(per_day) * DAY), happen)

    # -- what happens --------------------------------------------------------------------

    def run(self) -> Report:
        """Let it run until its end, heal it, and check everything. Raises `Bad` or `Stuck`."""
        try:
            self._schedule()
            self._run_queue()
            self._heal()
            log = self._come_to_rest()
            if self.plan.encore:
                self._go_on()
                log = self._come_to_rest()
            # All tables have been checked: this is about verify(), which reads the whole log.
            check_verified(self._chance.choice(self.devices))
            return Report(
                self.plan.seed,
                len(self.devices),
                sum(len(device.own_ledger()) for device in self.devices),
                self.faults.counts,
                self.reached,
                len(log),
                self.trace.digest,
            )
        finally:
            self.close()

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.service.stop()

    def _schedule(self) -> None:
        self._dawn()
        for device in self.devices:
            self._begin(device)
        if self.plan.restores:
            self._now_and_then(3, self._back_up)
        self._now_and_then(1, self._foreign_entry)
        self._now_and_then(2, self._noon)

    def _dawn(self) -> None:
        """Let a day begin: a calm one, or one on which all goes wrong and everybody tries again."""
        self._stormy = self._chance.random() < self.plan.storms
        self.faults.scale = self.plan.faults * (1 if self._stormy else CALM)
        if self.now + DAY < self._end_ms:
            self.later(DAY, self._dawn)

    def _begin(self, device: Device) -> None:
        """From here on, the device is used."""
        self._now_and_then(CHANGES_A_DAY, partial(self._do, device, device.work))
        self._now_and_then(self._chance.choice((2, 6, 12)), partial(self._sync, device))
        if device.habits.prunes:
            self._now_and_then(1, partial(self._do, device, device.prune))
        if switches.FORKS and not self.plan.restores:
            self._now_and_then(0.7, partial(self._back_up_device, device))
        if device.application is not self.application:
            delay = round(self._chance.uniform(0, 1.5) * (self._end_ms - self.now))
            self.later(delay, partial(self._upgrade, device))

    def _run_queue(self) -> None:
        while self._queue:
            time_ms, _, event = heapq.heappop(self._queue)
            self._time.ms = max(self._time.ms, time_ms)
            event()

    def _upgrade(self, device: Device) -> None:
        if self.now < self._end_ms:  # else it keeps the old edition for good
            self.reached["upgrades of the application"] += 1
            self.trace.add(self.now, device.name, device.upgrade(self.application))

    def _do(self, device: Device, action: Callable[[], str]) -> bool:
        """Let a device do something, and perhaps die of it. Returns whether it lived."""
        self._disturb_clock(device)
        if switches.FORKS and not self._resting:
            self._disturb_file(device)
        if self.faults.threaten("device dies at a statement"):
            device.fuse.light(self._chance, STATEMENTS)
        said = "failed"
        try:
            said = action()
            device.fuse.put_out()
        except Crash as crash:
            self.faults.struck("device dies at a statement")
            said = f"died {crash}"
            self._restart(device)
            return False
        finally:
            self.trace.add(self.now, device.name, said)
        if self.faults.strike("device dies"):
            self._restart(device)
        return True

    def _restart(self, device: Device) -> None:
        device.clock.start(anew=self.faults.strike("clock begins anew"))
        device.restart()

    def _sync(self, device: Device) -> None:
        if not self._stormy and self._chance.random() < UNHURRIED:
            return
        lived = self._do(device, device.exchange)
        if not lived or self.plan.restores or self._chance.random() < 0.8:
            return
        if self._do(device, device.sync) and device.has_synced:
            self.reached["devices checked in the middle"] += 1
            check_agreement(device, self.service.entries(), self._oracle)

    def _meanwhile(self, name: str) -> None:
        """Something else happens on a device while its sync waits for the network."""
        if self._resting:
            return
        device = next(device for device in self.devices if device.name == name)
        chance = self._chance.random()
        if chance < 0.05:
            self.reached["changes while waiting for the service"] += 1
            self.trace.add(self.now, name, "meanwhile", device.work())
        elif chance < 0.07 and name not in self._beside:
            self.reached["two processes syncing one file"] += 1
            self._beside.add(name)
            try:
                self.trace.add(self.now, name, "beside", device.sync_beside())
            finally:
                self._beside.remove(name)

    def _disturb_clock(self, device: Device) -> None:
        if self.faults.strike("clock jumps"):
            device.clock.set(any_offset(self._chance))
        if self.faults.strike("clock freezes"):
            device.clock.freeze()
        if self.faults.strike("service clock jumps"):
            bound = self._chance.choice((30 * SECOND, 30 * SECOND, WRONG_MAX_MS))
            self._service_clock.set(self._chance.randint(-bound, bound))

    def _disturb_file(self, device: Device) -> None:
        """Copy the file, and both go on, or put an older copy in its place."""
        if len(self.devices) < DEVICES_MAX and self.faults.strike("device copied"):
            number = len(self.devices)
            device.copy_to(self._file(f"device{number}"))
            self.devices.append(self._device(number, device.application))
            self._begin(self.devices[-1])
            self.trace.add(self.now, device.name, "copied as", self.devices[-1].name)
        if device.name in self._backups and self.faults.strike("device put back"):
            device.put_back(*self._backups[device.name])
            self.trace.add(self.now, device.name, "put back")

    def _back_up_device(self, device: Device) -> None:
        path = self._file(f"{device.name}.backup")
        Path(path).unlink(missing_ok=True)
        device.copy_to(path)
        self._backups[device.name] = path, device.application

    def _noon(self) -> None:
        """All devices whose clocks are right write the same row at the same time."""
        for device in list(self.devices):
            self._do(device, device.work_at_noon)

    def _back_up(self) -> None:
        if all(device.id for device in self.devices):
            self.service.back_up()

    def _foreign_entry(self) -> None:
        """Somebody writes what no device of ours would."""
        data = self._chance.choice(self.application.strangers)
        self._foreign.append(Outgoing((self.now - MINUTE) * TICKS_PER_MS, 0, data))
        self.faults.struck("foreign entry")
        self.trace.add(self.now, "foreign", data)
        self._offer_foreign()

    def _offer_foreign(self) -> None:
        """All of them, again and again, so that a restored log gets them back."""

        def request(log: SharedLog) -> None:
            device = log.register("foreign", "foreign")
            log.write(device, self._foreign, after=None, now_ms=self.now, limit=1, byte_limit=1)

        self.service.answer(request)

    # -- the end -------------------------------------------------------------------------

    def _heal(self) -> None:
        """Everything works from here on. Devices' clocks stay as wrong as they are; the service's
        is right again, and for long enough that nothing it ever took is in the future."""
        self._resting = True
        self.faults.heal()
        self._service_clock.set(0)
        self.pass_time(2 * WRONG_MAX_MS)
        for device in self.devices:
            device.link.cut_until = 0
            device.restart()
        self._offer_foreign()

    def _come_to_rest(self) -> Sequence[Logged]:
        """Let all devices sync until nothing is left to do; check that everything is right."""
        for _ in range(ROUNDS_MAX):
            for device in self.devices:
                self._do(device, device.sync)
                if not device.has_synced:
                    raise Stuck(f"{device.name} cannot sync although all is well")
        log = self.service.entries()
        check_log(log)
        check_acknowledged(log, self.network.acknowledged)
        gone = self.network.gone(log)
        check_ledgers(self.devices, log, self.network.lost, self.network.read)
        for device in self.devices:
            wanted = self._oracle.expected(device.application.tables, log)
            check_tables(device, wanted, gone)
            check_quiet(device, wanted, gone)
        for key in sorted(wanted.standing):
            self.trace.add(self.now, "finally", key, wanted.standing[key])
        return log

    def _go_on(self) -> None:
        """Users go on, and look at what came of it, without faults: what was kept for later, and
        who comes back."""
        for _ in range(ENCORE):
            for device in self.devices:
                self._do(device, device.work)


def run_world(seed: int, *, show: bool = False, **asked: Any) -> Report:
    """Run one world. A failure tells how it is replayed, and what happened last."""
    trace, began = Trace(show=show), time.process_time()
    with folder_in_memory() as path, collected_afterwards():
        try:
            report = World(plan(seed, **asked), path, trace).run()
            return replace(report, processor_seconds=time.process_time() - began)
        except Exception as error:
            raise Failed(_told(seed, asked, error, trace)) from error


@contextmanager
def collected_afterwards() -> Iterator[None]:
    """Let Python look for garbage once a world, and among what the world made, not thousands of
    times among everything."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if enabled:
            gc.enable()


class Failed(AssertionError):
    """A world in which something went wrong: the message says how to see it again."""


def _told(seed: int, asked: Mapping[str, Any], error: Exception, trace: Trace) -> str:
    switches = [
        f" --{name} {asked[name]}" for name in ("days", "faults", "storms") if name in asked
    ]
    switches += [f" --{'' if asked['memory'] else 'no-'}memory"] if "memory" in asked else []
    return (
        f"{trace.tail()}\n{type(error).__name__}: {error}\nReplay it with:\n"
        f"    python -m tests.system.simulation --seed {seed}{''.join(switches)}"
    )
