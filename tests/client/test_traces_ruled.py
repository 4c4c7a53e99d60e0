"""Traces of fields with a merge rule, of programs that had other rules or fields than today's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import Counter, Maximum, Members, MemorySharedLog, Sync, SyncModel
from sharedlog.merge.rules import MergeRule
from tests.system.copies import copy_by_files

from .conftest import OpenDevice
from .devices import Device

RULES: dict[str, Callable[[], MergeRule]] = {"stock": Counter, "best": Maximum, "tags": Members}


def part(rules: dict[str, MergeRule]) -> Any:
    class Part(SyncModel):
        code = peewee.CharField(primary_key=True)
        stock = peewee.IntegerField(default=0)
        best = peewee.IntegerField(null=True)
        tags = peewee.JSONField(default=list)

        class Meta:
            table_name = "part"
            merge = rules

    return Part


def of_schema(
    number: int, open_device: OpenDevice, model: Any, log: MemorySharedLog, name: str | None = None
) -> Device:
    """A device with a program of this schema version, in this file or in a new one."""
    device = open_device([model], name, create=name is None, tracked=False)
    with device:
        device.sync = Sync(
            device.database,
            [model],
            shared_log=log,
            capture="triggers",
            schema_version=number,
            upgraders=dict.fromkeys(range(1, number), lambda change: change),
        ).setup()
    return device


def rows(device: Device, model: Any) -> list[tuple[Any, ...]]:
    with device:
        device.sync.sync()
        assert device.sync.verify().differences == []
        return sorted(model.select().tuples())


@pytest.mark.parametrize("order", list(permutations(RULES)))
def test_rules_may_be_declared_in_any_order(
    order: tuple[str, ...], open_device: OpenDevice
) -> None:
    model, log = part({name: RULES[name]() for name in order}), MemorySharedLog()
    one, two = (open_device([model], shared_log=log, recorder="triggers") for _ in range(2))
    with one:
        model.create(code="bolt", stock=100, best=7, tags=["a"])
    rows(one, model)
    rows(two, model)
    with one:
        model.update(stock=model.stock - 10, best=3, tags=["a", "b"]).execute()
    with two:
        model.update(stock=model.stock - 5, best=9, tags=[]).execute()
    for device in (one, two, one):
        rows(device, model)
    assert rows(one, model) == rows(two, model) == [("bolt", 85, 9, ["b"])]


def test_a_field_that_the_model_has_no_more_stops_nothing(open_device: OpenDevice) -> None:
    """Noted by the program before the upgrade, harvested by the one after it."""

    class Before(SyncModel):
        code = peewee.CharField(primary_key=True)
        gone = peewee.TextField(null=True)
        stock = peewee.IntegerField(default=0)

        class Meta:
            table_name = "part"
            merge = {"stock": Counter()}  # noqa: RUF012

    class After(SyncModel):
        code = peewee.CharField(primary_key=True)
        stock = peewee.IntegerField(default=0)

        class Meta:
            table_name = "part"
            merge = {"stock": Counter()}  # noqa: RUF012

    log = MemorySharedLog()
    device = open_device([Before], "one", shared_log=log, recorder="triggers")
    with device:
        Before.create(code="bolt", gone="x", stock=5)
        Before.update(stock=Before.stock + 1, gone="y").execute()
    device.close()
    device = of_schema(2, open_device, After, log, "one")
    assert rows(device, After) == [("bolt", 6)]
    assert rows(of_schema(2, open_device, After, log), After) == [("bolt", 6)]


@pytest.mark.parametrize("schema_version", [1, 2])
def test_what_was_noted_before_the_rule_was_declared(
    schema_version: int, open_device: OpenDevice
) -> None:
    before, after = part({}), part({"stock": Counter(), "tags": Members()})
    log = MemorySharedLog()
    device = open_device([before], "one", shared_log=log, recorder="triggers")
    with device:
        before.create(code="bolt", stock=7, tags=["a"])
    rows(device, before)
    with device:
        before.update(stock=12, tags=["b"]).execute()
        before.update(stock=before.stock + 1, best=1).execute()
    device.close()
    device = of_schema(schema_version, open_device, after, log, "one")
    with device:
        after.update(stock=after.stock + 1).execute()
    assert rows(device, after) == [("bolt", 14, 1, ["b"])]
    other = of_schema(schema_version, open_device, after, log)
    assert rows(other, after) == [("bolt", 14, 1, ["b"])]


def test_copies_know_again_what_a_wrong_clock_dated(
    open_device: OpenDevice, tmp_path: Path
) -> None:
    """The clock was ahead when two changes were noted, and was put right; then the file was
    copied, before they were harvested."""
    model, log = part({"stock": Counter()}), MemorySharedLog()
    device = open_device([model], "one", shared_log=log, recorder="triggers")
    with device:
        model.create(code="bolt")
        device.sync.sync()
        for _ in range(2):
            model.update(stock=model.stock + 1, best=5).execute()
        device.database.execute_sql("UPDATE sharedlog_trace SET at = at + 1.0 / 24")
    device.close()
    copy_by_files(tmp_path / "one.db", tmp_path / "two.db")
    copies = [
        open_device([model], name, shared_log=log, recorder="triggers", create=False)
        for name in ("one", "two")
    ]
    for copy in [*copies] * 2:
        rows(copy, model)
    assert [rows(copy, model) for copy in copies] == [[("bolt", 2, 5, [])]] * 2
    assert len(log.entries) == 3
