"""No frame breaks the service: a socket is answered in its protocol, or closed with a code of ours.

Conversations are made by chance: frames of the protocol in and out of order, with documents and
variables that fit or do not, with pieces put in and taken out, and bytes. They go to the
application, and below that raw bytes go to a server. The seed is that of `test_fuzz`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import socket
import sys
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from starlette.types import ASGIApp, Message, Scope

from sharedlog.remote.documents import DOCUMENTS
from sharedlog_service.errors import Code
from sharedlog_service.settings import Settings
from sharedlog_service.web.app import create_app
from sharedlog_service.web.sockets import FRAME_BYTES_MAX
from tests.process_memory import NOW, memory_kib
from tests.service.support import ManualClock
from tests.service.test_fuzz import (
    CANARY,
    MEMORY_KB_MAX,
    REQUESTS,
    SEED,
    Fuzzer,
    peak,
    prepared,
)
from tests.service.test_sockets import PROTOCOL, counting_schema
from tests.system.service_process import ServiceProcess, service as service

FRAMES = REQUESTS * 3 // 2
RAW_SOCKETS = 100

ANSWER_S = 0.1
"""How long an answer is waited for: some subscriptions never give one."""

END_S = 20

SUBSCRIPTIONS = (
    "subscription { wait }",
    "subscription { count(to: 2) }",
    "subscription($to: Int!) { count(to: $to) }",
    "subscription S { count(to: 1) __typename } subscription T { wait }",
)

CLOSED = {1000, 1002, 1009, 4400, 4401, 4403, 4409, 4429}
"""What a socket may be closed with: nothing that says the service failed."""

ANSWERS = {"connection_ack", "pong", "next", "error", "complete"}


class FrameFuzzer(Fuzzer):
    """Makes conversations by chance: a list of frames, each a text or bytes."""

    def conversation(self) -> list[str | bytes]:
        rng = self._rng
        greeting = [self._frame("connection_init", self._greeting())] if rng.random() < 0.9 else []
        return [*greeting, *(self._any() for _ in range(rng.randrange(1, 12)))]

    def _greeting(self) -> Any:
        chance = self._rng.random()
        if chance < 0.85:
            return {"authorization": f"Bearer {self._token}"}
        return self._rng.choice(({}, None, {"authorization": "Bearer x"}, {"authorization": 5}, []))

    def _any(self) -> str | bytes:
        rng, chance = self._rng, self._rng.random()
        if chance < 0.55:
            return self._subscribe()
        if chance < 0.75:
            kind = rng.choice(("ping", "ping", "pong", "complete", "complete", "connection_init"))
            return self._frame(kind, rng.choice((None, {}, {"a": [1]}, {"a": CANARY})))
        if chance < 0.93:
            return self._mutated(self._subscribe())
        spoilt = self._spoilt(self._subscribe().encode())
        huge = "x" * (FRAME_BYTES_MAX + 1)
        if chance < 0.96:
            return spoilt.decode(errors="replace")
        return rng.choice((spoilt, huge, huge, b"", "", "[" * 1_000))

    def _subscribe(self) -> str:
        rng, chance = self._rng, self._rng.random()
        payload: dict[str, Any] = {"query": rng.choice((*SUBSCRIPTIONS, *DOCUMENTS))}
        payload["variables"] = {**self._variables, "to": 2, "packed": [], "batchSize": 5}
        if rng.random() < 0.1:
            payload["query"] = SUBSCRIPTIONS[0]
        if rng.random() < 0.05:
            payload["variables"]["userId"] = CANARY
        if chance < 0.3:
            query, variables = self._drawn.draw()
            payload = {"query": query, "variables": variables}
        elif chance < 0.5:
            payload["query"] = self._mutated(payload["query"])
        elif chance < 0.6:
            digest = sha256(payload.pop("query").encode()).hexdigest()
            payload["extensions"] = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
        elif chance < 0.7:
            payload[rng.choice(("operationName", "variables", "query"))] = rng.choice(
                (None, 5, "S", [], {}, [[]], {"a": 1e300}, "x" * 1_000)
            )
        return self._frame("subscribe", payload)

    def _frame(self, kind: str, payload: Any) -> str:
        id = self._rng.choice(("1", "1", "1", "2", "2", "3", "x" * 100, "\u0000", 7))
        frame = {"type": kind, "id": id, "payload": payload}
        if self._rng.random() < 0.03:
            frame.pop(self._rng.choice(("type", "id", "payload")))
        return json.dumps(frame)


class Conversation:
    """The client's end of a socket that the application serves."""

    def __init__(self, app: ASGIApp, frames: list[str | bytes]) -> None:
        self._app = app
        self._frames = iter(frames)
        self._begun = False
        self._asked: str | None = None
        self._answered = asyncio.Event()
        self.sent: list[Message] = []

    async def run(self) -> list[Message]:
        scope: Scope = {"type": "websocket", "path": "/graphql", "scheme": "ws", "client": None}
        headers = [(b"host", b"127.0.0.1:8000"), (b"sec-websocket-protocol", PROTOCOL.encode())]
        scope.update(query_string=b"", http_version="1.1", headers=headers, root_path="")
        scope.update(server=("127.0.0.1", 8000), subprotocols=[PROTOCOL])
        await asyncio.wait_for(self._app(scope, self._receive, self._send), END_S)
        return self.sent

    async def _receive(self) -> Message:
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), ANSWER_S if self._asked else 0)
        frame = next(self._frames, None)
        if frame is None or self.sent[-1]["type"] == "websocket.close":
            return {"type": "websocket.disconnect", "code": 1001}
        self._asked = frame if isinstance(frame, str) and '"subscribe"' in frame else None
        self._answered.clear()
        kind = "text" if isinstance(frame, str) else "bytes"
        return {"type": "websocket.receive", kind: frame}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self._answered.set()


