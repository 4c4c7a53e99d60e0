"""What people ask: filtered entries as a connection, a row's history, numbers."""

from __future__ import annotations

from typing import Any

import pytest

from sharedlog_service.entries import CollectionStats, EntryFilter, NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.service.conftest import OpenStore
from tests.service.support import NOON, NOON_MS, ManualClock, change, entries, texts

ROWS: list[tuple[str, Any, str]] = [
    ("note", "a", "create"),
    ("note", "b", "create"),
    ("tag", "a", "create"),
    ("note", "a", "modify"),
    ("note", ["a", 1], "create"),
    ("note", 1, "create"),
    ("note", "1", "create"),
    ("note", "a", "delete"),
]


@pytest.fixture
def filled(store: Store, clock: ManualClock) -> Store:
    """Eight entries by two devices in turn, a millisecond apart, and a sealed one."""
    devices = [store.create_device("ada", name=name) for name in ("even", "odd")]
    for n, (collection, pk, operation) in enumerate(ROWS):
        clock.ms = NOON_MS + n
        data = change(pk, operation, collection)
        store.write("ada", devices[n % 2], [NewEntry(NOON + n * 1024, 0, data)])
    store.write("ada", devices[0], [NewEntry(NOON + 8 * 1024, 0, "sealed")])
    return store


def found(store: Store, count: int = 100, newest: bool = False, **wanted: Any) -> list[int]:
    page = store.find("ada", EntryFilter(**wanted), count=count, newest=newest)
    return [entry.seq for entry in page.entries]


def test_entries_come_in_the_order_of_the_log(filled: Store) -> None:
    assert found(filled) == list(range(1, 10))
    assert found(filled, count=3) == [1, 2, 3]
    assert found(filled, count=3, newest=True) == [7, 8, 9]


