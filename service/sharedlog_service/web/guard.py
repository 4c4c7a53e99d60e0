"""What stands before GraphQL: small, pure ASGI, and answering 4xx where others fall over.

It reads the body once, within bounds, and parses it once; the endpoint behind it takes the parsed
request from the scope. Every refusal has the shape of a GraphQL error with a code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from math import ceil
from typing import Any, Self

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.access.answers import Answers
from sharedlog_service.access.metering import LargeBody
from sharedlog_service.api.faults import internal_error, log_fault, refused_answer
from sharedlog_service.api.known import KnownDocuments
from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import is_loopback
from sharedlog_service.web.answering import HeldAnswer
from sharedlog_service.web.compression import FoldedAnswer, takes_gzip, unfolding_of
from sharedlog_service.web.request import (
    GraphQLRequest,
    check_values,
    parse_json,
    parse_request,
)

STRANGER_BYTES_MAX = 64 * 1024
"""Enough to ask for the schema; who shows no valid token is not listened to for longer."""

SCOPE_KEY = "sharedlog.request"

HEADERS_KEY = "sharedlog.headers"
"""Where the scope of a socket has the headers of the handshake, with `payload.authorization` of
`connection_init` among them: browsers can send a token in no other way."""

STATUS: Mapping[Code, int] = {
    Code.UNAUTHENTICATED: 401,
    Code.DOCUMENT_NOT_ALLOWED: 403,
    Code.SCOPE_MISSING: 403,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.BODY_TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.HOST_NOT_ALLOWED: 421,
    Code.RATE_LIMITED: 429,
    Code.UNAVAILABLE: 503,
    Code.ANSWERS_WAITING: 503,
    Code.INTERNAL: 500,
}


Admit = Callable[[Scope], Awaitable[LargeBody | None]]
"""Asked with the scope of a request whose body is not short; refuses who has no valid token. None:
nothing of it is counted."""


class Guard:
    """Shows browsers the page, if any, and lets through to GraphQL only what is well-formed."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        page: ASGIApp | None,
        documents: KnownDocuments,
        body_bytes_max: int,
        admit: Admit,
        answers: Answers,
    ) -> None:
        self._app = app
        self._answers = answers
        self._page = page
        self._documents = documents
        self._body_bytes_max = body_bytes_max
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is not None and scope["method"] in ("GET", "HEAD"):
            # Queries by GET do not exist: an address must never be able to ask for data.
            await self._page(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = HeldAnswer(scope, FoldedAnswer(send, gzip=takes_gzip(headers)), self._answers)
        record: Record = scope[RECORD_KEY]
        try:
            with ExitStack() as held:
                asked = await self._request(scope, headers, receive, record.id, held)
                record.operation = self._documents.name(asked.query)
                scope[SCOPE_KEY] = asked
                await self._app(scope, receive, send)
        except Refused as refused:
            record.failed(refused.code.name)
            await self._refusal(refused)(scope, receive, send)
        except Exception as error:
            record.failed(Code.INTERNAL.name)
            log_fault(error, record.id)
            await refusal(internal_error(record.id))(scope, receive, send)

    async def _request(
        self, scope: Scope, headers: Headers, receive: Receive, request_id: str, held: ExitStack
    ) -> GraphQLRequest:
        if scope["method"] != "POST":
            raise Refused(Code.METHOD_NOT_ALLOWED)
        check_media_type(headers)
        body = await self._body(scope, headers, receive, held)
        check_values(body)
        return parse_request(parse_json(body), request_id, self._documents)

    async def _body(
        self, scope: Scope, headers: Headers, receive: Receive, held: ExitStack
    ) -> bytes:
        """Read the body, stopping as soon as it is too long, whatever its declared length, folded
        or unfolded. Beyond a little, only who has a valid token is listened to, and what comes is
        held against them, in memory and in what they may ask for."""
        unfolding, declared = unfolding_of(headers), _declared(headers)
        chunks: list[bytes] = []
        parts: list[bytes] = []
        taken = size = 0
        with _Intake(self._admit, scope, held, self._body_bytes_max) as intake:
            await intake.reach(declared)
            async for chunk in _chunks(receive):
                taken += len(chunk)
                chunks.append(chunk)
                await intake.take(taken)
            # Not while it comes: who keeps the end back would keep a thousand times what he sent.
            for part in (part for chunk in chunks for part in unfolding.parts(chunk)):
                parts.append(part)
                size += len(part)
                await intake.take(size)
            unfolding.finish()
        return b"".join(parts)

    def _refusal(self, refused: Refused) -> Response:
        response = refusal(refused)
        if refused.code is Code.METHOD_NOT_ALLOWED:
            response.headers["allow"] = "POST" if self._page is None else "GET, POST"
        return response


class _Intake:
    """How long the body that is read may become, and what is held of it. As a context: whatever
    becomes of it, what was read of a large one is counted."""

    def __init__(self, admit: Admit, scope: Scope, held: ExitStack, size_max: int) -> None:
        self._admit = admit
        self._scope = scope
        self._held = held
        self._size_max = size_max
        self._allowed = min(STRANGER_BYTES_MAX, size_max)
        self._read = 0
        self._large: LargeBody | None = None

    async def reach(self, size: int) -> None:
        """Let the body become so long at least, or refuse it."""
        if size <= self._allowed:
            return
        if self._large is None:
            large = await self._admit(self._scope)
            self._large = None if large is None else self._held.enter_context(large)
        if size > self._size_max:
            raise Refused(Code.BODY_TOO_LARGE, requestBytes=self._size_max)
        self._allowed = self._size_max

    async def take(self, size: int) -> None:
        """So much of it is there."""
        self._read = max(self._read, size)
        await self.reach(size)
        if self._large is not None:
            self._large.hold(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._large is not None:
            self._large.count(self._read)


def _declared(headers: Headers) -> int:
    """Return the length that a body is said to have; 0 if that is no number, since it is counted
    anyway."""
    text = headers.get("content-length", "")
    return int(text[:20]) if text.isascii() and text.isdigit() else 0


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(Code.BAD_REQUEST, "The client went away.")
        yield message.get("body", b"")
        more = message.get("more_body", False)


class LoopbackHosts:
    """Answers only to names of this machine.

    Without tokens the browser is the way in: a page of any web site can make its own name resolve
    to 127.0.0.1 (DNS rebinding) and then read what it likes as "same origin". The Host header still
    carries that site's name, which no page can change.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            host = host_name(Headers(scope=scope).get("host", ""))
            if not is_loopback(host):
                scope[RECORD_KEY].failed(Code.HOST_NOT_ALLOWED.name)
                await refusal(Refused(Code.HOST_NOT_ALLOWED))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_name(header: str) -> str:
    """Return a Host header without its port."""
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[")
    return header.partition(":")[0]


def check_media_type(headers: Headers) -> None:
    """Only JSON, plain: which also keeps out what a foreign page may post without asking."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE)


def refusal(refused: Refused) -> Response:
    """Answer a refusal outside GraphQL in GraphQL's shape, with a status for everybody else."""
    body = orjson.dumps(refused_answer(refused))
    status, headers = STATUS.get(refused.code, 400), headers_of(refused.code, refused.details)
    return Response(body, status, headers, media_type="application/json")


def headers_of(code: Code, details: Mapping[str, Any]) -> dict[str, str]:
    """Return what HTTP says of a refusal beside its status: in which way to say who one is, or
    when to ask again, in whole seconds, if that is known."""
    wait_ms = details.get("retryAfterMs")
    headers = {} if wait_ms is None else {"Retry-After": str(ceil(wait_ms / 1000))}
    return headers | ({"WWW-Authenticate": "Bearer"} if code is Code.UNAUTHENTICATED else {})
