"""What changes go through on their way out and in: processors, and the serializer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from . import changes
from .changes import Change
from .errors import EntryUnreadable
from .journal import DROPPED, LocalEntry, RefusedEntry
from .remote import Outgoing
from .runs import COUNTER, handed_over

Processor = Callable[[Change], Change | None]
"""Sees a change on its way out or in; may answer another one, or None to drop it. Must be
pure: the same change always gives the same answer, because an exchange may be repeated."""


class Serializer(Protocol):
    """How changes become the opaque text that the service keeps (encryption goes here).

    Must be pure, too: an entry that is sent again must have the same text.
    """

    def encode(self, change: Change) -> str: ...

    def decode(self, data: str) -> Change: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """JSON and no processors, unless the application says otherwise."""

    serializer: Serializer | None = None
    pre_send: Processor | None = None
    post_receive: Processor | None = None

    def outgoing(self, entries: Iterable[LocalEntry]) -> tuple[list[Outgoing], list[RefusedEntry]]:
        """Entries as they are sent, and those that `pre_send` dropped."""
        if self.pre_send is None and self.serializer is None:
            return [Outgoing(entry.ticks, entry.offset, entry.data()) for entry in entries], []
        batch, dropped = [], []
        for entry in entries:
            change: Change | None = changes.decode(entry.data())
            if change is not None and self.pre_send is not None:
                change = self.pre_send(change)
            if change is None:
                dropped.append(RefusedEntry(entry.ticks, DROPPED))
                continue
            encode = self.serializer.encode if self.serializer else changes.encode
            batch.append(Outgoing(entry.ticks, entry.offset, encode(change)))
        return batch, dropped

    def same(self, entry: LocalEntry, data: str, mine: str = "", theirs: str = "") -> bool:
        """Whether `data` is what this entry is sent as, in whatever words. `mine` and `theirs` are
        the devices that the two are of, if not the same one."""
        if self.pre_send is None and self.serializer is None and entry.data() == data:
            return True
        change: Change | None = changes.decode(entry.data())
        if self.pre_send is not None and change is not None:
            change = self.pre_send(change)
        try:
            other = self._deserialized(data)
        except EntryUnreadable:
            return False
        return change is not None and (
            change == other or _attributed(change, mine) == _attributed(other, theirs)
        )

    def decode(self, data: str) -> Change | None:
        """A received entry's change; None if `post_receive` drops it."""
        change = self._deserialized(data)
        return change if self.post_receive is None else self.post_receive(change)

    def _deserialized(self, data: str) -> Change:
        if self.serializer is None:
            return changes.decode(data)
        try:
            return self.serializer.decode(data)
        except Exception as error:
            raise EntryUnreadable(f"The serializer failed: {error!r}.") from error


def _attributed(change: Change, device: str) -> Change:
    """The change with the increments of counters said to be of this device."""
    counted = {name for name, rule in (change.rules or {}).items() if rule == COUNTER}
    values = dict(change.value or {})
    values |= {name: handed_over(values[name], device) for name in counted & values.keys()}
    return change._replace(value=values) if counted else change
