"""The ASGI application: GraphQL behind its guards, GraphiQL for people, and how it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute, request_response
from strawberry.http import process_result
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from sharedlog_service.access.auth import Access, KnownAccess, OpenAccess
from sharedlog_service.api.context import Context
from sharedlog_service.api.faults import refused_answer
from sharedlog_service.api.records import Record
from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import EVERYTHING, Grant
from sharedlog_service.settings import Settings
from sharedlog_service.store.pokes import Pokes
from sharedlog_service.store.store import Store
from sharedlog_service.store.writer import Inline
from sharedlog_service.web.answering import InParts
from sharedlog_service.web.endpoint import NO_SUBSCRIPTIONS, Endpoint, Extend
from sharedlog_service.web.graphiql import GraphiQL
from sharedlog_service.web.guard import Guard, LoopbackHosts
from sharedlog_service.web.recording import Recording
from sharedlog_service.web.service import Authenticate, Service
from sharedlog_service.web.sockets import SocketGuard


def create_app(
    settings: Settings | None = None,
    *,
    authenticate: Authenticate | None = None,
    schema: ServiceSchema | None = None,
    context: Extend | None = None,
) -> Starlette:
    """Return the service as an ASGI application.

    `schema` is what `build_schema` made of a program's own roots; `context` makes, of a request and
    the service's own context, the one that the program's resolvers are given.

    `authenticate` decides who asks, from the headers of a request, in place of the tokens that the
    service keeps: it answers a `Grant`, or None. Users that it names are made when they come.

    The database is opened when the server starts (ASGI lifespan) and closed when it stops, so the
    application can be built anywhere, and served more than once.
    """
    settings = settings or Settings()
    schema = schema or build_schema()
    service = Service(settings, authenticate, schema.documents)
    endpoint = Endpoint(schema, service, context)
    app = Starlette(
        routes=[
            *graphql_routes(endpoint, service),
            Route("/healthz", service.health),
            Route("/readyz", service.ready),
            Route("/metrics", service.measure),
        ],
        lifespan=service.lifespan,
        middleware=[
            Middleware(InParts),
            Middleware(Recording, metrics=service.metrics, new_id=settings.new_id),
            *([Middleware(LoopbackHosts)] if settings.no_auth else []),
        ],
    )
    # Else "/graphql/" is sent on to whatever the header Host says, and by http.
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def graphql_routes(endpoint: Endpoint, service: Service) -> list[BaseRoute]:
    """Return GraphQL behind its guards, and the page for people where they may explore."""
    settings, graphiql = service.settings, GraphiQL() if service.settings.explores else None
    guard = Guard(
        endpoint,
        page=None if graphiql is None else request_response(graphiql.response),
        documents=service.documents,
        body_bytes_max=settings.limits.request_bytes,
        admit=service.admit,
        answers=service.answers,
    )
    sockets = SocketGuard(endpoint, documents=service.documents, allow=service.allow)
    return [
        Route("/graphql", guard),
        WebSocketRoute("/graphql", sockets),
        *(() if graphiql is None else graphiql.routes()),
    ]


class InProcess:
    """The service without HTTP and without threads: everything runs in the calling one.

    For tests, simulation and a client in the same process. A user may do everything in their log,
    a grant says what else; without either it is as open as `--no-auth`. What goes in and comes out
    is what JSON can carry, as over HTTP.
    """

    def __init__(
        self, store: Store, user: str | Grant | None = None, *, schema: ServiceSchema | None = None
    ) -> None:
        self._schema = schema or build_schema()
        grant = Grant(user, EVERYTHING) if isinstance(user, str) else user
        access: Access = OpenAccess() if grant is None else KnownAccess(grant)
        self._context = Context(Inline(store), access, Record("in-process"), Pokes())

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
        except InvalidOperationTypeError:
            return refused_answer(Refused(Code.BAD_REQUEST, NO_SUBSCRIPTIONS))
        answer: dict[str, Any] = orjson.loads(orjson.dumps(process_result(result)))
        return answer
