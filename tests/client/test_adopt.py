"""Rows that nobody recorded come into the log, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import peewee
import pytest

from sharedlog import Adopted, MemorySharedLog, Sync, SyncModel


class Owner(SyncModel):
    name = peewee.CharField(primary_key=True)


class Item(SyncModel):
    owner = peewee.ForeignKeyField(Owner, null=True)
    place = peewee.IntegerField()
    weight = peewee.FloatField(null=True)

    class Meta:
        primary_key = peewee.CompositeKey("owner", "place")


MODELS = [Owner, Item]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[peewee.SqliteDatabase]:
    path = str(tmp_path / "app.db")
    database = peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal", "foreign_keys": 1})
    with database.bind_ctx(MODELS):
        database.create_tables(MODELS)
        yield database
    database.close()


def fill(count: int) -> None:
    Owner.create(name="ann")
    Item.insert_many([{"owner": "ann", "place": place} for place in range(count)]).execute()


def synced_elsewhere(tmp_path: Path, log: MemorySharedLog) -> list[tuple[object, ...]]:
    """What another device has after a sync."""
    other = peewee.SqliteDatabase(str(tmp_path / "other.db"), pragmas={"foreign_keys": 1})
    with other.bind_ctx(MODELS):
        other.create_tables(MODELS, safe=True)
        with Sync(other, MODELS, shared_log=log) as sync:
            sync.sync()
    rows = other.execute_sql("SELECT * FROM item ORDER BY owner_id, place").fetchall()
    other.close()
    return list(rows)


def test_rows_from_before_tracking_reach_other_devices(
    database: peewee.SqliteDatabase, tmp_path: Path
) -> None:
    fill(1_200)
    log = MemorySharedLog()
    with Sync(database, MODELS, shared_log=log) as sync:
        seen: list[int] = []
        adopted = sync.adopt(lambda so_far: seen.append(so_far.created))
        assert adopted == Adopted(created=1_201)
        assert len(seen) > 3 and seen == sorted(seen)
        sync.sync()
    here = database.execute_sql("SELECT * FROM item ORDER BY owner_id, place").fetchall()
    assert synced_elsewhere(tmp_path, log) == here


def test_twice_is_once_and_recorded_rows_are_left_alone(database: peewee.SqliteDatabase) -> None:
    fill(3)
    with Sync(database, MODELS, shared_log=MemorySharedLog()) as sync:
        Owner.create(name="bob")
        assert sync.adopt() == Adopted(created=4, unchanged=1)
        assert sync.adopt() == Adopted(unchanged=5)
        Item.update(weight=1.5).execute()
        assert sync.adopt() == Adopted(unchanged=5)


def test_interrupted_goes_on(database: peewee.SqliteDatabase) -> None:
    fill(1_200)

    def interrupt(so_far: Adopted) -> None:
        if so_far.created > 500:
            raise KeyboardInterrupt

    with Sync(database, MODELS, shared_log=MemorySharedLog()) as sync:
        with pytest.raises(KeyboardInterrupt):
            sync.adopt(interrupt)
        again = sync.adopt()
        assert again.unchanged > 500
        assert again.created + again.unchanged == 1_201


def test_what_was_done_behind_the_recorders_back(
    database: peewee.SqliteDatabase, tmp_path: Path
) -> None:
    fill(3)
    log = MemorySharedLog()
    with Sync(database, MODELS, shared_log=log) as sync:
        sync.adopt()
        sync.sync()
        assert len(synced_elsewhere(tmp_path, log)) == 3
        database.execute_sql("DELETE FROM item WHERE place = 1")
        database.execute_sql("INSERT INTO item VALUES ('ann', 7, 0.5)")
        assert sync.adopt() == Adopted(created=1, deleted=1, unchanged=3)
        sync.sync()
    assert synced_elsewhere(tmp_path, log) == [("ann", 0, None), ("ann", 2, None), ("ann", 7, 0.5)]


def test_a_row_that_cannot_be_carried_is_told_and_blocks_nobody(
    database: peewee.SqliteDatabase,
) -> None:
    fill(2)
    database.execute_sql("INSERT INTO item VALUES ('ann', 9, CAST(x'ff' AS TEXT))")
    with Sync(database, MODELS, shared_log=MemorySharedLog()) as sync:
        database.connection().text_factory = lambda raw: raw.decode(errors="surrogateescape")
        adopted = sync.adopt()
        assert adopted.created == 3
        [(collection, pk, reason)] = adopted.refused
        assert (collection, pk) == ("item", ["ann", 9])
        assert "weight" in reason
