"""How many requests are worked on at a time, and who takes none of these places."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sharedlog_service.commands.serving import server_config
from sharedlog_service.settings import Settings
from sharedlog_service.web import sockets
from tests.service.test_patience import (
    BODY,
    HEAD,
    LONG,
    REQUEST,
    Client,
    Running,
    long_answer,
    serving,
    until,
)

UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
)


def crowded(
    db: Path, app: Callable[..., Awaitable[None]] | None = None, *, no_auth: bool = False
) -> uvicorn.Config:
    """A service, or another application in its place, that works on two requests at a time."""
    config = server_config(Settings(db=db, no_auth=no_auth))
    config.limit_concurrency = 2
    if app is not None:
        config.app, config.lifespan = app, "off"
    return config


async def answered(service: Running, request: bytes) -> bytes:
    """Ask by a connection of its own; return the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    with contextlib.closing(writer):
        writer.write(request)
        return await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)


@pytest.mark.parametrize("sent", [b"", HEAD, UPGRADE, REQUEST])
def test_only_what_is_worked_on_takes_a_place(tmp_path: Path, sent: bytes) -> None:
    """Not half a head, not a socket, not who was answered and is idle."""

    async def story() -> None:
        async with serving(crowded(tmp_path / "log.db")) as service:
            for _ in range(4):
                client = await service.connect()
                client._writer.write(sent)
                if sent in (UPGRADE, REQUEST):
                    await client.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in await answered(service, REQUEST)

    asyncio.run(story())


def test_more_than_are_worked_on_are_told_to_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow(scope: object, receive: object, send: Callable[..., Any]) -> None:
            begun.release()
            await go_on.wait()
            await long_answer(scope, receive, send)

        async with serving(crowded(tmp_path / "log.db", slow)) as service:
            for _ in range(2):
                client = await service.connect()
                await client.send(REQUEST)
                await begun.acquire()
            service.pass_time(5)
            assert b" 503 " in await answered(service, REQUEST)
            go_on.set()
            # Now their answers are not taken.
            await until(lambda: len(untaken(service)) == 2)
            assert b" 503 " in await answered(service, REQUEST)

    asyncio.run(story())


def test_work_for_who_is_gone_takes_a_place(tmp_path: Path) -> None:
    async def story() -> None:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow(scope: object, receive: object, send: Callable[..., Any]) -> None:
            begun.release()
            await go_on.wait()

        async with serving(crowded(tmp_path / "log.db", slow)) as service:
            for _ in range(2):
                client = await service.connect()
                await client.send(REQUEST)
                await begun.acquire()
            for _ in range(3):
                await service.connect()
            for client in service.clients[:2]:
                client.close()
            await until(lambda: len(service.server.server_state.connections) == 3)
            assert b" 503 " in await answered(service, REQUEST)
            go_on.set()

    asyncio.run(story())


def untaken(service: Running) -> list[Any]:
    connections: set[Any] = service.server.server_state.connections
    return [found for found in connections if found.transport.get_write_buffer_size()]


def test_who_keeps_a_body_back_makes_room_for_who_does_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(crowded(tmp_path / "log.db")) as service:
            slow = [await service.connect() for _ in range(2)]
            for client in slow:
                await client.send(HEAD + b"content-length: 1000\r\n\r\n{")
            assert b" 200 " in await answered(service, REQUEST)
            assert (await slow[0].rest()).startswith(b"HTTP/1.1 408 ")
            slow[1]._writer.write(BODY[1:] + b" " * (1000 - len(BODY)))
            assert b" 200 " in await slow[1].answer()

    asyncio.run(story())


def test_who_has_sent_a_good_part_of_a_long_body_keeps_its_place(tmp_path: Path) -> None:
    """The token was looked at by then."""

    async def story() -> None:
        async with serving(crowded(tmp_path / "log.db", no_auth=True)) as service:
            for _ in range(2):
                client = await service.connect()
                head = (
                    HEAD.replace(b"host: x", b"host: 127.0.0.1")
                    + b"content-length: 1000000\r\n\r\n"
                )
                await client.send(head + b" " * (500_000 - len(head)))
            service.pass_time(5)
            assert b" 503 " in await answered(service, REQUEST)

    asyncio.run(story())


PING = b"\x89\xfd\0\0\0\0" + b"x" * 125
CLOSED_1013 = b"\x03\xf5"


async def upgraded(service: Running) -> Client:
    """A socket that does not greet, and waits for no answer when it is closed."""
    client = Client(service, *await asyncio.open_connection("127.0.0.1", service.port))
    service.clients.append(client)
    client._writer.write(UPGRADE)
    assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
    for found in service.server.server_state.connections:
        found.close_timeout = 3_600.0  # type: ignore[union-attr]
    return client


def test_a_silent_socket_leaves_at_once_for_who_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 2)

    async def story() -> None:
        async with serving(server_config(Settings(db=tmp_path / "log.db"))) as service:
            silent = [await upgraded(service) for _ in range(6)]
            for client in silent[:-2]:
                assert CLOSED_1013 in await client.rest()
            await until(lambda: len(service.server.server_state.connections) == 2)
            assert len(service.server.server_state.tasks) == 2

    asyncio.run(story())


def test_so_does_one_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SOCKETS_MAX", 1)

    async def story() -> None:
        async with serving(server_config(Settings(db=tmp_path / "log.db"))) as service:
            client = await upgraded(service)
            [connection] = service.server.server_state.connections
            connection.transport.write(b"\0" * LONG)
            await upgraded(service)
            with contextlib.suppress(ConnectionError):
                await client.rest()
            await until(lambda: len(service.server.server_state.connections) == 1)

    asyncio.run(story())


def test_who_pings_and_takes_no_answer_is_cut_off(tmp_path: Path) -> None:
    """Else all the answers would pile up."""

    async def story() -> None:
        async with serving(server_config(Settings(db=tmp_path / "log.db"))) as service:
            client = await upgraded(service)
            with contextlib.suppress(ConnectionError):
                for _ in range(1_000):
                    client._writer.write(PING * 100)
                    await client._writer.drain()
            await until(lambda: not service.server.server_state.connections)

    asyncio.run(story())
