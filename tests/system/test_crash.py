"""Killed between any two steps: nothing acknowledged is lost, nothing is there twice.

The killing is done by `tests.system.crash_sweep`, in processes of their own. Here it goes through
all steps that decide and some of the others; by hand, without the `:N`, through every one. What
must be true after each kill is said in `tests.system.crash_world`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
DEADLINE_S = 600

SWEEPS = (
    "writes:16",
    "first:20",
    "stages:20",
    "service:5",
    "again",
    "moments",
    "errors:40",
    "errors-first:20",
)

Reports = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Files in memory where there is some: a killed process needs no disk to lose nothing."""
    made = Path(tempfile.mkdtemp(prefix="sharedlog-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def reports(folder: Path) -> Reports:
    """What all sweeps report, half of each done by one of two processes."""
    command = [sys.executable, "-m", "tests.system.crash_sweep"]
    running = [
        subprocess.Popen(
            [*command, str(folder / str(shard)), *SWEEPS, "--shard", f"{shard}/2"],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for shard in range(2)
    ]
    found: Reports = defaultdict(list)
    for process in running:
        out, err = process.communicate(timeout=DEADLINE_S)
        sys.stderr.write(err)
        for line in out.splitlines():
            report = json.loads(line)
            found[report["sweep"]].append(report)
    return found


def total(reports: list[dict[str, Any]], what: str) -> int:
    """Add up what both processes did, after making sure that nothing failed."""
    assert len(reports) == 2, "a sweep came to no end"
    assert [failure for report in reports for failure in report["failures"]] == []
    count: int = sum(report[what] for report in reports)
    print(f"{reports[0]['sweep']}: {count} {what}, {reports[0]['steps']} steps")  # noqa: T201
    return count


@pytest.mark.parametrize(("scenario", "kills"), [("writes", 120), ("first", 80), ("stages", 60)])
def test_client_and_service_killed_at_any_step(reports: Reports, scenario: str, kills: int) -> None:
    assert total(reports[scenario], "kills") >= kills


def test_service_killed_at_any_statement_of_a_sync(reports: Reports) -> None:
    assert total(reports["service"], "kills") >= 50


def test_killed_again_while_recovering(reports: Reports) -> None:
    assert total(reports["again"], "kills") >= 50


def test_client_killed_from_outside_at_any_moment(reports: Reports) -> None:
    assert total(reports["moments"], "kills") == 20


@pytest.mark.parametrize("scenario", ["errors", "errors-first"])
def test_any_statement_fails_and_the_process_goes_on(reports: Reports, scenario: str) -> None:
    assert total(reports[scenario], "errors") >= 40
