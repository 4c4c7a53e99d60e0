"""The service's own transactions, in a process that is killed in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import apsw

from tests.system.crash_steps import Steps, count_service
from tests.system.store_work import (
    NOTHING,
    Contents,
    Operation,
    World,
    check_whole,
    contents,
    first_operations,
    operations,
)

OPENING = Operation("open", lambda store: None)


class Known(NamedTuple):
    """What an operation does when nobody dies: the points that it goes by, and everything that is
    in the database before and after."""

    name: str
    points: list[str]
    before: Contents
    after: Contents


def every() -> list[Operation]:
    return [OPENING, *first_operations(), *operations(0), *operations(1)]


def prepare(folder: Path) -> None:
    (folder / "prepared").mkdir(parents=True)


def reference(folder: Path) -> list[Known]:
    """Do everything once; keep a copy of the files before each operation."""
    here, known, before = folder / "prepared", list[Known](), NOTHING
    for index, operation in enumerate(every()):
        shutil.copytree(here, folder / f"before {index}")
        points = perform(here, index)
        after = read(here)
        check_whole(after)
        known.append(Known(operation.name, points, before, after))
        before = after
    return known


def perform(folder: Path, index: int, die_at: int | None = None) -> list[str]:
    """Do one operation, and return the points that it goes by; or die at a step of it."""
    operation, world, steps = every()[index], World(folder / "service.db"), Steps()
    stop_counting = count_service(steps)
    if operation is OPENING:
        steps.arm(die_at)
    store = world.open()
    if operation is not OPENING:
        steps.arm(die_at)
    world.perform(operation, store)
    points = steps.points
    steps.arm()
    store.close()
    stop_counting()
    return points


def check_after_death(folder: Path, known: list[Known], index: int) -> None:
    """It is there as a whole or not at all, and can be done again."""
    operation, (_, _, before, after) = every()[index], known[index]
    found = read(folder)
    assert found in (before, after)
    world = World(folder / "service.db")
    store = world.open()
    if found == before:
        world.perform(operation, store)
    store.close()
    assert read(folder) == after


def read(folder: Path) -> Contents:
    """Everything that is in the database, if it is sound."""
    connection = apsw.Connection(str(folder / "service.db"))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return contents(connection)
    finally:
        connection.close()
