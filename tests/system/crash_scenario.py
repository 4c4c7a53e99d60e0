"""What a device does while it is killed: every kind of tracked write, and sync with conflicts."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee

from sharedlog import Change, GraphQLSharedLog, LocalTransport, Sync
from sharedlog_service.access.auth import issue_token
from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.system.copies import copy_by_files
from tests.system.crash_steps import CountedTransport, Steps, count_service, counted_connection
from tests.system.crash_world import MODELS, Folder, Note, Tag, device, open_database

USER = "me"

BATCH = 4
"""Small, so that one sync takes several exchanges."""

PRIVATE = "private"
"""The key of a row that stays at home."""

WRITE, STAGE, SYNC, OPEN = b"w", b"r", b"s", b"o"


def still() -> int:
    """Time stands still here, so that an operation has the same steps each time."""
    return 1_800_000_000_000


def still_device(path: Path, **options: Any) -> AbstractContextManager[Sync]:
    return device(path, **{"now": still, **options})


@dataclass(frozen=True)
class Operation:
    """One tracked write (one transaction), one stage of sync, a whole sync, or nothing but opening
    and setting up."""

    kind: bytes
    run: Callable[[Sync], object]


OPENS = Operation(OPEN, lambda sync: None)
SYNCS = Operation(SYNC, lambda sync: sync.sync())


@dataclass(frozen=True)
class Scenario:
    """What a does, one operation after the other, and in which circumstances."""

    operations: Callable[[], list[Operation]]
    met: bool = True
    """Whether a has met the log before; else it has rows from before tracking."""
    restored: bool = False
    """The log began a new epoch."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """How a's device is opened."""
    prunes: bool = False
    resets: bool = False
    others: str = "b"
    """Who else there is. c is a copy of a's file, and wrote as the same device since."""
    loses: bool = False
    """The log lost what a sent after it was copied, and never what the copy sent."""

    def prepare(self, folder: Path) -> str:
        token = prepare(folder, met=self.met)
        if "c" in self.others:
            go_apart(folder, loses=self.loses)
        if self.restored or self.resets:
            with local_log(folder) as log, still_device(folder / "a.db", shared_log=log) as a:
                Note.create(key="n50", title="from another life")
                a.sync()
        if self.restored:
            store = Store.open(folder / "service.db", now=still)
            store.renew_epoch(USER)
            store.close()
        return token


def writes() -> list[Operation]:
    """Every kind of tracked write, twice interrupted by a sync with conflicts."""
    rows = [{"key": f"n8{i}", "title": "many", "meta": {"i": [i, None]}} for i in range(3)]
    upserted = [{"key": "n1", "title": "upsert", "stars": 5}, {"key": "n90", "title": "upsert"}]
    return [
        *_writes(
            lambda _: Note.create(key="n60", title="single", folder="f2"),
            _save("n1", title="from a"),
            _save("n2", title="edits what b deletes"),
            _group,
            _rolled_back,
            lambda _: Note.insert_many(rows).execute(),
            lambda _: (
                Note.insert_many(upserted)
                .on_conflict(conflict_target=[Note.key], preserve=[Note.stars])
                .execute()
            ),
            lambda _: Note.get_by_id("n3").delete_instance(),
            lambda _: Folder.get_by_id("f3").delete_instance(recursive=True),
        ),
        SYNCS,
        *_writes(
            _save("n1", meta={"after": "sync"}),
            lambda _: Folder.delete().where(Folder.key == "f7").execute(),
            lambda _: Note.replace(key="n81", title="replaced").execute(),
            lambda _: Note.create(key="n3", title="created again"),
        ),
        SYNCS,
    ]


def first() -> list[Operation]:
    """A device with data from before tracking meets the log for the first time."""
    return [
        OPENS,
        Operation(STAGE, lambda sync: sync.adopt()),
        *_writes(lambda _: Note.create(key="n60", title="first")),
        SYNCS,
    ]


def stages() -> list[Operation]:
    """The stages of sync one by one, and pruning."""
    return [
        *_writes(lambda _: Note.create(key="n60", title="single", folder="f2")),
        Operation(STAGE, lambda sync: sync.receive()),
        *_writes(lambda _: Note.update(title="before reconciling").execute()),
        Operation(STAGE, lambda sync: sync.reconcile()),
        Operation(STAGE, lambda sync: sync.send()),
        *_writes(lambda _: Note.create(key="n61", title="last")),
        SYNCS,
        Operation(STAGE, lambda sync: sync.prune(keep_ms=-1000)),
        *_writes(_save("n61", title="after pruning")),
        SYNCS,
    ]


def few() -> list[Operation]:
    """A write and a sync, twice."""
    return [*_writes(_group), SYNCS, *_writes(_save("n1", title="later")), SYNCS]


