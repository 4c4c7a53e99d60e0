"""Keys that no other device would take: refused when they are written."""

from __future__ import annotations

import datetime
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel, ValueRefused
from sharedlog.events import Event, Refused

from .conftest import OpenDevice


class Note(SyncModel):
    title = peewee.TextField()


class Shift(SyncModel):
    day = peewee.DateField()
    who = peewee.CharField()

    class Meta:
        primary_key = peewee.CompositeKey("day", "who")


def a_note_with_a_number() -> None:
    Note.create(id="42", title="x")


def notes() -> None:
    Note.insert_many([{"id": "42", "title": "x"}, {"id": "43", "title": "y"}]).execute()


def a_day_with_a_number() -> None:
    Shift.create(day=20200102, who="sam")


def an_upsert() -> None:
    Shift.insert(day=1577923200.5, who="sam").on_conflict_replace().execute()


@pytest.mark.parametrize("write", [a_note_with_a_number, notes, a_day_with_a_number, an_upsert])
def test_it_is_refused_when_it_is_written(write: Any, open_device: OpenDevice) -> None:
    with open_device([Note, Shift]) as device:
        with pytest.raises(ValueRefused, match="of another type than its field") as refused:
            write()
        assert "raw" not in refused.value.message
        assert (Note.select().count(), Shift.select().count()) == (0, 0)
        assert device.log() == []


def test_triggers_tell_it_and_go_on(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    device = open_device([Note, Shift], recorder="triggers", shared_log=log)
    told: list[Event] = []
    device.sync.on_event(told.append)
    with device:
        a_note_with_a_number()
        Shift.create(day=datetime.date(2026, 1, 2), who="sam")
        device.sync.sync()
    [refused] = [event for event in told if isinstance(event, Refused)]
    assert "Note" in refused.reason
    other = open_device([Note, Shift], shared_log=log)
    with other:
        assert other.sync.sync().received == 1
        assert (other.sync.parked(), Shift.select().count()) == ([], 1)


def test_adopting_tells_it(open_device: OpenDevice) -> None:
    device = open_device([Note, Shift], tracked=False)
    with device:
        a_note_with_a_number()
        Note.create(title="y")
        device.sync.setup()
        adopted = device.sync.adopt()
    assert adopted.created == 1
    assert [(collection, pk) for collection, pk, _ in adopted.refused] == [("note", {"raw": "42"})]


@pytest.mark.parametrize("key", ["intro", "00000000-0000-0000-0000-000000000005"])
def test_a_text_that_every_database_keeps_is_carried(key: str, open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, two = (open_device([Note], shared_log=log) for _ in range(2))
    with one:
        Note.create(id=key, title="x")
        one.sync.sync()
    with two:
        two.sync.sync()
        assert two.sync.parked() == []
    assert one.stored() == two.stored()
