"""Devices with different databases on one log: they end equal, whatever they do, and whatever
happens to them."""

from __future__ import annotations

import os
import random
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import peewee
import pytest
from peewee import fn

from sharedlog import MemorySharedLog

from .conftest import OpenDevice
from .devices import RECORDERS, Device
from .servers import Server
from .shop import MODELS, Article, Comment, Note, Price, Reply, Tag
from .test_capture import played_back
from .writer import Entry, write_turns

Edit = Callable[[random.Random], Any]

FLEETS = [
    pytest.param({"postgres": "signals", "mysql": "signals"}, id="signals"),
    pytest.param({"postgres": "triggers"}, id="triggers"),
]


def some(model: Any, rng: random.Random) -> Any:
    """One of the rows, or None."""
    keys = model._meta.get_primary_keys()
    rows = list(model.select().order_by(*keys))
    return rng.choice(rows) if rows else None


def new_note(rng: random.Random) -> None:
    parent, tag = some(Note, rng), some(Tag, rng)
    Note.create(
        id=uuid.UUID(int=rng.getrandbits(128), version=4),
        title=rng.choice("abc"),
        turn=0,
        parent=parent if rng.random() < 0.6 else None,
        tag=tag if rng.random() < 0.6 else None,
        data={"b": rng.random(), "a": [1, None]},
    )


def new_tag(rng: random.Random) -> None:
    Tag.create(id=uuid.UUID(int=rng.getrandbits(128)), name=rng.choice("rgbcmyk"))


def new_comment(rng: random.Random) -> None:
    if (note := some(Note, rng)) is not None:
        comment = Comment.create(id=uuid.UUID(int=rng.getrandbits(128)), note=note, text="?")
        Reply.create(id=uuid.UUID(int=rng.getrandbits(128)), comment=comment, mood="glad")


def new_article(rng: random.Random) -> None:
    code = rng.choice("abcdef")
    place = rng.randrange(6)
    Article.create(code=code, shelf=1, place=place, barcode=rng.choice([None, str(place)]))
    Price.create(article=code, currency="EUR", cents=place)


def tag_note(rng: random.Random) -> None:
    note, tag = some(Note, rng), some(Tag, rng)
    if note is not None and tag is not None:
        note.tags.add(tag)


def rename_tags(rng: random.Random) -> None:
    Tag.update(count=Tag.count + 1).execute()
    if (tag := some(Tag, rng)) is not None:
        Tag.update(name=rng.choice("rgbcmyk")).where(Tag.id == tag.id).execute()


def move_note(rng: random.Random) -> None:
    if (note := some(Note, rng)) is not None:
        note.parent, note.title = some(Note, rng), rng.choice("xyz")
        note.save()


def rename_article(rng: random.Random) -> None:
    """The key changes, and with it those of its prices."""
    if (article := some(Article, rng)) is not None:
        Article.update(code=rng.choice("uvw")).where(Article.code == article.code).execute()


def delete_one(rng: random.Random) -> None:
    model = rng.choice([Tag, Note, Comment, Article, Price])
    if (row := some(model, rng)) is not None:
        row.delete_instance()


def delete_some(rng: random.Random) -> None:
    Note.delete().where(fn.lower(Note.title) == rng.choice("abcxyz")).execute()


EDITS: Sequence[Edit] = (
    *(new_note, new_note, new_note, new_tag, new_tag, new_comment, new_article, new_article),
    *(tag_note, rename_tags, move_note, rename_article, delete_one, delete_some),
)


class Unkept(Exception):
    """What a transaction that is not meant ends with."""


def play(device: Device, rng: random.Random) -> None:
    """A few edits, sometimes in one transaction, which sometimes fails."""
    edits = rng.choices(EDITS, k=rng.randint(1, 4))
    together = rng.random() < 0.4
    try:
        with device.database.atomic() if together else device.database.connection_context():
            for edit in edits:
                try:
                    with device.database.atomic():
                        edit(rng)
                except peewee.DatabaseError:
                    pass  # a key or a name that is taken
            if together and rng.random() < 0.2:
                raise Unkept
    except Unkept:
        pass


@pytest.fixture(scope="module")
def fleets(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[dict[str, str]], list[Device]]]:
    """Devices on one log; opened once, since that takes longer than what they do."""
    opened: dict[str, list[Device]] = {}

    def opening(recorders: dict[str, str]) -> list[Device]:
        name = repr(recorders)
        if name not in opened:
            log = MemorySharedLog()
            path: Path = tmp_path_factory.mktemp("fleet") / "sqlite.db"
            opened[name] = [Device(path, MODELS, shared_log=log)]
            for where, recorder in recorders.items():
                server: Server = request.getfixturevalue(where)
                database = server.database(server.place())
                options: Any = {"database": database, "recorder": recorder, "shared_log": log}
                opened[name].append(Device(Path(where), MODELS, **options))
        return opened[name]

    yield opening
    for devices in opened.values():
        for device in devices:
            device.close()


