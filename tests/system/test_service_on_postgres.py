"""Several service processes at one PostgreSQL database, as on several machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from peewee import TextField

from sharedlog import GraphQLSharedLog, HttpTransport, SyncModel
from sharedlog_service.store import Store
from tests.client.devices import Device
from tests.engines import Postgres
from tests.service.support import read_all
from tests.system.service_process import ServiceProcess
from tests.system.writers import BATCH, Writer

DEVICES = 6


class Note(SyncModel):
    text = TextField()


@pytest.fixture
def services(tmp_path: Path, postgres: Postgres) -> Iterator[list[ServiceProcess]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                ServiceProcess(tmp_path / f"service-{number}.db", place=str(postgres.place))
            )
            for number in (1, 2)
        ]


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
