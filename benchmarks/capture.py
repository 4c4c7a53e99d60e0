"""What recording costs: the same writes on a tracked and on an untracked table.

In processor time, because disks and busy machines would hide what is compared; tracked and
untracked runs take turns, and the middle of the ratios is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from .devices import ROWS_PER_INSERT, Device, Untracked
from .figures import Figure, cpu_seconds, middle
from .records import records


class Operation(NamedTuple):
    """A way of writing. `work` does it with all rows; `fill` says whether they stand already."""

    name: str
    fill: bool
    work: Callable[[Untracked, list[dict[str, Any]]], None]
    target: float | None


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
    Operation("create()", False, create, 1.3),
    Operation("insert_many()", False, insert_many, 1.3),
    Operation("save() of one field", True, save, None),
    Operation("delete_instance()", True, delete_instance, None),
    Operation("update() of all rows", True, update_many, None),
    Operation("delete() of all rows", True, delete_many, None),
)


def measure(folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    work = list(records(rows))
    for operation in OPERATIONS:
        for mode in ("one transaction", "autocommit"):
            pairs = [
                (
                    _once(
                        Untracked(folder / f"{operation.work.__name__}-{i}-u.db"),
                        operation,
                        work,
                        mode,
                    ),
                    _once(
                        Device(folder / f"{operation.work.__name__}-{i}-t.db"),
                        operation,
                        work,
                        mode,
                    ),
                )
                for i in range(rounds)
            ]
            for path in folder.glob(f"{operation.work.__name__}-*"):
                path.unlink()
            yield Figure(
                "capture",
                f"tracked {operation.name}, {mode}",
                rows,
                middle([tracked / untracked for untracked, tracked in pairs]),
                "x",
                limit=1.0,
                target=operation.target,
                details={
                    "untracked_us_a_row": middle([u for u, _ in pairs]) / rows * 1e6,
                    "tracked_us_a_row": middle([t for _, t in pairs]) / rows * 1e6,
                },
            )


def _once(device: Untracked, operation: Operation, rows: list[dict[str, Any]], mode: str) -> float:
    if operation.fill:
        device.insert(rows)

    def work() -> None:
        with device.database.atomic() if mode == "one transaction" else nullcontext():
            operation.work(device, rows)

    try:
        return cpu_seconds(work)
    finally:
        device.close()
