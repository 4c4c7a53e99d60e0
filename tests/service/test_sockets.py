"""Frames on WebSockets are held to the same bounds as bodies, with a subscription made for this."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import strawberry
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from sharedlog.remote.documents import ABOUT, POKED
from sharedlog_service.access.auth import issue_token, revoke_token, token_digest
from sharedlog_service.api.context import Asker
from sharedlog_service.api.known import KnownDocuments
from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.entries import NewEntry
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web import endpoint, sockets
from sharedlog_service.web.app import create_app
from sharedlog_service.web.sockets import FRAME_BYTES_MAX, OPERATIONS_MAX, SocketGuard
from tests.service.support import READ
from tests.service.test_guard import BODIES

PROTOCOL = "graphql-transport-ws"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, info: Asker, to: int) -> AsyncIterator[int]:
        # Whoever is not known to the store counts for nobody.
        await info.context.run.read(info.context.access.viewer)  # type: ignore[misc]
        for number in range(to):
            yield number

    @strawberry.subscription
    async def wait(self) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    @strawberry.subscription
    async def fail(self) -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("CANARY")


def counting_schema() -> ServiceSchema:
    return build_schema(subscription=Subscription)


Connect = Callable[..., Any]


class Served:
    """The application with a subscription, and a token for it."""

    def __init__(self, db: Path, **settings: Any) -> None:
        self.db = db
        store = Store.open(db)
        self.token = issue_token(store, "ada", "test")
        store.close()
        app = create_app(Settings(db=db, **settings), schema=counting_schema())
        self.client = TestClient(app, base_url="http://127.0.0.1:8000")

    def socket(self, *protocols: str, **headers: str) -> Any:
        headers.setdefault("host", "127.0.0.1:8000")
        return self.client.websocket_connect(
            "/graphql", subprotocols=list(protocols or (PROTOCOL,)), headers=headers
        )

    @contextmanager
    def greeted(self) -> Iterator[WebSocketTestSession]:
        """Open a socket and get over the greeting, as ada."""
        with self.socket() as socket:
            payload = {"authorization": f"Bearer {self.token}"}
            socket.send_json({"type": "connection_init", "payload": payload})
            assert socket.receive_json() == {"type": "connection_ack"}
            yield socket


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "log.db")
    with served.client:
        yield served


def subscribe(document: str, id: str = "1", **more: Any) -> dict[str, Any]:
    return {"type": "subscribe", "id": id, "payload": {"query": document, **more}}


def closed(socket: WebSocketTestSession) -> int:
    """Return the code that the service closed with; anything else it says fails the test."""
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_text()
    assert len(caught.value.reason.encode()) <= 123
    return caught.value.code


def test_a_subscription(served: Served) -> None:
    with served.greeted() as socket:
        text = "subscription($to: Int!) { count(to: $to) }"
        socket.send_json(subscribe(text, variables={"to": 2}))
        answers = [socket.receive_json() for _ in range(3)]
        assert [answer["type"] for answer in answers] == ["next", "next", "complete"]
        assert [answer["payload"] for answer in answers[:2]] == [
            {"data": {"count": 0}},
            {"data": {"count": 1}},
        ]
        socket.send_json({"type": "ping"})
        assert socket.receive_json() == {"type": "pong"}


BAD_FRAMES: dict[str, bytes] = {
    **{
        name: body
        for name, body in BODIES.items()
        if name not in ("byte 0x82", "invalid UTF-8 in a text", "UTF-16")
        and len(body) <= FRAME_BYTES_MAX
    },
    "no type": b"{}",
    "a type that is a list": b'{"type": ["ping"]}',
    "a type without an end": b'{"type": "' + b"x" * 1000 + b'"}',
    "a type that is none": b'{"type": "start", "id": "1", "payload": {"query": "{a}"}}',
    "a payload that is none": b'{"type": "ping", "payload": "x"}',
    "an id that is none": b'{"type": "complete", "id": 5}',
    "no id": b'{"type": "subscribe", "payload": {"query": "{a}"}}',
    "an id without an end": b'{"type": "complete", "id": "' + b"x" * 101 + b'"}',
    "a token that is none": b'{"type": "connection_init", "payload": {"authorization": 5}}',
    "query a number": b'{"type": "subscribe", "id": "1", "payload": {"query": 5}}',
    "no query": b'{"type": "subscribe", "id": "1"}',
    "variables a list": (
        b'{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "variables": []}}'
    ),
    "deep variables": (
        b'{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "variables": {"a": '
        + b"[" * 40
        + b"]" * 40
        + b"}}}"
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_closes_the_socket(served: Served, name: str) -> None:
    with served.greeted() as socket:
        socket.send_text(BAD_FRAMES[name].decode())
        assert closed(socket) == 4400


def test_bytes_close_the_socket(served: Served) -> None:
    with served.greeted() as socket:
        socket.send_bytes(gzip.compress(b'{"type": "ping"}'))
        assert closed(socket) == 4400


def test_a_huge_frame_closes_the_socket(served: Served) -> None:
    with served.greeted() as socket:
        fits = json.dumps({"type": "ping", "payload": {}})
        socket.send_text(fits + " " * (FRAME_BYTES_MAX - len(fits)))
        assert socket.receive_json() == {"type": "pong"}
        socket.send_text(fits + " " * (FRAME_BYTES_MAX - len(fits) + 1))
        assert closed(socket) == 1009


def test_who_does_not_greet_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "INIT_WAIT_S", 0)
    quick = Served(served.db)
    with quick.client, quick.socket() as socket:
        assert closed(socket) == 4408


@pytest.mark.parametrize("payload", [None, {}, {"authorization": "Bearer slog_nobody"}])
def test_a_socket_needs_a_valid_token(served: Served, payload: dict[str, str] | None) -> None:
    with served.socket() as socket:
        socket.send_json({"type": "connection_init", "payload": payload})
        assert closed(socket) == 4403


def test_the_protocol_is_kept_to(served: Served) -> None:
    with served.socket() as socket:
        socket.send_json(subscribe("subscription { count(to: 1) }"))
        assert closed(socket) == 4401
    with served.greeted() as socket:
        socket.send_json({"type": "connection_init"})
        assert closed(socket) == 4429
    with served.greeted() as socket:
        for _ in range(2):
            socket.send_json(subscribe("subscription { wait }"))
        assert closed(socket) == 4409


@pytest.mark.parametrize("protocol", ["graphql-ws", "other"])
def test_no_other_protocol_is_spoken(served: Served, protocol: str) -> None:
    with served.socket(protocol) as socket:
        assert closed(socket) == 4406


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9000"])
def test_a_page_from_elsewhere_gets_no_socket(served: Served, origin: str) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, served.socket(origin=origin):
        raise AssertionError("it was let in")
    assert caught.value.code == 1008
    with served.socket(origin="http://127.0.0.1:8000"):
        pass


def test_without_tokens_only_loopback_names_are_answered(tmp_path: Path) -> None:
    open_to_all = Served(tmp_path / "log.db", no_auth=True)
    with open_to_all.client:
        with open_to_all.socket(host="localhost:8000"):
            pass
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            open_to_all.socket(host="evil.example"),
        ):
            raise AssertionError("it was let in")
    assert caught.value.status_code == 421


def test_only_so_many_operations_run_on_one_socket(served: Served) -> None:
    with served.greeted() as socket:
        for n in range(OPERATIONS_MAX + 1):
            socket.send_json(subscribe("subscription { wait }", str(n)))
        refused = socket.receive_json()
        assert (refused["type"], refused["id"]) == ("error", str(OPERATIONS_MAX))
        socket.send_json({"type": "complete", "id": "0"})
        socket.send_json(subscribe("subscription { count(to: 1) }", "new"))
        assert socket.receive_json()["id"] == "new"


def test_a_long_answer_does_not_come_by_a_socket(served: Served) -> None:
    store = Store.open(served.db)
    for device in ("writer", "reader"):
        store.create_device("ada", device_id=device)
    store.write("ada", "writer", [NewEntry(n, 0, "x" * 100_000) for n in (1, 2)])
    store.close()
    variables = {"user": "ada", "device": "reader"}
    with served.greeted() as socket:
        socket.send_json(subscribe(READ, "a", variables=variables))
        answer = socket.receive_json()
        assert (answer["type"], answer["id"]) == ("next", "a")
        [error] = answer["payload"]["errors"]
        assert error["extensions"] == {"code": "INVALID_ARGUMENT"}
        assert "by HTTP" in error["message"]
        assert socket.receive_json() == {"type": "complete", "id": "a"}
        socket.send_json(subscribe("subscription { count(to: 1) }", "b"))
        assert socket.receive_json()["payload"] == {"data": {"count": 0}}


def test_a_revoked_token_is_noticed_on_an_open_socket(served: Served) -> None:
    with served.greeted() as socket:
        store = Store.open(served.db)
        revoke_token(store, token_digest(served.token))
        store.close()
        socket.send_json(subscribe("subscription { count(to: 1) }"))
        assert socket.receive_json()["payload"]["errors"][0]["extensions"] == {
            "code": "UNAUTHENTICATED"
        }


def test_documents_are_refused_one_by_one(tmp_path: Path) -> None:
    public = Served(tmp_path / "log.db", explore=False)
    with public.client, public.greeted() as socket:
        socket.send_json(subscribe("subscription { count(to: 1) }", "a"))
        refused = socket.receive_json()
        assert (refused["type"], refused["id"]) == ("error", "a")
        assert refused["payload"][0]["extensions"] == {"code": "DOCUMENT_NOT_ALLOWED"}

        def persisted(text: str) -> dict[str, Any]:
            return {"persistedQuery": {"sha256Hash": sha256(text.encode()).hexdigest()}}

        socket.send_json({**subscribe("", "b"), "payload": {"extensions": persisted("{ other }")}})
        assert socket.receive_json()["payload"][0]["extensions"] == {
            "code": "PERSISTED_QUERY_NOT_FOUND"
        }
        socket.send_json({**subscribe("", "c"), "payload": {"extensions": persisted(ABOUT)}})
        about = socket.receive_json()
        assert (about["type"], about["id"]) == ("next", "c")
        assert about["payload"]["data"]["sharedSyncLog"]["viewer"] == "ada"


def test_the_library_s_subscription_is_answered_by_text_and_by_hash(serve: Any) -> None:
    asker = serve(explore=False)
    digest = sha256(POKED.encode()).hexdigest()
    with asker.client.websocket_connect("/graphql", [PROTOCOL]) as socket:
        payload = {"authorization": f"Bearer {asker.token}"}
        socket.send_json({"type": "connection_init", "payload": payload})
        assert socket.receive_json() == {"type": "connection_ack"}
        variables = {"userId": "ada", "deviceId": "nobody's"}
        by_hash: dict[str, Any] = {"extensions": {"persistedQuery": {"sha256Hash": digest}}}
        for id, asked in (("a", {"query": POKED}), ("b", by_hash)):
            whole = {**asked, "variables": variables}
            socket.send_json({"type": "subscribe", "id": id, "payload": whole})
            assert "DEVICE_UNKNOWN" in json.dumps(socket.receive_json())
            assert socket.receive_json() == {"type": "complete", "id": id}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ CANARY", "GRAPHQL_PARSE_FAILED"),
    ],
)
def test_what_does_not_fit_the_schema_is_told(
    served: Served, text: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served.greeted() as socket:
        socket.send_json(subscribe(text))
        refused = socket.receive_json()
        assert refused["type"] == "error"
        assert refused["payload"][0]["extensions"] == {"code": code}
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query A { __typename }", 'Unknown operation named "B".'),
        ("fragment F on Query { __typename }", 'Unknown operation named "B".'),
    ],
)
def test_an_operation_that_is_not_there_is_no_fault(
    served: Served, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served.greeted() as socket:
        payload = {"query": text, "operationName": "B"}
        socket.send_json({"type": "subscribe", "id": "1", "payload": payload})
        refused = socket.receive_json()
        assert refused["type"] == "error"
        assert refused["payload"] == [{"message": said, "extensions": {"code": "BAD_REQUEST"}}]
    assert caplog.text == ""


def test_the_unexpected_is_masked(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), served.greeted() as socket:
        socket.send_json(subscribe("subscription { fail }"))
        answers = [socket.receive_json() for _ in range(2)]
        assert "CANARY" not in json.dumps(answers)
        assert "INTERNAL" in json.dumps(answers)
    assert "CANARY" not in caplog.text


def test_a_fault_behind_the_guard_closes_the_socket(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr(endpoint.Endpoint, "on_ws_connect", broken)
    with served.socket() as socket:
        socket.send_json({"type": "connection_init"})
        assert closed(socket) == 1011
    assert "RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text


def test_a_process_has_so_many_sockets(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 1)
    with served.greeted():
        with pytest.raises(WebSocketDenialResponse) as caught, served.socket():
            raise AssertionError("it was let in")
        assert caught.value.status_code == 503
    with served.greeted():  # the place is free again
        pass


def test_who_has_not_greeted_makes_room_for_who_comes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first; whoever has greeted stays."""
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 3)
    with served.greeted() as first, served.socket() as older, served.socket() as newer:
        with served.greeted():
            assert closed(older) == 1013
            newer.send_json({"type": "ping"})
            assert newer.receive_json() == {"type": "pong"}
            with served.greeted():
                assert closed(newer) == 1013
                with pytest.raises(WebSocketDenialResponse) as caught, served.socket():
                    raise AssertionError("it was let in")
                assert caught.value.status_code == 503
        first.send_json(subscribe("subscription { count(to: 1) }"))
        assert first.receive_json()["type"] == "next"


