"""What a log may hold: a batch that does not fit is refused as a whole, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sharedlog_service.entries import NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import DAY_MS, Limits, Policy
from sharedlog_service.store.store import Store
from tests.service.support import (
    CREATE_DEVICE,
    NOON,
    WRITE,
    Asker,
    ManualClock,
    change,
    entries,
    texts,
)

OpenStore = Callable[..., Store]


def refusal_of(write: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        write()
    return caught.value


def test_a_log_takes_as_many_entries_as_it_may_hold(open_store: OpenStore) -> None:
    store = open_store(Limits(log_entries=10))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, entries(8))
    refused = refusal_of(lambda: store.write("ada", device, entries(3, start=NOON + 100)))
    assert refused.code is Code.QUOTA_EXCEEDED
    assert refused.extensions == {"code": "QUOTA_EXCEEDED", "logEntries": 10, "logBytes": None}
    assert store.stats("ada").entries == 8
    # What is there already needs no room, and what fits is taken.
    assert len(store.write("ada", device, entries(8)).duplicates) == 8
    store.write("ada", device, entries(2, start=NOON + 200))
    assert refusal_of(lambda: store.write("ada", device, entries(1, start=NOON + 300)))
    assert (store.stats("ada").entries, store.stats("ada").head.seq) == (10, 10)


def test_a_log_over_a_quota_that_was_lowered_knows_what_it_has(open_store: OpenStore) -> None:
    store = open_store()
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, entries(8))
    store = open_store(Limits(log_entries=5, log_bytes=10))
    assert len(store.write("ada", device, entries(8)).duplicates) == 8
    refusal_of(lambda: store.write("ada", device, entries(9)))


def test_a_log_takes_as_many_bytes_as_it_may_hold(open_store: OpenStore) -> None:
    store = open_store(Limits(log_bytes=1_000))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, [NewEntry(NOON, 0, "é" * 450)])
    refused = refusal_of(lambda: store.write("ada", device, [NewEntry(NOON + 1, 0, "x" * 101)]))
    assert refused.code is Code.QUOTA_EXCEEDED
    store.write("ada", device, [NewEntry(NOON + 1, 0, "x" * 100)])
    assert store.stats("ada").bytes == 1_000


def test_one_log_that_is_full_leaves_the_others_alone(open_store: OpenStore) -> None:
    store = open_store(Limits(log_entries=5))
    for user in ("ada", "bob"):
        store.create_user(user)
    ada, bob = store.create_device("ada"), store.create_device("bob")
    store.write("ada", ada, entries(5))
    refusal_of(lambda: store.write("ada", ada, entries(1, start=NOON + 100)))
    store.write("bob", bob, entries(5))
    assert store.read("ada", store.create_device("ada"), None).head.seq == 5


def test_compacting_makes_room(open_store: OpenStore) -> None:
    store = open_store(Limits(log_entries=5))
    store.create_user("ada")
    device = store.create_device("ada")
    texts = [change("pk", "modify", value={"title": str(n)}) for n in range(6)]
    store.write("ada", device, [NewEntry(NOON + n, 0, text) for n, text in enumerate(texts[:5])])
    last = [NewEntry(NOON + 5, 0, texts[5])]
    refusal_of(lambda: store.write("ada", device, last))
    assert store.compact("ada", Policy()).entries == 4
    store.write("ada", device, last)
    assert store.stats("ada").entries == 2


def deletions(count: int, start: int = 0, **more: Any) -> list[NewEntry]:
    return [
        NewEntry(NOON + 100 + n, 0, json.dumps({**json.loads(change(f"pk-{n}", "delete")), **more}))
        for n in range(start, start + count)
    ]


def test_deletions_go_a_tenth_beyond_and_compaction_then_makes_room(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store(Limits(log_entries=20))
    store.create_user("ada")
    one, other = store.create_device("ada"), store.create_device("ada")
    store.write("ada", one, entries(20))
    refusal_of(lambda: store.write("ada", other, entries(1, start=NOON + 300)))
    # A tenth of 20.
    refusal_of(lambda: store.write("ada", other, deletions(3, final=True)))
    store.write("ada", other, deletions(2, final=True))
    refusal_of(lambda: store.write("ada", other, deletions(1, 2, final=True)))
    assert store.compact("ada", Policy()).entries == 2
    assert store.stats("ada").entries == 20
    store.write("ada", other, deletions(2, 2, final=True))
    # The other two, and some time later the deletions, too.
    clock.ms += DAY_MS
    assert store.compact("ada", Policy(retention_ms=0, expiry_ms=0)).entries == 2 + 4
    store.write("ada", one, entries(4, start=clock.ms * 1024))
    assert store.stats("ada").entries == 20


def test_so_do_their_bytes(open_store: OpenStore) -> None:
    gone = deletions(3)
    length = len(gone[0].data)
    store = open_store(Limits(log_bytes=20 * length))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, [NewEntry(NOON, 0, "x" * 20 * length)])
    refusal_of(lambda: store.write("ada", device, gone))
    store.write("ada", device, gone[:2])
    assert store.stats("ada").bytes == 22 * length


@pytest.mark.parametrize("last", [change("pk-1", "modify", value={"a": 1}), "sealed"])
def test_what_does_not_only_delete_finds_no_more_room(open_store: OpenStore, last: str) -> None:
    store = open_store(Limits(log_entries=20))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, entries(20))
    mixed = [*deletions(1), NewEntry(NOON + 200, 0, last)]
    refusal_of(lambda: store.write("ada", device, mixed))
    assert len(store.write("ada", device, [*entries(20), *deletions(1)]).duplicates) == 20


def test_over_http_it_is_an_answer_with_a_code_and_the_limits_tell_it(
    serve: Callable[..., Asker],
) -> None:
    ada = serve(limits=Limits(log_entries=1))
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    variables: dict[str, Any] = {"user": "ada", "device": device, "packed": []}
    variables["packed"] = [[NOON, 0, change(1)], [NOON + 1, 0, change(2)]]
    assert ada.code(WRITE, variables) == "QUOTA_EXCEEDED"
    limits = ada.ask("{sharedSyncLog {limits {logEntries logBytes}}}")["limits"]
    assert limits == {"logEntries": 1, "logBytes": None}


def test_a_log_has_as_many_devices_that_are_not_revoked_as_it_may(open_store: OpenStore) -> None:
    store = open_store(Limits(log_devices=2))
    for user in ("ada", "bob"):
        store.create_user(user)
    first = store.create_device("ada", device_id="first")
    second = store.create_device("ada", request_id="again")
    refused = refusal_of(lambda: store.create_device("ada"))
    assert refused.extensions == {"code": "QUOTA_EXCEEDED", "logDevices": 2}
    assert "evoke devices that are gone" in str(refused)
    refusal_of(lambda: store.create_device("ada", device_id="third"))
    # Those that are there are registered again, and go on; and so do other logs.
    assert store.create_device("ada", device_id="first") == first
    assert store.create_device("ada", request_id="again") == second
    store.write("ada", first, entries(1))
    store.create_device("bob")
    store.revoke_device("ada", first)
    store.create_device("ada", device_id="third")
    refusal_of(lambda: store.create_device("ada"))
    assert [device.id for device in store.devices("ada")] == [first, second, "third"]


def test_a_log_over_a_bound_of_devices_that_was_lowered_goes_on_with_them(
    open_store: OpenStore,
) -> None:
    store = open_store(Limits(log_devices=None))
    store.create_user("ada")
    devices = [store.create_device("ada") for _ in range(3)]
    store = open_store(Limits(log_devices=1))
    for device in devices:
        assert store.create_device("ada", device_id=device) == device
    store.revoke_device("ada", devices[0])
    refusal_of(lambda: store.create_device("ada"))


def test_there_is_a_bound_of_devices_unless_it_is_switched_off(
    serve: Callable[..., Asker],
) -> None:
    limits = "{sharedSyncLog {limits {logDevices}}}"
    assert serve().ask(limits)["limits"] == {"logDevices": 1_000}
    assert serve(limits=Limits(log_devices=None)).ask(limits)["limits"] == {"logDevices": None}


def named(name: str, number: int, operation: str = "modify", **more: Any) -> NewEntry:
    """An entry of one row of a collection."""
    found = json.loads(change("pk", operation, name, {"title": str(number)}))
    return NewEntry(NOON + number, 0, json.dumps({**found, **more}))


def test_collections_beyond_the_bound_are_not_counted_and_all_else_goes_on(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store(Limits(log_collections=2))
    store.create_user("ada")
    one, two = store.create_device("ada"), store.create_device("ada")
    written = [named(name, n) for n, name in enumerate(("a", "b", "c", "d", "c", "a"))]
    assert store.write("ada", one, written).accepted == 6
    page = store.read("ada", two, None)
    assert texts(page) == [entry.data for entry in written]
    assert texts(store.read("ada", two, None, collections=["a"])) == [
        written[n].data for n in (0, 2, 3, 4, 5)
    ]  # as for sealed ones: nobody can be spared them
    counted = [(found.collection, found.modifies) for found in store.stats("ada").collections]
    assert counted == [("a", 2), ("b", 1)]
    assert texts(store.history("ada", "c", "pk", 9)) == [written[n].data for n in (2, 4)]
    assert len(store.write("ada", one, written).duplicates) == 6
    # They are compacted like all others: what was overwritten goes, and what was deleted.
    assert store.compact("ada", Policy()).entries == 2
    store.write("ada", two, [named("c", 10, "delete", final=True)], after=page.head)
    assert store.compact("ada", Policy()).entries == 1
    clock.ms += DAY_MS
    # A device's newest entry stays.
    store.write("ada", two, [named("b", 11)])
    assert store.compact("ada", Policy(retention_ms=0, expiry_ms=0)).entries == 2
    assert texts(store.history("ada", "c", "pk", 9)) == []
    assert [found.modifies for found in store.stats("ada").collections] == [1, 1]


def test_a_collection_that_there_is_room_for_later_is_counted_from_then_on(
    open_store: OpenStore,
) -> None:
    store = open_store(Limits(log_collections=0))
    store.create_user("ada")
    device = store.create_device("ada")
    store.write("ada", device, [named("a", 0)])
    store = open_store()
    store.write("ada", device, [named("a", 1), named("a", 2)])
    assert [found.modifies for found in store.stats("ada").collections] == [2]
    assert store.compact("ada", Policy()).entries == 2
    assert [found.modifies for found in store.stats("ada").collections] == [1]
