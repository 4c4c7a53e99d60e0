"""The application over HTTP, end to end: a sync's requests, people's queries, masked errors."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sharedlog_service.store.store import Store
from sharedlog_service.store.writer import Inline
from sharedlog_service.web.app import InProcess
from tests.service.support import (
    CREATE_DEVICE,
    NOON,
    NOON_MS,
    READ,
    WRITE,
    Asker,
    ManualClock,
    change,
)


@pytest.fixture
def devices(ada: Asker) -> tuple[str, str]:
    one, two = (ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"] for _ in range(2))
    return one, two


def test_a_sync_in_one_round_trip(ada: Asker, devices: tuple[str, str]) -> None:
    one, two = devices
    mine = [[NOON + 5, 0, change(1)], [NOON + 6, 1, change(2)]]
    first = ada.ask(WRITE, {"user": "ada", "device": one, "packed": mine})["writeEntries"]
    assert (first["accepted"], first["rejected"], first["update"]) == (2, [], None)
    assert first["serverTime"] == NOON_MS
    theirs = [[NOON + 9, 0, change(3)]]
    variables = {"user": "ada", "device": two, "packed": theirs, "withUpdate": True}
    second = ada.ask(WRITE, variables)["writeEntries"]
    update = second["update"]
    assert update["packed"] == {"devices": [one], "entries": [[0, *entry] for entry in mine]}
    assert update["cursor"] == update["head"] == second["cursor"]
    assert update["hasMore"] is False
    back = ada.ask(READ, {"user": "ada", "device": one, "after": first["cursor"]})
    assert back["getUnsyncedEntries"]["packed"]["entries"] == [[0, *theirs[0]]]


def test_typed_and_packed_are_the_same_entries(ada: Asker, devices: tuple[str, str]) -> None:
    one, two = devices
    typed = [
        {"createdOn": NOON_MS + 0.5, "data": change("a", "modify")},
        {"createdOn": NOON_MS + 1 / 1024, "group": NOON_MS, "data": "sealed"},
    ]
    written = ada.ask(WRITE, {"user": "ada", "device": one, "entries": typed})["writeEntries"]
    assert written["accepted"] == 2
    update = ada.ask(READ, {"user": "ada", "device": two})["getUnsyncedEntries"]
    assert update["packed"] == {
        "devices": [one],
        "entries": [[0, NOON + 512, 0, change("a", "modify")], [0, NOON + 1, 1, "sealed"]],
    }
    first, second = update["entries"]
    epoch = update["epoch"]
    assert first == {
        "userId": "ada",
        "deviceId": one,
        "createdOn": NOON_MS + 0.5,
        "sharedOn": NOON_MS,
        "data": change("a", "modify"),
        "cursor": f"{epoch}.1",
        "position": 1,
        "group": NOON_MS + 0.5,
        "operation": "MODIFY",
        "collection": "note",
        "pk": "a",
    }
    assert second["createdOn"] == NOON_MS + 1 / 1024
    assert second["group"] == NOON_MS
    assert (second["operation"], second["collection"], second["pk"]) == (None, None, None)


def test_each_tick_is_exact_as_a_float(ada: Asker, devices: tuple[str, str]) -> None:
    one, two = devices
    ticks = [NOON + n for n in range(0, 2048, 15)]
    typed = [{"createdOn": tick / 1024, "data": "x"} for tick in ticks]
    ada.ask(WRITE, {"user": "ada", "device": one, "entries": typed})
    read = {"user": "ada", "device": two, "batchSize": 200}
    update = ada.ask(READ, read)["getUnsyncedEntries"]
    assert [entry[1] for entry in update["packed"]["entries"]] == ticks
    assert [entry["createdOn"] * 1024 for entry in update["entries"]] == ticks


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"createdOn": NOON_MS + 0.0003, "data": "x"}, "ENTRY_INVALID"),
        ({"createdOn": -1.0, "data": "x"}, "ENTRY_INVALID"),
        ({"createdOn": 1e300, "data": "x"}, "CLOCK_AHEAD"),
        ({"createdOn": 1e308, "data": "x"}, "ENTRY_INVALID"),
        ({"createdOn": NOON_MS, "group": NOON_MS + 1, "data": "x"}, "ENTRY_INVALID"),
        ({"createdOn": NOON_MS, "group": 1e308, "data": "x"}, "ENTRY_INVALID"),
        ({"createdOn": NOON_MS, "data": ""}, "ENTRY_INVALID"),
        ({"createdOn": NOON_MS + 300_001, "data": "x"}, "CLOCK_AHEAD"),
    ],
)
def test_a_typed_entry_is_refused_alone(
    ada: Asker, devices: tuple[str, str], entry: dict[str, Any], code: str
) -> None:
    good = {"createdOn": NOON_MS + 1, "data": "good"}
    variables = {"user": "ada", "device": devices[0], "entries": [entry, good]}
    receipt = ada.ask(WRITE, variables)["writeEntries"]
    assert receipt["accepted"] == 1
    assert [(r["index"], r["code"]) for r in receipt["rejected"]] == [(0, code)]
    assert [r["status"] for r in receipt["results"]] == ["REJECTED", "ACCEPTED"]


def test_a_receipt_answers_for_each_entry(ada: Asker, devices: tuple[str, str]) -> None:
    one = devices[0]
    ada.ask(WRITE, {"user": "ada", "device": one, "packed": [[NOON, 0, "a"]]})
    batch = [[NOON, 0, "a"], [NOON, 0, "forged"], "nonsense", [NOON + 1, 0, "b"]]
    receipt = ada.ask(WRITE, {"user": "ada", "device": one, "packed": batch})["writeEntries"]
    assert (receipt["accepted"], receipt["duplicates"]) == (1, 1)
    assert [(r["createdOn"], r["status"], r["code"]) for r in receipt["results"]] == [
        (NOON_MS, "DUPLICATE", None),
        (NOON_MS, "REJECTED", "DEVICE_CLONED"),
        (None, "REJECTED", "ENTRY_INVALID"),
        (NOON_MS + 1 / 1024, "ACCEPTED", None),
    ]
    assert [(r["index"], r["code"]) for r in receipt["rejected"]] == [
        (1, "DEVICE_CLONED"),
        (2, "ENTRY_INVALID"),
    ]
    assert all(r["reason"] for r in receipt["rejected"])


def test_paging_over_http(ada: Asker, devices: tuple[str, str]) -> None:
    one, two = devices
    packed = [[NOON + n, 0, str(n)] for n in range(7)]
    ada.ask(WRITE, {"user": "ada", "device": one, "packed": packed})
    found: list[str] = []
    after, more = None, True
    while more:
        variables = {"user": "ada", "device": two, "after": after, "batchSize": 3}
        update = ada.ask(READ, variables)["getUnsyncedEntries"]
        found += [entry[3] for entry in update["packed"]["entries"]]
        after, more = update["cursor"], update["hasMore"]
    assert found == [str(n) for n in range(7)]
    assert after == update["head"]


def test_reading_on_leaves_a_trace_of_where_the_device_is(
    ada: Asker, devices: tuple[str, str]
) -> None:
    one, two = devices
    head = ada.ask(WRITE, {"user": "ada", "device": one, "packed": [[NOON, 0, "x"]]})
    after = head["writeEntries"]["cursor"]
    ada.ask(READ, {"user": "ada", "device": two, "after": after})
    # The note goes through the same queue, so another write comes behind it.
    ada.ask(WRITE, {"user": "ada", "device": one, "packed": []})
    info = """query($d: ID!) {
        sharedSyncLog {getDeviceInfo(userId: "ada", deviceId: $d) {cursor lastSeen}}}"""
    found = ada.ask(info, {"d": two})["getDeviceInfo"]
    assert found == {"cursor": after, "lastSeen": NOON_MS}


def test_a_batch_over_the_limit_is_told_the_limits(ada: Asker, devices: tuple[str, str]) -> None:
    packed = [[NOON - n, 0, "x"] for n in range(10_001)]
    write = """mutation($d: ID!, $p: PackedEntries!) {
        sharedSyncLog {writeEntries(userId: "ada", deviceId: $d, packed: $p) {accepted}}}"""
    answer = ada.post(write, {"d": devices[0], "p": packed})
    assert answer["errors"][0]["extensions"] == {
        "code": "BATCH_TOO_LARGE",
        "batchEntries": 10_000,
        "batchBytes": 8 * 1024 * 1024,
    }


@pytest.mark.parametrize(
    ("after", "code"),
    [("nonsense", "CURSOR_INVALID"), ("other.1", "EPOCH_CHANGED"), ("{epoch}.1", "CURSOR_AHEAD")],
)
def test_a_bad_cursor_has_its_code(
    ada: Asker, devices: tuple[str, str], after: str, code: str
) -> None:
    read = {"user": "ada", "device": devices[0]}
    epoch = ada.ask(READ, read)["getUnsyncedEntries"]["epoch"]
    cursor = after.replace("{epoch}", epoch)
    assert ada.code(READ, {**read, "after": cursor}) == code
    assert ada.code(WRITE, {**read, "packed": [], "after": cursor}) == code
    mark = """mutation($c: Cursor!, $d: ID!) {
        sharedSyncLog {markAsSeen(userId: "ada", deviceId: $d, cursor: $c) {id}}}"""
    assert ada.code(mark, {"c": cursor, "d": devices[0]}) == code


def test_registering_again_after_a_lost_answer(ada: Asker) -> None:
    variables = {"user": "ada", "name": "laptop", "request": "once"}
    first, again = (ada.ask(CREATE_DEVICE, variables) for _ in range(2))
    assert first == again
    assert len(ada.ask('{sharedSyncLog {devices(userId: "ada") {id}}}')["devices"]) == 1


def test_a_device_can_be_revoked(ada: Asker, devices: tuple[str, str]) -> None:
    revoke = """mutation($d: ID!) {
        sharedSyncLog {revokeDevice(userId: "ada", deviceId: $d) {id revoked}}}"""
    assert ada.ask(revoke, {"d": devices[0]})["revokeDevice"]["revoked"] is True
    assert ada.code(READ, {"user": "ada", "device": devices[0]}) == "DEVICE_REVOKED"
    assert ada.code(revoke, {"d": "unknown"}) == "DEVICE_UNKNOWN"


def test_peoples_queries(ada: Asker, devices: tuple[str, str]) -> None:
    packed = [[NOON, 0, change("a")], [NOON + 1, 0, change("a", "delete")], [NOON + 2, 0, "sealed"]]
    ada.ask(WRITE, {"user": "ada", "device": devices[0], "packed": packed})
    answer = ada.ask("""{
      sharedSyncLog {
        history(userId: "ada", collection: "note", pk: "a") { operation position }
        entries(userId: "ada", last: 1) { nodes { data } pageInfo { hasPreviousPage } }
        stats(userId: "ada") {
          entries devices head
          collections { collection entries creates modifies deletes }
        }
      }
    }""")
    assert answer["history"] == [
        {"operation": "CREATE", "position": 1},
        {"operation": "DELETE", "position": 2},
    ]
    assert answer["entries"] == {
        "nodes": [{"data": "sealed"}],
        "pageInfo": {"hasPreviousPage": True},
    }
    assert answer["stats"]["entries"] == 3
    assert answer["stats"]["collections"] == [
        {"collection": "note", "entries": 2, "creates": 1, "modifies": 0, "deletes": 1}
    ]


# What is unexpected


def test_the_unexpected_is_masked_and_logged_once_without_anybodys_data(
    ada: Asker,
    devices: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault is planted in the store, whose message quotes secrets as real ones do."""

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("postgresql://admin:CANARY@db/log at data CANARY")

    monkeypatch.setattr(Store, "read", broken)
    with caplog.at_level(logging.DEBUG):
        answer = ada.post(READ, {"user": "ada", "device": "CANARY"})
    extensions = answer["errors"][0]["extensions"]
    assert extensions["code"] == "INTERNAL"
    assert "CANARY" not in json.dumps(answer)
    records = [
        record for record in caplog.records if extensions["requestId"] in record.getMessage()
    ]
    assert len(records) == 1
    assert "RuntimeError" in records[0].getMessage()
    assert "test_app.py" in records[0].getMessage()
    everything = "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records)
    assert "CANARY" not in everything
    assert "getUnsyncedEntries" not in everything
    assert ada.token is not None
    assert ada.token not in everything


