"""The contract of a store: whatever engine is behind it, this holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from sharedlog_service.entries import Cursor, NewEntry, row_hash, row_identity
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import DAY_MS, Limits, Policy
from sharedlog_service.store.accounts import Totals
from sharedlog_service.store.store import Store
from tests.service.conftest import OpenStore
from tests.service.support import (
    NOON,
    NOON_MS,
    Ids,
    ManualClock,
    change,
    entries,
    flat,
    read_all,
    texts,
)


def refused(act: Callable[[], object]) -> Code:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value.code


def seqs(store: Store, reader: str) -> list[int]:
    return [entry.seq for page in read_all(store, "ada", reader) for entry in page.entries]


# Writing


def test_entries_get_the_numbers_1_2_3_in_the_order_sent(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    sent = entries(3)[::-1]
    receipt = store.write("ada", writer, sent)
    assert receipt.accepted == 3
    assert receipt.head.seq == 3
    page = store.read("ada", reader, None)
    assert [entry.seq for entry in page.entries] == [1, 2, 3]
    assert page.packed == {"devices": [writer], "entries": [(0, *entry) for entry in sent]}


def test_an_entry_that_is_sent_again_is_a_duplicate(store: Store) -> None:
    device = store.create_device("ada")
    store.write("ada", device, entries(5))
    again = store.write("ada", device, entries(7))
    assert (again.accepted, again.duplicates) == (2, frozenset(range(5)))
    assert [result.status for result in again.results()] == ["DUPLICATE"] * 5 + ["ACCEPTED"] * 2
    assert again.head.seq == 7


def test_the_same_entry_twice_in_one_batch_is_written_once(store: Store) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    one, two = entries(2)
    receipt = store.write("ada", device, [one, one, two, one])
    assert (receipt.accepted, receipt.duplicates) == (2, frozenset({1, 3}))
    assert flat(read_all(store, "ada", reader)) == [one.data, two.data]


def test_two_devices_may_use_the_same_timestamp(store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    store.write("ada", one, entries(1))
    assert store.write("ada", two, entries(1)).accepted == 1


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_another_content_under_the_same_identity_is_refused_by_name(
    store: Store, in_one_batch: bool
) -> None:
    device = store.create_device("ada")
    first, forged = NewEntry(NOON, 0, "one"), NewEntry(NOON, 0, "two")
    if in_one_batch:
        receipt = store.write("ada", device, [first, forged])
    else:
        store.write("ada", device, [first])
        receipt = store.write("ada", device, [forged])
    assert [rejection.code for rejection in receipt.rejections] == [Code.DEVICE_CLONED]
    assert receipt.rejections[0].created_on == NOON
    assert receipt.head.seq == 1


def test_an_older_entry_that_was_never_sent_is_accepted(store: Store) -> None:
    device = store.create_device("ada")
    store.write("ada", device, entries(1, start=NOON + 100))
    assert store.write("ada", device, entries(1, start=NOON + 50)).accepted == 1


BAD: dict[str, tuple[object, Code]] = {
    "empty data": ([NOON, 0, ""], Code.ENTRY_INVALID),
    "data no text": ([NOON, 0, 5], Code.ENTRY_INVALID),
    "data bytes": ([NOON, 0, b"x"], Code.ENTRY_INVALID),
    "lone surrogate": ([NOON, 0, "\ud800"], Code.ENTRY_INVALID),
    "NUL": ([NOON, 0, "a\0b"], Code.ENTRY_INVALID),
    "too short": ([NOON, 0], Code.ENTRY_INVALID),
    "too long": ([NOON, 0, "x", 1], Code.ENTRY_INVALID),
    "no list": (7, Code.ENTRY_INVALID),
    "null": (None, Code.ENTRY_INVALID),
    "object": ({"a": 1, "b": 2, "c": 3}, Code.ENTRY_INVALID),
    "text of three": ("abc", Code.ENTRY_INVALID),
    "ticks no integer": ([NOON + 0.5, 0, "x"], Code.ENTRY_INVALID),
    "ticks boolean": ([True, 0, "x"], Code.ENTRY_INVALID),
    "ticks zero": ([0, 0, "x"], Code.ENTRY_INVALID),
    "ticks negative": ([-NOON, 0, "x"], Code.ENTRY_INVALID),
    "ticks a list": ([[], 0, "x"], Code.ENTRY_INVALID),
    "ticks far beyond 64 bits": ([1 << 70, 0, "x"], Code.CLOCK_AHEAD),
    "group negative": ([NOON, -1, "x"], Code.ENTRY_INVALID),
    "group before 1970": ([NOON, NOON, "x"], Code.ENTRY_INVALID),
    "group no integer": ([NOON, 1.5, "x"], Code.ENTRY_INVALID),
    "a tick too far ahead": ([(NOON_MS + 300_001) * 1024, 0, "x"], Code.CLOCK_AHEAD),
    "too large": ([NOON, 0, "x" * (512 * 1024 + 1)], Code.ENTRY_TOO_LARGE),
    "too large in UTF-8": ([NOON, 0, "é" * (256 * 1024 + 1)], Code.ENTRY_TOO_LARGE),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("position", [0, 1, 4])
def test_a_bad_entry_is_refused_alone_wherever_it_stands(
    store: Store, name: str, position: int
) -> None:
    bad, code = BAD[name]
    device, reader = store.create_device("ada"), store.create_device("ada")
    good = entries(4, start=NOON + 1)
    offered: list[object] = list(good)
    offered.insert(position, bad)
    receipt = store.write("ada", device, offered)
    assert [(r.index, r.code) for r in receipt.rejections] == [(position, code)]
    assert [result.status for result in receipt.results()].index("REJECTED") == position
    assert flat(read_all(store, "ada", reader)) == [entry.data for entry in good]
    assert receipt.head.seq == 4


def test_each_position_of_a_batch_of_50_can_be_the_bad_one(store: Store) -> None:
    device = store.create_device("ada")
    for position in range(50):
        batch: list[object] = list(entries(49, start=NOON + position * 100))
        batch.insert(position, [0, 0, "x"])
        receipt = store.write("ada", device, batch)
        assert [r.index for r in receipt.rejections] == [position]
        assert receipt.head.seq == 49 * (position + 1)


def test_the_limits_themselves_are_allowed(store: Store) -> None:
    device = store.create_device("ada")
    edge = [[(NOON_MS + 300_000) * 1024 + 1023, 0, "x" * (512 * 1024)]]
    assert store.write("ada", device, edge).accepted == 1


def test_a_batch_over_the_limits_is_refused_whole_and_told_the_limits(
    open_store: OpenStore,
) -> None:
    store = open_store(Limits(batch_entries=3, batch_bytes=300))
    store.create_user("ada")
    device = store.create_device("ada")
    for batch in (entries(4), [[NOON, 0, "x" * 301]], [[NOON, 0, "x" * 301], None]):
        with pytest.raises(Refused) as caught:
            store.write("ada", device, batch)
        assert caught.value.code is Code.BATCH_TOO_LARGE
        assert caught.value.details == {"batchEntries": 3, "batchBytes": 300}
    assert store.stats("ada").head.seq == 0


def test_an_empty_batch_is_fine(store: Store) -> None:
    device = store.create_device("ada")
    assert store.write("ada", device, []).head.seq == 0


@pytest.mark.parametrize(
    "data",
    [
        "sealed",
        "[" * 100_000,
        '{"operation":"create"}',
        '{"operation":"create","collection":"note","pk":' + "9" * 5000 + "}",
        '{"operation":"create","collection":"note","pk":NaN}',
        '{"operation":"create","collection":"note","pk":null}',
        '{"operation":"create","collection":"note","pk":{"a":1}}',
        '{"operation":"create","collection":"note","pk":[[1]]}',
        '{"operation":"create","collection":"note","pk":[]}',
        '{"operation":"explode","collection":"note","pk":1}',
        '{"operation":["create"],"collection":"note","pk":1}',
        '{"operation":"create","collection":7,"pk":1}',
        '{"operation":"create","collection":"","pk":1}',
        '{"operation":"create","collection":"' + "c" * 201 + '","pk":1}',
        '{"operation":"create","collection":"note","pk":"\\ud800"}',
        "null",
        "5",
        '"text"',
    ],
)
def test_any_text_is_kept_even_if_it_says_nothing_to_the_service(store: Store, data: str) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    assert store.write("ada", device, [[NOON, 0, data]]).accepted == 1
    assert flat(read_all(store, "ada", reader)) == [data]
    assert store.stats("ada").collections == []


def test_shared_on_never_decreases_when_the_service_clock_jumps_back(
    store: Store, clock: ManualClock
) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    for turn, ms in enumerate((NOON_MS, NOON_MS - 60_000, NOON_MS + 5)):
        clock.ms = ms
        store.write("ada", device, entries(1, start=NOON + turn))
    page = store.read("ada", reader, None)
    assert [entry.shared_on for entry in page.entries] == [NOON_MS, NOON_MS, NOON_MS + 5]


def test_a_failed_write_leaves_nothing_behind(store: Store) -> None:
    device = store.create_device("ada")
    ahead = Cursor(store.stats("ada").head.epoch, 5)
    assert refused(lambda: store.write("ada", device, entries(2), after=ahead)) is Code.CURSOR_AHEAD
    assert store.stats("ada").head.seq == 0


def test_what_was_written_is_there_after_opening_again(store: Store, open_store: OpenStore) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    receipt = store.write("ada", device, entries(3))
    store.close()
    again = open_store()
    assert flat(read_all(again, "ada", reader)) == [entry.data for entry in entries(3)]
    assert again.stats("ada").head == receipt.head


def test_logs_are_apart(store: Store) -> None:
    store.create_user("bob")
    ada, bob = store.create_device("ada"), store.create_device("bob")
    store.write("ada", ada, entries(3))
    store.write("bob", bob, entries(2))
    assert (store.stats("ada").head.seq, store.stats("bob").head.seq) == (3, 2)
    assert (store.last_seq("ada"), store.last_seq("bob")) == (3, 2)
    assert store.stats("ada").head.epoch != store.stats("bob").head.epoch
    assert refused(lambda: store.write("bob", ada, [])) is Code.DEVICE_UNKNOWN
    assert refused(lambda: store.read("bob", ada, None)) is Code.DEVICE_UNKNOWN
    assert store.device("bob", ada) is None
    second = store.create_device("bob")
    assert len(flat(read_all(store, "bob", second))) == 2


def test_all_logs_in_three_numbers(store: Store, clock: ManualClock) -> None:
    """Devices that are revoked, away, or were never heard of are not behind."""
    assert store.totals() == Totals(0, 0, 0)
    store.create_user("bob")
    revoked, away, bobs = (store.create_device(user) for user in ("ada", "ada", "bob"))
    beginning = store.stats("ada").head
    store.mark_seen("ada", away, beginning)
    clock.ms += DAY_MS
    store.mark_seen("ada", revoked, beginning)
    store.revoke_device("ada", revoked)
    gone = [change(1), json.dumps({**json.loads(change(1, "delete")), "final": True})]
    store.write("bob", bobs, [NewEntry(NOON + n, 0, text) for n, text in enumerate(gone)])
    device, behind = store.create_device("ada"), store.create_device("ada")
    store.write("ada", device, entries(5))
    store.mark_seen("ada", behind, store.read("ada", behind, None, limit=2).cursor)
    assert store.totals() == Totals(head=7, horizon=0, lag=3)
    clock.ms += 2
    store.compact("bob", Policy(retention_ms=1, expiry_ms=1))
    assert store.totals() == Totals(head=7, horizon=2, lag=3)


def test_an_unknown_user_has_no_log(store: Store) -> None:
    assert refused(lambda: store.stats("nobody")) is Code.USER_UNKNOWN
    assert refused(lambda: store.create_device("nobody")) is Code.USER_UNKNOWN


# Several at once


def test_numbers_have_no_gaps_when_several_stores_write_at_once(
    store: Store, open_store: OpenStore
) -> None:
    """Each thread has a connection of its own, as separate processes would."""
    reader = store.create_device("ada")
    devices = [store.create_device("ada") for _ in range(4)]
    stores = [open_store() for _ in devices]
    failures: list[BaseException] = []

    def push(own: Store, device: str) -> None:
        try:
            for turn in range(10):
                own.write("ada", device, entries(3, start=NOON + turn * 10))
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=push, args=pair) for pair in zip(stores, devices, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seqs(store, reader) == list(range(1, 4 * 10 * 3 + 1))


def test_one_push_doubled_in_parallel_has_one_effect(store: Store, open_store: OpenStore) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    stores = [open_store() for _ in range(4)]
    accepted: list[int] = []

    def push(own: Store) -> None:
        for turn in range(10):
            accepted.append(own.write("ada", device, entries(5, start=NOON + turn * 10)).accepted)

    threads = [threading.Thread(target=push, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 40
    assert sum(accepted) == 50
    assert seqs(store, reader) == list(range(1, 51))


def test_a_request_that_fails_in_a_shared_transaction_is_undone_alone(store: Store) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    with store.transaction():
        store.write("ada", device, entries(2))
        with pytest.raises(Refused), store.transaction():
            store.write("ada", device, entries(2, start=NOON + 10))
            store.write("ada", "nobody's", [])
        store.write("ada", device, entries(2, start=NOON + 20))
    kept = [entry.data for entry in entries(2) + entries(2, start=NOON + 20)]
    assert flat(read_all(store, "ada", reader)) == kept
    assert seqs(store, reader) == [1, 2, 3, 4]


# Cursors


def test_a_cursor_of_an_earlier_life_is_told_apart(store: Store) -> None:
    device = store.create_device("ada")
    old = store.write("ada", device, entries(2)).head
    epoch = store.renew_epoch("ada")
    assert epoch != old.epoch
    assert refused(lambda: store.read("ada", device, old)) is Code.EPOCH_CHANGED
    assert refused(lambda: store.write("ada", device, [], after=old)) is Code.EPOCH_CHANGED
    assert refused(lambda: store.mark_seen("ada", device, old)) is Code.EPOCH_CHANGED
    assert store.read("ada", device, None).cursor[:2] == (epoch, 2)


def test_a_cursor_beyond_the_head_is_told_apart(store: Store) -> None:
    device = store.create_device("ada")
    head = store.write("ada", device, entries(2)).head
    beyond = head._replace(seq=3)
    assert refused(lambda: store.read("ada", device, beyond)) is Code.CURSOR_AHEAD
    assert refused(lambda: store.mark_seen("ada", device, beyond)) is Code.CURSOR_AHEAD
    assert store.read("ada", device, head).cursor == head


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "x",
        "x.",
        ".5",
        "~a.5",
        "x~.5",
        "x.-1",
        "x.1.5.",
        "x.٣",
        "x. 1",
        "x." + "9" * 16,
        "x.1e3",
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    assert refused(lambda: Cursor.parse(text)) is Code.CURSOR_INVALID


def test_a_cursor_survives_the_wire() -> None:
    for cursor in (Cursor("an.epoch", 12345), Cursor("an.epoch", 12345, "0f")):
        assert Cursor.parse(str(cursor)) == cursor


# Devices


def test_a_repeated_registration_gets_the_same_device(store: Store) -> None:
    first = store.create_device("ada", name="laptop", request_id="r1")
    assert store.create_device("ada", name="other", request_id="r1") == first
    assert store.create_device("ada", request_id="r2") != first
    assert store.create_device("ada") != store.create_device("ada")
    store.create_user("bob")
    assert store.create_device("bob", request_id="r1") != first
    assert [device.name for device in store.devices("ada")][:2] == ["laptop", None]


@pytest.mark.parametrize(
    ("shared_until", "start"),
    [
        (None, 0),
        (0, 0),
        (NOON_MS - 1, 0),
        (NOON_MS, 2),
        (NOON_MS + 9.9, 2),
        (NOON_MS + 10, 4),
        (NOON_MS + 10**9, 6),
    ],
)
def test_a_device_starts_behind_what_was_shared_until_a_time(
    store: Store, clock: ManualClock, shared_until: float | None, start: int
) -> None:
    writer = store.create_device("ada")
    for turn in range(3):
        clock.ms = NOON_MS + turn * 10
        store.write("ada", writer, entries(2, start=NOON + turn * 10))
    device = store.create_device("ada", shared_until=shared_until)
    found = store.device("ada", device)
    assert found is not None
    assert found.cursor.seq == start


@pytest.mark.parametrize("label", ["x" * 201, "a\0b"])
def test_labels_are_bounded(store: Store, label: str) -> None:
    assert refused(lambda: store.create_device("ada", name=label)) is Code.INVALID_ARGUMENT
    assert refused(lambda: store.create_device("ada", request_id=label)) is Code.INVALID_ARGUMENT
    assert store.devices("ada") == []


@pytest.mark.parametrize("shared_until", [float("nan"), float("inf"), -1e300])
def test_what_is_no_time_is_refused(store: Store, shared_until: float) -> None:
    def act() -> object:
        return store.create_device("ada", shared_until=shared_until)

    assert refused(act) is Code.INVALID_ARGUMENT


def test_what_a_device_has_seen_never_moves_backwards(store: Store) -> None:
    device = store.create_device("ada")
    head = store.write("ada", device, entries(5)).head
    assert store.mark_seen("ada", device, head).cursor == head
    assert store.mark_seen("ada", device, head._replace(seq=2, check="")).cursor == head
    store.write("ada", device, [], after=head._replace(seq=1, check=""))
    found = store.device("ada", device)
    assert found is not None
    assert found.cursor == head


def test_a_write_tells_where_the_device_is_and_how_its_clock_goes(
    store: Store, clock: ManualClock
) -> None:
    device = store.create_device("ada")
    head = store.write("ada", device, entries(5)).head
    clock.ms += 1000
    store.write("ada", device, [], after=head, device_now=clock.ms - 250)
    found = store.device("ada", device)
    assert found is not None
    assert (found.cursor, found.last_seen, found.clock_skew) == (head, NOON_MS + 1000, -250)


def test_reading_says_when_the_device_is_worth_marking(store: Store, clock: ManualClock) -> None:
    writer, device = store.create_device("ada"), store.create_device("ada")
    head = store.write("ada", writer, entries(5)).head
    assert store.read("ada", device, head).mark == head
    store.mark_seen("ada", device, head)
    assert store.read("ada", device, head).mark is None
    clock.ms += 60_001
    assert store.read("ada", device, head).mark == head


def test_a_revoked_device_is_locked_out_and_its_entries_stay(
    store: Store, clock: ManualClock
) -> None:
    device, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", device, entries(2))
    assert store.revoke_device("ada", device).revoked_at == NOON_MS
    clock.ms += 5
    assert store.revoke_device("ada", device).revoked_at == NOON_MS
    for act in (
        lambda: store.write("ada", device, []),
        lambda: store.read("ada", device, None),
        lambda: store.mark_seen("ada", device, None),
    ):
        assert refused(act) is Code.DEVICE_REVOKED
    assert len(flat(read_all(store, "ada", reader))) == 2
    assert refused(lambda: store.revoke_device("ada", "nobody's")) is Code.DEVICE_UNKNOWN


def test_users_are_made_once(store: Store) -> None:
    assert store.create_user("ada") is False
    assert store.create_user("bob") is True
    assert sorted(store.users()) == ["ada", "bob"]


def test_ids_and_times_come_from_outside(store: Store) -> None:
    assert store.create_device("ada") == "id-2"
    assert Ids()() == "id-1"
    page = store.read("ada", "id-2", None)
    assert (page.server_time, page.head.epoch) == (NOON_MS, "id-1")


def test_a_page_of_a_fresh_log_is_empty(store: Store) -> None:
    device = store.create_device("ada")
    page = store.read("ada", device, None)
    assert (texts(page), page.cursor.seq, page.has_more) == ([], 0, False)
    assert page.packed == {"devices": [], "entries": []}


def test_the_index_survives_another_process(store: Store) -> None:
    """A hash that differs between processes would make a row's history vanish at a restart."""
    device = store.create_device("ada")
    store.write("ada", device, [[NOON, 0, change("pk", collection="note")]])
    assert row_hash(row_identity("note", "pk")) == row_hash(b'["note","pk"]') == -1_934_677_158
    assert len(store.history("ada", "note", "pk", 10).rows) == 1
