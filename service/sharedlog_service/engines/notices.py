"""Notices between the service's processes at one PostgreSQL database: LISTEN and NOTIFY.

One connection listens, and another one, made when there is something to say, tells. Neither is
any writer's: what is told is committed already. A notice that gets lost costs time only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import random
from typing import Any

import orjson
from psycopg import AsyncConnection, sql

logger = logging.getLogger("sharedlog.service")

NAME_BYTES_MAX = 63
"""Of anything that has a name in PostgreSQL."""

FIRST_WAIT_S, WAIT_MAX_S = 0.1, 10.0

IDLE_S = 30.0
"""A listening connection that got nothing for so long is asked whether it is still there."""

CONNECTION: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "application_name": "sharedlog pokes",
}

Heard = Callable[[str, str | None], None]
"""Whose log has something new, and by which device; None if by several."""

Sleep = Callable[[float], Awaitable[object]]


class Notices:
    """Tells other processes what was written here, and hears what was written there.

    Args:
        url: The database.
        origin: This process, in a word that no other one has.
        heard: Called on the event loop with what another process wrote.
        missed: Called on the event loop when notices may have been lost: with each connection.
        sleep, random: How to wait before another try, and the chance in it.
    """

    def __init__(
        self,
        url: str,
        origin: str,
        heard: Heard,
        missed: Callable[[], None],
        *,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random,
    ) -> None:
        self._url = url
        self._origin = origin
        self._heard = heard
        self._missed = missed
        self._sleep = sleep
        self._random = random
        self._untold: dict[str, str | None] = {}
        self._something = asyncio.Event()

    def tell(self, user: str, device: str) -> None:
        """Pass on that a device has written, soon. Returns at once; what one user's devices write
        meanwhile is one notice."""
        several = self._untold.get(user, device) != device
        self._untold[user] = None if several else device
        self._something.set()

    async def run(self) -> None:
        """Listen and tell, whatever happens to the connections; to be cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again_and_again(self._listen))
            tasks.create_task(self._again_and_again(self._tell))

    async def _again_and_again(self, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        wait_s = FIRST_WAIT_S

        def works() -> None:
            nonlocal wait_s
            wait_s = FIRST_WAIT_S

        while True:
            try:
                await work(works)
            except Exception as error:
                logger.warning("notices between processes stopped: %s", type(error).__name__)
            await self._sleep(wait_s * (0.5 + self._random()))
            wait_s = min(2 * wait_s, WAIT_MAX_S)

    async def _listen(self, works: Callable[[], None]) -> None:
        async with await self._connect() as connection:
            channel = await _channel(connection)
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            works()
            self._missed()
            while True:
                async for notice in connection.notifies(timeout=IDLE_S):
                    self._hear(notice.payload)
                await connection.execute("SELECT 1")

    async def _tell(self, works: Callable[[], None]) -> None:
        await self._something.wait()
        async with await self._connect() as connection:
            channel = await _channel(connection)
            works()
            while True:
                await self._something.wait()
                self._something.clear()
                untold, self._untold = self._untold, {}
                texts = [
                    orjson.dumps([self._origin, user, device]).decode()
                    for user, device in untold.items()
                ]
                await connection.execute(
                    "SELECT pg_notify(%s, text) FROM unnest(%s::text[]) AS text", [channel, texts]
                )

    def _hear(self, payload: str) -> None:
        try:
            origin, user, device = orjson.loads(payload)
        except (TypeError, ValueError):
            logger.warning("a notice was not understood")
            return
        if origin != self._origin:
            self._heard(user, device)

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(self._url, autocommit=True, **CONNECTION)


async def _channel(connection: AsyncConnection[Any]) -> str:
    """The channel of these tables: a server may have others, in other schemas."""
    found = await (await connection.execute("SELECT current_schema()")).fetchone()
    name = f"sharedlog_{found[0] if found else None}".encode()
    return name[:NAME_BYTES_MAX].decode(errors="ignore")
