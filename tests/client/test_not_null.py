"""A field that is no longer optional: the NULLs that devices wrote before get the value that the
migration gives them, by an upgrader."""

from __future__ import annotations

from typing import Any

import peewee
import pytest
from playhouse.migrate import SqliteMigrator, migrate

from sharedlog import Change, MemorySharedLog, Sync, SyncModel

from .conftest import OpenDevice
from .devices import Device


class Before(SyncModel):
    key = peewee.CharField(primary_key=True)
    colour = peewee.CharField(null=True)

    class Meta:
        table_name = "pen"


class After(SyncModel):
    key = peewee.CharField(primary_key=True)
    colour = peewee.CharField(default="none")

    class Meta:
        table_name = "pen"


def without_nulls(change: Change) -> Change:
    value = dict(change.value or {})
    if value.get("colour", "") is None:
        value["colour"] = "none"
    return change._replace(value=value)


def upgraded(device: Device, log: MemorySharedLog, **options: Any) -> Sync:
    device.sync.close()
    sync = Sync(device.database, [After], shared_log=log, capture=device.recorder, **options)
    with sync.migrating():
        device.database.execute_sql("UPDATE pen SET colour = 'none' WHERE colour IS NULL")
        migrate(SqliteMigrator(device.database).add_not_null("pen", "colour"))
    return sync.setup()


@pytest.mark.parametrize("upgrades", [True, False])
def test_nulls_of_devices_that_had_them_need_an_upgrader(
    upgrades: bool, recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    devices = [open_device([Before], recorder=recorder, shared_log=log) for _ in "ab"]
    for number, device in enumerate(devices):
        with device:
            Before.create(key=f"p{number}")
            device.sync.sync()
    with devices[1]:
        Before.create(key="unsent")
    options: dict[str, Any] = {}
    if upgrades:
        options = {"schema_version": 2, "upgraders": {1: without_nulls}}
    syncs = [upgraded(device, log, **options) for device in devices]
    for sync in syncs * 2:
        sync.sync()
    parked = [row.pk for sync in syncs for row in sync.parked()]
    if upgrades:
        assert parked == []
        assert syncs[0].digest(rows=True).compare(syncs[1].digest(rows=True)) == []
    else:
        assert "unsent" in parked
    for sync in syncs:
        sync.close()
