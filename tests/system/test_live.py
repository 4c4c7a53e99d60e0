"""Devices that are live, at real services: nobody calls sync() here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from peewee import SqliteDatabase, TextField

from sharedlog import Live, Sync, SyncModel, Unauthorized
from sharedlog.events import PokesBegan, PokesEnded, Postponed
from sharedlog_service.access.auth import issue_token, revoke_token, token_digest
from sharedlog_service.store.store import Store
from tests.client.devices import SHARED
from tests.engines import Postgres
from tests.system.service_process import ServiceProcess
from tests.waiting import until

NEVER_S = 3600.0


class LiveDevice:
    """An application on its own file, live; `Note` is its model."""

    def __init__(self, path: Path, service: ServiceProcess, token: str | None = None) -> None:
        self.database = SqliteDatabase(str(path), pragmas=dict(SHARED), timeout=10)

        class Note(SyncModel):
            text = TextField()

            class Meta:
                database = self.database

        self.Note = Note
        self.database.create_tables([Note])
        self.sync = Sync(self.database, [Note], url=service.url, token=token or service.token)
        self.sync.setup()
        self.events: list[Any] = []
        self.sync.on_event(self.events.append)

    def live(self, **options: Any) -> Live:
        options = {"poll_s": NEVER_S, "calm_s": NEVER_S, "look_s": 0.05, **options}
        return Live(self.sync, **options)

    def has(self, *texts: str) -> Callable[[], bool]:
        return lambda: {note.text for note in self.Note.select()} == set(texts)

    def told(self, kind: type, times: int = 1) -> Callable[[], bool]:
        return lambda: sum(isinstance(event, kind) for event in self.events) >= times

    def close(self) -> None:
        self.sync.close()
        self.database.close()


@pytest.fixture
def pair(service: ServiceProcess, tmp_path: Path) -> Iterator[list[LiveDevice]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(LiveDevice(tmp_path / f"{name}.db", service)))
            for name in ("one", "two")
        ]


def test_devices_follow_each_other_without_polling(tmp_path: Path) -> None:
    """At a service that answers the library's own documents only."""
    with ExitStack() as stack:
        service = stack.enter_context(ServiceProcess(tmp_path / "service.db", "--no-explore"))
        one, two = (
            stack.enter_context(closing(LiveDevice(tmp_path / f"{name}.db", service)))
            for name in ("one", "two")
        )
        stack.enter_context(one.live())
        stack.enter_context(two.live())
        until(one.told(PokesBegan))
        until(two.told(PokesBegan))
        one.Note.create(text="from one")
        until(two.has("from one"))
        two.Note.create(text="from two")
        until(one.has("from one", "from two"))
        began = time.monotonic()
        one.Note.delete().where(one.Note.text == "from two").execute()
        until(two.has("from one"))
        assert time.monotonic() - began < 5
    assert not one.told(Postponed)() and not two.told(Postponed)()


def test_devices_at_two_processes_of_one_service_follow_each_other(
    tmp_path: Path, postgres: Postgres
) -> None:
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                ServiceProcess(tmp_path / f"service-{number}.db", place=str(postgres.place))
            )
            for number in (1, 2)
        ]
        one, two = (
            stack.enter_context(
                closing(LiveDevice(tmp_path / f"app-{n}.db", service, services[0].token))
            )
            for n, service in enumerate(services)
        )
        with one.live(), two.live():
            until(one.told(PokesBegan))
            until(two.told(PokesBegan))
            one.Note.create(text="a")
            until(two.has("a"))
            two.Note.update(text="b").execute()
            until(one.has("b"))


@pytest.mark.parametrize("killed", [True, False])
def test_devices_come_back_when_the_service_does(
    service: ServiceProcess, pair: list[LiveDevice], killed: bool
) -> None:
    one, two = pair
    with one.live(chance=lambda: 0.0), two.live(chance=lambda: 0.0):
        until(one.told(PokesBegan))
        until(two.told(PokesBegan))
        service.kill() if killed else service.stop()
        for device in pair:
            until(device.told(PokesEnded))
        one.Note.create(text="written without a service")
        until(one.told(Postponed))
        service.start()
        until(two.has("written without a service"))
        until(two.told(PokesBegan, 2))
        two.Note.create(text="and after it")
        until(one.has("written without a service", "and after it"))


def test_without_pokes_devices_ask_now_and_then(
    service: ServiceProcess, pair: list[LiveDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr(type(one.sync.shared_log), "pokes", lambda self, device: None)
    with one.live(poll_s=0.1), two.live(poll_s=0.1):
        one.Note.create(text="a")
        until(two.has("a"))
    assert not two.told(PokesBegan)()


def test_a_device_whose_token_ends_is_told_and_does_not_insist(
    service: ServiceProcess, tmp_path: Path
) -> None:
    with closing(Store.open(service.db)) as store:
        token = issue_token(store, service.user, "test")
        with closing(LiveDevice(tmp_path / "app.db", service, token)) as device, device.live():
            until(device.told(PokesBegan))
            revoke_token(store, token_digest(token))
            until(device.told(PokesEnded, 2))
            device.Note.create(text="kept")
            until(device.told(Postponed, 2))
            for kind in (PokesEnded, Postponed):
                once, twice = (event for event in device.events if isinstance(event, kind))
                assert isinstance(once.error, Unauthorized)
                assert isinstance(twice.error, Unauthorized)
                assert once.again_s < 2
                assert twice.again_s >= 30
            assert device.sync.status().pending == 1


def test_it_ends_at_once_whatever_it_waits_for(
    service: ServiceProcess, pair: list[LiveDevice]
) -> None:
    one, _ = pair
    for _ in range(2):
        with one.live(look_s=NEVER_S):
            until(one.told(PokesBegan))
            began = time.monotonic()
        assert time.monotonic() - began < 2
        service.kill()
        one.events.clear()
        with one.live(chance=lambda: 1.0):
            until(one.told(Postponed))
            began = time.monotonic()
        assert time.monotonic() - began < 2
        service.start()
    assert not [t for t in threading.enumerate() if t.name.startswith("sharedlog-")]
