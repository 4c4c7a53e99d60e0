"""Slow clients are not waited for: real sockets, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvicorn

from sharedlog_service.commands.serving import AnnouncingServer, listen, server_config
from sharedlog_service.settings import Patience, Settings
from sharedlog_service.web.answering import PART_BYTES, InParts
from sharedlog_service.web.patience import CountingTransport, Reaper

PATIENCE = Patience(head_s=10, stalled_s=10, bytes_a_second=1000)

BUFFER_BYTES = 64 * 1024
"""The system's own buffers are small here, so that what one side does shows on the other."""

HEAD = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = b'{"query": "{ sharedSyncLog { limits { entryBytes } } }"}'
REQUEST = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


class Running:
    """A service in this event loop, which looks at its connections when the test says so."""

    def __init__(self, server: AnnouncingServer, port: int) -> None:
        self.server = server
        self.port = port
        self.clients: list[Client] = []
        self.now = 0.0
        self._reaper = Reaper(server.server_state, PATIENCE, lambda: self.now)

    async def connect(self) -> Client:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        before = len(self.clients)
        reader, writer = await asyncio.open_connection(sock=connection)
        await until(lambda: len(self.server.server_state.connections) > before)
        self.clients.append(Client(self, reader, writer))
        return self.clients[-1]

    def pass_time(self, seconds: float) -> None:
        """Let time go by, and the reaper look each second of it."""
        for _ in range(int(seconds)):
            self.now += 1
            self._reaper.look()

    @property
    def transport(self) -> CountingTransport:
        """Of the only connection."""
        (transport,) = (found.transport for found in self.server.server_state.connections)
        assert isinstance(transport, CountingTransport)
        return transport

    @property
    def arrived(self) -> int:
        return sum(found._arrived for found in self.server.server_state.connections)  # type: ignore[union-attr]


