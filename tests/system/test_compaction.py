"""Real devices and a log that is compacted: nobody can tell, and who was away too long recovers.

The service runs in process, its clock and the devices' is the test's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import peewee
import pytest

from sharedlog import GraphQLSharedLog, LocalTransport, SyncModel
from sharedlog.events import BegunAnew
from sharedlog_service.app import InProcess
from sharedlog_service.settings import DAY_MS, Policy
from sharedlog_service.store import Store
from tests.client.devices import RECORDERS, Device

POLICY = Policy(retention_ms=30 * DAY_MS, expiry_ms=90 * DAY_MS)


class Shelf(SyncModel):
    name = peewee.TextField()


class Book(SyncModel):
    title = peewee.TextField()
    pages = peewee.IntegerField(default=0)
    shelf = peewee.ForeignKeyField(Shelf, null=True, on_delete="SET NULL")


class Tag(SyncModel):
    label = peewee.TextField(default="")
    colour = peewee.TextField(null=True)


MODELS = (Shelf, Book, Tag)


class World:
    def __init__(self, folder: Path, recorder: str) -> None:
        self.ms = 1_800_000_000_000
        self._folder = folder
        self._recorder = recorder
        self.store = Store.open(folder / "service.db", now=lambda: self.ms)
        self.store.create_user("ada")
        self.devices: list[Device] = []

    def device(self, name: str) -> Device:
        execute = InProcess(self.store, "ada").execute
        device = Device(
            self._folder / f"{name}.db",
            MODELS,
            recorder=self._recorder,
            shared_log=GraphQLSharedLog(LocalTransport(execute), "ada"),
            now=self.now,
        )
        self.devices.append(device)
        return device

    def now(self) -> int:
        self.ms += 1
        return self.ms

    def pass_days(self, days: int) -> None:
        self.ms += days * DAY_MS

    def compact(self) -> int:
        return self.store.compact("ada", POLICY).entries

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.store.close()


@pytest.fixture(params=RECORDERS)
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, request.param)
    yield made
    made.close()


def done(device: Device, work: Callable[[], Any]) -> Any:
    with device:
        result = work()
        device.sync.sync()
        return result


def rows(device: Device) -> dict[str, list[Any]]:
    return device.stored()


def deletions(world: World) -> list[str]:
    device = world.store.create_device("ada")
    page = world.store.read("ada", device, None, limit=10_000)
    return [entry.data for entry in page.entries if '"delete"' in entry.data]


def test_only_rows_that_nobody_can_refer_to_are_finally_deleted(world: World) -> None:
    one = world.device("one")

    def work() -> None:
        shelf, tag = Shelf.create(name="top"), Tag.create(label="red")
        shelf.delete_instance()
        tag.delete_instance()
        Tag.insert(id=UUID(int=7), label="x").execute()
        Tag.delete().where(Tag.id == UUID(int=7)).execute()

    done(one, work)
    assert [('"final":true' in data, '"tag"' in data) for data in deletions(world)] == [
        (False, False),
        (True, True),
        (True, True),
    ]


def test_a_device_that_was_away_for_too_long_recovers_by_itself(world: World) -> None:
    one, late = world.device("one"), world.device("late")

    def begin() -> tuple[Any, Any, Any]:
        gone, changed = Tag.create(label="gone"), Tag.create(label="old", colour="blue")
        return gone, changed, Tag.create(label="stays")

    gone, changed, stays = done(one, begin)
    done(late, lambda: None)
    events: list[BegunAnew] = []
    late.sync.on_event(lambda e: events.append(e) if isinstance(e, BegunAnew) else None)

    def meanwhile() -> None:
        Tag.delete_by_id(gone.id)
        Tag.delete_by_id(changed.id)
        Tag.create(id=changed.id, label="new")  # without a colour

    done(one, meanwhile)
    with late:  # what it does while it is away
        Tag.update(label="mine").where(Tag.id == stays.id).execute()
        Tag.update(label="in vain").where(Tag.id == gone.id).execute()
        kept = Tag.create(label="not sent yet")
    world.pass_days(100)
    done(one, lambda: Tag.create(label="later"))
    world.pass_days(40)
    done(one, lambda: None)
    assert world.compact() > 0
    assert not [data for data in deletions(world) if str(gone.id) in data]

    done(late, lambda: None)
    done(one, lambda: None)
    assert len(events) == 1
    with late:
        assert {tag.label for tag in Tag.select()} == {"new", "mine", "not sent yet", "later"}
        assert Tag.get_by_id(changed.id).colour is None
        assert Tag.get_by_id(kept.id).label == "not sent yet"
    assert rows(one) == rows(late) == rows(fresh(world))
    with late:
        assert late.sync.sync().exchanges == 1
        assert late.sync.status().pending == 0


def fresh(world: World) -> Device:
    device = world.device(f"fresh-{len(world.devices)}")
    done(device, lambda: None)
    return device


@pytest.mark.parametrize("seed", range(12))
def test_devices_end_equal_whatever_is_compacted_meanwhile(world: World, seed: int) -> None:
    rng = random.Random(seed)
    devices = [world.device(name) for name in ("one", "two", "rare")]
    recovered: list[BegunAnew] = []
    for device in devices:
        device.sync.on_event(lambda e: recovered.append(e) if isinstance(e, BegunAnew) else None)
    dropped = 0
    for _ in range(100):
        world.pass_days(rng.choice([0, 0, 1, 25]))
        device = rng.choice(devices)
        with device:
            act(rng)
            if device is not devices[-1] or rng.random() < 0.15:
                device.sync.sync()
        if rng.random() < 0.15:
            dropped += world.compact()
    for device in devices * 3:
        done(device, lambda: None)
    expected = rows(devices[0])
    assert [rows(device) for device in devices] == [expected] * 3
    assert rows(fresh(world)) == expected
    world.compact()
    assert rows(fresh(world)) == expected
    assert dropped > 10
    for device in devices:
        with device:
            assert device.sync.verify().equal


def act(rng: random.Random) -> None:
    model = rng.choice([Shelf, Book, Book, Tag, Tag, Tag])
    names = [UUID(int=number) for number in range(6)]
    pk = rng.choice(names)
    found = model.get_or_none(model.id == pk)
    if found is None:
        values: dict[str, Any] = {"id": pk}
        if model is Shelf:
            values["name"] = str(rng.random())
        elif model is Book:
            shelves = [shelf.id for shelf in Shelf.select()]
            values |= {"title": str(rng.random()), "shelf": rng.choice([None, *shelves])}
        else:
            values["label"] = str(rng.random())
        model.create(**values)
    elif rng.random() < 0.3:
        model.delete_by_id(pk)
    elif model is Tag:
        field = rng.choice(["label", "colour"])
        Tag.update({field: str(rng.random())}).where(Tag.id == pk).execute()
    elif model is Book:
        Book.update(pages=rng.randrange(100)).where(Book.id == pk).execute()
    else:
        Shelf.update(name=str(rng.random())).where(Shelf.id == pk).execute()
