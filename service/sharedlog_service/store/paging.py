"""Reading a stretch of a log for one device, and finding a place in it by time.

Runs inside the caller's snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from sharedlog_service.engines.session import Row, Session
from sharedlog_service.entries import key
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.beginnings import KIND, Beginnings

OTHERS = f"""
    SELECT id, device, created_on, group_offset, shared_on, {KIND}, data FROM entries
    WHERE id > ? AND id <= ? AND device <> ?
"""

NOBODY = 0
"""No device has this number: what it reads of others is everybody's."""

# Sealed entries, and those of collections that are not counted, may belong to any: nobody can be
# spared them.
AMONG = """
    AND (collection IS NULL OR collection IN (
        SELECT id FROM collections WHERE log = ? AND name IN {texts}))
"""


class Stretch:
    """Collects rows up to the bounds, at least one, and never half a transaction group."""

    def __init__(self, limit: int, byte_limit: int, limits: Limits) -> None:
        if limit < 1 or byte_limit < 1:
            raise Refused(Code.INVALID_ARGUMENT, "batchSize and byteLimit must be at least 1.")
        self.rows: list[Row] = []
        self.has_more = False
        self._limit = min(limit, limits.page_entries)
        self._byte_limit = min(byte_limit, limits.page_bytes)
        # A group comes in one batch. One that does not is no group any more, and must not
        # make the page as large as the log.
        self._limit_max = self._limit + limits.batch_entries
        self._byte_limit_max = self._byte_limit + limits.batch_bytes

    def fill(self, found: Iterable[Row]) -> None:
        size = 0
        for row in found:
            size += bytes_of(row)
            full = len(self.rows) >= self._limit or size > self._byte_limit
            if full and self.rows and not self._continues(row, size):
                self.has_more = True
                return
            self.rows.append(row)

    def _continues(self, row: Row, size: int) -> bool:
        last = self.rows[-1]
        same_group = row[1] == last[1] and row[2] - row[3] == last[2] - last[3]
        return same_group and len(self.rows) < self._limit_max and size <= self._byte_limit_max


def bytes_of(row: Row) -> int:
    """Return how long the data of an entry is, in UTF-8."""
    data: str = row[5]
    return len(data) if data.isascii() else len(data.encode())


def read_others(
    db: Session,
    log: int,
    device: int,
    after: int,
    head: int,
    stretch: Stretch,
    collections: Sequence[str] | None,
) -> None:
    """Fill the stretch with what other devices wrote in `after < seq <= head`, in seq order."""
    sql = OTHERS
    parameters: list[object] = [key(log, after), key(log, head), device]
    if collections is not None:
        sql += AMONG.format(texts=db.texts)
        parameters += [log, orjson.dumps(list(collections)).decode()]
    with db.stream(sql + "ORDER BY id", *parameters) as found:
        stretch.fill(Beginnings(db).whole(found))


def device_ids(db: Session, found: Iterable[Row]) -> dict[int, str]:
    """Name the devices of some rows, in the order of their numbers."""
    numbers = orjson.dumps(list({row[1] for row in found})).decode()
    sql = f"SELECT no, id FROM devices WHERE no IN {db.numbers} ORDER BY no"
    return dict(db.rows(sql, numbers))


def seq_before(db: Session, log: int, head: int, shared_until: float) -> int:
    """Return the last seq whose `shared_on <= shared_until`: it never decreases along a log."""
    sql = "SELECT shared_on FROM entries WHERE id > ? AND id <= ? ORDER BY id DESC LIMIT 1"
    low, high = 0, head
    while low < high:
        middle = (low + high + 1) // 2
        # The last one up to there that was not dropped; none of them is as early as can be.
        shared_on = db.scalar(sql, key(log, low), key(log, middle))
        if shared_on is None or shared_on <= shared_until:
            low = middle
        else:
            high = middle - 1
    return low
