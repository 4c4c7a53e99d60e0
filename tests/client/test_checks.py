"""What must be right before anything is recorded or exchanged."""

from __future__ import annotations

import sqlite3
import uuid
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
    MissingToken,
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


def test_models_that_write_elsewhere_are_refused(database: peewee.SqliteDatabase) -> None:
    """Everything would be written, and nothing recorded."""
    proxy = peewee.DatabaseProxy()
    proxy.initialize(database)
    for capture in ("signals", "triggers"):
        for given in (":memory:", database.database + "2"):
            other = peewee.SqliteDatabase(given)
            with pytest.raises(ConfigurationError, match=r"database\.bind\(\[Note, …\]\)"):
                new_sync(other, [Note], capture=capture).setup()
            with Note.bind_ctx(proxy), pytest.raises(ConfigurationError, match="another database"):
                new_sync(other, [Note], capture=capture).setup()
            assert other.get_tables() == []
            other.close()


def test_models_may_be_bound_later_or_by_a_proxy(database: peewee.SqliteDatabase) -> None:
    database.create_tables([Note])
    proxy = peewee.DatabaseProxy()
    other = peewee.SqliteDatabase(":memory:")
    for before in (None, proxy):
        with Note.bind_ctx(before):
            new_sync(database, [Note]).setup().close()
    with Note.bind_ctx(other):
        sync = new_sync(database, [Note])
    proxy.initialize(database)
    with Note.bind_ctx(proxy), sync:
        Note.create(title="a")
        assert sync.sync().sent == 1


class Country(peewee.Model):
    """A table that the application ships."""

    code = peewee.CharField(primary_key=True)


class Coin(peewee.Model):
    id = peewee.UUIDField(primary_key=True, default=uuid.uuid4)


class City(SyncModel):
    country = peewee.ForeignKeyField(Country, null=True)
    chief = peewee.ForeignKeyField("self", null=True)


class Shop(SyncModel):
    city = peewee.ForeignKeyField(City, null=True)
    coin = peewee.ForeignKeyField(Coin, null=True)


def test_references_to_rows_that_nobody_brings_are_warned_of(
    database: peewee.SqliteDatabase,
) -> None:
    with database.bind_ctx([Country, Coin, City, Shop]):
        database.create_tables([Country, Coin, City, Shop])
        with pytest.warns(UserWarning) as found:
            new_sync(database, [Shop]).setup().close()
    texts = [str(warning.message) for warning in found]
    assert [text.split(":")[0] for text in texts] == [
        "Shop.city refers to City, which is not given to Sync",
        "Shop.coin refers to Coin, which is not given to Sync",
    ]
    assert {warning.filename for warning in found} == {__file__}


def test_tracked_rows_may_refer_to_what_the_application_ships(tmp_path: Path) -> None:
    log = MemorySharedLog()
    for number in range(2):
        device = peewee.SqliteDatabase(str(tmp_path / f"{number}.db"), pragmas={"foreign_keys": 1})
        with device.bind_ctx([Country, City]):
            device.create_tables([Country, City])
            Country.insert(code="AT").execute()
            with new_sync(device, [City], shared_log=log) as sync:  # a warning is an error here
                City.create(country="AT")
                sync.sync()
                assert City.select().where(City.country == "AT").count() == number + 1
        device.close()


def test_triggers_record_what_another_connection_to_the_file_writes(
    database: peewee.SqliteDatabase,
) -> None:
    database.create_tables([Note])
    own = peewee.SqliteDatabase(database.database)
    with pytest.raises(ConfigurationError, match="another database"):
        new_sync(own, [Note]).setup()
    with new_sync(own, [Note], capture="triggers") as sync:
        Note.create(title="a")
        assert sync.sync().sent == 1
    own.close()


@pytest.mark.parametrize("bound", [0, -1, "5", 1.5, True])
def test_bounds_are_positive(database: peewee.SqliteDatabase, bound: Any) -> None:
    with pytest.raises(ConfigurationError, match="batch_size"):
        new_sync(database, [Note], batch_size=bound)
    with pytest.raises(ConfigurationError, match="byte_limit"):
        new_sync(database, [Note], byte_limit=bound)


@pytest.mark.parametrize("name", ["x" * 201, "a\0", "\udcff", 7, b"desk"])
def test_a_name_that_no_service_takes_is_refused(
    database: peewee.SqliteDatabase, name: Any
) -> None:
    with pytest.raises(ConfigurationError, match="200 characters at most"):
        new_sync(database, [Note], device_name=name)
    new_sync(database, [Note], device_name="x" * 200)


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


@pytest.mark.parametrize("token", [None, ""])
def test_a_service_needs_a_token_or_a_user(database: peewee.SqliteDatabase, token: Any) -> None:
    with pytest.raises(MissingToken, match="No token is given"):
        Sync(database, [Note], url="http://127.0.0.1:1/graphql", token=token)
    Sync(database, [Note], url="http://127.0.0.1:1/graphql", token=token, user="ada")


@pytest.mark.parametrize("user", ["\udcff", b"ada", 5])
def test_a_user_is_a_text(database: peewee.SqliteDatabase, user: Any) -> None:
    with pytest.raises(ConfigurationError, match="user is"):
        Sync(database, [Note], url="http://127.0.0.1:1/graphql", user=user)


def test_a_trigger_that_ends_transactions_is_refused(database: peewee.SqliteDatabase) -> None:
    """What others write would end each exchange in its midst, for good."""
    database.create_tables([Note])
    database.execute_sql(
        "CREATE TRIGGER strict BEFORE INSERT ON note WHEN NEW.title = '' "
        "BEGIN SELECT raise ( rollback, 'no title'); END"
    )
    with pytest.raises(ConfigurationError, match="strict") as refused:
        new_sync(database, [Note]).setup()
    assert "RAISE(ABORT" in str(refused.value)


@pytest.mark.parametrize(
    "said",
    [
        "title TEXT NOT NULL unique on/**/conflict Replace",
        "title TEXT NOT NULL, UNIQUE (title) ON CONFLICT IGNORE",
        "title TEXT NOT NULL ON CONFLICT ROLLBACK",
        "title TEXT NOT NULL UNIQUE ON CONFLICT FAIL",
    ],
)
def test_a_table_that_settles_conflicts_itself_is_refused(
    database: peewee.SqliteDatabase, said: str
) -> None:
    """Rows that it displaces or leaves out go unseen, or half a statement stands."""
    database.execute_sql(f"CREATE TABLE Note (id TEXT NOT NULL PRIMARY KEY, {said})")
    for capture in ("signals", "triggers"):
        sync = Sync(database, [Note], shared_log=MemorySharedLog(), capture=capture)
        with pytest.raises(ConfigurationError, match=r"'note' says ON CONFLICT [A-Z]+") as refused:
            sync.setup()
        assert "Make the table anew without it" in str(refused.value)


def test_a_table_may_say_that_a_conflict_is_an_error(database: peewee.SqliteDatabase) -> None:
    database.execute_sql(
        "CREATE TABLE note (id TEXT NOT NULL PRIMARY KEY ON CONFLICT ABORT, "
        "title TEXT DEFAULT 'on conflict replace')"
    )
    new_sync(database, [Note]).setup()
