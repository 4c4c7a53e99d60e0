"""Reading a page as a device does: from where it was, and noting that it came so far."""

from __future__ import annotations

from typing import Any

from sharedlog_service.api.context import Context
from sharedlog_service.api.wire import SharedSyncLogUpdate
from sharedlog_service.entries import Cursor as Place
from sharedlog_service.store.store import Store


def within_room(context: Context, byte_limit: int) -> int:
    """Return how many bytes a page may have: less than asked for, where many answers wait."""
    room = context.access.room()
    return byte_limit if room is None else min(byte_limit, room)


def read_update(
    context: Context,
    store: Store,
    user: str,
    device_id: str,
    after: Place | None,
    **how: Any,
) -> SharedSyncLogUpdate:
    how["byte_limit"] = within_room(context, how["byte_limit"])
    page = store.read(user, device_id, after, **how)
    context.record.pages += 1
    if (mark := page.mark) is not None:
        context.run.later(lambda store: store.mark_seen(user, device_id, mark))
    return SharedSyncLogUpdate.of(page, user)
