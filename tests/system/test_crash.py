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
    total: dict[str, Any] = {"kills": 0, "steps": 0}
    for process in running:
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err.decode() + out.decode()
        report = json.loads(out)
        total["kills"] += report["kills"]
        total["steps"] = report["steps"]
    print(f"{arguments[0][0]}: {total['kills']} kills in {total['steps']} steps")  # noqa: T201
    return total


def shards(*arguments: str) -> list[list[str]]:
    return [[*arguments, "--shard", f"{number}/{SHARDS}"] for number in range(SHARDS)]


@pytest.mark.parametrize(
    ("scenario", "every", "kills"), [("writes", 6, 250), ("first", 10, 80), ("stages", 10, 90)]
)
def test_client_and_service_killed_at_any_step(
    folder: Path, scenario: str, every: int, kills: int
) -> None:
    assert sweep(folder, *shards(scenario, "--every", str(every)))["kills"] >= kills


def test_service_killed_at_any_statement_of_a_push(folder: Path) -> None:
    assert sweep(folder, *shards("service", "--every", "3"))["kills"] >= 70


def test_killed_again_while_recovering(folder: Path) -> None:
    seeds = [["again", "--seed", seed, "--rounds", "12"] for seed in ("1", "2")]
    assert sweep(folder, *seeds)["kills"] >= 60


def test_client_killed_from_outside_at_any_moment(folder: Path) -> None:
    seeds = [["moments", "--seed", seed, "--rounds", "12"] for seed in ("1", "2")]
    assert sweep(folder, *seeds)["kills"] == 24
