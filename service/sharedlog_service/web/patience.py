"""An end to waiting for slow clients: half a request, or an answer that nobody takes.

uvicorn closes connections that are idle between requests, and waits for ever for the rest of a
request that has begun. A few hundred such connections keep everybody else out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sharedlog_service.settings import Patience

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

LAST_S = 3
"""How long the service waits, when it ends, for the rest of a request."""

Seconds = Callable[[], float]
"""A clock that only counts."""


class Stage(NamedTuple):
    """What the client is waited for, in which request. Empty if it is not waited for."""

    name: str = ""
    request: object = None


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which can tell whether it has waited for too long."""

    _arrived = 0
    _stage = Stage()
    _since = 0.0
    _moved = 0

    @property
    def limit_concurrency(self) -> int | None:
        """How many connections there may be before a request is answered 503. WebSockets, which
        uvicorn keeps in the same list, do not count here: they have a bound of their own."""
        most = self._connections_max
        if most is None or len(self.connections) < most:
            return most
        return most + sum(not isinstance(other, H11Protocol) for other in self.connections)

    @limit_concurrency.setter
    def limit_concurrency(self, most: int | None) -> None:
        self._connections_max = most

    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        super().data_received(data)

    def give_up_if_slow(self, now: float, patience: Patience) -> None:
        """Close the connection if the client takes too long. To be asked about once a second."""
        stage, moved = self._progress()
        if stage != self._stage or moved < self._moved:
            self._stage, self._since, self._moved = stage, now, moved
        allowed = patience.head_s
        if stage.name != "head":
            allowed = patience.stalled_s + (moved - self._moved) / patience.bytes_a_second
        if not stage.name or now - self._since < allowed:
            return
        if stage.name == "answer":
            # Closing in order would wait for what nobody takes.
            self.transport.abort()
        else:
            self._turn_away()

    def shutdown(self) -> None:
        """End as soon as the request is answered that has begun, if it is whole in a while."""
        super().shutdown()
        self.loop.call_later(LAST_S, self._leave_unfinished)

    def _leave_unfinished(self) -> None:
        if self._progress()[0].name == "body":
            self._turn_away()

    def _turn_away(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
            self.transport.close()

    def _progress(self) -> tuple[Stage, int]:
        """Return what the client is waited for, and a count of bytes that grows as it moves."""
        cycle: Any = self.cycle
        if untaken := self.transport.get_write_buffer_size():
            return Stage("answer", cycle), -untaken
        if cycle is not None and not cycle.response_complete:
            return Stage("body" if cycle.more_body else "", cycle), self._arrived
        # Between requests uvicorn's own timer runs, until something of the next one comes.
        idle = self.timeout_keep_alive_task is not None
        return Stage("" if idle else "head", cycle), self._arrived


class Reaper:
    """Looks at all connections of a server, now and then."""

    def __init__(
        self, state: ServerState, patience: Patience, seconds: Seconds | None = None
    ) -> None:
        self._state = state
        self._patience = patience
        self._seconds = seconds or asyncio.get_running_loop().time

    def look(self) -> None:
        now = self._seconds()
        for connection in list(self._state.connections):
            if isinstance(connection, PatientProtocol):
                connection.give_up_if_slow(now, self._patience)
