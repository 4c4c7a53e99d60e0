"""PostgreSQL's triggers on tables that are unusual, or that somebody altered beside sharedlog."""

from __future__ import annotations

from typing import Any

import peewee
import psycopg
import pytest

from sharedlog import SyncModel
from sharedlog.events import Unrecorded
from sharedlog.triggers.ddl import fingerprint, present
from tests.engines import SERVER

from .conftest import OpenDevice
from .devices import Device
from .test_postgres_triggers import schema_of

OLDER = (
    "CREATE OR REPLACE FUNCTION sharedlog_note() RETURNS trigger LANGUAGE plpgsql "
    "AS $$ BEGIN RETURN NULL; END $$"
)


class Thing(SyncModel):
    """Its columns are named as what our own SQL might name rows and variables."""

    key = peewee.CharField(primary_key=True)
    t = peewee.TextField(null=True)
    was = peewee.TextField(null=True)
    new = peewee.TextField(null=True)


@pytest.fixture
def device(open_device: OpenDevice) -> Device:
    return opened(open_device, [Thing])


def opened(open_device: OpenDevice, models: Any, **options: Any) -> Device:
    return open_device(models, where="postgres", recorder="triggers", **options)


def changes(device: Device) -> list[tuple[str, str, Any, Any]]:
    return [entry.change for entry in device.log()]


def names(device: Device) -> list[tuple[str, Any]]:
    return [(operation, pk) for operation, _, pk, _ in changes(device)]


def played(device: Device) -> list[Any]:
    """The keys of the rows that other devices have."""
    rows: dict[Any, Any] = {}
    for operation, pk in names(device):
        rows.pop(pk, None) if operation == "delete" else rows.setdefault(pk)
    return list(rows)


# -- what columns are called -------------------------------------------------------------


@pytest.mark.parametrize("value", ["x", None])
def test_columns_may_be_called_as_what_our_own_sql_speaks_of(value: Any, device: Device) -> None:
    with device:
        Thing.create(key="a", t=value, was=value, new=value)
        Thing.update(t="y", was="y", new="y").execute()
        device.database.execute_sql("TRUNCATE thing")
        same = {"t": value, "was": value, "new": value}
        assert changes(device) == [
            ("create", "thing", "a", same),
            ("modify", "thing", "a", {"t": "y", "was": "y", "new": "y"}),
            ("delete", "thing", "a", None),
        ]


def test_another_version_makes_its_own_function_and_nothing_was_unrecorded(device: Device) -> None:
    """What the version before left is as it left it, and is not what this one makes."""
    told: list[str] = []
    device.sync.on_event(
        lambda e: told.extend(e.collections) if isinstance(e, Unrecorded) else None
    )
    with device:
        device.database.execute_sql(OLDER)
        there = present(device.database, device.sync.registry)["thing"]
        device.sync.journal.set_state(**{"triggers thing": f"1 {fingerprint(there)}"})
        device.sync.close()
        device.sync.setup()
        Thing.create(key="a")
        assert (names(device), told) == ([("create", "a")], [])


# -- statements that are refused ---------------------------------------------------------


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_truncate_that_takes_more_than_its_transaction_sees_is_refused(
    level: str, device: Device
) -> None:
    with device, psycopg.connect(SERVER) as program:
        program.execute("SELECT set_config('search_path', %s, false)", (schema_of(device),))
        program.commit()
        program.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        program.execute("SELECT 1")
        Thing.create(key="unseen")
        if level == "READ COMMITTED":
            program.execute("TRUNCATE thing")
        else:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="READ COMMITTED"):
                program.execute("TRUNCATE thing")
        program.commit()
        left = [row.key for row in Thing.select()]
        assert played(device) == left == ([] if level == "READ COMMITTED" else ["unseen"])
