"""Values that stand in PostgreSQL's tables and no other device could have: they are told where they
would be recorded, stay where they are, and are in nobody's way."""

from __future__ import annotations

from typing import Any, ClassVar

import peewee
import psycopg
import pytest

from sharedlog import Counter, MemorySharedLog, SyncModel
from sharedlog.events import Refused

from .conftest import OpenDevice
from .devices import Device

VALUES = {
    "infinity": "day = 'infinity'",
    "before Christ": "day = '0044-03-15 BC'",
    "far away": "day = '12024-01-01'",
    "a moment": "at = '-infinity'",
    "the end of the day": "hour = '24:00'",
    "no number": "share = 'NaN'",
}
everywhere = pytest.mark.parametrize("value", VALUES)


class Network(peewee.Field):
    """Of a type that psycopg knows nothing of."""

    field_type = "macaddr"


class Event(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(null=True, unique=True)
    day = peewee.DateField(null=True)
    at = peewee.DateTimeField(null=True)
    hour = peewee.TimeField(null=True)
    share = peewee.DoubleField(null=True)
    data = peewee.JSONField(null=True)
    network: Any = Network(null=True)
    seats = peewee.IntegerField(default=0)

    class Meta:
        merge: ClassVar = {"seats": Counter()}


class Pair:
    """A device whose row `a` gets such a value behind everybody's back, and another one."""

    def __init__(self, open_device: OpenDevice, recorder: str, value: str) -> None:
        log = MemorySharedLog()
        self.odd = open_device([Event], where="postgres", recorder=recorder, shared_log=log)
        self.other = open_device([Event], shared_log=log)
        self.refused: list[str] = []
        self.odd.sync.on_event(self._note)
        with self.other:
            Event.create(key="b", name="b")
            Event.create(key="a", name="a", data={"a": [1]}, network="08:00:2b:01:02:03")
        self.sync()
        self._value = VALUES[value]
        self.write()
        self.sync()

    def write(self) -> None:
        self.odd.database.execute_sql(f"UPDATE event SET {self._value} WHERE key = 'a'")

    def _note(self, event: Any) -> None:
        if isinstance(event, Refused):
            self.refused.append(event.reason)

    def sync(self) -> None:
        for device in (self.other, self.odd) * 2:
            with device:
                device.sync.sync()

    def is_there(self) -> bool:
        sql = f"SELECT count(*) FROM event WHERE key = 'a' AND {self._value}"
        return bool(self.odd.database.execute_sql(sql).fetchone()[0])


def names(device: Device) -> dict[str, Any]:
    rows = device.database.execute_sql("SELECT key, name, seats FROM event").fetchall()
    return {key: (name, seats) for key, name, seats in rows}


@everywhere
def test_it_is_told_and_others_change_the_row(
    value: str, recorder: str, open_device: OpenDevice
) -> None:
    pair = Pair(open_device, recorder, value)
    assert ["cannot be carried" in why for why in pair.refused] == [True] * (recorder == "triggers")
    with pair.other:
        Event.update(name="new", seats=Event.seats + 2).where(Event.key == "a").execute()
        Event.create(key="c", name="c")
    pair.sync()
    assert names(pair.odd) == {"a": ("new", 2), "b": ("b", 0), "c": ("c", 0)}
    assert pair.is_there()
    with pair.odd:
        assert pair.odd.sync.digest(rows=True).collections["event"].rows == 3


@pytest.mark.parametrize("value", ["before Christ", "no number"])
def test_the_device_itself_changes_the_row(
    value: str, recorder: str, open_device: OpenDevice
) -> None:
    pair = Pair(open_device, recorder, value)
    with pair.odd:
        Event.update(name="mine").where(Event.key == "a").execute()
        Event.update(seats=Event.seats + 1).execute()
        Event.delete().where(Event.key == "b").execute()
    pair.sync()
    assert names(pair.odd) == names(pair.other) == {"a": ("mine", 1)}
    with pair.other:  # what else is in the row was read as always
        event = Event.get_by_id("a")
        assert (event.data, event.network) == ({"a": [1]}, "08:00:2b:01:02:03")
    with pair.odd:
        Event.delete().execute()
    pair.sync()
    assert names(pair.odd) == names(pair.other) == {}


def test_adopting_passes_over_it(recorder: str, open_device: OpenDevice) -> None:
    pair = Pair(open_device, recorder, "infinity")
    with pair.odd:
        assert pair.odd.sync.adopt().refused == []  # both know the row
        pair.odd.database.execute_sql("DELETE FROM sharedlog_row")
        [refused] = pair.odd.sync.adopt().refused
        assert refused[:2] == ("event", "a")
    pair.sync()
    assert names(pair.odd) == names(pair.other)


def test_a_row_with_such_a_value_is_parked_without_it(
    recorder: str, open_device: OpenDevice
) -> None:
    pair = Pair(open_device, recorder, "infinity")
    with pair.odd:
        Event.update(name="x").where(Event.key == "b").execute()
    with pair.other:
        Event.update(name="x").where(Event.key == "a").execute()
    pair.sync()
    assert [row.pk for row in pair.odd.sync.parked()] == ["a"]
    with pair.other:
        pair.other.sync.resolve(pair.other.sync.parked()[0], name="y")
    pair.sync()
    assert names(pair.odd) == names(pair.other) == {"a": ("y", 0), "b": ("x", 0)}


def test_what_the_application_asks_for_is_read_as_without_us(open_device: OpenDevice) -> None:
    pair = Pair(open_device, "signals", "infinity")
    with pair.odd:
        update = Event.update(name="new").where(Event.key == "a")
        assert [row.name for row in update.returning(Event.name).execute()] == ["new"]
        with pytest.raises(psycopg.DataError):
            list(update.returning(Event.day).execute())


NUMBERS = {"numeric": "9" * 5_000, "json": "[" * 3_000 + "]" * 3_000, "jsonb": "9" * 5_000}


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_value_that_python_does_not_read_is_in_nobodys_way(
    kind: str, open_device: OpenDevice
) -> None:
    """Be it in a column that is not tracked."""
    log = MemorySharedLog()
    odd = open_device([Event], where="postgres", recorder="triggers", shared_log=log)
    other = open_device([Event], shared_log=log)
    odd.database.execute_sql(f"ALTER TABLE event ADD extra {kind}")
    sql = f"INSERT INTO event (key, seats, extra) VALUES ('odd', 0, '{NUMBERS[kind]}')"
    odd.database.execute_sql(sql)
    refused: list[str] = []
    odd.sync.on_event(lambda e: refused.append(e.reason) if isinstance(e, Refused) else None)
    with odd:
        Event.create(key="fine")
        odd.sync.sync()
    with other:
        other.sync.sync()
        assert {"fine"} <= names(other).keys() <= {"fine", "odd"}
        assert ("odd" in names(other)) == (refused == [])


class Address(peewee.Field):
    field_type = "INET"


class Host(SyncModel):
    key = peewee.CharField(primary_key=True)
    address: Any = Address(null=True)


def test_what_the_driver_gives_otherwise_parks_its_row(
    recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    one = open_device([Host], shared_log=log)
    two = open_device([Host], where="postgres", recorder=recorder, shared_log=log)
    with one:
        Host.create(key="h", address="10.0.0.1")
        Host.create(key="fine")
        one.sync.sync()
    with two:
        two.sync.sync()
        assert [host.key for host in Host.select()] == ["fine"]
        assert [(row.pk, row.code) for row in two.sync.parked()] == [("h", "VALUE_UNFIT")]


class Day(SyncModel):
    day = peewee.DateField(primary_key=True)


def test_a_key_that_cannot_be_said_is_passed_over(open_device: OpenDevice) -> None:
    device = open_device([Day], where="postgres", tracked=False, shared_log=MemorySharedLog())
    device.database.execute_sql("INSERT INTO day VALUES ('infinity'), ('2020-01-01')")
    with device:
        device.sync.setup()
        for created in (1, 0):
            adopted = device.sync.adopt()
            assert (adopted.created, len(adopted.refused)) == (created, 1)
