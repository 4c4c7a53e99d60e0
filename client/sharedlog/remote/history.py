"""What happened to one row: who wrote what, and when, as the shared log tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import peewee

from ..changes import Change, Entry, Wire, decode
from ..clock import Version, from_created_on, to_created_on
from ..errors import ConfigurationError, EntryUnreadable, NotASyncModel
from ..models.columns import TrackedColumn
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import NotCanonical

HISTORY_ENTRIES = 1_000
"""The most that a service tells of one row at once."""


class Told(NamedTuple):
    """An entry as the log tells it to people: with the name of its device, if it has one."""

    entry: Entry
    device_name: str | None


class Historian(Protocol):
    """A shared log that can tell what happened to a row."""

    def history(self, collection: str, pk: Wire, limit: int) -> Sequence[Told]:
        """The entries of one row, oldest first."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of a row.

    `version` has the device and its timestamp, `change` the operation and the values, as they
    travel.
    """

    version: Version
    device_name: str | None
    change: Change

    @property
    def written_at(self) -> datetime:
        """When it was written, by the device's clock."""
        return datetime.fromtimestamp(to_created_on(self.version.ticks) / 1000, UTC)


def history_of(
    registry: Registry, shared_log: Any, instance: peewee.Model, limit: int
) -> list[HistoryEntry]:
    """The changes of this row that are in the shared log, by the time of writing; also those from
    when its table had another name."""
    tracked = registry.model(type(instance))
    if tracked is None:
        raise NotASyncModel(
            f"{type(instance).__name__} is not tracked, so nothing is known of its past.",
            hint="Give the model to Sync(database, [...]).",
        )
    if not hasattr(shared_log, "history"):
        raise ConfigurationError(
            f"A {type(shared_log).__name__} tells no history.",
            hint="GraphQLSharedLog does; another one needs a method `history`, as in `Historian`.",
        )
    if type(limit) is not int or not 1 <= limit <= HISTORY_ENTRIES:
        raise ConfigurationError(
            f"limit is {limit!r}; it must be a whole number from 1 to {HISTORY_ENTRIES}."
        )
    historian: Historian = shared_log
    pk = _pk(tracked, instance)
    result = []
    for name in (*registry.names.of_table(tracked.collection), tracked.collection):
        for entry, device_name in historian.history(name, pk, limit):
            try:
                change = decode(entry.data)
            except EntryUnreadable:
                continue  # by a later version
            result.append(HistoryEntry(entry.version, device_name, change))
    return sorted(result, key=lambda entry: entry.version)[:limit]


def _pk(tracked: Tracked, instance: peewee.Model) -> Wire:
    wires = [_wire(column, instance.__data__.get(column.name)) for column in tracked.key]
    return wires[0] if len(wires) == 1 else wires


def _wire(column: TrackedColumn, value: Any) -> Wire:
    try:
        return column.exact_wire(value)
    except NotCanonical:  # a text for a UUID, say
        return column.wire_of_stored(column.field.db_value(value))


def told_of(answer: Mapping[str, Any]) -> list[Told]:
    """What the service answers to the document HISTORY."""
    names = {device["id"]: device["name"] for device in answer["devices"]}
    told = []
    for entry in answer["history"]:
        device, ticks = entry["deviceId"], from_created_on(entry["createdOn"])
        offset = ticks - from_created_on(entry["group"])
        told.append(Told(Entry(device, ticks, offset, entry["data"]), names.get(device)))
    return told
