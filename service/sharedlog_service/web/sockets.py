"""What stands before GraphQL on WebSockets: each frame is held to the bounds of a request by HTTP.

Strawberry speaks graphql-transport-ws behind it and refuses what is out of order there: no
`connection_init` (4408), two (4429), a subscription before it (4401). But it parses whatever
comes, and what it does not expect ends in an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.api.faults import log_fault
from sharedlog_service.api.known import KnownDocuments
from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.errors import Code, Refused
from sharedlog_service.web.guard import HEADERS_KEY, refusal
from sharedlog_service.web.request import parse_json, parse_request

INIT_WAIT_S = 5

OPERATIONS_MAX = 8
"""How many operations may run on one socket."""

FRAME_BYTES_MAX = 64 * 1024
"""Entries travel by HTTP; what is left for a socket is small."""

OPERATION_ID_CHARS_MAX = 100

SOCKETS_MAX = 2000
"""How many may be open in one process."""

INVALID, TOO_BIG, FAILED = 4400, 1009, 1011

COME_BACK = 1013
"""Closes the socket of who may try again; it is not waited for any longer."""

ROOM_S = 1.0
"""How long who comes may wait until somebody else has left."""

SOCKET_KEY = "sharedlog.socket"
"""Where the scope has the socket, for who wants to close it."""

FRAME_TYPES = ("connection_init", "ping", "pong", "subscribe", "complete")

Allow = Callable[[str, Scope], Awaitable[None]]
"""Asked with a document and the scope; refuses what may not be asked."""


class Unfit(Exception):
    """A frame for which there is no answer but to close the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SocketGuard:
    """Lets through to GraphQL only well-formed frames; closes the socket on others."""

    def __init__(self, app: ASGIApp, *, documents: KnownDocuments, allow: Allow) -> None:
        self._app = app
        self._documents = documents
        self._allow = allow
        self._open: dict[_Socket, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: Record = scope[RECORD_KEY]
        if len(self._open) >= SOCKETS_MAX and not await self._make_room():
            record.failed(Code.UNAVAILABLE.name)
            await refusal(Refused(Code.UNAVAILABLE))(scope, receive, send)
            return
        socket = scope[SOCKET_KEY] = _Socket(scope, receive, send, self._documents, self._allow)
        self._open[socket] = None
        try:
            await self._app(scope, socket.receive, socket.send)
        except Exception as error:
            record.failed(Code.INTERNAL.name)
            log_fault(error, record.id)
            await socket.close(FAILED, f"The service failed: {record.id}")
        finally:
            del self._open[socket]

    async def _make_room(self) -> bool:
        """Let the socket leave that has kept its greeting back for longest; False if none has, or
        if it does not leave. So nobody without a token keeps others out for long."""
        silent = next((socket for socket in self._open if socket.is_silent), None)
        if silent is None:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                await silent.make_room()
                return True
        return False


class _Socket:
    """One socket, as the application behind sees it."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        documents: KnownDocuments,
        allow: Allow,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._documents = documents
        self._allow = allow
        self._closed = False

    @property
    def is_silent(self) -> bool:
        """Whether it is open and nobody has greeted yet."""
        return not self._closed and HEADERS_KEY not in self._scope

    async def make_room(self) -> None:
        self._scope[RECORD_KEY].failed(Code.UNAVAILABLE.name)
        await self.close(COME_BACK, str(Refused(Code.UNAVAILABLE)))

    async def send(self, message: Message) -> None:
        """Send a message on, unless the socket was closed already. Whoever is gone meanwhile needs
        no answer; the next `receive` tells."""
        if not self._closed:
            self._closed = message["type"] == "websocket.close"
            try:
                await self._send(message)
            except OSError:
                self._closed = True

    async def close(self, code: int, reason: str) -> None:
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def receive(self) -> Message:
        """Return the next message that is fit to be seen."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                return message
            try:
                text = await self._checked(message.get("text"))
            except Unfit as unfit:
                await self.close(unfit.code, str(unfit))
                return {"type": "websocket.disconnect", "code": unfit.code}
            if text is not None:
                return {"type": "websocket.receive", "text": text}

    async def _checked(self, text: str | None) -> str | None:
        """Return the frame to hand on, None if it was answered here."""
        if text is None:
            raise Unfit(INVALID, "Frames must be text.")
        if len(text.encode()) > FRAME_BYTES_MAX:
            raise Unfit(TOO_BIG, f"A frame has {FRAME_BYTES_MAX} bytes at most.")
        try:
            frame = parse_json(text)
        except Refused as refused:
            raise Unfit(INVALID, _reason(refused)) from refused
        kind, payload = frame.get("type"), frame.get("payload")
        if kind not in FRAME_TYPES:
            raise Unfit(INVALID, "A frame's type must be one of graphql-transport-ws.")
        if payload is not None and type(payload) is not dict:
            raise Unfit(INVALID, "A frame's payload must be an object.")
        if kind == "connection_init":
            self._remember(payload or {})
        elif kind in ("subscribe", "complete"):
            self._check_id(frame.get("id"))
        if kind == "subscribe":
            return await self._subscribe(frame["id"], payload or {})
        return _text({name: frame[name] for name in ("type", "id", "payload") if frame.get(name)})

    def _remember(self, payload: dict[str, Any]) -> None:
        authorization = payload.get("authorization")
        if authorization is not None and type(authorization) is not str:
            raise Unfit(INVALID, "authorization must be a text.")
        headers = dict(Headers(scope=self._scope))
        if authorization is not None:
            headers["authorization"] = authorization
        # The first one counts; Strawberry closes the socket on a second.
        self._scope.setdefault(HEADERS_KEY, headers)

    def _check_id(self, found: object) -> None:
        if type(found) is not str or not 0 < len(found) <= OPERATION_ID_CHARS_MAX:
            raise Unfit(INVALID, f"An id has 1 to {OPERATION_ID_CHARS_MAX} characters.")

    async def _subscribe(self, id: str, payload: dict[str, Any]) -> str | None:
        try:
            asked = parse_request(payload, id, self._documents)
        except Refused as refused:
            if refused.code is not Code.PERSISTED_QUERY_NOT_FOUND:
                raise Unfit(INVALID, _reason(refused)) from refused
            await self._refuse(id, refused)
            return None
        if HEADERS_KEY in self._scope:
            try:
                await self._allow(asked.query, self._scope)
            except Refused as refused:
                await self._refuse(id, refused)
                return None
        whole = {
            "query": asked.query,
            "variables": asked.variables,
            "operationName": asked.operation_name,
        }
        return _text({"type": "subscribe", "id": id, "payload": whole})

    async def _refuse(self, id: str, refused: Refused) -> None:
        """Refuse one operation; the others, and the socket, go on."""
        self._scope[RECORD_KEY].failed(refused.code.name)
        error = {"message": str(refused), "extensions": refused.extensions}
        text = _text({"type": "error", "id": id, "payload": [error]})
        await self.send({"type": "websocket.send", "text": text})


def _text(frame: dict[str, Any]) -> str:
    return orjson.dumps(frame).decode()


def _reason(refused: Refused) -> str:
    """Return what fits a closing frame: 123 bytes at most."""
    return str(refused).encode()[:120].decode(errors="ignore")