class Client:
    """One connection to it."""

    def __init__(
        self, running: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._running = running
        self._writer = writer
        self.reader = reader

    def close(self) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        """Send, and wait until the service has it."""
        before = self._running.arrived
        self._writer.write(data)
        await until(lambda: self._running.arrived >= before + len(data))

    async def ask(self) -> None:
        """Ask, and read the head of the answer."""
        await self.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """Return the head of the next answer; its body is read, too."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = [
            int(line.split(b":")[1])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length")
        ]
        await self.reader.readexactly(length)
        return head

    async def rest(self) -> bytes:
        """Return all that comes until the service closes."""
        return await asyncio.wait_for(self.reader.read(), 30)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(config: uvicorn.Config) -> AsyncIterator[Running]:
    # The main loop, which would look by itself, does not run.
    with listen("127.0.0.1", 0) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        server = AnnouncingServer(config, lambda: None)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        running = Running(server, listener.getsockname()[1])
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()
            await server.shutdown([listener])


def run(db: Path, story: Callable[[Running], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving(server_config(Settings(db=db))) as running:
            await story(running)

    asyncio.run(whole())


@pytest.mark.parametrize("sent", [b"", b"P", HEAD])
def test_a_head_has_to_come_in_time(tmp_path: Path, sent: bytes) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        await client.send(sent)
        service.pass_time(10)
        assert len(service.server.server_state.connections) == 1
        service.pass_time(1)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    run(tmp_path / "log.db", story)


def test_a_head_that_trickles_is_not_waited_for(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        for byte in HEAD[:10]:
            await client.send(bytes([byte]))
            service.pass_time(1)
        service.pass_time(1)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    run(tmp_path / "log.db", story)


def test_so_has_the_next_one_on_the_same_connection(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        await client.send(REQUEST)
        assert b" 200 " in await client.answer()
        await client.send(HEAD)
        service.pass_time(10)
        await client.send(b"\r\n"[:1])
        service.pass_time(1)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    run(tmp_path / "log.db", story)


def test_many_half_heads_are_gone_together(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        clients = [await service.connect() for _ in range(50)]
        for client in clients:
            await client.send(HEAD)
        service.pass_time(11)
        for client in clients:
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        await until(lambda: not service.server.server_state.connections)

    run(tmp_path / "log.db", story)


def test_a_body_has_to_keep_coming(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        await client.send(HEAD + b"content-length: 60000\r\n\r\n" + b" " * 1000)
        # Ten seconds, and one more for each 1,000 bytes.
        service.pass_time(5)
        await client.send(b" " * 5000)
        service.pass_time(10)
        assert len(service.server.server_state.connections) == 1
        service.pass_time(1)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    run(tmp_path / "log.db", story)


def test_a_slow_body_that_keeps_coming_is_waited_for(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        body = BODY + b" " * (50_000 - len(BODY))
        await client.send(HEAD + b"content-length: 50000\r\n\r\n")
        for start in range(0, len(body), 1000):
            await client.send(body[start : start + 1000])
            service.pass_time(1)
        assert b" 200 " in await client.answer()

    run(tmp_path / "log.db", story)


def test_what_comes_after_a_refusal_is_not_waited_for(tmp_path: Path) -> None:
    """The body of a request that was answered already."""

    async def story(service: Running) -> None:
        client = await service.connect()
        await client.send(HEAD.replace(b"json", b"xml") + b"content-length: 60000\r\n\r\n")
        assert b" 415 " in await client.answer()
        await client.send(b" ")
        service.pass_time(5)
        await client.send(b" " * 5000)
        service.pass_time(6)
        await client.rest()
        await until(lambda: not service.server.server_state.connections)

    run(tmp_path / "log.db", story)


LONG = 8 * 1024 * 1024


async def long_answer(scope: object, receive: object, send: Callable[..., Awaitable[None]]) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": []}
    start["headers"] = [(b"content-length", b"%d" % LONG)]
    await send(start)
    await send({"type": "http.response.body", "body": b"x" * LONG})


def long_answers() -> uvicorn.Config:
    config = server_config(Settings())
    return uvicorn.Config(
        long_answer, http=config.http, lifespan="off", log_level="warning", access_log=False
    )


@pytest.mark.parametrize("headers", [b"", b"connection: close\r\n"])
def test_an_answer_that_nobody_takes_is_given_up(headers: bytes) -> None:
    async def story() -> None:
        async with serving(long_answers()) as service:
            client = await service.connect()
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            service.pass_time(10)
            assert len(service.server.server_state.connections) == 1
            service.pass_time(1)
            await until(lambda: not service.server.server_state.connections)
            with contextlib.suppress(ConnectionError):
                assert len(await client.rest()) < LONG

    asyncio.run(story())


def test_an_answer_that_is_taken_slowly_is_waited_for() -> None:
    async def story() -> None:
        async with serving(long_answers()) as service:
            client = await service.connect()
            await client.ask()
            taken = 0
            while taken < LONG:
                chunk = await client.reader.read(256 * 1024)
                assert chunk
                taken += len(chunk)
                await asyncio.sleep(0)
                service.pass_time(1)
            assert taken == LONG

    asyncio.run(story())


class SlowTaking:
    """A client that takes an answer in parts, at a rate that the service sees."""

    def __init__(self, service: Running, client: Client) -> None:
        self.taken = 0
        self._service = service
        self._client = client
        self._transport = service.transport

    async def take(self, bytes_a_second: int) -> bool:
        """Take until the service can send more; then let pass the time that this may take. Returns
        whether there is more to come."""
        await until(self._is_settled)
        self._service.pass_time(1)
        before = self._transport.taken
        while self._transport.taken == before and not self.is_over:
            chunk = await self._client.reader.read(16 * 1024)
            self.taken += len(chunk)
            await asyncio.sleep(0)
        await until(self._is_settled)
        self._service.pass_time((self._transport.taken - before) / bytes_a_second - 1)
        return not self.is_over

    @property
    def is_over(self) -> bool:
        return self.taken == LONG or self._transport.is_closing()

    def _is_settled(self) -> bool:
        """Whether the service waits for the client, or for nothing more."""
        return self._transport.untaken > 0 or self._transport.taken >= LONG or self.is_over


def in_parts() -> uvicorn.Config:
    config = long_answers()
    config.app = InParts(long_answer)
    return config


def test_who_takes_parts_slowly_is_waited_for() -> None:
    async def story() -> None:
        async with serving(in_parts()) as service:
            client = await service.connect()
            await client.ask()
            slow = SlowTaking(service, client)
            while await slow.take(PATIENCE.bytes_a_second * 3 // 2):
                pass
            assert slow.taken == LONG

    asyncio.run(story())


def test_who_takes_parts_too_slowly_is_not() -> None:
    """However often there is room for another part."""

    async def story() -> None:
        async with serving(in_parts()) as service:
            client = await service.connect()
            await client.ask()
            slow = SlowTaking(service, client)
            with contextlib.suppress(ConnectionError):  # what was on the way is thrown away
                while await slow.take(PATIENCE.bytes_a_second * 3 // 4):
                    pass
            assert slow.taken < LONG / 4
            await until(lambda: not service.server.server_state.connections)

    asyncio.run(story())


def test_the_server_holds_no_more_than_some_parts_of_an_answer() -> None:
    async def story() -> None:
        async with serving(in_parts()) as service:
            client = await service.connect()
            await client.ask()
            transport = service.transport
            await until(lambda: transport.untaken > PART_BYTES)
            assert transport.untaken <= 2 * PART_BYTES

    asyncio.run(story())


def test_who_is_answered_and_idle_is_left_to_the_server(tmp_path: Path) -> None:
    async def story(service: Running) -> None:
        client = await service.connect()
        await client.send(REQUEST)
        await client.answer()
        service.pass_time(1000)
        await client.send(REQUEST)
        assert b" 200 " in await client.answer()

    run(tmp_path / "log.db", story)


def test_work_that_takes_long_is_not_the_clients_fault() -> None:
    async def story() -> None:
        go_on = asyncio.Event()

        async def slow(
            scope: object, receive: object, send: Callable[..., Awaitable[None]]
        ) -> None:
            await go_on.wait()
            await long_answer(scope, receive, send)

        config = long_answers()
        config.app = slow
        async with serving(config) as service:
            client = await service.connect()
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            service.pass_time(1000)
            go_on.set()
            assert b" 200 " in await client.answer()

    asyncio.run(story())


def test_the_server_looks_by_itself_once_a_second(tmp_path: Path) -> None:
    async def story() -> None:
        looks: list[None] = []
        server = AnnouncingServer(server_config(Settings(db=tmp_path / "log.db")), lambda: None)
        server._reaper = Looking(looks)  # type: ignore[assignment]
        for counter in range(20):
            await server.on_tick(counter)
        assert len(looks) == 2

    asyncio.run(story())


class Looking:
    """Notes that it was asked to look."""

    def __init__(self, looks: list[None]) -> None:
        self._looks = looks

    def look(self) -> None:
        self._looks.append(None)


UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
)

PING = b"\x89\xfd\0\0\0\0" + b"x" * 125
"""The longest one: the answer to it is as long."""


def test_a_socket_whose_answers_nobody_takes_is_given_up(tmp_path: Path) -> None:
    """Closing it in order, as after a ping without an answer, would wait for what is not taken."""

    async def story(service: Running) -> None:
        client = await service.connect()
        client._writer.write(UPGRADE)
        await client.reader.readuntil(b"\r\n\r\n")
        transport = service.transport
        while not transport.untaken:  # nobody reads what is answered
            client._writer.write(PING)
            await asyncio.sleep(0)
        service.pass_time(10)
        assert len(service.server.server_state.connections) == 1
        service.pass_time(1)
        await until(lambda: not service.server.server_state.connections)

    run(tmp_path / "log.db", story)
