"""The values that go into the log and come out of it. Pure: no database, no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from sharedlog_service.errors import Code, Refused

TICKS_PER_MS = 1024
"""A timestamp is one integer, `ms * 1024 + counter`; divided by 1024 it is exact in a double."""

OPERATIONS = ("create", "modify", "delete")
"""Position = the number stored; SQLite keeps 0 and 1 in no bytes at all."""

NUMBERS: Mapping[str, int] = {name: number for number, name in enumerate(OPERATIONS)}

COLLECTION_CHARS_MAX = 200

SEQ_BITS = 40
"""An entry's key is `log << 40 | seq`: 8 million logs of a trillion entries in one integer."""

BUCKET_BITS = 14
"""The index of rows has a part of its own for each so many keys: entries are only ever added to
the last one, and who looks for a row asks each of them."""


def to_ms(ticks: int) -> float:
    return ticks / TICKS_PER_MS


def whole_ms(ms: float) -> int:
    """Round down, refusing what is no time at all and would not fit the database."""
    if not abs(ms) <= 1e15:
        raise Refused(Code.INVALID_ARGUMENT, "A time is in milliseconds since 1970.")
    return math.floor(ms)


def key(log: int, seq: int) -> int:
    return log << SEQ_BITS | seq


def seq_of(entry_key: int) -> int:
    return entry_key & ((1 << SEQ_BITS) - 1)


def buckets(first_key: int, last_key: int) -> list[int]:
    """Return the parts of the index of rows that these keys are in."""
    return list(range(first_key >> BUCKET_BITS, (last_key >> BUCKET_BITS) + 1))


class Cursor(NamedTuple):
    """A position in one life of one log. On the wire: opaque text.

    `check` tells the entry that was there: a log that was restored from a backup and has grown
    again has another one at that place. Empty at the beginning, and where nobody will ask.
    `since` tells how far deletions had been forgotten when the reader began at the beginning;
    left out behind that.
    """

    epoch: str
    seq: int
    check: str = ""
    since: int = 0

    def __str__(self) -> str:
        since = f"^{self.since}" if self.since else ""
        check = f"~{self.check}" if self.check else ""
        return f"{self.epoch}{since}{check}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        life, dot, seq = text.rpartition(".")
        begun, tilde, check = life.partition("~")
        epoch, caret, since = begun.partition("^")
        if not (dot and epoch and _is_seq(seq)):
            raise Refused(Code.CURSOR_INVALID)
        if (tilde and not check) or (caret and not _is_seq(since)):
            raise Refused(Code.CURSOR_INVALID)
        return cls(epoch, int(seq), check, int(since or 0))


