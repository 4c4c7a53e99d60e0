"""The contract: every query and mutation, each a check, a call of the store, and a wrapping."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Annotated, Any

import strawberry
from strawberry import ID
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from sharedlog_service.api.arguments import (
    BatchSize,
    ByteLimit,
    Collections,
    DeviceId,
    Lineage,
    Now,
    Packed,
    Until,
    User,
    WithOwn,
    batch,
    people_count,
    place,
    said,
)
from sharedlog_service.api.context import Asker
from sharedlog_service.api.documents import Check, CheckedDocuments, document_check
from sharedlog_service.api.known import known_documents
from sharedlog_service.api.overview import (
    EntryConnection,
    EntryFilter,
    SharedSyncLogLimits,
    SharedSyncLogStats,
)
from sharedlog_service.api.reading import read_update, within_room
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.api.subscription import Subscription
from sharedlog_service.api.wire import (
    SCALARS,
    Cursor,
    SharedSyncLogDevice,
    SharedSyncLogEntry,
    SharedSyncLogEntryInput,
    SharedSyncLogOwnEntries,
    SharedSyncLogReceipt,
    SharedSyncLogUpdate,
    field,
    typed_entries,
)
from sharedlog_service.entries import TICKS_PER_MS
from sharedlog_service.grants import Scope
from sharedlog_service.store.appending import characters
from sharedlog_service.store.browsing import whole
from sharedlog_service.store.store import Store


@strawberry.type(description="Reading the shared log.")
class SharedSyncLogQuery:
    @field(
        ID | None,
        "The user that the token belongs to, whose id the other fields want as userId. "
        "Null on a service without access control.",
    )
    def viewer(self, info: Asker) -> Awaitable[str | None] | str | None:
        return info.context.run.read(info.context.access.viewer)

    @field(SharedSyncLogDevice | None, "One device of the log, null if there is none with this id.")
    def get_device_info(
        self, info: Asker, user_id: User, device_id: DeviceId
    ) -> Awaitable[SharedSyncLogDevice | None] | SharedSyncLogDevice | None:
        def work(store: Store) -> SharedSyncLogDevice | None:
            device = store.device(info.context.access.user(store, user_id, Scope.READ), device_id)
            return None if device is None else SharedSyncLogDevice.of(device)

        return info.context.run.read(work)

    @field(list[SharedSyncLogDevice], "The log's devices, oldest first, the revoked ones too.")
    def devices(
        self,
        info: Asker,
        user_id: User,
        first: Annotated[int, said("So many at most, 1000 at most.")] = 100,
    ) -> Awaitable[list[SharedSyncLogDevice]] | list[SharedSyncLogDevice]:
        def work(store: Store) -> list[SharedSyncLogDevice]:
            user = info.context.access.user(store, user_id, Scope.READ)
            count = people_count(store, first, None)
            return [SharedSyncLogDevice.of(device) for device in store.devices(user, count)]

        return info.context.run.read(work)

    @field(SharedSyncLogUpdate, "What other devices wrote after a cursor, in the order of the log.")
    def get_unsynced_entries(
        self,
        info: Asker,
        user_id: User,
        device_id: DeviceId,
        after: Annotated[
            Cursor | None,
            said("Where the last page ended; null for the beginning. The device's own truth."),
        ] = None,
        batch_size: BatchSize = 1000,
        byte_limit: ByteLimit = 1_000_000,
        collections: Collections = None,
        until: Until = None,
        with_own: WithOwn = False,
        lineage: Lineage = None,
    ) -> Awaitable[SharedSyncLogUpdate] | SharedSyncLogUpdate:
        context = info.context

        def work(store: Store) -> SharedSyncLogUpdate:
            user = context.access.user(store, user_id, Scope.READ, device=device_id)
            return read_update(
                context,
                store,
                user,
                device_id,
                place(after),
                limit=batch_size,
                byte_limit=byte_limit,
                collections=collections,
                until=place(until),
                own=with_own,
                lineage=lineage,
            )

        return context.run.read(work)

    @field(
        SharedSyncLogOwnEntries,
        "What the log has of a device itself, in the order of createdOn: for a device that was "
        "answered LINEAGE_CHANGED.",
    )
    def get_own_entries(
        self,
        info: Asker,
        user_id: User,
        device_id: DeviceId,
        created_from: Annotated[float, said("createdOn at or after this, in milliseconds.")] = 0,
        batch_size: BatchSize = 1000,
        byte_limit: ByteLimit = 1_000_000,
    ) -> Awaitable[SharedSyncLogOwnEntries] | SharedSyncLogOwnEntries:
        def work(store: Store) -> SharedSyncLogOwnEntries:
            user = info.context.access.user(store, user_id, Scope.READ, device=device_id)
            since = whole(created_from, TICKS_PER_MS)
            room = within_room(info.context, byte_limit)
            page = store.read_own(user, device_id, since, limit=batch_size, byte_limit=room)
            return SharedSyncLogOwnEntries.of(page)

        return info.context.run.read(work)

    @field(
        EntryConnection,
        "Entries for people, as a Relay connection in the order of the log. "
        "Without `first` and `last`: the first 100. A page ends before its data are longer than "
        "1 MiB, but not before its first entry; pageInfo tells whether there is more.",
    )
    def entries(
        self,
        info: Asker,
        user_id: User,
        filter: Annotated[EntryFilter | None, said("Which entries; null for all.")] = None,
        first: Annotated[int | None, said("The first so many, 1000 at most.")] = None,
        after: Annotated[str | None, said("Only what comes after this cursor.")] = None,
        last: Annotated[int | None, said("The newest so many, 1000 at most.")] = None,
        before: Annotated[str | None, said("Only what comes before this cursor.")] = None,
    ) -> Awaitable[EntryConnection] | EntryConnection:
        def work(store: Store) -> EntryConnection:
            user = info.context.access.user(store, user_id, Scope.READ)
            newest = last is not None
            page = store.find(
                user,
                (filter or EntryFilter()).value(),
                after=place(after),
                before=place(before),
                count=people_count(store, first, last),
                byte_limit=within_room(info.context, store.limits.people_bytes),
                newest=newest,
            )
            bounded = (before if newest else after) is not None
            return EntryConnection.of(page, user, newest=newest, bounded=bounded)

        return info.context.run.read(work)

    @field(
        list[SharedSyncLogEntry],
        "What happened to one row, oldest first. Knows only what was not sealed. Ends before its "
        "data are longer than 8 MiB, but not before its first entry: `after` goes on.",
    )
    def history(
        self,
        info: Asker,
        user_id: User,
        collection: Annotated[str, said("The row's collection.")],
        pk: Annotated[JSON, said("The row's primary key, a list if composite.")],
        first: Annotated[int, said("So many at most, 1000 at most.")] = 100,
        after: Annotated[str | None, said("Only what comes after this cursor.")] = None,
    ) -> Awaitable[list[SharedSyncLogEntry]] | list[SharedSyncLogEntry]:
        def work(store: Store) -> list[SharedSyncLogEntry]:
            user = info.context.access.user(store, user_id, Scope.READ)
            page = store.history(
                user,
                collection,
                pk,
                people_count(store, first, None),
                after=place(after),
                byte_limit=within_room(info.context, store.limits.page_bytes),
            )
            return typed_entries(page, user)

        return info.context.run.read(work)

    @field(SharedSyncLogStats, "The log in numbers.")
    def stats(
        self,
        info: Asker,
        user_id: User,
        first: Annotated[int, said("So many collections at most, 1000 at most.")] = 100,
    ) -> Awaitable[SharedSyncLogStats] | SharedSyncLogStats:
        def work(store: Store) -> SharedSyncLogStats:
            user = info.context.access.user(store, user_id, Scope.READ)
            return SharedSyncLogStats.of(store.stats(user, people_count(store, first, None)), user)

        return info.context.run.read(work)

    @field(SharedSyncLogLimits, "What one request may carry. Asks for no user.")
    def limits(self, info: Asker) -> Awaitable[SharedSyncLogLimits] | SharedSyncLogLimits:
        return info.context.run.read(lambda store: SharedSyncLogLimits.of(store.limits))


@strawberry.type(description="Writing to the shared log. Every mutation can be repeated safely.")
class SharedSyncLogMutation:
    @field(ID, "Register a device and answer its id.")
    def create_device_id(
        self,
        info: Asker,
        user_id: User,
        shared_until: Annotated[
            float | None,
            said("Start after what was shared by this time, in milliseconds; null for everything."),
        ] = None,
        name: Annotated[str | None, said("What people call it.")] = None,
        request_id: Annotated[
            ID | None,
            said("Chosen by the client: a repeated request with it gets the same device."),
        ] = None,
        device_id: Annotated[
            ID | None,
            said(
                "An id that the client has already, or chooses: random, and new to the service "
                "unless it is this log's. Null for one of the service's. Beside it, requestId has "
                "no meaning."
            ),
        ] = None,
    ) -> Awaitable[str] | str:
        def work(store: Store) -> str:
            # Whoever is bound to a device may register that one, and no new one.
            user = info.context.access.user(
                store, user_id, Scope.APPEND, device=device_id or "", create=True
            )
            return store.create_device(
                user,
                name=name,
                request_id=request_id,
                shared_until=shared_until,
                device_id=device_id,
            )

        return info.context.run.write(work)

    @field(
        SharedSyncLogReceipt,
        "Append a device's entries, exactly once each. A bad entry does not block the "
        "others; an entry that is sent again is a duplicate and no error.",
    )
    def write_entries(
        self,
        info: Asker,
        user_id: User,
        device_id: DeviceId,
        entries: Annotated[
            list[SharedSyncLogEntryInput] | None, said("The entries spelled out; or use `packed`.")
        ] = None,
        packed: Packed = None,
        now: Now = None,
        after: Annotated[
            Cursor | None, said("Up to where the device durably holds the log already.")
        ] = None,
        with_update: Annotated[
            bool, said("Answer, in `update`, also what other devices wrote after `after`.")
        ] = False,
        batch_size: BatchSize = 1000,
        byte_limit: ByteLimit = 1_000_000,
        lineage: Lineage = None,
    ) -> Awaitable[SharedSyncLogReceipt] | SharedSyncLogReceipt:
        context = info.context
        began = context.record.seconds()

        def write(store: Store) -> Any:
            user = context.access.user(store, user_id, Scope.APPEND, device=device_id)
            offered = batch(entries, packed)
            context.access.wrote(user, device_id, len(offered), characters(offered))
            return store.write(
                user,
                device_id,
                offered,
                after=place(after),
                device_now=now,
                lineage=lineage,
                reading=with_update,
            )

        def wrap(store: Store, receipt: Any) -> SharedSyncLogReceipt:
            context.record.appended(receipt, began, now)
            if receipt.accepted:
                context.pokes.wrote(user_id, device_id)
            update = None
            if with_update:
                update = read_update(
                    context,
                    store,
                    user_id,
                    device_id,
                    receipt.reached,
                    limit=batch_size,
                    byte_limit=byte_limit,
                    # Not if a copy of the device wrote meanwhile: its entries would be passed over.
                    lineage=None if lineage is None else receipt.lineage,
                )
            return SharedSyncLogReceipt.of(receipt, update)

        return context.run.write_then_read(write, wrap)

    @field(
        SharedSyncLogDevice,
        "Tell up to where the device durably holds the log. Never moves backwards.",
    )
    def mark_as_seen(
        self,
        info: Asker,
        user_id: User,
        device_id: DeviceId,
        cursor: Annotated[Cursor, said("Everything up to here is stored on the device.")],
    ) -> Awaitable[SharedSyncLogDevice] | SharedSyncLogDevice:
        def work(store: Store) -> SharedSyncLogDevice:
            user = info.context.access.user(store, user_id, Scope.READ, device=device_id)
            return SharedSyncLogDevice.of(store.mark_seen(user, device_id, place(cursor)))

        return info.context.run.write(work)

    @field(SharedSyncLogDevice, "Lock a device out. What it wrote stays in the log.")
    def revoke_device(
        self, info: Asker, user_id: User, device_id: DeviceId
    ) -> Awaitable[SharedSyncLogDevice] | SharedSyncLogDevice:
        def work(store: Store) -> SharedSyncLogDevice:
            user = info.context.access.user(store, user_id, Scope.DEVICES)
            return SharedSyncLogDevice.of(store.revoke_device(user, device_id))

        return info.context.run.write(work)


@strawberry.type(description="Where all reading starts.")
class Query:
    @field(SharedSyncLogQuery, "The shared log.")
    def shared_sync_log(self) -> SharedSyncLogQuery:
        return SharedSyncLogQuery()


@strawberry.type(description="Where all writing starts.")
class Mutation:
    @field(SharedSyncLogMutation, "The shared log.")
    def shared_sync_log(self) -> SharedSyncLogMutation:
        return SharedSyncLogMutation()


def build_schema(
    query: type = Query,
    mutation: type = Mutation,
    subscription: type = Subscription,
    *,
    documents: Iterable[str] = (),
    **more: Any,
) -> ServiceSchema:
    """Build the schema; it owns the cache of the documents it has checked. A program with fields of
    its own gives roots with the namespaces in them, and the `documents` that it asks them by, which
    are answered as the library's are; `more` goes to Strawberry."""
    known = known_documents(documents)
    schema = ServiceSchema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        documents=known,
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
        extensions=[lambda: CheckedDocuments(check)],
        **more,
    )
    check: Check = document_check(schema._schema, known)
    return schema