def test_many_who_come_at_once_are_let_in_as_far_as_there_is_room(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes the place of another one."""
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 2)
    with served.greeted(), served.socket() as silent, served.socket() as next_one:
        assert closed(silent) == 1013
        with served.socket() as last:
            assert closed(next_one) == 1013
            last.send_json({"type": "ping"})
            assert last.receive_json() == {"type": "pong"}


def test_who_does_not_leave_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another server, whose sockets wait until what they send is taken."""
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 1)
    monkeypatch.setattr(sockets, "ROOM_S", 0.01)

    async def story() -> None:
        begun, sent = asyncio.Event(), []

        async def for_ever(*args: object) -> Any:
            begun.set()
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        guard = SocketGuard(for_ever, documents=KnownDocuments(()), allow=for_ever)

        def scope() -> dict[str, Any]:
            refusable: dict[str, Any] = {"websocket.http.response": {}}
            return {"type": "websocket", RECORD_KEY: Record("1"), "extensions": refusable}

        silent = asyncio.create_task(guard(scope(), for_ever, for_ever))
        await begun.wait()
        await guard(scope(), for_ever, send)
        assert [message.get("status") for message in sent] == [503, None]
        silent.cancel()
        with suppress(asyncio.CancelledError):
            await silent

    asyncio.run(story())
