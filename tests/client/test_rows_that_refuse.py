"""Rows that a trigger of the application does not let change, where applying has to change them
for a moment: so that rows can go in any order, or get what others had."""

from __future__ import annotations

from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Maximum, MemorySharedLog, SyncModel

from . import pairs
from .conftest import OpenDevice
from .devices import Device
from .pairs import REFUSING


class Folder(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(null=True, unique=True)
    above = peewee.ForeignKeyField("self", null=True, on_delete="RESTRICT")


class Paper(SyncModel):
    """Follows the name of its folder."""

    key = peewee.CharField(primary_key=True)
    named = peewee.ForeignKeyField(
        Folder, field="name", null=True, on_delete="CASCADE", on_update="CASCADE"
    )


everywhere = pytest.mark.parametrize("where", REFUSING)


class Sheet(SyncModel):
    """Refers to other sheets, and has to be told of another name of its folder."""

    key = peewee.CharField(primary_key=True)
    mark = peewee.CharField(null=True, unique=True)
    below = peewee.ForeignKeyField("self", null=True)
    named = peewee.ForeignKeyField(Folder, field="name", null=True)


MODELS = (Folder, Paper, Sheet)


class Pair(pairs.Pair):
    """A device whose rows do not change, and another one."""

    def __init__(self, open_device: OpenDevice, where: str) -> None:
        log = MemorySharedLog()
        self.strict = open_device(MODELS, where=where, shared_log=log)
        self.other = open_device(MODELS, shared_log=log)
        super().__init__(self.other, self.strict, strict=self.strict, where=where)

    def let_change(self) -> None:
        self.allow()
        with self.strict:  # something new, so that there is a page to apply
            Folder.create(key="last", name="last")
        self.sync()


def keys(device: Device, model: Any) -> list[str]:
    with device:
        return sorted(row.key for row in model.select())


@everywhere
def test_rows_in_a_circle_that_do_not_change_are_held_and_stop_nothing(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="a")
        Folder.create(key="b", above="a")
        Folder.update(above="b").where(Folder.key == "a").execute()
    pair.sync()
    pair.refuse("folder", "UPDATE")
    with pair.other:
        Folder.update(above=None).execute()
        Folder.delete().execute()
        Folder.create(key="c")
    pair.sync()
    assert "c" in keys(pair.strict, Folder)
    pair.let_change()
    assert keys(pair.strict, Folder) == ["c", "last"]
    pair.assert_equal()


@everywhere
def test_a_chain_of_rows_that_do_not_change_goes_all_the_same(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        above = None
        for key in "abcd":
            above = Folder.create(key=key, above=above)
    pair.sync()
    pair.refuse("folder", "UPDATE")
    with pair.other:
        for key in "abcd":  # in this order they come
            Folder.update(name=key).where(Folder.key == key).execute()
        for key in "dcba":
            Folder.delete_by_id(key)
    pair.sync()
    assert keys(pair.strict, Folder) == []
    pair.assert_equal()


@everywhere
def test_a_child_that_does_not_change_stops_nobody_who_renames_its_parent(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="f", name="x")
        Paper.create(key="p", named="x")
    pair.sync()
    pair.refuse("paper", "UPDATE")
    with pair.other:
        Folder.update(name="y").where(Folder.key == "f").execute()
        Folder.create(key="g", name="g")
    pair.sync()
    assert keys(pair.strict, Folder) == ["f", "g"]
    pair.let_change()
    pair.assert_equal()
    with pair.strict:
        assert Paper.get_by_id("p").named_id == "y"


@everywhere
def test_a_child_that_does_not_change_stops_nobody_who_replaces_its_parent(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="f", name="x")
        Paper.create(key="p", named="x")
    pair.sync()
    pair.refuse("paper", "UPDATE")
    with pair.other, pair.other.database.atomic():
        Paper.update(named=None).execute()
        Folder.delete_by_id("f")
        Folder.create(key="g", name="x")
        Paper.update(named="x").execute()
    pair.sync()
    assert keys(pair.strict, Folder) == ["g"]
    pair.let_change()
    pair.assert_equal()
    assert keys(pair.strict, Paper) == ["p"]


@everywhere
def test_a_child_that_neither_changes_nor_goes_holds_the_name_of_its_parent(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="f", name="x")
        Paper.create(key="c", named="x")
    pair.sync()
    pair.refuse("paper", "UPDATE", "DELETE")
    with pair.other, pair.other.database.atomic():
        Paper.update(named=None).execute()
        Folder.update(name="y").where(Folder.key == "f").execute()
        Paper.update(named="y").execute()
        Folder.create(key="g", name="g")
    pair.sync()
    assert keys(pair.strict, Folder) == ["f", "g"]
    pair.let_change()
    pair.assert_equal()  # although the child was parked twice: it has not forgotten "y"
    assert keys(pair.strict, Paper) == ["c"]


@everywhere
def test_a_row_that_would_not_go_again_is_not_written_before_its_parent_is_there(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Sheet.create(key="old", mark="x")
    pair.sync()
    pair.refuse("sheet", "DELETE", "UPDATE")
    with pair.other:
        Sheet.delete_by_id("old")  # and stays here, with its mark
        pair.sync()
        Sheet.create(key="a", mark="x")
        Sheet.create(key="b", below="a")
        Sheet.create(key="c", below="b")
        Folder.create(key="f", name="f")
    pair.sync()
    assert keys(pair.strict, Sheet) == ["old"]
    assert keys(pair.strict, Folder) == ["f"]
    pair.let_change()
    pair.assert_equal()
    assert keys(pair.strict, Sheet) == ["a", "b", "c"]


@everywhere
def test_a_name_stays_that_is_referred_to_by_what_neither_changes_nor_goes(
    open_device: OpenDevice, where: str
) -> None:
    pair = Pair(open_device, where)
    with pair.other:
        Folder.create(key="f", name="x")
        Sheet.create(key="s", named="x")
    pair.sync()
    pair.refuse("sheet", "DELETE", "UPDATE")
    with pair.other, pair.other.database.atomic():
        Sheet.update(named=None).execute()
        Folder.update(name="y").where(Folder.key == "f").execute()
        Sheet.update(named="y").execute()
        Sheet.create(key="t", named="y")
        Folder.create(key="g", name="g")
    pair.sync()
    with pair.strict:
        assert {row.key: row.named_id for row in Sheet.select()} == {"s": "x"}
        assert {row.key: row.name for row in Folder.select()} == {"f": "x", "g": "g"}
    pair.let_change()
    pair.assert_equal()
    assert keys(pair.strict, Sheet) == ["s", "t"]


class Score(SyncModel):
    key = peewee.CharField(primary_key=True)
    best = peewee.IntegerField()

    class Meta:
        merge: ClassVar = {"best": Maximum()}


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_what_a_rule_makes_of_a_raw_write_and_a_trigger_refuses_is_parked(
    where: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    device = open_device([Score], where=where, recorder="triggers", shared_log=log)
    other = open_device([Score], shared_log=log)
    pair = pairs.Pair(device, other, strict=device, where=where)
    with device:
        Score.create(key="s", best=8)
        device.sync.sync()
        device.database.execute_sql("UPDATE score SET best = 1")
        pair.refuse("score", "INSERT", "UPDATE")
        for _ in range(2):
            device.sync.sync()
        [parked] = device.sync.parked()
        assert (parked.pk, parked.code, parked.values) == ("s", "CONSTRAINT", {"best": 8})
        assert device.sync.status().pending == 0
    with other:
        other.sync.sync()
        assert list(Score.select().tuples()) == [("s", 8)]
    with device:
        pair.allow()
        device.sync.sync()
        assert (list(Score.select().tuples()), device.sync.parked()) == ([("s", 8)], [])
