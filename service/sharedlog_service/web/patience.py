"""An end to waiting for slow clients: half a request, or an answer that nobody takes.

uvicorn closes connections that are idle between requests, and waits for ever for the rest of a
request that has begun. A few hundred such connections keep everybody else out: as long as they are
waited for they must take nobody's place, either.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sharedlog_service.settings import Patience

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

SHORT_BYTES = (64 + 256) * 1024
"""Nobody without a valid token gets further with a body: what the guard listens to, and what comes
at once with the head."""

LAST_S = 3
"""How long the service waits, when it ends, for the rest of a request."""

Seconds = Callable[[], float]
"""A clock that only counts."""


class Stage(NamedTuple):
    """What the client is waited for, in which request. Empty if it is not waited for."""

    name: str = ""
    request: object = None


class CountingTransport:
    """A transport that counts what it was given: what of that is not untaken is taken."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._given = 0

    @property
    def untaken(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        return self._given - self.untaken

    def write(self, data: bytes) -> None:
        self._given += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Patient:
    """A protocol on a `CountingTransport` that can tell whether it has waited for too long."""

    transport: Any
    _stage = Stage()
    _since = 0.0
    _moved = 0
    _began, _began_at = 0, 0.0

    def give_up_if_slow(self, now: float, patience: Patience) -> None:
        """Close the connection if the client takes too long. To be asked about once a second."""
        stage, moved = self._progress()
        if stage != self._stage:
            self._stage, self._since, self._moved = stage, now, moved
        allowed = patience.head_s
        if stage.name != "head":
            allowed = patience.stalled_s + (moved - self._moved) / patience.bytes_a_second
        if not stage.name or now - self._since < allowed:
            return
        if stage.name == "answer":
            self.cut_off()
        else:
            self._turn_away()

    def cut_off(self) -> None:
        """Close it at once: in order, that would wait for what nobody takes, and so would the
        system."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _progress(self) -> tuple[Stage, int]:
        """Return what the client is waited for, and a count of bytes that grows as it moves."""
        return Stage("answer" if self.transport.untaken else ""), self.transport.taken

    def _turn_away(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
            self.transport.close()


class PatientProtocol(Patient, H11Protocol):
    """uvicorn's protocol for HTTP, with patience, but not without end."""

    _arrived = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(CountingTransport(transport))  # type: ignore[arg-type]

    @property
    def limit_concurrency(self) -> int | None:
        """How many connections there may be before a request is answered 503. uvicorn asks when the
        head of one has come. Only those count on which a request is worked on: not WebSockets,
        which have a bound of their own, and nobody who is idle or has half a head to show."""
        most = self._connections_max
        if most is None or len(self.connections) < most:
            return most
        plain = [other for other in self.connections if isinstance(other, PatientProtocol)]
        at_work = [other for other in plain if other is not self and other._takes_a_place()]
        # Work for clients that are gone counts, but not what a socket has, or who is turned away.
        sockets, leaving = len(self.connections) - len(plain), sum(map(_is_leaving, plain))
        room = most - max(len(at_work), len(self.tasks) - sockets - leaving)
        if room <= 0 and _make_room(at_work):
            room += 1
        # uvicorn compares it with all connections, this one among them.
        return len(self.connections) + room

    @limit_concurrency.setter
    def limit_concurrency(self, most: int | None) -> None:
        self._connections_max = most

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        self._arrived += len(data)
        super().data_received(data)
        if self.cycle is not before:
            self._began, self._began_at = self._arrived - len(data), self.loop.time()

    def _waits_since(self) -> float | None:
        """When a request began of whose body a short part has come, and not all; else None."""
        is_short = self._arrived - self._began <= SHORT_BYTES
        return self._began_at if is_short and self._progress()[0].name == "body" else None

    def _takes_a_place(self) -> bool:
        """Whether a request is worked on, or what it was answered still takes memory."""
        return self.transport.untaken > 0 or (self._is_asking() and not self.transport.is_closing())

    def _is_asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def shutdown(self) -> None:
        """End as soon as the request is answered that has begun, if it is whole in a while."""
        super().shutdown()
        self.loop.call_later(LAST_S, self._leave_unfinished)

    def _leave_unfinished(self) -> None:
        if self._progress()[0].name == "body":
            self._turn_away()

    def _progress(self) -> tuple[Stage, int]:
        cycle: Any = self.cycle
        if self.transport.untaken:
            return Stage("answer", cycle), self.transport.taken
        if cycle is not None and not cycle.response_complete:
            return Stage("body" if cycle.more_body else "", cycle), self._arrived
        # Between requests uvicorn's own timer runs, until something of the next one comes.
        idle = self.timeout_keep_alive_task is not None
        return Stage("" if idle else "head", cycle), self._arrived


def _is_leaving(found: PatientProtocol) -> bool:
    return found._is_asking() and found.transport.is_closing()


def _make_room(at_work: list[PatientProtocol]) -> bool:
    """Turn away who keeps the rest of a short body back for longest; False if there is nobody.
    Whoever sends at once is answered before that, however many do not."""
    waiting = {since: found for found in at_work if (since := found._waits_since()) is not None}
    if waiting:
        waiting[min(waiting)]._turn_away()
    return bool(waiting)


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
            if isinstance(connection, Patient):
                connection.give_up_if_slow(now, self._patience)
