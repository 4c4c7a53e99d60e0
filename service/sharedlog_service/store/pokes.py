"""Pokes: who waits for news of a log, and telling them that there is something new.

A poke carries no data. It is never a condition of a write, and a lost one costs time only: who was
poked, or comes anew, looks where the log ends, and reads on from where he is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from sharedlog_service.errors import Code, Refused

T = TypeVar("T")

DEVICE_SOCKETS_MAX = 4
"""On how many sockets one device may wait: a few, for those that are dead and not missed yet."""

PAUSE_S = 0.05
"""Between two pokes of one subscriber: what comes meanwhile is one poke."""

LOOKS_MAX = 2
"""How many subscribers look at the log at a time; a crowd must not keep readers out."""

PassOn = Callable[[str, str], None]
"""Told whose log has something new, and by which device. Must return at once."""


class Subscriber:
    """Waits for news on behalf of a device. Holds one poke at most: there is something new."""

    def __init__(self, device: str, owner: object) -> None:
        self.device = device
        self.owner = owner
        self._news = asyncio.Event()

    def poke(self) -> None:
        self._news.set()

    async def news(self) -> None:
        await self._news.wait()
        self._news.clear()


class Pokes:
    """The subscribers of one process. Belongs to an event loop, but for `wrote`."""

    def __init__(self, *, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._logs: dict[str, set[Subscriber]] = {}
        self._turns = asyncio.Semaphore(LOOKS_MAX)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pass_on: PassOn | None = None

    def start(self, pass_on: PassOn | None = None) -> None:
        """From here on, what is written is told on this event loop; `pass_on` tells others."""
        self._loop = asyncio.get_running_loop()
        self._pass_on = pass_on

    def wrote(self, user: str, device: str) -> None:
        """A device has written to a log: it is committed. For any thread; returns at once and
        never fails."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it all who could be told
                self._loop.call_soon_threadsafe(self._tell, user, device)

    def _tell(self, user: str, device: str) -> None:
        self.poke(user, device)
        if self._pass_on is not None:
            self._pass_on(user, device)

    def poke(self, user: str, writer: str | None = None) -> None:
        """Poke who waits for this log, but not the device that wrote."""
        for subscriber in self._logs.get(user, ()):
            if subscriber.device != writer:
                subscriber.poke()

    def poke_all(self) -> None:
        """Poke everybody: pokes may have been lost."""
        for user in self._logs:
            self.poke(user)

    async def follow(
        self, user: str, device: str, owner: object, look: Callable[[], Awaitable[T]]
    ) -> AsyncGenerator[T]:
        """Yield what `look` finds, now and after each poke. `owner` stands for the socket.

        `look` refuses who may not: before he takes a place, and whenever he looks.
        """
        await self._look(look)
        with self._subscribed(user, device, owner) as subscriber:
            # Once more: nothing is missed that came before the place was taken.
            while True:
                yield await self._look(look)
                await asyncio.sleep(self._pause_s)
                await subscriber.news()

    def subscribers(self) -> Iterator[Subscriber]:
        for subscribers in self._logs.values():
            yield from subscribers

    async def _look(self, look: Callable[[], Awaitable[T]]) -> T:
        async with self._turns:
            return await look()

    @contextmanager
    def _subscribed(self, user: str, device: str, owner: object) -> Iterator[Subscriber]:
        subscribers = self._logs.setdefault(user, set())
        owners = {id(found.owner) for found in subscribers if found.device == device}
        if len(owners | {id(owner)}) > DEVICE_SOCKETS_MAX:
            raise Refused(
                Code.TOO_MANY_SOCKETS,
                f"A device may wait on {DEVICE_SOCKETS_MAX} sockets at a time.",
            )
        subscriber = Subscriber(device, owner)
        subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            subscribers.discard(subscriber)
            if not subscribers:
                self._logs.pop(user, None)
