"""The file: durable as promised, migrated forwards, refused when it is not ours to use."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from sharedlog_service.engines.sqlite import SqliteFile, SqliteSession, check_sqlite
from sharedlog_service.engines.tables import MODELS, STEPS
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.store.appending import IDENTITIES
from sharedlog_service.store.beginnings import KIND
from sharedlog_service.store.paging import OTHERS
from sharedlog_service.store.store import Store
from tests.service.support import entries


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2)])
def test_the_writing_connection_is_durable(tmp_path: Path, pragma: str, value: object) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.transaction() as db:
        assert db.scalar(f"PRAGMA {pragma}") == value
        assert db.scalar("PRAGMA foreign_keys") == 1
    database.close()


def test_a_setting_that_sqlite_did_not_take_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite ignores a pragma it cannot honour: an in-memory database has no write-ahead log."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="journal_mode"):
        SqliteFile(":memory:")


def test_a_reading_connection_cannot_write(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with pytest.raises(Refused) as caught, database.snapshot() as db:
        db.rows("UPDATE meta SET schema_version = 99")
    assert caught.value.code is Code.UNAVAILABLE
    database.close()


def test_an_sqlite_with_the_wal_bug_is_refused() -> None:
    check_sqlite("3.51.3")
    check_sqlite("4.0.0")
    for version in ("3.51.2", "3.40.1", "3.7.0"):
        with pytest.raises(ConfigurationError, match="pip install"):
            check_sqlite(version)


def test_a_transaction_takes_the_write_lock_at_once(tmp_path: Path) -> None:
    """Begun deferred, it would only fail later, after reading, and no timeout would help."""
    database = SqliteFile(tmp_path / "log.db")
    other = apsw.Connection(str(tmp_path / "log.db"))
    with database.transaction(), pytest.raises(apsw.BusyError):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
    database.close()


def test_a_snapshot_stays_as_it_was(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.snapshot() as reader:
        before = reader.scalar("SELECT count(*) FROM users")
        with database.transaction() as db:
            db.rows("INSERT INTO users VALUES ('ada', 1)")
        assert reader.scalar("SELECT count(*) FROM users") == before == 0
    with database.snapshot() as reader:
        assert reader.scalar("SELECT count(*) FROM users") == 1
    database.close()


def test_connections_are_used_again(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.snapshot() as first:
        pass
    with database.snapshot() as second:
        assert second is first
        with database.snapshot() as third:
            assert third is not second
    database.close()


def test_a_transaction_that_sqlite_rolled_back_by_itself_is_not_acknowledged(
    tmp_path: Path,
) -> None:
    """As after a full disk: nothing that follows may be committed alone, nor all of it told as
    done."""
    database = SqliteFile(tmp_path / "log.db")
    with pytest.raises(Refused) as caught, database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('ada', 1)")
        db.rows("ROLLBACK")
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(Refused), database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('ada', 1)")
        db.rows("ROLLBACK")
        with database.transaction():
            db.rows("INSERT INTO users VALUES ('bob', 1)")
    with database.snapshot() as reader:
        assert reader.scalar("SELECT count(*) FROM users") == 0
    database.close()


def test_a_full_disk_is_told_as_unavailable_and_heals(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "log.db")
    store.create_user("ada")
    device = store.create_device("ada")
    with store._database.transaction() as db:
        pages = db.scalar("PRAGMA page_count")
        db.rows(f"PRAGMA max_page_count = {pages + 2}")
    batch = [[1024 + n, 0, "x" * 4000] for n in range(100)]
    with pytest.raises(Refused) as caught:
        store.write("ada", device, batch)
    assert caught.value.code is Code.UNAVAILABLE
    assert store.stats("ada").head.seq == 0
    with store._database.transaction() as db:
        db.rows("PRAGMA max_page_count = 1000000")
    assert store.write("ada", device, batch).accepted == 100
    store.close()


@contextmanager
def heap_limit_lifted() -> Iterator[None]:
    """At the end; the test sets it."""
    try:
        yield
    finally:
        apsw.hard_heap_limit(0)


def no_more_memory() -> None:
    apsw.hard_heap_limit(apsw.memory_used())


def users(database: SqliteFile) -> list[str]:
    with database.snapshot() as db:
        return [user for (user,) in db.rows("SELECT id FROM users")]


def test_a_transaction_that_could_not_even_be_rolled_back_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    """Without memory a ROLLBACK fails, too, and the transaction stays open."""
    database = SqliteFile(tmp_path / "log.db")
    with pytest.raises(Refused), heap_limit_lifted(), database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('ada', 1)")
        no_more_memory()
        raise LookupError
    with database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('bob', 1)")
    assert users(database) == ["bob"]
    database.close()


def test_a_snapshot_that_could_not_be_ended_is_in_nobodys_way(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with pytest.raises(apsw.ExecTraceAbort), database.snapshot() as db:
        reader = db.driver
        reader.exec_trace = lambda cursor, sql, bindings: "rollback" not in sql
        raise LookupError
    assert reader.in_transaction
    reader.exec_trace = None
    with database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('ada', 1)")
    assert users(database) == ["ada"]
    database.close()


def test_a_part_that_could_not_be_undone_takes_the_whole_with_it(tmp_path: Path) -> None:
    """Else its first half would be committed with what others wrote."""
    database = SqliteFile(tmp_path / "log.db")
    with pytest.raises(Refused) as caught, database.transaction() as db:
        db.rows("INSERT INTO users VALUES ('bob', 1)")
        with pytest.raises(Refused), heap_limit_lifted(), database.transaction():
            db.rows("INSERT INTO users VALUES ('ada', 1)")
            no_more_memory()
            raise LookupError
        db.rows("INSERT INTO users VALUES ('cleo', 1)")
    assert caught.value.code is Code.UNAVAILABLE
    assert users(database) == []
    database.close()


def test_a_new_file_is_for_its_owner_only_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(Store.open(path)) as store:
        store.create_user("ada")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm"), 0o600)
    path.chmod(0o660)
    Store.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    Store.open(tmp_path / "log.db").close()
    before = schema_of(tmp_path / "log.db")
    Store.open(tmp_path / "log.db").close()
    assert schema_of(tmp_path / "log.db") == before


def schema_of(path: Path) -> list[object]:
    found = apsw.Connection(str(path))
    try:
        return list(found.execute("SELECT name, sql FROM sqlite_master ORDER BY name"))
    finally:
        found.close()


def test_the_models_say_what_the_tables_are(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.snapshot() as db:
        for model in MODELS:
            table = model._meta.table_name
            columns = db.rows(f"SELECT name FROM pragma_table_info('{table}') ORDER BY cid")
            assert [name for (name,) in columns] == [
                f.column_name for f in model._meta.sorted_fields
            ]
    database.close()


def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.transaction() as db:
        db.rows("UPDATE meta SET schema_version = ?", len(STEPS) + 1)
    database.close()
    with pytest.raises(ConfigurationError, match="newer sharedlog"):
        SqliteFile(tmp_path / "log.db")


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteFile(tmp_path / "log.db").close()
    before = schema_of(tmp_path / "log.db")
    broken = (*STEPS, ("CREATE TABLE half (id INTEGER)", "CREATE NONSENSE"))
    monkeypatch.setattr("sharedlog_service.engines.sqlite.STEPS", broken)
    with pytest.raises(apsw.SQLError):
        SqliteFile(tmp_path / "log.db")
    assert schema_of(tmp_path / "log.db") == before
    whole = (*STEPS, ("CREATE TABLE whole (id INTEGER)",))
    monkeypatch.setattr("sharedlog_service.engines.sqlite.STEPS", whole)
    SqliteFile(tmp_path / "log.db").close()
    assert len(schema_of(tmp_path / "log.db")) == len(before) + 1


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE precious (id INTEGER)")
    other.commit()
    other.close()
    with pytest.raises(ConfigurationError, match=r"other\.db belongs to another program"):
        SqliteFile(tmp_path / "other.db")
    assert len(schema_of(tmp_path / "other.db")) == 1


def test_what_cannot_be_a_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all " * 100)
    with pytest.raises(ConfigurationError, match=r"text\.db is not an SQLite database"):
        SqliteFile(tmp_path / "text.db")
    with pytest.raises(ConfigurationError, match="does not exist"):
        SqliteFile(tmp_path / "nowhere" / "log.db")
    with pytest.raises(ConfigurationError, match="is a folder"):
        SqliteFile(tmp_path)


def test_an_entry_costs_little_more_than_its_text(tmp_path: Path) -> None:
    """The budget of DESIGN section 9: 400 bytes a change for 322 of JSON on the wire."""
    store = Store.open(tmp_path / "log.db")
    store.create_user("ada")
    device = store.create_device("ada")
    data_bytes = count = 0
    for start in range(1, 20_000_000, 2_000_000):
        batch = [entry._replace(data=pad(entry.data, 290)) for entry in entries(500, start=start)]
        store.write("ada", device, batch)
        data_bytes += sum(len(entry.data) for entry in batch)
        count += len(batch)
    empty = tmp_path / "empty.db"
    Store.open(empty).close()
    store.close()
    cost = ((tmp_path / "log.db").stat().st_size - empty.stat().st_size) / count
    assert data_bytes / count == 290
    assert cost < 390


def pad(data: str, length: int) -> str:
    return data[:-5] + '"' + "x" * (length - len(data) + 2) + '"}'


def test_pad_makes_plain_data() -> None:
    """What the test above measures must be indexed, or it measures too little."""
    from sharedlog_service.entries import read_change

    text = pad(entries(1)[0].data, 290)
    assert len(text) == 290
    assert read_change(text) is not None


def test_closing_folds_the_write_ahead_log_into_the_file(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path / "log.db")
    with database.snapshot() as db:
        assert db.driver
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.db"]


@pytest.mark.parametrize(
    ("sql", "parameters", "plan"),
    [
        (OTHERS + "ORDER BY id", (1, 2, 3), "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            IDENTITIES.format(kind=KIND, numbers=SqliteSession.numbers),
            (1, "[1]"),
            "INDEX entries_identity (device=? AND created_on=?)",
        ),
    ],
)
def test_a_sync_costs_what_is_new_however_long_the_log_is(
    tmp_path: Path, sql: str, parameters: tuple[object, ...], plan: str
) -> None:
    """Each statement on the way of a sync finds its rows by an index, and none is sorted."""
    database = SqliteFile(tmp_path / "log.db")
    with database.snapshot() as db:
        steps = [row[3] for row in db.rows("EXPLAIN QUERY PLAN " + sql, *parameters)]
    database.close()
    assert [step for step in steps if "entries" in step] == [f"SEARCH entries USING {plan}"]
    assert not any("TEMP B-TREE" in step for step in steps)