@pytest.mark.parametrize(
    ("wanted", "seqs"),
    [
        ({"collection": "note"}, [1, 2, 4, 5, 6, 7, 8]),
        ({"collection": "tag"}, [3]),
        ({"collection": "unknown"}, []),
        ({"collection": "note", "pk": "a"}, [1, 4, 8]),
        ({"collection": "note", "pk": ["a", 1]}, [5]),
        ({"collection": "note", "pk": 1}, [6]),
        ({"collection": "note", "pk": "1"}, [7]),
        ({"collection": "note", "pk": 1.0}, []),
        ({"collection": "note", "pk": True}, []),
        ({"operation": 1}, [4]),
        ({"operation": 2, "collection": "note", "pk": "a"}, [8]),
        ({"created_from": NOON_MS + 2, "created_until": NOON_MS + 4}, [3, 4]),
        ({"created_from": NOON_MS + 1.5}, [3, 4, 5, 6, 7, 8, 9]),
        ({"shared_from": NOON_MS + 2, "shared_until": NOON_MS + 4}, [3, 4]),
        ({"shared_from": NOON_MS + 7}, [8, 9]),
        ({"shared_until": NOON_MS + 0.5}, [1]),
        ({"shared_from": NOON_MS + 8}, []),
        ({"created_from": -1e308, "created_until": 1e308}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"shared_from": -1e308, "shared_until": 1e308}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_entries_can_be_filtered(filled: Store, wanted: dict[str, Any], seqs: list[int]) -> None:
    assert found(filled, **wanted) == seqs


def test_entries_can_be_filtered_by_device(filled: Store) -> None:
    even, odd = filled.devices("ada")
    assert found(filled, device=even.id) == [1, 3, 5, 7, 9]
    assert found(filled, device=odd.id, newest=True, count=2) == [6, 8]
    assert found(filled, device="nobody's") == []


def test_a_key_without_a_collection_is_refused(filled: Store) -> None:
    with pytest.raises(Refused) as caught:
        found(filled, pk="a")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_rows_history_is_told_apart_from_a_row_with_the_same_hash(store: Store) -> None:
    """Thirty-two bits collide: these two rows do."""
    device = store.create_device("ada")
    pks = colliding_pks()
    store.write("ada", device, [NewEntry(NOON + n, 0, change(pk)) for n, pk in enumerate(pks)])
    for pk in pks:
        assert texts(store.history("ada", "note", pk, 10)) == [change(pk)]


def colliding_pks() -> tuple[str, str]:
    from sharedlog_service.entries import row_hash, row_identity

    seen: dict[int, str] = {}
    for number in range(10**6):
        pk = f"{number * 0x9E3779B97F4A7C15 % 2**64:x}"
        found = row_hash(row_identity("note", pk))
        if found in seen:
            return seen[found], pk
        seen[found] = pk
    raise AssertionError("no collision among a million")


def test_a_rows_history_is_found_across_the_stretches_of_the_index(store: Store) -> None:
    device = store.create_device("ada")
    for start in range(0, 40_000, 10_000):
        pks: list[str | int] = ["mine", *range(9_999)]
        batch = [[NOON + start + n, 0, change(pk)] for n, pk in enumerate(pks)]
        store.write("ada", device, batch)
    written = [1, 10_001, 20_001, 30_001]
    found = store.history("ada", "note", "mine", 100)
    assert [entry.seq for entry in found.entries] == written
    newest = store.find("ada", EntryFilter(collection="note", pk="mine"), count=2, newest=True)
    assert [entry.seq for entry in newest.entries] == written[-2:]


def test_history_is_oldest_first_and_bounded(filled: Store) -> None:
    assert [e.seq for e in filled.history("ada", "note", "a", 100).entries] == [1, 4, 8]
    assert [e.seq for e in filled.history("ada", "note", "a", 2).entries] == [1, 4]


@pytest.mark.parametrize("pk", [{1, 2}, object()])
def test_what_cannot_be_a_key_is_refused(filled: Store, pk: object) -> None:
    with pytest.raises(Refused) as caught:
        filled.history("ada", "note", pk, 10)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_stats_count_by_collection_and_operation(filled: Store) -> None:
    stats = filled.stats("ada")
    assert stats.head.seq == 9
    assert stats.bytes == sum(
        len(text) for text in texts(filled.find("ada", EntryFilter(), count=9))
    )
    assert stats.devices == 2
    assert (stats.first_shared_on, stats.last_shared_on) == (NOON_MS, NOON_MS + 7)
    assert stats.collections == [
        CollectionStats("note", 5, 1, 1, NOON_MS + 7),
        CollectionStats("tag", 1, 0, 0, NOON_MS + 2),
    ]


def test_a_duplicate_is_not_counted_again(store: Store) -> None:
    device = store.create_device("ada")
    for _ in range(2):
        store.write("ada", device, entries(3))
    assert store.stats("ada").collections == [CollectionStats("note", 3, 0, 0, NOON_MS)]


def test_stats_of_an_empty_log(store: Store) -> None:
    stats = store.stats("ada")
    assert (stats.head.seq, stats.bytes, stats.first_shared_on) == (0, 0, None)
    assert (stats.last_shared_on, stats.collections) == (None, [])


CONNECTION = """
    query Find($first: Int, $after: String, $last: Int, $before: String, $filter: EntryFilter) {
      sharedSyncLog {
        entries(userId: "ada", first: $first, after: $after, last: $last, before: $before,
                filter: $filter) {
          edges { cursor node { position operation collection pk } }
          pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        }
      }
    }
"""


def connection(store: Store, **variables: Any) -> tuple[list[int], dict[str, Any]]:
    answer = InProcess(store, "ada").execute(CONNECTION, variables)
    assert "errors" not in answer, answer
    found = answer["data"]["sharedSyncLog"]["entries"]
    return [int(edge["node"]["position"]) for edge in found["edges"]], found["pageInfo"]


def test_a_connection_pages_forwards(filled: Store) -> None:
    seqs, info = connection(filled, first=4)
    assert (seqs, info["hasNextPage"], info["hasPreviousPage"]) == ([1, 2, 3, 4], True, False)
    seqs, info = connection(filled, first=5, after=info["endCursor"])
    assert (seqs, info["hasNextPage"], info["hasPreviousPage"]) == ([5, 6, 7, 8, 9], False, True)
    seqs, info = connection(filled, first=5, after=info["endCursor"])
    assert (seqs, info["startCursor"], info["endCursor"]) == ([], None, None)


def test_a_connection_pages_backwards(filled: Store) -> None:
    seqs, info = connection(filled, last=4)
    assert (seqs, info["hasNextPage"], info["hasPreviousPage"]) == ([6, 7, 8, 9], False, True)
    seqs, info = connection(filled, last=9, before=info["startCursor"])
    assert (seqs, info["hasNextPage"], info["hasPreviousPage"]) == ([1, 2, 3, 4, 5], True, False)


def test_a_connection_filters(filled: Store) -> None:
    seqs, _ = connection(filled, filter={"collection": "note", "pk": ["a", 1]})
    assert seqs == [5]
    seqs, _ = connection(filled, filter={"operation": "MODIFY"})
    assert seqs == [4]
    seqs, _ = connection(filled, filter={"sharedFrom": NOON_MS + 6}, first=2)
    assert seqs == [7, 8]


@pytest.mark.parametrize(
    "variables",
    [{"first": 0}, {"first": -1}, {"last": 0}, {"first": 1001}, {"first": 1, "last": 1}],
)
def test_a_connection_is_bounded(filled: Store, variables: dict[str, int]) -> None:
    text = """query($first: Int, $last: Int) { sharedSyncLog {
        entries(userId: "ada", first: $first, last: $last) { pageInfo { endCursor } } } }"""
    answer = InProcess(filled, "ada").execute(text, variables)
    assert answer["errors"][0]["extensions"]["code"] == "INVALID_ARGUMENT"


LONG = 100_000
"""Ten of them are a page for people."""


@pytest.fixture
def large(store: Store) -> Store:
    """25 long entries about one row, whose data take two bytes a character."""
    device = store.create_device("ada")
    for n in range(25):
        data = change("a", "modify").replace('"value": null', f'"value": "{"é" * (LONG // 2)}"')
        store.write("ada", device, [NewEntry(NOON + n, 0, data)])
    return store


def pages_of(store: Store, forwards: bool, most: int) -> list[list[int]]:
    """Read a connection to its end, page by page, as Relay does."""
    count, beyond, cursor, end, before = (
        ("first", "hasNextPage", "after", "endCursor", "hasPreviousPage")
        if forwards
        else ("last", "hasPreviousPage", "before", "startCursor", "hasNextPage")
    )
    pages: list[list[int]] = []
    info: dict[str, Any] = {beyond: True, end: None}
    while info[beyond]:
        seqs, info = connection(store, **{count: most, cursor: info[end]})
        assert info[before] is bool(pages)
        pages.append(seqs)
    return pages


def test_a_connection_ends_a_page_before_it_gets_too_long(large: Store) -> None:
    assert pages_of(large, True, 300) == [[*range(1, 11)], [*range(11, 21)], [*range(21, 26)]]
    assert pages_of(large, False, 300) == [[*range(16, 26)], [*range(6, 16)], [*range(1, 6)]]
    assert pages_of(large, True, 7)[0] == [*range(1, 8)]


def test_a_page_for_people_has_one_entry_at_least(open_store: OpenStore, large: Store) -> None:
    narrow = open_store(Limits(people_bytes=LONG // 2, page_bytes=LONG // 2))
    assert pages_of(narrow, True, 300) == [[n] for n in range(1, 26)]
    assert pages_of(narrow, False, 300) == [[n] for n in range(25, 0, -1)]
    assert positions(narrow) == [1]


HISTORY = """
    query History($after: String) { sharedSyncLog {
        history(userId: "ada", collection: "note", pk: "a", first: 500, after: $after) {
            position cursor
        }
    } }
"""


def positions(store: Store, after: str | None = None) -> list[int]:
    answer = InProcess(store, "ada").execute(HISTORY, {"after": after})
    return [int(entry["position"]) for entry in answer["data"]["sharedSyncLog"]["history"]]


def test_a_history_ends_before_it_gets_too_long_and_goes_on_from_there(
    open_store: OpenStore, large: Store
) -> None:
    assert positions(large) == [*range(1, 26)]
    narrow = open_store(Limits(page_bytes=10 * LONG + 5_000))
    assert positions(narrow) == [*range(1, 11)]
    tenth = narrow.find("ada", EntryFilter(), count=10).cursor
    assert positions(narrow, str(tenth)) == [*range(11, 21)]
    # Who asks the store itself says by how much it is bounded.
    assert len(narrow.history("ada", "note", "a", 25).rows) == 25


def test_a_connection_refuses_a_foreign_cursor(filled: Store) -> None:
    filled.create_user("bob")
    foreign = str(filled.stats("bob").head)
    answer = InProcess(filled, "ada").execute(CONNECTION, {"after": foreign})
    assert answer["errors"][0]["extensions"]["code"] == "EPOCH_CHANGED"
