"""How answers leave: held against who asked for them, and only as fast as they are taken.

A server keeps whatever it is given until the other side takes it, a copy for each connection. So it
is given a part at a time, and the next one when there is room for it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.access.answers import SHORT_BYTES, Answers
from sharedlog_service.access.metering import MeteredAccess

PART_BYTES = 64 * 1024

METERED_KEY = "sharedlog.metered"
"""Where the scope of a request has the access by which its fields are asked."""


class InParts:
    """Hands what is long to the server in parts. It waits with each until most of what it was given
    before is taken."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_parts(message: Message) -> None:
            body = message.get("body", b"")
            for start in range(0, max(0, len(body) - PART_BYTES), PART_BYTES):
                part = body[start : start + PART_BYTES]
                await send({"type": message["type"], "body": part, "more_body": True})
            rest = (len(body) - 1) // PART_BYTES * PART_BYTES
            await send({**message, "body": body[rest:]} if rest > 0 else message)

        await self._app(scope, receive, in_parts if scope["type"] == "http" else send)


class HeldAnswer:
    """Sends an answer on, which counts as waiting for so long; refuses it, before anything is sent,
    where too many do."""

    def __init__(self, scope: Scope, send: Send, answers: Answers) -> None:
        self._scope = scope
        self._send = send
        self._answers = answers

    async def __call__(self, message: Message) -> None:
        size = len(message.get("body", b""))
        if size <= SHORT_BYTES:
            await self._send(message)
            return
        access: MeteredAccess | None = self._scope.get(METERED_KEY)
        with self._answers.hold(None if access is None else access.user_asked, size):
            await self._send(message)
