"""The GraphQL types of the people's queries: connection, filter, numbers, limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import strawberry
from strawberry.scalars import JSON

from sharedlog_service import entries as values
from sharedlog_service.api.wire import (
    Cursor,
    EntryOperation,
    SharedSyncLogEntry,
    field,
    typed_entries,
)
from sharedlog_service.settings import Limits


@strawberry.input(description="Which entries to show; what is left out does not restrict.")
class EntryFilter:
    collection: str | None = strawberry.field(default=None, description="Of this collection.")
    pk: JSON | None = strawberry.field(
        default=None,
        description="Of the row with this primary key, a list if composite; needs `collection`.",
    )
    operation: EntryOperation | None = strawberry.field(
        default=None, description="Only what did this."
    )
    device_id: strawberry.ID | None = strawberry.field(
        default=None, description="Only what this device wrote."
    )
    created_from: float | None = strawberry.field(
        default=None, description="createdOn at or after this, in milliseconds."
    )
    created_until: float | None = strawberry.field(
        default=None, description="createdOn before this, in milliseconds."
    )
    shared_from: float | None = strawberry.field(
        default=None, description="sharedOn at or after this, in milliseconds."
    )
    shared_until: float | None = strawberry.field(
        default=None, description="sharedOn before this, in milliseconds."
    )

    def value(self) -> values.EntryFilter:
        return values.EntryFilter(
            collection=self.collection,
            pk=self.pk,
            operation=cast("int | None", self.operation and self.operation.value),
            device=self.device_id,
            created_from=self.created_from,
            created_until=self.created_until,
            shared_from=self.shared_from,
            shared_until=self.shared_until,
        )


@strawberry.type(description="An entry and its place in the connection.")
class EntryEdge:
    cursor: str = strawberry.field(description="For `after` and `before`.")
    node: SharedSyncLogEntry = strawberry.field(description="The entry.")


@strawberry.type(description="Where a page of a connection lies in the whole.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether entries follow.")
    has_previous_page: bool = strawberry.field(description="Whether entries come before.")
    start_cursor: str | None = strawberry.field(description="The first entry's cursor.")
    end_cursor: str | None = strawberry.field(description="The last entry's cursor.")


@strawberry.type(description="Entries in the order of the log, as a Relay connection.")
class EntryConnection:
    edges: list[EntryEdge] = strawberry.field(description="The entries, each with its cursor.")
    nodes: list[SharedSyncLogEntry] = strawberry.field(description="The entries alone.")
    page_info: PageInfo = strawberry.field(description="Where this page lies.")

    @classmethod
    def of(cls, page: values.Page, user: str, *, newest: bool, bounded: bool) -> EntryConnection:
        """Wrap a page. `bounded`: whether it was cut by `after` (or, for the newest, `before`)."""
        nodes = typed_entries(page, user)
        return cls(
            edges=[EntryEdge(cursor=node.cursor, node=node) for node in nodes],
            nodes=nodes,
            page_info=PageInfo(
                has_next_page=bounded if newest else page.has_more,
                has_previous_page=page.has_more if newest else bounded,
                start_cursor=nodes[0].cursor if nodes else None,
                end_cursor=nodes[-1].cursor if nodes else None,
            ),
        )


@strawberry.type(description="How often the entries of one collection did what.")
class SharedSyncLogCollectionStats:
    collection: str = strawberry.field(description="Its name.")
    entries: float = strawberry.field(description="Entries about it.")
    creates: float = strawberry.field(description="How many created a row.")
    modifies: float = strawberry.field(description="How many wrote some fields of a row.")
    deletes: float = strawberry.field(description="How many deleted a row.")
    last_shared_on: float = strawberry.field(
        description="When the service received the last one, in milliseconds."
    )

    @classmethod
    def of(cls, stats: values.CollectionStats) -> SharedSyncLogCollectionStats:
        return cls(
            collection=stats.collection,
            entries=stats.creates + stats.modifies + stats.deletes,
            creates=stats.creates,
            modifies=stats.modifies,
            deletes=stats.deletes,
            last_shared_on=stats.last_shared_on,
        )


@strawberry.type(description="A log in numbers.")
class SharedSyncLogStats:
    counted: strawberry.Private[Sequence[values.CollectionStats]]
    user_id: strawberry.ID = strawberry.field(description="Whose log this is.")
    epoch: strawberry.ID = strawberry.field(
        description="The log's life; changes when the service was restored or wiped."
    )
    head: Cursor = strawberry.field(description="The end of the log.")
    entries: float = strawberry.field(description="How many entries it has, the sealed ones too.")
    bytes: float = strawberry.field(description="How long their data is together.")
    devices: int = strawberry.field(description="How many devices, the revoked ones too.")
    first_shared_on: float | None = strawberry.field(
        description="When the service received the first entry, in milliseconds."
    )
    last_shared_on: float | None = strawberry.field(
        description="When the service received the last entry, in milliseconds."
    )

    @field(
        list[SharedSyncLogCollectionStats],
        "The collections that are counted, the first 1,000, by name; "
        "sealed entries belong to none.",
    )
    def collections(self) -> list[SharedSyncLogCollectionStats]:
        return [SharedSyncLogCollectionStats.of(found) for found in self.counted]

    @classmethod
    def of(cls, stats: values.Stats, user: str) -> SharedSyncLogStats:
        return cls(
            user_id=strawberry.ID(user),
            epoch=strawberry.ID(stats.head.epoch),
            head=Cursor(str(stats.head)),
            entries=stats.entries,
            bytes=stats.bytes,
            devices=stats.devices,
            first_shared_on=stats.first_shared_on,
            last_shared_on=stats.last_shared_on,
            counted=stats.collections,
        )


@strawberry.type(description="What one request may carry, and a log hold.")
class SharedSyncLogLimits:
    entry_bytes: int = strawberry.field(description="Bytes of one entry's data, in UTF-8.")
    batch_entries: int = strawberry.field(description="Entries in one writeEntries.")
    batch_bytes: int = strawberry.field(description="Bytes of data in one writeEntries.")
    page_entries: int = strawberry.field(description="What batchSize is cut to.")
    page_bytes: int = strawberry.field(description="What byteLimit is cut to.")
    request_bytes: int = strawberry.field(description="Bytes of one request body.")
    clock_ahead_ms: int = strawberry.field(
        description="How far ahead of the service's time an entry may be dated."
    )
    log_entries: float | None = strawberry.field(
        description="How many entries a log may hold; null for any number."
    )
    log_bytes: float | None = strawberry.field(
        description="How long their data may be together; null for any length."
    )
    log_devices: int | None = strawberry.field(
        description="How many devices it may have that are not revoked; null for any number."
    )

    @classmethod
    def of(cls, limits: Limits) -> SharedSyncLogLimits:
        return cls(
            entry_bytes=limits.entry_bytes,
            batch_entries=limits.batch_entries,
            batch_bytes=limits.batch_bytes,
            page_entries=limits.page_entries,
            page_bytes=limits.page_bytes,
            request_bytes=limits.request_bytes,
            clock_ahead_ms=limits.clock_ahead_ms,
            log_entries=limits.log_entries,
            log_bytes=limits.log_bytes,
            log_devices=limits.log_devices,
        )
