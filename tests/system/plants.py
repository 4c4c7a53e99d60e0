"""Bugs to be planted in our own code, to see that the tests notice.

F1 to F11 are the reference's faults in the terms of our code. The others are what people pay for
in such software, and what the simulation once found here. A plant patches the code while its
context lasts; a name that is gone makes the plant itself fail, so that none goes stale in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sharedlog import changes
from sharedlog.apply import arrivals, parents, placement
from sharedlog.clock import Version
from sharedlog.errors import EntryUnreadable
from sharedlog.exchange import lineage
from sharedlog.exchange.exchange import Exchange
from sharedlog.exchange.identity import Identity
from sharedlog.exchange.lineage import Lineage
from sharedlog.journal import journal
from sharedlog.journal.inbox import Inbox
from sharedlog.journal.journal import Journal, LocalEntry
from sharedlog.merge import reconcile
from sharedlog.merge.reconcile import RowState
from sharedlog.remote.memory import MemorySharedLog
from sharedlog.tables.reattribution import Reattribution
from sharedlog.tables.versions import Versions
from sharedlog_service.entries import key
from sharedlog_service.store import paging, places, store
from sharedlog_service.store.appending import Appended
from sharedlog_service.store.beginnings import Beginnings
from sharedlog_service.store.devices import DeviceState
from sharedlog_service.store.paging import Stretch
from sharedlog_service.store.places import LogState
from sharedlog_service.store.store import Store

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Plant:
    """A bug: what it is, and what puts it into the code."""

    name: str
    put: Callable[[Patch], None]
    out_of_reach: bool = False
    """Whether it is too rare for the few worlds that a run has time for, or does no harm there."""
    seed: int = 1
    """The world in which it showed last; others are tried if it does not show there any more."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        with Patch.context() as patch:
            self.put(patch)
            yield


PLANTS: list[Plant] = []


def plant(
    name: str, *, out_of_reach: bool = False, seed: int = 1
) -> Callable[[Callable[[Patch], None]], Plant]:
    def register(put: Callable[[Patch], None]) -> Plant:
        PLANTS.append(Plant(name, put, out_of_reach, seed))
        return PLANTS[-1]

    return register


