"""What the routes share while the server runs: the store, who works on it, and who may ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope as SocketScope

from sharedlog_service.access.answers import Answers
from sharedlog_service.access.auth import (
    TOKEN_PREFIX,
    Access,
    KnownAccess,
    NoAccess,
    OpenAccess,
    TokenAccess,
    bearer,
    bearer_digest,
)
from sharedlog_service.access.metering import (
    Asking,
    Bodies,
    LargeBody,
    Meter,
    MeteredAccess,
    Refusals,
)
from sharedlog_service.access.watch import Watch
from sharedlog_service.api.context import Context
from sharedlog_service.api.faults import log_fault
from sharedlog_service.api.known import KnownDocuments, known_documents
from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.engines.database import open_notices
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.grants import Grant, Scope
from sharedlog_service.settings import Issuer, Settings, is_loopback
from sharedlog_service.store.accounts import Totals
from sharedlog_service.store.pokes import Pokes
from sharedlog_service.store.store import Store
from sharedlog_service.store.upkeep import Upkeep
from sharedlog_service.store.writer import Workers
from sharedlog_service.web.guard import HEADERS_KEY, refusal
from sharedlog_service.web.metrics import MEDIA_TYPE, Metrics

if TYPE_CHECKING:
    from sharedlog_service.access.provider import Provider

READY_WAIT_S = 3

ACCESS_KEY = "sharedlog.access"

PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
"""Headers that proxies add."""

Authenticate = Callable[[Mapping[str, str]], "Grant | Awaitable[Grant | None] | None"]
"""Says who asks, from the headers of a request, whose names are in small letters; None: nobody."""


class Service:
    """The store and its workers, open while the server runs."""

    store: Store
    workers: Workers
    pokes: Pokes
    watch: Watch

    def __init__(
        self,
        settings: Settings,
        authenticate: Authenticate | None = None,
        documents: KnownDocuments | None = None,
    ) -> None:
        self.settings = settings
        self.documents = documents or known_documents()
        self.metrics = Metrics()
        self.leaving = False
        self._authenticate = authenticate
        self._provider = None if settings.issuer is None else provider_of(settings.issuer, settings)
        if authenticate is not None and settings.issuer is not None:
            raise ConfigurationError("Either authenticate or an issuer of JWTs says who asks.")
        self._meter = Meter(settings.metered, settings.steady)
        self.answers = Answers(settings.limits.answers_bytes)
        self._refusals = Refusals(settings.steady)
        self._bodies = Bodies(self._meter, settings.limits.bodies_bytes)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        settings = self.settings
        self.leaving = False
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
            async with self._live():
                yield
        finally:
            if upkeep is not None:
                await upkeep.close()
            # Else a thread is still at work in it, for nobody: the process ends with it.
            if await self.workers.close():
                self.store.close()

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        """Poke who waits for news, from all processes, and look after the sockets."""
        self.pokes = Pokes()
        self.watch = Watch(self.pokes)
        tasks = [asyncio.create_task(self.watch.run(self.workers))]
        notices = open_notices(
            self.settings.db, self.settings.new_id, self.pokes.poke, self.pokes.poke_all
        )
        if notices is not None:
            tasks.append(asyncio.create_task(notices.run()))
        self.pokes.start(None if notices is None else notices.tell)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def access(self, scope: SocketScope) -> Access:
        """Return what who asks may do. It is found out once: the scope of the request, or the
        socket, keeps it, for each service that it comes to."""
        found: dict[Service, Access] = scope.setdefault(ACCESS_KEY, {})
        if self not in found:
            found[self] = await self._access(scope.get(HEADERS_KEY) or Headers(scope=scope))
        return found[self]

    async def _access(self, headers: Mapping[str, str]) -> Access:
        if self.settings.no_auth:
            return OpenAccess()
        if self._authenticate is None:
            authorization = headers.get("authorization")
            token = bearer(authorization)
            if self._provider is not None and token and not token.startswith(TOKEN_PREFIX):
                return await self._access_by(self._provider, token)
            return TokenAccess(bearer_digest(authorization))
        found = self._authenticate(headers)
        grant = await found if isinstance(found, Awaitable) else found
        return TokenAccess(None) if grant is None else KnownAccess(grant, makes_users=True)

    async def _access_by(self, provider: Provider, token: str) -> Access:
        """Return what a JWT allows. One that is no good is as good as one of ours that is not: it
        is refused once something is asked that needs one."""
        try:
            return KnownAccess(await provider.grant(token), makes_users=True)
        except Refused as refused:
            if refused.code is not Code.UNAUTHENTICATED:
                raise
            return NoAccess(str(refused))

    def metered(self, access: Access) -> MeteredAccess:
        """Return this access, with what is asked by it counted."""
        return MeteredAccess(access, self._meter, self._refusals, self.answers)

    async def check_pace(self, scope: SocketScope, variables: Mapping[str, Any]) -> None:
        """Refuse a document of the library of who was refused a moment ago and has not waited."""
        token = (await self.access(scope)).token
        user, device = variables.get("userId"), variables.get("deviceId")
        if token and isinstance(user, str) and isinstance(device, str | None):
            self._refusals.check(Asking(token, user, device))

    async def context(self, request: HTTPConnection) -> Context:
        """Return what the resolvers of the shared log need, for a request that came to another
        endpoint than this service's own."""
        access = self.metered(await self.access(request.scope))
        record = Record(self.settings.new_id())
        return Context(self.workers, access, record, self.pokes)

    async def admit(self, scope: SocketScope) -> LargeBody | None:
        """Refuse a large body of who has no valid token, or has asked for too much already. None
        where nobody is asked for one: this machine's are not counted then."""
        access = await self.access(scope)
        user = await self.workers.read(access.viewer)
        return None if user is None else self._bodies.admit(user)

    async def allow(self, document: str, scope: SocketScope) -> None:
        """Refuse a document that is not the library's from who may not explore."""
        if self.settings.explores or document in self.documents:
            return
        access = await self.access(scope)
        if not await self.workers.read(access.may_explore):
            raise Refused(Code.DOCUMENT_NOT_ALLOWED)

    def leave(self) -> None:
        """Be ready no more, though requests are still answered: the end is near."""
        self.leaving = True

    async def health(self, request: Request) -> Response:
        """Answer 200: the process is alive. A database that is away is no reason to start anew."""
        return JSONResponse({"status": "ok"})

    async def measure(self, request: Request) -> Response:
        """Answer the metrics, to who is on this machine, or may administrate."""
        try:
            if not (self.settings.no_auth or is_near(request)):
                access = await self.access(request.scope)
                await self.workers.read(lambda store: check_administrator(store, access))
        except Refused as refused:
            request.scope[RECORD_KEY].failed(refused.code.name)
            return refusal(refused)
        return Response(self.metrics.text(await self._totals()), media_type=MEDIA_TYPE)

    async def _totals(self) -> Totals | None:
        """Return the database's numbers, None if it does not answer: the others are there then."""
        try:
            return await asyncio.wait_for(self.workers.read(Store.totals), READY_WAIT_S)
        except Exception as error:
            log_fault(error, self.settings.new_id())
            return None

    async def ready(self, request: Request) -> Response:
        """Answer 200 while requests are to be sent here: not when the database does not answer in
        time, nor once the service is about to end."""
        if self.leaving:
            return JSONResponse({"status": "leaving"}, 503)
        try:
            await asyncio.wait_for(self.workers.read(Store.check), READY_WAIT_S)
        except Exception as error:
            log_fault(error, self.settings.new_id())
            return JSONResponse({"status": "no database"}, 503)
        return JSONResponse({"status": "ok"})


def is_near(request: Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy that runs here."""
    passed_on = any(name in request.headers for name in PASSED_ON)
    return request.client is not None and is_loopback(request.client.host) and not passed_on


def check_administrator(store: Store, access: Access) -> None:
    """Refuse who has no token with the scope admin."""
    user = access.viewer(store)
    if user is not None:
        access.check(store, user, Scope.ADMIN, None)


def provider_of(issuer: Issuer, settings: Settings) -> Provider:
    """Return who reads an issuer's JWTs."""
    try:
        from sharedlog_service.access.provider import Provider
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"JWTs need {error.name}. Run: pip install 'sharedlog[service,jwt]'"
        ) from error
    return Provider(issuer, settings.now, settings.steady)
