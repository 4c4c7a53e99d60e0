"""A fleet under faults converges, loses nothing, and nobody is stuck; every run can be replayed.

For longer: `make sim SIM_ARGS="--seconds 3600"`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedlog.journal.journal import OPERATION_NAMES
from sharedlog.merge.reconcile import RowState

from .simulation.checks import Bad, check_once, is_known_as
from .simulation.device import Committed
from .simulation.faults import RATES
from .simulation.fleet import run_fleet
from .simulation.notebook import SHAPES
from .simulation.oracle import Expected, expected
from .simulation.service import Logged
from .simulation.world import Failed, run_world

SECONDS_MAX = 300
"""Only a bound for machines that are busy with other things."""

SEEDS = 1_000
"""So far apart are the parts: more than any of them runs."""

RARE = {"service wiped", "service restored from a backup"}
"""The first part sees them; the others need not."""

ROOT = Path(__file__).parents[2]


class Part:
    """A part of the run: 1,000 device-days and 2,500 faults together. In classes of their own, so
    that processes can share it."""

    number: int
    device_days: int
    faults: int

    def test_a_fleet_under_faults_comes_to_rest_equal(
        self, record_property: Callable[[str, float], None]
    ) -> None:
        kinds = RATES.keys() - (RARE if self.number else set())
        totals = run_fleet(
            first=self.number * SEEDS + 1,
            seconds=SECONDS_MAX,
            device_days=self.device_days,
            faults_wanted=self.faults,
            kinds=kinds,
            processes=1,
        )
        for name, figure in totals.figures().items():
            record_property(f"simulation, {name}", figure)
        assert totals.device_days >= self.device_days
        assert totals.faults.total() >= self.faults
        assert not kinds - totals.faults.keys(), "some kinds of faults never strike"
        assert len(totals.reached) >= 10, "some situations never come about"


class TestPart1(Part):
    number, device_days, faults = 0, 450, 1_600


class TestPart2(Part):
    number, device_days, faults = 1, 550, 900


def test_the_same_seed_is_the_same_run() -> None:
    first, second, other = run_world(7, days=1), run_world(7, days=1), run_world(8, days=1)
    assert first == second
    assert first.digest != other.digest


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_the_same_seed_is_the_same_run_in_another_process(hash_seed: str) -> None:
    command = [sys.executable, "-m", "tests.system.simulation", "--seed", "9", "--days", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert output == f"seed 9: digest {run_world(9, days=1).digest}\n"


def test_a_failure_says_how_it_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowState, "alive", property(lambda state: True))  # nothing ever dies
    messages = []
    for _ in range(2):
        with pytest.raises(Failed) as failure:
            run_fleet(processes=1, days=1)
        messages.append(str(failure.value))
    assert messages[0] == messages[1]
    assert "python -m tests.system.simulation --seed 1 --days 1" in messages[0]


# -- the oracle itself ----------------------------------------------------------------------


def come_to(*changes: tuple[int, str, str, str]) -> Expected:
    """What a log of (ticks, operation, "collection pk", value) comes to."""
    log = []
    for seq, (ticks, operation, row, value) in enumerate(changes, 1):
        collection, pk = row.split(" ", 1)
        data = (
            f'{{"operation":"{operation}","collection":"{collection}","pk":{pk},"field":null,'
            f'"value":{value or "null"}}}'
        )
        log.append(Logged(seq, "a", ticks, 0, data))
    return expected({name: shape.table for name, shape in SHAPES.items()}, log)


def test_the_oracle_knows_parents_and_what_does_not_fit() -> None:
    note = '"00000000-0000-4000-8000-000000000001"'
    wanted = come_to(
        (2, "create", f"cover {note}", '{"width": 1.5, "shade": 0}'),
        (1, "create", 'note "no uuid"', "{}"),
        (1, "create", "planet 1", "{}"),
        (1, "explode", "planet 2", "{}"),
    )
    assert not wanted.standing
    assert {key[0] for key in wanted.parked} == {"cover", "note", "planet"}
    assert wanted.unreadable == 1
    wanted = come_to(
        (2, "create", f"cover {note}", '{"width": 1.5, "shade": 0}'),
        (1, "create", f"note {note}", "{}"),
    )
    assert wanted.standing["cover", note] == {"picture": None, "width": 1.5}
    assert not wanted.parked


def test_the_oracle_knows_the_dead() -> None:
    tag = 'tag "red"'
    wanted = come_to((3, "delete", tag, ""), (1, "create", tag, '{"colour": "x"}'))
    assert not wanted.standing and not wanted.parked
    wanted = come_to((3, "delete", tag, ""), (4, "create", tag, "{}"), (2, "modify", tag, "{}"))
    assert wanted.standing == {("tag", '"red"'): {"colour": None}}


def made(ticks: int, value: str) -> Committed:
    return Committed(ticks, OPERATION_NAMES.index("modify"), "fox", "1", value)


def logged(device: str, ticks: int, value: str, seq: int = 1) -> Logged:
    data = f'{{"operation":"modify","collection":"fox","pk":1,"field":null,"value":{value}}}'
    return Logged(seq, device, ticks, 0, data)


@pytest.mark.parametrize(
    "again", ['{"n":{"add":2,"total":2}}', '{"n":{"add":2,"total":7,"of":"a"}}']
)
def test_the_oracle_sees_an_increment_twice_whatever_run_it_is_in(again: str) -> None:
    own = [made(5, '{"n":{"add":2,"total":5,"since":3}}')]
    log = [logged("a", 5, own[0].value or ""), logged("a.b", 5, again)]
    check_once(own, log[:1], {}, {})
    with pytest.raises(Bad, match="more often than committed"):
        check_once(own, log, {}, {})
    check_once([*own, made(5, again)], log, {}, {})  # two copies did the same at one time


def test_the_oracle_lets_count_twice_only_what_a_log_had_and_lost() -> None:
    """See "Not guaranteed" in docs/guarantees.md."""
    own = [made(5, '{"n":{"add":2,"total":2}}')]
    counted = [logged(device, 5, own[0].value or "") for device in ("a.b", "a.c", "a.d")]
    check_once(own, counted[:2], {5: 1}, {})
    for log, lost in ((counted[:2], {6: 1}), (counted, {5: 1})):
        with pytest.raises(Bad, match="more often than committed"):
            check_once(own, log, lost, {})


def test_the_oracle_lets_copies_send_again_what_a_log_lost_and_they_could_not_read() -> None:
    own = [made(6, '{"n":1}')]
    log = [logged(device, 6, own[0].value or "", seq) for device, seq in (("a", 9), ("a.b", 4))]
    check_once(own, log, {6: 1}, {("a", 6): 3, ("a.b", 6): 3})
    for lost, read in (({5: 1}, 3), ({6: 1}, 4)):
        with pytest.raises(Bad, match="more often than committed"):
            check_once(own, log, lost, {("a", 6): read, ("a.b", 6): 3})


def test_the_oracle_knows_a_write_by_the_name_that_the_log_lost_it_under() -> None:
    assert is_known_as(None, None, {("a.b", 5)})
    assert is_known_as((5, "a.b"), (5, "a"), {("a.b", 5)})
    for mine, gone in (
        ((5, "a.b"), {("a.b", 6)}),
        ((5, "b"), {("b", 5)}),
        ((6, "a.b"), {("a.b", 6)}),
        (None, {("a.b", 5)}),
    ):
        assert not is_known_as(mine, (5, "a"), gone)


def test_the_oracle_knows_what_was_dated_anew_by_when_it_was_recorded() -> None:
    own = [made(6, '{"n":1}')]
    dated = (
        '{"operation":"modify","collection":"fox","pk":1,"field":null,"value":{"n":1},"recorded":6}'
    )
    log = [Logged(1, "a", 3, 0, dated), Logged(2, "a.b", 4, 0, dated)]
    check_once(own, log[:1], {}, {})
    check_once(own, log, {4: 1}, {("a.b", 4): 1})
    with pytest.raises(Bad, match="more often than committed"):
        check_once(own, log, {}, {})
