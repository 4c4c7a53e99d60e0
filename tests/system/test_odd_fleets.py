"""Fleets with odd tables end equal, and every run can be replayed.

For longer: `python -m tests.system.odd --seconds 600`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedlog.apply.claims import Claims
from tests.volume import times

from .odd.fleet import Failed, run_fleet, run_fleets
from .odd.places import places
from .odd.plan import plan
from .odd.shrinking import failure, shrunk

PARTS = 2
PROCESSOR_SECONDS = times(4) / PARTS

SEEDS = 100_000
"""So far apart are the parts: more than any of them runs."""

FAILING = 15
"""A fleet that ends unequal if nobody asks which row is older."""

ROOT = Path(__file__).parents[2]


class Part:
    """A part of the run. In classes of their own, so that processes can share it."""

    number = 0

    def test_a_fleet_with_odd_tables_ends_equal(
        self, record_property: Callable[[str, float], None]
    ) -> None:
        fleets = run_fleets(self.number * SEEDS + 1, PROCESSOR_SECONDS)
        record_property("odd fleets", fleets)


class TestPart1(Part):
    number = 0


class TestPart2(Part):
    number = 1


MIXED = (("sqlite", "postgres"), ("mysql", "sqlite"), ("postgres", "mysql"))


@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_a_fleet_with_other_databases_ends_equal(kinds: tuple[str, ...]) -> None:
    first = MIXED.index(kinds) * SEEDS + 1
    with places(kinds) as found:
        for seed in range(first, first + times(1)):
            run_fleet(seed, kinds=kinds, places=found)


def test_seeds_draw_every_kind_of_fleet() -> None:
    plans = [plan(seed) for seed in range(1, 30)]
    for kind in ("nocase", "copies", "resets", "unfit"):
        assert {getattr(drawn, kind) for drawn in plans} == {True, False}
    assert {drawn.forgets is None for drawn in plans} == {True, False}
    assert {any(drawn.refusals) for drawn in plans} == {True, False}
    assert {capture for drawn in plans for capture in drawn.captures} == {"signals", "triggers"}


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_the_same_seed_is_the_same_run_in_another_process(hash_seed: str) -> None:
    command = [sys.executable, "-m", "tests.system.odd", "--seed", "9"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert output == f"seed 9: digest {run_fleet(9)}\n"
    assert run_fleet(8) not in output


def test_a_failure_says_how_it_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claims, "decide", lambda claims: None)
    messages = []
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            run_fleet(FAILING)
        messages.append(str(failed.value))
    assert messages[0] == messages[1]
    assert messages[0].endswith(f"python -m tests.system.odd --seed {FAILING}")


def test_a_failure_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claims, "decide", lambda claims: None)
    steps = shrunk(FAILING)
    assert len(steps) < 10
    assert failure(FAILING, steps) is not None
    for step in steps:
        assert failure(FAILING, [other for other in steps if other != step]) is None
