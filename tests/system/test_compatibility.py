"""Versions meet: databases and clients of each version with the code of today, and its service
with the client of today. See tests/fixtures.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest
from starlette.testclient import TestClient

from sharedlog import LocalTransport, Sync, Transport
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess, create_app
from tests.fixtures.make import FOLDER, SERVICE, Ids, new_store, operation_of, token_of
from tests.fixtures.world import (
    DEVICES,
    NEW,
    OLD,
    START_MS,
    UPGRADE,
    USERS,
    Clock,
    NewProduct,
    Supplier,
    Tag,
    World,
    device,
)

VERSIONS = sorted(path.parent for path in FOLDER.glob("*/exchanges.json"))
of_each_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)

LATER_MS = START_MS + 24 * 3_600_000


def restore(version: Path, name: str, path: Path) -> None:
    """A copy of a database, as it was left."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript((version / f"{name}.sql").read_text())


def test_there_is_something_to_be_compatible_with() -> None:
    assert VERSIONS


# -- the databases -----------------------------------------------------------------------


class Today:
    """The code of today on the databases of then."""

    def __init__(self, version: Path, folder: Path) -> None:
        for name in (SERVICE, *DEVICES):
            restore(version, name, folder / f"{name}.db")
        self.clock = Clock()
        self.clock.ms = LATER_MS
        self._folder = folder
        self.store = Store.open(folder / f"{SERVICE}.db", now=self.clock)

    @contextmanager
    def at(self, name: str, models: Sequence[type[peewee.Model]]) -> Iterator[Sync]:
        user, _ = DEVICES[name]
        service = LocalTransport(InProcess(self.store, user).execute)
        path = self._folder / f"{name}.db"
        with device(path, models, service, self.clock, name) as sync:
            yield sync

    def upgrade(self, name: str) -> None:
        with closing(sqlite3.connect(self._folder / f"{name}.db")) as database:
            database.execute(UPGRADE)


@pytest.fixture
def today(tmp_path: Path) -> Iterator[Callable[[Path], Today]]:
    with ExitStack() as opened:

        def opening(version: Path) -> Today:
            made = Today(version, tmp_path)
            opened.callback(made.store.close)
            return made

        yield opening


@of_each_version
def test_devices_of_then_go_on_where_they_were(
    version: Path, today: Callable[[Path], Today]
) -> None:
    world = today(version)
    for name in ("desk", "tablet", "desk"):
        with world.at(name, OLD) as sync:
            sync.sync()
            assert sync.status().pending == 0
    for name in ("desk", "tablet"):
        world.upgrade(name)
    with world.at("scanner", NEW) as sync:
        Supplier.create(code="nobody", name="the orphan's")
        sync.sync()
    found = []
    for name in ("desk", "tablet", "scanner"):
        with world.at(name, NEW) as sync:
            sync.sync()
            found.append(
                (
                    {row["key"]: row for row in NewProduct.select().dicts()},
                    {row.code: row.name for row in Supplier.select()},
                    [(tag.text, tag.product_id) for tag in Tag.select()],
                )
            )
            assert sync.verify().equal
            reasons = [parked.reason.split(":")[0] for parked in sync.parked()]
            assert reasons == [
                "The data is not JSON",
                "Written under schema version 9; this program has 1.",
            ]
    products, suppliers, tags = found[0]
    assert found == [(products, suppliers, tags)] * 3
    assert tags == [("heavy", "anvil")]
    assert suppliers == {
        "acme": "Acme",
        "bolt": "Bolt",
        "new": "unsent",
        "nobody": "the orphan's",
    }
    assert {key: (p["name"], p["stock"], p["colour"]) for key, p in products.items()} == {
        "anvil": ("big anvil", 5, "white"),
        "crate": ("crate", 1, "brown"),
        "lamp": ("unsent", 0, "white"),
        "orphan": ("orphan", 2, "white"),
        "rocket": ("rocket", 2, "red"),
        "wheel": ("wheel", 4, "white"),
    }


@of_each_version
def test_users_of_then_keep_their_logs_apart(version: Path, today: Callable[[Path], Today]) -> None:
    world = today(version)
    with world.at("till", OLD) as sync:
        assert sync.sync().received == 0
        assert {row.name for row in Supplier.select()} == {"Bob's Acme", "Bob's Bolt"}
        assert sync.verify().equal
    assert world.store.users() == list(USERS)


