"""Rows that a REPLACE puts in their own place: they are modified, wherever a group is divided."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel
from sharedlog.limits import Limits

from .conftest import OpenDevice
from .devices import Device

MOST = 6
"""Entries in a group, here."""


class Item(SyncModel):
    code = peewee.CharField(primary_key=True)
    place = peewee.IntegerField(null=True, unique=True)
    price = peewee.IntegerField(default=0)


@pytest.fixture
def device(open_device: OpenDevice) -> Iterator[Device]:
    log = MemorySharedLog(limits=Limits(batch_entries=MOST))
    device = open_device([Item], recorder="triggers", shared_log=log)
    with device:
        yield device


@pytest.mark.parametrize("new", range(MOST + 1))
def test_many_rows_are_replaced_by_themselves(device: Device, new: int) -> None:
    many = [(f"{number}", number) for number in range(2 * MOST)]
    Item.insert_many(many, [Item.code, Item.place]).execute()
    device.sync.sync()
    before = len(device.log())
    fresh = [(f"new {number}", None, 1) for number in range(new)]
    replaced = [(code, place, 1) for code, place in many]
    Item.replace_many([*fresh, *replaced], [Item.code, Item.place, Item.price]).execute()
    assert device.sync.status().pending == new + len(many)
    device.sync.sync()
    said = [(entry.operation, entry.pk) for entry in device.log()[before:]]
    assert said == [
        *(("create", code) for code, *_ in fresh),
        *(("modify", code) for code, *_ in replaced),
    ]
    assert device.sync.verify().equal


@pytest.mark.parametrize("new", range(MOST + 1))
def test_a_row_is_replaced_by_itself_and_takes_what_another_one_had(
    device: Device, new: int
) -> None:
    Item.insert_many([("a", 1), ("b", 2)], [Item.code, Item.place]).execute()
    device.sync.sync()
    before = len(device.log())
    with device.database.atomic():
        for number in range(new):
            Item.create(code=f"new {number}")
        Item.replace(code="a", place=2).execute()
    device.sync.sync()
    said = [(entry.operation, entry.pk) for entry in device.log()[before:]]
    assert said[new:] == [("delete", "b"), ("modify", "a")]
    assert device.sync.verify().equal
