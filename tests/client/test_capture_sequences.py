"""Random programs of all the ways to write, in transactions and savepoints that may fail.

The same program runs on a tracked device and on an untracked twin. Whatever happens: the same
results and errors, the same tables; and the client log says just what was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from sharedlog import MemorySharedLog

from .conftest import OpenDevice
from .devices import Device
from .shop import MODELS, NUMBERS
from .test_capture import comparable, in_tables, played_back
from .writes import CASES, Case


class Regret(Exception):
    """What a block of a program ends with."""


@dataclass(frozen=True)
class Block:
    """Steps in a transaction (or a savepoint, if there is one already), and how it ends."""

    end: str
    steps: Sequence[Any]


STEPS = st.sampled_from(CASES)
ENDS = st.sampled_from(("commit", "raise", "rollback"))
BLOCKS = st.recursive(
    STEPS,
    lambda step: st.builds(Block, ENDS, st.lists(step, min_size=1, max_size=6)),
    max_leaves=12,
)
PROGRAMS = st.lists(BLOCKS, min_size=12, max_size=25)


def run(device: Device, step: Case | Block, results: list[Any]) -> None:
    if isinstance(step, Case):
        for part in (step.before, step.run):
            try:
                results.append(comparable(part()))
            except Exception as error:
                results.append((type(error), str(error)))
        return
    try:
        with device.database.atomic() as transaction:
            for inner in step.steps:
                run(device, inner, results)
            if step.end == "raise":
                raise Regret
            if step.end == "rollback":
                transaction.rollback()
    except Regret:
        results.append("regretted")


@settings(
    max_examples=18,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=PROGRAMS)
def test_the_log_says_what_was_committed(
    program: Sequence[Any], recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    twin = open_device(MODELS, tracked=False)
    device = open_device(MODELS, recorder=recorder, shared_log=log)
    results: list[list[Any]] = [[], []]
    for each, told in zip((twin, device), results, strict=True):
        NUMBERS.restart()
        with each:
            for step in program:
                before = len(each.log())
                run(each, step, told)
                groups = {entry.group for entry in each.log()[before:]}
                if isinstance(step, Block):
                    assert len(groups) <= 1
                if isinstance(step, Block) or recorder == "signals":
                    # Of what comes in autocommit, triggers cannot tell what belongs together.
                    assert groups.isdisjoint(entry.group for entry in each.log()[:before])

    assert results[1] == results[0]
    assert device.stored() == twin.stored()
    assert played_back(device) == in_tables(device, MODELS)
    ticks = [entry.ticks for entry in device.log()]
    assert len(set(ticks)) == len(ticks)

    other = open_device(MODELS, shared_log=log)
    with device:
        device.sync.sync()
    with other:
        other.sync.sync()
    assert other.stored() == device.stored()
    for each in (twin, device, other):
        each.close()
