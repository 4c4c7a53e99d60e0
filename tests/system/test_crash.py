"""Killed at any point of its work: nothing acknowledged is lost, nothing is there twice.

The killing is done by `tests.system.crash_sweep`, in processes of their own; the points are named
in `tests.system.crash_points`; what must be true after each kill is said in
`tests.system.crash_world` and, of the service's own transactions, in `tests.system.crash_store`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.memory import folder_in_memory
from tests.system.crash_points import POINTS
from tests.system.crash_scenario import SCENARIOS

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600

KILLED = (*SCENARIOS, "store", "service", "again", "moments")
FAILED = ("errors", "errors-first")

EVERY = {
    **dict.fromkeys(("writes", "moments"), ":2"),
    **dict.fromkeys(("first", "stages", "private", "ahead"), ":3"),
    **dict.fromkeys(("restored", "reset", "copy", "lost"), ":4"),
    "errors": ":60",
    "errors-first": ":20",
}
"""Of so many steps one, and each point at least once; by hand, without the number, all of them."""

Reports = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    """What all sweeps report, half of each done by one of two processes."""
    command = [sys.executable, "-m", "tests.system.crash_sweep"]
    sweeps = [name + EVERY.get(name, "") for name in (*KILLED, *FAILED)]
    found: Reports = defaultdict(list)
    with folder_in_memory() as folder:
        running = [
            subprocess.Popen(
                [*command, str(folder / str(shard)), *sweeps, "--shard", f"{shard}/2"],
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for shard in range(2)
        ]
        for process in running:
            out, err = process.communicate(timeout=DEADLINE_S)
            sys.stderr.write(err)
            for line in out.splitlines():
                report = json.loads(line)
                found[report["sweep"]].append(report)
        yield found


def total(reports: list[dict[str, Any]], what: str) -> int:
    """Add up what both processes did, after making sure that nothing failed."""
    assert len(reports) == 2, "a sweep came to no end"
    assert [failure for report in reports for failure in report["failures"]] == []
    count: int = sum(report[what] for report in reports)
    return count


@pytest.mark.parametrize("sweep", KILLED)
def test_killed(reports: Reports, sweep: str) -> None:
    kills = total(reports[sweep], "kills")
    print(f"{sweep}: {kills} kills")  # noqa: T201
    assert kills >= 20


@pytest.mark.parametrize("sweep", FAILED)
def test_any_statement_fails_and_the_process_goes_on(reports: Reports, sweep: str) -> None:
    assert total(reports[sweep], "errors") >= 40


def test_somebody_died_at_every_named_point(reports: Reports) -> None:
    hit: Counter[str] = Counter()
    kills = 0
    for sweep in KILLED:
        kills += total(reports[sweep], "kills")
        for report in reports[sweep]:
            hit.update(report["points"])
    print(f"{kills} kills, {sum(hit.values())} of them at {len(hit)} points:")  # noqa: T201
    for point, count in sorted(hit.items()):
        print(f"{count:6}  {point}")  # noqa: T201
    assert POINTS - set(hit) == set(), "nobody died there"
    assert kills >= 1_000
