"""References to a field beside the key, whose values change: devices end equal, in any order.

What the database does with children when a parent gets another value is recorded where somebody
changed the parent. Where that change arrives, the database must not do it once more, to whoever
happens to refer to the value in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.journal.recorder import Capture

FLEETS = 7
STEPS = 14
CODES = "abcdef"


class Device:
    """A group has a code that people change, and items refer to groups by it."""

    def __init__(
        self,
        name: str,
        log: MemorySharedLog,
        now: Callable[[], int],
        on_update: str | None,
        on_delete: str | None,
        capture: Capture,
        batch_size: int,
    ) -> None:
        self.database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
        database = self.database

        class Group(SyncModel):
            id: Any = peewee.TextField(primary_key=True)
            code = peewee.TextField(unique=True)

            class Meta:
                table_name = "group"

        class Item(SyncModel):
            id: Any = peewee.TextField(primary_key=True)
            group = peewee.ForeignKeyField(
                Group, field="code", null=True, on_update=on_update, on_delete=on_delete
            )

            class Meta:
                table_name = "item"

        self.group: Any = Group
        self.item: Any = Item
        database.bind([Group, Item])
        database.create_tables([Group, Item])
        ids = (f"{name}{n}" for n in count())
        self.sync = Sync(
            database,
            [Group, Item],
            shared_log=log,
            now=now,
            new_id=lambda: next(ids),
            capture=capture,
            batch_size=batch_size,
        ).setup()

    def rename(self, group: str, code: str) -> None:
        self.group.update(code=code).where(self.group.id == group).execute()

    def rows(self) -> tuple[list[Any], list[Any]]:
        groups = self.group.select(self.group.id, self.group.code).order_by(self.group.id)
        items = self.item.select(self.item.id, self.item.group).order_by(self.item.id)
        return list(groups.tuples()), list(items.tuples())

    def parked(self) -> list[tuple[Any, ...]]:
        return sorted((row.collection, row.pk, row.code) for row in self.sync.parked())


Fleet = list[Device]


@contextmanager
def fleet(
    on_update: str | None,
    on_delete: str | None,
    capture: Capture = "signals",
    batch_size: int = 1000,
) -> Iterator[Fleet]:
    """Three devices with the groups 1 (a) and 2 (b), and the items x in 1 and y in 2."""
    log, now = MemorySharedLog(), count(1_790_000_000_000)
    with ExitStack() as stack:
        devices = []
        for name in ("one", "two", "three"):
            device = Device(name, log, lambda: next(now), on_update, on_delete, capture, batch_size)
            stack.enter_context(closing(device.database))
            devices.append(device)
        for id, code in ("1a", "2b"):
            devices[0].group.create(id=id, code=code)
        for id, code in ("xa", "yb"):
            devices[0].item.create(id=id, group=code)
        for device in devices:
            device.sync.sync()
        yield devices


def check_equal(devices: Fleet) -> None:
    for _ in range(len(devices) + 1):
        for device in devices:
            device.sync.sync()
    assert [device.rows() for device in devices] == [devices[0].rows()] * len(devices)
    assert [device.parked() for device in devices] == [devices[0].parked()] * len(devices)
    for device in devices:
        assert device.database.execute_sql("PRAGMA foreign_key_check").fetchall() == []


def test_a_value_written_again_leaves_its_children_alone() -> None:
    with fleet("SET NULL", None) as (one, two, three):
        two.rename("2", "b")
        one.rename("1", "e")
        check_equal([one, two, three])
        assert three.rows() == ([("1", "e"), ("2", "b")], [("x", None), ("y", "b")])


def test_children_stay_with_whoever_has_the_value_in_the_end() -> None:
    with fleet("CASCADE", None) as (one, two, three):
        one.rename("1", "f")
        three.sync.sync()
        two.rename("2", "f")
        one.sync.sync()
        two.sync.sync()
        one.rename("1", "e")
        check_equal([one, two, three])
        assert two.rows() == ([("1", "e"), ("2", "f")], [("x", "e"), ("y", "f")])


def test_children_stay_when_the_row_leaves_that_another_one_replaces() -> None:
    with fleet("CASCADE", "SET NULL") as (one, two, three):
        one.rename("1", "c")
        two.rename("2", "c")
        check_equal([one, two, three])
        assert two.rows() == ([("1", "c")], [("x", "c"), ("y", "c")])
        assert two.parked() == [("group", "2", "UNIQUE")]


@pytest.mark.parametrize("on_delete", [None, "SET NULL", "CASCADE"])
def test_children_stay_with_an_older_row_that_arrives_alone(on_delete: str | None) -> None:
    with fleet("CASCADE", on_delete) as (one, two, _):
        one.group.create(id="4", code="d")
        two.group.create(id="5", code="d")
        two.item.create(id="z", group="d")
        two.sync.sync()
        one.sync.sync()
        two.sync.sync()
        assert two.rows() == one.rows()
        assert two.parked() == one.parked() == [("group", "5", "UNIQUE")]
        assert two.sync.verify().equal


@pytest.mark.parametrize("on_delete", [None, "SET NULL", "CASCADE"])
def test_children_stay_where_a_parent_in_the_table_is_read_anew(on_delete: str | None) -> None:
    """After reset() the second page makes the group 4, which y refers to, what it was at first."""
    with fleet("CASCADE", on_delete, batch_size=8) as (one, two, three):
        three.rename("1", "f")
        two.item.update(group="a").where(two.item.id == "y").execute()
        two.item.create(id="w")
        two.sync.sync()
        three.sync.sync()
        three.group.create(id="4", code="c")
        for n in range(7):
            three.item.create(id=f"z{n}")
        three.rename("4", "a")
        check_equal([one, two, three])
        before = one.rows()
        assert ("y", "a") in before[1]
        one.sync.reset()
        one.sync.sync()
        assert one.rows() == before
        check_equal([one, two, three])


def do_something(device: Device, chance: Random) -> None:
    """One change, or a sync; what the database refuses is left."""
    codes = [None, *(code for _, code in device.rows()[0])]
    group, item = chance.choice("123"), chance.choice("xyz")
    code, held = chance.choice(CODES), chance.choice(codes)
    actions: list[Callable[[], object]] = [
        *[lambda: device.rename(group, code)] * 5,
        lambda: device.item.update(group=held).where(device.item.id == item).execute(),
        lambda: device.item.create(id=item, group=held),
        lambda: device.item.delete_by_id(item),
        lambda: device.group.create(id=group, code=code),
        lambda: device.group.delete_by_id(group),
        *[device.sync.sync] * 4,
    ]
    with suppress(peewee.IntegrityError):
        chance.choice(actions)()


@pytest.mark.parametrize("capture", ["signals", "triggers"])
@pytest.mark.parametrize("on_delete", [None, "SET NULL", "CASCADE"])
@pytest.mark.parametrize("on_update", ["CASCADE", "SET NULL"])
def test_fleets_end_equal(on_update: str | None, on_delete: str | None, capture: Capture) -> None:
    for seed in range(FLEETS):
        chance = Random(seed)
        with fleet(on_update, on_delete, capture) as devices:
            for _ in range(STEPS):
                do_something(chance.choice(devices), chance)
            check_equal(devices)
