"""Strawberry's endpoint, behind the guards: by HTTP and on WebSockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope as SocketScope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry import UNSET
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http import GraphQLRequestData
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.unset import UnsetType

from sharedlog_service.access.auth import Access, TokenAccess
from sharedlog_service.access.watch import Watched
from sharedlog_service.api.context import Context
from sharedlog_service.api.faults import refused_answer
from sharedlog_service.api.records import RECORD_KEY
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import Scope
from sharedlog_service.store.store import Store
from sharedlog_service.web.answering import METERED_KEY
from sharedlog_service.web.guard import SCOPE_KEY, STATUS, headers_of
from sharedlog_service.web.request import GraphQLRequest
from sharedlog_service.web.service import Service
from sharedlog_service.web.sockets import (
    COME_BACK,
    FRAME_BYTES_MAX,
    INIT_WAIT_S,
    OPERATIONS_MAX,
    SOCKET_KEY,
)

TOO_LONG = f"An answer on a socket has {FRAME_BYTES_MAX} bytes at most: ask for this by HTTP."

NO_SUBSCRIPTIONS = "A subscription needs a WebSocket that speaks graphql-transport-ws."

Extend = Callable[[HTTPConnection, Context], Context]
"""Makes, of a request and the service's context, the one of the program around the service."""


CLOSING: Mapping[Code, int] = {Code.TOO_MANY_SOCKETS: 4429, Code.UNAVAILABLE: COME_BACK}
"""How a socket is closed whose greeting is refused, if not with 4403: that says that the token is
no good."""


SAID_BY_HTTP: Mapping[str, Code] = {
    code.name: code for code in (Code.UNAUTHENTICATED, Code.RATE_LIMITED)
}
"""What an answer's status says if one of its errors does. Other errors are of one field: 200."""


class ParsedRequest(StarletteRequestAdapter):
    """A request as Strawberry sees it, with what the guard made of its body."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.parsed: GraphQLRequest = request.scope[SCOPE_KEY]


class TextSocket(ASGIWebSocketAdapter):
    """Sends text, as the protocol wants it, where Strawberry would send orjson's bytes; and short
    ones only: long answers are for HTTP, where it is counted what waits to be taken."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        text = orjson.dumps(message)
        if len(text) > FRAME_BYTES_MAX:
            refused = Refused(Code.INVALID_ARGUMENT, TOO_LONG)
            self.ws.scope[RECORD_KEY].failed(refused.code.name)
            text = orjson.dumps({**message, "payload": refused_answer(refused)})
        try:
            await self.ws.send_text(text.decode())
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error


class SocketAccess(Access):
    """The access of who opened a socket, which is not told before its first frame."""

    def __init__(self, scope: SocketScope) -> None:
        self.scope = scope
        self.tell(TokenAccess(None))

    def tell(self, access: Access) -> None:
        self._told, self.makes_users = access, access.makes_users

    def check(self, store: Store, claimed: str, scope: Scope, device: str | None) -> None:
        self._told.check(store, claimed, scope, device)

    def viewer(self, store: Store) -> str | None:
        return self._told.viewer(store)

    def may_explore(self, store: Store) -> bool:
        return self._told.may_explore(store)

    def asked(self, user: str, device: str | None) -> None:
        self._told.asked(user, device)

    def wrote(self, user: str, device: str, entries: int, bytes: int) -> None:
        self._told.wrote(user, device, entries, bytes)

    def room(self) -> int | None:
        return self._told.room()


class Endpoint(GraphQL[Context, None]):
    """Strawberry's endpoint, given requests and frames that a guard has checked already."""

    request_adapter_class = ParsedRequest
    websocket_adapter_class = TextSocket

    def __init__(
        self, schema: ServiceSchema, service: Service, extend: Extend | None = None
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=timedelta(seconds=INIT_WAIT_S),
            max_subscriptions_per_connection=OPERATIONS_MAX,
        )
        self._service = service
        self._extend = extend

    async def __call__(self, scope: SocketScope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and scope[RECORD_KEY].operation is not None:
                await self._service.check_pace(scope, scope[SCOPE_KEY].variables or {})
            await super().__call__(scope, receive, send)
        finally:
            if SOCKET_KEY in scope:
                self._service.watch.leave(scope[SOCKET_KEY])

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        context = await self._context(request)
        return context if self._extend is None else self._extend(request, context)

    async def _context(self, request: Request | WebSocket) -> Context:
        service = self._service
        if isinstance(request, WebSocket):
            waiting = SocketAccess(request.scope)
            return Context(service.workers, waiting, request.scope[RECORD_KEY], service.pokes)
        asked: GraphQLRequest = request.scope[SCOPE_KEY]
        await service.allow(asked.query, request.scope)
        access = service.metered(await service.access(request.scope))
        request.scope[METERED_KEY] = access
        return Context(service.workers, access, request.scope[RECORD_KEY], service.pokes)

    async def on_ws_connect(self, context: Context) -> UnsetType:
        access = context.access
        assert isinstance(access, SocketAccess)
        service, socket = self._service, access.scope[SOCKET_KEY]
        try:
            told = await service.access(access.scope)
            user = await service.workers.read(told.viewer)
            access.tell(service.metered(told))
            service.watch.enter(socket, Watched(told, user, access))
        except Refused as refused:
            context.record.failed(refused.code.name)
            if refused.code in CLOSING:
                await socket.close(CLOSING[refused.code], str(refused))
            raise ConnectionRejectionError from refused
        return UNSET  # type: ignore[no-any-return]

    async def parse_http_body(self, request: AsyncHTTPRequestAdapter) -> GraphQLRequestData:
        assert isinstance(request, ParsedRequest)
        asked = request.parsed
        return GraphQLRequestData(
            query=asked.query,
            variables=asked.variables,
            operation_name=asked.operation_name,
            extensions=None,
        )

    async def execute_single(self, *args: Any, **kwargs: Any) -> ExecutionResult:
        try:
            return await super().execute_single(*args, **kwargs)
        except HTTPException as error:
            # No such operation, or a subscription by POST: ours answers in JSON, with a code.
            known = isinstance(error.__cause__, InvalidOperationTypeError)
            reason = NO_SUBSCRIPTIONS if known else error.reason
            raise Refused(Code.BAD_REQUEST, reason) from error

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        """Say in HTTP's words, too, what is about the request as a whole: proxies and other clients
        know these."""
        for error in response_data.get("errors") or ():
            details = error.get("extensions") or {}
            code = SAID_BY_HTTP.get(str(details.get("code")))
            if code is not None:
                sub_response.status_code = STATUS[code]
                sub_response.headers.update(headers_of(code, details))
                break
        return super().create_response(response_data, sub_response)

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data)
