"""Stages that run alone, and what they keep in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.remote.sharedlog import Outgoing


class Note(SyncModel):
    title = peewee.TextField()


GOOD = '{"operation":"create","collection":"note","pk":"%s","field":null,"value":{"title":"x"}}'
KEYS = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002")


def write(log: MemorySharedLog, *data: str) -> None:
    device = log.register("other", "other")
    entries = [Outgoing(number, 0, text) for number, text in enumerate(data, start=1024)]
    log.write(device, entries, after=None, now_ms=0, limit=10, byte_limit=10_000)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[peewee.SqliteDatabase]:
    database = peewee.SqliteDatabase(str(tmp_path / "app.db"), pragmas={"journal_mode": "wal"})
    with database.bind_ctx([Note]):
        database.create_tables([Note])
        yield database
    database.close()


def test_receive_keeps_and_reconcile_applies(database: peewee.SqliteDatabase) -> None:
    log = MemorySharedLog()
    write(log, *(GOOD % key for key in KEYS))
    sync = Sync(database, [Note], shared_log=log).setup()

    assert sync.receive().received == 2
    assert Note.select().count() == 0
    assert sync.reconcile().created == 2
    assert Note.select().count() == 2
    assert sync.reconcile().created == 0
    sync.close()


def test_an_unreadable_entry_survives_reconcile(database: peewee.SqliteDatabase) -> None:
    """It was dropped with the entries that were applied."""
    log = MemorySharedLog()
    write(log, GOOD % KEYS[0], "not json", GOOD % KEYS[1])
    sync = Sync(database, [Note], shared_log=log).setup()

    sync.receive()
    result = sync.reconcile()

    assert (result.created, result.unreadable) == (2, 1)
    assert sync.status().unreadable == 1
    assert [entry.data for entry, _ in sync.inbox.unreadable()] == ["not json"]
    sync.close()


def test_a_newer_program_tries_unreadable_entries_again(database: peewee.SqliteDatabase) -> None:
    log = MemorySharedLog()
    write(log, "future format")
    old = Sync(database, [Note], shared_log=log).setup()
    old.sync()
    old.close()

    class Newer:
        def encode(self, change: object) -> str:
            raise NotImplementedError

        def decode(self, data: str) -> object:
            from sharedlog.changes import decode

            return decode(GOOD % KEYS[0])

    new = Sync(database, [Note], shared_log=log, serializer=Newer()).setup()  # type: ignore[arg-type]
    new.sync()

    assert Note.get().title == "x"
    assert new.status().unreadable == 0
    new.close()


def test_reconcile_applies_a_transaction_of_others_at_once(
    database: peewee.SqliteDatabase,
) -> None:
    """Whatever the batch size: readers never see half of it."""
    log = MemorySharedLog()
    device = log.register("other", "other")
    group = [Outgoing(2048 + offset, offset, GOOD % key) for offset, key in enumerate(KEYS)]
    log.write(device, group, after=None, now_ms=0, limit=10, byte_limit=10_000)
    sync = Sync(database, [Note], shared_log=log, batch_size=1).setup()
    sync.receive()
    seen = []
    sync.on_event(lambda event: seen.append(Note.select().count()))
    sync.reconcile()
    assert set(seen) == {0, 2}
    assert sync.status().unreadable == 0
    sync.close()
