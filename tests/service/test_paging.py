"""Pages: bounded, in order, never half a transaction group, nothing twice and nothing left out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sharedlog_service.entries import Cursor, NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.store import Store
from tests.service.conftest import OpenStore
from tests.service.support import NOON, change, entries, flat, read_all, texts


def sizes(store: Store, reader: str, **bounds: Any) -> list[int]:
    return [len(page.rows) for page in read_all(store, "ada", reader, **bounds)]


def test_a_page_is_bounded_by_count(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", writer, entries(7))
    assert sizes(store, reader, limit=3) == [3, 3, 1]
    assert sizes(store, reader, limit=7) == [7]
    assert sizes(store, reader, limit=1) == [1] * 7


def test_a_page_is_bounded_by_bytes_but_brings_at_least_one_entry(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    data = ["a" * 10, "é" * 10, "c" * 10, "d" * 100, "e"]
    store.write("ada", writer, [NewEntry(NOON + n, 0, text) for n, text in enumerate(data)])
    assert sizes(store, reader, byte_limit=30) == [2, 1, 1, 1]
    assert sizes(store, reader, byte_limit=29) == [1, 1, 1, 1, 1]
    assert sizes(store, reader, byte_limit=1) == [1, 1, 1, 1, 1]


def test_the_service_cuts_what_is_asked_for_to_its_own_limits(open_store: OpenStore) -> None:
    store = open_store(Limits(page_entries=2))
    store.create_user("ada")
    writer, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", writer, entries(5))
    assert sizes(store, reader, limit=1000) == [2, 2, 1]


@pytest.mark.parametrize("bounds", [{"limit": 0}, {"limit": -1}, {"byte_limit": 0}])
def test_a_page_of_nothing_is_refused(store: Store, bounds: dict[str, Any]) -> None:
    reader = store.create_device("ada")
    with pytest.raises(Refused) as caught:
        store.read("ada", reader, None, **bounds)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_page_never_ends_inside_a_group(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    batch = entries(2) + entries(4, start=NOON + 100, group=True) + entries(2, start=NOON + 200)
    store.write("ada", writer, batch)
    assert sizes(store, reader, limit=3) == [6, 2]
    assert sizes(store, reader, limit=2) == [2, 4, 2]
    assert sizes(store, reader, byte_limit=1) == [1, 1, 4, 1, 1]


def test_groups_of_two_devices_that_began_in_the_same_tick_are_two(store: Store) -> None:
    one, two, reader = (store.create_device("ada") for _ in range(3))
    store.write("ada", one, entries(2, group=True))
    store.write("ada", two, entries(2, group=True))
    assert sizes(store, reader, limit=1) == [2, 2]


def test_a_group_that_lost_an_entry_to_a_refusal_is_still_one(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    batch: list[object] = list(entries(4, group=True))
    batch[1] = [0, 0, "bad"]
    store.write("ada", writer, batch)
    assert sizes(store, reader, limit=1) == [3]


def test_a_group_that_never_ends_cannot_make_a_page_that_never_ends(open_store: OpenStore) -> None:
    store = open_store(Limits(batch_entries=5))
    store.create_user("ada")
    writer, reader = store.create_device("ada"), store.create_device("ada")
    endless = entries(20, group=True)
    for start in range(0, 20, 5):
        store.write("ada", writer, endless[start : start + 5])
    assert sizes(store, reader, limit=2) == [7, 7, 6]


def test_own_entries_are_skipped_and_the_cursor_passes_them(store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    store.write("ada", one, entries(3))
    store.write("ada", two, entries(2))
    head = store.write("ada", one, entries(3, start=NOON + 10)).head
    page = store.read("ada", one, None)
    assert texts(page) == [entry.data for entry in entries(2)]
    assert page.cursor == page.head == head
    assert store.read("ada", one, head).rows == []


def test_a_page_names_only_its_own_devices(store: Store) -> None:
    writers = [store.create_device("ada", name=str(n)) for n in range(3)]
    reader = store.create_device("ada")
    for writer in writers[::-1]:
        store.write("ada", writer, entries(1))
    first = store.read("ada", reader, None, limit=1)
    assert first.packed["devices"] == [writers[2]]
    everything = store.read("ada", reader, None)
    assert everything.packed["devices"] == writers
    assert [row[0] for row in everything.packed["entries"]] == [2, 1, 0]
    assert [entry.device for entry in everything.entries] == writers[::-1]


def test_a_filter_by_collection_lets_sealed_entries_through(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    data = [change(1, collection="note"), change(2, collection="tag"), "sealed"]
    store.write("ada", writer, [NewEntry(NOON + n, 0, text) for n, text in enumerate(data)])
    for collections, expected in (
        (["tag"], [data[1], data[2]]),
        (["tag", "note"], data),
        (["unknown"], [data[2]]),
        ([], [data[2]]),
        (None, data),
    ):
        page = store.read("ada", reader, None, collections=collections)
        assert texts(page) == expected
        assert page.cursor == page.head


def test_a_group_with_filtered_entries_inside_stays_whole(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    kinds = ["note", "tag", "note", "tag", "note"]
    batch = [NewEntry(NOON + n, n, change(n, collection=kind)) for n, kind in enumerate(kinds)]
    store.write("ada", writer, batch)
    page = store.read("ada", reader, None, limit=1, collections=["note"])
    assert len(page.rows) == 3


def test_the_whole_log_up_to_a_cursor(store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    store.write("ada", one, entries(3))
    until = store.write("ada", two, entries(2)).head
    store.write("ada", two, entries(4, start=NOON + 10))
    mine, theirs = [e.data for e in entries(3)], [e.data for e in entries(2)]

    pages = read_all(store, "ada", one, limit=2, own=True, until=until)
    assert flat(pages) == [*mine, *theirs]
    assert [len(page.rows) for page in pages] == [2, 2, 1]
    assert pages[-1].cursor == until
    assert pages[-1].head.seq == 9

    assert flat(read_all(store, "ada", one, until=until)) == theirs
    assert flat(read_all(store, "ada", one, own=True))[:5] == [*mine, *theirs]
    assert store.read("ada", one, until, until=until, own=True).rows == []


def test_a_group_that_goes_on_behind_the_end_is_cut_there(store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    group = entries(4, group=True)
    until = store.write("ada", one, group[:2]).head
    store.write("ada", one, group[2:])
    assert sizes(store, two, limit=1, until=until) == [2]


def test_reading_the_whole_log_does_not_tell_where_the_device_is(store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    head = store.write("ada", two, entries(3)).head
    assert store.read("ada", one, head, own=True).mark is None
    assert store.read("ada", one, head).mark == head


def test_the_end_must_be_of_this_life_of_the_log(store: Store) -> None:
    one = store.create_device("ada")
    head = store.write("ada", one, entries(3)).head
    with pytest.raises(Refused) as caught:
        store.read("ada", one, None, until=Cursor(head.epoch, 4), own=True)
    assert caught.value.code is Code.CURSOR_AHEAD
    with pytest.raises(Refused) as caught:
        store.read("ada", one, None, until=Cursor("other", 1), own=True)
    assert caught.value.code is Code.EPOCH_CHANGED


def test_a_page_does_not_see_what_is_committed_while_it_is_read(store: Store) -> None:
    """Head, epoch and rows come from one snapshot: a page that ends at the head it tells."""
    writer, reader = store.create_device("ada"), store.create_device("ada")
    for turn in range(20):
        store.write("ada", writer, entries(3, start=NOON + turn * 10))
        page = store.read("ada", reader, None)
        assert page.entries[-1].seq == page.head.seq == (turn + 1) * 3


@dataclass
class Push:
    """One push of the property test: who, which of the timestamps, and the group's length."""

    device: int
    ticks: list[int]
    group: bool