def _is_seq(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def check_of(device: int, created_on: int, shared_on: int) -> str:
    """Tell an entry at its place: the same entry, offered again later, has another `shared_on`."""
    return f"{crc32(f'{device} {created_on} {shared_on}'.encode()):08x}"


class NewEntry(NamedTuple):
    """An entry as a device offers it. `group`: ticks since its local transaction's first entry."""

    created_on: int
    group: int
    data: str


class StoredEntry(NamedTuple):
    """An entry as the log keeps it; `device` is the device's id, `group` as in `NewEntry`."""

    seq: int
    device: str
    created_on: int
    group: int
    shared_on: int
    data: str


Change = tuple[int, str, Any]
"""What plain (not sealed) data says about itself: operation, collection, pk."""


def read_change(data: str | bytes) -> Change | None:
    """Return what the data says if it is our plain JSON, else None. Never fails, whatever it is."""
    try:
        found = orjson.loads(data)
        operation = NUMBERS[found["operation"]]
        collection, pk = found["collection"], found["pk"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    if type(collection) is not str or not 0 < len(collection) <= COLLECTION_CHARS_MAX:
        return None
    if "\0" in collection:  # PostgreSQL stores none in a text
        return None
    return (operation, collection, pk) if type(pk) is str or is_key(pk) else None


def is_key(pk: object) -> bool:
    """Whether this can be a primary key: a scalar, or a list of scalars for a composite one."""
    if type(pk) is list:
        return bool(pk) and all(type(part) in (str, int, float, bool) for part in pk)
    return type(pk) in (str, int, float, bool)


def row_identity(collection: str, pk: object) -> bytes:
    """Name a row in one canonical way: equal bytes, same row."""
    return orjson.dumps((collection, pk))


def row_hash(identity: bytes) -> int:
    """Hash a row's identity to 32 signed bits, the same in every process.

    A lookup verifies on the data, so a collision costs one row read in vain and never an answer.
    """
    return crc32(identity) - 2**31


def fingerprint(data: str) -> bytes:
    """Tell two contents apart without keeping either."""
    return blake2b(data.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Device:
    """One registered replica."""

    id: str
    name: str | None
    created_at: int
    last_seen: int | None
    cursor: Cursor
    shared_until: int | None
    revoked_at: int | None
    clock_skew: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """One entry of a batch that was not written, and why."""

    index: int
    created_on: int | None
    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one entry: `status` is ACCEPTED, DUPLICATE or REJECTED."""

    created_on: int | None
    status: str
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch. `head` is the log's end after it; all of it is durable.

    `reached` is where the device has to go on reading: behind this batch if it had all before.
    `lineage` is what its next request has to show. Nothing up to `horizon_ticks` is taken.
    """

    offered: Sequence[Any]
    duplicates: frozenset[int]
    rejections: Sequence[Rejection]
    head: Cursor
    reached: Cursor
    server_time: int
    lineage: str
    horizon_ticks: int = 0

    @property
    def accepted(self) -> int:
        return len(self.offered) - len(self.duplicates) - len(self.rejections)

    def results(self) -> Iterator[Result]:
        """Yield one result per entry, in the order sent. Costs nothing unless it is asked for."""
        rejected = {rejection.index: rejection for rejection in self.rejections}
        for index, entry in enumerate(self.offered):
            if rejection := rejected.get(index):
                yield Result(rejection.created_on, "REJECTED", rejection)
            else:
                status = "DUPLICATE" if index in self.duplicates else "ACCEPTED"
                yield Result(entry[0], status)


@dataclass(frozen=True)
class Page:
    """A stretch of the log, read in one snapshot.

    A row is (key, device number, createdOn, group, sharedOn, data); `devices` names the numbers.
    """

    rows: Sequence[tuple[Any, ...]]
    devices: dict[int, str]
    cursor: Cursor
    head: Cursor
    has_more: bool
    server_time: int
    # Where the reading device says it is, when that is worth storing.
    mark: Cursor | None = None
    # What the device has to show with its next request; only in a page of its own entries.
    lineage: str = ""

    @cached_property
    def packed(self) -> dict[str, Any]:
        """The rows in the compact form for machines."""
        index = {no: position for position, no in enumerate(self.devices)}
        rows = [(index[no], ticks, group, data) for _, no, ticks, group, _, data in self.rows]
        return {"devices": list(self.devices.values()), "entries": rows}

    @cached_property
    def entries(self) -> list[StoredEntry]:
        """The rows as values for people."""
        return [
            StoredEntry(seq_of(key), self.devices[no], ticks, group, shared_on, data)
            for key, no, ticks, group, shared_on, data in self.rows
        ]


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """How often the entries of one collection did what."""

    collection: str
    creates: int
    modifies: int
    deletes: int
    last_shared_on: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A log in numbers. `entries`: as many as it has; dropped ones are not among them."""

    head: Cursor
    entries: int
    bytes: int
    devices: int
    first_shared_on: int | None
    last_shared_on: int | None
    collections: Sequence[CollectionStats]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries people want to see. Ranges are half open: from <= x < until."""

    collection: str | None = None
    pk: Any = None
    operation: int | None = None
    device: str | None = None
    created_from: float | None = None
    created_until: float | None = None
    shared_from: float | None = None
    shared_until: float | None = None