def wrap(patch: Patch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by one that gets the original as its first argument."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        return around(original, *args, **options)

    patch.setattr(owner, name, wrapped)


# -- F1 to F11 ----------------------------------------------------------------------------


@plant("F1 the cursor is the writer's clock")
def cursor_is_a_time(patch: Patch) -> None:
    later = "created_on > ifnull((SELECT max(e.created_on) FROM entries e WHERE e.id <= ?), 0)"
    assert "id > ?" in paging.OTHERS
    patch.setattr(paging, "OTHERS", paging.OTHERS.replace("id > ?", later))


@plant("F2 with nothing new to read, the cursor is the reader's now")
def cursor_is_the_readers_now(patch: Patch) -> None:
    """In positions: as far as the log will have come by then."""

    def around(original: Any, self: Store, db: Any, log: Any, found: Any, *rest: Any) -> Any:
        page = original(self, db, log, found, *rest)
        ahead = page.cursor._replace(seq=page.cursor.seq + 1, check="")
        return page if found else replace(page, cursor=ahead)

    def seq(original: Any, self: LogState, cursor: Any) -> int:
        found: int = original(self, cursor and cursor._replace(seq=min(cursor.seq, self.head)))
        return found

    wrap(patch, Store, "_page", around)
    wrap(patch, LogState, "seq", seq)


@plant("F2 the cursor jumps past what was not read")
def cursor_jumps(patch: Patch) -> None:
    def around(original: Any, *args: Any) -> Any:
        page = original(*args)
        return replace(page, cursor=page.head, has_more=False)

    wrap(patch, Store, "_page", around)


@plant("F3 sent is marked up to the newest of any batch")
def sent_by_watermark(patch: Patch) -> None:
    def newest_first(original: Any, self: Journal, limit: int, byte_limit: int) -> Any:
        unsent = original(self, 1_000_000, 1_000_000_000)
        return sorted(unsent[-limit:], key=lambda entry: entry.ticks)

    def up_to(original: Any, self: Journal, ticks: Any, refused: Any) -> None:
        newest = max(ticks := list(ticks), default=0)
        original(self, ticks, refused)
        sql = f"UPDATE sharedlog_entry SET status = {journal.SENT} WHERE ticks <= ?"
        self.run(sql, (newest,))

    wrap(patch, Journal, "unsent", newest_first)
    wrap(patch, Journal, "mark_sent", up_to)


@plant("F3 a refused entry is marked as sent with its batch", out_of_reach=True)
def refusals_by_watermark(patch: Patch) -> None:
    def up_to(original: Any, self: Journal, ticks: Any, refused: Any) -> None:
        original(self, [*ticks, *(entry.ticks for entry in refused)], [])

    wrap(patch, Journal, "mark_sent", up_to)


@plant("F4 the last of an unordered page is taken for the newest")
def unordered_pages(patch: Patch) -> None:
    def read_others(
        db: Any, log: int, device: int, after: int, head: int, stretch: Stretch, collections: Any
    ) -> None:
        span = [key(log, after), key(log, head), device]
        with db.stream(paging.OTHERS + "ORDER BY device, created_on", *span) as found:
            stretch.fill(Beginnings(db).whole(found))

    patch.setattr(store, "read_others", read_others)


@plant("F4 a slower process moves the checkpoint", out_of_reach=True)
def checkpoint_goes_back(patch: Patch) -> None:
    def around(original: Any, self: Exchange, page: Any, after: str | None) -> Any:
        return original(self, page, self._journal.state("checkpoint"))

    wrap(patch, Exchange, "_store_page", around)


@plant("F5 falsy values become null")
def or_none(patch: Patch) -> None:
    def around(original: Any, self: LocalEntry, beginnings: Any) -> str:
        change = changes.loads(original(self, beginnings))
        if change["value"]:
            change["value"] = {name: value or None for name, value in change["value"].items()}
        return changes.dumps(change)

    wrap(patch, LocalEntry, "text", around)


@plant("F6 ties are decided by arrival")
def ties_by_arrival(patch: Patch) -> None:
    def later(one: Version, other: Version) -> bool:
        return one[0] > other[0] or (one[0] == other[0] and one[1] != other[1])

    patch.setattr(Version, "__gt__", later)
    patch.setattr(Version, "__le__", lambda one, other: not later(one, other))


@plant("F7 a batch that cannot shrink throws")
def batch_throws(patch: Patch) -> None:
    def around(original: Any, self: Journal, limit: int, byte_limit: int) -> list[LocalEntry]:
        batch: list[LocalEntry] = original(self, limit, byte_limit)
        if sum(len(entry.data()) for entry in batch) > byte_limit + 500:
            raise ValueError("the batch is too large")
        return batch

    wrap(patch, Journal, "unsent", around)


@plant("F8 a bad entry ends the pull")
def bad_entry_throws(patch: Patch) -> None:
    def around(original: Any, data: str) -> Any:
        try:
            return original(data)
        except EntryUnreadable as error:
            raise ValueError("unknown entry") from error

    wrap(patch, changes, "decode", around)


@plant("F9 the checkpoint is committed before what was received", seed=3)
def checkpoint_first(patch: Patch) -> None:
    def around(original: Any, self: Exchange, after: str | None, lineage: str) -> bool:
        replica = self._replica
        page = replica.shared_log.read(
            replica.identity.device,
            after=after,
            limit=replica.batch_size,
            byte_limit=replica.byte_limit,
        )
        with replica.writing():
            self._journal.set_state(checkpoint=page.cursor)
        with replica.writing():
            applied = self._store_page(page, page.cursor, replica.identity.device, lineage)
        return self._took(page, applied)

    wrap(patch, Exchange, "_pull", around)


@plant("F10 timestamps are given out again")
def repeated_timestamps(patch: Patch) -> None:
    patch.setattr(Journal, "raise_floor_over_sent", lambda self: None)
    patch.setattr(Journal, "lift_clock", lambda self, ticks: None)


@plant("F11 a second creation throws")
def double_create_throws(patch: Patch) -> None:
    def around(original: Any, state: RowState, version: Version, *rest: Any) -> None:
        if state.born is not None and state.born != version:
            raise ValueError("created twice")
        original(state, version, *rest)

    wrap(patch, reconcile, "_create", around)


# -- merging ------------------------------------------------------------------------------


@plant("a modification revives a deleted row")
def modification_revives(patch: Patch) -> None:
    def around(original: Any, state: RowState, *rest: Any) -> None:
        (original if state.alive else reconcile._create)(state, *rest)

    wrap(patch, reconcile, "_modify", around)


@plant("a deletion forgets what was written after it")
def deletion_takes_all(patch: Patch) -> None:
    def around(original: Any, state: RowState, *rest: Any) -> Any:
        rescued = original(state, *rest)
        if state.born is None:
            state.fields = {}
            state.held = {}
        return rescued

    wrap(patch, reconcile, "_delete", around)


@plant("a tombstone is not kept")
def no_tombstones(patch: Patch) -> None:
    def around(original: Any, self: Versions, state: RowState) -> Any:
        record = list(original(self, state))
        return (*record[:3], None, None, *record[5:])

    wrap(patch, Versions, "_record", around)


# -- parents and parking --------------------------------------------------------------------


@plant("parked rows are not tried again")
def parked_for_ever(patch: Patch) -> None:
    patch.setattr(Versions, "waiting_collections", lambda self: set())


@plant("children of a row that is parked stay (found by test_apply)")
def children_stay(patch: Patch) -> None:
    patch.setattr(parents.Parents, "_in_tables", lambda self, lost: [])


@plant("a value that does not fit ends the pull (found by test_apply)")
def misfit_throws(patch: Patch) -> None:
    for module in (arrivals, placement):
        patch.setattr(module, "UNFIT", ())
        patch.setattr(module, "UNTAKEN", ())


@plant("rows that wait for each other wait for ever")
def cycles_wait(patch: Patch) -> None:
    patch.setattr(parents.Parents, "_find_arriving", lambda self, targets: {})


@plant("a child is deleted by the database before it has moved", out_of_reach=True)
def cascade_first(patch: Patch) -> None:
    def around(original: Any, self: parents.Parents, *args: Any, **options: Any) -> Any:
        parked = original(self, *args, **options)
        self.detached()
        return parked

    wrap(patch, parents.Parents, "left_behind", around)


@plant("values of a parked row are not held")
def parked_values_lost(patch: Patch) -> None:
    def around(original: Any, self: Any, work: Any, *rest: Any) -> None:
        original(self, work, *rest)
        work.state.held = {}

    wrap(patch, placement.Placement, "_park", around)


# -- exchanging ---------------------------------------------------------------------------


@plant("entries that are refused for their time count as sent")
def refused_counts_as_sent(patch: Patch) -> None:
    def around(original: Any, self: Exchange, outgoing: Any, receipt: Any) -> Any:
        rejected = [r for r in receipt.rejected if r.code != "CLOCK_AHEAD"]
        return original(self, outgoing, replace(receipt, rejected=rejected))

    wrap(patch, Exchange, "_settle", around)


@plant("entries are marked before they are sent")
def marked_too_early(patch: Patch) -> None:
    def around(original: Any, self: Exchange, outgoing: Any, *rest: Any) -> Any:
        with self._replica.writing():
            self._journal.mark_sent([entry.ticks for entry in outgoing], [])
        return original(self, outgoing, *rest)

    wrap(patch, Exchange, "_push", around)


@plant("what the log lost is not sent again", seed=3)
def nothing_offered_again(patch: Patch) -> None:
    patch.setattr(Journal, "unsend", lambda self, *which: None)


@plant("corrected timestamps are not corrected in the versions")
def versions_not_renamed(patch: Patch) -> None:
    patch.setattr(Versions, "rename_local", lambda self, renamed, rows: None)


@plant("pruning raises the clock over entries that were never sent (found by seed 27)")
def pruning_fixes_the_clock(patch: Patch) -> None:
    sql = "UPDATE sharedlog_clock SET floor = (SELECT max(floor, ifnull(max(ticks), 0)) FROM"
    patch.setattr(
        Journal, "raise_floor_over_sent", lambda self: self.run(f"{sql} sharedlog_entry)")
    )


@plant("a correction of the clock stays when the clock is right again", out_of_reach=True)
def lead_for_ever(patch: Patch) -> None:
    patch.setattr(Journal, "trust_clock", lambda self, lead_ms: None)


@plant("the clock does not follow what is received")
def clock_not_lifted(patch: Patch) -> None:
    patch.setattr(Journal, "lift_clock", lambda self, ticks: None)


@plant("received entries are dropped before they are applied")
def inbox_loses(patch: Patch) -> None:
    def around(original: Any, self: Inbox, limit: int) -> Any:
        waiting = original(self, limit)
        return waiting[:-1] if len(waiting) > 1 else waiting

    wrap(patch, Inbox, "waiting", around)
    wrap(
        patch,
        Inbox,
        "drop",
        lambda original, self, numbers: self._run("DELETE FROM sharedlog_inbox"),
    )


@plant("local changes are not merged before others' are")
def not_folded(patch: Patch) -> None:
    patch.setattr(Versions, "fold_local", lambda self: None)
    patch.setattr(Versions, "fold_some", lambda self: False)


# -- copies -------------------------------------------------------------------------------


@plant("nobody notices a copy", out_of_reach=True)
def copies_unnoticed(patch: Patch) -> None:
    for name in ("check_read", "check_write"):
        patch.setattr(DeviceState, name, lambda self, lineage: None)
        patch.setattr(MemorySharedLog, f"_{name}", lambda self, device, lineage: None)


@plant("a copy sends without looking for what another one sent", out_of_reach=True)
def copies_unread(patch: Patch) -> None:
    patch.setattr(DeviceState, "check_write", DeviceState.check_read)
    patch.setattr(MemorySharedLog, "_check_write", MemorySharedLog._check_read)


@plant("a copy is taken for a device whose answer got lost", out_of_reach=True)
def copies_believed(patch: Patch) -> None:
    def around(original: Any, self: Lineage, entries: Any) -> bool:
        original(self, entries)
        return True

    wrap(patch, Lineage, "_settle", around)


@plant("a lost answer is taken for a copy")
def lost_answers_fork(patch: Patch) -> None:
    patch.setattr(Lineage, "_settle", lambda self, entries: not entries)


@plant("a copy sends all that it has as its own", out_of_reach=True)
def copies_send_all(patch: Patch) -> None:
    def around(original: Any, self: Identity) -> str:
        self._journal.unsend()
        device: str = original(self)
        return device

    wrap(patch, Identity, "fork", around)


@plant("what a copy has not sent stays its former id's in the versions", out_of_reach=True)
def copies_keep_versions(patch: Patch) -> None:
    patch.setattr(Reattribution, "hand_over", lambda self, batches, of, to, left=(): None)


@plant("what copies date anew is not known again", out_of_reach=True)
def dates_unsaid(patch: Patch) -> None:
    patch.setattr(lineage, "recorded_at", lambda journal, ticks: {})


@plant("what copies date anew is not read again from the beginning", out_of_reach=True)
def dates_unread(patch: Patch) -> None:
    patch.setattr(Identity, "begins_again", lambda self: False)


@plant("the end of a log that was put back and has grown again goes unnoticed", out_of_reach=True)
def lost_end_unnoticed(patch: Patch) -> None:
    patch.setattr(places, "check_of", lambda *entry: "")
    patch.setattr(MemorySharedLog, "_cursor", lambda self, position: f"{self._epoch}.{position}")


@plant("the log's own entries of a device are believed up to the newest", out_of_reach=True)
def newest_unchecked(patch: Patch) -> None:
    patch.setattr(Lineage, "_begins_with", lambda self, ticks, entries: True)


@plant("what was refused for its time may come again", out_of_reach=True)
def refused_may_come_again(patch: Patch) -> None:
    patch.setattr(Appended, "ahead", False)


# -- the service --------------------------------------------------------------------------


@plant("a page ends inside a transaction")
def half_groups(patch: Patch) -> None:
    patch.setattr(Stretch, "_continues", lambda self, row, size: False)


@plant("the head moves in a commit of its own")
def acknowledged_too_early(patch: Patch) -> None:
    def around(original: Any, self: Store, *args: Any, **options: Any) -> Any:
        receipt = original(self, *args, **options)
        if receipt.accepted > 3:
            with self._database.transaction() as db:
                db.rows("DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)")
        return receipt

    wrap(patch, Store, "write", around)