def checked(sent: list[Message], frames: object) -> list[str]:
    """Return what was answered, all of which has to be of the protocol and ours."""
    first, *others = sent
    assert first["type"] == "websocket.accept", frames
    found = []
    for message in others:
        if message["type"] == "websocket.close":
            assert message["code"] in CLOSED, (message, frames)
            found.append(str(message["code"]))
            continue
        assert message["type"] == "websocket.send", (message, frames)
        answer = json.loads(message["text"])
        assert answer["type"] in ANSWERS, (answer, frames)
        found.append(answer["type"])
        assert CANARY * 3 not in message["text"], frames
        errors = answer["payload"] if answer["type"] == "error" else []
        if answer["type"] == "next":
            errors = answer["payload"].get("errors", [])
        codes = [error["extensions"]["code"] for error in errors]
        assert set(codes) <= Code.__members__.keys() - {"INTERNAL"}, (answer, frames)
        found += codes
    return found


def test_no_frame_breaks_the_service(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    token, device = prepared(tmp_path / "log.db", clock)
    app = create_app(Settings(db=tmp_path / "log.db", now=clock), schema=counting_schema())
    fuzzer = FrameFuzzer(random.Random(SEED), token, device)
    answers: Counter[str] = Counter()

    async def story() -> None:
        async with app.router.lifespan_context(app):
            tasks, frames = len(asyncio.all_tasks()), 0
            while frames < FRAMES:
                asked = [fuzzer.conversation() for _ in range(8)]
                sent = await asyncio.gather(*(Conversation(app, each).run() for each in asked))
                for each, conversation in zip(sent, asked, strict=True):
                    answers.update(checked(each, conversation))
                    frames += len(conversation)
                assert len(asyncio.all_tasks()) <= tasks + 8, "operations are left behind"

    before = peak()
    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert sys.platform != "linux" or peak() - before < MEMORY_KB_MAX
    faults = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "asyncio"]
    assert [record.getMessage() for record in faults] == []
    assert CANARY * 3 not in caplog.text
    # The fuzzer must get past each door, and must hit it too.
    for answer in ("connection_ack", "next", "complete", "error", "4400"):
        assert answers[answer] > FRAMES / 50, answers
    for answer in ("pong", "1009", "4401", "4403", "4429", "GRAPHQL_VALIDATION_FAILED"):
        assert answers[answer] > 0, answers
    for answer in ("FORBIDDEN", "INVALID_ARGUMENT", "PERSISTED_QUERY_NOT_FOUND"):
        assert answers[answer] > 0, answers


# -- bytes -------------------------------------------------------------------------------


def handshake(port: int, rng: random.Random) -> socket.socket:
    talk = socket.create_connection(("127.0.0.1", port), timeout=END_S)
    key = base64.b64encode(rng.randbytes(16)).decode()
    lines = ["GET /graphql HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket"]
    lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    lines += [f"Sec-WebSocket-Protocol: {PROTOCOL}", "", ""]
    talk.sendall("\r\n".join(lines).encode())
    assert talk.recv(4096).startswith(b"HTTP/1.1 101")
    return talk


def raw_frame(rng: random.Random) -> bytes:
    """A frame by RFC 6455, of which something may be wrong."""
    payload = rng.choice(
        (b"", b'{"type":"ping"}', rng.randbytes(rng.randrange(200)), b"x" * 70_000)
    )
    first = rng.choice((0x81, 0x81, 0x81, 0x01, 0x80, 0x82, 0x88, 0x89, 0xC1, 0x83, 0xFF))
    length = len(payload) if rng.random() < 0.9 else rng.choice((0, 126, 2**16, 2**62))
    masked = 0x80 if rng.random() < 0.9 else 0
    if length < 126:
        head = bytes([first, masked | length])
    elif length < 2**16:
        head = bytes([first, masked | 126]) + length.to_bytes(2)
    else:
        head = bytes([first, masked | 127]) + length.to_bytes(8)
    mask = rng.randbytes(4) if masked else b"\0\0\0\0"
    return head + (mask if masked else b"") + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def say(talk: socket.socket, frames: list[bytes], to_the_end: bool) -> None:
    """Send frames; then wait until the server has closed, or cut the line."""
    try:
        for frame in frames:
            talk.sendall(frame)
        if to_the_end:
            talk.shutdown(socket.SHUT_WR)
            while talk.recv(65_536):
                pass
    except TimeoutError:
        raise
    except OSError:
        pass  # it was closed before all was sent


