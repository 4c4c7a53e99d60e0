"""Appending a batch to a log: what is sound, what is new, and which seq it gets.

Runs inside the caller's transaction. Exactly once: an entry is identified by (device, createdOn);
the same again is a duplicate, another content under the same identity is refused by name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from sharedlog_service.engines.session import Row, Session
from sharedlog_service.entries import (
    NUMBERS,
    TICKS_PER_MS,
    Rejection,
    fingerprint,
    key,
    read_change,
    row_hash,
    row_identity,
)
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.beginnings import KIND, Beginnings, beginning, without
from sharedlog_service.store.places import LogState

KNOWN = """
    SELECT created_on, fingerprint FROM dropped WHERE device = ? AND created_on IN {numbers}
"""

IDENTITIES = """
    SELECT id, device, created_on, group_offset, shared_on, {kind}, data FROM entries
    WHERE device = ? AND created_on IN {numbers}
"""

COUNT = """
    UPDATE collections SET creates = creates + ?, modifies = modifies + ?, deletes = deletes + ?,
        last_shared_on = ? WHERE id = ?
"""

DELETE = NUMBERS["delete"]

DELETIONS_PART = 10
"""Deletions may go beyond a quota by this part of it, a tenth."""

Fault = tuple[Code, str]

Kind = tuple[int | None, str]
"""A collection's number, and how plain data of one operation on it begin. No number, and nothing to
leave out, where the log has no room for the collection."""

Description = tuple[int | None, int | None, int | None, str]
"""The columns operation, collection, row_hash and data."""


class Appended(NamedTuple):
    """What became of a batch; everything that is in neither list was written, in order."""

    written: int
    bytes: int
    duplicates: frozenset[int]
    rejections: Sequence[Rejection]

    @property
    def ahead(self) -> bool:
        """Whether something was refused that may be in time when it comes again."""
        return any(rejection.code is Code.CLOCK_AHEAD for rejection in self.rejections)


class Batch:
    """One device's entries on their way into the log. Used once.

    An offered entry is anything shaped (createdOn, group, data): a `NewEntry`, or the raw list
    that came over the wire, whose shape nobody has checked yet.
    """

    def __init__(self, db: Session, log: LogState, device: int, limits: Limits) -> None:
        self._db = db
        self._log = log
        self._device = device
        self._limits = limits
        self._collections: dict[str, int] = {}
        self._kinds: dict[tuple[int, str], Kind] = {}
        self._stored: dict[int, bytes] = {}
        self._fresh: dict[int, str] = {}
        self._duplicates: set[int] = set()
        self._rejections: list[Rejection] = []
        self._bytes = 0

    def append(self, offered: Sequence[Any], *, shared_on: int, now: int) -> Appended:
        """Write what is sound and new behind the head. A bad entry never blocks the others."""
        self._check_size(offered)
        self._find_stored(offered)
        new = self._sift(offered, key(self._log.id, self._log.head), shared_on, now)
        self._check_room(new)
        self._db.insert_rows("entries", new)
        self._count(new, shared_on)
        duplicates = frozenset(self._duplicates)
        return Appended(len(new), self._bytes, duplicates, self._rejections)

    def _check_size(self, offered: Sequence[Any]) -> None:
        limits = self._limits
        if len(offered) > limits.batch_entries or characters(offered) > limits.batch_bytes:
            raise Refused(
                Code.BATCH_TOO_LARGE,
                batchEntries=limits.batch_entries,
                batchBytes=limits.batch_bytes,
            )

    def _check_room(self, new: Sequence[Row]) -> None:
        """Refuse the batch as a whole where the log would get too long: a part of it could end
        inside a transaction group. What is not new always has room, and what only deletes some
        more than there is: else nobody could make room."""
        log, limits = self._log, self._limits
        entries, length = log.head - log.dropped + len(new), log.bytes + self._bytes
        deletes = all(row[5] == DELETE for row in new)
        full = entries > room(limits.log_entries, deletes)
        if new and (full or length > room(limits.log_bytes, deletes)):
            raise Refused(
                Code.QUOTA_EXCEEDED, logEntries=limits.log_entries, logBytes=limits.log_bytes
            )

    def _find_stored(self, offered: Sequence[Any]) -> None:
        """Look up, all at once, which identities the log has. A device that only moves forward
        pays one probe of the index."""
        tables = ("entries", "dropped") if self._log.dropped else ("entries",)
        sql = "SELECT max(created_on) FROM {} WHERE device = ?"
        top = max(self._db.scalar(sql.format(table), self._device) or 0 for table in tables)
        old = [ticks for ticks in map(_ticks, offered) if ticks is not None and 0 < ticks <= top]
        if old:
            parameters = self._device, orjson.dumps(old).decode()
            sql = KNOWN.format(numbers=self._db.numbers)
            self._stored = {ticks: bytes(kept) for ticks, kept in self._db.rows(sql, *parameters)}
            # One by one and as fingerprints: the stored texts may be larger than the batch.
            sql = IDENTITIES.format(kind=KIND, numbers=self._db.numbers)
            with self._db.stream(sql, *parameters) as found:
                for row in Beginnings(self._db).whole(found):
                    self._stored[row[2]] = fingerprint(row[5])

    def _sift(self, offered: Sequence[Any], base: int, shared_on: int, now: int) -> list[Row]:
        ceiling = now + self._limits.clock_ahead_ms
        new: list[Row] = []
        for index, entry in enumerate(offered):
            try:
                created_on, group, data = entry
                content = data.encode()
            except (TypeError, ValueError, AttributeError):
                self._reject(index, entry, (Code.ENTRY_INVALID, SHAPE))
                continue
            if type(created_on) is int and (
                created_on in self._stored or created_on in self._fresh
            ):
                # First of all: what the log has is no longer a question of limits and clocks.
                self._meet_again(index, created_on, data)
            elif fault := self._fault(created_on, group, data, content, ceiling):
                self._reject(index, entry, fault)
            else:
                self._fresh[created_on] = data
                self._bytes += len(content)
                position = base + len(new) + 1
                columns = self._describe(data, content)
                new.append((position, self._device, created_on, group, shared_on, *columns))
        return new

    def _fault(
        self, created_on: Any, group: Any, data: str, content: bytes, ceiling: int
    ) -> Fault | None:
        if type(created_on) is not int or type(group) is not int or not 0 <= group < created_on:
            return Code.ENTRY_INVALID, "createdOn must be a positive integer, not before its group"
        if created_on <= self._log.horizon.ticks:
            return Code.ENTRY_TOO_OLD, Code.ENTRY_TOO_OLD.value
        if created_on // TICKS_PER_MS > ceiling:
            return Code.CLOCK_AHEAD, Code.CLOCK_AHEAD.value
        if len(content) > self._limits.entry_bytes:
            return Code.ENTRY_TOO_LARGE, f"data is over {self._limits.entry_bytes} bytes"
        if not content or "\0" in data:
            # PostgreSQL stores no NUL in a text: such an entry could never move there.
            return Code.ENTRY_INVALID, "data must be a text that is not empty and has no NUL"
        return None

    def _meet_again(self, index: int, created_on: int, data: str) -> None:
        stored = self._stored.get(created_on)
        same = stored == fingerprint(data) if stored else self._fresh[created_on] == data
        if same:
            self._duplicates.add(index)
        else:
            self._reject(index, (created_on,), (Code.DEVICE_CLONED, Code.DEVICE_CLONED.value))

    def _reject(self, index: int, entry: Any, fault: Fault) -> None:
        self._rejections.append(Rejection(index, _ticks(entry), *fault))

    def _describe(self, data: str, content: bytes) -> Description:
        change = read_change(content)
        if change is None:
            return None, None, None, data
        operation, collection, pk = change
        known = self._kinds.get((operation, collection))
        number, start = known or self._kind(operation, collection)
        return operation, number, row_hash(row_identity(collection, pk)), without(start, data)

    def _kind(self, operation: int, collection: str) -> Kind:
        number = self._collections.get(collection) or self._collection(collection)
        start = "" if number is None else beginning(operation, collection)
        kind = self._kinds[operation, collection] = number, start
        return kind

    def _collection(self, name: str) -> int | None:
        """Return a collection's number. One that there is no room for gets none: its entries are
        like all others, but nobody counts them by its name."""
        select = "SELECT id FROM collections WHERE log = ? AND name = ?"
        number: int | None = self._db.scalar(select, self._log.id, name)
        if number is None and self._places > 0:
            self._places -= 1
            self._db.rows("INSERT INTO collections (log, name) VALUES (?, ?)", self._log.id, name)
            number = self._db.scalar(select, self._log.id, name)
        if number is not None:
            self._collections[name] = number
        return number

    @cached_property
    def _places(self) -> int:
        """How many collections the log has room for, to be counted down."""
        sql = "SELECT count(*) FROM collections WHERE log = ?"
        taken: int = self._db.scalar(sql, self._log.id)
        return self._limits.log_collections - taken

    def _count(self, new: Sequence[Row], shared_on: int) -> None:
        counts = Counter(map(itemgetter(6, 5), new))
        for number in self._collections.values():
            creates, modifies, deletes = (counts[number, operation] for operation in range(3))
            self._db.rows(COUNT, creates, modifies, deletes, shared_on, number)


def room(quota: int | None, deletes: bool) -> float:
    """Return how much there may be in the log, for what only deletes, or for anything."""
    if quota is None:
        return math.inf
    return quota + (quota // DELETIONS_PART if deletes else 0)


SHAPE = "an entry is [createdOn, group, data], data a text without lone surrogates"


def _ticks(entry: Any) -> int | None:
    """Return an offered entry's createdOn, whatever else is wrong with it."""
    try:
        ticks = entry[0]
    except (TypeError, LookupError):
        return None
    return ticks if type(ticks) is int else None


def characters(offered: Sequence[Any]) -> int:
    """Count the data's characters: never more than its bytes, and free."""
    try:
        return sum([len(data) for _, _, data in offered])
    except (TypeError, ValueError):
        return sum(
            len(e[2]) for e in offered if type(e) is list and len(e) == 3 and type(e[2]) is str
        )
