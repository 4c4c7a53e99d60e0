"""Lineages, a device's own entries, ids that devices bring along; logs that lost their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sharedlog_service.entries import Cursor, NewEntry, Receipt
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.store import Store
from tests.engines import Engine
from tests.service.conftest import OpenStore
from tests.service.support import (
    CREATE_DEVICE,
    NOON,
    NOON_MS,
    Asker,
    ManualClock,
    change,
    entries,
    texts,
)


def code_of(work: Callable[[], Any]) -> Code | None:
    try:
        work()
    except Refused as refused:
        return refused.code
    return None


AHEAD = [NewEntry(NOON + 400_000 * 1024, 0, change("ahead"))]

# Lineages


def test_each_write_renews_the_lineage(store: Store) -> None:
    device = store.create_device("ada")
    first = store.write("ada", device, entries(2), lineage="")
    second = store.write("ada", device, entries(1, start=NOON + 9), lineage=first.lineage)
    assert len({"", first.lineage, second.lineage}) == 3
    assert store.read_own("ada", device, 0, limit=9, byte_limit=999).lineage == second.lineage


@pytest.mark.parametrize("old", ["", "first", "nobody's"])
def test_who_does_not_know_the_last_write_neither_writes_nor_reads(store: Store, old: str) -> None:
    device, other = store.create_device("ada"), store.create_device("ada")
    store.write("ada", other, entries(1))
    first = store.write("ada", device, entries(1), lineage="")
    second = store.write("ada", device, entries(1, start=NOON + 9), lineage=first.lineage)
    stale = first.lineage if old == "first" else old
    late = entries(1, start=NOON + 99)
    assert code_of(lambda: store.write("ada", device, late, lineage=stale)) is Code.LINEAGE_CHANGED
    assert code_of(lambda: store.read("ada", device, None, lineage=stale)) is Code.LINEAGE_CHANGED
    assert store.stats("ada").head.seq == 3
    assert texts(store.read("ada", device, None, lineage=second.lineage)) == [change("pk-0")]
    # Who does not ask for it is not checked.
    assert store.write("ada", device, late).accepted == 1


def test_what_changes_nothing_leaves_the_lineage(store: Store) -> None:
    device = store.create_device("ada")
    first = store.write("ada", device, entries(2), lineage="")
    again = store.write("ada", device, entries(2), lineage=first.lineage)
    nothing = store.write("ada", device, [], lineage=first.lineage)
    broken = store.write("ada", device, [NewEntry(NOON, 0, "")], lineage=first.lineage)
    assert {again.lineage, nothing.lineage, broken.lineage} == {first.lineage}


@pytest.mark.parametrize(("name", "is_copy"), [("3f9", True), ("3f9.b", True), ("3f90", False)])
def test_who_does_not_know_what_a_copy_wrote_reads_but_does_not_write(
    store: Store, name: str, is_copy: bool
) -> None:
    device, copy = (store.create_device("ada", device_id=id) for id in (name, "3f9.a.c"))
    known = store.write("ada", device, entries(1), lineage="").lineage
    store.write("ada", copy, entries(1, start=NOON + 9), lineage=None)
    assert len(texts(store.read("ada", device, None, lineage=known))) == 1
    late = entries(1, start=NOON + 99)
    told = store.read_own("ada", device, 0, limit=9, byte_limit=999).lineage
    assert (told != known) == is_copy
    if is_copy:
        code = code_of(lambda: store.write("ada", device, late, lineage=known))
        assert code is Code.LINEAGE_CHANGED
    after = store.write("ada", device, late, lineage=told)
    assert after.accepted == 1
    assert store.write("ada", device, entries(1, start=NOON + 999), lineage=after.lineage).accepted


def test_a_copy_of_a_request_that_came_too_early_is_not_taken_later(
    store: Store, clock: ManualClock
) -> None:
    device = store.create_device("ada")
    refused = store.write("ada", device, AHEAD, lineage="")
    assert [found.code for found in refused.rejections] == [Code.CLOCK_AHEAD]
    clock.ms += 600_000
    assert code_of(lambda: store.write("ada", device, AHEAD, lineage="")) is Code.LINEAGE_CHANGED
    assert store.write("ada", device, AHEAD, lineage=refused.lineage).accepted == 1


# What the log has of a device


def test_own_entries_come_by_timestamp_in_pages(store: Store) -> None:
    device, other = store.create_device("ada"), store.create_device("ada")
    store.write("ada", device, entries(3, start=NOON + 10))
    store.write("ada", other, entries(3))
    store.write("ada", device, entries(2))
    page = store.read_own("ada", device, 0, limit=3, byte_limit=10_000)
    assert [entry.created_on - NOON for entry in page.entries] == [0, 1, 10]
    assert page.has_more
    page = store.read_own("ada", device, NOON + 10, limit=3, byte_limit=10_000)
    assert [entry.created_on - NOON for entry in page.entries] == [10, 11, 12]
    assert not page.has_more
    assert set(page.devices.values()) == {device}


# Devices that bring an id along


def test_a_device_may_register_under_an_id_of_its_own(store: Store) -> None:
    assert store.create_device("ada", device_id="3f9a.b1-c_2", name="laptop") == "3f9a.b1-c_2"
    assert store.create_device("ada", device_id="3f9a.b1-c_2") == "3f9a.b1-c_2"
    assert [device.name for device in store.devices("ada")] == ["laptop"]
    store.write("ada", "3f9a.b1-c_2", entries(1), lineage="")


@pytest.mark.parametrize("text", ["", ".a", "a b", "a\n", "ü", "x" * 201, "a/b", "a\0"])
def test_an_id_is_a_word(store: Store, text: str) -> None:
    code = code_of(lambda: store.create_device("ada", device_id=text))
    assert code is Code.INVALID_ARGUMENT


def test_nobody_takes_a_revoked_id_or_one_of_another_log(store: Store) -> None:
    store.create_user("bob")
    mine, theirs = store.create_device("ada"), store.create_device("bob")
    store.revoke_device("ada", mine)
    assert code_of(lambda: store.create_device("ada", device_id=mine)) is Code.DEVICE_REVOKED
    assert code_of(lambda: store.create_device("ada", device_id=theirs)) is Code.DEVICE_UNKNOWN
    assert code_of(lambda: store.create_device("bob", device_id=mine)) is Code.DEVICE_UNKNOWN


# Logs that lost their end


@pytest.fixture
def restored(open_store: OpenStore, engine: Engine) -> Callable[[Store], Store]:
    """Puts the backup of the store's first day in its place."""

    def restoring(store: Store) -> Store:
        store.close()
        engine.restore()
        return open_store()

    return restoring