def private() -> list[Operation]:
    """Something that stays at home, and something that fails."""
    stays = _writes(lambda _: Tag.create(key=PRIVATE, text="stays at home"), _failing)
    return [*stays, *few()]


def reset() -> list[Operation]:
    """A device that begins anew as another one."""
    return [
        Operation(STAGE, lambda sync: sync.reset()),
        *_writes(_save("n1", title="by another device")),
        SYNCS,
    ]


def without_private(change: Change) -> Change | None:
    return None if change.pk == PRIVATE else change


def later() -> int:
    return still() + 1


def an_hour_ahead() -> int:
    return still() + 3_600_000


SCENARIOS = {
    "writes": Scenario(writes),
    "first": Scenario(first, met=False),
    "stages": Scenario(stages, prunes=True),
    "private": Scenario(private, options={"pre_send": without_private}),
    "ahead": Scenario(few, options={"now": an_hour_ahead}),
    "restored": Scenario(few, restored=True),
    "reset": Scenario(reset, resets=True),
    "copy": Scenario(lambda: [SYNCS], others="bc"),
    "lost": Scenario(lambda: [SYNCS], others="bc", loses=True, options={"batch_size": 3 * BATCH}),
}


def stubborn() -> list[Operation]:
    """First, a transaction that goes on when one of its writes fails; then everything else."""
    kept = [
        Operation(STAGE, lambda sync: sync.adopt()),
        Operation(STAGE, lambda sync: sync.prune()),
    ]
    # The first tag that a ever sees, and b has made the same one.
    tag = _writes(lambda _: Tag.create(key="t1", text="from a"))
    return [*_writes(_stubborn), *tag, *kept, *writes()]


def _writes(*runs: Callable[[Sync], object]) -> list[Operation]:
    return [Operation(WRITE, run) for run in runs]


def _group(sync: Sync) -> None:
    with sync.database.atomic():
        Folder.create(key="f7", name="from a")
        with contextlib.suppress(LookupError), sync.database.atomic():
            Note.create(key="lost", title="lost")
            Note.update(stars=99).execute()
            raise LookupError
        Note.create(key="n70", title="in the group", folder="f7")
        Note.update(stars=Note.stars + 1).where(Note.folder == "f1").execute()


def _stubborn(sync: Sync) -> None:
    rows = [{"key": f"n3{i}", "title": "many"} for i in range(3)]
    upserted = [{"key": "n5", "title": "lost", "stars": 5}, {"key": "n34", "title": "upsert"}]
    every: list[Callable[[], object]] = [
        lambda: Note.create(key="n20", title="single"),
        lambda: Note.update(title="one by its key").where(Note.key == "n1").execute(),
        lambda: Note.insert_many(rows).execute(),
        lambda: Note.update(stars=Note.stars + 1).execute(),
        lambda: (
            Note.insert_many(upserted)
            .on_conflict(conflict_target=[Note.key], preserve=[Note.stars])
            .execute()
        ),
        lambda: Note.delete_by_id("n4"),
        lambda: Folder.delete_by_id("f1"),
    ]
    with sync.database.atomic():
        for run in every:
            with contextlib.suppress(peewee.OperationalError):
                run()


def _failing(sync: Sync) -> None:
    with sync.database.atomic():
        with contextlib.suppress(peewee.IntegrityError):
            Note.create(key="n1", title="is there already")
        Note.update(title="of nobody").where(Note.key == "nobody").execute()
        Note.create(key="n71", title="goes on")


def _rolled_back(sync: Sync) -> None:
    with contextlib.suppress(LookupError), sync.database.atomic():
        Note.create(key="lost", title="lost")
        Note.delete().where(Note.stars >= 0).execute()
        raise LookupError


def _save(key: str, **values: object) -> Callable[[Sync], None]:
    def run(_: Sync) -> None:
        note = Note.get_by_id(key)
        for name, value in values.items():
            setattr(note, name, value)
        note.save()

    return run


# -- who takes part ----------------------------------------------------------------------


