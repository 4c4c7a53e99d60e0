"""A thousand requests, good, bad and failing: one line each, and nothing in it that somebody wrote.

Canaries are in everything that is sent, and in what the database says when it fails.
"""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from sharedlog.remote.documents import CREATE_DEVICE_ID, GET_UNSYNCED_ENTRIES, WRITE_ENTRIES
from sharedlog_service.store.store import Store
from tests.system.service_process import ServiceProcess
from tests.volume import times

REQUESTS = times(1000)
FAILING = times(300)
"""How many of them meet a database that fails."""

SENT = "canary-sent-5d1f"
SECRET = "canary-secret-77aa"

FAULT = f"CREATE TRIGGER fault BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, '{SECRET}'); END"

KEYS = {
    *("time", "level", "logger", "message", "request", "kind", "path"),
    *("operation", "status", "code", "ms", "received", "sent"),
}


class Ask(NamedTuple):
    body: bytes | str
    method: str = "POST"
    path: str = "/graphql"
    headers: Mapping[str, str] = {}


class Asks:
    """Requests of all kinds, chosen by chance."""

    def __init__(self, user: str, device: str, rng: random.Random) -> None:
        self._user = user
        self._device = device
        self._rng = rng
        self._ticks = 1024

    def any(self) -> Ask:
        kinds = (self.write, self.write, self.read, self.register, self.wrong, self.strange)
        return self._rng.choice(kinds)()

    def write(self) -> Ask:
        self._ticks += 1
        data = self._rng.choice([SENT, json.dumps({"pk": SENT}), "", None])
        return self._graphql(
            WRITE_ENTRIES,
            {"packed": [[self._ticks, 0, data]], "now": self._rng.choice([None, 1e12])},
        )

    def read(self) -> Ask:
        after = self._rng.choice([None, SENT])
        return self._graphql(GET_UNSYNCED_ENTRIES, {"after": after})

    def register(self) -> Ask:
        return self._graphql(CREATE_DEVICE_ID, {"name": SENT})

    def wrong(self) -> Ask:
        return self._rng.choice(
            [
                self._graphql(GET_UNSYNCED_ENTRIES, {"userId": SENT}),
                self._graphql(GET_UNSYNCED_ENTRIES, {"deviceId": SENT}),
                self._graphql(f"query {SENT.replace('-', '_')} {{ sharedSyncLog {{ viewer }} }}"),
                self._graphql(f'{{ sharedSyncLog {{ viewer }} }} # "{SENT}'),
                self._graphql(f'{{ {SENT.replace("-", "_")}(x: "{SENT}")'),
                self._graphql(GET_UNSYNCED_ENTRIES, operationName=SENT),
            ]
        )

    def strange(self) -> Ask:
        good = self._graphql(GET_UNSYNCED_ENTRIES)
        return self._rng.choice(
            [
                Ask(f'{{"query": {SENT}'),
                Ask(SENT.encode() + b"\x82"),
                Ask("", "GET", f"/graphql?query={SENT}"),
                Ask("", "GET", f"/{SENT}"),
                Ask("", SENT.upper().replace("-", ""), "/graphql"),
                good._replace(headers={"content-type": SENT}),
                good._replace(headers={"content-encoding": SENT}),
                good._replace(headers={"authorization": f"Bearer slog_{SENT}"}),
                good._replace(headers={"authorization": SENT, "x-forwarded-for": SENT}),
            ]
        )

    def _graphql(self, document: str, changed: Any = None, **more: Any) -> Ask:
        usual = {"userId": self._user, "deviceId": self._device, "batchSize": 5}
        usual |= {"byteLimit": 1000, "withUpdate": False, "lineage": None}
        variables = {**usual, **(changed or {})}
        return Ask(json.dumps({"query": document, "variables": variables, **more}))


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "service.db", "--log-format", "json") as service:
        yield service


def lines_of(service: ServiceProcess) -> list[dict[str, Any]]:
    """The lines of the log; what the service printed at its start is not part of it."""
    text = service.output.read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_log_holds_nothing_that_somebody_wrote(logged: ServiceProcess, tmp_path: Path) -> None:
    device = prepare(logged)
    asks = Asks(logged.user, device, random.Random(5))
    answers: list[tuple[int, bytes]] = []
    address = urlsplit(logged.url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=30)) as connection:
        for number in range(REQUESTS):
            if number == REQUESTS - FAILING:
                with closing(sqlite3.connect(logged.db)) as db:
                    db.execute(FAULT)
            answers.append(send(connection, asks.any(), logged.token or ""))
    assert logged.stop() <= 0

    secrets = [SECRET, logged.token or ""]
    assert [a for a in answers if any(secret.encode() in a[1] for secret in secrets)] == []
    lines = lines_of(logged)
    assert len(logged.output.read_text().partition("{")[2].splitlines()) == len(lines)
    assert [x for x in lines if any(s in json.dumps(x) for s in (SENT, device, *secrets))] == []
    requests = [line for line in lines if line["logger"] == "sharedlog.requests"]
    assert all(line.keys() == KEYS for line in requests)
    assert len({line["request"] for line in requests}) == len(requests)
    assert [line["status"] for line in requests] == [status for status, _ in answers]
    assert [line["sent"] for line in requests] == [len(body) for _, body in answers]
    faults = [line for line in lines if line["logger"] == "sharedlog.service"]
    assert {line["request"] for line in faults} == set(failed(answers))
    assert {line["request"] for line in requests if line["code"] == "INTERNAL"} == set(
        failed(answers)
    )
    assert {line["error"] for line in faults} == {"ConstraintError"}
    assert len(faults) + len(requests) == len(lines)
    check_variety(requests)


def check_variety(requests: list[dict[str, Any]]) -> None:
    """All kinds of requests were there."""
    operations = Counter(line["operation"] for line in requests)
    assert operations.keys() == {"CreateDeviceId", "WriteEntries", "GetUnsyncedEntries", None}
    codes = Counter(line["code"] for line in requests)
    for code in (None, "INTERNAL", "BAD_REQUEST", "UNAUTHENTICATED", "FORBIDDEN"):
        assert codes[code] > REQUESTS / 200, codes
    assert {line["path"] for line in requests} == {"/graphql", None}


def failed(answers: list[tuple[int, bytes]]) -> Iterator[str]:
    """The ids that masked errors name."""
    for _, body in answers:
        if b'"INTERNAL"' in body:
            for error in json.loads(body)["errors"]:
                yield error["extensions"]["requestId"]


def send(connection: http.client.HTTPConnection, ask: Ask, token: str) -> tuple[int, bytes]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    connection.request(ask.method, ask.path, ask.body, {**headers, **ask.headers})
    response = connection.getresponse()
    return response.status, response.read()


def prepare(service: ServiceProcess) -> str:
    """Make a device, and somebody else with secrets; returns the device."""
    with closing(Store.open(service.db)) as store:
        store.create_user(SECRET)
        hidden = store.create_device(SECRET, name=SECRET)
        store.write(SECRET, hidden, [[1024, 0, SECRET]])
        return store.create_device(service.user)