def test_no_bytes_break_the_server(service: ServiceProcess) -> None:
    rng = random.Random(SEED)
    address = urlsplit(service.url)
    assert address.port is not None
    handshake(address.port, rng).close()
    before = memory_kib(NOW, service.pid) if sys.platform == "linux" else 0
    for _ in range(RAW_SOCKETS):
        with handshake(address.port, rng) as talk:
            say(talk, [raw_frame(rng) for _ in range(rng.randrange(1, 6))], rng.random() < 0.5)
    with urlopen(f"http://127.0.0.1:{address.port}/healthz", timeout=END_S) as answer:
        assert answer.status == 200
    if sys.platform == "linux":
        assert memory_kib(NOW, service.pid) - before < MEMORY_KB_MAX // 2
    service.stop()
    # Nothing of it is worth a line: whoever is not known could fill the log.
    assert service.output.read_text().partition("Stop it with Ctrl-C.")[2].strip() == ""


def text_frame(payload: bytes, first: int = 0x81) -> bytes:
    """A short frame, masked with zeros."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


def test_text_that_is_not_utf8_closes_its_socket_with_one_line(tmp_path: Path) -> None:
    """In one frame; in several, none of which ends with a character; behind a frame that the
    application is about to close the socket for; and before one by which the client closes it."""
    parts = (text_frame(b'{"type":"', 0x01), text_frame(b"\xc3", 0x00), text_frame(b'"}', 0x80))
    behind = text_frame(b"bytes", 0x82) + text_frame(b"\xff")
    before = text_frame(b"\xff") + text_frame((1000).to_bytes(2), 0x88)
    frames = {text_frame(b"\xff") * 2: 1007, b"".join(parts): 1007, behind: 1007, before: 1000}
    with ServiceProcess(tmp_path / "service.db", "--log-format", "json") as service:
        port = urlsplit(service.url).port
        assert port is not None
        for sent, code in frames.items():
            with handshake(port, random.Random(SEED)) as talk:
                talk.sendall(sent)
                answer = b"".join(iter(lambda: talk.recv(4096), b""))
            assert (answer[0], int.from_bytes(answer[2:4])) == (0x88, code)
        service.stop()
    said = service.output.read_text().partition("Stop it with Ctrl-C.")[2].split("\n")
    lines = [json.loads(line) for line in said if line.strip()]
    told = [(line["kind"], line["status"], line["level"]) for line in lines]
    assert told == [("socket", status, "info") for status in (1007, 1007, 4400, 1000)]


def test_a_socket_that_is_refused_is_no_fault(tmp_path: Path) -> None:
    asked = (
        b"GET /graphql HTTP/1.1\r\nhost: evil.example\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with ServiceProcess(tmp_path / "service.db", "--no-auth", "--log-format", "json") as service:
        address = urlsplit(service.url)
        with socket.create_connection(("127.0.0.1", address.port), timeout=END_S) as talk:
            talk.sendall(asked)
            assert b"".join(iter(lambda: talk.recv(4096), b"")).startswith(b"HTTP/1.1 421 ")
        service.stop()
    said = service.output.read_text().partition("Stop it with Ctrl-C.")[2].split("\n")
    lines = [json.loads(line) for line in said if line.strip()]
    assert [(line["level"], line.get("code")) for line in lines] == [("info", "HOST_NOT_ALLOWED")]


class Gone(Conversation):
    """Is not there any more when it is answered."""

    async def _send(self, message: Message) -> None:
        await super()._send(message)
        if message["type"] != "websocket.accept":
            raise ConnectionResetError


UNKNOWN = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}}


@pytest.mark.parametrize(
    "frame",
    [
        b"bytes",
        json.dumps({"type": "subscribe", "id": "1", "payload": UNKNOWN}),
        json.dumps({"type": "ping"}),
    ],
    ids=["closed", "refused", "answered"],
)
def test_who_is_gone_when_it_is_answered_is_no_fault(
    tmp_path: Path, frame: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(db=tmp_path / "log.db"))

    async def story() -> list[Message]:
        async with app.router.lifespan_context(app):
            return await Gone(app, [frame]).run()

    with caplog.at_level(logging.WARNING):
        assert len(asyncio.run(story())) >= 2
    assert caplog.records == []
