"""What is asked: arguments that several fields have, and what the store takes for them."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry
from strawberry import ID

from sharedlog_service.api.wire import Cursor, PackedEntries, SharedSyncLogEntryInput
from sharedlog_service.entries import Cursor as Place
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store


def said(description: str, name: str | None = None) -> Any:
    return strawberry.argument(description=description, name=name)


User = Annotated[ID, said("Whose log. Must be the user the token belongs to.")]
DeviceId = Annotated[ID, said("The device, as createDeviceId answered.")]
BatchSize = Annotated[
    int, said("Entries in a page, about: a page never ends inside a transaction group.")
]
ByteLimit = Annotated[int, said("Bytes of data in a page, about; at least one entry comes.")]
Collections = Annotated[
    list[str] | None,
    said(
        "Only entries of these collections, sealed ones, and those of collections that are not "
        "counted; null for all."
    ),
]
Packed = Annotated[
    PackedEntries | None,
    said("The entries as `[[createdOnTicks, groupTicks, data], ...]`; or use `entries`."),
]
Now = Annotated[
    float | None,
    said("The device's own time in milliseconds; only shown as the device's clockSkew."),
]
Until = Annotated[
    Cursor | None, said("Nothing that comes after this cursor; null for all there is.")
]
WithOwn = Annotated[
    bool,
    said(
        "What the device itself wrote, too: to check what it has, or to read its log anew. "
        "Such a reading is not taken for where the device is."
    ),
]
Lineage = Annotated[
    ID | None,
    said(
        "What the device's last write was answered, empty before the first one: where anything "
        "else was written as this device, nothing is done; nor does a write do anything where a "
        "copy of the device wrote since. Null to leave that out."
    ),
]


def place(cursor: str | None) -> Place | None:
    return None if cursor is None else Place.parse(cursor)


def batch(entries: list[SharedSyncLogEntryInput] | None, packed: object | None) -> list[Any]:
    """Return what was sent, in whichever of the two forms."""
    if (entries is None) == (packed is None):
        raise Refused(
            Code.INVALID_ARGUMENT, "Send either entries or packed; an empty list is fine."
        )
    if entries is not None:
        return [entry.offered() for entry in entries]
    if not isinstance(packed, list):
        raise Refused(Code.INVALID_ARGUMENT, "packed must be a list of [ticks, groupTicks, data].")
    return packed


def people_count(store: Store, first: int | None, last: int | None) -> int:
    if first is not None and last is not None:
        raise Refused(Code.INVALID_ARGUMENT, "Give first or last, not both.")
    count = last if last is not None else 100 if first is None else first
    if not 0 < count <= store.limits.people_entries:
        limit = store.limits.people_entries
        raise Refused(Code.INVALID_ARGUMENT, f"first and last must be from 1 to {limit}.")
    return count
