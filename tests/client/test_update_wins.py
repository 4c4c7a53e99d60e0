"""Rows that were changed after somebody deleted them, where changes win: they stand as soon as
they can, in whatever order everything comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import permutations
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.changes import CREATE, DELETE, MODIFY, Change, encode
from sharedlog.events import RowKept, RowParked
from sharedlog.remote.sharedlog import Outgoing

ORDERS = 40

Written = tuple[str, str, str, dict[str, Any] | None]
"""An operation, a collection, a pk and values."""

BORN: Sequence[Written] = (
    (CREATE, "draft", "d", {"folder": "f", "slot": 1, "text": ""}),
    (DELETE, "draft", "d", None),
    (MODIFY, "draft", "d", {"text": "new"}),
)


def push(log: Any, number: int, written: Written) -> None:
    """Write a change as a device of its own, at a time that follows from the number."""
    device = log.register(None, f"device{number}")
    outgoing = Outgoing(number + 1, 0, encode(Change(*written)))
    log.write(device, [outgoing], after=None, now_ms=0, limit=1, byte_limit=1)


@contextmanager
def reader(
    written: Sequence[Written], order: Sequence[int], on_delete: str
) -> Iterator[tuple[Sync, Any]]:
    """A device that has read these changes, each made after the one before it, one by one in this
    order; and its drafts."""
    database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})

    class Folder(SyncModel):
        code: Any = peewee.TextField(primary_key=True)

        class Meta:
            table_name = "folder"

    class Draft(SyncModel):
        code: Any = peewee.TextField(primary_key=True)
        folder = peewee.ForeignKeyField(Folder, null=True, on_delete=on_delete)
        slot = peewee.IntegerField(null=True, unique=True)
        text = peewee.TextField()

        class Meta:
            table_name = "draft"
            update_wins = True

    models = [Folder, Draft]
    database.bind(models)
    database.create_tables(models)
    log = MemorySharedLog()
    for number in order:
        push(log, number, written[number])
    with closing(database):
        sync = Sync(database, models, shared_log=log, batch_size=1).setup()
        sync.sync()
        yield sync, Draft


def some_orders(written: Sequence[Written]) -> list[tuple[int, ...]]:
    orders = list(permutations(range(len(written))))
    return Random(1).sample(orders, min(ORDERS, len(orders)))


@pytest.mark.parametrize("on_delete", ["CASCADE", "RESTRICT"])
@pytest.mark.parametrize(
    "others",
    [
        pytest.param([(CREATE, "folder", "f", {})], id="its parent is missing for a while"),
        pytest.param(
            [
                (CREATE, "folder", "f", {}),
                (DELETE, "folder", "f", None),
                (CREATE, "folder", "f", {}),
            ],
            id="its parent was deleted for a while",
        ),
        pytest.param(
            [
                (CREATE, "draft", "older", {"folder": None, "slot": 1, "text": ""}),
                (CREATE, "folder", "f", {}),
                (DELETE, "draft", "older", None),
            ],
            id="another one has its value for a while",
        ),
    ],
)
def test_it_stands_in_the_end_whatever_came_first(others: list[Written], on_delete: str) -> None:
    written = [*others[:-1], *BORN, others[-1]]
    for order in some_orders(written):
        with reader(written, order, on_delete) as (_, draft):
            assert list(draft.select().tuples()) == [("d", "f", 1, "new")], order


WAITING = [
    pytest.param(BORN, "PARENT_MISSING", id="its parent is missing"),
    pytest.param(
        [(CREATE, "folder", "f", {}), *BORN, (DELETE, "folder", "f", None)],
        "PARENT_DELETED",
        id="its parent was deleted",
    ),
    pytest.param(
        [
            (CREATE, "folder", "f", {}),
            *BORN[:2],
            (CREATE, "draft", "other", {"folder": None, "slot": 1, "text": ""}),
            BORN[2],
        ],
        "UNIQUE",
        id="another one has its value",
    ),
]


@pytest.mark.parametrize(("written", "code"), WAITING)
def test_it_is_parked_while_it_waits(written: list[Written], code: str) -> None:
    for order in some_orders(written):
        with reader(written, order, "CASCADE") as (sync, _):
            [row] = sync.parked()
            assert (row.collection, row.pk, row.code) == ("draft", "d", code), order
            assert row.values == {"folder": "f", "slot": 1, "text": "new"}
            assert sync.status().parked == sync.digest().collections["draft"].parked == 1
            assert sync.verify().equal
            assert sync.adopt().deleted == 0
            assert sync.status().pending == 0


def test_that_is_told_once_and_so_is_that_it_stands() -> None:
    with reader(BORN[:2], range(2), "CASCADE") as (sync, draft):
        events: list[Any] = []
        sync.on_event(
            lambda event: events.append(event) if isinstance(event, RowParked | RowKept) else None
        )
        later = sync.shared_log
        push(later, 9, BORN[2])
        for _ in range(2):
            sync.sync()
        [parked] = sync.parked()
        assert events == [RowParked(parked)]
        push(later, 10, (CREATE, "folder", "f", {}))
        sync.sync()
        assert events[1:] == [RowKept("draft", "d")]
        assert sync.parked() == []
        assert draft.get_by_id("d").text == "new"


def test_the_application_may_let_it_stand_or_go() -> None:
    with reader(BORN, range(len(BORN)), "CASCADE") as (sync, draft):
        sync.resolve(sync.parked()[0], folder=None)
        assert list(draft.select().tuples()) == [("d", None, 1, "new")]
        sync.sync()
        assert sync.verify().equal
    with reader(BORN, range(len(BORN)), "CASCADE") as (sync, draft):
        sync.discard(sync.parked()[0])
        assert sync.parked() == [] == list(draft.select())
        sync.sync()
        assert sync.verify().equal
