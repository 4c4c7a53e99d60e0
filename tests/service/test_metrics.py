"""The service in numbers: their names, which others rely on, what they count, who sees them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from sharedlog_service.access.auth import issue_token
from sharedlog_service.grants import Scope
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from sharedlog_service.web.metrics import Histogram
from tests.service.support import CREATE_DEVICE, NOON, NOON_MS, READ, WRITE, Asker, change

NAMES = {
    "sharedlog_requests_total": "counter",
    "sharedlog_entries_appended_total": "counter",
    "sharedlog_entries_duplicate_total": "counter",
    "sharedlog_entries_refused_total": "counter",
    "sharedlog_pull_pages_total": "counter",
    "sharedlog_append_seconds": "histogram",
    "sharedlog_auth_failures_total": "counter",
    "sharedlog_device_forks_total": "counter",
    "sharedlog_clock_skew_seconds": "histogram",
    "sharedlog_rate_limited_total": "counter",
    "sharedlog_sockets": "gauge",
    "sharedlog_log_head": "gauge",
    "sharedlog_log_horizon": "gauge",
    "sharedlog_device_lag_entries": "gauge",
}
"""Never changed: dashboards and alerts out there say them."""

STATE = {"sharedlog_log_head", "sharedlog_log_horizon", "sharedlog_device_lag_entries"}

LINE = re.compile(r'(sharedlog_[a-z_]+)(?:\{([a-z]+)="([^"\\]*)"\})? (-?[0-9.]+)')

LABELS = {"code": r"[A-Z_]+", "reason": r"[A-Z_]+", "le": r"[0-9.]+|\+Inf"}
"""All labels there are, and what they may say: nothing of users, devices or logs."""

Numbers = dict[str, float]


def read(text: str) -> Numbers:
    """Read all samples; whatever does not look like one fails the test."""
    found: Numbers = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, label, value, number = match.groups()
        assert label is None or re.fullmatch(LABELS[label], value), line
        found[name if label is None else f"{name} {value}"] = float(number)
    return found


def numbers(asker: Asker) -> Numbers:
    response = asker.client.get("/metrics", headers={"authorization": f"Bearer {asker.token}"})
    assert response.status_code == 200, response.text
    return read(response.text)


@pytest.fixture
def admin(tmp_path: Path, ada: Asker) -> Asker:
    store = Store.open(tmp_path / "log.db")
    token = issue_token(store, "operator", "monitoring", scopes=frozenset((Scope.ADMIN,)))
    store.close()
    return Asker(ada.client, token)


def test_the_names_are_fixed(admin: Asker) -> None:
    headers = {"authorization": f"Bearer {admin.token}"}
    response = admin.client.get("/metrics", headers=headers)
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", response.text, re.MULTILINE)
    assert dict(kinds) == NAMES
    assert len(re.findall(r"^# HELP \S+ \S.*\.$", response.text, re.MULTILINE)) == len(NAMES)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_what_happens_is_counted(ada: Asker, admin: Asker) -> None:
    before = numbers(admin)
    one, two = (ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"] for _ in range(2))
    mine = [[NOON + 1, 0, change(1)], [NOON + 2, 0, change(2)], [NOON + 3, 0, ""]]
    write = {"user": "ada", "device": one, "packed": mine, "now": NOON_MS + 30_000.0}
    ada.ask(WRITE, write)
    ada.ask(WRITE, write)
    ada.ask(WRITE, {**write, "packed": [[NOON + 1, 0, "copied"]], "now": None})
    ada.ask(READ, {"user": "ada", "device": two})
    ada.ask(WRITE, {"user": "ada", "device": two, "packed": [], "withUpdate": True})
    assert ada.code(READ, {"user": "bob", "device": two}) == "FORBIDDEN"
    assert Asker(ada.client, "slog_x").code(READ, {"user": "ada", "device": two})
    assert ada.code("{ nothing }") == "GRAPHQL_VALIDATION_FAILED"
    after = numbers(admin)
    found = {
        name.removeprefix("sharedlog_"): count - before.get(name, 0)
        for name, count in after.items()
        if count != before.get(name, 0) and not name.startswith("sharedlog_append_seconds")
    }
    assert found == {
        "requests_total OK": 7,
        "requests_total FORBIDDEN": 1,
        "requests_total UNAUTHENTICATED": 1,
        "requests_total GRAPHQL_VALIDATION_FAILED": 1,
        "entries_appended_total": 2,
        "entries_duplicate_total": 2,
        "entries_refused_total ENTRY_INVALID": 2,
        "entries_refused_total DEVICE_CLONED": 1,
        "pull_pages_total": 2,
        "auth_failures_total FORBIDDEN": 1,
        "auth_failures_total UNAUTHENTICATED": 1,
        "device_forks_total": 1,
        "clock_skew_seconds_bucket 60": 2,
        "clock_skew_seconds_bucket 300": 2,
        "clock_skew_seconds_bucket 3600": 2,
        "clock_skew_seconds_bucket 86400": 2,
        "clock_skew_seconds_bucket +Inf": 2,
        "clock_skew_seconds_sum": 60,
        "clock_skew_seconds_count": 2,
        "log_head": 2,
        "device_lag_entries": 2,
    }
    assert after["sharedlog_append_seconds_count"] == 4
    assert after["sharedlog_append_seconds_sum"] > 0


def test_who_never_says_what_he_has_is_behind_by_his_own_entries_too(
    ada: Asker, admin: Asker
) -> None:
    one, two = (ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"] for _ in range(2))

    def write(device: str, number: int, **more: Any) -> Any:
        packed = [[NOON + number, 0, change(number)]]
        return ada.ask(WRITE, {"user": "ada", "device": device, "packed": packed, **more})

    after = write(one, 1)["writeEntries"]["cursor"]
    write(two, 2, after=after)
    assert numbers(admin)["sharedlog_device_lag_entries"] == 1  # two's entry, which one lacks
    for number in (3, 4):
        write(one, number)
    assert numbers(admin)["sharedlog_device_lag_entries"] == 3  # and its own two
    head = write(one, 5, after=after)["writeEntries"]["cursor"]
    ada.ask(WRITE, {"user": "ada", "device": two, "packed": [], "after": head})
    write(one, 6, after=head)
    assert numbers(admin)["sharedlog_device_lag_entries"] == 1  # of two, which lacks one's last


def test_a_service_that_is_mounted_counts_too(tmp_path: Path) -> None:
    inner = create_app(Settings(db=tmp_path / "log.db", no_auth=True))
    outer = Starlette(routes=[Mount("/sync", inner)], lifespan=inner.router.lifespan_context)
    with TestClient(outer, base_url="http://127.0.0.1") as client:
        assert client.post("/sync/graphql", json={}).status_code == 400
        assert read(client.get("/sync/metrics").text)["sharedlog_requests_total BAD_REQUEST"] == 1


def test_while_the_database_does_not_answer_its_numbers_are_left_out(
    tmp_path: Path, ada: Asker
) -> None:
    app = create_app(Settings(db=tmp_path / "log.db"))
    with TestClient(app, client=("127.0.0.1", 5000)) as client:
        assert read(client.get("/metrics").text).keys() >= STATE
        with closing(sqlite3.connect(tmp_path / "log.db")) as db:
            db.execute("ALTER TABLE logs RENAME TO away")
            found = read(client.get("/metrics").text)
            db.execute("ALTER TABLE away RENAME TO logs")
    assert found["sharedlog_sockets"] == 0
    assert found.keys().isdisjoint(STATE)


def test_open_sockets_are_counted(ada: Asker, admin: Asker) -> None:
    headers = {"host": "127.0.0.1:8000"}
    protocols = ["graphql-transport-ws"]
    with ada.client.websocket_connect("/graphql", protocols, headers=headers) as socket:
        assert numbers(admin)["sharedlog_sockets"] == 1
        socket.send_json({"type": "connection_init", "payload": {"authorization": "Bearer no"}})
        assert socket.receive()["code"] == 4403
    found = numbers(admin)
    assert found["sharedlog_sockets"] == 0
    assert found["sharedlog_auth_failures_total UNAUTHENTICATED"] == 1


def test_a_histogram_counts_what_is_at_most_so_much() -> None:
    histogram = Histogram((0.5, 2))
    for value in (0.1, 0.5, 0.6, 2, 3):
        histogram.observe(value)
    assert list(histogram.lines("x")) == [
        'x_bucket{le="0.5"} 2',
        'x_bucket{le="2"} 4',
        'x_bucket{le="+Inf"} 5',
        "x_sum 6.200000",
        "x_count 5",
    ]


def test_from_elsewhere_a_token_with_the_scope_admin_is_needed(ada: Asker, admin: Asker) -> None:

    for token, status, code in (
        (None, 401, "UNAUTHENTICATED"),
        ("slog_x", 401, "UNAUTHENTICATED"),
        (ada.token, 403, "SCOPE_MISSING"),
    ):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        response = ada.client.get("/metrics", headers=headers)
        assert response.status_code == status
        assert response.json()["errors"][0]["extensions"]["code"] == code
        assert "sharedlog_" not in response.text
    assert numbers(admin)


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("203.0.113.9", {}, 401),
        # What a proxy on this machine passes on comes from anywhere.
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 401),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, 401),
        ("127.0.0.1", {"x-real-ip": "127.0.0.1"}, 401),
        ("127.0.0.1", {"via": "1.1 proxy"}, 401),
    ],
)
def test_on_this_machine_none_is(
    tmp_path: Path, peer: str, headers: dict[str, str], status: int
) -> None:
    app = create_app(Settings(db=tmp_path / "log.db"))
    with TestClient(app, client=(peer, 5000)) as client:
        assert client.get("/metrics", headers=headers).status_code == status


def test_without_tokens_everybody_on_this_machine_sees_them(serve: Callable[..., Asker]) -> None:
    client = serve(no_auth=True).client
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={"host": "evil.example"}).status_code == 421
