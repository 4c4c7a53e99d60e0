"""Groups: the entries of one local transaction, and where a large one is divided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .limits import Limits

ENVELOPE = 120
"""About how many characters an entry has beside its key and its values."""


class Group:
    """The entries of one transaction so far, in one thread. What exceeds its bounds travels as
    another group, so that one large transaction can always be sent."""

    __slots__ = ("before", "entries", "entries_max", "lead_ms", "size", "size_max", "start")

    def __init__(self, limits: Limits) -> None:
        self.entries_max, self.size_max = limits.group_entries, limits.group_bytes
        self.begin_anew()
        self.remember()

    def begin_anew(self) -> None:
        self.lead_ms: int | None = None
        self.start: int | None = None
        self.entries = 0
        self.size = 0

    def remember(self) -> None:
        """Keep what it is now, in case that what comes next is taken back."""
        self.before = self.lead_ms, self.start, self.entries, self.size

    def take_back(self) -> None:
        self.lead_ms, self.start, self.entries, self.size = self.before

    def is_full(self, size: int) -> bool:
        return self.entries > 0 and (
            self.entries >= self.entries_max or self.size + size > self.size_max
        )


def parts(group: Group, sizes: Iterable[int]) -> Iterator[slice]:
    """Where entries of these sizes are divided; between two parts the group begins anew."""
    begin = 0
    for index, size in enumerate(sizes):
        if group.is_full(size):
            if index > begin:
                yield slice(begin, index)
            group.begin_anew()
            begin = index
        group.entries += 1
        group.size += size
    yield slice(begin, None)


def series(ticks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of timestamps that follow each other without a gap: what
    is written in bulk, mostly."""
    first = last = -1
    for tick in sorted(ticks):
        if tick > last + 1:
            if last > 0:
                yield first, last
            first = tick
        last = tick
    if last > 0:
        yield first, last
