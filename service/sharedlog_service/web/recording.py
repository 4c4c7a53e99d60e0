"""What stands around everything else: sees each request come and go, and tells what came of it."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.settings import IdSource
from sharedlog_service.web.metrics import Metrics
from sharedlog_service.web.spans import spans

PATHS = frozenset(("/graphql", "/healthz", "/readyz", "/metrics"))
"""The paths that are told. In any other one, somebody could have written something."""

logger = logging.getLogger("sharedlog.requests")


class Recording:
    """Gives each request and each socket a record, and a span where there are any; counts it and
    logs it when it is over."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, new_id: IdSource) -> None:
        self._app = app
        self._metrics = metrics
        self._new_id = new_id
        self._spans = spans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        record = scope[RECORD_KEY] = Record(self._new_id())
        began = record.seconds()
        wire = _Wire(receive, send, self._metrics)
        with self._spans(scope) as tell:
            try:
                await self._app(scope, wire.receive, wire.send)
            except Exception:
                record.failed("INTERNAL")
                raise
            finally:
                if wire.open:
                    self._metrics.socket_closed()
                if path_of(scope) == "/graphql":
                    self._metrics.add(record)
                told = _told(scope, record, wire, record.seconds() - began)
                logger.info("request", extra={"told": told})
                tell(told)


class _Wire:
    """Counts the bytes of bodies and frames, and hears the status."""

    def __init__(self, receive: Receive, send: Send, metrics: Metrics) -> None:
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self.received = self.sent = 0
        self.status: int | None = None
        self.open = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += _size(message)
        if message["type"] == "websocket.disconnect" and self.status is None:
            self.status = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.open = True
            self._metrics.socket_opened()
        elif kind == "websocket.close" and self.status is None:
            self.status = message.get("code", 1000) if self.open else 403
        self.sent += _size(message)
        await self._send(message)


def _size(message: Message) -> int:
    found = message.get("body") or message.get("bytes") or message.get("text") or b""
    return len(found)


def path_of(scope: Scope) -> str | None:
    """Return the path below where the service is mounted, if it is one of the service's own."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path if path in PATHS else None


def _told(scope: Scope, record: Record, wire: _Wire, seconds: float) -> dict[str, object]:
    return {
        "request": record.id,
        "kind": "socket" if scope["type"] == "websocket" else "request",
        "path": path_of(scope),
        "operation": record.operation,
        "status": wire.status,
        "code": record.code,
        "ms": round(seconds * 1000, 3),
        "received": wire.received,
        "sent": wire.sent,
    }
