"""A shared log in memory: for tests, demonstrations, and as a model of what a service does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from ..changes import Entry, Wire, decode
from ..clock import TICKS_PER_MS, Now, system_now
from ..errors import DeviceUnknown, EntryUnreadable, EpochChanged, LineageChanged
from ..limits import Limits
from .history import Told
from .sharedlog import About, Outgoing, OwnPage, Page, Receipt, Rejection, akin

MAX_LEAD_MS = 5 * 60 * 1000
"""How far ahead of the log's time an entry may be."""

COPIES = "~"
"""Begins the part of a lineage that copies renew."""

Identity = tuple[str, int]
"""What an entry is known by: device and ticks."""


class MemorySharedLog:
    """One user's log in a list. Behaves as the service does, without users and tokens."""

    def __init__(
        self, *, now: Now = system_now, epoch: str = "memory", limits: Limits | None = None
    ) -> None:
        self.entries: list[Entry] = []
        self.limits = limits or Limits()
        self._epoch = epoch
        self._now = now
        self._data: dict[Identity, str] = {}
        self._marks: dict[Identity, int] = {}
        self._devices: dict[str, str | None] = {}
        self._lineages: dict[str, str] = {}
        self._copies: dict[str, str] = {}
        self._writes: Iterator[int] = count(1)

    def about(self) -> About:
        return About("memory", self.limits)

    def register(self, name: str | None, device: str) -> str:
        self._devices.setdefault(device, name)
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
        lineage: str | None = None,
    ) -> Receipt:
        self._check(device)
        self._position(after)
        self._check_write(device, lineage)
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
                self._renew(device, next(self._writes))
            else:
                self._append(Entry(device, ticks, offset, data))
                accepted += 1
        if accepted:
            self._tell_copies(device)
        page = self.read(device, after=after, limit=limit, byte_limit=byte_limit)
        time, lineage = float(self._now()), self._lineage(device)
        return Receipt(accepted, duplicates, rejected, self._epoch, time, page, lineage)

    def _append(self, entry: Entry) -> None:
        identity = entry.device, entry.ticks
        self._data[identity], self._marks[identity] = entry.data, next(self._writes)
        self._renew(entry.device, self._marks[identity])
        self.entries.append(entry)

    def _renew(self, device: str, mark: int) -> None:
        self._lineages[device] = str(mark)
        self._copies.pop(device, None)

    def _tell_copies(self, device: str) -> None:
        for other in self._devices:
            if other != device and akin(other, device):
                self._copies[other] = self._lineages[device]

    def _lineage(self, device: str) -> str:
        """What a write has to show. The second part is renewed by copies, and not asked of whoever
        only reads."""
        own, copy = self._lineages.get(device, ""), self._copies.get(device)
        return own if copy is None else f"{own}{COPIES}{copy}"

    def read(
        self,
        device: str,
        *,
        after: str | None,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Page:
        self._check(device)
        self._check_read(device, lineage)
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
        cursor = self._cursor(position)
        return Page(page, cursor, position < end, self._epoch, float(self._now()))

    def history(self, collection: str, pk: Wire, limit: int) -> list[Told]:
        told: list[Told] = []
        for entry in self.entries:
            try:
                change = decode(entry.data)
            except EntryUnreadable:
                continue
            if (change.collection, change.pk) == (collection, pk) and len(told) < limit:
                told.append(Told(entry, self._devices.get(entry.device)))
        return told

    def read_own(self, device: str, *, since: int, limit: int, byte_limit: int) -> OwnPage:
        self._check(device)
        mine = (entry for entry in self.entries if entry.device == device and entry.ticks >= since)
        own = sorted(mine, key=lambda entry: entry.ticks)
        return OwnPage(own[:limit], len(own) > limit, self._lineage(device))

    def begin_new_life(self, epoch: str, entries: Sequence[Entry] | None = None) -> None:
        """What restoring a backup does: a new epoch (or the old one, if nobody thinks of it), and
        the entries of then."""
        self._epoch = epoch
        if entries is None:
            return
        kept = {(entry.device, entry.ticks): entry.data for entry in entries}
        self._marks = {identity: self._marks[identity] for identity in kept}
        self.entries, self._data, self._lineages, self._copies = list(entries), kept, {}, {}
        for (device, _), mark in sorted(self._marks.items(), key=lambda item: item[1]):
            self._renew(device, mark)
            self._tell_copies(device)

    def close(self) -> None:
        pass

    def _check(self, device: str) -> None:
        if device not in self._devices:
            raise DeviceUnknown(f"The device {device!r} is not known.")

    def _check_write(self, device: str, lineage: str | None) -> None:
        if lineage is not None and lineage != self._lineage(device):
            raise LineageChanged()

    def _check_read(self, device: str, lineage: str | None) -> None:
        if lineage is not None and lineage.partition(COPIES)[0] != self._lineages.get(device, ""):
            raise LineageChanged()

    def _cursor(self, position: int) -> str:
        if position == 0:
            return f"{self._epoch}.0"
        last = self.entries[position - 1]
        return f"{self._epoch}~{self._marks[last.device, last.ticks]}.{position}"

    def _position(self, after: str | None) -> int:
        if after is None:
            return 0
        position = int(after.rpartition(".")[2])
        if position > len(self.entries) or self._cursor(position) != after:
            raise EpochChanged("This cursor belongs to an earlier life of the log.")
        return position