def test_a_fault_outside_graphql_is_masked_too(
    ada: Asker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr("sharedlog_service.web.app.Endpoint.get_context", broken)
    with caplog.at_level(logging.DEBUG):
        response = ada.client.post("/graphql", json={"query": "{sharedSyncLog {viewer}}"})
    assert response.status_code == 500
    assert response.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "CANARY" not in response.text + caplog.text


def test_refusals_are_not_logged_as_faults(ada: Asker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ada.code(READ, {"user": "bob", "device": "x"})
        ada.code("{ nothing }")
        ada.code("{")
    assert {record.name for record in caplog.records} <= {"asyncio", "httpx2", "sharedlog.requests"}


# Around GraphQL


def test_the_page_and_the_health_check(ada: Asker) -> None:
    page = ada.client.get("/graphql")
    assert (page.status_code, "<html" in page.text.lower()) == (200, True)
    for path in ("/healthz", "/readyz"):
        assert ada.client.get(path).json() == {"status": "ok"}
    assert ada.client.get("/nothing").status_code == 404


def test_it_is_not_ready_while_the_database_fails_but_alive(
    ada: Asker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        for old, new, ready in (("meta", "away", 503), ("away", "meta", 200)):
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")
            assert ada.client.get("/readyz").status_code == ready
            assert ada.client.get("/healthz").status_code == 200
    assert "OperationalError" in caplog.text or "SQLError" in caplog.text


def test_it_is_not_ready_once_it_leaves_but_answers(ada: Asker) -> None:
    ada.client.app.state.service.leave()  # type: ignore[attr-defined]
    response = ada.client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "leaving"})
    assert ada.client.get("/healthz").status_code == 200
    assert ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]


