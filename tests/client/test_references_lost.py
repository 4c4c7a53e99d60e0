"""References to a field beside the key, of rows that stay while what they refer to turns out not to
stand: they are parked, too, and the database refuses nothing."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel

from .conftest import OpenDevice


class Device:
    """A group has a code that items refer to, and a head, who is one of its people."""

    def __init__(self, log: MemorySharedLog, now: Any, *, acts: bool = True) -> None:
        self.database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})

        class Group(SyncModel):
            id: Any = peewee.TextField(primary_key=True)
            code = peewee.TextField(unique=True, null=True)
            head = peewee.DeferredForeignKey(
                "Person",
                null=True,
                on_delete="SET NULL",
                constraints=[
                    peewee.SQL(
                        'REFERENCES "person" ("id") ON DELETE SET NULL '
                        "DEFERRABLE INITIALLY DEFERRED"
                    )
                ],
            )

            class Meta:
                table_name = "group"

        class Person(SyncModel):
            id: Any = peewee.TextField(primary_key=True)
            name = peewee.TextField(unique=True)
            group = peewee.ForeignKeyField(Group, null=True, on_delete="CASCADE")

            class Meta:
                table_name = "person"

        class Item(SyncModel):
            id: Any = peewee.TextField(primary_key=True)
            group = peewee.ForeignKeyField(
                Group,
                field="code",
                null=True,
                on_update="CASCADE" if acts else None,
                on_delete="SET NULL" if acts else None,
            )

            class Meta:
                table_name = "item"

        self.group: Any = Group
        self.person: Any = Person
        self.item: Any = Item
        models = [Group, Person, Item]
        self.database.bind(models)
        self.database.create_tables(models)
        self.sync = Sync(
            self.database, models, shared_log=log, now=lambda: next(now), batch_size=4
        ).setup()

    def parked(self) -> list[tuple[str | None, Any, str]]:
        return sorted((row.collection, row.pk, row.code) for row in self.sync.parked())


@pytest.fixture
def acts() -> bool:
    """Whether the database changes items with their groups."""
    return True


@pytest.fixture
def devices(acts: bool) -> Any:
    log, now = MemorySharedLog(), count(1_790_000_000_000)
    one, two = Device(log, now, acts=acts), Device(log, now, acts=acts)
    with closing(one.database), closing(two.database):
        yield one, two


@pytest.mark.parametrize("acts", [True, False])
def test_a_row_that_was_to_have_the_value_of_one_that_leaves(
    devices: tuple[Device, Device],
) -> None:
    """That turns out with the third one above it."""
    one, two = devices
    one.group.create(id="1", code="a")
    one.sync.sync()
    two.sync.sync()
    two.group.create(id="older", code="b")
    two.item.create(id="x", group="a")
    one.group.delete_by_id("1")
    one.group.create(id="younger", code="b")
    with one.database.atomic():
        one.group.create(id="2", code="a", head="sam")
        one.person.create(id="sam", name="sam", group="younger")
    for device in (one, two, one, two):
        device.sync.sync()
    wanted = [
        ("group", "2", "PARENT_MISSING"),
        ("group", "younger", "UNIQUE"),
        ("item", "x", "PARENT_MISSING"),
        ("person", "sam", "PARENT_MISSING"),
    ]
    assert (one.parked(), two.parked()) == (wanted, wanted)


def test_a_new_value_of_a_row_that_has_to_leave(devices: tuple[Device, Device]) -> None:
    one, two = devices
    one.group.create(id="1", code="a")
    one.item.create(id="x", group="a")
    one.sync.sync()
    two.sync.sync()
    two.person.create(id="older", name="sam")
    one.person.create(id="younger", name="sam")
    one.item.create(id="y")  # so that items are looked at before groups
    one.group.update(code="b", head="younger").execute()  # and x refers to b
    one.sync.sync()
    two.sync.sync()
    assert two.parked() == [
        ("group", "1", "PARENT_MISSING"),
        ("item", "x", "PARENT_MISSING"),
        ("person", "younger", "UNIQUE"),
    ]
    one.sync.sync()
    assert one.parked() == two.parked()
    assert one.sync.verify().equal
    assert two.sync.verify().equal


def test_an_older_row_that_arrives_and_has_to_leave(devices: tuple[Device, Device]) -> None:
    one, two = devices
    one.group.create(id="older", code="a")
    one.group.create(id="younger")
    two.group.create(id="younger", code="a")
    two.item.create(id="x", group="a")
    one.person.create(id="p", name="pat", group="younger")
    one.group.update(head="p").where(one.group.id == "older").execute()
    two.sync.sync()
    one.sync.sync()
    two.sync.sync()
    assert two.parked() == [
        ("group", "older", "PARENT_MISSING"),
        ("group", "younger", "UNIQUE"),
        ("item", "x", "PARENT_MISSING"),
        ("person", "p", "PARENT_MISSING"),
    ]
    assert one.parked() == two.parked()
    assert one.sync.verify().equal
    assert two.sync.verify().equal


def test_a_row_in_its_table_that_is_read_anew(devices: tuple[Device, Device]) -> None:
    """At the end of the first page the group 1 has the code that it had then, not that of today."""
    one, two = devices
    one.group.create(id="1", code="a")
    one.group.create(id="2", code="c")
    two.sync.sync()
    one.sync.sync()
    two.sync.sync()
    one.item.create(id="x", group="c")
    one.sync.sync()
    two.group.delete_by_id("2")
    two.sync.sync()
    one.sync.sync()
    one.group.update(code="c").where(one.group.id == "1").execute()
    one.sync.sync()
    two.sync.sync()
    before = list(one.item.select().tuples())
    one.sync.reset()
    one.sync.sync()
    assert list(one.item.select().tuples()) == before == list(two.item.select().tuples())
    assert one.sync.verify().equal


@pytest.mark.parametrize("acts", [True, False])
def test_a_new_value_of_a_row_that_went_unseen(devices: tuple[Device, Device]) -> None:
    """Nobody can refer to it, and the rest arrives; found missing, it is deleted everywhere."""
    one, two = devices
    one.group.create(id="1", code="old")
    one.sync.sync()
    two.sync.sync()
    two.database.execute_sql('DELETE FROM "group"')
    one.group.update(code="new").execute()
    one.item.create(id="x", group="new")
    one.person.create(id="p", name="pat")
    one.sync.sync()
    two.sync.sync()
    assert two.parked() == [("item", "x", "PARENT_MISSING")]
    assert two.person.get().name == "pat"
    assert {d.kind for d in two.sync.verify().differences} == {"missing", "parked here"}
    two.sync.adopt()
    for device in (two, one, two):
        device.sync.sync()
    assert one.parked() == two.parked()
    assert one.sync.verify().equal
    assert two.sync.verify().equal


def test_a_reference_that_sqlite_does_not_check(open_device: OpenDevice) -> None:
    """It stands on the device where it was written, and is told."""

    class Folder(SyncModel):
        code = peewee.CharField(primary_key=True)
        above = peewee.ForeignKeyField("self", null=True, on_delete="SET NULL")

    log = MemorySharedLog()
    one, two = (open_device([Folder], shared_log=log) for _ in range(2))
    with one:
        Folder.replace(code="x", above="missing").execute()
        one.sync.sync()
        assert [d.kind for d in one.sync.verify().differences] == ["parked there"]
    with two:
        two.sync.sync()
        assert [(row.pk, row.code) for row in two.sync.parked()] == [("x", "PARENT_MISSING")]
