"""A shared log in memory: for tests, demonstrations, and as a model of what a service does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from .changes import Entry, Wire, decode
from .clock import TICKS_PER_MS, Now, system_now
from .errors import DeviceRefused, EntryUnreadable, EpochChanged
from .history import Told
from .remote import Outgoing, Page, Receipt, Rejection

MAX_LEAD_MS = 5 * 60 * 1000
"""How far ahead of the log's time an entry may be."""


class MemorySharedLog:
    """One user's log in a list. Behaves as the service does, without users and tokens."""

    def __init__(self, *, now: Now = system_now, epoch: str = "memory") -> None:
        self.entries: list[Entry] = []
        self._epoch = epoch
        self._now = now
        self._data: dict[tuple[str, int], str] = {}
        self._devices: dict[str, str] = {}
        self._names: dict[str, str | None] = {}
        self._numbers: Iterator[int] = count(1)

    def register(self, name: str | None, request_id: str) -> str:
        device = self._devices.get(request_id)
        if device is None:
            device = self._devices[request_id] = f"device-{next(self._numbers):06}"
            self._names[device] = name
        return device

    def write(
        self,
        device: str,
        entries: Sequence[Outgoing],
        *,
        after: str | None,
        now_ms: int,
        limit: int,
        byte_limit: int,
    ) -> Receipt:
        self._check(device)
        self._position(after)
        accepted = duplicates = 0
        rejected = []
        latest = (self._now() + MAX_LEAD_MS) * TICKS_PER_MS
        for index, (ticks, offset, data) in enumerate(entries):
            known = self._data.get((device, ticks))
            if known == data:
                duplicates += 1
            elif known is not None:
                rejected.append(Rejection(index, "DEVICE_CLONED", "same identity, other content"))
            elif ticks > latest:
                rejected.append(Rejection(index, "CLOCK_AHEAD", "more than five minutes ahead"))
            else:
                self._data[device, ticks] = data
                self.entries.append(Entry(device, ticks, offset, data))
                accepted += 1
        page = self.read(device, after=after, limit=limit, byte_limit=byte_limit)
        return Receipt(accepted, duplicates, rejected, self._epoch, float(self._now()), page)

    def read(self, device: str, *, after: str | None, limit: int, byte_limit: int) -> Page:
        self._check(device)
        return self._page(device, self._position(after), len(self.entries), limit, byte_limit)

    def read_all(
        self, device: str, *, after: str | None, until: str, limit: int, byte_limit: int
    ) -> Page:
        self._check(device)
        return self._page(None, self._position(after), self._position(until), limit, byte_limit)

    def _page(
        self, reader: str | None, position: int, end: int, limit: int, byte_limit: int
    ) -> Page:
        page: list[Entry] = []
        size = 0
        for entry in self.entries[position:end]:
            last = page[-1] if page else None
            full = len(page) >= limit or size >= byte_limit
            if full and (last is None or last.group != entry.group):
                break
            position += 1
            if entry.device != reader:
                page.append(entry)
                size += len(entry.data)
        cursor = f"{self._epoch}.{position}"
        return Page(page, cursor, position < end, self._epoch, float(self._now()))

    def history(self, collection: str, pk: Wire, limit: int) -> list[Told]:
        told: list[Told] = []
        for entry in self.entries:
            try:
                change = decode(entry.data)
            except EntryUnreadable:
                continue
            if (change.collection, change.pk) == (collection, pk) and len(told) < limit:
                told.append(Told(entry, self._names.get(entry.device)))
        return told

    def begin_new_life(self, epoch: str, entries: Sequence[Entry] | None = None) -> None:
        """What restoring a backup does: a new epoch, and the entries of then."""
        self._epoch = epoch
        if entries is not None:
            self.entries = list(entries)
            self._data = {(entry.device, entry.ticks): entry.data for entry in entries}

    def close(self) -> None:
        pass

    def _check(self, device: str) -> None:
        if device not in self._devices.values():
            raise DeviceRefused(f"The device {device!r} is not known.")

    def _position(self, after: str | None) -> int:
        if after is None:
            return 0
        epoch, _, position = after.partition(".")
        if epoch != self._epoch or int(position) > len(self.entries):
            raise EpochChanged("This cursor belongs to an earlier life of the log.")
        return int(position)