def test_the_same_application_can_be_served_twice(serve: Callable[..., Asker]) -> None:
    first = serve()
    variables = {"user": "ada", "name": "laptop", "request": "once"}
    device = first.ask(CREATE_DEVICE, variables)
    first.client.__exit__(None, None, None)
    first.client.__enter__()
    assert first.ask(CREATE_DEVICE, variables) == device


# In process


def test_in_process_answers_what_http_answers(
    ada: Asker, devices: tuple[str, str], tmp_path: Path, clock: ManualClock
) -> None:
    packed = [[NOON, 0, change("a")], [NOON + 1, 1, "sealed"]]
    ada.ask(WRITE, {"user": "ada", "device": devices[0], "packed": packed})
    store = Store.open(tmp_path / "log.db", now=clock)
    inside = InProcess(store, "ada")
    for document, variables in (
        (READ, {"user": "ada", "device": devices[1]}),
        (READ, {"user": "ada", "device": "unknown"}),
        (READ, {"user": "bob", "device": devices[1]}),
        (READ, {"user": "ada"}),
        ("{ nothing }", {}),
        (WRITE, {"user": "ada", "device": devices[0], "packed": packed, "withUpdate": True}),
    ):
        assert inside.execute(document, variables) == ada.post(document, variables)
    store.close()


