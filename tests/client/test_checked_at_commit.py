"""PostgreSQL's constraints that are checked when a transaction ends: by then nobody could tell
which row it was. They are asked in time, park their row as others do, and stop nothing."""

from __future__ import annotations

from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import ConfigurationError, Maximum, MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import Device

AT_ONCE, IN_THE_END = "DEFERRABLE INITIALLY IMMEDIATE", "DEFERRABLE INITIALLY DEFERRED"
checked = pytest.mark.parametrize("checked", [AT_ONCE, IN_THE_END])

HELD = """CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF coalesce(NEW.key, OLD.key) = 'bad' THEN RAISE EXCEPTION 'held'; END IF; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER held AFTER {} ON {} {} FOR EACH ROW EXECUTE FUNCTION held()"""

TOGETHER = """CREATE FUNCTION together() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.above_id IS NULL AND NOT EXISTS (SELECT 1 FROM folder WHERE above_id = NEW.key)
    THEN RAISE EXCEPTION 'nothing below'; END IF; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER together AFTER INSERT ON folder {}
    FOR EACH ROW EXECUTE FUNCTION together()"""


class Tag(SyncModel):
    """Refers to nothing: its rows arrive in another way."""

    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(null=True)


class Folder(SyncModel):
    key = peewee.CharField(primary_key=True)
    above = peewee.ForeignKeyField("self", null=True)


class Score(SyncModel):
    key = peewee.CharField(primary_key=True)
    best = peewee.IntegerField()

    class Meta:
        merge: ClassVar = {"best": Maximum()}


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


def run(device: Device, sql: str) -> None:
    device.database.connection().execute(sql)


def sync(*devices: Device) -> None:
    for device in devices:
        with device:
            device.sync.sync()


def keys(device: Device, model: Any) -> list[str]:
    with device:
        return sorted(row.key for row in model.select())


def parked(device: Device) -> list[tuple[Any, str]]:
    return [(row.pk, row.code) for row in device.sync.parked()]


@checked
@pytest.mark.parametrize("model", [Tag, Folder])
def test_a_constraint_trigger_parks_the_row_and_stops_nothing(
    model: Any, checked: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    strict = open_device([model], where="postgres", recorder=recorder, shared_log=log)
    other = open_device([model], shared_log=log)
    run(strict, HELD.format("INSERT OR UPDATE", model._meta.table_name, checked))
    with other:
        model.create(key="bad")
        model.create(key="good")
    with strict:
        model.create(key="mine")
    sync(other, strict, other)
    assert keys(strict, model) == ["good", "mine"]
    assert parked(strict) == [("bad", "CONSTRAINT")]
    assert keys(other, model) == ["bad", "good", "mine"]
    run(strict, f"DROP TRIGGER held ON {model._meta.table_name}")
    sync(strict)
    assert (keys(strict, model), parked(strict)) == (["bad", "good", "mine"], [])


@checked
def test_a_row_that_a_constraint_trigger_does_not_let_go_is_kept(
    checked: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    strict = open_device([Folder], where="postgres", shared_log=log)
    other = open_device([Folder], shared_log=log)
    run(strict, HELD.format("DELETE", "folder", checked))
    with other:
        Folder.create(key="bad")
        Folder.create(key="good")
        sync(other, strict)
        Folder.delete().execute()
    sync(other, strict)
    assert keys(strict, Folder) == ["bad"]
    run(strict, "DROP TRIGGER held ON folder")
    sync(strict)
    assert keys(strict, Folder) == []


@checked
def test_the_older_row_has_a_value_that_is_unique_in_the_end(
    checked: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = [
        open_device([Tag], where="postgres", recorder=recorder, shared_log=log) for _ in "ab"
    ]
    for number, device in enumerate(devices):
        run(device, f"ALTER TABLE tag ADD UNIQUE (name) {checked}")
        with device:
            Tag.create(key=f"t{number}", name="x")
    sync(*devices, *devices)
    for device in devices:
        assert (keys(device, Tag), parked(device)) == (["t0"], [("t1", "UNIQUE")])
        assert device.sync.status().pending == 0


def test_what_a_merge_rule_makes_of_a_write_may_be_refused_in_the_end(
    log: MemorySharedLog, open_device: OpenDevice
) -> None:
    """It is written anew when triggers' notes become entries."""
    device = open_device([Score], where="postgres", recorder="triggers", shared_log=log)
    with device:
        Score.create(key="bad", best=8)
        device.sync.sync()
        device.database.execute_sql("UPDATE score SET best = 1")
        run(device, HELD.format("INSERT OR UPDATE", "score", IN_THE_END))
        device.sync.sync()
        assert parked(device) == [("bad", "CONSTRAINT")]


@pytest.fixture
def folders(log: MemorySharedLog, open_device: OpenDevice) -> tuple[Device, Device]:
    """A device whose database is going to have constraints, and one that has none."""
    strict = open_device([Folder], where="postgres", shared_log=log)
    return strict, open_device([Folder], shared_log=log)


@checked
def test_rows_that_a_trigger_wants_together_arrive_together(
    checked: str, folders: tuple[Device, Device]
) -> None:
    strict, other = folders
    run(strict, TOGETHER.format(checked))
    with other:
        Folder.create(key="above")
        Folder.create(key="below", above="above")
    sync(other, strict)
    assert (keys(strict, Folder), parked(strict)) == (["above", "below"], [])


def test_rows_in_a_circle_stand_where_another_one_is_refused(
    folders: tuple[Device, Device],
) -> None:
    strict, other = folders
    run(strict, HELD.format("INSERT OR UPDATE", "folder", IN_THE_END))
    run(strict, 'ALTER TABLE folder RENAME CONSTRAINT folder_above_id_fkey TO "%s, ""a"" ?"')
    with other:
        for key in "ab":
            Folder.create(key=key)
        Folder.create(key="bad")
        Folder.update(above="b").where(Folder.key == "a").execute()
        Folder.update(above="a").where(Folder.key == "b").execute()
    sync(other, strict)
    assert (keys(strict, Folder), parked(strict)) == (["a", "b"], [("bad", "CONSTRAINT")])


def test_another_constraint_of_a_foreign_keys_name_stops_nothing(
    folders: tuple[Device, Device],
) -> None:
    strict, other = folders
    run(strict, HELD.format("INSERT OR UPDATE", "folder", IN_THE_END))
    run(strict, "CREATE TABLE outside (o text CONSTRAINT folder_above_id_fkey CHECK (o <> ''))")
    with other:
        Folder.create(key="bad")
        Folder.create(key="good", above=Folder.create(key="above"))
    sync(other, strict)
    assert (keys(strict, Folder), parked(strict)) == (["above", "good"], [("bad", "CONSTRAINT")])


@checked
def test_a_key_that_is_unique_in_the_end_is_refused(checked: str, open_device: OpenDevice) -> None:
    device = open_device([Score], where="postgres", tracked=False)
    added = f"ADD CONSTRAINT late PRIMARY KEY (key) {checked}"
    run(device, f"ALTER TABLE score DROP CONSTRAINT score_pkey, {added}")
    with device:
        with pytest.raises(ConfigurationError, match=r"key of 'score' is DEFERRABLE") as refused:
            device.sync.setup()
        run(device, refused.value.hint or "")
        device.sync.setup()
