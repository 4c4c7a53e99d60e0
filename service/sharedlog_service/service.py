"""What the routes share while the server runs: the store, who works on it, and who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from sharedlog_service.auth import (
    TOKEN_PREFIX,
    Access,
    KnownAccess,
    OpenAccess,
    TokenAccess,
    bearer,
    bearer_digest,
)
from sharedlog_service.context import Context
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.grants import Grant
from sharedlog_service.guard import refusal
from sharedlog_service.known import KnownDocuments, known_documents
from sharedlog_service.metering import Meter, MeteredAccess
from sharedlog_service.settings import Issuer, Settings
from sharedlog_service.store import Store
from sharedlog_service.upkeep import Upkeep
from sharedlog_service.writer import Workers

if TYPE_CHECKING:
    from sharedlog_service.provider import Provider

Authenticate = Callable[[Mapping[str, str]], "Grant | Awaitable[Grant | None] | None"]
"""Says who asks, from the headers of a request, whose names are in small letters; None: nobody."""


class Service:
    """The store and its workers, open while the server runs."""

    store: Store
    workers: Workers

    def __init__(
        self,
        settings: Settings,
        authenticate: Authenticate | None = None,
        documents: KnownDocuments | None = None,
    ) -> None:
        self.settings = settings
        self.documents = documents or known_documents()
        self._authenticate = authenticate
        self._provider = None if settings.issuer is None else provider_of(settings.issuer, settings)
        if authenticate is not None and settings.issuer is not None:
            raise ConfigurationError("Either authenticate or an issuer of JWTs says who asks.")
        self._meter = Meter(settings.metered, settings.steady)

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
            authorization = headers.get("authorization")
            token = bearer(authorization)
            if self._provider is not None and token and not token.startswith(TOKEN_PREFIX):
                return KnownAccess(await self._provider.grant(token), makes_users=True)
            return TokenAccess(bearer_digest(authorization))
        found = self._authenticate(headers)
        grant = await found if isinstance(found, Awaitable) else found
        return TokenAccess(None) if grant is None else KnownAccess(grant, makes_users=True)

    def metered(self, access: Access) -> Access:
        """Return this access, with what is asked by it counted."""
        return MeteredAccess(access, self._meter)

    async def context(self, request: HTTPConnection) -> Context:
        """Return what the resolvers of the shared log need, for a request that came to another
        endpoint than this service's own."""
        access = self.metered(await self.access(request.headers))
        return Context(self.workers, access, self.settings.new_id())

    async def admit(self, headers: Mapping[str, str]) -> None:
        """Refuse who has no valid token, or has asked for too much already."""
        access = await self.access(headers)
        user = await self.workers.read(access.viewer)
        if user is not None:
            self._meter.check(user)

    async def allow(self, document: str, headers: Mapping[str, str]) -> None:
        """Refuse a document that is not the library's from who may not explore."""
        if self.settings.explores or document in self.documents:
            return
        access = await self.access(headers)
        if not await self.workers.read(access.may_explore):
            raise Refused(Code.DOCUMENT_NOT_ALLOWED)

    async def health(self, request: Request) -> Response:
        """Answer 200 when the database does, 503 when not; tells nothing else."""
        try:
            await self.workers.read(Store.check)
        except Refused as refused:
            return refusal(refused)
        return JSONResponse({"status": "ok"})


def provider_of(issuer: Issuer, settings: Settings) -> Provider:
    """Return who reads an issuer's JWTs."""
    try:
        from sharedlog_service.provider import Provider
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"JWTs need {error.name}. Run: pip install 'sharedlog[service,jwt]'"
        ) from error
    return Provider(issuer, settings.now, settings.steady)
