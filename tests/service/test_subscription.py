"""The subscription over the application's own socket. Every field of its kind, with the tokens and
ids of others: a new one is tested here without a word, or fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from sharedlog_service.access import watch
from sharedlog_service.access.auth import issue_token, revoke_token, token_digest
from sharedlog_service.api.schema import build_schema
from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import EVERYTHING, Scope
from sharedlog_service.store.pokes import DEVICE_SOCKETS_MAX, PAUSE_S
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.service.support import NOON, WRITE, Asker, ManualClock, change
from tests.service.test_auth import document

PROTOCOL = "graphql-transport-ws"

ROOT = build_schema()._schema.subscription_type
assert ROOT is not None

FIELDS = {
    name: document("subscription{} {{ {} }}", name, field) for name, field in ROOT.fields.items()
}


POKED = """subscription P($userId: ID!, $deviceId: ID!) {
  sharedSyncLogPoked(userId: $userId, deviceId: $deviceId) { cursor }
}"""


@pytest.fixture
def store(ada: Asker, tmp_path: Any, clock: ManualClock) -> Iterator[Store]:
    """The application's, from another process as it were."""
    store = Store.open(tmp_path / "log.db", now=clock)
    yield store
    store.close()


@contextlib.contextmanager
def greeted(ada: Asker, token: str | None) -> Iterator[WebSocketTestSession]:
    with ada.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as socket:
        payload = {"authorization": f"Bearer {token}"}
        socket.send_json({"type": "connection_init", "payload": payload})
        assert socket.receive_json() == {"type": "connection_ack"}
        yield socket


def subscribe(
    socket: WebSocketTestSession, field: str, id: str = "1", **variables: str
) -> dict[str, Any]:
    """Subscribe and return the first answer: `data`, or the code of the error."""
    text, usual = FIELDS[field]
    payload = {"query": text, "variables": {**usual, **variables}}
    socket.send_json({"type": "subscribe", "id": id, "payload": payload})
    answer: dict[str, Any] = socket.receive_json()
    assert answer["id"] == id
    found: dict[str, Any] = answer["payload"]
    if found.get("errors"):
        assert socket.receive_json() == {"id": id, "type": "complete"}
    return found


def code(answer: dict[str, Any]) -> str | None:
    errors = answer.get("errors")
    return None if errors is None else str(errors[0]["extensions"]["code"])


def closed(socket: WebSocketTestSession) -> int:
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_text()
    return caught.value.code


def test_every_subscription_says_whose_log_and_which_device() -> None:
    assert sorted(FIELDS) == ["sharedSyncLogPoked"]
    for text, variables in FIELDS.values():
        assert "$userId: ID!" in text
        assert "$deviceId: ID!" in text
        assert variables["userId"] == "ada"


@pytest.mark.parametrize("field", FIELDS)
def test_nobody_subscribes_without_a_valid_token(ada: Asker, store: Store, field: str) -> None:
    revoked = issue_token(store, "ada", "lost")
    revoke_token(store, token_digest(revoked)[:12])
    for token in (None, "garbage", revoked):
        with ada.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as socket:
            payload = {} if token is None else {"authorization": f"Bearer {token}"}
            socket.send_json({"type": "connection_init", "payload": payload})
            assert closed(socket) == 4403


@pytest.mark.parametrize("field", FIELDS)
def test_a_log_is_followed_only_by_whose_it_is(ada: Asker, store: Store, field: str) -> None:
    store.create_device("ada", device_id="phone")
    store.create_user("bob")
    theirs = store.create_device("bob")
    with greeted(ada, issue_token(store, "bob", "bob's", scopes=EVERYTHING)) as socket:
        assert code(subscribe(socket, field, deviceId="phone")) == "FORBIDDEN"
        assert code(subscribe(socket, field, userId="nobody", deviceId="x")) == "FORBIDDEN"
        # With the user's own id, another's device is like none: whether there is one is not told.
        answers = [
            subscribe(socket, field, userId="bob", deviceId=device) for device in ("phone", "none")
        ]
        assert code(answers[0]) == "DEVICE_UNKNOWN"
        assert answers[0] == answers[1]
        assert code(subscribe(socket, field, userId="bob", deviceId=theirs)) is None


@pytest.mark.parametrize("field", FIELDS)
def test_it_needs_the_scope_and_the_device_of_the_token(
    ada: Asker, store: Store, field: str
) -> None:
    for device in ("phone", "laptop"):
        store.create_device("ada", device_id=device)
    others = issue_token(store, "ada", "t", scopes=EVERYTHING - {Scope.READ})
    with greeted(ada, others) as socket:
        assert code(subscribe(socket, field, deviceId="phone")) == "SCOPE_MISSING"
    bound = issue_token(store, "ada", "t", scopes=frozenset({Scope.READ}), device="phone")
    with greeted(ada, bound) as socket:
        assert code(subscribe(socket, field, deviceId="laptop")) == "DEVICE_FORBIDDEN"
        assert code(subscribe(socket, field, deviceId="phone")) is None
    admin = issue_token(store, "bob", "t", scopes=frozenset({Scope.ADMIN}))
    with greeted(ada, admin) as socket:
        assert code(subscribe(socket, field, deviceId="phone")) is None


