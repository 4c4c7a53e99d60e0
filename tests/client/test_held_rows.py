"""Rows that should leave their tables, where a trigger of the application does not let them go."""

from __future__ import annotations

from typing import Any

import peewee
import pytest

from sharedlog import ConfigurationError, MemorySharedLog, SyncModel
from sharedlog.clock import system_now

from . import pairs
from .conftest import OpenDevice
from .devices import Device
from .pairs import REFUSING


class Folder(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(unique=True)
    size = peewee.IntegerField(default=0)


class Paper(SyncModel):
    """Goes with its folder."""

    key = peewee.CharField(primary_key=True)
    folder = peewee.ForeignKeyField(Folder, on_delete="CASCADE")


class Sheet(SyncModel):
    """Keeps its folder, and the sheet that it lies on."""

    key = peewee.CharField(primary_key=True)
    folder = peewee.ForeignKeyField(Folder, null=True)
    below = peewee.ForeignKeyField("self", null=True)


MODELS = (Folder, Paper, Sheet)

everywhere = pytest.mark.parametrize("where", REFUSING)


class Pair(pairs.Pair):
    """A device that does not let go, and another one."""

    def __init__(self, open_device: OpenDevice, where: str) -> None:
        log = MemorySharedLog()
        later = {"now": lambda: system_now() + 1_000}  # so that its rows are the younger ones
        self.holding = open_device(MODELS, where=where, shared_log=log, **later)
        self.other = open_device(MODELS, shared_log=log)
        super().__init__(self.holding, self.other, strict=self.holding, where=where)

    def hold(self, table: str) -> None:
        self.refuse(table, "DELETE")

    def let_go(self) -> None:
        self.allow()
        with self.holding:  # something new, so that there is a page to apply
            Folder.create(key="last", name="last")
        self.sync()


def clashing(open_device: OpenDevice, where: str) -> Pair:
    """The younger one of two rows with one value is held."""
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="old", name="x")
    with pair.holding:
        Folder.create(key="young", name="x")
    pair.hold("folder")
    pair.sync()
    return pair


def keys(device: Device, model: Any) -> list[str]:
    with device:
        return sorted(row.key for row in model.select())


def parked(device: Device) -> list[tuple[str, Any]]:
    with device:
        return [(row.code, row.pk) for row in device.sync.parked()]


@everywhere
def test_a_younger_row_that_is_held_stops_nothing(open_device: OpenDevice, where: str) -> None:
    pair = clashing(open_device, where)
    assert parked(pair.other) == [("UNIQUE", "young")]
    [(_, pk), *others] = parked(pair.holding)  # MySQL says another reason
    assert (pk, others) == ("old", [("UNIQUE", "young")])
    assert keys(pair.holding, Folder) == ["young"]
    with pair.holding:
        [reason] = [row.reason for row in pair.holding.sync.parked() if row.pk == "young"]
    assert "held" in reason
    with pair.other:
        Folder.create(key="next", name="next")
        [young] = pair.other.sync.parked()
        pair.other.sync.resolve(young, size=3)
    pair.sync()
    assert keys(pair.holding, Folder) == ["next", "young"]  # and others come and go
    pair.let_go()
    assert keys(pair.holding, Folder) == keys(pair.other, Folder) == ["last", "next", "old"]
    assert parked(pair.holding) == parked(pair.other) == [("UNIQUE", "young")]
    with pair.holding:
        pair.holding.sync.resolve(pair.holding.sync.parked()[0], name="y")
    pair.sync()
    pair.assert_equal()
    with pair.other:
        assert Folder.get_by_id("young").size == 3


@everywhere
def test_a_held_row_that_may_stand_after_all_just_stands(
    open_device: OpenDevice, where: str
) -> None:
    pair = clashing(open_device, where)
    with pair.other:
        [young] = pair.other.sync.parked()
        pair.other.sync.resolve(young, name="y", size=3)
    pair.sync()
    assert parked(pair.holding) == []
    assert keys(pair.holding, Folder) == ["old", "young"]
    with pair.holding:
        assert Folder.get_by_id("young").size == 3
    pair.assert_equal()


@everywhere
def test_a_child_that_is_held_keeps_its_parent(open_device: OpenDevice, where: str) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="f", name="f")
    pair.sync()
    with pair.holding:
        Paper.create(key="p", folder="f")
    with pair.other:
        Folder.delete_by_id("f")
        Folder.create(key="g", name="g")
    pair.hold("paper")
    pair.sync()
    assert keys(pair.holding, Folder) == ["f", "g"]
    assert keys(pair.holding, Paper) == ["p"]
    assert parked(pair.holding) == parked(pair.other) == [("PARENT_DELETED", "p")]
    pair.let_go()
    assert keys(pair.holding, Folder) == ["g", "last"]
    assert keys(pair.holding, Paper) == []


@everywhere
def test_deleted_rows_that_are_held_keep_what_they_refer_to(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.insert_many([("f", "f", 0), ("free", "free", 0)]).execute()
        Sheet.create(key="a", folder=None)
        Sheet.create(key="b", folder="f", below="a")
    pair.sync()
    pair.hold("sheet")
    with pair.other:
        Sheet.delete_by_id("b")
        Sheet.delete_by_id("a")
        Folder.delete().execute()
        Folder.create(key="g", name="g")
    pair.sync()
    assert keys(pair.holding, Sheet) == ["a", "b"]
    assert keys(pair.holding, Folder) == ["f", "g"]
    pair.let_go()
    assert keys(pair.holding, Sheet) == []
    assert keys(pair.holding, Folder) == keys(pair.other, Folder) == ["g", "last"]


ENDING = "CREATE TRIGGER ends BEFORE {what} ON folder BEGIN SELECT RAISE(ROLLBACK, 'no more'); END"


@pytest.mark.parametrize("what", ["INSERT", "UPDATE", "DELETE"])
def test_a_trigger_that_ends_the_transaction_is_named_and_nothing_is_half_done(
    open_device: OpenDevice, what: str
) -> None:
    pair = Pair(open_device, "sqlite")
    with pair.other:
        Folder.insert_many([("a", "a", 0), ("b", "b", 0), ("c", "c", 0)]).execute()
    pair.sync()
    before = pair.holding.stored()["folder"]
    pair.holding.database.execute_sql(ENDING.format(what=what))
    with pair.other:
        Folder.create(key="new", name="new")
        Folder.update(size=1).where(Folder.key == "b").execute()
        Folder.delete_by_id("c")
        pair.other.sync.sync()
    with pair.holding:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="no more") as refused:
                pair.holding.sync.sync()
        assert "RAISE(ABORT" in str(refused.value)
        assert pair.holding.stored()["folder"] == before
        pair.holding.database.execute_sql("DROP TRIGGER ends")
    pair.sync()
    pair.assert_equal()
    with pair.holding:
        assert pair.holding.sync.verify().differences == []


def test_a_trigger_that_ends_the_transaction_takes_a_local_write_with_its_entry(
    open_device: OpenDevice,
) -> None:
    device = open_device(MODELS)
    device.database.execute_sql(ENDING.format(what="INSERT"))
    with device, pytest.raises(peewee.IntegrityError, match="no more"):
        Folder.create(key="a", name="a")
    with device, pytest.raises(peewee.OperationalError), device.database.atomic():  # as ever
        Sheet.create(key="s")
        Folder.create(key="a", name="a")
    assert device.log() == []
    assert device.stored()["sheet"] == []
