"""The store: everything the service knows, in one database. The only one who queries it.

Synchronous, without threads and without a clock of its own: whoever uses it decides where it runs
and what time it is. Methods that change something are whole or absent and durable on return;
inside `transaction()` several share one commit and each can fail alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import peewee

from sharedlog_service.engines.database import Database, open_database
from sharedlog_service.engines.session import Row, Session
from sharedlog_service.engines.tables import DeviceRow
from sharedlog_service.entries import (
    Cursor,
    Device,
    EntryFilter,
    NewEntry,
    Page,
    Receipt,
    Stats,
    key,
    seq_of,
    whole_ms,
)
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Clock, IdSource, Limits, Policy, random_id, system_clock
from sharedlog_service.store.accounts import Accounts
from sharedlog_service.store.appending import Batch
from sharedlog_service.store.browsing import collection_stats, find_entries
from sharedlog_service.store.compacting import Compacted, Compaction
from sharedlog_service.store.devices import (
    DeviceState,
    check_labels,
    check_room,
    note_copies,
    read_own,
    register,
    registered_before,
    working_device,
)
from sharedlog_service.store.paging import NOBODY, Stretch, device_ids, read_others, seq_before
from sharedlog_service.store.places import LogState, log_of

SEEN_EVERY_MS = 60_000
"""How stale a device's `lastSeen` may get before a mere read refreshes it."""


Job = Callable[["Store"], None]
"""Something to do with the store."""


