"""CREATE statements are read as SQLite reads them, and changed where they must be only."""

from __future__ import annotations

import sqlite3

import pytest

from sharedlog.dialects.tokens import mentions, tokens
from sharedlog.keys.ddl import arguments, is_without_rowid, numbers_used_with, retyped

COLUMNS = [
    pytest.param("id INTEGER PRIMARY KEY", "id TEXT NOT NULL PRIMARY KEY", id="plain"),
    pytest.param("id INTEGER NOT NULL PRIMARY KEY", "id TEXT NOT NULL PRIMARY KEY", id="peewee"),
    pytest.param(
        "id integer primary key autoincrement", "id TEXT NOT NULL primary key", id="autoincrement"
    ),
    pytest.param(
        '"id" INTEGER CONSTRAINT "the key" PRIMARY KEY ON CONFLICT REPLACE',
        '"id" TEXT NOT NULL CONSTRAINT "the key" PRIMARY KEY ON CONFLICT REPLACE',
        id="constraint",
    ),
    pytest.param("`id` INTEGER PRIMARY KEY", "`id` TEXT NOT NULL PRIMARY KEY", id="backticks"),
    pytest.param("[id] INTEGER PRIMARY KEY", "[id] TEXT NOT NULL PRIMARY KEY", id="brackets"),
    pytest.param(
        "ID /* the key, of course */ INTEGER -- a number)\n PRIMARY KEY",
        "ID TEXT NOT NULL -- a number)\n PRIMARY KEY",
        id="comments",
    ),
    pytest.param(
        "id INTEGER PRIMARY KEY CHECK (id IS NOT NULL)",
        "id TEXT NOT NULL PRIMARY KEY CHECK (id IS NOT NULL)",
        id="not null in a check",
    ),
]


@pytest.mark.parametrize(("before", "after"), COLUMNS)
def test_a_key_becomes_text(before: str, after: str) -> None:
    rest = "name TEXT DEFAULT 'id INTEGER, (', size DECIMAL(10, 2)) STRICT"
    statement = f"CREATE TABLE t ({before}, {rest}"

    assert retyped(statement, "new", {"id"}, "id") == f'CREATE TABLE "new" ({after}, {rest}'


def test_references_lose_their_types_and_nothing_else() -> None:
    statement = (
        "CREATE TABLE t(a UNSIGNED BIG INT NULL REFERENCES u(id) ON DELETE CASCADE, "
        'b REFERENCES u, c VARCHAR(10) COLLATE NOCASE, "check" INT, d, e INT DEFAULT (1 + 2), '
        "f AS (c || 'x') STORED, "
        "CONSTRAINT x CHECK (a <> b AND c IN ('a', 'b')), UNIQUE (a, b), "
        "FOREIGN KEY (e) REFERENCES u (id)) WITHOUT ROWID"
    )

    assert retyped(statement, 'my "t"', {"a", "b", "check", "d"}, None) == (
        'CREATE TABLE "my ""t"""(a TEXT NULL REFERENCES u(id) ON DELETE CASCADE, '
        'b TEXT REFERENCES u, c VARCHAR(10) COLLATE NOCASE, "check" TEXT, d TEXT, '
        "e INT DEFAULT (1 + 2), f AS (c || 'x') STORED, "
        "CONSTRAINT x CHECK (a <> b AND c IN ('a', 'b')), UNIQUE (a, b), "
        "FOREIGN KEY (e) REFERENCES u (id)) WITHOUT ROWID"
    )


def test_a_key_that_is_named_at_the_end_becomes_text() -> None:
    statement = "CREATE TABLE t(id INTEGER, n, PRIMARY KEY (id AUTOINCREMENT) UNIQUE (n))"

    changed = retyped(statement, "t", {"id"}, "id")

    assert changed == 'CREATE TABLE "t"(id TEXT NOT NULL, n, PRIMARY KEY (id) UNIQUE (n))'
    with sqlite3.connect(":memory:") as db:
        db.execute(changed)
    db.close()


def test_names_are_read_as_sqlite_reads_them() -> None:
    found = tokens("""x "a ""b" `c``d` [e f] 'it''s' 1.5e-3 0xFF -- "no\n/* "no" */ Y""")

    assert [token.name for token in found] == ["x", 'a "b', "c`d", "e f", None, None, None, "y"]
    assert mentions("SELECT * FROM Message", {"message"})
    assert not mentions("SELECT 'message' -- message", {"message"})


def test_options_of_a_table_are_found() -> None:
    assert is_without_rowid("CREATE TABLE t(a PRIMARY KEY) STRICT, without /* - */ RowId")
    assert not is_without_rowid("CREATE TABLE without(rowid DEFAULT 'WITHOUT ROWID')")


def test_arguments_of_virtual_tables_are_found() -> None:
    sql = """CREATE VIRTUAL TABLE f USING fts5(body, content='Entry', content_rowid = "id")"""

    assert arguments(sql) == {"content": "entry", "content_rowid": "id"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t WHERE id = 1",
        "SELECT * FROM t WHERE 1 == t.id",
        "SELECT * FROM t WHERE t . id > -5",
        'SELECT * FROM t WHERE "t"."id" NOT IN (1, 2)',
        "SELECT * FROM t WHERE id BETWEEN 3 AND 4",
        "SELECT * FROM t WHERE id IS NOT 5",
        "SELECT id % 2 FROM t",
        "SELECT 100 - id FROM t",
    ],
)
def test_a_key_that_is_used_as_a_number_is_seen(sql: str) -> None:
    assert numbers_used_with(sql, {"id"}) == ["id"]
    assert numbers_used_with(sql, {"other"}) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t JOIN u ON u.t_id = t.id WHERE n = 1",
        "SELECT id, 1 FROM t WHERE id IS NOT NULL AND 1 = n",
        "SELECT count(id) > 1, 'id = 1' FROM t -- id = 1",
        "SELECT * FROM t ORDER BY id LIMIT 10",
    ],
)
def test_a_key_that_is_used_as_a_key_is_left_alone(sql: str) -> None:
    assert numbers_used_with(sql, {"id", "t_id"}) == []
