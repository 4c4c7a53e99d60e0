"""The client log: what this device wrote, in the order of its timestamps, and the clock.

It lives in the application's own database (see `layout`), so that a change and its entry
stand or fall in one transaction. Nothing here goes through `Model.create`, which alone would
double the cost of every write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import peewee

from ..changes import (
    CREATE,
    DELETE,
    FIRST_SCHEMA,
    MODIFY,
    Wire,
    assemble,
    beginning,
    dumps,
    loads,
)
from ..clock import TICKS_PER_MS, Now
from ..groups import ENVELOPE, Group, parts, series
from ..limits import Limits
from .state import State

UNSENT, SENT, REFUSED = 0, 1, 2
"""What became of an entry. SENT: as far as this device knows, it is in the log. Under another id
than the present one, if there is a `reason`: that id. UNSENT with a reason: it was in the log under
that id, and is looked for there (see `identity`)."""

OPERATION_NAMES = (CREATE, MODIFY, DELETE, DELETE)
OPERATION_CODES: Mapping[str, int] = {CREATE: 0, MODIFY: 1, DELETE: 2}
DELETED, FINALLY_DELETED = 2, 3
"""Finally: nobody may need the row any more (see `Tracked.final`)."""
CHUNK = 500
"""Keys in one query; SQLite may be compiled to take no more than 999 parameters."""

# Wall time, but later than every timestamp that was given out (the log's newest) or seen from
# others (the floor).
_NEXT_OF = f"""((? - lead_ms) * {TICKS_PER_MS}, floor + 1,
    1 + ifnull((SELECT max(ticks) FROM sharedlog_entry), 0)) FROM sharedlog_clock"""
# The clock and the entry in one statement; of values, because SQLite would first copy what it
# selects from the table that it inserts into.
_APPEND_FIRST = f"""INSERT INTO sharedlog_entry
    VALUES ((SELECT max{_NEXT_OF}), 0, ?, ?, ?, ?, ?, {UNSENT}, NULL, %d, NULL)"""
# Within a group the floor is passed already: wall time or the group's start, but later than the
# log's newest.
_LATER = "max(?1, 1 + ifnull((SELECT max(ticks) FROM sharedlog_entry), 0))"
_APPEND_NEXT = f"""INSERT INTO sharedlog_entry
    VALUES ({_LATER}, {_LATER} - ?2, ?3, ?4, ?5, ?6, ?7, {UNSENT}, NULL, %d, NULL)"""
_APPEND = f"INSERT INTO sharedlog_entry VALUES (?, ?, ?, ?, ?, ?, ?, {UNSENT}, NULL, %d, NULL)"

SELECT = (
    "SELECT ticks, offset_ticks, collection, pk, operation, value, rules, schema, "
    f"CASE WHEN status <> {REFUSED} THEN reason END, recorded FROM sharedlog_entry"
)
"""What a `LocalEntry` is made of."""

DROPPED = "dropped by pre_send"
"""The reason of entries that are refused because the application itself kept them back."""

T = TypeVar("T")


class LocalEntry(NamedTuple):
    """One local entry: `pk`, `value` and `rules` are JSON text, `operation` a number. It never
    changes: its names and values are those of the program that recorded it, as `schema` tells.

    A deletion's `value` is what the row was, where somebody may need it; it is not sent.
    """

    ticks: int
    offset: int
    collection: str
    pk: str
    operation: int
    value: str | None
    rules: str | None = None
    schema: int = FIRST_SCHEMA
    author: str | None = None
    """Whose it is, where that is not as a matter of course the present id."""
    recorded: int | None = None
    """The timestamp that it was recorded with, if it was dated anew."""

    def data(self) -> str:
        return self.text(Beginnings())

    def text(self, beginnings: Beginnings) -> str:
        """The data, for many entries at a time."""
        _, _, collection, pk, operation, value, rules, schema, _, recorded = self
        start = beginnings[operation, collection]
        if operation < DELETED:
            return assemble(start, pk, value, rules, schema, recorded)
        final = operation == FINALLY_DELETED
        return assemble(start, pk, None, rules, schema, recorded, final=final)


class Beginnings(dict[tuple[int, str], str]):
    """What data begin with, by operation and collection."""

    def __missing__(self, kind: tuple[int, str]) -> str:
        operation, collection = kind
        self[kind] = beginning(OPERATION_NAMES[operation], collection)
        return self[kind]


class Record(NamedTuple):
    """What a recorder hands over: one change, its parts as JSON text. A deletion's `value` is what
    the row was, where `Tracked.buries` says so."""

    collection: str
    pk: str
    operation: int
    value: str | None
    rules: str | None = None


class RefusedEntry(NamedTuple):
    ticks: int
    reason: str


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Journal(State):
    """The client log of one database. Methods that write say whether they need a transaction.

    `schema` is the program's schema version, which new entries get.
    """

    def __init__(self, database: peewee.Database, now: Now, schema: int = FIRST_SCHEMA) -> None:
        super().__init__(database, schema)
        self.now = now
        self.limits = Limits()
        self._append_first, self._append_next, self._append_more = (
            sql % schema for sql in (_APPEND_FIRST, _APPEND_NEXT, _APPEND)
        )
        self._next_ticks = f"SELECT {self.dialect.greatest}{_NEXT_OF}"

    # -- local entries -------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> int:
        """Add unsent entries, in order, inside the open transaction; return the first's ticks.

        Takes the write lock, so nobody gets the same timestamps. A transaction is one group
        of entries; one that outgrows a group's bounds becomes several.
        """
        group = self._group()
        group.remember()
        if len(records) == 1:
            size = len(records[0].pk) + len(records[0].value or "") + ENVELOPE
            if group.is_full(size):
                group.begin_anew()
            group.entries += 1
            group.size += size
            return self._insert(group, records)
        with self.savepoint():  # the application may catch an error and go on
            return self._append(group, records)

    def _append(self, group: Group, records: Sequence[Record]) -> int:
        sizes = (len(record.pk) + len(record.value or "") + ENVELOPE for record in records)
        first, *_ = [self._insert(group, records[part]) for part in parts(group, sizes)]
        return first

    def _insert(self, group: Group, records: Sequence[Record]) -> int:
        ticks: int
        start, now = group.start, self.now()
        if self.dialect.typed:
            return self._insert_by_number(group, records)
        if start is None:
            cursor = self.run(self._append_first, (now, *records[0]))
            ticks = start = group.start = cursor.lastrowid
        else:
            if group.lead_ms is None:
                group.lead_ms = self.run("SELECT lead_ms FROM sharedlog_clock").fetchone()[0]
            wall = (now - group.lead_ms) * TICKS_PER_MS
            cursor = self.run(self._append_next, (max(wall, start), start, *records[0]))
            ticks = cursor.lastrowid
        if len(records) > 1:
            offset = ticks - start
            rest = ((ticks + i, offset + i, *record) for i, record in enumerate(records) if i)
            self.run_many(self._append_more, rest)
        return ticks

    def _insert_by_number(self, group: Group, records: Sequence[Record]) -> int:
        """The same where a statement does not tell which number it gave: the write lock is ours."""
        ticks = self.next_ticks()
        start = group.start = ticks if group.start is None else group.start
        numbered = ((ticks + i, ticks + i - start, *record) for i, record in enumerate(records))
        self.run_many(self._append_more, numbered)
        return ticks

    def take_back(self, first_ticks: int) -> None:
        """Remove what `append` just added, because the change did not happen."""
        if self.in_transaction():  # else all of it is gone with the transaction
            self.run("DELETE FROM sharedlog_entry WHERE ticks >= ?", (first_ticks,))
            self._group().take_back()

    def _group(self) -> Group:
        """The group of the open transaction."""
        group: Group | None = getattr(self._local, "group", None)
        if group is None:
            group = self._local.group = Group(self.limits)
        return group

    def unsent(self, limit: int, byte_limit: int) -> list[LocalEntry]:
        """The next unsent entries, oldest first: at least one, whole groups, within limits.

        A group that exceeds the limits by itself is returned whole.
        """
        batch: list[LocalEntry] = []
        group: list[LocalEntry] = []
        start: int | None = None
        size = 0
        cursor = self.run(
            f"{SELECT} WHERE ticks > ? AND status = {UNSENT} ORDER BY ticks",
            (int(self.state("all_sent_until") or 0),),
        )
        for row in cursor:
            entry = tuple.__new__(LocalEntry, row)  # a fast LocalEntry(…)
            ticks, offset, _, pk, _, value, *_ = entry
            if ticks - offset != start:
                start = ticks - offset
                batch += group
                group = []
            if batch and (len(batch) + len(group) >= limit or size > byte_limit):
                break
            group.append(entry)
            size += len(pk) + len(value or "") + ENVELOPE
        else:
            batch += group
        cursor.close()
        return batch

    def entries_at(self, ticks: Sequence[int], status: str = "") -> dict[int, LocalEntry]:
        """The local entries of these timestamps, as far as they are still here."""
        found: dict[int, LocalEntry] = {}
        for chunk in chunks(ticks):
            marks = ",".join("?" * len(chunk))
            sql = f"{SELECT} WHERE ticks IN ({marks}) {status}"
            found |= {row[0]: LocalEntry(*row) for row in self.run(sql, chunk).fetchall()}
        return found

    def restate(self, entry: LocalEntry, values: Mapping[str, Wire]) -> None:
        """Let an entry say of these fields what it says in the log."""
        value = dumps({**loads(entry.value or "{}"), **values})
        self.run("UPDATE sharedlog_entry SET value = ? WHERE ticks = ?", (value, entry.ticks))

    def each(self, which: str, *parameters: object) -> Iterator[list[LocalEntry]]:
        """Local entries, oldest first, so many at a time."""
        sql = f"{SELECT} WHERE ticks > ? AND {which} ORDER BY ticks LIMIT {CHUNK}"
        last = -1
        while rows := self.run(sql, (last, *parameters)).fetchall():
            yield [LocalEntry(*row) for row in rows]
            last = rows[-1][0]

    def oldest(self) -> int:
        """The timestamp of the oldest entry that is still here."""
        row = self.run("SELECT ifnull(min(ticks), 0) FROM sharedlog_entry").fetchone()
        return int(row[0])

    def oldest_unsent(self, which: str = "1 = 1") -> int | None:
        """The timestamp of the oldest unsent entry."""
        return self._of_unsent("min(ticks)", which)

    def count_unsent(self) -> int:
        return self._of_unsent("count(*)") or 0

    def _of_unsent(self, what: str, which: str = "1 = 1") -> int | None:
        row = self.run(
            f"SELECT {what} FROM sharedlog_entry WHERE ticks > ? AND status = {UNSENT} AND {which}",
            (int(self.state("all_sent_until") or 0),),
        ).fetchone()
        found: int | None = row[0]
        return found

    def mark_sent(self, ticks: Iterable[int], refused: Iterable[RefusedEntry] = ()) -> None:
        """Mark exactly these entries, inside the open transaction."""
        ticks = list(ticks)
        self.run_many(
            f"UPDATE sharedlog_entry SET status = {SENT}, reason = NULL "
            "WHERE ticks BETWEEN ? AND ?",
            series(ticks),
        )
        if ticks:  # remembered also when the entries are pruned
            self.set_state(sent_until=str(max(*ticks, int(self.state("sent_until") or 0))))
        self.run_many(
            f"UPDATE sharedlog_entry SET status = {REFUSED}, reason = ? WHERE ticks = ?",
            ((entry.reason, entry.ticks) for entry in refused),
        )
        # Only a bound for the search above: everything up to it is sent or refused.
        bound = self.run(
            "SELECT ifnull("
            f"(SELECT min(ticks) - 1 FROM sharedlog_entry WHERE ticks > ? AND status = {UNSENT}),"
            " (SELECT max(ticks) FROM sharedlog_entry))",
            (int(self.state("all_sent_until") or 0),),
        ).fetchone()[0]
        self.set_state(all_sent_until=None if bound is None else str(bound))

    def unshared_rows(self, since: int) -> list[tuple[str, str]]:
        """The (collection, pk) of rows with entries since then that are not in the log."""
        cursor = self.run(
            "SELECT DISTINCT collection, pk FROM sharedlog_entry "
            f"WHERE ticks >= ? AND status <> {SENT} ORDER BY 1, 2",
            (since,),
        )
        return list(cursor.fetchall())

    def unsend(self, which: str = "1 = 1", *parameters: object) -> None:
        """Take back that sent entries, as far as they are still here, are in the log."""
        self.run(
            f"UPDATE sharedlog_entry SET status = {UNSENT}, reason = ifnull(reason, ?) "
            f"WHERE status = {SENT} AND {which}",
            (self.device_id(), *parameters),
        )
        self.set_state(all_sent_until="0", sent_until=None)

    def unfolded(self, limit: int) -> list[LocalEntry]:
        """Local entries whose versions are not in `sharedlog_row` yet, oldest first."""
        cursor = self.run(
            f"{SELECT} WHERE ticks > ? ORDER BY ticks LIMIT ?",
            (int(self.state("folded_until") or 0), limit),
        )
        return [LocalEntry(*row) for row in cursor.fetchall()]

    def has_unfolded(self, count: int) -> bool:
        """Whether more than so many local entries are not folded yet."""
        cursor = self.run(
            "SELECT 1 FROM sharedlog_entry WHERE ticks > ? LIMIT 1 OFFSET ?",
            (int(self.state("folded_until") or 0), count),
        )
        return cursor.fetchone() is not None

    def prune(self, older_than_ticks: int) -> int:
        """Delete entries that are folded, and sent or kept back by the application itself;
        return how many. Changes no outcome."""
        self.raise_floor_over_sent()
        bound = max(0, min(older_than_ticks, int(self.state("folded_until") or 0)))
        newest = self.run(
            f"SELECT max(ticks) FROM sharedlog_entry WHERE ticks <= ? AND status = {SENT} "
            "AND reason IS NULL",
            (bound,),
        ).fetchone()[0]
        if newest is not None:
            self.set_state(pruned_until=str(max(newest, int(self.state("pruned_until") or 0))))
        # What lies above the floor may get another timestamp yet.
        cursor = self.run(
            f"DELETE FROM sharedlog_entry WHERE ticks <= ? AND (status = {SENT} OR ("
            f"status = {REFUSED} AND reason = '{DROPPED}' "
            "AND ticks <= (SELECT floor FROM sharedlog_clock)))",
            (bound,),
        )
        return int(cursor.rowcount)

    # -- the clock -----------------------------------------------------------------------

    def raise_floor_over_sent(self) -> None:
        """Remember what was given out. Entries that are not sent may get other timestamps yet."""
        self.run(
            f"UPDATE sharedlog_clock SET floor = {self.dialect.greatest}(floor, ifnull("
            f"(SELECT max(ticks) FROM sharedlog_entry WHERE status = {SENT}), 0))"
        )

    def newest(self) -> int:
        """The largest timestamp that was given out or seen, whatever the clock says."""
        return int(self.run(f"SELECT {self.newest_sql} FROM sharedlog_clock").fetchone()[0])

    @property
    def newest_sql(self) -> str:
        """The same as SQL over `sharedlog_clock`."""
        newest = "ifnull((SELECT max(ticks) FROM sharedlog_entry), 0)"
        return f"{self.dialect.greatest}(floor, {newest})"

    def next_ticks(self) -> int:
        """The timestamp that a local change would get now."""
        return int(self.run(self._next_ticks, (self.now(),)).fetchone()[0])

    def device_id(self) -> str:
        """This device's id, or "" before `Sync.setup`."""
        return self.state("device") or ""
