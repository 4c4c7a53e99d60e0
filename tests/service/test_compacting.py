"""Compaction changes no device's outcome: against the log that was never compacted.

The model is a set of entries for each device, merged by the client's pure merge. Devices lag, are
away for longer than a device counts, write what is older than the log remembers, and meet a
compaction between two pages.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from sharedlog.changes import decode
from sharedlog.clock import Version
from sharedlog.merge.reconcile import RowState, merge
from sharedlog_service.cli import add_commands
from sharedlog_service.entries import CollectionStats, Cursor, NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import DAY_MS, Policy, Settings
from sharedlog_service.store.compacting import Compacted
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.engines import Engine, Postgres
from tests.service.support import NOON, ManualClock, flat, read_all, texts

POLICY = Policy(retention_ms=30 * DAY_MS, expiry_ms=90 * DAY_MS)
FIELDS = ("a", "b", "c")


def said(operation: str, pk: str, value: Any = None, **more: Any) -> str:
    told = {"operation": operation, "collection": "note", "pk": pk, "field": None, "value": value}
    return orjson.dumps(told | more).decode()


def create(pk: str, **value: Any) -> str:
    return said("create", pk, value)


def modify(pk: str, **value: Any) -> str:
    return said("modify", pk, value)


def delete(pk: str, *, final: bool = True) -> str:
    return said("delete", pk, final=True) if final else said("delete", pk)


def written(store: Store, device: str, *data: str, start: int = NOON) -> None:
    batch = [NewEntry(start + n, 0, text) for n, text in enumerate(data)]
    assert store.write("ada", device, batch).rejections == []


def deleted_by_a_visitor(store: Store, pk: str, ticks: int) -> None:
    """By a device that holds nothing, because it is revoked after that."""
    visitor = store.create_device("ada")
    written(store, visitor, delete(pk), start=ticks)
    store.revoke_device("ada", visitor)


def left(store: Store) -> list[str]:
    """What a new device gets to read."""
    return flat(read_all(store, "ada", store.create_device("ada")))


# The rules, one by one


def test_what_newer_entries_write_again_is_dropped(store: Store) -> None:
    device = store.create_device("ada")
    first = create("1", a=1, b=1)
    written(store, device, first, modify("1", a=2), modify("1", b=2), modify("1", a=3))
    assert store.compact("ada", POLICY).entries == 1
    assert left(store) == [first, modify("1", b=2), modify("1", a=3)]
    stats = store.stats("ada")
    assert (stats.entries, stats.head.seq) == (3, 4)
    assert stats.bytes == sum(map(len, left(store)))


def test_what_was_dropped_is_not_counted_any_more(store: Store, clock: ManualClock) -> None:
    """Neither by collection: the numbers say what is there."""
    device, other = store.create_device("ada"), store.create_device("ada")
    written(store, device, create("1", a=1), modify("1", a=2), create("2", a=1), '{"sealed":1}')
    tag = said("create", "1", {}).replace("note", "tag")
    written(store, other, modify("1", a=3), delete("2"), tag, start=NOON + 9)
    assert store.compact("ada", POLICY).entries == 2
    stats = store.stats("ada")
    assert stats.collections == [
        CollectionStats("note", 1, 1, 1, clock.ms),
        CollectionStats("tag", 1, 0, 0, clock.ms),
    ]
    assert stats.bytes == sum(map(len, left(store)))
    assert stats.entries == 5


def test_the_newest_write_is_the_one_with_the_latest_timestamp_wherever_it_stands(
    store: Store,
) -> None:
    device = store.create_device("ada")
    written(store, device, create("1", a=1), start=NOON)
    written(store, device, modify("1", a="newest"), start=NOON + 9)
    written(store, device, modify("1", a="older"), start=NOON + 5)
    store.compact("ada", POLICY)
    assert left(store) == [create("1", a=1), modify("1", a="newest")]


@pytest.mark.parametrize(
    "kept",
    [
        modify("1", a=1, b=1),
        said("modify", "1", {"a": {"add": 1}}, rules={"a": "counter"}),
        said("modify", "1", {"a": 1}, schema=2),
        '{"sealed":1}',
    ],
    ids=["a field of it stands", "a rule", "another schema version", "sealed"],
)
def test_what_may_count_is_kept(store: Store, kept: str) -> None:
    device = store.create_device("ada")
    written(store, device, create("1", a=0), kept, modify("1", a=2))
    assert store.compact("ada", POLICY) == Compacted()
    assert len(left(store)) == 3


@pytest.mark.parametrize(("final", "count"), [(True, 2), (False, 0)])
def test_what_a_final_deletion_ended_is_dropped(store: Store, final: bool, count: int) -> None:
    device = store.create_device("ada")
    gone = delete("1", final=final)
    written(store, device, create("1", a=1), modify("1", b=1), gone, create("2", a=1))
    assert store.compact("ada", POLICY).entries == count
    assert left(store)[-2:] == [gone, create("2", a=1)]


def test_rows_whose_hashes_are_equal_are_told_apart(store: Store) -> None:
    """Two keys with one CRC: found by trying."""
    device = store.create_device("ada")
    one, two = same_hash()
    written(store, device, create(one, a=1), create(two, a=1), delete(one), modify(two, a=2))
    assert store.compact("ada", POLICY).entries == 1
    assert left(store) == [create(two, a=1), delete(one), modify(two, a=2)]


def same_hash() -> tuple[str, str]:
    from sharedlog_service.entries import row_hash, row_identity

    seen: dict[int, str] = {}
    rng = random.Random(1)
    while True:
        pk = f"{rng.getrandbits(64):x}"
        found = seen.setdefault(row_hash(row_identity("note", pk)), pk)
        if found != pk:
            return found, pk


def test_what_was_dropped_is_still_known_when_it_is_offered_again(store: Store) -> None:
    device = store.create_device("ada")
    written(store, device, create("1", a=1), modify("1", a=2), modify("1", a=3))
    store.compact("ada", POLICY)
    again = store.write("ada", device, [NewEntry(NOON + 1, 0, modify("1", a=2))])
    assert (again.accepted, list(again.duplicates)) == (0, [0])
    other = store.write("ada", device, [NewEntry(NOON + 1, 0, modify("1", a=4))])
    assert [rejection.code for rejection in other.rejections] == [Code.DEVICE_CLONED]


def test_a_cursor_whose_entry_was_dropped_is_as_good_as_before(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    written(store, writer, create("1", a=1), modify("1", a=2))
    cursor = store.read("ada", reader, None).cursor
    assert cursor.check
    written(store, writer, modify("1", a=3), start=NOON + 9)
    assert store.compact("ada", POLICY).entries == 1
    assert texts(store.read("ada", reader, cursor)) == [modify("1", a=3)]


# What devices may ask for


def own(store: Store, device: str, ticks: int) -> list[str]:
    """What a device is answered that knows of an entry of its own at `ticks`."""
    return texts(store.read_own("ada", device, ticks, limit=10, byte_limit=10_000))


def test_what_a_device_may_ask_for_after_a_lost_answer_stays(
    store: Store, clock: ManualClock
) -> None:
    """Of three writes: it knows of the second if the answer to the third was lost."""
    device, other = store.create_device("ada"), store.create_device("ada")
    for number in range(3):
        data = [modify("1", a=10 * number + n) for n in range(3)]
        written(store, device, *data, start=NOON + 100 * number)
        clock.ms += 1
    written(store, other, modify("1", a="newer"), start=NOON + 900)
    assert store.compact("ada", POLICY).entries == 7
    assert own(store, device, NOON + 102) == [modify("1", a=12), modify("1", a=22)]
    assert own(store, device, NOON + 202) == [modify("1", a=22)]
    assert left(store)[-1] == modify("1", a="newer")


def test_what_is_held_holds_the_deletion_that_ends_it(store: Store, clock: ManualClock) -> None:
    """Else the row would come back."""
    device = store.create_device("ada")
    written(store, device, create("1", a=1))
    deleted_by_a_visitor(store, "1", NOON + 9)
    for _ in range(2):
        clock.ms += 40 * DAY_MS
        store.write("ada", device, [], after=store.stats("ada").head)
        assert store.compact("ada", POLICY) == Compacted()
        assert_outcome(store, {})
    for number in (2, 3):
        written(store, device, create(str(number)), start=clock.ms * 1024 + number)
        clock.ms += 1
    store.write("ada", device, [], after=store.stats("ada").head)
    assert store.compact("ada", POLICY).entries == 2
    assert left(store) == [create("2"), create("3")]


@pytest.mark.parametrize("how", ["revoked", "away for too long"])
def test_a_device_that_does_not_count_holds_nothing(
    store: Store, clock: ManualClock, how: str
) -> None:
    device, other = store.create_device("ada"), store.create_device("ada")
    written(store, device, modify("1", a=1))
    written(store, other, modify("1", a=2), start=NOON + 9)
    assert store.compact("ada", POLICY) == Compacted()
    if how == "revoked":
        store.revoke_device("ada", device)
    else:
        clock.ms += POLICY.expiry_ms
    assert store.compact("ada", POLICY).entries == 1


# The horizon


@pytest.fixture
def forgotten(store: Store, clock: ManualClock) -> Cursor:
    """A log that has forgotten a deletion, and a cursor from before."""
    writer, lagging = store.create_device("ada"), store.create_device("ada")
    written(store, writer, create("1", a=1), create("2", a=1))
    page = store.read("ada", lagging, None)
    store.mark_seen("ada", lagging, page.cursor)
    clock.ms += 100 * DAY_MS
    deleted_by_a_visitor(store, "1", NOON + 9)
    clock.ms += 40 * DAY_MS
    store.write("ada", writer, [], after=store.stats("ada").head)
    assert store.compact("ada", POLICY).entries == 2
    return page.cursor


def test_a_deletion_that_every_device_has_read_is_forgotten(
    store: Store, forgotten: Cursor
) -> None:
    assert left(store) == [create("2", a=1)]


@pytest.mark.parametrize("distance", [-1, 0, 1])
def test_a_device_behind_the_horizon_is_told_so_and_can_begin_anew(
    store: Store, forgotten: Cursor, distance: int
) -> None:
    late = store.create_device("ada")
    cursor = Cursor(forgotten.epoch, 3 + distance) if distance < 1 else store.stats("ada").head
    if distance >= 0:
        assert texts(store.read("ada", late, cursor)) == []
        return
    with pytest.raises(Refused) as refused:
        store.read("ada", late, cursor)
    assert refused.value.code is Code.HORIZON_PASSED
    beginning = Cursor.parse(str(refused.value.details["beginning"]))
    pages = [store.read("ada", late, beginning, limit=1)]
    while pages[-1].has_more:
        cursor = Cursor.parse(str(pages[-1].cursor))
        pages.append(store.read("ada", late, cursor, limit=1))
    assert flat(pages) == [create("2", a=1)]


def test_who_wrote_before_cannot_pass_for_a_new_device(store: Store, forgotten: Cursor) -> None:
    """It may have rows that the log has forgotten, although it read nothing yet."""
    writer = next(device.id for device in store.devices("ada"))
    for work in (
        lambda: store.read("ada", writer, None),
        lambda: store.write("ada", writer, [], after=None, reading=True),
    ):
        with pytest.raises(Refused) as refused:
            work()
        assert refused.value.code is Code.HORIZON_PASSED
    assert store.write("ada", writer, [], after=None).rejections == []


def test_a_device_is_new_whatever_its_copies_write(store: Store, clock: ManualClock) -> None:
    """So it holds nothing, and may begin with what the log has left."""
    writer, copy = (store.create_device("ada", device_id=name) for name in ("3f9", "3f9.a"))
    written(store, writer, create("1", a=1), create("2", a=1))
    assert store.read_own("ada", copy, 0, limit=1, byte_limit=1).lineage != ""
    deleted_by_a_visitor(store, "1", NOON + 9)
    clock.ms += 40 * DAY_MS
    store.write("ada", writer, [], after=store.stats("ada").head)
    assert store.compact("ada", POLICY).entries == 2
    assert texts(store.read("ada", copy, None, lineage="")) == [create("2", a=1)]


def test_what_is_older_than_the_horizon_is_not_taken(store: Store, forgotten: Cursor) -> None:
    device = store.create_device("ada")
    old = [NewEntry(NOON + 9, 0, modify("1", a=7)), NewEntry(NOON + 10, 0, modify("1", a=8))]
    receipt = store.write("ada", device, old)
    assert [(r.index, r.code) for r in receipt.rejections] == [(0, Code.ENTRY_TOO_OLD)]


def test_a_device_that_counts_keeps_deletions_alive(store: Store, clock: ManualClock) -> None:
    writer, lagging = store.create_device("ada"), store.create_device("ada")
    written(store, writer, create("1", a=1), create("2", a=1))
    store.mark_seen("ada", lagging, store.read("ada", lagging, None).cursor)
    deleted_by_a_visitor(store, "1", NOON + 5)
    clock.ms += 89 * DAY_MS
    store.write("ada", writer, [], after=store.stats("ada").head)
    assert store.compact("ada", POLICY).entries == 1
    assert left(store) == [create("2", a=1), delete("1")]
    clock.ms += 2 * DAY_MS
    assert store.compact("ada", POLICY).entries == 1
    assert left(store) == [create("2", a=1)]


def test_a_run_that_was_ended_anywhere_is_finished_by_the_next(
    store: Store, clock: ManualClock
) -> None:
    device = store.create_device("ada")
    rows = [str(number) for number in range(1_200)]
    written(store, device, *(create(pk, a=1) for pk in rows), start=NOON)
    written(store, device, *map(delete, rows), start=NOON + 5_000)
    clock.ms += 40 * DAY_MS
    store.write("ada", device, [], after=store.stats("ada").head)
    ended = 0
    while True:
        allowed = iter([True])

        def one_portion(work: Any, allowed: Any = allowed) -> None:
            if not next(allowed, False):
                raise InterruptedError
            work(store)

        try:
            store.compact("ada", POLICY, write=one_portion)
        except InterruptedError:
            ended += 1
            assert_outcome(store, {})
        else:
            break
    assert ended >= 5
    assert left(store) == [delete("1199")]  # the newest entry of a device stays


def test_a_long_history_of_one_row_is_not_kept_in_memory_and_told_as_it_goes(
    store: Store,
) -> None:
    device = store.create_device("ada")
    for start in range(0, 3_000, 1_000):
        data = [modify("1", a=start + n) for n in range(1_000)]
        written(store, device, *data, start=NOON + start)
    told: list[Compacted] = []
    done = store.compact("ada", POLICY, tell=told.append)
    assert done.entries == 2_999
    assert [found.entries for found in told] == [500, 1000, 1500, 2000, 2500, 2999]
    assert left(store) == [modify("1", a=2_999)]


# Any history


class Replica:
    """A device as the protocol describes it: the set of the entries that it knows."""

    def __init__(self, store: Store, user: str, name: str, rng: random.Random) -> None:
        self.store, self.user, self.rng = store, user, rng
        self.device = store.create_device(user, device_id=name)
        self.cursor: Cursor | None = None
        self.known: dict[Version, str] = {}
        self.unsent: list[tuple[int, str]] = []
        self.acknowledged: list[int] = []
        """The newest entry of each write."""
        self.recovered = 0

    def write(self, ticks: int, data: str) -> None:
        self.unsent.append((ticks, data))

    def sync(self, clock: ManualClock) -> None:
        self._push(clock)
        self.pull()
        clock.ms += 1

    def _push(self, clock: ManualClock) -> None:
        clock.ms += 1
        now_ticks = clock.ms * 1024 + 500
        batch = [NewEntry(ticks, 0, data) for ticks, data in self.unsent]
        receipt = self.store.write(self.user, self.device, batch)
        refused = {rejection.index for rejection in receipt.rejections}
        assert all(found.code is Code.ENTRY_TOO_OLD for found in receipt.rejections)
        for index, (ticks, data) in enumerate(self.unsent):
            if index not in refused:
                self.known[Version(ticks, self.device)] = data
        if receipt.accepted:
            self.acknowledged.append(
                max(t for i, (t, _) in enumerate(self.unsent) if i not in refused)
            )
        self.unsent = [(now_ticks + index, self.unsent[index][1]) for index in sorted(refused)]
        if refused:
            self._push(clock)

    def assert_held(self, since: int) -> None:
        """What it may ask for is there, if it was heard of since then."""
        seen = self.store.device(self.user, self.device)
        assert seen is not None
        if (seen.last_seen or 0) <= since:
            self.acknowledged.clear()
        for ticks in self.acknowledged[-2:]:
            page = self.store.read_own(self.user, self.device, ticks, limit=1, byte_limit=1)
            assert page.entries[0].created_on == ticks

    def pull(self, *, pages: int = 1_000) -> None:
        for _ in range(pages):
            try:
                page = self.store.read(
                    self.user, self.device, self.cursor, limit=self.rng.choice([1, 2, 5])
                )
            except Refused as refused:
                assert refused.code is Code.HORIZON_PASSED
                self.cursor = Cursor.parse(str(refused.details["beginning"]))
                self._forget()
                continue
            self._take(page.entries)
            self.cursor = Cursor.parse(str(page.cursor))
            if not page.has_more:
                self.store.mark_seen(self.user, self.device, self.cursor)
                return

    def _forget(self) -> None:
        """What it knows is what the log says, its own writes among it."""
        self.recovered += 1
        self.known = {}
        page = self.store.read_own(self.user, self.device, 0, limit=9_999, byte_limit=9_999_999)
        self._take(page.entries)

    def _take(self, found: Iterable[Any]) -> None:
        for entry in found:
            self.known[Version(entry.created_on, entry.device)] = entry.data

    def outcome(self) -> dict[str, dict[str, Any]]:
        return outcome_of(self.known)


def outcome_of(known: dict[Version, str]) -> dict[str, dict[str, Any]]:
    """The rows that are alive, and their values."""
    states: dict[str, RowState] = {}
    values: dict[str, dict[str, Any]] = {}
    for version in sorted(known):
        change = decode(known[version])
        pk = str(change.pk)
        state, there = states.setdefault(pk, RowState()), values.setdefault(pk, {})
        there.update(merge(state, [(version, change)], known=dict(there)))
    return {
        pk: {
            name: values[pk][name]
            for name in sorted(states[pk].written_fields())
            if name in values[pk]
        }
        for pk in sorted(states)
        if states[pk].alive
    }


def assert_outcome(store: Store, expected: dict[str, dict[str, Any]], user: str = "ada") -> None:
    """A new device comes to this."""
    pages = read_all(store, user, store.create_device(user), limit=500)
    known = {
        Version(entry.created_on, entry.device): entry.data
        for page in pages
        for entry in page.entries
    }
    assert outcome_of(known) == expected


def test_no_device_can_tell_whether_the_log_was_compacted(
    store: Store, clock: ManualClock, engine: Engine
) -> None:
    seeds = range(4 if isinstance(engine, Postgres) else 25)
    found = [a_history(store, clock, f"user-{seed}", random.Random(seed)) for seed in seeds]
    compacted, recovered = map(sum, zip(*found, strict=True))
    assert compacted > 10 * len(seeds)
    assert recovered > 0


def a_history(store: Store, clock: ManualClock, user: str, rng: random.Random) -> tuple[int, int]:
    """Returns how many entries were dropped, and how often a device began anew."""
    store.create_user(user)
    replicas = [Replica(store, user, f"{name}-{user}", rng) for name in "xyz"]
    final = {pk: rng.random() < 0.7 for pk in "12345"}
    compacted = 0
    for step in range(120):
        clock.ms += rng.choice([1, 1, 1, DAY_MS, 20 * DAY_MS])
        replica = rng.choice(replicas)
        action = rng.random()
        if action < 0.55:
            pk = rng.choice("12345")
            replica.write(clock.ms * 1024 + step, drawn(rng, pk, final=final[pk]))
        elif action < 0.8:
            if replica is not replicas[-1] or rng.random() < 0.15:  # one is mostly offline
                replica.sync(clock)
        elif action < 0.9:
            replica.pull(pages=1)
        else:
            compacted += store.compact(user, POLICY).entries
            for replica in replicas:
                replica.assert_held(clock.ms - POLICY.expiry_ms)
    for replica in replicas * 2:
        replica.sync(clock)
    expected = replicas[0].outcome()
    assert [replica.outcome() for replica in replicas] == [expected] * 3, user
    assert_outcome(store, expected, user)
    compacted += store.compact(user, POLICY).entries
    assert_outcome(store, expected, user)
    return compacted, sum(replica.recovered for replica in replicas)


def drawn(rng: random.Random, pk: str, *, final: bool) -> str:
    kind = rng.choice(["create", "create", "modify", "modify", "modify", "delete"])
    if kind == "delete":
        return delete(pk, final=final)
    names = rng.sample(FIELDS, rng.randint(1, 3))
    return said(kind, pk, {name: rng.randrange(100) for name in names})


# By itself, and by hand


def test_the_service_compacts_by_itself(tmp_path: Path) -> None:
    chosen = Settings(db=tmp_path / "log.db", compact_every_ms=1)
    with closing(Store.open(chosen.db)) as store:
        store.create_user("ada")
        device = store.create_device("ada")
        begin = store.now() * 1024
        written(store, device, create("1", a=1), modify("1", a=2), modify("1", a=3), start=begin)
        with TestClient(create_app(chosen)):
            deadline = time.monotonic() + 30
            while store.stats("ada").entries == 3:
                assert time.monotonic() < deadline
                store.check()
        assert left(store) == [create("1", a=1), modify("1", a=3)]


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(tmp_path / "log.db")) as store:
        for user in ("ada", "bob"):
            store.create_user(user)
        begin = store.now() * 1024
        device = store.create_device("ada")
        written(store, device, create("1", a=1), modify("1", a=2), modify("1", a=3), start=begin)
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["compact", "--db", str(tmp_path / "log.db"), "--keep", "7"])
    assert args.handler(args) == 0
    size = len(modify("1", a=2))
    assert capsys.readouterr().out.splitlines() == [
        f"ada: dropped 1 entries ({size} bytes); 2 left",
        "bob: dropped 0 entries (0 bytes); 0 left",
    ]