def prepare(folder: Path, *, met: bool = True) -> str:
    """Make the files that every run starts from: a and b have met (or a is new), and b went on.
    Returns a token."""
    folder.mkdir(parents=True)
    store = Store.open(folder / "service.db", now=still)
    token = issue_token(store, USER, "test")
    store.close()
    with local_log(folder) as log:
        with still_device(folder / "b.db", shared_log=log) as b:
            for i in (1, 2, 3, 4):
                Folder.create(key=f"f{i}", name=f"folder {i}")
            for i in (1, 2, 3, 4, 5, 6):
                Note.create(key=f"n{i}", title=f"note {i}", folder=f"f{(i + 1) // 2}")
            b.sync()
        if met:
            with still_device(folder / "a.db", shared_log=log) as a:
                a.sync()
        else:
            with_rows_from_before(folder / "a.db", 3)
        with still_device(folder / "b.db", shared_log=log) as b:
            Note.update(title="from b", stars=10).where(Note.key == "n1").execute()
            Note.delete_by_id("n2")
            Note.update(stars=3).where(Note.key == "n3").execute()
            with b.database.atomic():
                Folder.create(key="f5", name="from b")
                for i in (10, 11, 12):
                    Note.create(key=f"n{i}", title="from b", folder="f5")
            Folder.delete_by_id("f2")
            Note.create(key="n13", title="into a folder that a deletes", folder="f3")
            Note.create(key="n81", title="made by both")
            Tag.create(key="t1", text="made by both")
            b.sync()
    return token


def go_apart(folder: Path, *, loses: bool) -> None:
    """Copy a's file, and let the copy, c, write as the same device, and then a, too."""
    a_file, c_file, service = (folder / f"{name}.db" for name in ("a", "c", "service"))
    with local_log(folder) as log, still_device(a_file, shared_log=log) as a:
        Note.create(key="n50", title="sent in common")
        a.sync()
        Note.create(key="n51", title="unsent in common")
    copy_by_files(a_file, c_file)
    if loses:
        copy_by_files(service, folder / "backup.db")
        with local_log(folder) as log, still_device(a_file, shared_log=log) as a:
            Note.create(key="n52", title="acknowledged")
            a.sync()
        copy_by_files(folder / "backup.db", service)
    with local_log(folder) as log, device(c_file, shared_log=log, now=later) as c:
        Note.create(key="n53", title="by the copy")
        c.sync()
    with local_log(folder) as log, still_device(a_file, shared_log=log) as a:
        _group(a)


def with_rows_from_before(path: Path, count: int) -> None:
    """Make an application's database that has never heard of sharedlog."""
    database = open_database(path)
    with database.bind_ctx(MODELS):
        database.create_tables(MODELS)
        Folder.create(key="old", name="from before tracking")
        for i in range(count):
            Note.create(key=f"old{i}", title="from before tracking", folder="old")
    database.close()


@functools.cache
def schema() -> ServiceSchema:
    """Built once, before any fork."""
    return build_schema()


@contextmanager
def local_log(folder: Path, steps: Steps | None = None) -> Iterator[GraphQLSharedLog]:
    """The service's whole schema and store on its file, in this process."""
    stop_counting = count_service(steps) if steps else lambda: None
    store = Store.open(folder / "service.db", now=still)
    local = LocalTransport(InProcess(store, USER, schema=schema()).execute)
    try:
        yield GraphQLSharedLog(CountedTransport(local, steps) if steps else local, USER)
    finally:
        store.close()
        stop_counting()


def perform(
    folder: Path, scenario: Scenario, operation: Operation, die_at: int | None = None
) -> list[str]:
    """Do one operation on device a, client and service in this process, and return the points
    that it went by; or die at a step of it."""
    steps = Steps()
    steps.arm(die_at)
    options = {"batch_size": BATCH, "factory": counted_connection(steps), **scenario.options}
    with (
        local_log(folder, steps) as log,
        still_device(folder / "a.db", shared_log=log, **options) as a,
    ):
        if operation.kind != OPEN:
            steps.arm(die_at)
        operation.run(a)
        points = steps.points
        steps.arm()
    return points


def work_on(
    folder: Path, url: str, token: str, life: int, acknowledge: Callable[[bytes], object]
) -> None:
    """Write and sync without end, over HTTP."""
    number = 0
    with still_device(folder / "a.db", url=url, token=token, batch_size=BATCH) as a:
        while True:
            number += 1
            with a.database.atomic():
                Note.create(key=f"m{life}-{number}", title="one of two")
                Note.update(stars=Note.stars + 1).where(Note.key == "n1").execute()
            acknowledge(WRITE)
            Note.update(title=f"{life}-{number}").where(Note.key == "n3").execute()
            acknowledge(STAGE)
            if number % 3 == 0:
                a.sync()
                acknowledge(SYNC)


def sync_all(folder: Path, scenario: Scenario, steps: Steps | None = None) -> None:
    """Everybody syncs until there is nothing left to say."""
    counted: dict[str, Any] = {"factory": counted_connection(steps)} if steps else {}
    with local_log(folder, steps) as log:
        for name in ("a", *scenario.others, "a"):
            options = {**counted, **(scenario.options if name == "a" else {})}
            with still_device(folder / f"{name}.db", shared_log=log, **options) as one:
                if not scenario.met:
                    one.adopt()
                one.sync()
