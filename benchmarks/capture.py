"""What recording costs: the same writes on a tracked and on an untracked table.

In processor time, because disks and busy machines would hide what is compared; tracked and
untracked runs take turns, and the middle of the ratios is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from .devices import ROWS_PER_INSERT, Device, Untracked
from .figures import Figure, cpu_seconds, middle
from .records import records


class Operation(NamedTuple):
    """A way of writing. `work` does it with all rows; `fill` says whether they stand already.
    `targets` are those of signals and of triggers."""

    name: str
    fill: bool
    work: Callable[[Untracked, list[dict[str, Any]]], None]
    targets: tuple[float | None, float | None] = (None, None)


def create(device: Untracked, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        device.model.create(**row)


def save(device: Untracked, rows: list[dict[str, Any]]) -> None:
    for instance in device.model.select():
        instance.title = "changed"
        instance.save()


def delete_instance(device: Untracked, rows: list[dict[str, Any]]) -> None:
    for instance in device.model.select():
        instance.delete_instance()


def insert_many(device: Untracked, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), ROWS_PER_INSERT):
        device.model.insert_many(rows[start : start + ROWS_PER_INSERT]).execute()


def update_many(device: Untracked, rows: list[dict[str, Any]]) -> None:
    device.model.update(number=device.model.number + 1).execute()


def delete_many(device: Untracked, rows: list[dict[str, Any]]) -> None:
    device.model.delete().where(device.model.number >= 0).execute()


OPERATIONS = (
    Operation("create()", False, create, (1.3, 1.15)),
    Operation("insert_many()", False, insert_many, (1.3, 1.3)),
    Operation("save() of one field", True, save),
    Operation("delete_instance()", True, delete_instance),
    Operation("update() of all rows", True, update_many),
    Operation("delete() of all rows", True, delete_many),
)


class Costs(NamedTuple):
    """Processor seconds of the same work, untracked and tracked; and of what comes later: with the
    next exchange, the changes that triggers noted become entries."""

    untracked: float
    signals: float
    triggers: float
    harvest: float


def measure(folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    work = list(records(rows))
    for operation in OPERATIONS:
        for mode in ("one transaction", "autocommit"):
            costs = [_costs(folder, operation, work, mode) for _ in range(rounds)]
            yield from _figures(operation, mode, rows, costs)


def _costs(folder: Path, operation: Operation, rows: list[dict[str, Any]], mode: str) -> Costs:
    path = folder / "capture.db"
    untracked, _ = _once(Untracked(path), operation, rows, mode)
    signals, _ = _once(Device(path), operation, rows, mode)
    triggers, harvest = _once(Device(path, capture="triggers"), operation, rows, mode)
    return Costs(untracked, signals, triggers, harvest)


def _once(
    device: Untracked, operation: Operation, rows: list[dict[str, Any]], mode: str
) -> tuple[float, float]:
    later = device.sync.status if isinstance(device, Device) else nothing
    if operation.fill:
        device.insert(rows)
    later()

    def work() -> None:
        with device.database.atomic() if mode == "one transaction" else nullcontext():
            operation.work(device, rows)

    try:
        return cpu_seconds(work), cpu_seconds(later)
    finally:
        device.close()
        for path in device.path.parent.glob(f"{device.path.name}*"):
            path.unlink()


def nothing() -> None:
    pass


def _figures(
    operation: Operation, mode: str, rows: int, costs: Sequence[Costs]
) -> Iterator[Figure]:
    untracked = middle([cost.untracked for cost in costs]) / rows * 1e6
    for name, target in zip(("signals", "triggers"), operation.targets, strict=True):
        seconds = [getattr(cost, name) for cost in costs]
        pairs = zip(seconds, costs, strict=True)
        yield Figure(
            "capture",
            f"{operation.name} by {name}, {mode}",
            rows,
            middle([tracked / cost.untracked for tracked, cost in pairs]),
            "x",
            limit=1.0,
            target=target,
            details={
                "untracked_us_a_row": untracked,
                "tracked_us_a_row": middle(seconds) / rows * 1e6,
            },
        )
    harvest = middle([cost.harvest for cost in costs]) / rows * 1e6
    yield Figure(
        "capture", f"{operation.name}, harvest of triggers, {mode}", rows, harvest, "us a row"
    )