def sync(devices: Sequence[Device]) -> None:
    for device in devices:
        with device:
            device.sync.sync()


@pytest.mark.parametrize("recorders", FLEETS)
@pytest.mark.parametrize("seed", range(4))
def test_devices_with_other_databases_end_equal(
    seed: int, recorders: dict[str, str], fleets: Callable[[dict[str, str]], list[Device]]
) -> None:
    rng = random.Random(seed)
    devices = fleets(recorders)
    for _ in range(20):
        device = rng.choice(devices)
        with device:
            play(device, rng)
            if rng.random() < 0.5:
                device.sync.sync()
    sync([*devices, *devices, *devices])

    first, *others = devices
    with first:
        expected = first.sync.digest(rows=True)
        assert expected.pending == 0
    assert sum(part.rows for part in expected.collections.values()) > 0
    for other in others:
        with other:
            assert [str(d) for d in other.sync.digest(rows=True).compare(expected)] == []


WRITERS = ("one", "two", "three", "four")


@pytest.mark.parametrize(
    ("where", "recorder"),
    [("postgres", "signals"), ("postgres", "triggers"), ("mysql", "signals")],
)
def test_threads_write_while_another_one_syncs(
    where: str, recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    device = open_device([Entry], where=where, recorder=recorder, shared_log=log)
    other = open_device([Entry], shared_log=log)
    errors: list[BaseException] = []

    def work(writer: str) -> None:
        try:
            with device.database.connection_context():
                write_turns(device.database, writer, 12)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in WRITERS]
    with device:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            device.sync.sync()
        device.sync.sync()
        assert errors == []
        # Every fourth turn is rolled back, and the last write of each sets it to the turn.
        written = {(row.writer, row.turn): row.change for row in Entry.select()}
        assert written == {(w, turn): turn for w in WRITERS for turn in range(12) if turn % 4 != 3}
        assert len(played_back(device)) == Entry.select().count()
        here = device.sync.digest(rows=True)
    ticks = Counter(entry.ticks for entry in device.log())
    assert set(ticks.values()) == {1}
    with other:
        other.sync.sync()
        assert other.sync.digest(rows=True).compare(here) == []


class Log(BaseManager):
    """A process that has the log, and outlives those who use it."""


Log.register("memory", MemorySharedLog)


def sync_until_killed(server: Server, place: str, options: dict[str, Any], statements: int) -> None:
    """In a process of its own: sync, and die after so many statements."""
    database = server.database(place)
    left = iter(range(statements, -1, -1))

    def count(event: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    database.query_hooks.append(count)
    device = Device(Path("there"), MODELS, database=database, **options)
    with device:
        device.sync.sync()


def was_killed(work: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


@pytest.fixture
def distant_log() -> Iterator[Any]:
    with Log() as processes:
        yield processes.memory()  # type: ignore[attr-defined]


@pytest.mark.parametrize("recorder", RECORDERS)
def test_a_kill_in_the_middle_of_a_sync_loses_and_repeats_nothing(
    recorder: str, distant_log: Any, open_device: OpenDevice, postgres: Server
) -> None:
    log = distant_log
    place = postgres.place()
    here = open_device(MODELS, shared_log=log)
    options: Any = {"shared_log": log, "recorder": recorder}
    Device(Path("there"), MODELS, database=postgres.database(place), **options).close()
    options["create"] = False
    rng, written, kills, after, alive = random.Random(1), 0, 0, 0, False
    while not alive:
        there = Device(Path("there"), MODELS, database=postgres.database(place), **options)
        for device in (here, there):
            with device:
                new_note(rng)
            written += 1
        sync([here])
        there.close()
        killed = was_killed(partial(sync_until_killed, postgres, place, options, after))
        alive = not killed
        kills, after = kills + killed, after + 15
    there = Device(Path("there"), MODELS, database=postgres.database(place), **options)
    sync([there, here, there])
    with here:
        expected = here.sync.digest(rows=True)
        everything = {"after": None, "until": expected.checkpoint}
        limits = {"limit": 10**6, "byte_limit": 10**9}
        entries = log.read_all(expected.device, **everything, **limits).entries
    with there:
        assert there.sync.digest(rows=True).compare(expected) == []
    there.close()
    assert kills >= 5
    assert expected.collections["note"].rows == written
    assert len({(entry.device, entry.ticks) for entry in entries}) == len(entries) == written
