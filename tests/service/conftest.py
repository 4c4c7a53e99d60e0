"""Fixtures: a store on a real file, and the application in front of one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sharedlog_service.access.auth import issue_token
from sharedlog_service.cli import add_commands
from sharedlog_service.settings import Limits, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.engines import Engine, Postgres, Sqlite
from tests.service.support import Asker, Ids, ManualClock

OpenStore = Callable[..., Store]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """In memory: nothing here is about disks."""
    return memory


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "sqlite":
        return Sqlite(tmp_path)
    found: Postgres = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def open_store(engine: Engine, clock: ManualClock) -> Iterator[OpenStore]:
    """Opens the same database each time it is called."""
    stores: list[Store] = []
    ids = Ids()

    def opening(limits: Limits | None = None) -> Store:
        stores.append(Store.open(engine.place, now=clock, new_id=ids, limits=limits))
        return stores[-1]

    yield opening
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    store = open_store()
    store.create_user("ada")
    return store


@pytest.fixture
def serve(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Asker]]:
    """Starts the application on the database in `tmp_path` and returns who asks it as ada."""
    clients: list[TestClient] = []

    def serving(**settings: Any) -> Asker:
        chosen = Settings(db=tmp_path / "log.db", now=clock, **settings)
        store = Store.open(chosen.db, now=clock)
        token = None if chosen.no_auth else issue_token(store, "ada", "test")
        store.close()
        base = "http://127.0.0.1:8000"
        client = TestClient(create_app(chosen), base_url=base, raise_server_exceptions=False)
        clients.append(client)
        client.__enter__()
        return Asker(client, token)

    yield serving
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def ada(serve: Callable[..., Asker]) -> Asker:
    return serve()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in `tmp_path`; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser(prog="sharedlog")
    add_commands(parser.add_subparsers(required=True))

    def running(*words: str) -> tuple[int, str, str]:
        args = parser.parse_args(words)
        code: int = args.handler(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return running