def test_in_process_without_a_user_is_open(store: Store) -> None:
    answer = InProcess(store).execute(CREATE_DEVICE, {"user": "eve"})
    assert "errors" not in answer
    assert "eve" in store.users()


def test_in_process_leaves_the_calling_thread_alone(store: Store) -> None:
    """A simulation drives everything from one thread and one clock."""
    import threading

    before = threading.active_count()
    service = InProcess(store, "ada")
    device = service.execute(CREATE_DEVICE, {"user": "ada"})["data"]["sharedSyncLog"]
    variables = {"user": "ada", "device": device["createDeviceId"], "packed": [[NOON, 0, "x"]]}
    answer = service.execute(WRITE, variables)
    assert answer["data"]["sharedSyncLog"]["writeEntries"]["serverTime"] == NOON_MS
    assert threading.active_count() == before
    assert Inline(store).read(lambda store: store.stats("ada").head.seq) == 1


@pytest.mark.parametrize("path", ["/graphql/", "/healthz/", "/metrics/"])
def test_no_path_is_sent_elsewhere(ada: Asker, path: str) -> None:
    """A redirection would name whatever Host said, by http: a token could go there."""
    response = ada.client.post(path, headers={"host": "elsewhere.example"}, follow_redirects=False)
    assert response.status_code == 404
    assert "location" not in response.headers
