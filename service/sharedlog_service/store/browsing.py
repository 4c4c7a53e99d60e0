"""What people ask of a log: filtered entries, the history of a row, numbers.

Runs inside the caller's snapshot. Nothing here is on the path of a sync.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import orjson
import peewee

from sharedlog_service.engines.session import Row, Session
from sharedlog_service.engines.tables import Collection, DeviceRow, Entry
from sharedlog_service.entries import (
    TICKS_PER_MS,
    CollectionStats,
    EntryFilter,
    buckets,
    key,
    read_change,
    row_hash,
    row_identity,
)
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.beginnings import KIND, Beginnings
from sharedlog_service.store.paging import bytes_of, seq_before

MS_MAX = 1e15
"""Some thirty thousand years: beyond every entry, and no overflow when counted in ticks."""

ANY = 2**53
"""As a LIMIT: none."""

COUNTS = """
    SELECT name, creates, modifies, deletes, last_shared_on FROM collections
    WHERE log = ? ORDER BY name LIMIT ?
"""

BUCKET = peewee.SQL("(id >> 14)")
"""As the index of rows has it, to the letter."""


def find_entries(
    db: Session,
    log: int,
    head: int,
    wanted: EntryFilter,
    after: int,
    before: int,
    count: int,
    byte_limit: int | None,
    newest: bool,
) -> tuple[list[Row], bool]:
    """Return rows with `after < seq < before`, the first ones or the newest, up to the bounds but
    at least one; and whether there are more of them.

    The newest come newest first.
    """
    low, high = _seq_range(db, log, head, wanted)
    low, high = max(low, after), min(high, before - 1)
    query = Entry.select(
        Entry.id,
        Entry.device,
        Entry.created_on,
        Entry.group_offset,
        Entry.shared_on,
        peewee.SQL(KIND),
        Entry.data,
    )
    first, last = key(log, low + 1), key(log, high)
    query = query.where(Entry.id.between(first, last))
    for condition in _conditions(log, wanted):
        query = query.where(condition)
    order: list[peewee.ColumnBase] = [Entry.id]
    if wanted.pk is not None:
        query = query.where(BUCKET.in_(_numbers(db, buckets(first, last))))
        order = [BUCKET, Entry.id]
    query = query.order_by(*(column.desc() if newest else column for column in order))
    found: Iterator[Row] = Beginnings(db).whole(query.tuples().iterator(db))
    if wanted.pk is not None:
        found = _of_row(found, _identity(wanted.collection or "", wanted.pk))
    return _within(found, count, byte_limit)


def collection_stats(db: Session, log: int, count: int | None) -> list[CollectionStats]:
    """Return the counts of each collection, by name; of so many at most."""
    return [CollectionStats(*row) for row in db.rows(COUNTS, log, ANY if count is None else count)]


def _within(found: Iterable[Row], count: int, byte_limit: int | None) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    size = 0
    for row in found:
        size += bytes_of(row)
        full = byte_limit is not None and size > byte_limit
        if len(rows) == count or (rows and full):
            return rows, True
        rows.append(row)
    return rows, False


def _conditions(log: int, wanted: EntryFilter) -> Iterator[peewee.Expression]:
    if wanted.device is not None:
        device = DeviceRow.select(DeviceRow.no).where(DeviceRow.id == wanted.device)
        yield Entry.device.in_(device)
    if wanted.operation is not None:
        yield Entry.operation == wanted.operation
    if wanted.created_from is not None:
        yield Entry.created_on >= whole(wanted.created_from, TICKS_PER_MS)
    if wanted.created_until is not None:
        yield Entry.created_on < whole(wanted.created_until, TICKS_PER_MS)
    yield from _row_conditions(log, wanted)


def _row_conditions(log: int, wanted: EntryFilter) -> Iterator[peewee.Expression]:
    if wanted.pk is not None:
        if wanted.collection is None:
            raise Refused(Code.INVALID_ARGUMENT, "filter.pk needs filter.collection beside it.")
        yield Entry.row_hash == row_hash(_identity(wanted.collection, wanted.pk))
    elif wanted.collection is not None:
        named = (Collection.log == log) & (Collection.name == wanted.collection)
        yield Entry.collection.in_(Collection.select(Collection.id).where(named))


def _numbers(db: Session, numbers: list[int]) -> peewee.SQL:
    return peewee.SQL(db.numbers.replace("?", db.param), [orjson.dumps(numbers).decode()])


def _identity(collection: str, pk: object) -> bytes:
    try:
        return row_identity(collection, pk)
    except TypeError as error:
        raise Refused(Code.INVALID_ARGUMENT, "pk must be a scalar or a list of scalars.") from error


def _of_row(found: Iterator[Row], identity: bytes) -> Iterator[Row]:
    """Keep what is really of this row: the index only knows a hash."""
    for row in found:
        change = read_change(row[5])
        if change and row_identity(*change[1:]) == identity:
            yield row


def _seq_range(db: Session, log: int, head: int, wanted: EntryFilter) -> tuple[int, int]:
    """Turn the range of sharedOn into `low < seq <= high`: both grow together."""
    low, high = 0, head
    if wanted.shared_from is not None:
        low = seq_before(db, log, head, whole(wanted.shared_from) - 1)
    if wanted.shared_until is not None:
        high = seq_before(db, log, head, whole(wanted.shared_until) - 1)
    return low, high


def whole(ms: float, per_ms: int = 1) -> int:
    """Round up to what the column counts in, kept inside the database's integers."""
    return math.ceil(min(max(ms, -MS_MAX), MS_MAX) * per_ms)
