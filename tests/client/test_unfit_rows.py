"""Rows that a database has no place for, where their values are more than values: keys, unique, and
referred to. They are parked with all that needs them, stop nothing, and come back."""

from __future__ import annotations

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel

from . import pairs
from .conftest import OpenDevice
from .devices import Device


class Folder(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(unique=True)
    remark = peewee.CharField(default="")


class Paper(SyncModel):
    """Refers to what is a key, and to what is none."""

    key = peewee.CharField(primary_key=True)
    folder = peewee.ForeignKeyField(Folder, null=True, on_delete="CASCADE")
    named = peewee.ForeignKeyField(
        Folder, field="name", null=True, on_delete="SET NULL", on_update="CASCADE"
    )


MODELS = (Folder, Paper)

UNFIT = {"postgres, NUL": "a\0b", "postgres, long": "a" * 300, "mysql, long": "a" * 300}
everywhere = pytest.mark.parametrize("which", UNFIT)


class Pair(pairs.Pair):
    """A device whose database has no place for the text, and one whose file has."""

    def __init__(self, open_device: OpenDevice, which: str) -> None:
        log, where = MemorySharedLog(), which.partition(",")[0]
        self.text = UNFIT[which]
        self.strict = open_device(MODELS, where=where, shared_log=log)
        self.file = open_device(MODELS, shared_log=log)
        super().__init__(self.file, self.strict, strict=self.strict, where=where)


def parked(device: Device) -> list[tuple[str, str, str]]:
    with device:
        return [(row.collection or "", str(row.pk), row.code) for row in device.sync.parked()]


@everywhere
def test_a_unique_value_that_does_not_fit_stops_nothing(
    open_device: OpenDevice, which: str
) -> None:
    pair = Pair(open_device, which)
    with pair.file:
        Folder.create(key="f", name="before")
        pair.sync()
        Folder.update(name=pair.text).where(Folder.key == "f").execute()
        Folder.create(key="g", name="g")
    pair.sync()
    assert parked(pair.strict) == [("folder", "f", "VALUE_UNFIT")]
    with pair.file:
        Folder.update(name="after").where(Folder.key == "f").execute()
    pair.sync()
    pair.assert_equal()


@everywhere
def test_what_refers_to_a_value_that_does_not_fit_waits_for_it(
    open_device: OpenDevice, which: str
) -> None:
    pair = Pair(open_device, which)
    with pair.file:
        Folder.create(key="f", name=pair.text)
        Paper.create(key="by key", folder="f")
        Paper.create(key="by name", named=pair.text)
    pair.sync()
    assert parked(pair.strict) == [
        ("folder", "f", "VALUE_UNFIT"),
        ("paper", "by key", "PARENT_MISSING"),
        ("paper", "by name", "VALUE_UNFIT"),
    ]
    with pair.file:
        Folder.update(name="fits").where(Folder.key == "f").execute()
    pair.sync()
    with pair.strict:
        assert Paper.get_by_id("by name").named_id == "fits"
    pair.assert_equal()


@everywhere
def test_a_key_that_does_not_fit_stops_nothing(open_device: OpenDevice, which: str) -> None:
    pair = Pair(open_device, which)
    with pair.file:
        Folder.create(key=pair.text, name="f")
        Paper.create(key=pair.text, folder=pair.text)
        Paper.create(key="fits", folder=pair.text)
    pair.sync()
    assert {(table, pk) for table, pk, _ in parked(pair.strict)} == {
        ("folder", pair.text),
        ("paper", pair.text),
        ("paper", "fits"),
    }
    with pair.file:
        Folder.update(name="other").where(Folder.key == pair.text).execute()
        pair.sync()
        Folder.create(key="g", name="g")
        Paper.update(folder="g").where(Paper.key == "fits").execute()
        Folder.delete_by_id(pair.text)
    pair.sync()
    assert parked(pair.strict) == parked(pair.file) == []
    pair.assert_equal()


@everywhere
def test_who_comes_to_refer_to_a_row_that_does_not_fit_any_more_waits(
    open_device: OpenDevice, which: str
) -> None:
    pair = Pair(open_device, which)
    with pair.file:
        Folder.create(key="f", name="f")
        Folder.create(key="g", name="g")
        pair.sync()
        # Names are written, so they could have been passed on.
        Folder.update(name="f", remark=pair.text).where(Folder.key == "f").execute()
        Folder.update(name="h").where(Folder.key == "g").execute()
        Paper.create(key="p", named="f")
    pair.sync()
    assert parked(pair.strict) == [("folder", "f", "VALUE_UNFIT"), ("paper", "p", "PARENT_MISSING")]
    with pair.strict:
        assert [paper.key for paper in Paper.select()] == []
    with pair.file:
        Folder.update(remark="").where(Folder.key == "f").execute()
    pair.sync()
    pair.assert_equal()


@everywhere
def test_who_follows_a_name_that_does_not_come_waits(open_device: OpenDevice, which: str) -> None:
    pair = Pair(open_device, which)
    with pair.file:
        Folder.create(key="f", name="f")
        Paper.create(key="p", named="f")
        pair.sync()
        Folder.update(name="g", remark=pair.text).where(Folder.key == "f").execute()
    pair.sync()
    assert parked(pair.strict) == [("folder", "f", "VALUE_UNFIT"), ("paper", "p", "PARENT_MISSING")]
    with pair.file:
        Folder.update(remark="").where(Folder.key == "f").execute()
    pair.sync()
    with pair.strict:
        assert Paper.get_by_id("p").named_id == "g"
    pair.assert_equal()
