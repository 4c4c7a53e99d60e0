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
from sharedlog.remote.sharedlog import Outgoing

ORDERS = 40

Written = tuple[str, str, str, dict[str, Any] | None]
"""An operation, a collection, a pk and values."""

BORN: Sequence[Written] = (
    (CREATE, "draft", "d", {"folder": "f", "slot": 1, "text": ""}),
    (DELETE, "draft", "d", None),
    (MODIFY, "draft", "d", {"text": "new"}),
)


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
        operation, collection, pk, value = written[number]
        device = log.register(None, f"device{number}")
        data = encode(Change(operation, collection, pk, value))
        log.write(
            device, [Outgoing(number + 1, 0, data)], after=None, now_ms=0, limit=1, byte_limit=1
        )
    with closing(database):
        sync = Sync(database, models, shared_log=log, batch_size=1).setup()
        sync.sync()
        yield sync, Draft


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
    orders = list(permutations(range(len(written))))
    for order in Random(1).sample(orders, min(ORDERS, len(orders))):
        with reader(written, order, on_delete) as (_, draft):
            assert list(draft.select().tuples()) == [("d", "f", 1, "new")], order


def test_it_is_not_taken_for_deleted_while_it_waits() -> None:
    with reader(BORN, range(len(BORN)), "CASCADE") as (sync, draft):
        assert list(draft.select()) == []
        assert sync.adopt().deleted == 0
        assert sync.status().pending == 0
