"""What must be right before anything is recorded or exchanged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.cockroachdb import CockroachDatabase
from playhouse.migrate import SqliteMigrator, migrate

from sharedlog import (
    AutoIncrementKey,
    ConfigurationError,
    MemorySharedLog,
    Sync,
    SyncModel,
    ValueRefused,
)
from sharedlog.remote.transports import HttpTransport


class Note(SyncModel):
    title = peewee.TextField()


class NoteWithStars(SyncModel):
    title = peewee.TextField()
    stars = peewee.IntegerField(null=True)

    class Meta:
        table_name = "note"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[peewee.SqliteDatabase]:
    database = peewee.SqliteDatabase(str(tmp_path / "app.db"), pragmas={"journal_mode": "wal"})
    with database.bind_ctx([Note, NoteWithStars]):
        yield database
    database.close()


def new_sync(database: Any, models: Any, **options: Any) -> Sync:
    options.setdefault("shared_log", MemorySharedLog())
    return Sync(database, models, **options)


@pytest.mark.parametrize("models", [Note, "note", ["note"], [], None, [object]])
def test_models_are_a_list_of_models(database: peewee.SqliteDatabase, models: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\[Note, Tag\]"):
        new_sync(database, models)


@pytest.mark.parametrize("database", [None, "app.db", CockroachDatabase("app")])
def test_databases_that_cannot_be_synced_are_refused(database: Any) -> None:
    with pytest.raises(ConfigurationError, match="SqliteDatabase"):
        new_sync(database, [Note])


def test_a_driver_that_converts_what_it_reads_is_refused() -> None:
    database = peewee.SqliteDatabase("app.db", detect_types=sqlite3.PARSE_DECLTYPES)
    with pytest.raises(ConfigurationError, match="detect_types"):
        new_sync(database, [Note])


@pytest.mark.parametrize("bound", [0, -1, "5", 1.5, True])
def test_bounds_are_positive(database: peewee.SqliteDatabase, bound: Any) -> None:
    with pytest.raises(ConfigurationError, match="batch_size"):
        new_sync(database, [Note], batch_size=bound)
    with pytest.raises(ConfigurationError, match="byte_limit"):
        new_sync(database, [Note], byte_limit=bound)


def test_a_table_that_numbers_its_rows_is_refused(database: peewee.SqliteDatabase) -> None:
    """Only the base class was changed; the table is as it was."""
    database.execute_sql("CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, title TEXT)")
    with pytest.raises(AutoIncrementKey, match="still numbers its rows"):
        new_sync(database, [Note]).setup()
    assert "sharedlog_entry" not in database.get_tables()


def test_missing_tables_and_columns_are_named(database: peewee.SqliteDatabase) -> None:
    sync = new_sync(database, [NoteWithStars]).setup()
    with pytest.raises(ConfigurationError, match="create_tables"):
        sync.sync()
    database.create_tables([Note])
    with pytest.raises(ConfigurationError, match="'stars'"):
        sync.sync()
    sync.close()


def test_setup_inside_a_transaction_is_refused(database: peewee.SqliteDatabase) -> None:
    database.create_tables([Note])
    with database.atomic(), pytest.raises(ConfigurationError, match=r"setup\(\)"):
        new_sync(database, [Note]).setup()


def test_a_change_that_no_service_takes_is_refused_when_written(
    database: peewee.SqliteDatabase,
) -> None:
    database.create_tables([Note])
    with new_sync(database, [Note]) as sync:
        Note.create(title="x" * 499_000)
        for large in ("x" * 500_001, "ß" * 250_001):
            with pytest.raises(ValueRefused, match="bytes"):
                Note.create(title=large)
        assert (Note.select().count(), sync.status().pending) == (1, 1)
        assert sync.sync().refused == 0


def test_a_device_that_learns_a_field_gets_the_values_it_kept(
    database: peewee.SqliteDatabase, tmp_path: Path
) -> None:
    log = MemorySharedLog()
    newer = peewee.SqliteDatabase(str(tmp_path / "newer.db"))
    with newer.bind_ctx([NoteWithStars]):
        newer.create_tables([NoteWithStars])
        with new_sync(newer, [NoteWithStars], shared_log=log) as sync:
            NoteWithStars.create(title="a", stars=5)
            NoteWithStars.create(title="b", stars=1).delete_instance()
            sync.sync()
    newer.close()

    database.create_tables([Note])
    with new_sync(database, [Note], shared_log=log) as sync:
        sync.sync()
        assert [note.title for note in Note.select()] == ["a"]

    migrate(SqliteMigrator(database).add_column("note", "stars", NoteWithStars.stars))
    for _ in range(2):  # once is enough, twice is no harm
        with new_sync(database, [NoteWithStars], shared_log=log) as sync:
            sync.sync()
            [note] = NoteWithStars.select()
            assert (note.title, note.stars) == ("a", 5)
    assert database.execute_sql("SELECT held FROM sharedlog_row WHERE born > 0").fetchall() == [
        (None,)
    ]


@pytest.mark.parametrize("token", ["slog_secret\n", " slog_secret"])
def test_white_space_around_a_token_is_nothing(token: str) -> None:
    transport = HttpTransport("http://127.0.0.1:1/graphql", token)
    assert transport._headers["Authorization"] == "Bearer slog_secret"


@pytest.mark.parametrize("token", ["slog_sec\nret", "slog_secret é", "slog sec"])
def test_what_cannot_be_a_token_is_refused_without_telling_it(token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpTransport("http://127.0.0.1:1/graphql", token)
    assert token not in str(refused.value)
