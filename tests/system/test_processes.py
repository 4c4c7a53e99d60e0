"""Threads and processes that write and sync at the same time: one file, and one log."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any

import peewee
import pytest
from peewee import Value

from sharedlog import GraphQLSharedLog, HttpTransport, MemorySharedLog, Sync, Transport
from sharedlog.clock import system_now
from sharedlog.remote.documents import WRITE_ENTRIES
from tests.system.crash_scenario import with_rows_from_before
from tests.system.crash_steps import Steps, counted_connection
from tests.system.crash_worker import SHARED, Done
from tests.system.crash_world import (
    MODELS,
    ClientFile,
    Folder,
    Note,
    check_client,
    check_equal,
    device,
    open_database,
    read_client,
    read_log,
)
from tests.system.service_process import ServiceProcess

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120


class Workers:
    """Worker processes that begin together."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._processes: list[subprocess.Popen[str]] = []

    def add(self, task: str, db: Path, name: str, *options: str) -> None:
        command = [sys.executable, "-m", "tests.system.crash_worker", task, str(db)]
        command += [self._service.url, str(self._service.token), name, *options]
        self._processes.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )

    def work(self) -> list[Done]:
        """Let all begin once all are there; return what each did, in their order."""
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        every = []
        for process in self._processes:
            out, err = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, err
            every.append(Done(**json.loads(out)))
        return every


def seed(service: ServiceProcess, folder: Path, journal: str) -> None:
    """Two devices that share the rows everybody will edit."""
    b_db = folder / "b.db"
    with device(b_db, url=service.url, token=service.token, journal=journal) as b:
        for number in range(SHARED):
            Note.create(key=f"s{number}", title="seed")
        b.sync()
    sync_both(service, folder, "a", journal)


def sync_both(service: ServiceProcess, folder: Path, order: str, journal: str = "wal") -> None:
    for name in order:
        db = folder / f"{name}.db"
        with device(db, url=service.url, token=service.token, journal=journal) as one:
            one.sync()


def marks_of(changes: Iterable[dict[str, object]]) -> Counter[str]:
    """How often each mark of a worker stands in entries."""
    found: Counter[str] = Counter()
    for change in changes:
        value = change["value"]
        if change["operation"] == "create":
            found[str(change["pk"])] += change["collection"] == "note"
        elif isinstance(value, dict):
            found.update(str(value[name]) for name in ("title", "meta") if name in value)
    return +found


def check_work(client: ClientFile, every: list[Done]) -> None:
    """Each write that returned is in the client log exactly once."""
    changes = client.changes()
    found = marks_of(change for change in changes if not str(change["pk"]).startswith("seed"))
    for done in every:
        assert done.errors == [], "\n".join(done.errors)
    marks = [mark for done in every for mark in done.marks]
    assert {mark: found[mark] for mark in marks} == dict.fromkeys(marks, 1)
    stars = sum(list(change["value"] or {}) == ["stars"] for change in changes)
    assert stars == sum(sum(done.starred) for done in every)
    assert len({entry.ticks for entry in client.entries}) == len(client.entries)


@pytest.mark.parametrize(("journal", "rounds"), [("wal", 16), ("delete", 8)])
def test_threads_and_processes_write_and_sync_one_file(
    service: ServiceProcess, tmp_path: Path, journal: str, rounds: int
) -> None:
    seed(service, tmp_path, journal)
    workers = Workers(service)
    options = ("--threads", "2", "--rounds", str(rounds), "--batch", "20", "--journal", journal)
    for name, db in (("p", "a.db"), ("q", "a.db"), ("r", "b.db")):
        workers.add("edit", tmp_path / db, name, *options)
    p, q, r = workers.work()
    a, b = (read_client(tmp_path / f"{name}.db") for name in "ab")
    check_work(a, [p, q])
    check_work(b, [r])
    log = read_log(service.db)
    check_client(a, log)
    check_client(b, log)
    sync_both(service, tmp_path, "aba", journal)
    check_equal((read_client(tmp_path / f"{name}.db") for name in "ab"), read_log(service.db))
    assert sum(len(done.syncs) for done in (p, q, r)) == 6 * rounds // 4


COPIED = Note.select(Value("copy"), Value("copied"), Value(0)).where(Note.key == "n0")

WRITES: dict[str, Callable[[], object]] = {
    "create": lambda: Note.create(key="new", title="x"),
    "insert_many": lambda: Note.insert_many([{"key": f"{i}", "title": "x"} for i in "abc"]),
    "insert_from": lambda: Note.insert_from(COPIED, [Note.key, Note.title, Note.stars]),
    "upsert": lambda: Note.insert(key="n0", title="x").on_conflict(
        conflict_target=[Note.key], preserve=[Note.title]
    ),
    "replace": lambda: Note.replace(key="n0", title="x"),
    "update": lambda: Note.update(title="x").where(Note.key == "n0"),
    "expression": lambda: Note.update(stars=Note.stars + 1),
    "key": lambda: Note.update(key="other").where(Note.key == "n0"),
    "delete": lambda: Note.delete().where(Note.stars == 0),
    "cascade": lambda: Folder.delete().where(Folder.key == "f"),
    "recursive": lambda: Folder(key="f").delete_instance(recursive=True),
}


