"""Killed between any two steps: nothing acknowledged is lost, nothing is there twice.

The killing is done by `tests.system.crash_sweep`, in processes of their own; with `--every 1`
it goes through all steps. What it checks after each kill is in `tests.system.crash_world`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
DEADLINE_S = 300

SHARDS = 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """Files in memory where there is some: a killed process needs no disk to lose nothing."""
    made = Path(tempfile.mkdtemp(prefix="sharedlog-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


def sweep(folder: Path, *arguments: list[str]) -> dict[str, Any]:
    """Run sweeps side by side; returns their reports as one."""
    command = [sys.executable, "-m", "tests.system.crash_sweep"]
    running = [
        subprocess.Popen(
            [*command, some[0], str(folder / str(number)), *some[1:]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number, some in enumerate(arguments)
    ]
    total: dict[str, Any] = {"kills": 0, "errors": 0}
    for process in running:
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err.decode() + out.decode()
        report = json.loads(out)
        total |= {name: total[name] + report[name] for name in ("kills", "errors")}
    print(f"{arguments[0][0]}: {total}, of {report['steps']} steps")  # noqa: T201
    return total


def shards(*arguments: str) -> list[list[str]]:
    return [[*arguments, "--shard", f"{number}/{SHARDS}"] for number in range(SHARDS)]


def seeds(*arguments: str) -> list[list[str]]:
    return [[*arguments, "--seed", str(number)] for number in range(SHARDS)]


@pytest.mark.parametrize(
    ("scenario", "every", "kills"), [("writes", 16, 120), ("first", 20, 80), ("stages", 20, 60)]
)
def test_client_and_service_killed_at_any_step(
    folder: Path, scenario: str, every: int, kills: int
) -> None:
    assert sweep(folder, *shards(scenario, "--every", str(every)))["kills"] >= kills


def test_service_killed_at_any_statement_of_a_sync(folder: Path) -> None:
    assert sweep(folder, *shards("service", "--every", "5"))["kills"] >= 50


def test_killed_again_while_recovering(folder: Path) -> None:
    assert sweep(folder, *seeds("again", "--rounds", "10"))["kills"] >= 50


def test_client_killed_from_outside_at_any_moment(folder: Path) -> None:
    assert sweep(folder, *seeds("moments", "--rounds", "12"))["kills"] == 24


@pytest.mark.parametrize(("scenario", "every"), [("errors", 20), ("errors-first", 16)])
def test_any_statement_fails_and_the_process_goes_on(
    folder: Path, scenario: str, every: int
) -> None:
    assert sweep(folder, *shards(scenario, "--every", str(every)))["errors"] >= 40
