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
