"""Watching open sockets: each is closed soon after its token or its device may do nothing more.

What is asked on a socket is looked at anew each time, so an ended token does nothing more at once.
But who only listens asks for nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from sharedlog_service.access.auth import Access
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.pokes import Pokes
from sharedlog_service.store.store import Store
from sharedlog_service.store.writer import Workers

EVERY_S = 2.0
"""Sockets have to be closed within five seconds."""

CLOSING_S = 1.0
"""How long the closing frame may take to get out; a peer that takes nothing is given up later."""

USER_SOCKETS_MAX = 256
"""How many sockets of one user may be open in one process."""

ENDED = 4403

Sleep = Callable[[float], Awaitable[object]]

logger = logging.getLogger("sharedlog.service")


class Socket(Protocol):
    """What can be closed."""

    async def close(self, code: int, reason: str) -> None: ...


class Watched(NamedTuple):
    """Who is on a socket, and to whom its subscriptions belong (see `Pokes.follow`)."""

    access: Access
    user: str | None
    owner: object


class Watch:
    """Knows the open sockets of one process, and looks after them."""

    def __init__(
        self, pokes: Pokes, *, sleep: Sleep = asyncio.sleep, every_s: float = EVERY_S
    ) -> None:
        self._pokes = pokes
        self._sleep = sleep
        self._every_s = every_s
        self._open: dict[Socket, Watched] = {}

    def enter(self, socket: Socket, watched: Watched) -> None:
        """Watch a socket from here on; refuse one too many of a user. (Without tokens nobody
        knows who is on it, and it is this machine's.)"""
        user = watched.user
        if user is not None:
            count = sum(1 for other in self._open.values() if other.user == user)
            if count >= USER_SOCKETS_MAX:
                raise Refused(Code.TOO_MANY_SOCKETS)
        self._open[socket] = watched

    def leave(self, socket: Socket) -> None:
        """The socket is closed, or was never watched."""
        self._open.pop(socket, None)

    async def run(self, workers: Workers) -> None:
        """Look, again and again; to be cancelled."""
        while True:
            await self._sleep(self._every_s)
            try:
                await self.look(workers)
            except Refused as refused:  # the next turn is another try
                logger.warning("open sockets were not looked at: %s", refused.code.name)
            except Exception as error:
                logger.error("open sockets were not looked at: %s", type(error).__name__)

    async def look(self, workers: Workers) -> None:
        """Close the sockets whose time is over. Costs two queries, however many there are."""
        if not self._open:
            return
        open_now = dict(self._open)
        devices: dict[int, set[str]] = {}
        for subscriber in self._pokes.subscribers():
            devices.setdefault(id(subscriber.owner), set()).add(subscriber.device)
        over = await workers.read(lambda store: list(_over(store, open_now, devices)))
        await asyncio.gather(*(self._close(socket) for socket in over))

    async def _close(self, socket: Socket) -> None:
        try:
            async with asyncio.timeout(CLOSING_S):
                await socket.close(ENDED, "The token or the device is not valid any more.")
        except Exception as error:
            logger.debug("a socket was not closed in order: %s", type(error).__name__)


def _over(
    store: Store, watched: Mapping[Socket, Watched], devices: Mapping[int, set[str]]
) -> Iterator[Socket]:
    tokens = store.valid_tokens(w.access.token for w in watched.values() if w.access.token)
    working = store.working_devices({id for some in devices.values() for id in some})
    for socket, who in watched.items():
        theirs = devices.get(id(who.owner), set())
        if not (_holds(store, who.access, tokens) and theirs <= working):
            yield socket


def _holds(store: Store, access: Access, tokens: set[str]) -> bool:
    if access.token is not None:
        return access.token in tokens
    try:
        access.viewer(store)
    except Refused:
        return False
    return True
