"""What stands in the tables: cases that the simulation found, each as small as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import peewee
import pytest

from sharedlog import Entry, MemorySharedLog, SyncModel

from ..dictmodel import Write
from .devices import RECORDERS, Device
from .test_apply import Models, Replica, entry


def houses(on_delete: str | None) -> Models:
    class House(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        name = peewee.CharField(default="none")

        class Meta:
            table_name = "house"

    class Room(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        house = peewee.ForeignKeyField(House, null=True, on_delete=on_delete)

        class Meta:
            table_name = "room"

    return {"House": House, "Room": Room}


def nested() -> Models:
    class House(SyncModel):
        number = peewee.IntegerField(primary_key=True)

        class Meta:
            table_name = "house"

    class Room(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        house = peewee.ForeignKeyField(House, on_delete="CASCADE")
        beside = peewee.ForeignKeyField("self", null=True)

        class Meta:
            table_name = "room"

    class Bed(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        room = peewee.ForeignKeyField(Room)

        class Meta:
            table_name = "bed"

    return {"House": House, "Room": Room, "Bed": Bed}


def rings() -> Models:
    class Ring(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        next = peewee.ForeignKeyField("self", on_delete="SET NULL")  # which it cannot be

        class Meta:
            table_name = "ring"

    class Pair(SyncModel):
        one = peewee.ForeignKeyField(Ring)
        two = peewee.IntegerField()

        class Meta:
            table_name = "pair"
            primary_key = peewee.CompositeKey("one", "two")

    return {"Ring": Ring, "Pair": Pair}


def create(table: str, pk: Any, ticks: int, /, **values: Any) -> Entry:
    return entry(table, pk, Write((ticks, "other"), "create", values))


def modify(table: str, pk: Any, ticks: int, /, **values: Any) -> Entry:
    return entry(table, pk, Write((ticks, "other"), "modify", values))


def delete(table: str, pk: Any, ticks: int) -> Entry:
    return entry(table, pk, Write((ticks, "other"), "delete"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Device]]:
    """Two devices with one log, whose rooms are let out of their houses."""
    log = MemorySharedLog()
    devices = [
        Device(tmp_path / f"{name}.db", list(houses("SET NULL").values()), shared_log=log)
        for name in ("one", "other")
    ]
    yield devices
    for device in devices:
        device.close()


def test_a_parent_that_is_created_again_here_gets_its_children_back(pair: list[Device]) -> None:
    one, other = pair
    house, room = (cast(Any, model) for model in one.models)
    others_room = cast(Any, other.models[1])
    with one:
        house.create(number=1)
        one.sync.sync()
    with other:
        other.sync.sync()
        others_room.create(number=1, house=1)
        other.sync.sync()
    with one:
        house.delete_by_id(1)  # without a sight of the room
        one.sync.sync()
        assert room.get_by_id(1).house_id is None
        house.create(number=1)
        one.sync.sync()
        assert room.get_by_id(1).house_id == 1
    with other:
        other.sync.sync()
        assert others_room.get_by_id(1).house_id == 1


def test_a_cleared_reference_is_not_lost_with_its_row() -> None:
    replica = Replica(":memory:", houses("SET NULL"))
    replica.apply([create("house", 1, 1), create("room", 1, 2), modify("room", 1, 5, house=1)])
    replica.apply([delete("house", 1, 6)])
    assert replica.table("room") == {"1": {"house": None}}
    replica.apply([delete("room", 1, 4)])  # older than what the room says of its house
    assert replica.table("room") == {}
    replica.apply([create("room", 1, 7), create("house", 1, 8)])
    assert replica.table("room") == {"1": {"house": 1}}


def test_a_key_of_another_number_of_parts_blocks_nobody() -> None:
    replica = Replica(":memory:", rings())
    strange = [["x"], "xy", [1, 2, 3], {"one": 1}]
    entries = [create("pair", pk, ticks) for ticks, pk in enumerate(strange, 10)]
    replica.apply([create("ring", 1, 1, next=1), *entries, create("pair", [1, 1], 2)])
    assert list(replica.table("pair")) == ["[1,1]"]
    assert len(replica.parked()) == len(strange)


def test_rows_in_a_circle_leave_beside_one_that_does_not_fit() -> None:
    replica = Replica(":memory:", rings())
    replica.apply([create("ring", 1, 1, next=2), create("ring", 2, 2, next=1)])
    assert list(replica.table("ring")) == ["1", "2"]
    replica.apply([delete("ring", 1, 3), delete("ring", 2, 4), create("ring", ["x"], 5, next=1)])
    assert replica.table("ring") == {}


def test_what_is_kept_already_is_not_written_again() -> None:
    replica = Replica(":memory:", houses("RESTRICT"))
    replica.apply([create("house", 1, 1, name="x"), create("room", 1, 2, house=1)])
    assert replica.apply([delete("house", 1, 3)]).modified == 0
    assert replica.apply([]).modified == 0
    assert replica.apply([modify("house", 1, 4, name="y")]).modified == 1
    assert replica.table("house") == {"1": {"name": "y"}}


def test_a_kept_row_that_is_created_again_forgets_what_it_held() -> None:
    replica = Replica(":memory:", houses("RESTRICT"))
    replica.apply([create("house", 1, 1, name="x"), create("room", 1, 2, house=1)])
    replica.apply([delete("house", 1, 3), modify("house", 1, 4, name="held")])
    replica.apply([create("house", 1, 5, name="new")])
    replica.apply([delete("house", 1, 6)])
    assert replica.table("house") == {"1": {"name": "new"}}


def test_a_kept_row_that_is_created_again_gets_back_what_was_cleared() -> None:
    class House(SyncModel):
        number = peewee.IntegerField(primary_key=True)

        class Meta:
            table_name = "house"

    class Room(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        house = peewee.ForeignKeyField(House, null=True, on_delete="SET NULL")

        class Meta:
            table_name = "room"

    class Bed(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        room = peewee.ForeignKeyField(Room)

        class Meta:
            table_name = "bed"

    replica = Replica(":memory:", {"House": House, "Room": Room, "Bed": Bed})
    replica.apply([create("house", 1, 1), create("room", 1, 2), create("bed", 1, 3, room=1)])
    replica.apply([delete("room", 1, 4), modify("room", 1, 7, house=1), delete("house", 1, 8)])
    assert replica.table("room") == {"1": {"house": None}}, "kept for the bed, without a house"
    replica.apply([create("room", 1, 5, house=None)])  # older than what it says of its house
    assert replica.table("room") == {"1": {"house": None}}
    replica.apply([create("house", 1, 9)])
    assert replica.table("room") == {"1": {"house": 1}}


def test_what_is_written_in_a_new_column_is_newer_than_what_waited_for_it(tmp_path: Path) -> None:
    def edition(*, new: bool) -> Any:
        class House(SyncModel):
            number = peewee.IntegerField(primary_key=True)
            if new:
                name = peewee.CharField(null=True)

            class Meta:
                table_name = "house"

        return House

    log = MemorySharedLog()
    house = edition(new=True)
    with Device(tmp_path / "new.db", [house], shared_log=log) as new:
        house.create(number=1, name="old")
        new.sync.sync()
    new.close()
    with Device(tmp_path / "one.db", [edition(new=False)], shared_log=log) as one:
        one.sync.sync()
    one.close()
    with Device(tmp_path / "one.db", [house], shared_log=log, create=False, tracked=False) as one:
        one.database.execute_sql("ALTER TABLE house ADD COLUMN name VARCHAR(255)")
        one.sync.setup()
        house.set_by_id(1, {"name": "new"})
        one.sync.sync()
        assert house.get_by_id(1).name == "new"
    one.close()


def test_unique_values_are_passed_on_in_a_circle() -> None:
    class Seat(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        who = peewee.CharField(unique=True)

        class Meta:
            table_name = "seat"

    replica = Replica(":memory:", {"Seat": Seat})
    replica.apply([create("seat", pk, pk, who=who) for pk, who in enumerate("abc", 1)])
    replica.apply([modify("seat", pk, 10 + pk, who=who) for pk, who in enumerate("bca", 1)])
    assert [row["who"] for row in replica.table("seat").values()] == ["b", "c", "a"]
    assert not replica.parked()


def test_dead_rows_do_not_keep_each_other() -> None:
    replica = Replica(":memory:", nested())
    replica.apply([create("house", 1, 1), create("room", 1, 2, house=1, beside=2)])
    replica.apply([create("room", 2, 3, house=1, beside=1), create("bed", 1, 4, room=2)])
    replica.apply([delete("room", 1, 5), delete("room", 2, 6)])
    assert list(replica.table("room")) == ["1", "2"], "kept for the bed, and for that room"
    replica.apply([delete("bed", 1, 7)])
    assert replica.table("room") == {}


def test_a_cascade_keeps_the_row_above_for_the_one_below() -> None:
    replica = Replica(":memory:", nested())
    replica.apply([create("house", 1, 1), create("room", 1, 2, house=1)])
    replica.apply([create("bed", 1, 3, room=1), delete("house", 1, 4)])
    assert [list(replica.table(name)) for name in ("house", "room", "bed")] == [["1"]] * 3
    replica.apply([delete("bed", 1, 5)])
    assert not replica.table("house") and set(replica.parked()) == {("room", "1")}


def test_a_cleared_reference_dies_with_its_row() -> None:
    replica = Replica(":memory:", houses("SET NULL"))
    replica.apply([create("house", 1, 1), create("room", 1, 2, house=1), delete("house", 1, 3)])
    replica.apply([delete("room", 1, 4), create("room", 1, 5)])  # by who knows no houses
    replica.apply([create("house", 1, 6)])
    assert replica.table("room") == {"1": {"house": None}}


def test_text_that_is_not_utf_8_blocks_nobody() -> None:
    class Shelf(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        label = peewee.CharField(unique=True)
        note = peewee.TextField(default="")

        class Meta:
            table_name = "shelf"

    replica = Replica(":memory:", {"Shelf": Shelf})
    replica.apply([create("shelf", 1, 5, label="a"), create("shelf", 2, 6, label="b")])
    replica.database.execute_sql("UPDATE shelf SET note = CAST(x'ff' AS TEXT)")  # by who knows
    replica.apply([create("shelf", 3, 1, label="a"), modify("shelf", 2, 7, label="c")])
    found = replica.database.execute_sql("SELECT number, label, hex(note) FROM shelf").fetchall()
    assert found == [(2, "c", "FF"), (3, "a", "")]
    assert replica.parked()["shelf", "1"] == {"label": "a", "note": {"raw": {"bytes": "/w=="}}}
    replica.apply([delete("shelf", 3, 8)])
    found = replica.database.execute_sql("SELECT number, label, hex(note) FROM shelf").fetchall()
    assert found == [(1, "a", "FF"), (2, "c", "FF")]


def towns() -> list[Any]:
    class Town(SyncModel):
        name = peewee.CharField(primary_key=True)

        class Meta:
            table_name = "town"

    class Street(SyncModel):
        number = peewee.IntegerField(primary_key=True)
        town = peewee.ForeignKeyField(Town, on_delete="RESTRICT")

        class Meta:
            table_name = "street"

    return [Town, Street]


@pytest.mark.parametrize("recorder", RECORDERS)
def test_a_kept_parent_that_is_nothing_but_its_key(recorder: str, tmp_path: Path) -> None:
    def keys(device: Device) -> tuple[list[str], list[int]]:
        with device:
            town, street = cast(list[Any], device.models)
            return [row._pk for row in town.select()], [row._pk for row in street.select()]

    def sync(*devices: Device) -> None:
        for device in devices:
            with device:
                device.sync.sync()

    log = MemorySharedLog()
    one, other = (
        Device(tmp_path / f"{name}.db", towns(), shared_log=log, recorder=recorder)
        for name in ("one", "other")
    )
    town, street = one.models[0], cast(Any, other.models[1])
    with one:
        cast(Any, town).create(name="here")
    sync(one, other)
    with other:
        street.create(number=1, town="here")
    with one:
        town.delete_by_id("here")  # without a sight of the street
    sync(one, other, one, other)
    assert keys(one) == keys(other) == (["here"], [1])
    with other:
        street.delete_by_id(1)
    sync(other, one)
    assert keys(one) == keys(other) == ([], [])
    one.close()
    other.close()


def test_a_row_that_a_trigger_held_goes_as_soon_as_it_can(tmp_path: Path) -> None:
    """Of a table that nothing refers to, where nobody else looks at dead rows again."""

    class Lone(SyncModel):
        number = peewee.IntegerField(primary_key=True)

    log = MemorySharedLog()
    desk, other = (
        Device(tmp_path / f"{name}.db", [Lone], shared_log=log) for name in ("desk", "other")
    )
    desk.database.execute_sql(
        "CREATE TRIGGER held BEFORE DELETE ON lone BEGIN SELECT RAISE(ABORT, 'held'); END"
    )
    with other:
        Lone.insert_many([(1,), (2,)]).execute()
        other.sync.sync()
        desk.sync.sync()
        Lone.delete().where(Lone.number == 1).execute()
        other.sync.sync()
    counts = list[int]()
    for statement in ("SELECT 1", "DROP TRIGGER held"):
        desk.database.execute_sql(statement)
        with other:
            Lone.create(number=3 + len(counts))
            other.sync.sync()
        desk.sync.sync()
        counts.append(desk.database.execute_sql("SELECT count(*) FROM lone").fetchone()[0])
    desk.close()
    other.close()
    assert counts == [3, 3]
