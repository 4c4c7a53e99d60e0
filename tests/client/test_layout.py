"""The layout of sharedlog's own tables goes forward: all of a migration or nothing of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import peewee
import pytest

from sharedlog import DatabaseTooNew
from sharedlog.journal.journal import Journal, Record
from sharedlog.layout import STEPS

Steps = Sequence[Sequence[str]]

OLDER: Steps = (
    tuple(re.sub(r"\bsharedlog_entry\b", "sharedlog_log", statement) for statement in STEPS[0]),
    (
        "ALTER TABLE sharedlog_log RENAME TO sharedlog_entry",
        "CREATE TABLE sharedlog_note (text TEXT NOT NULL)",
        "INSERT INTO sharedlog_note SELECT pk FROM sharedlog_entry",
        "DROP TABLE sharedlog_note",
    ),
    *STEPS[1:],
)
"""What the steps would be, had the entries once been in a table of another name."""

OLD_ENTRY = """INSERT INTO sharedlog_log
    (ticks, offset_ticks, collection, pk, operation, value, status, schema)
    VALUES (5, 0, 'note', '"k"', 0, '{}', 0, 1)"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[peewee.SqliteDatabase]:
    database = peewee.SqliteDatabase(str(tmp_path / "app.db"), pragmas={"journal_mode": "wal"})
    yield database
    database.close()


@pytest.fixture
def older(database: peewee.SqliteDatabase) -> Journal:
    """A database of an older layout with an entry in it."""
    journal = Journal(database, lambda: 1_000)
    journal.create_tables(OLDER[:1])
    journal.run(OLD_ENTRY)
    return journal


def contents(journal: Journal) -> list[object]:
    """All that is in a database."""
    found: list[object] = journal.run(
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    tables = journal.database.get_tables()
    return found + [journal.run(f"SELECT * FROM {table}").fetchall() for table in tables]


def test_an_older_layout_is_brought_forward_with_what_is_in_it(older: Journal) -> None:
    older.create_tables(OLDER)
    assert older.state("layout") == str(len(OLDER))
    assert [entry.ticks for entry in older.unsent(9, 999)] == [5]
    with older.transaction():
        older.append([Record("note", '"l"', 0, "{}")])
    assert older.count_unsent() == 2


def test_it_ends_as_if_it_had_always_been_so(older: Journal, tmp_path: Path) -> None:
    new = Journal(peewee.SqliteDatabase(str(tmp_path / "new.db")), lambda: 1_000)
    new.create_tables()
    older.create_tables(OLDER)
    tables = "SELECT name FROM sqlite_master WHERE name LIKE 'sharedlog%' ORDER BY name"
    assert older.run(tables).fetchall() == new.run(tables).fetchall()
    for (table,) in new.run(f"{tables}").fetchall():
        columns = f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}')"
        assert older.run(columns).fetchall() == new.run(columns).fetchall()
    new.database.close()


def test_what_is_up_to_date_is_left_alone(older: Journal) -> None:
    older.create_tables(OLDER)
    before = contents(older)
    older.create_tables(OLDER)
    assert contents(older) == before


def test_a_newer_layout_is_refused_and_not_touched(older: Journal) -> None:
    older.create_tables((*OLDER, ("CREATE TABLE sharedlog_future (x)",)))
    before = contents(older)
    with pytest.raises(DatabaseTooNew, match="newer version of sharedlog") as refused:
        older.create_tables(OLDER)
    assert refused.value.hint
    assert contents(older) == before


def broken(steps: Steps, place: int, statement: str) -> Steps:
    """The steps with one more statement, before the one at this place of all."""
    result = []
    for step in steps:
        here = (statement,) if 0 <= place <= len(step) else ()
        result.append((*step[:place], *here, *step[place:]) if here else step)
        place -= len(step) + 1
    return result


PLACES = range(len(OLDER[1]) + 1)
NEW_PLACES = range(len(OLDER[0]) + 1)


@pytest.mark.parametrize("place", PLACES)
def test_a_migration_that_fails_anywhere_changes_nothing(older: Journal, place: int) -> None:
    before = contents(older)
    steps = (OLDER[0], *broken(OLDER[1:2], place, "CREATE NONSENSE"))
    with pytest.raises(peewee.OperationalError, match="syntax"):
        older.create_tables(steps)
    assert contents(older) == before
    older.create_tables(OLDER)
    assert [entry.ticks for entry in older.unsent(9, 999)] == [5]


@pytest.mark.parametrize("place", NEW_PLACES)
def test_tables_are_made_all_or_none(database: peewee.SqliteDatabase, place: int) -> None:
    journal = Journal(database, lambda: 1_000)
    with pytest.raises(peewee.OperationalError, match="syntax"):
        journal.create_tables(broken(OLDER[:1], place, "CREATE NONSENSE"))
    assert database.get_tables() == []


@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_is_killed_in_a_migration_leaves_the_old_layout(
    older: Journal, tmp_path: Path, place: int
) -> None:
    before = contents(older)
    older.database.close()
    steps = (OLDER[0], *broken(OLDER[1:2], place, "SELECT die()"))
    child = os.fork()
    if child == 0:
        try:
            doomed = peewee.SqliteDatabase(str(tmp_path / "app.db"))
            doomed.register_function(lambda: os.kill(os.getpid(), signal.SIGKILL), "die", 0)
            Journal(doomed, lambda: 1_000).create_tables(steps)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    older.database.connect()
    assert contents(older) == before
    older.create_tables(OLDER)
    assert [entry.ticks for entry in older.unsent(9, 999)] == [5]


def test_tables_that_somebody_emptied_are_as_good_as_new(older: Journal) -> None:
    older.create_tables(OLDER)
    for (table,) in older.run("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        older.run(f"DELETE FROM {table}")
    older.create_tables()
    assert older.state("layout") == str(len(STEPS))
