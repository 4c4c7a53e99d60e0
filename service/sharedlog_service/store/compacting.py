"""Dropping entries that can change no device's outcome any more.

What a row comes to is a function of the set of its entries (docs/protocol.md, "Merge"), so an entry
may go if the set without it gives the same, whatever else is there or comes later:

- a modification, each field of which a newer entry writes again. The newest write wins whatever
  comes between, so this never ceases to be true. A field with a merge rule is another matter, and
  so is an entry of another schema version;
- whatever is older than a *final* deletion of its row: one of a table whose deleted rows nobody may
  need (the device that deletes says so);
- a final deletion itself, once nothing older can come. From then on the log has a *horizon*: a
  device that did not read as far as that has to begin anew, and no entry from before is taken.

Two entries of each device are *held* whatever becomes of their rows, and the deletions that end
them with them: its newest one, and the newest one of what it wrote before its last write. A device
whose last answer got lost asks for the newest one that it knows of, which is one of the two; if it
were gone, the device would take the log for one that was restored, and read all of it again.

Sealed entries are left alone. Of a dropped entry its identity stays, so that it is known when it
is offered again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from sharedlog_service.engines.database import Database
from sharedlog_service.engines.session import Row, Session
from sharedlog_service.entries import NUMBERS, TICKS_PER_MS, fingerprint, key, seq_of
from sharedlog_service.settings import Policy
from sharedlog_service.store.beginnings import KIND, Beginnings, parts_of
from sharedlog_service.store.devices import UNWRITTEN
from sharedlog_service.store.paging import seq_before
from sharedlog_service.store.places import Horizon, LogState, log_of

MODIFY, DELETE = NUMBERS["modify"], NUMBERS["delete"]

PORTION = 500
"""Entries that are dropped in one transaction: other writers get their turn between two."""

COUNTING = """
    FROM devices WHERE log = ? AND revoked_at IS NULL AND coalesce(last_seen, created_at) > ?
"""
"""The devices that are reckoned with: those that were heard of since a time."""

NEWEST = """
    SELECT id, created_on, shared_on FROM entries
    WHERE device = ? AND created_on < ? AND shared_on < ? ORDER BY created_on DESC LIMIT 1
"""

BY_ROW = f"""
    SELECT id, device, created_on, row_hash, shared_on, {KIND}, data FROM entries
    WHERE id > ? AND id <= ? AND row_hash IS NOT NULL ORDER BY row_hash, id
"""

UNCOUNT = tuple(
    f"UPDATE collections SET {column} = {column} - ? WHERE id = ?"
    for column in ("creates", "modifies", "deletes")
)
"""By operation."""

Version = tuple[int, str]
"""What orders the writes of a row: createdOn, then the device's id."""

Write = Callable[[Callable[[Session], None]], None]
"""Runs work in a transaction of its own, and returns when it is durable."""


class Compacted(NamedTuple):
    """How many entries went, the deletions among them too; and how long their data was."""

    entries: int = 0
    bytes: int = 0


class Entry(NamedTuple):
    """A plain entry of a row, as far as it matters here."""

    id: int
    version: Version
    operation: int
    fields: frozenset[str]
    schema: Any
    ruled: bool
    final: bool


@dataclass(slots=True)
class Fate:
    """What becomes of one row's entries, which come by in any order. `settled`: deletions up to
    there can go. `held`: the entries that stay in any case."""

    settled: Horizon
    held: Set[int] = frozenset()
    newest: dict[tuple[str, Any], Version] = field(default_factory=dict)
    final: Entry | None = None
    entries: list[Entry] = field(default_factory=list)
    doomed: list[int] = field(default_factory=list)
    full: int = 2 * PORTION

    def add(self, entry: Entry) -> None:
        if entry.final and (self.final is None or entry.version > self.final.version):
            self.final = entry
        for name in entry.fields:
            known = self.newest.get((name, entry.schema))
            if known is None or entry.version > known:
                self.newest[name, entry.schema] = entry.version
        self.entries.append(entry)
        if len(self.entries) >= self.full:  # a row may have any number of them
            self._sift()

    def decided(self, *, forgetting: bool) -> list[int]:
        """The entries to drop; a deletion comes last, when there is nothing for it to end."""
        self._sift()
        forgotten = self.forgotten if forgetting else None
        return [*self.doomed, *([forgotten.id] if forgotten else [])]

    @property
    def forgotten(self) -> Entry | None:
        """The row's latest final deletion, if it can go; to be asked when all is decided."""
        final, (seq, ticks) = self.final, self.settled
        if final is None or seq_of(final.id) > seq or final.version[0] > ticks:
            return None
        needed = final.id in self.held or any(map(self._ended, self.entries))
        return None if needed else final

    def _sift(self) -> None:
        kept = []
        for entry in self.entries:
            gone = self._ended(entry) or self._overwritten(entry)
            if gone and entry.id not in self.held:
                self.doomed.append(entry.id)
            else:
                kept.append(entry)
        self.entries, self.full = kept, 2 * max(PORTION, len(kept))

    def _ended(self, entry: Entry) -> bool:
        return self.final is not None and entry.version < self.final.version

    def _overwritten(self, entry: Entry) -> bool:
        if entry.operation != MODIFY or entry.ruled:
            return False
        return all(self.newest[name, entry.schema] > entry.version for name in entry.fields)


