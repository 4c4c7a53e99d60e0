"""Real devices and a log that is compacted: nobody can tell, and who was away too long recovers.

The service runs in process, its clock and the devices' is the test's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import peewee
import pytest

from sharedlog import ConnectionFailed, GraphQLSharedLog, LocalTransport, SyncModel
from sharedlog.events import BegunAnew
from sharedlog_service.settings import DAY_MS, Policy
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
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


class Plate(SyncModel):
    """Goes with its shelf."""

    shelf = peewee.ForeignKeyField(Shelf, on_delete="CASCADE")


MODELS = (Shelf, Book, Tag, Plate)


class Line:
    """A device's way to the service. It counts what comes, and may lose the answer to a write."""

    def __init__(self, execute: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self.execute = execute
        self.losing = False
        self.clear()

    def clear(self) -> None:
        self.answers = self.entries = self.bytes = 0

    def __call__(self, document: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self.execute(document, variables)
        if self.losing and "writeEntries" in document:
            self.losing = False
            raise ConnectionFailed("The answer was lost.")
        self.answers += 1
        self.bytes += len(orjson.dumps(answer["data"]))
        self.entries += sum(len(page["entries"]) for page in packed(answer["data"]))
        return answer


def packed(found: Any) -> Iterator[Any]:
    """The pages of entries anywhere in an answer."""
    for name, value in found.items() if isinstance(found, dict) else ():
        if name == "packed":
            yield value
        yield from packed(value)


class World:
    def __init__(self, folder: Path, recorder: str) -> None:
        self.ms = 1_800_000_000_000
        self._folder = folder
        self._recorder = recorder
        self.path = folder / "service.db"
        self.store = Store.open(self.path, now=lambda: self.ms)
        self.store.create_user("ada")
        self.devices: list[Device] = []
        self.lines: dict[Device, Line] = {}

    def device(self, name: str, models: Sequence[type[SyncModel]] = MODELS) -> Device:
        line = Line(lambda asked, given: InProcess(self.store, "ada").execute(asked, given))
        device = Device(
            self._folder / f"{name}.db",
            models,
            recorder=self._recorder,
            shared_log=GraphQLSharedLog(LocalTransport(line), "ada"),
            now=self.now,
        )
        self.devices.append(device)
        self.lines[device] = line
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
    return [data for data in read_by_somebody(world) if '"delete"' in data]


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


def test_a_late_deletion_ends_nothing_that_was_made_after_it(world: World) -> None:
    """It is too old for the log as it is, and gets a new timestamp if it counts."""
    one, late = world.device("one"), world.device("late")
    tag = done(one, lambda: Tag.create(label="old"))
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: None)
    with late:
        for row in (tag, gone):
            Tag.delete_by_id(row.id)
        assert late.sync.status().pending == 2  # what triggers noted has its timestamp, too

    def again() -> None:
        Tag.delete_by_id(tag.id)
        Tag.create(id=tag.id, label="made again")
        Tag.create(label="elsewhere").delete_instance()

    done(one, again)
    world.pass_days(100)
    for label in ("later", "later still"):
        done(one, partial(Tag.create, label=label))
        world.pass_days(40)
    done(one, lambda: None)
    world.compact()
    done(late, lambda: None)
    done(one, lambda: None)
    with one:
        assert {row.label for row in Tag.select()} == {"made again", "later", "later still"}
    assert rows(one) == rows(late) == rows(fresh(world))


def test_what_the_log_forgot_does_not_stay_parked(world: World) -> None:
    """A device that reads everything again hears that the parent is gone, and nothing of the child,
    which it has in its table."""
    one, late = world.device("one"), world.device("late")
    shelf = done(one, lambda: Plate.create(shelf=Shelf.create(name="top")).shelf)
    done(late, lambda: None)
    done(one, shelf.delete_instance)
    world.pass_days(100)
    for label in ("later", "later still"):  # the newest writes of a device stay in any case
        done(one, partial(Tag.create, label=label))
        world.pass_days(40)
    done(one, lambda: None)
    world.compact()
    assert not [data for data in read_by_somebody(world) if '"plate"' in data]

    done(late, lambda: None)
    with late:
        assert late.sync.parked() == []
    assert rows(one) == rows(late) == rows(fresh(world))


def test_a_device_that_lost_an_answer_reads_no_more_than_it_lacks(world: World) -> None:
    """Also when all that it wrote was overwritten meanwhile, and dropped as far as it may be."""
    one, other = world.device("one"), world.device("other")
    done(other, lambda: [Tag.create(label=str(number)) for number in range(50)])
    tag = done(one, lambda: Tag.create(label="first"))
    done(one, lambda: Tag.update(label="second").where(Tag.id == tag.id).execute())
    world.lines[one].losing = True
    with pytest.raises(ConnectionFailed):
        done(one, lambda: Tag.update(label="third").where(Tag.id == tag.id).execute())
    done(other, lambda: None)
    done(other, lambda: Tag.update(label="by the other").where(Tag.id == tag.id).execute())
    world.compact()
    world.lines[one].clear()
    done(one, lambda: None)
    assert world.lines[one].entries == 3  # its own two that it asked about, and the other's
    assert rows(one) == rows(other)
    with one:
        assert one.sync.status().pending == 0


LIVE = 100


@pytest.mark.parametrize("writes", [4, 12])
def test_what_a_new_device_reads_depends_on_the_rows_that_live(world: World, writes: int) -> None:
    """And not on how often they were written, nor on those that are gone."""
    one = world.device("one")
    done(one, lambda: [Tag.create(label="", colour="") for _ in range(LIVE)])

    def write(text: str) -> None:
        Tag.update(label=text, colour=text).execute()
        one.sync.sync()
        for tag in [Tag.create(label="gone") for _ in range(LIVE)]:
            tag.delete_instance()

    for turn in range(writes):
        done(one, partial(write, f"{turn:4}"))
    whole = fresh(world)
    assert world.lines[whole].entries == LIVE + writes * 3 * LIVE

    world.pass_days(40)
    for label in ("held", "held, too"):  # the newest writes of a device stay in any case
        done(one, partial(Tag.create, label=label))
    done(whole, lambda: None)
    world.compact()
    short = fresh(world)
    assert rows(short) == rows(one)
    line = world.lines[short]
    assert line.entries == 2 * LIVE + 2  # how a row began, and how it was last written
    assert line.answers <= 4
    data = sum(len(text) for text in read_by_somebody(world))
    assert line.bytes < 1.5 * data + 1_000


def read_by_somebody(world: World) -> list[str]:
    page = world.store.read("ada", world.store.create_device("ada"), None, limit=10_000)
    return [entry.data for entry in page.entries]


def fresh(world: World) -> Device:
    device = world.device(f"fresh-{len(world.devices)}")
    done(device, lambda: None)
    return device


@pytest.mark.parametrize("seed", range(2))
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
        if rng.random() < 0.05:
            world.store.renew_epochs()
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
