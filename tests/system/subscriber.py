"""A device that waits for pokes, by hand: one real WebSocket, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

WAIT_S = 10.0
"""For a frame; on an idle machine they come in milliseconds."""

POKED = """subscription Poked($userId: ID!, $deviceId: ID!) {
  sharedSyncLogPoked(userId: $userId, deviceId: $deviceId) { cursor }
}"""


@contextmanager
def subscribed(url: str, token: str | None, user: str, device: str) -> Iterator[Subscriber]:
    """Subscribe; the socket is closed behind the block."""
    address, protocol = url.replace("http", "ws", 1), Subprotocol("graphql-transport-ws")
    with connect(address, subprotocols=[protocol], compression=None, close_timeout=1) as socket:
        subscriber = Subscriber(socket)
        payload = {} if token is None else {"authorization": f"Bearer {token}"}
        subscriber.send(type="connection_init", payload=payload)
        assert subscriber.frame() == {"type": "connection_ack"}
        variables = {"userId": user, "deviceId": device}
        subscriber.send(type="subscribe", id="1", payload={"query": POKED, "variables": variables})
        yield subscriber


class Subscriber:
    """One socket with one subscription."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def send(self, **frame: Any) -> None:
        self._socket.send(orjson.dumps(frame).decode())

    def frame(self, wait_s: float = WAIT_S) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self._socket.recv(wait_s))
        return found

    def poke(self, wait_s: float = WAIT_S) -> str:
        """Return the cursor of the next poke; fails if there is none in time."""
        frame = self.frame(wait_s)
        assert frame["type"] == "next", frame
        cursor: str = frame["payload"]["data"]["sharedSyncLogPoked"]["cursor"]
        return cursor

    def poked_up_to(self, cursor: str, wait_s: float = WAIT_S) -> int:
        """Wait for the poke with this cursor; return how many came."""
        count = 1
        while self.poke(wait_s) != cursor:
            count += 1
        return count

    def closed(self, wait_s: float = WAIT_S) -> int:
        """Wait until the service closes; return the code it gave."""
        try:
            while True:
                self.frame(wait_s)
        except ConnectionClosed as error:
            return 1006 if error.rcvd is None else error.rcvd.code
