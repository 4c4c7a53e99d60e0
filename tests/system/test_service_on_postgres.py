"""Several service processes at one PostgreSQL database, as on several machines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from peewee import TextField

from sharedlog import GraphQLSharedLog, HttpTransport, SyncModel
from sharedlog_service.store.store import Store
from tests.client.devices import Device
from tests.engines import Postgres
from tests.service.support import read_all
from tests.system.service_process import DEADLINE_S, ServiceProcess
from tests.system.writers import BATCH, Writer
from tests.waiting import until

DEVICES = 6


class Note(SyncModel):
    text = TextField()


def test_one_of_two_services_is_killed_under_load_and_nothing_is_lost(
    services: list[ServiceProcess], postgres: Postgres
) -> None:
    token = services[0].token
    assert token is not None
    writers = [
        Writer(number, [service.url for service in services], token) for number in range(DEVICES)
    ]
    for writer in writers:
        writer.start()
    for _ in range(2):
        reached = sum(len(writer.acknowledged) for writer in writers)
        while sum(len(writer.acknowledged) for writer in writers) < reached + 10 * BATCH:
            writers[0].join(0.01)
        services[0].kill()
        services[0].start()
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(120)
        assert not writer.is_alive()
    assert sum(writer.failures for writer in writers) > 0
    with closing(Store.open(postgres.place)) as store:
        reader = store.create_device("me")
        entries = [entry for page in read_all(store, "me", reader) for entry in page.entries]
    total = sum(len(writer.acknowledged) for writer in writers)
    assert [entry.seq for entry in entries] == list(range(1, total + 1))
    for writer in writers:
        mine = [entry.created_on for entry in entries if entry.device == writer.device]
        assert sorted(mine) == writer.acknowledged


def test_devices_meet_in_it_whichever_service_they_ask(
    services: list[ServiceProcess], tmp_path: Path
) -> None:
    token = services[0].token
    assert token is not None
    logs = [GraphQLSharedLog(HttpTransport(service.url, token)) for service in services]
    one, two = (
        Device(tmp_path / f"app-{number}.db", [Note], shared_log=log)
        for number, log in enumerate(logs)
    )
    with one:
        note = Note.create(text="from one")
        one.sync.sync()
    with two:
        two.sync.sync()
        Note.update(text="from two").execute()
        two.sync.sync()
    with one:
        one.sync.sync()
        assert Note.get_by_id(note.id).text == "from two"
    for device in (one, two):
        device.close()


# -- several processes at one address -------------------------------------------------------

WORKERS = 3


def wait_for_more(writers: list[Writer]) -> None:
    def acknowledged() -> int:
        return sum(len(writer.acknowledged) for writer in writers)

    before = acknowledged()
    until(lambda: acknowledged() >= before + 5 * BATCH, DEADLINE_S)


def children_of(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has ended meanwhile
            continue
        name, _, rest = text.rpartition(")")
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found.add(int(name.split()[0]))
    return found


@pytest.fixture
def together(tmp_path: Path, postgres: Postgres) -> Iterator[ServiceProcess]:
    place = str(postgres.place)
    with ServiceProcess(tmp_path / "service.db", "--workers", str(WORKERS), place=place) as service:
        yield service


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost(
    together: ServiceProcess, postgres: Postgres
) -> None:
    token = together.token
    assert token is not None
    first = children_of(together.pid)
    assert len(first) == WORKERS
    writers = [Writer(number, [together.url], token) for number in range(DEVICES)]
    for writer in writers:
        writer.start()
    for pid in sorted(first)[:2]:
        wait_for_more(writers)
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(children_of(together.pid) - first) == 2, DEADLINE_S)
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(120)
        assert not writer.is_alive()
    with closing(Store.open(postgres.place)) as store:
        reader = store.create_device("me")
        entries = [entry for page in read_all(store, "me", reader) for entry in page.entries]
    total = sum(len(writer.acknowledged) for writer in writers)
    assert [entry.seq for entry in entries] == list(range(1, total + 1))


def test_workers_end_with_who_started_them(together: ServiceProcess) -> None:
    workers = children_of(together.pid)
    assert len(workers) == WORKERS
    assert together.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_end_when_who_started_them_is_killed(together: ServiceProcess) -> None:
    workers = children_of(together.pid)
    together.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), DEADLINE_S)
