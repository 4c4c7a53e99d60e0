"""What the log leaves out of plain data comes back to the letter."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sharedlog_service.entries import NewEntry
from sharedlog_service.store.store import Store
from tests.service.support import NOON, flat, read_all, texts

START = '{"operation":"create","collection":"note","pk":'
REST = ',"field":null,"value":{"text":"x"}}'


def kept(store: Store) -> str:
    with store._database.snapshot() as db:
        text: str = db.scalar("SELECT data FROM entries ORDER BY id DESC LIMIT 1")
        return text


@pytest.mark.parametrize("pk", ['"a"', "7", "-7", "1.5", "true", "false", '["a",1]', '"{"', '" "'])
def test_the_usual_beginning_is_left_out_and_put_back(store: Store, pk: str) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    data = START + pk + REST
    store.write("ada", writer, [NewEntry(NOON, 0, data)])
    assert kept(store) == pk + REST
    assert flat(read_all(store, "ada", reader)) == [data]
    assert texts(store.history("ada", "note", orjson.loads(pk), 10)) == [data]


@pytest.mark.parametrize(
    "data",
    [
        START + ' "a"' + REST,
        START + '\n"a"' + REST,
        " " + START + '"a"' + REST,
        START + '{"a":1},"pk":"a"' + REST,
        START.replace(":", ": ") + '"a"' + REST,
        START.replace("note", "n\\u006fte") + '"a"' + REST,
        '{"collection":"note","operation":"create","pk":"a"' + REST,
        START + '"a"',
        START,
        START + START,
        '"sealed"',
        "7",
        "sealed",
        "{",
        " ",
        "{}",
        "[" + START + '"a"' + REST + "]",
    ],
)
def test_whatever_begins_otherwise_is_kept_as_it_is(store: Store, data: str) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    store.write("ada", writer, [NewEntry(NOON, 0, data)])
    assert kept(store) == data
    assert flat(read_all(store, "ada", reader)) == [data]


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(
    collection=st.text(min_size=1, max_size=9),
    operation=st.sampled_from(["create", "modify", "delete", "other"]),
    pk=st.one_of(
        st.text(max_size=9), st.integers(-9, 9), st.booleans(), st.lists(st.integers(-9, 9))
    ),
    gap=st.sampled_from(["", " ", "\t", "\n"]),
    end=st.text(max_size=3),
)
def test_any_text_comes_back(
    store: Store, collection: str, operation: str, pk: object, gap: str, end: str
) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    name, key = orjson.dumps(collection).decode(), orjson.dumps(pk).decode()
    start = f'{{"operation":"{operation}","collection":{name},"pk":'
    data = (start + gap + key + REST + end).replace("\0", "")
    after = store.read("ada", reader, None, limit=10_000).cursor
    store.write("ada", writer, [NewEntry(NOON, 0, data)])
    assert texts(store.read("ada", reader, after)) == [data]


def test_sent_again_it_is_a_duplicate_and_another_content_is_not(store: Store) -> None:
    device = store.create_device("ada")
    data = START + '"a"' + REST
    store.write("ada", device, [NewEntry(NOON, 0, data)])
    again = store.write("ada", device, [NewEntry(NOON, 0, data)])
    assert (again.accepted, len(again.duplicates)) == (0, 1)
    other = store.write("ada", device, [NewEntry(NOON, 0, '"a"' + REST)])
    assert [rejection.code.name for rejection in other.rejections] == ["DEVICE_CLONED"]


def test_collections_are_told_apart_on_one_page(store: Store) -> None:
    writer, reader = store.create_device("ada"), store.create_device("ada")
    written = [
        START.replace("note", name).replace("create", operation) + f"{number}" + REST
        for number, (name, operation) in enumerate(
            (name, operation)
            for name in ("note", "tag", "café")
            for operation in ("create", "modify")
        )
    ]
    batch = [NewEntry(NOON + n, 0, data) for n, data in enumerate([*written, "sealed"])]
    store.write("ada", writer, batch)
    assert flat(read_all(store, "ada", reader, limit=2)) == [*written, "sealed"]
