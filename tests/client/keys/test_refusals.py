"""What cannot be done is told, with all that stands in the way, and nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    ConfigurationError,
    MemorySharedLog,
    MigratedKeys,
    MigrationRefused,
    Sync,
    SyncModel,
    migrate_keys,
)
from tests.client.keys.files import FORUM, dump, make, rows


@pytest.fixture
def forum(tmp_path: Path) -> Path:
    return make(tmp_path / "forum.db", FORUM)


OBSTACLES = [
    ("There is no table 'users'. The file has: likes, message", {"tables": ["users"]}, ""),
    ("There is no table 'talk'", {"tables": ["talk"]}, ""),
    ("likes has a composite key", {"tables": ["likes"]}, ""),
    ("The key of profile refers to user.id: give that table", {"tables": ["profile"]}, ""),
    ("There is no column user.nothing", {"references": {"user.nothing": "message"}}, ""),
    ("cannot refer to 'likes'", {"references": {"user.score": "likes"}}, ""),
    ("'score' is not a column", {"references": {"score": "user"}}, ""),
    (
        "t is a table WITHOUT ROWID",
        {"tables": ["t"]},
        "CREATE TABLE t (id INTEGER PRIMARY KEY) WITHOUT ROWID",
    ),
    ("t has a key of type INT, which", {"tables": ["t"]}, "CREATE TABLE t (id INT PRIMARY KEY)"),
    (
        "t has a key of type INTEGER, which",
        {"tables": ["t"]},
        "CREATE TABLE t (id INTEGER PRIMARY KEY DESC)",
    ),
    ("t has no primary key", {"tables": ["t"]}, "CREATE TABLE t (id INTEGER)"),
    (
        "t.user_id has the number 1 as default",
        {},
        "CREATE TABLE t (user_id INTEGER DEFAULT 1 REFERENCES user)",
    ),
    (
        "The keys of a and b refer to each other",
        {"tables": ["a", "b"]},
        "CREATE TABLE a (id INTEGER PRIMARY KEY REFERENCES b);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY REFERENCES a)",
    ),
    (
        "t.u is computed",
        {},
        "CREATE TABLE t (n INT, u INTEGER AS (n + 1) STORED REFERENCES user)",
    ),
    (
        "t.x refers to message and to user",
        {"tables": ["user", "message"]},
        "CREATE TABLE t (x INTEGER REFERENCES user, FOREIGN KEY (x) REFERENCES message)",
    ),
    (
        "t has columns named rowid, _rowid_ and oid",
        {},
        "CREATE TABLE t (rowid, oid, _rowid_, u INTEGER REFERENCES user)",
    ),
    (
        "The table t uses u with a number",
        {},
        "CREATE TABLE t (u INTEGER REFERENCES user CHECK (u > 0))",
    ),
    ("The view v uses id with a number", {}, "CREATE VIEW v AS SELECT * FROM user WHERE id = 1"),
    (
        "The trigger x uses author_id with a number",
        {},
        "CREATE TRIGGER x AFTER INSERT ON message WHEN new.author_id IN (1, 2) "
        "BEGIN DELETE FROM setting; END",
    ),
    (
        "The index x uses author_id with a number",
        {},
        "CREATE INDEX x ON message (label) WHERE author_id <> 7",
    ),
    (
        "The full-text table f finds the rows of message by number",
        {"tables": ["message"]},
        "CREATE VIRTUAL TABLE f USING fts5 (label, content='message', content_rowid='id')",
    ),
    (
        "The trigger x writes to a full-text table",
        {"tables": ["message"]},
        "CREATE VIRTUAL TABLE f USING fts5 (label); CREATE TRIGGER x AFTER INSERT ON message "
        "BEGIN INSERT INTO f (rowid, label) VALUES (new.id, new.label); END",
    ),
    (
        "The view v gave 1 rows, and now 0 rows",
        {},
        "CREATE VIEW v AS SELECT * FROM user WHERE abs(id) = cast('7' AS INT)",
    ),
    (
        "The view v gave 3 rows, and now an error",
        {},
        "CREATE VIEW v AS SELECT * FROM user WHERE json('[' || id || ']') IS NOT NULL",
    ),
    (
        "2 rows of t have a user_id that is not in user (4, 9): delete them, or set it to NULL",
        {},
        "CREATE TABLE t (user_id INTEGER REFERENCES user); INSERT INTO t VALUES (9), (4), (NULL)",
    ),
    (
        "6 rows of t have a user_id that is not in user (11, 12, 13, 14, 15, …)",
        {},
        "CREATE TABLE t (user_id INTEGER REFERENCES user);"
        "INSERT INTO t VALUES (11), (12), (13), (14), (15), (16)",
    ),
    (
        "t.user_id looks like a reference to user, but none is declared. If it is one: "
        "--reference t.user_id=user; if not: --number t.user_id",
        {},
        "CREATE TABLE t (user_id INTEGER)",
    ),
    (
        "t.parent_id looks like a reference to t",
        {"tables": ["t"]},
        "CREATE TABLE t (id INTEGER PRIMARY KEY, parent_id INTEGER)",
    ),
    (
        "CHECK constraint failed",
        {},
        "CREATE TABLE t (u INTEGER REFERENCES user CHECK (typeof(u) = 'integer'));"
        "INSERT INTO t VALUES (1)",
    ),
    (
        "The copy of t is not what it should be: another twice in 1 rows",
        {},
        "CREATE TABLE t (u INTEGER REFERENCES user, twice AS (typeof(u)));INSERT INTO t VALUES (1)",
    ),
    ("no such column: t.n", {}, "CREATE TABLE t (u INTEGER REFERENCES user, n, CHECK (t.n > u))"),
    (
        "foreign key mismatch",
        {},
        "CREATE TABLE t (u INTEGER REFERENCES user (score)); INSERT INTO t VALUES (1)",
    ),
    (
        'table "sharedlog_new_user" already exists',
        {},
        "CREATE TABLE sharedlog_new_user (id INTEGER PRIMARY KEY)",
    ),
    (
        "SQLite's integrity check says: NULL value in t.a",
        {},
        "CREATE TABLE t (a); INSERT INTO t VALUES (NULL); PRAGMA writable_schema = 1;"
        "UPDATE sqlite_master SET sql = 'CREATE TABLE t (a NOT NULL)' WHERE name = 't'",
    ),
    ("has no column named", {"mapping": "setting"}, ""),
]


@pytest.mark.parametrize(
    ("message", "options", "script"), OBSTACLES, ids=[message[:40] for message, *_ in OBSTACLES]
)
def test_what_stands_in_the_way_is_told_and_nothing_is_changed(
    forum: Path, message: str, options: dict[str, Any], script: str
) -> None:
    make(forum, script)
    before = dump(forum)

    with pytest.raises((MigrationRefused, ConfigurationError)) as refused:
        migrate_keys(forum, **{"tables": ["user"], **options})

    assert message in str(refused.value)
    assert dump(forum) == before


def test_all_obstacles_are_told_at_once(forum: Path) -> None:
    make(forum, "CREATE TABLE t (user_id INTEGER, message_id INTEGER)")

    with pytest.raises(MigrationRefused) as refused:
        migrate_keys(forum, tables=["user", "message"])

    assert str(refused.value).count("looks like a reference") == 2


def test_a_column_that_is_no_reference_can_be_said_to_be_none(forum: Path) -> None:
    make(forum, "CREATE TABLE t (user_id INTEGER); INSERT INTO t VALUES (1)")

    migrate_keys(forum, tables=["user"], numbers=["t.user_id"])

    assert rows(forum, "SELECT user_id FROM t") == [(1,)]


def test_a_reference_that_is_not_declared_can_be_named(forum: Path) -> None:
    make(forum, "CREATE TABLE t (current); INSERT INTO t VALUES (7), (NULL), ('1')")

    migrate_keys(forum, tables=["user"], references={"t.Current": "User"})

    found = rows(forum, "SELECT label FROM t LEFT JOIN user ON user.id = current ORDER BY t.rowid")
    assert found == [("bob",), (None,), ("Ann",)]


def test_references_that_lead_nowhere_elsewhere_are_left_alone(forum: Path) -> None:
    make(forum, "INSERT INTO tag VALUES (1, 77)")

    assert migrate_keys(forum, tables=["user"]).tables
    assert rows(forum, "PRAGMA foreign_key_check") == [("tag", 1, "setting", 0)]


def test_without_tables_the_numbered_ones_are_told(forum: Path, tmp_path: Path) -> None:
    make(
        forum,
        "CREATE VIRTUAL TABLE f USING fts5 (label); CREATE TABLE f_notes (id INTEGER PRIMARY KEY)",
    )
    with pytest.raises(ConfigurationError) as refused:
        migrate_keys(forum)
    assert "--tables user,profile,Message,setting,tag,f_notes." in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"none of the models' tables \(other\)"):
        migrate_keys(forum, models=[Note, Other])
    empty = make(tmp_path / "empty.db", "CREATE TABLE t (id TEXT PRIMARY KEY)")
    assert migrate_keys(empty) == MigratedKeys((), [])


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one" * 9)

    with pytest.raises(MigrationRefused, match="There is no file"):
        migrate_keys(tmp_path / "none.db", tables=["t"])
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(MigrationRefused, match="file is not a database"):
        migrate_keys(tmp_path / "text.db", tables=["t"])


class Note(SyncModel):
    number = peewee.IntegerField(primary_key=True)
    text = peewee.TextField()


class Other(SyncModel):
    text = peewee.TextField()


def test_tables_in_the_shared_log_are_refused(tmp_path: Path) -> None:
    """Other devices know their rows by the keys that they have."""
    database = peewee.SqliteDatabase(str(tmp_path / "app.db"))
    with database.bind_ctx([Note, Other]):
        database.create_tables([Note, Other])
        with Sync(database, [Note, Other], shared_log=MemorySharedLog()) as sync:
            Note.create(number=1, text="known elsewhere")
            sync.sync()
            database.execute_sql("CREATE TABLE later (id INTEGER PRIMARY KEY)")
            with pytest.raises(MigrationRefused, match="note is in the shared log"):
                migrate_keys(database, tables=["note"])
            assert migrate_keys(database, tables=["later"]).tables
            sync.prune(0)
            with pytest.raises(MigrationRefused, match="note is in the shared log"):
                migrate_keys(database, tables=["note"])
    database.close()


# -- what is compared before it is committed ---------------------------------------------

DAMAGES = [
    ("another label in 1 rows", "UPDATE sharedlog_new_user SET label = 'ANN' WHERE label = 'Ann'"),
    ("another photo in 2 rows", "UPDATE sharedlog_new_user SET photo = CAST(photo AS TEXT)"),
    ("2 rows in place of 3", "DELETE FROM sharedlog_new_user WHERE label = 'bob'"),
    ("another id in 1 rows", "UPDATE sharedlog_new_user SET id = 'x' WHERE label = 'bob'"),
    (
        "another author_id in 1 rows",
        "UPDATE sharedlog_new_message SET author_id = (SELECT id FROM sharedlog_new_user LIMIT 1) "
        "WHERE label = 'hi'",
    ),
    ("The copy of likes is not", "UPDATE sharedlog_new_likes SET message_id = message_id || 1"),
    ("another id in 3 rows", "UPDATE sharedlog_new_user SET rowid = rowid + 100"),
    (
        "another author_id in 3 rows",  # consistently wrong: two users changed places
        "CREATE TEMP TABLE k AS SELECT * FROM sharedlog_keys WHERE source = 'user';"
        "DELETE FROM sharedlog_keys WHERE source = 'user';"
        "INSERT INTO sharedlog_keys SELECT source, iif(number = 3, 3, 8 - number), key FROM k;"
        "UPDATE sharedlog_new_message AS n SET author_id = (SELECT key FROM sharedlog_keys "
        "WHERE source = 'user' AND number = "
        "(SELECT author_id FROM message AS o WHERE o.rowid = n.rowid))",
    ),
    ("did not come out as they were", "CREATE VIEW one_more AS SELECT * FROM setting"),
    ("Other references lead nowhere than before", "INSERT INTO tag VALUES (3, 77)"),
]
"""What might go wrong while the tables are made anew, as SQL just before they are compared."""


@pytest.mark.parametrize(("message", "damage"), DAMAGES, ids=[case[0] for case in DAMAGES])
def test_a_fault_in_copying_is_noticed(forum: Path, message: str, damage: str) -> None:
    before = dump(forum)
    database = peewee.SqliteDatabase(str(forum))

    def spoil(what: str, done: int, total: int) -> None:
        if what == ("comparing Message" if "TEMP" in damage else "comparing user"):
            for statement in damage.split(";"):
                database.execute_sql(statement)

    with pytest.raises(MigrationRefused) as refused:
        migrate_keys(database, tables=["user", "message"], progress=spoil)

    assert message in str(refused.value)
    database.close()
    assert dump(forum) == before