class Store(Accounts):
    """Users, their logs, the logs' devices and entries, and tokens."""

    def __init__(self, database: Database, *, now: Clock, new_id: IdSource, limits: Limits) -> None:
        super().__init__(database, now, new_id)
        self.limits = limits

    @classmethod
    def open(
        cls,
        place: Path | str,
        *,
        now: Clock = system_clock,
        new_id: IdSource = random_id,
        limits: Limits | None = None,
        making: bool = True,
        migrating: bool = False,
    ) -> Store:
        """Open a file, or a server's database by its address; see `open_database`."""
        database = open_database(place, making=making, migrating=migrating)
        return cls(database, now=now, new_id=new_id, limits=limits or Limits())

    @property
    def writers(self) -> int:
        """How many threads can write at a time."""
        return self._database.writers

    def close(self) -> None:
        self._database.close()

    def now(self) -> int:
        return self._now()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let several changes share one commit."""
        with self._database.transaction():
            yield

    def check(self) -> None:
        """Raise unless the database answers."""
        with self._database.snapshot() as db:
            db.scalar("SELECT schema_version FROM meta")

    # Devices

    def create_device(
        self,
        user: str,
        *,
        name: str | None = None,
        request_id: str | None = None,
        shared_until: float | None = None,
        device_id: str | None = None,
    ) -> str:
        """Register a device and return its id; the same `request_id` gets the same id again.

        A device may bring a `device_id` of its own. It starts behind the entries shared up to
        `shared_until`, or at the beginning.
        """
        check_labels(name, request_id)
        with self._database.transaction() as db:
            log = log_of(db, user, writing=True)
            if known := registered_before(db, log.id, device_id, request_id):
                return known
            check_room(db, log.id, self.limits)
            until = None if shared_until is None else whole_ms(shared_until)
            return register(
                db,
                log=log.id,
                id=device_id or self._new_id(),
                name=name,
                request_id=None if device_id else request_id,
                created_at=self._now(),
                cursor=0 if until is None else seq_before(db, log.id, log.head, until),
                shared_until=until,
            )

    def device(self, user: str, device_id: str) -> Device | None:
        with self._database.snapshot() as db:
            log = log_of(db, user)
            return next(self._devices(db, log, DeviceRow.id == device_id), None)

    def devices(self, user: str, count: int | None = None) -> list[Device]:
        """Return the devices of a log, oldest first, the revoked ones too; so many at most."""
        with self._database.snapshot() as db:
            return list(self._devices(db, log_of(db, user), count=count))

    def revoke_device(self, user: str, device_id: str) -> Device:
        """Lock a device out. What it wrote stays."""
        with self._database.transaction() as db:
            log = log_of(db, user, writing=True)
            this = (DeviceRow.log == log.id) & (DeviceRow.id == device_id)
            alive = this & DeviceRow.revoked_at.is_null()
            DeviceRow.update(revoked_at=self._now()).where(alive).execute(db)
            for device in self._devices(db, log, DeviceRow.id == device_id):
                return device
            raise Refused(Code.DEVICE_UNKNOWN)

    def working_devices(self, ids: Collection[str]) -> set[str]:
        """Return those of these that are registered and not revoked, in one query."""
        with self._database.snapshot() as db:
            sql = f"SELECT id FROM devices WHERE id IN {db.texts} AND revoked_at IS NULL"
            return {id for (id,) in db.rows(sql, orjson.dumps([*ids]).decode())}

    def mark_seen(self, user: str, device_id: str, cursor: Cursor | None) -> Device:
        """Note that the device durably has everything up to the cursor. Never moves backwards."""
        with self._database.transaction() as db:
            log = log_of(db, user, writing=True)
            device = working_device(db, log.id, device_id)
            self._touch(db, device, log.checked_seq(db, cursor), None)
            return next(self._devices(db, log, DeviceRow.id == device_id))

    # The log

    def write(
        self,
        user: str,
        device_id: str,
        entries: Sequence[NewEntry] | Sequence[Any],
        *,
        after: Cursor | None = None,
        device_now: float | None = None,
        lineage: str | None = None,
        reading: bool = False,
    ) -> Receipt:
        """Append a batch, exactly once. `after` is what the device durably has; `device_now` the
        time it believes it is; `lineage` what the last write as this device was answered;
        `reading` says that it will read on from there."""
        with self._database.transaction() as db:
            log = log_of(db, user, writing=True)
            device = working_device(db, log.id, device_id)
            device.check_write(lineage)
            anew = device.is_new or (after is None and not reading)
            (seen, since), now = log.seen(db, after, anew=anew), self._now()
            shared_on = max(now, log.shared_on)
            batch = Batch(db, log, device.no, self.limits)
            done = batch.append(entries, shared_on=shared_on, now=now)
            skew = None if device_now is None else whole_ms(device_now) - now
            head = log.head + done.written
            # Who has everything still does: what comes now is the device's own.
            reached = head if seen == log.head else seen
            # Also for what was refused for its time: a copy of the request must not be taken later.
            renewed = self._new_id() if done.written or done.ahead else device.lineage
            self._touch(db, device, reached, skew, renewed)
            if done.written:
                note_copies(db, log.id, device_id, renewed)
                # The numbers given become the log's only here, in the same commit as the entries.
                sql = "UPDATE logs SET head = ?, bytes = bytes + ?, shared_on = ? WHERE id = ?"
                db.rows(sql, head, done.bytes, shared_on, log.id)
            end = log.cursor(db, head)
        place = end if reached == head else Cursor(log.epoch, reached, since=since)
        known = done.duplicates, done.rejections
        return Receipt(entries, *known, end, place, now, renewed, log.horizon.ticks)

    def read(
        self,
        user: str,
        device_id: str,
        after: Cursor | None,
        *,
        limit: int = 1000,
        byte_limit: int = 1_000_000,
        collections: Sequence[str] | None = None,
        until: Cursor | None = None,
        own: bool = False,
        lineage: str | None = None,
    ) -> Page:
        """Return what other devices wrote after a cursor, head and epoch in the same snapshot.

        With `own`, what the device itself wrote, too; that says nothing of where it is.
        """
        stretch = Stretch(limit, byte_limit, self.limits)
        with self._database.snapshot() as db:
            log = log_of(db, user)
            device = working_device(db, log.id, device_id)
            device.check_read(lineage)
            seen, since = log.seen(db, after, anew=own or device.is_new)
            end = log.head if until is None else max(seen, log.checked_seq(db, until))
            reader = NOBODY if own else device.no
            read_others(db, log.id, reader, seen, end, stretch, collections)
            page = self._page(db, log, stretch.rows, end, stretch.has_more, since)
            mark = None if own else self._mark(db, log, device, seen, page.has_more)
            return replace(page, mark=mark)

    def read_own(
        self, user: str, device_id: str, created_from: int, *, limit: int, byte_limit: int
    ) -> Page:
        """Return what this device wrote since `created_from`, in the order of its timestamps, and
        its lineage in the same snapshot."""
        stretch = Stretch(limit, byte_limit, self.limits)
        with self._database.snapshot() as db:
            log = log_of(db, user)
            device = working_device(db, log.id, device_id)
            read_own(db, device.no, created_from, stretch)
            page = self._page(db, log, stretch.rows, log.head, stretch.has_more)
            return replace(page, lineage=device.lineage)

    def head(self, user: str, device_id: str) -> Cursor:
        """Return where the log ends, to a device that may read it."""
        with self._database.snapshot() as db:
            log = log_of(db, user)
            working_device(db, log.id, device_id)
            return log.cursor(db, log.head)

    def last_seq(self, user: str) -> int:
        """Return where a log ends, for whoever may know."""
        with self._database.snapshot() as db:
            return log_of(db, user).head

    def find(
        self,
        user: str,
        wanted: EntryFilter,
        *,
        after: Cursor | None = None,
        before: Cursor | None = None,
        count: int,
        byte_limit: int | None = None,
        newest: bool = False,
    ) -> Page:
        """Return entries for people, in seq order: the first ones or the newest, within bounds."""
        with self._database.snapshot() as db:
            log = log_of(db, user)
            low = log.checked_seq(db, after)
            high = log.head + 1 if before is None else log.checked_seq(db, before)
            found, more = find_entries(
                db, log.id, log.head, wanted, low, high, count, byte_limit, newest
            )
            return self._page(db, log, found[::-1] if newest else found, log.head, more)

    def history(self, user: str, collection: str, pk: object, count: int, **bounds: Any) -> Page:
        """Return the entries of one row, oldest first; `bounds` as of `find`."""
        row = EntryFilter(collection=collection, pk=pk)
        return self.find(user, row, count=count, **bounds)

    def stats(self, user: str, collections_max: int | None = None) -> Stats:
        """Return a log in numbers; costs the same at any length."""
        with self._database.snapshot() as db:
            log = log_of(db, user)
            count = DeviceRow.select().where(DeviceRow.log == log.id).count(db)
            sql = "SELECT shared_on FROM entries WHERE id > ? AND id <= ? ORDER BY id LIMIT 1"
            first = db.scalar(sql, key(log.id, 0), key(log.id, log.head))
            last = log.shared_on if log.head else None
            collections = collection_stats(db, log.id, collections_max)
            head = log.cursor(db, log.head)
            entries = log.head - log.dropped
            return Stats(head, entries, log.bytes, count, first, last, collections)

    # Care

    def compact(
        self,
        user: str,
        policy: Policy,
        *,
        write: Callable[[Job], None] | None = None,
        tell: Callable[[Compacted], None] = lambda _: None,
    ) -> Compacted:
        """Drop the entries of a log that can change no outcome any more, in many transactions.

        They run here, or where `write` runs them. May be ended at any point; the next run goes on.
        """
        run = write or (lambda job: job(self))

        def durably(work: Callable[[Session], None]) -> None:
            run(lambda store: store._transact(work))

        compaction = Compaction(self._database, user, policy, self._now(), durably, tell)
        return compaction.run()

    def _transact(self, work: Callable[[Session], None]) -> None:
        with self._database.transaction() as db:
            work(db)

    # Parts

    def _devices(
        self,
        db: Session,
        log: LogState,
        *conditions: peewee.Expression,
        count: int | None = None,
    ) -> Iterator[Device]:
        query = DeviceRow.select().where(DeviceRow.log == log.id, *conditions)
        for row in query.order_by(DeviceRow.no).limit(count).execute(db):
            yield Device(
                id=row.id,
                name=row.name,
                created_at=row.created_at,
                last_seen=row.last_seen,
                cursor=log.cursor(db, row.cursor),
                shared_until=row.shared_until,
                revoked_at=row.revoked_at,
                clock_skew=row.clock_skew,
            )

    def _touch(
        self,
        db: Session,
        device: DeviceState,
        seen: int,
        skew: int | None,
        lineage: str | None = None,
    ) -> None:
        sql = """
            UPDATE devices SET cursor = CASE WHEN cursor < ? THEN ? ELSE cursor END, last_seen = ?,
                clock_skew = coalesce(?, clock_skew), lineage = coalesce(?, lineage) WHERE no = ?
        """
        db.rows(sql, seen, seen, self._now(), skew, lineage, device.no)

    def _mark(
        self, db: Session, log: LogState, device: DeviceState, seen: int, has_more: bool
    ) -> Cursor | None:
        """Where the device is, if that is worth a commit: not with each page of a long series."""
        stale = self._now() - (device.last_seen or 0) > SEEN_EVERY_MS
        return log.cursor(db, seen) if stale or (seen > device.cursor and not has_more) else None

    def _page(
        self,
        db: Session,
        log: LogState,
        found: Sequence[Row],
        end: int,
        has_more: bool,
        since: int = 0,
    ) -> Page:
        return Page(
            rows=found,
            devices=device_ids(db, found),
            cursor=log.cursor(db, seq_of(found[-1][0]) if has_more and found else end, since),
            head=log.cursor(db, log.head),
            has_more=has_more,
            server_time=self._now(),
        )
