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


class OldItem(SyncModel):
    name = peewee.CharField(primary_key=True)

    class Meta:
        table_name = "thing"


class NewItem(SyncModel):
    name = peewee.CharField(primary_key=True)
    price = peewee.IntegerField(default=0)

    class Meta:
        table_name = "thing"


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


def test_values_that_no_entry_ever_wrote(database: peewee.SqliteDatabase, tmp_path: Path) -> None:
    """A migration added a column and filled it: nobody recorded that."""
    log = MemorySharedLog()
    with database.bind_ctx([OldItem]), Sync(database, [OldItem], shared_log=log) as sync:
        database.create_tables([OldItem])
        OldItem.insert_many([{"name": name} for name in "abc"]).execute()
        sync.sync()
    database.execute_sql("ALTER TABLE thing ADD COLUMN price INTEGER DEFAULT 0")
    database.execute_sql("UPDATE thing SET price = 7 WHERE name = 'b'")
    with database.bind_ctx([NewItem]), Sync(database, [NewItem], shared_log=log) as sync:
        assert sync.adopt() == Adopted(modified=1, unchanged=2)
        assert sync.adopt() == Adopted(unchanged=3)
        sync.sync()
        assert sync.verify().equal
    other = peewee.SqliteDatabase(str(tmp_path / "other.db"))
    with other.bind_ctx([NewItem]):
        other.create_tables([NewItem])
        with Sync(other, [NewItem], shared_log=log) as sync:
            sync.sync()
        assert [(t.name, t.price) for t in NewItem.select()] == [("a", 0), ("b", 7), ("c", 0)]
    other.close()


def test_changed_values_are_found_by_reading_the_log(
    database: peewee.SqliteDatabase, tmp_path: Path
) -> None:
    fill(1_200)
    log = MemorySharedLog()
    with Sync(database, MODELS, shared_log=log) as sync:
        sync.adopt()
        sync.sync()
        sync.prune(keep_ms=0)
        Item.update(weight=4).where(Item.place == 3).execute()  # recorded, and not sent yet
        database.execute_sql("UPDATE item SET weight = 0.5 WHERE place IN (1, 700)")
        database.execute_sql("DELETE FROM item WHERE place = 2")
        assert sync.adopt() == Adopted(deleted=1, unchanged=1_200)
        pending = sync.status().pending
        seen: list[int] = []
        adopted = sync.adopt(lambda so_far: seen.append(so_far.modified), values=True)
        assert adopted == Adopted(modified=2, unchanged=1_198)
        assert sync.status().pending == pending + 2
        assert seen[-1] == 2
        assert sync.adopt(values=True) == Adopted(unchanged=1_200)
        sync.sync()
        assert sync.verify().equal
    here = database.execute_sql("SELECT * FROM item ORDER BY owner_id, place").fetchall()
    assert ("ann", 700, 0.5) in here
    assert synced_elsewhere(tmp_path, log) == here


def test_changed_values_are_recorded_as_of_now(
    database: peewee.SqliteDatabase, tmp_path: Path
) -> None:
    """They win over what others wrote before, and only the changed fields do."""
    fill(1)
    log = MemorySharedLog()
    with Sync(database, MODELS, shared_log=log) as sync:
        sync.adopt()
        sync.sync()
        database.execute_sql("UPDATE item SET weight = 0.5")
        sync.adopt(values=True)
        [entry] = database.execute_sql(
            "SELECT operation, pk, value FROM sharedlog_entry WHERE status = 0"
        ).fetchall()
        assert entry == (1, '["ann",0]', '{"weight":0.5}')


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