# -- the clients -------------------------------------------------------------------------


def said(version: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    found = json.loads((version / "exchanges.json").read_text())
    return found["documents"], found["exchanges"]


class IdsOverHttp:
    """The ids that the service gave then. Each request gets one first, for the service's log."""

    def __init__(self) -> None:
        self.next = Ids()
        self.requests = 0

    def __call__(self) -> str:
        if self.requests:
            self.requests -= 1
            return "a request"
        return self.next()


@of_each_version
def test_the_service_of_today_answers_as_the_clients_of_then_expect(
    version: Path, tmp_path: Path
) -> None:
    clock, ids, path = Clock(), IdsOverHttp(), tmp_path / "service.db"
    new_store(path, lambda: clock.ms, ids).close()
    documents, exchanges = said(version)
    settings = Settings(db=path, now=lambda: clock.ms, new_id=ids)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        for exchange in exchanges:
            if "restored" in exchange:
                with closing(Store.open(path, new_id=ids)) as store:
                    store.renew_epoch(exchange["user"])
                continue
            clock.ms, ids.requests = exchange["at"], 1
            answer = client.post(
                "/graphql",
                json={"query": documents[exchange["asked"]], "variables": exchange["variables"]},
                headers={"authorization": f"Bearer {token_of(exchange['user'])}"},
            )
            assert answer.status_code == 200
            assert readable(answer.json()) == readable(exchange["answer"]), exchange["asked"]


def readable(answer: dict[str, Any]) -> dict[str, Any]:
    """What a program reads of an answer: of an error, its code."""
    errors = [error["extensions"]["code"] for error in answer.get("errors", ())]
    return {"data": answer.get("data"), "errors": errors}


# -- the service -------------------------------------------------------------------------


NOTHING_WRITTEN = {
    "accepted": 0,
    "duplicates": 0,
    "rejected": [],
    "epoch": "",
    "lineage": "",
    "serverTime": 0.0,
    "horizon": 0.0,
    "update": {
        "packed": {"devices": [], "entries": []},
        "cursor": "",
        "hasMore": False,
        "epoch": "",
        "serverTime": 0.0,
    },
}
"""What a service of then answers to a write of nothing, which no client of then asked."""


class OldService:
    """Answers as a service of then did: each device's questions in their order."""

    def __init__(self, version: Path) -> None:
        _, self._exchanges = said(version)

    def connect(self, user: str, name: str) -> Transport:
        def execute(document: str, variables: Any) -> dict[str, Any]:
            asked = operation_of(document)
            if asked == "WriteEntries" and not variables["packed"]:
                return {"data": {"sharedSyncLog": {"writeEntries": NOTHING_WRITTEN}}}
            known = [e for e in self._exchanges if e.get("device") == name and e["asked"] == asked]
            if not known:
                code = {"code": "GRAPHQL_VALIDATION_FAILED"}
                return {"errors": [{"message": f"no {asked} then", "extensions": code}]}
            self._exchanges.remove(known[0])
            answer: dict[str, Any] = known[0]["answer"]
            return answer

        return LocalTransport(execute)

    @property
    def left(self) -> list[dict[str, Any]]:
        return [exchange for exchange in self._exchanges if "asked" in exchange]


@of_each_version
def test_the_client_of_today_understands_the_service_of_then(version: Path, tmp_path: Path) -> None:
    service = OldService(version)
    World(tmp_path, Clock(), service.connect, lambda user: None).play()
    assert service.left == []
    for name, (_, models) in DEVICES.items():
        restore(version, name, tmp_path / f"{name} then.db")
        tables = [model._meta.table_name for model in models]
        now, then = (tmp_path / f"{name}.db", tmp_path / f"{name} then.db")
        for table in (*tables, "sharedlog_entry"):
            columns = "collection, pk, value, status" if table == "sharedlog_entry" else "*"
            sql = f"SELECT {columns} FROM {table}"
            assert rows_of(now, sql) == rows_of(then, sql), (name, table)


def rows_of(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(database.execute(sql).fetchall(), key=repr)
