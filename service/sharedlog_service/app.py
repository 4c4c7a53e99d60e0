"""The ASGI application: GraphQL behind its guard, GraphiQL for people, a health check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, request_response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLRequestData, process_result
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult

from sharedlog_service.auth import Access, KnownAccess, OpenAccess, TokenAccess, bearer_digest
from sharedlog_service.errors import Code, Refused
from sharedlog_service.faults import refused_answer
from sharedlog_service.grants import EVERYTHING, Grant
from sharedlog_service.graphiql import GraphiQL
from sharedlog_service.guard import SCOPE_KEY, GraphQLRequest, Guard, LoopbackHosts, refusal
from sharedlog_service.schema import Context, ServiceSchema, build_schema
from sharedlog_service.settings import Settings
from sharedlog_service.store import Store
from sharedlog_service.upkeep import Upkeep
from sharedlog_service.writer import Inline, Workers

Authenticate = Callable[[Mapping[str, str]], "Grant | Awaitable[Grant | None] | None"]
"""Says who asks, from the headers of a request, whose names are in small letters; None: nobody."""


def create_app(
    settings: Settings | None = None, *, authenticate: Authenticate | None = None
) -> Starlette:
    """Return the service as an ASGI application.

    `authenticate` decides who asks, from the headers of a request, in place of the tokens that the
    service keeps: it answers a `Grant`, or None. Users that it names are made when they come.

    The database is opened when the server starts (ASGI lifespan) and closed when it stops, so the
    application can be built anywhere, and served more than once.
    """
    settings = settings or Settings()
    service, graphiql = Service(settings, authenticate), GraphiQL()

    async def page(request: Request) -> Response:
        return graphiql.response(request)

    graphql = Guard(
        Endpoint(build_schema(), service),
        page=request_response(page),
        body_bytes_max=settings.limits.request_bytes,
        new_id=settings.new_id,
        tokens=not settings.no_auth and authenticate is None,
    )
    app = Starlette(
        routes=[
            Route("/graphql", graphql),
            Route("/healthz", service.health),
            *graphiql.routes(),
        ],
        lifespan=service.lifespan,
        middleware=[Middleware(LoopbackHosts)] if settings.no_auth else [],
    )
    app.state.service = service
    return app


class Service:
    """What the routes share while the server runs: the store and who works on it."""

    store: Store
    workers: Workers

    def __init__(self, settings: Settings, authenticate: Authenticate | None = None) -> None:
        self.settings = settings
        self._authenticate = authenticate

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        settings = self.settings
        self.store = Store.open(
            settings.db, now=settings.now, new_id=settings.new_id, limits=settings.limits
        )
        self.workers = Workers(self.store, readers=settings.readers)
        self.workers.start()
        upkeep = None
        if settings.compact_every_ms is not None:
            policy = settings.compaction
            upkeep = Upkeep(self.store, self.workers, policy, settings.compact_every_ms)
            upkeep.start()
        try:
            yield
        finally:
            if upkeep is not None:
                await upkeep.close()
            self.workers.close()
            self.store.close()

    async def access(self, headers: Mapping[str, str]) -> Access:
        if self.settings.no_auth:
            return OpenAccess()
        if self._authenticate is None:
            return TokenAccess(bearer_digest(headers.get("authorization")))
        found = self._authenticate(headers)
        grant = await found if isinstance(found, Awaitable) else found
        return TokenAccess(None) if grant is None else KnownAccess(grant, make=True)

    async def health(self, request: Request) -> Response:
        """Answer 200 when the database does, 503 when not; tells nothing else."""
        try:
            await self.workers.read(Store.check)
        except Refused as refused:
            return refusal(refused)
        return JSONResponse({"status": "ok"})


class ParsedRequest(StarletteRequestAdapter):
    """A request as Strawberry sees it, with what the guard made of its body."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.parsed: GraphQLRequest = request.scope[SCOPE_KEY]


class Endpoint(GraphQL[Context, None]):
    """Strawberry's endpoint, given requests that the guard has parsed already."""

    request_adapter_class = ParsedRequest

    def __init__(self, schema: ServiceSchema, service: Service) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
        )
        self._service = service

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        asked: GraphQLRequest = request.scope[SCOPE_KEY]
        access = await self._service.access(request.headers)
        return Context(self._service.workers, access, asked.id)

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
            raise Refused(Code.BAD_REQUEST, error.reason) from error

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data)


class InProcess:
    """The service without HTTP and without threads: everything runs in the calling one.

    For tests, simulation and a client in the same process. Without a user it is as open as
    `--no-auth`. What goes in and comes out is what JSON can carry, as over HTTP.
    """

    def __init__(
        self, store: Store, user: str | None = None, *, schema: ServiceSchema | None = None
    ) -> None:
        self._schema = schema or build_schema()
        access: Access = OpenAccess() if user is None else KnownAccess(Grant(user, EVERYTHING))
        self._context = Context(Inline(store), access, "in-process")

    def execute(
        self,
        document: str,
        variables: Mapping[str, Any] | None = None,
        operation_name: str | None = None,
    ) -> dict[str, Any]:
        """Execute a document and return the answer: `data`, and `errors` if there are any."""
        try:
            result = self._schema.execute_sync(
                document,
                variable_values=orjson.loads(orjson.dumps(dict(variables or {}))),
                context_value=self._context,
                operation_name=operation_name,
            )
        except CannotGetOperationTypeError as error:
            return refused_answer(Refused(Code.BAD_REQUEST, error.as_http_error_reason()))
        answer: dict[str, Any] = orjson.loads(orjson.dumps(process_result(result)))
        return answer
