"""Open sockets are closed when their token or their device ends: a real store, sockets that note
how they were closed, and time that the test lets pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sharedlog_service.access import watch as watch_module
from sharedlog_service.access.auth import (
    Access,
    KnownAccess,
    OpenAccess,
    TokenAccess,
    issue_token,
    revoke_token,
    rotate_token,
    token_digest,
)
from sharedlog_service.access.watch import CLOSING_S, ENDED, Watch, Watched
from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import Grant
from sharedlog_service.store.pokes import Pokes
from sharedlog_service.store.store import Store
from sharedlog_service.store.writer import T, Work, Workers
from tests.service.support import ManualClock

WAIT_S = 30


class Noted:
    """A socket that notes the code it was closed with."""

    def __init__(self) -> None:
        self.code: int | None = None

    async def close(self, code: int, reason: str) -> None:
        assert 0 < len(reason.encode()) <= 123
        self.code = code


class Stuck(Noted):
    """A socket whose peer takes nothing."""

    async def close(self, code: int, reason: str) -> None:
        await asyncio.Event().wait()


class FailingOnce(Workers):
    """Workers of a database that is away for a moment."""

    failed = False

    async def read(self, work: Work[T]) -> T:
        if not self.failed:
            self.failed = True
            raise RuntimeError("CANARY")
        return await super().read(work)


class Sockets:
    """A watch, and the sockets that it watches."""

    def __init__(self, store: Store) -> None:
        self.pokes = Pokes(pause_s=0)
        self.watch = Watch(self.pokes)
        self.workers = Workers(store, readers=1)
        self._store = store

    def open(self, access: Access, socket: Noted | None = None) -> Noted:
        socket = socket or Noted()
        self.watch.enter(socket, Watched(access, access.viewer(self._store), access))
        return socket

    async def look(self, *sockets: Noted) -> list[int | None]:
        await self.watch.look(self.workers)
        return [socket.code for socket in sockets]

    @asynccontextmanager
    async def subscribed(self, access: Access, device: str) -> AsyncIterator[None]:
        async def head() -> int:
            return 0

        pokes = self.pokes.follow("ada", device, access, head)
        await anext(pokes)
        yield
        await pokes.aclose()


def run(store: Store, test: Callable[[Sockets], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test(Sockets(store))

    asyncio.run(bounded())


def token(store: Store, user: str = "ada", **grant: Any) -> tuple[str, TokenAccess]:
    digest = token_digest(issue_token(store, user, "test", **grant))
    return digest, TokenAccess(digest)


def test_a_socket_ends_with_its_token(store: Store, clock: ManualClock) -> None:
    async def test(sockets: Sockets) -> None:
        (revoked, one), (rotated, two) = token(store), token(store)
        (_, three), (_, four) = token(store, expires_at=clock.ms + 1_000), token(store)
        opened = [sockets.open(access) for access in (one, two, three, four)]
        assert await sockets.look(*opened) == [None] * 4
        revoke_token(store, revoked)
        rotate_token(store, rotated, 1_000)
        assert await sockets.look(*opened) == [ENDED, None, None, None]
        clock.ms += 1_000
        assert await sockets.look(*opened) == [ENDED, ENDED, ENDED, None]

    run(store, test)


def test_a_socket_ends_with_a_device_that_waits_on_it(store: Store) -> None:
    async def test(sockets: Sockets) -> None:
        (_, one), (_, two) = token(store), token(store)
        opened = [sockets.open(access) for access in (one, two)]
        for device in ("phone", "laptop", "tablet"):
            store.create_device("ada", device_id=device)
        async with (
            sockets.subscribed(one, "phone"),
            sockets.subscribed(one, "laptop"),
            sockets.subscribed(two, "tablet"),
        ):
            assert await sockets.look(*opened) == [None, None]
            store.revoke_device("ada", "laptop")
            assert await sockets.look(*opened) == [ENDED, None]

    run(store, test)


def test_who_is_known_otherwise_ends_in_time_too(store: Store, clock: ManualClock) -> None:
    async def test(sockets: Sockets) -> None:
        opened = [
            sockets.open(access)
            for access in (
                KnownAccess(Grant("ada", expires_at=clock.ms + 1_000)),
                KnownAccess(Grant("ada")),
                OpenAccess(),
            )
        ]
        clock.ms += 999
        assert await sockets.look(*opened) == [None] * 3
        clock.ms += 1
        assert await sockets.look(*opened) == [ENDED, None, None]

    run(store, test)


def test_a_socket_that_left_is_not_closed(store: Store) -> None:
    async def test(sockets: Sockets) -> None:
        digest, access = token(store)
        socket = sockets.open(access)
        sockets.watch.leave(socket)
        sockets.watch.leave(socket)
        revoke_token(store, digest)
        assert await sockets.look(socket) == [None]

    run(store, test)


def test_a_peer_that_takes_nothing_holds_up_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "CLOSING_S", CLOSING_S / 100)

    async def test(sockets: Sockets) -> None:
        digest, access = token(store)
        opened = [sockets.open(access, socket) for socket in (Stuck(), Noted())]
        revoke_token(store, digest)
        assert await sockets.look(*opened) == [None, ENDED]

    run(store, test)


def test_a_user_has_so_many_sockets(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "USER_SOCKETS_MAX", 2)

    async def test(sockets: Sockets) -> None:
        first, _ = [sockets.open(KnownAccess(Grant("ada"))) for _ in range(2)]
        with pytest.raises(Refused) as refused:
            sockets.open(KnownAccess(Grant("ada")))
        assert refused.value.code is Code.TOO_MANY_SOCKETS
        sockets.open(KnownAccess(Grant("bob")))
        sockets.watch.leave(first)
        sockets.open(KnownAccess(Grant("ada")))
        for _ in range(3):  # without tokens nobody knows whose they are
            sockets.open(OpenAccess())

    run(store, test)


def test_it_looks_again_and_again_whatever_happens(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(sockets: Sockets) -> None:
        digest, access = token(store)
        socket, workers = Noted(), FailingOnce(store, readers=1)
        turns: asyncio.Queue[None] = asyncio.Queue()

        async def sleep(seconds: float) -> None:
            assert seconds == 2
            await turns.get()

        watch = Watch(sockets.pokes, sleep=sleep, every_s=2)
        watch.enter(socket, Watched(access, "ada", access))
        task = asyncio.create_task(watch.run(workers))
        revoke_token(store, digest)
        turns.put_nowait(None)
        while not workers.failed:
            await asyncio.sleep(0)
        assert socket.code is None
        turns.put_nowait(None)
        while socket.code is None:
            await asyncio.sleep(0.001)
        assert socket.code == ENDED
        task.cancel()

    run(store, test)
    assert "open sockets were not looked at: RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text