@pytest.mark.parametrize("name", WRITES)
def test_write_does_not_read_before_it_has_the_lock(tmp_path: Path, name: str) -> None:
    """Another process writes whenever it can, while an application's deferred transaction begins
    with a write: whoever had read by then could not write any more, and no timeout would help."""
    meddled: list[str] = []
    steps = Steps()
    with (
        device(
            tmp_path / "a.db", shared_log=MemorySharedLog(), factory=counted_connection(steps)
        ) as a,
        closing(sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)) as other,
    ):
        other.execute("INSERT INTO folder VALUES ('f', 'x')")
        other.execute("INSERT INTO note VALUES ('n0', 'x', 0, NULL, 'f')")
        other.execute("CREATE TABLE meddler (n INTEGER)")

        def meddle(step: str) -> None:
            with suppress(sqlite3.OperationalError):
                other.execute("INSERT INTO meddler VALUES (1)")
                meddled.append(step)

        with a.database.atomic():
            steps.arm(tell=meddle)
            query = WRITES[name]()
            if isinstance(query, peewee.Query):
                query.execute()
            steps.arm()
        assert a.status().pending > 0
    assert meddled, "nobody could write even before the write"


def test_processes_set_up_and_sync_one_file_at_the_same_time(
    service: ServiceProcess, tmp_path: Path
) -> None:
    """All begin with a file that never was synced: tables, adoption, registration, exchange."""
    with_rows_from_before(tmp_path / "a.db", 150)
    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        for number in range(150):
            Note.create(key=f"b{number}", title="waiting to be received")
        Note.create(key="old0", title="made by both")
        b.sync()
    workers = Workers(service)
    for name in ("p", "q", "r"):
        workers.add("sync", tmp_path / "a.db", name, "--rounds", "10", "--batch", "3")
    every = workers.work()
    assert [done.errors for done in every] == [[], [], []]
    assert all(max(done.syncs) > 1 for done in every), "one of them did all the work"
    sync_both(service, tmp_path, "ba")
    a = read_client(tmp_path / "a.db")
    assert len(a.entries) == 151
    check_equal([a, read_client(tmp_path / "b.db")], read_log(service.db))
    with closing(sqlite3.connect(service.db)) as db:
        assert db.execute("SELECT count(*) FROM devices").fetchone() == (2,)


def test_processes_push_to_one_log_at_the_same_time(
    service: ServiceProcess, tmp_path: Path
) -> None:
    workers = Workers(service)
    for name in ("p", "q", "r", "s"):
        workers.add("push", tmp_path, name, "--rounds", "40")
    every = workers.work()
    assert [done.errors for done in every] == [[], [], [], []]
    sent = [mark for done in every for mark in done.marks]
    log = read_log(service.db)  # checks that it is gapless, and each device's entries in order
    assert sorted(entry.change["pk"] for entry in log) == sorted(sent)
    for done in every:
        device_of = {entry.change["pk"]: entry.device for entry in log}[done.marks[0]]
        own = [entry.change["pk"] for entry in log if entry.device == device_of]
        assert own == done.marks
    batches = [count for done in every for count in done.syncs]
    assert len(batches) == 4 * 40
    assert sum(batches) > 1.5 * len(batches), "nearly every batch was sent once"


class Meeting:
    """A transport of one process that lets another one act between an answer and its use."""

    def __init__(self, transport: Transport, meet: Callable[[int], None]) -> None:
        self._transport = transport
        self._meet = meet
        self._writes = 0

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._transport.execute(document, variables)
        if document == WRITE_ENTRIES:
            self._writes += 1
            self._meet(self._writes)
        return answer

    def close(self) -> None:
        self._transport.close()


def test_two_processes_whose_clock_is_ahead_correct_it_once(
    service: ServiceProcess, tmp_path: Path
) -> None:
    """Both are told that their entries are ahead of time. One corrects them and has sent them
    again, and is not back yet; the other must not correct them a second time."""
    ahead_ms = 0

    def now() -> int:
        return system_now() + ahead_ms

    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        Folder.create(key="f", name="comes and goes")
        b.sync()
    with device(tmp_path / "a.db", url=service.url, token=service.token) as a:
        a.sync()
        Note.create(key="n0", title="parked when its folder goes", folder="f")
    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        Folder.delete_by_id("f")
        b.sync()
    with device(tmp_path / "a.db", url=service.url, token=service.token, now=now) as a:
        assert a.sync().parked == 1
        ahead_ms = 10 * 60 * 1000
        Note.create(key="n1", title="once")
        Note.create(key="n2", title="once")

        p_was_told, q_has_sent, p_is_done = Event(), Event(), Event()

        def meet_in_p(write: int) -> None:
            if write == 1:
                p_was_told.set()
                assert q_has_sent.wait(DEADLINE_S)

        def meet_in_q(write: int) -> None:
            if write == 1:
                assert p_was_told.wait(DEADLINE_S)
            else:
                q_has_sent.set()
                assert p_is_done.wait(DEADLINE_S)

        def ready(meet: Callable[[int], None]) -> Sync:
            transport = Meeting(HttpTransport(service.url, service.token), meet)
            database = open_database(tmp_path / "a.db")
            with database.bind_ctx(MODELS):
                sync = Sync(database, MODELS, shared_log=GraphQLSharedLog(transport), now=now)
                sync.setup()
            database.close()  # this thread's connection
            return sync

        def run(sync: Sync, done: Event) -> None:
            sync.sync()
            sync.close()
            sync.database.close()
            done.set()

        p, q = ready(meet_in_p), ready(meet_in_q)
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(run, p, p_is_done), pool.submit(run, q, Event())]
        for one in both:
            one.result()
    log = read_log(service.db)
    assert [entry.change["pk"] for entry in log] == ["f", "f", "n0", "n1", "n2"]
    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        Folder.create(key="f", name="is back")
        b.sync()
    sync_both(service, tmp_path, "ab")
    a_file, b_file = (read_client(tmp_path / f"{name}.db") for name in "ab")
    check_equal([a_file, b_file], read_log(service.db))
    assert sorted(a_file.tables["note"]) == ["n0", "n1", "n2"]
