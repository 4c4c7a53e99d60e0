"""The contract's subscription: to be poked when there is something new in a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

import strawberry

from sharedlog_service.api.arguments import DeviceId, User
from sharedlog_service.api.context import Asker
from sharedlog_service.api.wire import Cursor, SharedSyncLogPoke
from sharedlog_service.grants import Scope
from sharedlog_service.store.store import Store


@strawberry.type(description="Where waiting starts: over WebSocket, by graphql-transport-ws.")
class Subscription:
    @strawberry.subscription(  # type: ignore[untyped-decorator]
        description="Be poked when another device has written, and once to begin with: read on "
        "then. Several pokes may come as one, and one may get lost: ask now and then all the same.",
    )
    async def shared_sync_log_poked(
        self, info: Asker, user_id: User, device_id: DeviceId
    ) -> AsyncIterator[SharedSyncLogPoke]:
        context = info.context

        def work(store: Store) -> SharedSyncLogPoke:
            # Looked at anew with each poke, and not counted: this device has not asked.
            context.access.check(store, user_id, Scope.READ, device_id)
            return SharedSyncLogPoke(cursor=Cursor(str(store.head(user_id, device_id))))

        async def look() -> SharedSyncLogPoke:
            found = context.run.read(work)
            return await found if isinstance(found, Awaitable) else found

        pokes = context.pokes.follow(user_id, device_id, context.access, look)
        async with aclosing(pokes):  # so that the place is free at once
            async for poke in pokes:
                yield poke
