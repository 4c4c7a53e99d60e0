"""The GraphQL types: how the service's values look on the wire, each with its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NewType, TypeVar

import strawberry
from graphql import GraphQLError
from strawberry.scalars import JSON
from strawberry.types.scalar import ScalarDefinition

from sharedlog_service import entries as values
from sharedlog_service.entries import to_ms
from sharedlog_service.errors import Code

Cursor = NewType("Cursor", str)
PackedEntries = NewType("PackedEntries", object)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise GraphQLError("A cursor is a text.")
    return value


def _as_it_is(value: object) -> object:
    return value


Resolver = TypeVar("Resolver", bound=Callable[..., Any])


def field(kind: Any, description: str) -> Callable[[Resolver], Resolver]:
    """Declare a field by its GraphQL type: a resolver returns that, or something to await."""
    declare: Callable[[Resolver], Resolver] = strawberry.field(
        description=description, graphql_type=kind
    )
    return declare


SCALARS: Mapping[object, ScalarDefinition] = {
    Cursor: strawberry.scalar(
        name="Cursor",
        description="A position in one life of one log. Opaque: keep it, send it back, never look.",
        serialize=str,
        parse_value=_text,
    ),
    PackedEntries: strawberry.scalar(
        name="PackedEntries",
        description=(
            "Entries as compact JSON, for machines. A tick is 1/1024 millisecond; groupTicks is "
            "how long after the first entry of the same local transaction this one was made. "
            "Sent: `[[createdOnTicks, groupTicks, data], ...]`. Answered: `{devices: [id, ...], "
            "entries: [[deviceIndex, createdOnTicks, groupTicks, data], ...]}`."
        ),
        serialize=_as_it_is,
        parse_value=_as_it_is,
    ),
}


@strawberry.enum(description="What a change did to a row.")
class EntryOperation(Enum):
    """The values are the numbers stored."""

    CREATE = strawberry.enum_value(0, description="The row was created.")
    MODIFY = strawberry.enum_value(1, description="Some fields of the row were written.")
    DELETE = strawberry.enum_value(2, description="The row was deleted.")


@strawberry.enum(description="What became of an entry that was sent.")
class EntryStatus(Enum):
    ACCEPTED = strawberry.enum_value("ACCEPTED", description="It is in the log now, durably.")
    DUPLICATE = strawberry.enum_value(
        "DUPLICATE", description="It already was in the log, with the same data. All is well."
    )
    REJECTED = strawberry.enum_value(
        "REJECTED", description="It is not in the log; code and reason say why."
    )


@strawberry.enum(description="Why an entry was refused. The rest of its batch is not affected.")
class RejectionCode(Enum):
    ENTRY_INVALID = strawberry.enum_value(
        Code.ENTRY_INVALID.name, description=Code.ENTRY_INVALID.value
    )
    ENTRY_TOO_LARGE = strawberry.enum_value(
        Code.ENTRY_TOO_LARGE.name, description=Code.ENTRY_TOO_LARGE.value
    )
    CLOCK_AHEAD = strawberry.enum_value(Code.CLOCK_AHEAD.name, description=Code.CLOCK_AHEAD.value)
    ENTRY_TOO_OLD = strawberry.enum_value(
        Code.ENTRY_TOO_OLD.name, description=Code.ENTRY_TOO_OLD.value
    )
    DEVICE_CLONED = strawberry.enum_value(
        Code.DEVICE_CLONED.name, description=Code.DEVICE_CLONED.value
    )


@strawberry.input(description="An entry to write, spelled out; see `packed` for machines.")
class SharedSyncLogEntryInput:
    created_on: float = strawberry.field(
        description="When the change was made: milliseconds since 1970, in steps of 1/1024. "
        "Together with the device it identifies the entry."
    )
    data: str = strawberry.field(
        description="The change, opaque to the service. Plain JSON is indexed for people's queries."
    )
    group: float | None = strawberry.field(
        default=None,
        description="`createdOn` of the first entry of the same local transaction; "
        "null if this entry stands alone.",
    )

    def offered(self) -> tuple[object, object, str]:
        """Return it as a batch takes it, in ticks; what is no whole tick stays for it to refuse."""
        created_on = _ticks(self.created_on)
        start = created_on if self.group is None else _ticks(self.group)
        return created_on, created_on - start, self.data


@strawberry.type(description="One immutable item of the log, for people.")
class SharedSyncLogEntry:
    user_id: strawberry.ID = strawberry.field(description="Whose log this is.")
    device_id: strawberry.ID = strawberry.field(description="The device that made the change.")
    created_on: float = strawberry.field(
        description="When the change was made, by the device's logical clock, in milliseconds."
    )
    shared_on: float = strawberry.field(
        description="When the service received it, in milliseconds. Never decreases along a log."
    )
    data: str = strawberry.field(description="The change as it was sent.")
    cursor: Cursor = strawberry.field(description="Its place in the log, for `after`.")
    position: float = strawberry.field(
        description="Its place in the log as a number: 1, 2, 3, without gaps."
    )
    group: float = strawberry.field(
        description="`createdOn` of the first entry of the same local transaction."
    )
    operation: EntryOperation | None = strawberry.field(
        description="What the change did; null when the application sealed the data."
    )
    collection: str | None = strawberry.field(
        description="The collection (table) it is about; null when the data is sealed."
    )
    pk: JSON | None = strawberry.field(
        description="The row's primary key, a list if composite; null when the data is sealed."
    )

    @classmethod
    def of(cls, entry: values.StoredEntry, user: str, epoch: str) -> SharedSyncLogEntry:
        operation, collection, pk = values.read_change(entry.data) or (None, None, None)
        return cls(
            user_id=strawberry.ID(user),
            device_id=strawberry.ID(entry.device),
            created_on=to_ms(entry.created_on),
            shared_on=entry.shared_on,
            data=entry.data,
            cursor=Cursor(str(values.Cursor(epoch, entry.seq))),
            position=entry.seq,
            group=to_ms(entry.created_on - entry.group),
            operation=None if operation is None else EntryOperation(operation),
            collection=collection,
            pk=pk,
        )


@strawberry.type(description="A stretch of the log as a device reads it, from one snapshot.")
class SharedSyncLogUpdate:
    page: strawberry.Private[values.Page]
    user: strawberry.Private[str]
    cursor: Cursor = strawberry.field(
        description="Where to go on: everything up to here has been looked at."
    )
    has_more: bool = strawberry.field(description="Whether there is more after `cursor` already.")
    head: Cursor = strawberry.field(description="The end of the log when this was read.")
    epoch: strawberry.ID = strawberry.field(
        description="The log's life; changes when the service was restored or wiped."
    )
    server_time: float = strawberry.field(description="The service's time, in milliseconds.")

    @field(
        list[SharedSyncLogEntry],
        "The entries spelled out, for people; about twenty times the work of `packed`.",
    )
    def entries(self) -> list[SharedSyncLogEntry]:
        return typed_entries(self.page, self.user)

    @field(PackedEntries, "The same entries in compact form, for machines.")
    def packed(self) -> PackedEntries:
        return PackedEntries(self.page.packed)

    @classmethod
    def of(cls, page: values.Page, user: str) -> SharedSyncLogUpdate:
        return cls(
            page=page,
            user=user,
            cursor=Cursor(str(page.cursor)),
            has_more=page.has_more,
            head=Cursor(str(page.head)),
            epoch=strawberry.ID(page.head.epoch),
            server_time=page.server_time,
        )


@strawberry.type(description="What the log has of a device itself, from one snapshot.")
class SharedSyncLogOwnEntries:
    page: strawberry.Private[values.Page]
    has_more: bool = strawberry.field(description="Whether later ones follow.")
    lineage: strawberry.ID = strawberry.field(
        description="What the device has to show once it knows all of them."
    )
    epoch: strawberry.ID = strawberry.field(
        description="The log's life; changes when the service was restored or wiped."
    )

    @field(PackedEntries, "The entries in compact form, for machines.")
    def packed(self) -> PackedEntries:
        return PackedEntries(self.page.packed)

    @classmethod
    def of(cls, page: values.Page) -> SharedSyncLogOwnEntries:
        return cls(
            page=page,
            has_more=page.has_more,
            lineage=strawberry.ID(page.lineage),
            epoch=strawberry.ID(page.head.epoch),
        )


@strawberry.type(description="What became of one entry of a batch.")
class SharedSyncLogEntryResult:
    created_on: float | None = strawberry.field(
        description="The entry's createdOn; null if it could not be read."
    )
    status: EntryStatus = strawberry.field(description="Accepted, a duplicate, or rejected.")
    code: RejectionCode | None = strawberry.field(description="Why it was rejected, for machines.")
    reason: str | None = strawberry.field(description="Why it was rejected, for people.")

    @classmethod
    def of(cls, result: values.Result) -> SharedSyncLogEntryResult:
        rejection = result.rejection
        return cls(
            created_on=None if result.created_on is None else to_ms(result.created_on),
            status=EntryStatus(result.status),
            code=None if rejection is None else RejectionCode(rejection.code.name),
            reason=None if rejection is None else rejection.reason,
        )


@strawberry.type(description="One entry of a batch that was not written.")
class SharedSyncLogEntryRejection:
    index: int = strawberry.field(description="Its position in the batch, from 0.")
    created_on: float | None = strawberry.field(
        description="The entry's createdOn; null if it could not be read."
    )
    code: RejectionCode = strawberry.field(description="Why, for machines.")
    reason: str = strawberry.field(description="Why, for people.")

    @classmethod
    def of(cls, rejection: values.Rejection) -> SharedSyncLogEntryRejection:
        return cls(
            index=rejection.index,
            created_on=None if rejection.created_on is None else to_ms(rejection.created_on),
            code=RejectionCode(rejection.code.name),
            reason=rejection.reason,
        )


@strawberry.type(description="What became of a batch. Whatever was accepted is durable.")
class SharedSyncLogReceipt:
    receipt: strawberry.Private[values.Receipt]
    accepted: int = strawberry.field(description="How many entries were written.")
    duplicates: int = strawberry.field(description="How many were in the log already.")
    cursor: Cursor = strawberry.field(description="The end of the log after this write.")
    epoch: strawberry.ID = strawberry.field(
        description="The log's life; changes when the service was restored or wiped."
    )
    lineage: strawberry.ID = strawberry.field(
        description="What this device's next request has to show, as `lineage`."
    )
    server_time: float = strawberry.field(description="The service's time, in milliseconds.")
    horizon: float = strawberry.field(
        description="What the log remembers begins after this createdOn: nothing up to it is taken."
    )
    update: SharedSyncLogUpdate | None = strawberry.field(
        description="What other devices wrote after `after`; null unless `withUpdate`."
    )

    @field(list[SharedSyncLogEntryResult], "One result per entry, in the order sent.")
    def results(self) -> list[SharedSyncLogEntryResult]:
        return [SharedSyncLogEntryResult.of(result) for result in self.receipt.results()]

    @field(
        list[SharedSyncLogEntryRejection], "Only the entries that were refused, in the order sent."
    )
    def rejected(self) -> list[SharedSyncLogEntryRejection]:
        return [SharedSyncLogEntryRejection.of(found) for found in self.receipt.rejections]

    @classmethod
    def of(
        cls, receipt: values.Receipt, update: SharedSyncLogUpdate | None
    ) -> SharedSyncLogReceipt:
        return cls(
            receipt=receipt,
            accepted=receipt.accepted,
            duplicates=len(receipt.duplicates),
            cursor=Cursor(str(receipt.head)),
            epoch=strawberry.ID(receipt.head.epoch),
            lineage=strawberry.ID(receipt.lineage),
            server_time=receipt.server_time,
            horizon=to_ms(receipt.horizon_ticks),
            update=update,
        )


@strawberry.type(description="One registered replica: one database file of one user.")
class SharedSyncLogDevice:
    id: strawberry.ID = strawberry.field(description="What createDeviceId answered.")
    name: str | None = strawberry.field(description="What people call it.")
    created_at: float = strawberry.field(description="When it was registered, in milliseconds.")
    last_seen: float | None = strawberry.field(
        description="When it was last heard of, in milliseconds; to the minute if it only read."
    )
    cursor: Cursor = strawberry.field(
        description="Up to where the device has told us it durably holds the log."
    )
    shared_until: float | None = strawberry.field(
        description="What createDeviceId was told: the device starts after what was shared by then."
    )
    revoked: bool = strawberry.field(description="Whether it is locked out.")
    clock_skew: float | None = strawberry.field(
        description="How far its clock was ahead of the service's at its last write that told "
        "`now`, in milliseconds."
    )

    @classmethod
    def of(cls, device: values.Device) -> SharedSyncLogDevice:
        return cls(
            id=strawberry.ID(device.id),
            name=device.name,
            created_at=device.created_at,
            last_seen=device.last_seen,
            cursor=Cursor(str(device.cursor)),
            shared_until=device.shared_until,
            revoked=device.revoked_at is not None,
            clock_skew=device.clock_skew,
        )


@strawberry.type(description="There is something new in the log, or may be. Carries no data.")
class SharedSyncLogPoke:
    cursor: Cursor = strawberry.field(
        description="Where the log ends: who has it up to here has everything."
    )


def typed_entries(page: values.Page, user: str) -> list[SharedSyncLogEntry]:
    return [SharedSyncLogEntry.of(entry, user, page.head.epoch) for entry in page.entries]


def _ticks(ms: float) -> int | float:
    """Return whole ticks as an integer; anything else as it is, for the batch to refuse."""
    ticks = ms * values.TICKS_PER_MS
    return int(ticks) if ticks.is_integer() else ticks