pushes = st.lists(
    st.builds(
        Push,
        device=st.integers(0, 2),
        ticks=st.lists(st.integers(0, 12), max_size=6),
        group=st.booleans(),
    ),
    max_size=8,
)


def batch_of(push: Push) -> list[NewEntry]:
    """Make the entries: the content follows from the timestamp, so a repetition is a duplicate."""
    return [NewEntry(NOON + tick, tick if push.group else 0, f"{tick}") for tick in push.ticks]


@given(pushes=pushes, limit=st.integers(1, 5), byte_limit=st.integers(1, 8))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_pushed_and_however_it_is_paged_everybody_reads_the_same(
    store: Store, pushes: list[Push], limit: int, byte_limit: int
) -> None:
    """Against a dictionary: what was accepted, once each, in order, whatever the page bounds."""
    user = f"user-{len(store.users())}"
    store.create_user(user)
    devices = [store.create_device(user) for _ in range(4)]
    log: dict[tuple[str, int], NewEntry] = {}
    for push in pushes:
        for entry in batch_of(push):
            log.setdefault((devices[push.device], entry.created_on), entry)
        store.write(user, devices[push.device], batch_of(push))
    expected = [(device, entry.created_on, entry.data) for (device, _), entry in log.items()]
    for reader in devices:
        pages = read_all(store, user, reader, limit=limit, byte_limit=byte_limit)
        found = [(e.device, e.created_on, e.data) for page in pages for e in page.entries]
        assert found == [entry for entry in expected if entry[0] != reader]
        for page, following in pairwise(pages):
            assert page.rows
            last, first = page.entries[-1], following.entries[0]
            group = (last.device, last.created_on - last.group)
            assert group != (first.device, first.created_on - first.group)
    assert store.stats(user).head.seq == len(expected)


def test_flat_is_flat(store: Store) -> None:
    """The helper the tests above rely on must not hide an entry."""
    writer, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", writer, entries(3))
    assert flat(read_all(store, "ada", reader, limit=2)) == [e.data for e in entries(3)]
