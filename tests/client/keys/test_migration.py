"""Keys are replaced, and everything else is as it was; or nothing is."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    ConfigurationError,
    MemorySharedLog,
    MigratedKeys,
    MigratedTable,
    MigrationRefused,
    Sync,
    SyncModel,
    migrate_keys,
)
from tests.client.keys.files import FORUM, check_sound, dump, graph, is_key, make, opened, rows

REFERENCES = {
    "user": {},
    "message": {"author_id": "user", "answers": "message", "thread_id": "message"},
}


@pytest.fixture
def forum(tmp_path: Path) -> Path:
    return make(tmp_path / "forum.db", FORUM)


def schema(path: Path) -> Counter[Any]:
    items = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"
    return Counter(rows(path, items))


# -- what it does ------------------------------------------------------------------------


def test_keys_and_references_are_replaced_and_lead_where_they_led(forum: Path) -> None:
    before = graph(forum, REFERENCES)
    likes = rows(forum, LIKES)

    migrated = migrate_keys(forum, tables=["user", "message"])

    assert graph(forum, REFERENCES) == before
    assert rows(forum, LIKES) == likes
    assert all(
        is_key(key) for (key,) in rows(forum, "SELECT id FROM user UNION SELECT id FROM message")
    )
    check_sound(forum)
    assert migrated == MigratedKeys(
        [
            MigratedTable("user", 3, "id", {}),
            MigratedTable("profile", 2, None, {"user_id": "user"}),
            MigratedTable(
                "Message",
                4,
                "id",
                {"answers": "message", "author_id": "user", "thread_id": "message"},
            ),
            MigratedTable("likes", 3, None, {"message_id": "message", "user_id": "user"}),
        ],
        [],
    )


LIKES = """SELECT u.label, m.label, at, typeof(at) FROM likes JOIN user u ON u.id = user_id
    JOIN message m ON m.id = message_id ORDER BY 1"""


def test_rows_stay_in_the_order_of_their_numbers(forum: Path) -> None:
    in_order = rows(forum, "SELECT label FROM message ORDER BY id")
    as_stored = rows(forum, "SELECT label FROM message NOT INDEXED")

    migrate_keys(forum, tables=["user", "message"])

    assert rows(forum, "SELECT label FROM message ORDER BY id") == in_order
    assert rows(forum, "SELECT label FROM message NOT INDEXED") == as_stored


RETYPED = {
    'TABLE "user" ("id" INTEGER NOT': 'TABLE "user" ("id" TEXT NOT',
    "TABLE profile (user_id INTEGER PRIMARY": 'TABLE "profile" (user_id TEXT NOT NULL PRIMARY',
    "TABLE Message (id INTEGER PRIMARY KEY AUTOINCREMENT": (
        'TABLE "Message" (id TEXT NOT NULL PRIMARY KEY'
    ),
    "author_id INT NOT": "author_id TEXT NOT",
    "answers INTEGER": "answers TEXT",
    "/* the first one, by the way */ thread_id INTEGER": (
        "/* the first one, by the way */ thread_id TEXT"
    ),
    '"likes" (user_id INTEGER': '"likes" (user_id TEXT',
    "message_id INTEGER": "message_id TEXT",
}


def test_the_schema_is_the_same_but_for_the_types(forum: Path, tmp_path: Path) -> None:
    expected = FORUM
    for before, after in RETYPED.items():
        assert expected.count(before) == 1
        expected = expected.replace(before, after)
    # Made by SQLite itself: what it keeps of a statement is not all of its text.
    statements = expected.partition("INSERT INTO user VALUES")[0]
    same = schema(make(tmp_path / "expected.db", statements))

    migrate_keys(forum, tables=["user", "message"])

    assert schema(forum) == same


def test_triggers_views_checks_and_cascades_still_work(forum: Path) -> None:
    migrate_keys(forum, tables=["user", "message"])

    with opened(forum) as db:
        db.execute("PRAGMA foreign_keys = 1")
        db.execute(
            "INSERT INTO message SELECT 'k', 'more', id, NULL, NULL FROM user WHERE label = 'ANN'"
        )
        assert db.execute("SELECT score FROM user WHERE label = 'ann'").fetchone() == (4.5,)
        assert db.execute("SELECT count(*) FROM loud").fetchone() == (5,)
        db.execute("INSERT INTO talk VALUES ('x', 'through the view')")
        assert db.execute("SELECT max(id) FROM setting").fetchone() == (6,)
        db.execute("UPDATE profile SET label = 'now' WHERE label = 'about bob'")
        assert ("now", "NOW") in db.execute("SELECT label, shout FROM profile").fetchall()
        db.execute("DELETE FROM likes")
        db.execute("DELETE FROM message WHERE label = 'hi'")
        assert db.execute("SELECT answers FROM message WHERE label = 'early'").fetchone() == (None,)
        for refused in (
            "UPDATE user SET score = -1",
            "INSERT INTO user (label) VALUES ('no key')",
            "INSERT INTO message VALUES ('l', 'nobody', 'x', NULL, NULL)",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(refused)


def test_a_key_that_refers_to_another_one_follows_it_also_if_it_is_named(forum: Path) -> None:
    migrated = migrate_keys(forum, tables=["profile", "user"])

    assert {table.name: table.key for table in migrated.tables}["profile"] is None
    pairs = rows(forum, "SELECT u.label, p.label FROM profile p JOIN user u ON u.id = p.user_id")
    assert sorted(pairs) == [("Ann", "about ann"), ("bob", "about bob")]
    check_sound(forum)


def test_only_what_is_named_is_changed(forum: Path) -> None:
    user = rows(forum, "SELECT * FROM user")

    migrate_keys(forum, tables=["MESSAGE"])

    assert rows(forum, "SELECT * FROM user") == user
    types = rows(forum, "SELECT DISTINCT typeof(author_id), typeof(answers) FROM message")
    assert sorted(types) == [("integer", "null"), ("integer", "text")]
    check_sound(forum)


def test_twice_is_once(forum: Path) -> None:
    migrate_keys(forum, tables=["user"])
    migrate_keys(forum, tables=["user", "message"])
    after = dump(forum)

    assert migrate_keys(forum, tables=["user", "message"]) == MigratedKeys((), ["user", "message"])
    assert dump(forum) == after
    check_sound(forum)


def test_a_dry_run_changes_nothing(forum: Path, tmp_path: Path) -> None:
    before = dump(forum)

    migrated = migrate_keys(forum, tables=["user"], dry_run=True, backup=tmp_path / "b.db")

    assert [table.name for table in migrated.tables] == ["user", "profile", "Message", "likes"]
    assert dump(forum) == before
    assert not (tmp_path / "b.db").exists()


def test_the_file_as_it_was_and_the_old_numbers_can_be_kept(forum: Path, tmp_path: Path) -> None:
    before = dump(forum)
    backup = tmp_path / "before.db"

    migrate_keys(forum, tables=["user"], backup=backup, mapping="old numbers")
    migrate_keys(forum, tables=["message"], mapping="old numbers")

    assert dump(backup) == before
    assert rows(
        forum,
        """SELECT table_name, number, coalesce(u.label, m.label) FROM "old numbers" AS k
            LEFT JOIN user AS u ON u.id = k.key AND table_name = 'user'
            LEFT JOIN message AS m ON m.id = k.key AND table_name = 'message' ORDER BY 1, 2""",
    ) == [
        ("message", -4, "early"),
        ("message", 10, "hello"),
        ("message", 11, "new"),
        ("message", 12, "hi"),
        ("user", 1, "Ann"),
        ("user", 3, "Cyd"),
        ("user", 7, "bob"),
    ]
    with pytest.raises(MigrationRefused, match="there already"):
        migrate_keys(forum, tables=["setting"], backup=backup)


def test_copies_get_the_same_keys_under_one_name(tmp_path: Path) -> None:
    positive = FORUM.replace("-4", "4")
    first, second, third = (make(tmp_path / f"{n}.db", positive) for n in range(3))
    tables = ["user", "message"]

    digests = {migrate_keys(path, tables=tables, namespace="a").digest for path in (first, second)}
    other = migrate_keys(third, tables=tables, namespace="b")

    assert dump(first) == dump(second)
    assert digests == {other.digest}
    assert all(is_key(key, 8) for (key,) in rows(first, "SELECT id FROM message"))
    ours, theirs = (set(rows(path, "SELECT id FROM message")) for path in (first, third))
    assert not ours & theirs


def test_copies_that_differ_have_other_digests(tmp_path: Path) -> None:
    positive = FORUM.replace("-4", "4")
    first = make(tmp_path / "1.db", positive)
    second = make(tmp_path / "2.db", positive + "UPDATE user SET photo = '' WHERE id = 3;")

    one, two = (
        migrate_keys(path, tables=["user"], namespace="a", dry_run=True) for path in (first, second)
    )

    assert one.digest != two.digest


def test_statistics_of_the_planner_are_kept_up(forum: Path) -> None:
    with opened(forum) as db:
        db.execute("ANALYZE")
    indexes = rows(forum, "SELECT tbl, idx FROM sqlite_stat1 WHERE idx IS NOT NULL ORDER BY 2")

    migrate_keys(forum, tables=["message"])

    after = rows(forum, "SELECT tbl, idx FROM sqlite_stat1 WHERE idx IS NOT NULL ORDER BY 2")
    assert set(indexes) <= set(after)


def test_progress_is_told_for_large_tables(tmp_path: Path) -> None:
    path = make(tmp_path / "large.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, label)")
    with opened(path) as db:
        db.executemany("INSERT INTO t VALUES (?, ?)", ((2 * n, str(n)) for n in range(50_000)))
    seen: list[tuple[str, int, int]] = []

    migrate_keys(path, tables=["t"], progress=lambda *step: seen.append(step))

    assert [step for step in seen if step[0] == "copying t"] == [
        ("copying t", 20_000, 50_000),
        ("copying t", 40_000, 50_000),
        ("copying t", 50_000, 50_000),
    ]
    assert ("numbering t", 50_000, 50_000) in seen
    in_order = rows(path, "SELECT label FROM t ORDER BY id")
    assert in_order == [(str(n),) for n in range(50_000)]


# -- in a migration of the application ---------------------------------------------------


def backwards(one: str, other: str) -> int:
    return (other > one) - (other < one)


def test_the_applications_own_connection_is_used_and_left_as_it_was(forum: Path) -> None:
    database = peewee.SqliteDatabase(str(forum), pragmas={"foreign_keys": 1})
    database.connect()
    database.connection().row_factory = lambda cursor, row: {"row": row}

    database.register_collation(backwards)
    database.execute_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT COLLATE backwards UNIQUE)")
    with pytest.raises(MigrationRefused, match="no such collation sequence: backwards") as refused:
        migrate_keys(forum, tables=["t"])
    assert "with the database object that has it" in (refused.value.hint or "")

    migrate_keys(database, tables=["t", "user"])

    assert not database.is_closed()
    assert database.execute_sql("PRAGMA foreign_keys").fetchone() == {"row": (1,)}
    database.close()
    migrate_keys(database, tables=["message"])
    assert database.is_closed()


def test_a_transaction_is_refused(forum: Path) -> None:
    database = peewee.SqliteDatabase(str(forum))
    with database.atomic():
        with pytest.raises(ConfigurationError, match="inside a transaction"):
            migrate_keys(database, tables=["user"])
        assert database.in_transaction()
    database.close()


class Base(SyncModel):
    pass


class Course(Base):
    label = peewee.TextField()


class Student(Base):
    label = peewee.TextField()
    courses = peewee.ManyToManyField(Course, backref="students")
    best = peewee.DeferredForeignKey("Mark", null=True)
    number = peewee.IntegerField(default=1)


class Mark(Base):
    label = peewee.TextField()
    student = peewee.ForeignKeyField(Student, constraints=[])


class Locker(Base):
    student = peewee.ForeignKeyField(Student, primary_key=True)
    label = peewee.TextField()


class Elsewhere(Base):
    label = peewee.TextField()


SCHOOL: list[type[peewee.Model]] = [Base, Course, Student, Mark, Locker, Elsewhere]

SCHOOL_BEFORE = """
    CREATE TABLE course (id INTEGER NOT NULL PRIMARY KEY, label TEXT);
    CREATE TABLE student (id INTEGER NOT NULL PRIMARY KEY, label TEXT, best_id INTEGER,
        number INTEGER);
    CREATE TABLE mark (id INTEGER NOT NULL PRIMARY KEY, label TEXT, student_id INTEGER);
    CREATE TABLE locker (student_id INTEGER NOT NULL PRIMARY KEY, label TEXT);
    CREATE TABLE student_course_through (id INTEGER NOT NULL PRIMARY KEY,
        student_id INTEGER NOT NULL REFERENCES student (id),
        course_id INTEGER REFERENCES course (id));
    CREATE UNIQUE INDEX pair ON student_course_through (student_id, course_id);
    INSERT INTO course VALUES (1, 'maths'), (2, 'music');
    INSERT INTO student VALUES (1, 'ann', 2, 1), (2, 'bob', NULL, 1);
    INSERT INTO mark VALUES (1, 'b', 2), (2, 'a', 1);
    INSERT INTO locker VALUES (2, 'the left one');
    INSERT INTO student_course_through VALUES (1, 1, 2), (2, 2, 1), (3, 2, 2);
