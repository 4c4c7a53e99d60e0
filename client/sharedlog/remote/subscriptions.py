"""A GraphQL subscription: one WebSocket that speaks graphql-transport-ws, one operation on it.

The socket is the `websockets` package's, in its form for threads (`pip install 'sharedlog[live]'`).
Of the protocol little is left: greet, subscribe, listen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import ConfigurationError, ConnectionFailed, ProtocolError, RemoteError, Unauthorized
from .addresses import without_secrets
from .transports import error_from

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

PROTOCOL = "graphql-transport-ws"

FORBIDDEN = 4403
"""How the service closes where a token, or the device, is not valid, or is not any more."""

CLOSE_S = 1.0
"""How long a peer is waited for that does not answer when we say goodbye."""


class Subscription:
    """The answers to one subscription, each the `data` of one. To be iterated once, in one thread;
    ends by an error, or when another thread closes it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            frame = self.receive()
            kind, payload = frame.get("type"), frame.get("payload")
            if kind == "next" and isinstance(payload, dict):
                if payload.get("errors"):
                    raise error_from(payload["errors"])
                yield payload.get("data") or {}
            elif kind == "error" and isinstance(payload, list):
                raise error_from(payload)
            elif kind == "complete":
                raise ConnectionFailed("The service has ended the subscription.")
            elif kind == "ping":
                self.send({"type": "pong"})

    def close(self) -> None:
        """End it, from any thread."""
        self._socket.close()

    def send(self, frame: Mapping[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(orjson.dumps(frame).decode())
        except ConnectionClosed as closed:
            raise _error(closed) from closed

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        try:
            frame = orjson.loads(self._socket.recv(timeout_s))
        except ConnectionClosed as closed:
            raise _error(closed) from closed
        except TimeoutError as error:
            raise ConnectionFailed("The service does not answer on its WebSocket.") from error
        except ValueError as error:
            raise ProtocolError("A frame of the service's WebSocket is not JSON.") from error
        if not isinstance(frame, dict):
            raise ProtocolError("A frame of the service's WebSocket is not an object.")
        return frame


def check_installed() -> None:
    """Refuse where the package for WebSockets is missing."""
    try:
        import websockets.sync.client  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Pokes need the package websockets.", hint="Run: pip install 'sharedlog[live]'"
        ) from error


@contextmanager
def subscribe(
    url: str,
    authorization: str | None,
    document: str,
    variables: Mapping[str, Any],
    timeout_s: float,
) -> Iterator[Subscription]:
    """Subscribe at the service's address; `timeout_s` is for connecting and for the greeting."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    with ExitStack() as stack:
        try:
            socket = stack.enter_context(
                connect(
                    url.replace("http", "ws", 1),
                    subprotocols=[Subprotocol(PROTOCOL)],
                    compression=None,
                    open_timeout=timeout_s,
                    close_timeout=CLOSE_S,
                )
            )
        except InvalidStatus as error:
            if error.response.status_code in (401, 403):
                raise Unauthorized("The service refuses WebSockets from here.") from error
            raise _unreachable(url, error) from error
        except (OSError, InvalidHandshake) as error:
            raise _unreachable(url, error) from error
        subscription = Subscription(socket)
        payload = {} if authorization is None else {"authorization": authorization}
        subscription.send({"type": "connection_init", "payload": payload})
        if subscription.receive(timeout_s).get("type") != "connection_ack":
            raise ProtocolError(
                f"{without_secrets(url)} did not greet as a sharedlog service on its WebSocket."
            )
        asked = {"query": document, "variables": dict(variables)}
        subscription.send({"type": "subscribe", "id": "1", "payload": asked})
        yield subscription


def _unreachable(url: str, error: Exception) -> ConnectionFailed:
    return ConnectionFailed(f"No WebSocket to the service at {without_secrets(url)}: {error}.")


def _error(closed: Any) -> RemoteError:
    code = None if closed.rcvd is None else closed.rcvd.code
    if code == FORBIDDEN:
        return Unauthorized(
            "The service has closed the WebSocket: the token, or this device, is not valid.",
            hint="Make another token with `sharedlog token create --user NAME`.",
        )
    reason = "" if closed.rcvd is None else f" ({code} {closed.rcvd.reason})".replace(" )", ")")
    return ConnectionFailed(f"The WebSocket to the service was closed{reason}.")
