"""Kills a process at one point after the other, and looks at what it leaves behind.

    python -m tests.system.crash_sweep FOLDER writes service --shard 0/2

Each kill: a fresh copy of the files as they were before an operation; a forked child that does this
operation and dies by SIGKILL on coming to a point or on leaving it; then the files must be sound,
and after everybody has synced the devices must be equal and every entry in the shared log exactly
once. Points are named in `tests.system.crash_points`.

- `writes`, `first`, `stages`, `private`, `ahead`, `restored`, `reset`, `copy`, `lost`: client and
  service in one process over their durable files; it dies at each point of either side.
- `store`: the service's own transactions, and its first opening.
- `service`: the service alone dies, speaking real HTTP; the client lives on and is told.
- `again`: dies at some point, and twice more while it recovers.
- `moments`: a client over real HTTP is killed from outside while it works.
- `errors`, `errors-first`: nobody dies, but each statement in turn fails once (the disk is
  full), and the same process goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import peewee

from sharedlog import ConnectionFailed, RemoteError
from tests.system import crash_store
from tests.system.crash_children import ServiceChildren, dies, in_child
from tests.system.crash_points import is_durable
from tests.system.crash_scenario import (
    BATCH,
    OPEN,
    PRIVATE,
    SCENARIOS,
    WRITE,
    Operation,
    Scenario,
    first,
    local_log,
    perform,
    schema,
    still,
    still_device,
    stubborn,
    sync_all,
    work_on,
)
from tests.system.crash_steps import Steps, counted_connection
from tests.system.crash_world import (
    SENT,
    ClientFile,
    Note,
    check_client,
    check_equal,
    read_client,
    read_log,
)

SWEEPS = ("store", "service", "again", "moments", "errors", "errors-first")


@dataclass
class Known:
    """What a scenario does when nobody dies: the points that each operation goes by, and a's file
    before each and after the last."""

    points: list[list[str]] = field(default_factory=list)
    files: list[ClientFile] = field(default_factory=list)


def deaths(points: Sequence[str]) -> list[int]:
    """At which steps to die: on coming to a point, and on leaving it for one of which others may
    know already."""
    stays = [(point, len(list(stay))) for point, stay in groupby(points)]
    chosen, step = {1}, 0
    for point, length in stays:
        if step:
            chosen |= {step, step + 1} if is_durable(point) else {step + 1}
        step += length
    return sorted(chosen)


@dataclass
class Sweep:
    """One kind of death, again and again."""

    folder: Path
    shard: int = 0
    shards: int = 1
    every: int = 1
    points: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    errors: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, name: str, rounds: int) -> None:
        if name in SCENARIOS:
            self.scenario(name)
        elif name.startswith("errors"):
            self.failing(name.removeprefix("errors-"))
        elif name in ("again", "moments"):
            getattr(self, name)(self.shard, rounds)
        else:
            getattr(self, name)()

    # -- killed at a point ---------------------------------------------------------------

    def scenario(self, name: str) -> None:
        """Die at each point of client and service, in each operation of a scenario."""
        scenario = SCENARIOS[name]
        operations = scenario.operations()
        known = self._known(scenario, operations)
        for index, at in self._mine(known.points):
            point = known.points[index][at - 1]
            here = self._fresh(f"before {index}")
            with self._noting(f"{name}, operation {index}, step {at}: {point}"):
                assert dies(partial(perform, here, scenario, operations[index], at))
                self._count(point)
                check_after_death(here, scenario, operations, known, index)
                sync_all(here, scenario)
                check_recovered(here, scenario, known.files[index])

    def _known(self, scenario: Scenario, operations: list[Operation]) -> Known:
        """Go through a scenario once; keep a copy of the files before each operation."""
        here, known = self.folder / "prepared", Known()
        scenario.prepare(here)
        known.files.append(read_client(here / "a.db"))
        for index, operation in enumerate(operations):
            shutil.copytree(here, self.folder / f"before {index}")
            known.points.append(perform(here, scenario, operation))
            known.files.append(a_file(here, scenario, known.files[-1]))
        sync_all(here, scenario)
        check_recovered(here, scenario, known.files[-1])
        return known

    def store(self) -> None:
        """Kill the service in each of its own transactions."""
        crash_store.prepare(self.folder)
        known = crash_store.reference(self.folder)
        for index, at in self._mine([each.points for each in known]):
            point = known[index].points[at - 1]
            here = self._fresh(f"before {index}")
            with self._noting(f"store, {known[index].name}, step {at}: {point}"):
                assert dies(partial(crash_store.perform, here, index, at))
                self._count(point)
                crash_store.check_after_death(here, known, index)

    def service(self) -> None:
        """Kill the service alone at each point, while a real client speaks to it."""
        scenario, prepared = SCENARIOS["writes"], self.folder / "prepared"
        token = scenario.prepare(prepared)
        with local_log(prepared) as log, still_device(prepared / "a.db", shared_log=log) as a:
            operations = scenario.operations()
            while operations[0].kind == WRITE:
                operations.pop(0).run(a)
        services = ServiceChildren(self.folder / "here" / "service.db", still)
        points = self._served(services, token)
        for _, at in self._mine([points]):
            with self._noting(f"service, step {at}: {points[at - 1]}"):
                self._served(services, token, at)
                self._count(points[at - 1])
                here = self.folder / "here"
                check_client(read_client(here / "a.db"), read_log(here / "service.db"))
                sync_all(here, scenario)
                check_recovered(here, scenario)

    def _served(self, services: ServiceChildren, token: str, at: int | None = None) -> list[str]:
        """One sync of a with the service; returns the points that the service went by."""
        here = self._fresh()
        with (
            services.started(die_at=at, tell=at is None) as service,
            still_device(here / "a.db", url=service.url, token=token, batch_size=BATCH) as a,
        ):
            try:
                a.sync()
            except ConnectionFailed:
                Note.create(key="meanwhile", title="local work goes on")
            points = service.stop()
            assert service.died() is (at is not None)
        return points

    # -- killed at any time --------------------------------------------------------------

    def again(self, seed: int, rounds: int) -> None:
        """Die at some point, then at some step of the recovery, then at one of the next."""
        scenario, chance = SCENARIOS["writes"], random.Random(seed)
        operations = scenario.operations()
        known = self._known(scenario, operations)
        for number in range(rounds):
            index = chance.randrange(len(operations))
            at = chance.randint(1, len(known.points[index]))
            here = self._fresh(f"before {index}")
            with self._noting(f"again, seed {seed}, round {number}: operation {index}, step {at}"):
                assert dies(partial(perform, here, scenario, operations[index], at))
                self._count(known.points[index][at - 1])
                check_after_death(here, scenario, operations, known, index)
                for limit in (150, 400):
                    self._recover_and_die(here, scenario, chance.randrange(1, limit))
                sync_all(here, scenario)
                check_recovered(here, scenario)

    def _recover_and_die(self, here: Path, scenario: Scenario, at: int) -> None:
        steps = Steps()
        steps.arm(at)
        self.kills += dies(partial(sync_all, here, scenario, steps))
        log = read_log(here / "service.db")
        for name in ("a.db", "b.db"):
            check_client(read_client(here / name), log)

    def moments(self, seed: int, rounds: int) -> None:
        """Kill a client that works without end from outside."""
        scenario, chance = SCENARIOS["writes"], random.Random(seed)
        token = scenario.prepare(self.folder / "prepared")
        here = self._fresh()
        with ServiceChildren(here / "service.db", still).started() as service:
            for life in range(rounds):
                with self._noting(f"moments, seed {seed}, life {life}"):
                    end = in_child(
                        partial(work_on, here, service.url, token, life),
                        kill_after=chance.randrange(1, 30),
                    )
                    assert end.killed
                    self.kills += 1
                    a = read_client(here / "a.db")
                    check_client(a, read_log(here / "service.db"))
                    made = [e for e in a.entries if str(e.change["pk"]).startswith(f"m{life}-")]
                    assert len(made) >= end.acknowledged.count(WRITE)
            service.stop()
            service.died()
        sync_all(here, scenario)
        check_recovered(here, scenario)

    # -- not killed ----------------------------------------------------------------------

    def failing(self, name: str) -> None:
        """Let each statement of client and service fail once, and go on."""
        scenario = SCENARIOS["first" if name == "first" else "writes"]
        operations = first() if name == "first" else stubborn()
        scenario.prepare(self.folder / "prepared")
        steps = self._with_error(self._fresh(), operations, None)
        # All of the first transaction: it goes on after an error of one of its writes.
        going_on = 0 if name == "first" else steps.index("before COMMIT") + 1
        chosen = [
            number
            for number, step in enumerate(steps, 1)
            if number <= going_on or "COMMIT" in step or number % self.every == 0
        ]
        for number in chosen[self.shard :: self.shards]:
            here = self._fresh()
            with self._noting(f"{name}, step {number} fails: {steps[number - 1]}"):
                self._with_error(here, operations, number)
                self.errors += 1
                sync_all(here, scenario)
                check_recovered(here, scenario)

    def _with_error(
        self, here: Path, operations: list[Operation], fail_at: int | None
    ) -> list[str]:
        steps = Steps()
        counted = counted_connection(steps)
        with (
            local_log(here, steps) as log,
            still_device(here / "a.db", shared_log=log, batch_size=BATCH, factory=counted) as a,
        ):
            steps.arm(fail_at=fail_at)
            for operation in operations:
                begun = len(steps.fallible)
                # Where an earlier write failed, a later one may miss its row.
                with suppress(peewee.OperationalError, RemoteError, Note.DoesNotExist):
                    operation.run(a)
                if fail_at is not None and begun < fail_at <= len(steps.fallible):
                    assert not a.database.connection().in_transaction
                    adopted = operations[0].kind != OPEN
                    now_there = read_log(here / "service.db")
                    check_client(read_client(here / "a.db"), now_there, adopted=adopted)
            fallible = steps.fallible.copy()
            assert fail_at is None or len(fallible) >= fail_at, "nothing failed"
            a.sync()
            assert a.status().pending == 0
        return fallible

    # -- parts ---------------------------------------------------------------------------

    def _mine(self, points: list[list[str]]) -> list[tuple[int, int]]:
        """This shard's deaths: which operation, at which of its steps. At no point nobody dies."""
        seen, chosen = set(), []
        steps = [(index, at) for index, some in enumerate(points) for at in deaths(some)]
        for number, (index, at) in enumerate(steps):
            point = points[index][at - 1]
            if number % self.every == 0 or point not in seen:
                chosen.append((index, at))
            seen.add(point)
        return chosen[self.shard :: self.shards]

    def _count(self, point: str) -> None:
        self.kills += 1
        self.points[point] += 1

    def _fresh(self, name: str = "prepared") -> Path:
        """A copy of some files."""
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.folder / name, here)
        return here

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Go on after a failure: at which points it happens is worth knowing."""
        try:
            yield
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            sys.stderr.write(f"--- {what}\n{traceback.format_exc()}\n")


# -- what must be true -------------------------------------------------------------------


def a_file(folder: Path, scenario: Scenario, before: ClientFile | None) -> ClientFile:
    """The file of device a, with what it may have pruned since."""
    found = read_client(folder / "a.db")
    return found.with_pruned(before.entries) if scenario.prunes and before else found


def check_after_death(
    folder: Path, scenario: Scenario, operations: list[Operation], known: Known, index: int
) -> None:
    """What was acknowledged is there, and the operation is there as a whole or not at all."""
    before, after = known.files[index : index + 2]
    a, log = a_file(folder, scenario, before), read_log(folder / "service.db")
    if scenario.resets:
        return  # until it has read the log again, its tables may be of any time
    if not scenario.loses:  # the same here
        adopted, copied = scenario.met or index > 1, "c" in scenario.others
        check_client(a, log, adopted=adopted, applied=before.checkpoint, copied=copied)
    assert len(before.entries) <= len(a.entries) <= len(after.entries)
    if operations[index].kind == WRITE:
        assert len(a.entries) in (len(before.entries), len(after.entries)), "half a transaction"
    assert a.changes() == after.changes()[: len(a.entries)]


def check_recovered(folder: Path, scenario: Scenario, before: ClientFile | None = None) -> None:
    others = [read_client(folder / f"{name}.db") for name in scenario.others]
    a = a_file(folder, scenario, before)
    log = read_log(folder / "service.db")
    private = sum(change["pk"] == PRIVATE for change in a.changes())
    at_home = private if "pre_send" in scenario.options else 0
    known = {entry[:2] for client in (a, *others) for entry in client.entries}
    former = [entry for entry in log if (entry.device, entry.ticks) not in known]
    check_equal([a, *others], log, private=at_home, former=len(former))
    assert scenario.resets or not former
    sent = {entry.ticks for entry in before.entries if entry.status == SENT} if before else set()
    assert sent <= {entry.ticks for entry in log}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the files; must be new or empty")
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP[:N]", help="N: each so manieth death")
    parser.add_argument("--shard", default="0/1", help="this part of how many, as 0/2")
    parser.add_argument("--rounds", type=int, default=10, help="of `again` and `moments`")
    options = parser.parse_args()
    shard, shards = map(int, options.shard.split("/"))
    schema()
    gc.freeze()  # children share this memory as long as nobody touches it
    failed = False
    for asked in options.sweeps:
        name, _, every = asked.partition(":")
        if name not in (*SCENARIOS, *SWEEPS):
            parser.error(f"there is no sweep {name!r}")
        began = time.monotonic()
        sweep = Sweep(options.folder / name, shard, shards, int(every or 1))
        sweep.run(name, options.rounds)
        report: dict[str, Any] = {
            "sweep": name,
            "kills": sweep.kills,
            "errors": sweep.errors,
            "points": sweep.points,
            "seconds": round(time.monotonic() - began, 1),
            "failures": sweep.failures,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        failed |= bool(sweep.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