def test_a_revoked_device_is_refused(ada: Asker, store: Store) -> None:
    store.create_device("ada", device_id="phone")
    store.revoke_device("ada", "phone")
    with greeted(ada, ada.token) as socket:
        answer = subscribe(socket, "sharedSyncLogPoked", deviceId="phone")
        assert code(answer) == "DEVICE_REVOKED"


def test_a_poke_tells_where_the_log_ends_and_nothing_else(ada: Asker, store: Store) -> None:
    store.create_device("ada", device_id="phone")
    laptop = store.create_device("ada")
    store.create_user("bob")
    theirs = store.create_device("bob")
    bob = Asker(ada.client, issue_token(store, "bob", "bob's"))
    written = [[NOON, 0, change("canary", collection="canary")]]
    with greeted(ada, ada.token) as socket:
        payload = {"query": POKED, "variables": {"userId": "ada", "deviceId": "phone"}}
        socket.send_json({"type": "subscribe", "id": "a", "payload": payload})
        for turn in range(2):
            if turn:
                bob.ask(WRITE, {"user": "bob", "device": theirs, "packed": written})
                ada.ask(WRITE, {"user": "ada", "device": laptop, "packed": written})
            cursor = str(store.stats("ada").head)
            assert socket.receive_json() == {
                "id": "a",
                "type": "next",
                "payload": {"data": {"sharedSyncLogPoked": {"cursor": cursor}}},
            }


def test_what_is_refused_or_there_already_pokes_nobody(ada: Asker, store: Store) -> None:
    phone, laptop = (store.create_device("ada") for _ in range(2))
    written = {"user": "ada", "device": laptop, "packed": [[NOON, 0, change("a")]]}
    ada.ask(WRITE, written)
    with greeted(ada, ada.token) as socket:
        subscribe(socket, "sharedSyncLogPoked", deviceId=phone)
        ada.ask(WRITE, written)
        ada.ask(WRITE, {**written, "packed": [[NOON + 1, 0, ""]]})
        ada.ask(WRITE, {**written, "packed": []})
        end = time.monotonic() + 5 * PAUSE_S  # by then a poke would have come
        while time.monotonic() < end:
            socket.send_json({"type": "ping"})
            assert socket.receive_json() == {"type": "pong"}


def test_a_device_waits_on_so_many_sockets(ada: Asker, store: Store) -> None:
    phone = store.create_device("ada")
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(greeted(ada, ada.token)) for _ in range(DEVICE_SOCKETS_MAX + 1)
        ]
        answers = [subscribe(socket, "sharedSyncLogPoked", deviceId=phone) for socket in sockets]
        assert [code(answer) for answer in answers] == [None] * DEVICE_SOCKETS_MAX + [
            "TOO_MANY_SOCKETS"
        ]


def test_a_user_has_so_many_sockets(
    ada: Asker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "USER_SOCKETS_MAX", 1)
    with (
        greeted(ada, ada.token),
        ada.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as socket,
    ):
        payload = {"authorization": f"Bearer {ada.token}"}
        socket.send_json({"type": "connection_init", "payload": payload})
        assert closed(socket) == 4429
    with greeted(ada, ada.token):  # the place is free again
        pass


def test_a_database_that_is_away_is_no_bad_token(
    ada: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(store: Store, digest: str) -> None:
        raise Refused(Code.UNAVAILABLE)

    monkeypatch.setattr(Store, "grant", away)
    with ada.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as socket:
        payload = {"authorization": f"Bearer {ada.token}"}
        socket.send_json({"type": "connection_init", "payload": payload})
        assert closed(socket) == 1013


def test_what_answers_once_refuses_it_politely(ada: Asker, store: Store) -> None:
    text, variables = FIELDS["sharedSyncLogPoked"]
    for accept in ("application/json", "text/event-stream"):
        answer = ada.client.post(
            "/graphql",
            json={"query": text, "variables": variables},
            headers={"authorization": f"Bearer {ada.token}", "accept": accept},
        )
        assert answer.status_code == 400
        (error,) = answer.json()["errors"]
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert "WebSocket" in error["message"]
    assert InProcess(store, "ada").execute(text, variables)["errors"] == [error]


def test_without_tokens_whoever_is_named_is_poked(serve: Callable[..., Asker]) -> None:
    asker = serve(no_auth=True)
    create = 'mutation {sharedSyncLog {createDeviceId(userId: "eve", deviceId: "phone")}}'
    asker.ask(create)
    headers = {"host": "localhost:8000"}
    with asker.client.websocket_connect("/graphql", [PROTOCOL], headers=headers) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        poke = subscribe(socket, "sharedSyncLogPoked", userId="eve", deviceId="phone")
        assert code(poke) is None
