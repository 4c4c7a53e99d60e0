"""Threads and processes that write and sync at the same time: one file, and one log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.system.crash_worker import SHARED, Done
from tests.system.crash_world import (
    ClientFile,
    Note,
    check_client,
    check_equal,
    device,
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
        """Let all begin once all are set up; return what each did, in their order."""
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


def seed(service: ServiceProcess, folder: Path) -> None:
    """Two devices that share the rows everybody will edit."""
    with device(folder / "b.db", url=service.url, token=service.token) as b:
        for number in range(SHARED):
            Note.create(key=f"s{number}", title="seed")
        b.sync()
    sync_both(service, folder, "a")


def sync_both(service: ServiceProcess, folder: Path, order: str = "aba") -> None:
    for name in order:
        with device(folder / f"{name}.db", url=service.url, token=service.token) as one:
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


def test_threads_and_processes_write_and_sync_one_file(
    service: ServiceProcess, tmp_path: Path
) -> None:
    seed(service, tmp_path)
    workers = Workers(service)
    for name in ("p", "q"):
        options = ("--threads", "2", "--rounds", "16", "--batch", "20")
        workers.add("edit", tmp_path / "a.db", name, *options)
    workers.add("edit", tmp_path / "b.db", "r", "--threads", "2", "--rounds", "16")
    p, q, r = workers.work()
    a, b = (read_client(tmp_path / f"{name}.db") for name in "ab")
    check_work(a, [p, q])
    check_work(b, [r])
    log = read_log(service.db)
    check_client(a, log)
    check_client(b, log)
    sync_both(service, tmp_path)
    check_equal((read_client(tmp_path / f"{name}.db") for name in "ab"), read_log(service.db))
    assert sum(len(done.syncs) for done in (p, q, r)) == 6 * 4


def test_processes_sync_one_file_at_the_same_time(service: ServiceProcess, tmp_path: Path) -> None:
    seed(service, tmp_path)
    for name in ("a", "b"):
        with device(tmp_path / f"{name}.db", url=service.url, token=service.token) as one:
            for number in range(150):
                Note.create(key=f"{name}{number}", title="waiting to be sent")
            Note.update(title=f"from {name}").where(Note.key == "s0").execute()
            if name == "b":
                one.sync()
    workers = Workers(service)
    for name in ("p", "q", "r"):
        workers.add("sync", tmp_path / "a.db", name, "--rounds", "10", "--batch", "3")
    every = workers.work()
    assert [done.errors for done in every] == [[], [], []]
    assert all(max(done.syncs) > 1 for done in every), "one of them did all the work"
    sync_both(service, tmp_path, "ba")
    check_equal((read_client(tmp_path / f"{name}.db") for name in "ab"), read_log(service.db))


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