"""


@pytest.mark.filterwarnings("ignore:.* refers to .*, but its table does not")
def test_models_say_what_the_file_does_not(tmp_path: Path) -> None:
    """Many-to-many tables keep their numbers; undeclared and one-to-one references follow."""
    path = make(tmp_path / "school.db", SCHOOL_BEFORE)

    migrated = migrate_keys(path, models=SCHOOL)

    assert {table.name: table.key for table in migrated.tables} == {
        "course": "id",
        "student": "id",
        "mark": "id",
        "locker": None,
        "student_course_through": None,
    }
    through = Student.courses.get_through_model()
    database = peewee.SqliteDatabase(str(path), pragmas={"foreign_keys": 1})
    models = [Course, Student, Mark, Locker, through]
    with (
        database.bind_ctx(models),
        Sync(database, models[:-1], shared_log=MemorySharedLog()) as sync,
    ):
        ann, bob = Student.select().order_by(Student.id)
        assert (ann.label, ann.best.label, ann.best.student) == ("ann", "a", ann)
        assert Locker.get().student == bob
        assert [course.label for course in bob.courses.order_by(Course.label)] == ["maths", "music"]
        bob.courses.remove(Course.get(label="maths"))
        ann.courses.add(Course.get(label="maths"))
        assert sync.adopt().created == 9
        assert sync.sync().sent == 11
    database.close()


# -- interruptions -----------------------------------------------------------------------


class Interrupted(Exception):
    pass


def test_interrupted_at_any_step_it_changes_nothing(forum: Path) -> None:
    before = dump(forum)
    for moment in itertools.count():
        steps = itertools.count()

        def interrupt(what: str, done: int, total: int) -> None:
            if next(steps) == moment:  # noqa: B023
                raise Interrupted

        try:
            migrate_keys(forum, tables=["user", "message"], progress=interrupt)
        except Interrupted:
            assert dump(forum) == before
            continue
        break
    assert moment > 5
    check_sound(forum)


KILLED = """
import sys
from sharedlog import migrate_keys

