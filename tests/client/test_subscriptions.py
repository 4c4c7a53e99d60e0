"""A subscription at a real WebSocket, whose other side says what the test wants."""

from __future__ import annotations

import json
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from sharedlog import ConnectionFailed, ProtocolError, SharedLogError, Unauthorized
from sharedlog.errors import DeviceUnknown
from sharedlog.remote.subscriptions import Subscription, subscribe

WAIT_S = 10.0
ACK = {"type": "connection_ack"}

Behaviour = Callable[[ServerConnection], None]


class Peer:
    """The other side: greets, notes what it gets, and then does what it was told to."""

    def __init__(self, then: Behaviour, greeting: Any = ACK) -> None:
        self.frames: list[dict[str, Any]] = []
        self.protocol: str | None = None
        self._then = then
        self._greeting = greeting

    def handle(self, socket: ServerConnection) -> None:
        self.protocol = socket.subprotocol
        self.read(socket)
        say(socket, self._greeting)
        try:
            self.read(socket)
            self._then(socket)
        except ConnectionClosed:
            pass

    def read(self, socket: ServerConnection) -> None:
        self.frames.append(json.loads(socket.recv(WAIT_S)))


def listen(socket: ServerConnection) -> None:
    socket.recv(WAIT_S)


def say(socket: ServerConnection, *frames: Any) -> None:
    for frame in frames:
        socket.send(frame if isinstance(frame, str) else json.dumps(frame))


def next_frame(value: int) -> dict[str, Any]:
    return {"type": "next", "id": "1", "payload": {"data": {"value": value}}}


@contextmanager
def subscribed(peer: Peer, timeout_s: float = WAIT_S, **options: Any) -> Iterator[Subscription]:
    handle = options.pop("handle", peer.handle)
    options.setdefault("subprotocols", ["graphql-transport-ws"])
    with serve(handle, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/graphql"
        try:
            with subscribe(url, "Bearer x", "subscription { a }", {"b": 1}, timeout_s) as found:
                yield found
        finally:
            server.shutdown()
            thread.join()


def test_it_greets_subscribes_and_yields_what_comes() -> None:
    peer = Peer(lambda socket: say(socket, next_frame(1), next_frame(2), {"type": "complete"}))
    found = []
    with subscribed(peer) as subscription, pytest.raises(ConnectionFailed, match="ended"):
        for data in subscription:
            found.append(data)
    assert found == [{"value": 1}, {"value": 2}]
    assert peer.protocol == "graphql-transport-ws"
    assert peer.frames == [
        {"type": "connection_init", "payload": {"authorization": "Bearer x"}},
        {
            "type": "subscribe",
            "id": "1",
            "payload": {"query": "subscription { a }", "variables": {"b": 1}},
        },
    ]


def test_it_answers_pings() -> None:
    def behave(socket: ServerConnection) -> None:
        say(socket, {"type": "ping"})
        peer.read(socket)
        say(socket, next_frame(1))

    peer = Peer(behave)
    with subscribed(peer) as subscription:
        assert next(iter(subscription)) == {"value": 1}
    assert peer.frames[-1] == {"type": "pong"}


ERROR = {"message": "no", "extensions": {"code": "DEVICE_UNKNOWN"}}

ENDS: dict[str, tuple[Behaviour, type[SharedLogError], str]] = {
    "refused": (
        lambda socket: say(socket, {"type": "error", "id": "1", "payload": [ERROR]}),
        DeviceUnknown,
        "no",
    ),
    "an error later": (
        lambda socket: say(socket, {"type": "next", "payload": {"data": None, "errors": [ERROR]}}),
        DeviceUnknown,
        "no",
    ),
    "not valid any more": (lambda socket: socket.close(4403, "over"), Unauthorized, "token"),
    "restarting": (lambda socket: socket.close(1012), ConnectionFailed, r"\(1012\)"),
    "too many": (lambda socket: socket.close(4429, "Too many"), ConnectionFailed, "4429 Too many"),
    "cut": (
        lambda socket: socket.socket.shutdown(sockets.SHUT_RDWR),
        ConnectionFailed,
        r"closed\.",
    ),
    "not JSON": (lambda socket: say(socket, "{"), ProtocolError, "not JSON"),
    "no object": (lambda socket: say(socket, [1]), ProtocolError, "not an object"),
}


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_by_an_error_that_says_why(name: str) -> None:
    behave, kind, match = ENDS[name]
    with subscribed(Peer(behave)) as subscription, pytest.raises(kind, match=match):
        next(iter(subscription))


def test_it_begins_only_where_it_is_greeted() -> None:
    peer = Peer(lambda socket: None, greeting={"type": "other"})
    with pytest.raises(ProtocolError, match="did not greet"), subscribed(peer):
        raise AssertionError("it began")
    with (
        pytest.raises(ConnectionFailed, match="does not answer"),
        subscribed(peer, 0.05, handle=lambda socket: socket.recv(WAIT_S) and socket.recv(WAIT_S)),
    ):
        raise AssertionError("it began")
    with (
        pytest.raises(Unauthorized),
        subscribed(peer, handle=lambda socket: socket.close(4403)),
    ):
        raise AssertionError("it began")


@pytest.mark.parametrize(
    ("status", "kind"), [(403, Unauthorized), (401, Unauthorized), (503, ConnectionFailed)]
)
def test_a_refused_handshake(status: int, kind: type[SharedLogError]) -> None:
    def refuse(socket: ServerConnection, request: Any) -> Any:
        return socket.respond(HTTPStatus(status), "no\n")

    with pytest.raises(kind), subscribed(Peer(print), process_request=refuse):
        raise AssertionError("it began")


def test_nobody_is_there() -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/graphql"
        with (
            pytest.raises(ConnectionFailed, match="No WebSocket"),
            subscribe(url, None, "", {}, WAIT_S),
        ):
            raise AssertionError("it began")


def test_another_thread_may_close_it() -> None:
    with subscribed(Peer(listen)) as subscription:
        closing = threading.Timer(0.02, subscription.close)
        closing.start()
        with pytest.raises(ConnectionFailed):
            next(iter(subscription))
        closing.join()
