"""Kills a process at one step after the other, and looks at what it leaves behind.

    python -m tests.system.crash_sweep FOLDER writes service:4 --shard 0/2

Each kill: a fresh copy of the same prepared files; a forked child that runs the same scenario
and dies by SIGKILL at step n; then the files must be sound, and after everybody has synced the
devices must be equal and every entry in the shared log exactly once.

- `writes`, `first`, `stages`: client and service in one process over their durable files; it
  dies at each step of either side.
- `service`: the service alone dies, speaking real HTTP; the client lives on and is told.
- `again`: dies at some step, and twice more while it recovers.
- `errors`, `errors-first`: nobody dies, but each statement in turn fails once (the disk is
  full), and the same process goes on.
- `moments`: a client over real HTTP is killed from outside while it works.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee

from sharedlog import ConnectionFailed, RemoteError
from tests.system.crash_children import in_child, service_child
from tests.system.crash_scenario import (
    BATCH,
    SCENARIOS,
    STAGE,
    SYNC,
    WRITE,
    Operation,
    first,
    local_log,
    prepare,
    schema,
    stubborn,
    sync_all,
    work,
    work_on,
    writes,
)
from tests.system.crash_steps import Steps, counted_connection, decides
from tests.system.crash_world import (
    SENT,
    Note,
    check_client,
    check_equal,
    device,
    read_client,
    read_log,
)

SWEEPS = ("service", "errors", "errors-first", "again", "moments")


@dataclass
class Reference:
    """What a scenario does when nobody dies. `counts`: the changes in the client log after so
    many operations."""

    steps: list[str]
    changes: list[dict[str, Any]]
    counts: list[int]


def reference(folder: Path, operations: list[Operation]) -> Reference:
    steps = Steps()
    counts = [0]
    work(
        folder,
        operations,
        steps,
        lambda _: counts.append(len(read_client(folder / "a.db").entries)),
    )
    sync_all(folder, adopt=True)
    check_recovered(folder)
    return Reference(steps.names, read_client(folder / "a.db").changes(), counts)


def check_after_death(
    folder: Path, operations: list[Operation], known: Reference, acknowledged: bytes
) -> None:
    """An operation is there as a whole or not at all, and what was acknowledged is there."""
    a, log = read_client(folder / "a.db"), read_log(folder / "service.db")
    check_client(a, log, adopted=operations[0].kind != STAGE or bool(acknowledged))
    done = len(acknowledged)
    before, after = known.counts[done], known.counts[min(done + 1, len(operations))]
    assert before <= len(a.entries) <= after
    if operations[min(done, len(operations) - 1)].kind == WRITE:
        assert len(a.entries) in (before, after), "half of a transaction"
    assert a.changes() == known.changes[: len(a.entries)]
    for entry in a.entries[: known.counts[acknowledged.rfind(SYNC) + 1]]:
        assert entry.status == SENT, f"sync() returned, but not sent: {entry}"


def check_recovered(folder: Path) -> None:
    clients = [read_client(folder / name) for name in ("a.db", "b.db")]
    check_equal(clients, read_log(folder / "service.db"))


@dataclass
class Sweep:
    """One scenario, killed again and again."""

    folder: Path
    kills: int = 0
    failed: int = 0
    steps: int = 0
    failures: list[str] = field(default_factory=list)

    def every_step(self, scenario: str, shard: int, shards: int, every: int) -> None:
        """Die at each step of client and service."""
        prepare(self.folder / "prepared", met=scenario != "first")
        operations = SCENARIOS[scenario]()
        known = reference(self._fresh(), operations)
        deciding = [decides(name) for name in known.steps]
        for number in self._chosen(deciding, shard, shards, every):
            here = self._fresh()
            with self._noting(f"{scenario}, step {number}: {known.steps[number - 1]}"):
                end = in_child(functools.partial(work, here, operations, Steps(number)))
                assert end.killed, "the scenario has fewer steps this time"
                self.kills += 1
                check_after_death(here, operations, known, end.acknowledged)
                sync_all(here, adopt=scenario == "first")
                check_recovered(here)

    def again(self, seed: int, rounds: int) -> None:
        """Die at some step, then at some step of the recovery, then at one of the next."""
        prepare(self.folder / "prepared")
        chance = random.Random(seed)
        operations = writes()
        known = reference(self._fresh(), operations)
        self.steps = len(known.steps)
        for number in range(rounds):
            here = self._fresh()
            at = chance.randrange(1, self.steps + 1)
            with self._noting(f"again, seed {seed}, round {number}, step {at}"):
                end = in_child(functools.partial(work, here, operations, Steps(at)))
                self.kills += end.killed
                check_after_death(here, operations, known, end.acknowledged)
                for limit in (150, 400):
                    self._recover_and_die(here, chance.randrange(1, limit))
                sync_all(here)
                check_recovered(here)

    def errors(self, scenario: str, shard: int, shards: int, every: int) -> None:
        """Let each statement of client and service fail once, and go on."""
        prepare(self.folder / "prepared", met=scenario != "first")
        operations = first() if scenario == "first" else stubborn()
        steps = self._with_error(self._fresh(), operations, None)
        # All of the first transaction: it goes on after an error of one of its writes.
        going_on = steps.index("before COMMIT")
        deciding = [number < going_on or decides(name) for number, name in enumerate(steps)]
        for number in self._chosen(deciding, shard, shards, every):
            here = self._fresh()
            with self._noting(f"errors, step {number}: {steps[number - 1]}"):
                self._with_error(here, operations, number)
                self.failed += 1
                sync_all(here, adopt=scenario == "first")
                check_recovered(here)

    def _with_error(
        self, here: Path, operations: list[Operation], fail_at: int | None
    ) -> list[str]:
        steps = Steps()
        counted = counted_connection(steps)
        with (
            local_log(here, steps) as log,
            device(here / "a.db", shared_log=log, batch_size=BATCH, factory=counted) as a,
        ):
            steps.arm(fail_at=fail_at)
            for operation in operations:
                begun = len(steps.fallible)
                # Where an earlier write failed, a later one may miss its row.
                with suppress(peewee.OperationalError, RemoteError, Note.DoesNotExist):
                    operation.run(a)
                if fail_at is not None and begun < fail_at <= len(steps.fallible):
                    assert not a.database.connection().in_transaction
                    adopted = operations[0].kind != STAGE
                    now_there = read_log(here / "service.db")
                    check_client(read_client(here / "a.db"), now_there, adopted=adopted)
            fallible = steps.fallible.copy()
            assert fail_at is None or len(fallible) >= fail_at, "nothing failed"
            a.sync()
            assert a.status().pending == 0
        return fallible

    def _recover_and_die(self, here: Path, at: int) -> None:
        end = in_child(lambda _: sync_all(here, Steps(at)))
        self.kills += end.killed
        log = read_log(here / "service.db")
        for name in ("a.db", "b.db"):
            check_client(read_client(here / name), log)

    def moments(self, seed: int, rounds: int) -> None:
        """Kill a client that works without end from outside."""
        token = prepare(self.folder / "prepared")
        chance = random.Random(seed)
        here = self._fresh()
        with service_child(here / "service.db") as service:
            for life in range(rounds):
                with self._noting(f"moments, seed {seed}, life {life}"):
                    end = in_child(
                        functools.partial(work_on, here, service.url, token, life),
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
        sync_all(here)
        check_recovered(here)

    def service(self, shard: int, shards: int, every: int) -> None:
        """Kill the service alone at each statement, while a real client speaks to it."""
        token = prepare(self.folder / "prepared")
        with (
            local_log(self.folder / "prepared") as log,
            device(self.folder / "prepared" / "a.db", shared_log=log) as a,
        ):
            operations = writes()
            while operations[0].kind == WRITE:
                operations.pop(0).run(a)
        for number in self._chosen(self._served(self._fresh(), token), shard, shards, every):
            here = self._fresh()
            with self._noting(f"service, step {number}"):
                self._served(here, token, number)
                check_client(read_client(here / "a.db"), read_log(here / "service.db"))
                sync_all(here)
                check_recovered(here)

    def _chosen(self, deciding: list[bool], shard: int, shards: int, every: int) -> list[int]:
        """The steps to die at: all that decide, and every so manieth of the others."""
        self.steps = len(deciding)
        chosen = [n for n, decides in enumerate(deciding, 1) if decides or n % every == 0]
        return chosen[shard::shards]

    def _served(self, here: Path, token: str, die_at: int | None = None) -> list[bool]:
        """One sync of a with the service; returns of each of the service's steps if it decides."""
        with service_child(here / "service.db", die_at) as service:
            with device(here / "a.db", url=service.url, token=token, batch_size=BATCH) as a:
                try:
                    a.sync()
                except ConnectionFailed:
                    Note.create(key="meanwhile", title="local work goes on")
            steps = service.stop()
            self.kills += service.died()
        return steps

    def _fresh(self) -> Path:
        """A copy of the prepared files."""
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.folder / "prepared", here)
        return here

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Go on after a failure: at which steps it happens is worth knowing."""
        try:
            yield
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            sys.stderr.write(f"--- {what}\n{traceback.format_exc()}\n")


def run(name: str, folder: Path, shard: int, shards: int, every: int, rounds: int) -> Sweep:
    """Run one part of a sweep."""
    sweep = Sweep(folder)
    if name in SCENARIOS:
        sweep.every_step(name, shard, shards, every)
    elif name.startswith("errors"):
        sweep.errors(name.removeprefix("errors-"), shard, shards, every)
    elif name == "service":
        sweep.service(shard, shards, every)
    else:
        getattr(sweep, name)(shard, rounds)
    return sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the files; must be new or empty")
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP[:N]", help="N: each so manieth step")
    parser.add_argument("--shard", default="0/1", help="this part of how many, as 0/2")
    parser.add_argument("--rounds", type=int, default=10, help="of `again` and `moments`")
    options = parser.parse_args()
    shard, shards = map(int, options.shard.split("/"))
    schema()
    failed = False
    for sweep in options.sweeps:
        name, _, every = sweep.partition(":")
        if name not in (*SCENARIOS, *SWEEPS):
            parser.error(f"there is no sweep {name!r}")
        began = time.monotonic()
        done = run(name, options.folder / name, shard, shards, int(every or 1), options.rounds)
        report = {
            "sweep": name,
            "steps": done.steps,
            "kills": done.kills,
            "errors": done.failed,
            "seconds": round(time.monotonic() - began, 1),
            "failures": done.failures,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        failed |= bool(done.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