def wait(what, done, total):
    if what == sys.argv[2]:
        print("there", flush=True)
        sys.stdin.read()

migrate_keys(sys.argv[1], tables=["user", "message"], progress=wait)
"""


@pytest.mark.parametrize("moment", ["numbering user", "copying Message", "comparing likes"])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_killed_at_any_step_it_changes_nothing(forum: Path, moment: str, journal: str) -> None:
    with opened(forum) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
    before = dump(forum)
    command = [sys.executable, "-c", KILLED, str(forum), moment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()

    assert dump(forum) == before
    check_sound(forum)


def test_a_database_in_memory_can_be_migrated_but_not_copied(tmp_path: Path) -> None:
    database = peewee.SqliteDatabase(":memory:")
    database.execute_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    database.execute_sql("INSERT INTO t VALUES (1)")

    with pytest.raises(MigrationRefused, match="in memory"):
        migrate_keys(database, tables=["t"], backup=tmp_path / "b.db")
    assert migrate_keys(database, tables=["t"]).tables[0].rows == 1
    database.close()


def test_another_program_that_writes_is_waited_for_and_told(
    forum: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedlog.keys.migration.TIMEOUT_S", 0.05)
    with opened(forum) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(MigrationRefused, match="database is locked") as refused:
            migrate_keys(forum, tables=["user"])
        assert "Stop it first" in (refused.value.hint or "")
        db.execute("ROLLBACK")
    assert migrate_keys(forum, tables=["user"]).tables
