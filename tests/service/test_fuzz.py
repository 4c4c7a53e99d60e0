"""No input breaks the service: whatever comes, it gets an answer of ours, and never a 5xx.

Requests are made in three ways: documents drawn along the schema, texts and bodies with pieces put
in and taken out, and bytes by chance; as they are, in gzip, with odd headers. The seed is fixed,
so that a failure comes again; `make fuzz` runs 20,000 from another one, which it tells.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Scope

from sharedlog.remote.documents import DOCUMENTS
from sharedlog_service.access.auth import issue_token
from sharedlog_service.api.schema import build_schema
from sharedlog_service.errors import Code
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from sharedlog_service.web.reporting import JsonLines
from tests.service.drawn import DrawnDocuments
from tests.service.support import CREATE_DEVICE, NOON, READ, WRITE, ManualClock

REQUESTS = int(os.environ.get("SHAREDLOG_TEST_FUZZ", "6000"))

SEED = int(os.environ.get("SHAREDLOG_TEST_FUZZ_SEED", "20261123"))

CANARY = "canary"

MEMORY_KB_MAX = 100 * 1024
"""By which the process may grow (kilobytes on Linux, bytes elsewhere, where it says little)."""

PIECES = (
    *("{", "}", "[", "(", ")", "$", "...", "@skip(if: true)", "@include(if: $x)", "#", '"', '"""'),
    *("\\u0000", "\\ud800", "\u2028", "\U0001d4b3", "9" * 400, "1e999", "-", "{a}", "query B {a}"),
    *("!", ":", "fragment f on Query {...f}", "...f", "__schema {types {name}}", "__typename"),
    *("null", "_", "subscription S {a}", "mutation", "userId", 'userId: "ada"', "[[1,0,1]]"),
    *("a: ", ",", f'userId: "{CANARY}"'),
)

HEADERS = (
    *((b"content-encoding", value) for value in (b"gzip", b"br", b"gzip, gzip", b"\xff", b"")),
    *(
        (b"content-type", value)
        for value in (b"text/plain", b"application/json;charset=x", b"\xff")
    ),
    *((b"content-length", value) for value in (b"0", b"-1", b"9" * 30, b"\xb2", b"x")),
    *((b"authorization", value) for value in (b"", b"Bearer", b"Bearer \xff", b"Basic eA==")),
    *((b"accept-encoding", value) for value in (b"gzip", b"gzip;q=0", b"gzip;q=x", b"*", b"\xff")),
)