class Compaction:
    """One run over one log, in portions: it may end at any point, and goes on with the next run."""

    def __init__(
        self,
        database: Database,
        user: str,
        policy: Policy,
        now: int,
        write: Write,
        tell: Callable[[Compacted], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._user = user
        self._policy = policy
        self._now = now
        self._write = write
        self._tell = tell
        self._compacted = Compacted()

    def run(self) -> Compacted:
        with self._database.snapshot() as db:
            log = log_of(db, self._user)
            settled = self._settled(db, log)
        horizon = self._sweep(settled, forgetting=False)
        if horizon.seq:
            # First nothing older is taken any more, and then it is looked for what there is.
            if horizon.seq > log.horizon.seq or horizon.ticks > log.horizon.ticks:
                self._write(lambda db: move_horizon(db, self._user, horizon))
            self._sweep(horizon, forgetting=True)
        return self._compacted

    def _settled(self, db: Session, log: LogState) -> Horizon:
        """Up to where deletions can be forgotten: every device that counts has read them, and
        nobody will write from before."""
        since = self._now - self._policy.retention_ms
        sql = f"SELECT min(cursor) {COUNTING} AND NOT (cursor = 0 AND {UNWRITTEN})"
        read: int | None = db.scalar(sql, log.id, self._now - self._policy.expiry_ms)
        shared = seq_before(db, log.id, log.head, since)
        return Horizon(shared if read is None else min(shared, read), since * TICKS_PER_MS)

    def _sweep(self, settled: Horizon, *, forgetting: bool) -> Horizon:
        """Drop what can be dropped, settled deletions only if `forgetting`; return where the
        horizon has to be for these."""
        needed = Horizon()
        doomed: list[int] = []
        with self._database.snapshot() as db:
            db.be_patient()
            log = log_of(db, self._user)
            held = held_of(db, log, self._now - self._policy.expiry_ms)
            for fate in fates(db, log, settled, held):
                doomed += fate.decided(forgetting=forgetting)
                if final := fate.forgotten:
                    needed = Horizon(*map(max, needed, (seq_of(final.id), final.version[0])))
                while len(doomed) >= PORTION:
                    self._drop(doomed[:PORTION])
                    del doomed[:PORTION]
        if doomed:
            self._drop(doomed)
        return needed

    def _drop(self, ids: Sequence[int]) -> None:
        dropped: list[Compacted] = []
        self._write(lambda db: dropped.append(drop(db, self._user, ids)))
        self._compacted = Compacted(*map(sum, zip(self._compacted, dropped[0], strict=True)))
        self._tell(self._compacted)


def held_of(db: Session, log: LogState, since: int) -> Set[int]:
    """The entries that devices may ask for by name, of those heard of since then. What a device
    wrote in one millisecond is taken for one write."""
    found = set()
    for (device,) in db.rows(f"SELECT no {COUNTING}", log.id, since):
        for id, *newest in db.rows(NEWEST, device, 2**62, 2**62):
            found.add(id)
            found.update(id for id, *_ in db.rows(NEWEST, device, *newest))
    return found


def fates(db: Session, log: LogState, settled: Horizon, held: Set[int]) -> Iterator[Fate]:
    """What becomes of each row that a log has plain entries of."""
    names = db.rows("SELECT no, id FROM devices WHERE log = ?", log.id)
    devices: dict[int, str] = dict(names)
    with db.stream(BY_ROW, key(log.id, 0), key(log.id, log.head)) as found:
        for _, rows in groupby(Beginnings(db).whole(found), key=lambda row: row[3]):
            # Rows that share a hash are told apart by their data.
            known: dict[bytes, Fate] = {}
            for row in rows:
                identity, entry = _read(row, devices)
                fate = known.get(identity)
                if fate is None:
                    fate = known[identity] = Fate(settled, held)
                fate.add(entry)
            yield from known.values()


def move_horizon(db: Session, user: str, horizon: Horizon) -> None:
    log = log_of(db, user, writing=True)
    seq, ticks = map(max, log.horizon, horizon)
    sql = "UPDATE logs SET horizon = ?, horizon_ticks = ? WHERE id = ?"
    db.rows(sql, seq, ticks, log.id)


def drop(db: Session, user: str, ids: Sequence[int]) -> Compacted:
    """Move entries to where only their identities are kept. Those that are gone already, by
    another run, are left out."""
    log = log_of(db, user, writing=True)
    sql = f"SELECT id, device, created_on, {KIND}, shared_on, {KIND}, data FROM entries "
    chosen = f"WHERE id IN {db.numbers}"
    parameter = orjson.dumps(ids).decode()
    with db.stream(sql + chosen, parameter) as found:
        rows = list(Beginnings(db).whole(found))
    kept = [(row[0], row[1], row[2], row[4], fingerprint(row[5])) for row in rows]
    db.insert_rows("dropped", kept)
    db.rows(f"DELETE FROM entries {chosen}", parameter)
    done = Compacted(len(rows), sum(len(row[5].encode()) for row in rows))
    sql = "UPDATE logs SET dropped = dropped + ?, bytes = bytes - ? WHERE id = ?"
    db.rows(sql, *done, log.id)
    kinds = Counter(row[3] for row in rows if row[3] is not None)
    for kind, count in kinds.items():
        collection, operation = parts_of(kind)
        db.rows(UNCOUNT[operation], count, collection)
    return done


def _read(row: Row, devices: Mapping[int, str]) -> tuple[bytes, Entry]:
    """An entry, and which row it is of."""
    id, device, created_on, _, _, data = row
    found = orjson.loads(data)
    operation, rules = NUMBERS[found["operation"]], found.get("rules")
    return orjson.dumps((found["collection"], found["pk"])), Entry(
        id,
        (created_on, devices[device]),
        operation,
        frozenset(found.get("value") or ()) - frozenset(rules or ()),
        found.get("schema"),
        bool(rules),
        operation == DELETE and found.get("final") is True,
    )