def back_up(store: Store, engine: Engine, open_store: OpenStore) -> Store:
    store.close()
    engine.back_up()
    return open_store()


def test_a_cursor_past_the_backup_is_noticed_although_the_log_has_grown_again(
    store: Store,
    engine: Engine,
    open_store: OpenStore,
    restored: Callable[[Store], Store],
    clock: ManualClock,
) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", writer, entries(2))
    before = store.read("ada", reader, None).cursor
    store = back_up(store, engine, open_store)
    store.write("ada", writer, entries(2, start=NOON + 10))
    after = store.read("ada", reader, before).cursor
    store = restored(store)
    assert store.read("ada", reader, before).cursor == before
    assert code_of(lambda: store.read("ada", reader, after)) is Code.CURSOR_AHEAD
    clock.ms += 1
    # The very same entries, but offered again: what is before them may be something else.
    store.write("ada", writer, entries(2, start=NOON + 10))
    assert store.stats("ada").head.seq == after.seq
    for work in (
        lambda: store.read("ada", reader, after),
        lambda: store.write("ada", reader, [], after=after),
        lambda: store.mark_seen("ada", reader, after),
    ):
        assert code_of(work) is Code.EPOCH_CHANGED
    assert store.read("ada", reader, before).cursor.seq == after.seq


def test_what_the_backup_lacks_of_a_device_is_noticed_by_its_lineage(
    store: Store, engine: Engine, open_store: OpenStore, restored: Callable[[Store], Store]
) -> None:
    device = store.create_device("ada")
    first = store.write("ada", device, entries(1), lineage="")
    store = back_up(store, engine, open_store)
    second = store.write("ada", device, entries(1, start=NOON + 9), lineage=first.lineage)
    store = restored(store)
    read = store.read_own("ada", device, 0, limit=9, byte_limit=999)
    assert (read.lineage, len(read.rows)) == (first.lineage, 1)
    known: Receipt = second
    assert (
        code_of(lambda: store.read("ada", device, None, lineage=known.lineage))
        is Code.LINEAGE_CHANGED
    )


# Over the wire

OWN = """
    query Own($device: ID!, $from: Float, $size: Int! = 10) {
      sharedSyncLog {
        getOwnEntries(userId: "ada", deviceId: $device, createdFrom: $from, batchSize: $size) {
          packed hasMore lineage epoch
        }
      }
    }
"""

WRITE = """
    mutation Write($device: ID!, $packed: PackedEntries, $lineage: ID, $after: Cursor) {
      sharedSyncLog {
        writeEntries(
          userId: "ada", deviceId: $device, packed: $packed, lineage: $lineage, after: $after,
          withUpdate: true
        ) { accepted lineage cursor update { packed cursor } }
      }
    }
"""


def test_lineages_over_the_wire(ada: Asker) -> None:
    document = CREATE_DEVICE.replace("$request: ID", "$request: ID, $own: ID").replace(
        "requestId: $request", "requestId: $request, deviceId: $own"
    )
    device = ada.ask(document, {"user": "ada", "own": "mine"})["createDeviceId"]
    assert device == "mine"
    written = {"device": device, "packed": [[NOON, 0, "a"], [NOON + 1, 1, "b"]]}
    first = ada.ask(WRITE, {**written, "lineage": ""})["writeEntries"]
    assert (first["accepted"], first["update"]["packed"]["entries"]) == (2, [])
    assert first["update"]["cursor"] == first["cursor"]
    assert ada.code(WRITE, {**written, "lineage": ""}) == "LINEAGE_CHANGED"
    own = ada.ask(OWN, {"device": device, "from": (NOON + 1) / 1024})["getOwnEntries"]
    assert own["packed"] == {"devices": ["mine"], "entries": [[0, NOON + 1, 1, "b"]]}
    assert (own["hasMore"], own["lineage"]) == (False, first["lineage"])
    again = ada.ask(WRITE, {**written, "lineage": own["lineage"]})["writeEntries"]
    assert (again["accepted"], again["lineage"]) == (0, first["lineage"])


def test_a_batch_of_many_is_checked_for_little(open_store: OpenStore) -> None:
    """The bounds of a page hold for a device's own entries, too."""
    store = open_store(Limits(page_entries=2))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, entries(5))
    page = store.read_own("ada", device, 0, limit=99, byte_limit=10_000)
    assert (len(page.rows), page.has_more) == (2, True)
    assert isinstance(page.cursor, Cursor) and page.server_time == NOON_MS