class Fuzzer:
    """Makes requests by chance."""

    def __init__(self, rng: random.Random, token: str, device: str) -> None:
        self._rng = rng
        self._token = token
        self._drawn = DrawnDocuments(build_schema()._schema, rng)
        self._variables = {"user": "ada", "userId": "ada", "device": device, "deviceId": device}

    def request(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return headers and a body."""
        headers = {b"content-type": b"application/json"}
        headers[b"authorization"] = b"Bearer " + self._token.encode()
        body = self._body()
        if self._rng.random() < 0.1:
            body = gzip.compress(body, 1)
            headers[b"content-encoding"] = b"gzip"
            if self._rng.random() < 0.3:
                body = self._spoilt(body)
        if self._rng.random() < 0.1:
            headers.update([self._rng.choice(HEADERS)])
        return list(headers.items()), body

    def _body(self) -> bytes:
        chance = self._rng.random()
        if chance < 0.3:
            query, variables = self._drawn.draw()
            return json.dumps({"query": query, "variables": variables}).encode()
        document = self._rng.choice((*DOCUMENTS, READ, WRITE, CREATE_DEVICE))
        packed: Any = [[NOON, 0, "x"]]
        variables = {**self._variables, "packed": packed, "batchSize": 5}
        if chance < 0.65:
            return json.dumps({"query": self._mutated(document), "variables": variables}).encode()
        body = json.dumps({"query": document, "variables": variables})
        return self._mutated(body).encode() if chance < 0.9 else self._spoilt(body.encode())

    def _mutated(self, text: str) -> str:
        rng = self._rng
        for _ in range(rng.randrange(1, 6)):
            at, length = rng.randrange(len(text) + 1), rng.randrange(12)
            choice = rng.randrange(4)
            piece = rng.choice(PIECES) if choice in (0, 3) else text[at : at + length] * 3
            text = text[:at] + (piece if choice != 1 else "") + text[at + length * bool(choice) :]
        return text

    def _spoilt(self, body: bytes) -> bytes:
        spoilt = bytearray(body)
        for _ in range(self._rng.randrange(1, 9)):
            spoilt[self._rng.randrange(len(spoilt))] = self._rng.randrange(256)
        return bytes(spoilt[: self._rng.randrange(1, 2 * len(spoilt))])


async def ask(app: ASGIApp, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes]:
    """Send one request as a server would; return the status and the body of the answer."""
    at = len(body) // 2
    parts: list[Message] = [
        {"type": "http.request", "body": body[:at], "more_body": True},
        {"type": "http.request", "body": body[at:], "more_body": False},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/graphql", "headers": headers}
    scope.update(query_string=b"", http_version="1.1", scheme="http", client=None)
    await app({**scope, "server": ("127.0.0.1", 8000)}, receive, send)
    start, *bodies = sent
    answer = b"".join(message["body"] for message in bodies)
    if dict(start["headers"]).get(b"content-encoding") == b"gzip":
        answer = gzip.decompress(answer)
    return start["status"], answer


def prepared(db: Path, clock: ManualClock) -> tuple[str, str]:
    """Make ada, and somebody else who has secrets; return ada's token and device."""
    store = Store.open(db, now=clock)
    token = issue_token(store, "ada", "test")
    issue_token(store, CANARY, "test")
    device = store.create_device("ada")
    hidden = store.create_device(CANARY, name=CANARY)
    store.write(CANARY, hidden, [[NOON, 0, CANARY * 3]])
    store.close()
    return token, device


def test_no_request_breaks_the_service(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    token, device = prepared(tmp_path / "log.db", clock)
    app = create_app(Settings(db=tmp_path / "log.db", now=clock))
    fuzzer = Fuzzer(random.Random(SEED), token, device)
    codes: Counter[str] = Counter()

    async def story() -> None:
        async with app.router.lifespan_context(app):
            for _ in range(REQUESTS):
                headers, body = fuzzer.request()
                status, answer = await ask(app, headers, body)
                codes.update(checked(status, answer, (headers, body)))

    before = peak()
    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert sys.platform != "linux" or peak() - before < MEMORY_KB_MAX
    told = [r for r in caplog.records if r.name == "sharedlog.requests"]
    assert len(told) == REQUESTS
    assert not any(CANARY in JsonLines().format(line) for line in told)
    assert {r.name for r in caplog.records} <= {"asyncio", "sharedlog.requests"}
    # The fuzzer must get past each door, and must hit it too.
    for code in ("none", "BAD_REQUEST", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"):
        assert codes[code] > REQUESTS / 50, codes
    for code in ("FORBIDDEN", "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", "UNAUTHENTICATED"):
        assert codes[code] > 0, codes


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def checked(status: int, answer: bytes, asked: object) -> list[str]:
    """Return the codes in an answer, which has to be one of ours."""
    assert status < 500, asked
    found: dict[str, Any] = json.loads(answer)
    assert found.get("data") is not None or "errors" in found, asked
    errors = found.get("errors", [])
    codes = [error["extensions"]["code"] for error in errors]
    assert set(codes) <= Code.__members__.keys() - {"INTERNAL"}, asked
    # What they asked for may be told back to them in an error, but nothing else of others.
    assert CANARY * 3 not in answer.decode(), asked
    return codes or ["none"]
