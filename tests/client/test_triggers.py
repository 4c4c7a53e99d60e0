"""What triggers see: raw SQL and other programs, and everything that SQLite does on its own."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import peewee
import pytest

from sharedlog import AutoIncrementKey, MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import Device
from .shop import MODELS, NUMBERS, Article, Comment, Note, Price, Shelf, Tag, key
from .test_capture import in_tables, played_back
from .writes import (
    Change,
    articles,
    create,
    delete,
    modify,
    new_note,
    nothing,
    prices,
    tags_only,
    three_notes,
)

FOREIGN_KEYS = "PRAGMA foreign_keys = 1;"


def hexed(number: int) -> str:
    return uuid.UUID(int=number).hex


def execute_sql(device: Device, script: str) -> None:
    for statement in script.split(";"):
        device.database.execute_sql(statement)


def another_connection(device: Device, script: str) -> None:
    device.database.close()
    with closing(sqlite3.connect(device.database.database, isolation_level=None)) as connection:
        connection.executescript(FOREIGN_KEYS + script)


def the_command_line(device: Device, script: str) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("there is no sqlite3 on this machine")
    device.database.close()
    subprocess.run(
        ["sqlite3", "-bail", device.database.database],
        input=FOREIGN_KEYS + script,
        text=True,
        check=True,
    )


PROGRAMS = (execute_sql, another_connection, the_command_line)

SCRIPTS: dict[str, tuple[Callable[[], object], str, Sequence[Change]]] = {
    "insert": (
        tags_only,
        f"INSERT INTO tag VALUES ('{hexed(9)}', 'green', 5)",
        [create(Tag, key(9), name="green", count=5)],
    ),
    "insert what the table fills in": (
        three_notes,
        f"""INSERT INTO comment (id, note_id, text) VALUES ('{hexed(8)}', '{hexed(1)}', '');
        INSERT INTO reply (id, comment_id) VALUES ('{hexed(9)}', '{hexed(8)}')""",
        [
            create(Comment, key(8), note=key(1), text=""),
            ("create", "reply", key(9), {"comment": key(8), "mood": "calm"}),
        ],
    ),
    "update": (
        three_notes,
        "UPDATE note SET number = number + 1, title = title WHERE title > 'a'",
        [modify(Note, key(2), rank=1), modify(Note, key(3), rank=1)],
    ),
    "update what is so already": (three_notes, "UPDATE note SET title = title, number = 0", []),
    "delete": (three_notes, "DELETE FROM note", [delete(Note, key(n)) for n in (1, 2, 3)]),
    "change a key": (
        three_notes,
        f"UPDATE note SET id = '{hexed(50)}' WHERE title = 'a'",
        [delete(Note, key(1)), new_note(50, "a", 100)],
    ),
    "change a key by the row's number": (
        prices,
        "UPDATE shelf SET rowid = 7 WHERE number = 1",
        [delete(Shelf, 1), create(Shelf, 7, best="111")],
    ),
    "replace the same key": (
        tags_only,
        f"REPLACE INTO tag VALUES ('{hexed(1)}', 'red', 7)",
        [modify(Tag, key(1), name="red", count=7)],
    ),
    "replace another row": (
        tags_only,
        f"INSERT OR REPLACE INTO tag VALUES ('{hexed(9)}', 'red', 7)",
        [delete(Tag, key(1)), create(Tag, key(9), name="red", count=7)],
    ),
    "replace several rows": (
        articles,
        "REPLACE INTO article VALUES ('c', 1, 1, '222')",
        [
            delete(Article, "a"),
            delete(Article, "b"),
            modify(Article, "c", shelf=1, place=1, barcode="222"),
        ],
    ),
    "replace a number": (
        prices,
        "REPLACE INTO shelf VALUES (1, '222')",
        [modify(Shelf, 1, best="222")],
    ),
    "replace, though it says insert": (
        nothing,
        f"""INSERT INTO tag VALUES ('{hexed(1)}', 'red', 0);
        INSERT OR REPLACE INTO tag SELECT '{hexed(2)}', name, 1 FROM tag""",
        [
            create(Tag, key(1), name="red", count=0),
            delete(Tag, key(1)),
            create(Tag, key(2), name="red", count=1),
        ],
    ),
    "replace a parent": (
        prices,
        "REPLACE INTO article VALUES ('a', 9, 9, NULL)",
        [
            delete(Price, ["a", "EUR"]),
            delete(Price, ["a", "USD"]),
            modify(Shelf, 1, best=None),
            modify(Article, "a", shelf=9, place=9, barcode=None),
        ],
    ),
    "ignore": (
        tags_only,
        f"""INSERT OR IGNORE INTO tag VALUES ('{hexed(9)}', 'red', 7);
        DELETE FROM tag WHERE name = 'red';
        INSERT INTO tag VALUES ('{hexed(1)}', 'red', 8)""",
        [delete(Tag, key(1)), create(Tag, key(1), name="red", count=8)],
    ),
    "upsert": (
        tags_only,
        f"""INSERT INTO tag VALUES ('{hexed(9)}', 'red', 7), ('{hexed(8)}', 'new', 7)
        ON CONFLICT (name) DO UPDATE SET count = excluded.count""",
        [modify(Tag, key(1), count=7), create(Tag, key(8), name="new", count=7)],
    ),
    "cascades": (
        prices,
        "DELETE FROM article WHERE code = 'a'",
        [
            delete(Price, ["a", "EUR"]),
            delete(Price, ["a", "USD"]),
            delete(Article, "a"),
            modify(Shelf, 1, best=None),
        ],
    ),
    "cascades of a key": (
        prices,
        "UPDATE article SET code = 'z', barcode = '999' WHERE code = 'b'",
        [
            delete(Article, "b"),
            create(Article, "z", shelf=1, place=2, barcode="999"),
            delete(Price, ["b", "EUR"]),
            create(Price, ["z", "EUR"], cents=7),
            modify(Shelf, 2, best="999"),
        ],
    ),
    "several times, and then no more": (
        tags_only,
        f"""UPDATE tag SET count = 1 WHERE name = 'red';
        UPDATE tag SET count = 2 WHERE name = 'red';
        DELETE FROM tag WHERE name = 'red';
        INSERT INTO tag VALUES ('{hexed(9)}', 'short', 1);
        DELETE FROM tag WHERE name = 'short'""",
        [
            modify(Tag, key(1), count=1),
            modify(Tag, key(1), count=2),
            delete(Tag, key(1)),
            create(Tag, key(9), name="short", count=1),
            delete(Tag, key(9)),
        ],
    ),
    "a transaction that is rolled back": (
        tags_only,
        """BEGIN; DELETE FROM tag; ROLLBACK;
        BEGIN; UPDATE tag SET count = 1 WHERE name = 'red';
        SAVEPOINT one; DELETE FROM tag; ROLLBACK TO one; RELEASE one; COMMIT""",
        [modify(Tag, key(1), count=1)],
    ),
}


@pytest.fixture
def device(open_device: OpenDevice) -> Iterator[Device]:
    opened = open_device(MODELS, recorder="triggers")
    NUMBERS.restart()
    with opened:
        yield opened


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_whoever_writes_is_recorded(name: str, program: Any, device: Device) -> None:
    before, script, expected = SCRIPTS[name]
    before()
    known = len(device.log())
    program(device, script)
    changes = [entry.change for entry in device.log()[known:]]
    assert sorted(changes, key=repr) == sorted(expected, key=repr)
    assert played_back(device) == in_tables(device, MODELS)


def test_what_another_program_wrote_goes_with_the_next_sync(
    device: Device, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    one, other = (open_device([Tag], recorder="triggers", shared_log=log) for _ in range(2))
    another_connection(one, f"INSERT INTO tag VALUES ('{hexed(9)}', 'red', 5)")
    with one:
        assert one.sync.status().pending == 1
        assert one.sync.sync().sent == 1
        assert one.sync.status().pending == 0
    with other:
        assert other.sync.sync().created == 1
        assert other.sync.status().pending == 0
    another_connection(other, "UPDATE tag SET count = 6")
    with other:
        other.sync.sync()
    with one:
        assert one.sync.sync().modified == 1
        assert Tag.get().count == 6


class Person(SyncModel):
    name = peewee.CharField(primary_key=True)
    mentor = peewee.ForeignKeyField("self", on_update="CASCADE")


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
@pytest.mark.parametrize("recorder", ["signals", "triggers"])
def test_a_key_changes_that_its_own_row_refers_to(
    open_device: OpenDevice, recorder: str, where: str
) -> None:
    """SQLite lets the reference follow before it calls the triggers of the row."""
    log = MemorySharedLog()
    one = open_device([Person], recorder=recorder, where=where, shared_log=log)
    other = open_device([Person], recorder=recorder, shared_log=log)
    with one:
        Person.create(name="a", mentor="a")
        Person.create(name="b", mentor="a")
        Person.update(name="z").where(Person.name == "a").execute()
        one.sync.sync()
    with other:
        other.sync.sync()
    for device in (one, other):
        with device:
            assert sorted(Person.select().tuples()) == [("b", "z"), ("z", "z")]


def test_a_key_that_the_application_left_out_is_refused(device: Device) -> None:
    plain: Any = Shelf._meta.table
    ways: tuple[Callable[[], object], ...] = (
        lambda: Shelf.create(best=None),
        lambda: Shelf.insert_many([{"number": 1}, {"number": None}]).execute(),
        lambda: plain.insert({"best_id": None}).execute(device.database),
    )
    for leave_out in ways:
        with pytest.raises(AutoIncrementKey):
            leave_out()
    assert device.stored()["shelf"] == []


# -- tables that Peewee did not make -----------------------------------------------------


def tables(device: Device, *statements: str) -> None:
    for statement in statements:
        device.database.execute_sql(statement)


class Word(SyncModel):
    word = peewee.CharField(primary_key=True)
    meaning: Any = peewee.BareField(null=True)
    sign = peewee.CharField(null=True)


def word_device(open_device: OpenDevice, *statements: str) -> Device:
    device = open_device([Word], recorder="triggers", tracked=False, create=False)
    tables(device, *statements)
    device.sync.setup()
    return device


def changes_of(device: Device, script: str) -> list[Any]:
    with device:
        before = len(device.log())
        execute_sql(device, script)
        return [(operation, pk, value) for operation, _, pk, value, *_ in device.log()[before:]]


def test_a_table_without_row_numbers_and_with_columns_of_its_own(open_device: OpenDevice) -> None:
    device = word_device(
        open_device,
        "CREATE TABLE word (extra, word TEXT PRIMARY KEY, sign TEXT UNIQUE, meaning) WITHOUT ROWID",
    )
    assert changes_of(device, "INSERT INTO word VALUES (1, 'a', 's', 5)") == [
        ("create", "a", {"meaning": 5, "sign": "s"})
    ]
    assert changes_of(device, "UPDATE word SET extra = 2") == []
    assert changes_of(device, "REPLACE INTO word VALUES (1, 'b', 's', NULL)") == [
        ("delete", "a", None),
        ("create", "b", {"meaning": None, "sign": "s"}),
    ]
    assert changes_of(device, "UPDATE word SET word = 'c', extra = 3") == [
        ("delete", "b", None),
        ("create", "c", {"meaning": None, "sign": "s"}),
    ]


def test_a_change_that_a_collation_does_not_see(open_device: OpenDevice) -> None:
    device = word_device(
        open_device,
        """CREATE TABLE word (
            word TEXT PRIMARY KEY COLLATE NOCASE, meaning, sign TEXT COLLATE NOCASE)""",
        "CREATE UNIQUE INDEX signs ON word (sign COLLATE BINARY)",
    )
    changes_of(device, "INSERT INTO word VALUES ('a', 'm', 's')")
    assert changes_of(device, "UPDATE word SET sign = 'S'") == [("modify", "a", {"sign": "S"})]
    assert changes_of(device, "UPDATE word SET word = 'A'") == [
        ("delete", "a", None),
        ("create", "A", {"meaning": "m", "sign": "S"}),
    ]
    assert changes_of(device, "REPLACE INTO word VALUES ('a', 'm', 's')") == [
        ("delete", "A", None),
        ("create", "a", {"meaning": "m", "sign": "s"}),
    ]
    assert changes_of(device, "REPLACE INTO word VALUES ('b', 'm', 'S')") == [
        ("create", "b", {"meaning": "m", "sign": "S"}),
    ]
    assert changes_of(device, "REPLACE INTO word VALUES ('c', 'm', 'S')") == [
        ("delete", "b", None),
        ("create", "c", {"meaning": "m", "sign": "S"}),
    ]


def test_an_index_with_a_collation_of_its_own(open_device: OpenDevice) -> None:
    device = word_device(
        open_device,
        "CREATE TABLE word (word TEXT PRIMARY KEY, meaning, sign TEXT)",
        "CREATE UNIQUE INDEX signs ON word (sign COLLATE NOCASE)",
    )
    changes_of(device, "INSERT INTO word VALUES ('a', NULL, 's')")
    assert changes_of(device, "REPLACE INTO word VALUES ('b', NULL, 'S')") == [
        ("delete", "a", None),
        ("create", "b", {"meaning": None, "sign": "S"}),
    ]


def test_a_change_of_kind_only(open_device: OpenDevice) -> None:
    device = word_device(
        open_device, "CREATE TABLE word (word TEXT PRIMARY KEY, meaning, sign TEXT)"
    )
    changes_of(device, "INSERT INTO word (word, meaning) VALUES ('a', 1)")
    for stored, wire in (
        ("1.0", 1.0),
        ("'1'", "1"),
        ("x'31'", {"bytes": "MQ=="}),
        ("NULL", None),
        ("0.0", 0.0),
        ("-0.0", -0.0),
        ("''", ""),
    ):
        [(_, _, value)] = changes_of(device, f"UPDATE word SET meaning = {stored}")
        assert repr(value) == repr({"meaning": wire})
        if stored not in ("0.0", "-0.0"):
            assert changes_of(device, f"UPDATE word SET meaning = {stored}") == []


def test_rows_that_an_index_lets_stand_are_not_displaced(open_device: OpenDevice) -> None:
    device = word_device(
        open_device,
        "CREATE TABLE word (word TEXT PRIMARY KEY, meaning, sign TEXT)",
        "CREATE UNIQUE INDEX signs ON word (sign) WHERE meaning IS NOT NULL",
    )
    changes_of(
        device, "INSERT INTO word VALUES ('a', NULL, 's'); INSERT INTO word VALUES ('b', 1, 's')"
    )
    assert changes_of(device, "INSERT INTO word VALUES ('c', NULL, 's')") == [
        ("create", "c", {"meaning": None, "sign": "s"})
    ]
    assert changes_of(device, "REPLACE INTO word VALUES ('d', 2, 's')") == [
        ("delete", "b", None),
        ("create", "d", {"meaning": 2, "sign": "s"}),
    ]


def test_what_only_recursive_triggers_tell(open_device: OpenDevice) -> None:
    """A unique expression, and UPDATE OR REPLACE: covered on connections with that setting."""
    device = word_device(
        open_device,
        "CREATE TABLE word (word TEXT PRIMARY KEY, meaning, sign TEXT)",
        "CREATE UNIQUE INDEX signs ON word (lower(sign))",
        "PRAGMA recursive_triggers = 1",
    )
    changes_of(
        device, "INSERT INTO word VALUES ('a', NULL, 's'); INSERT INTO word VALUES ('b', 1, 't')"
    )
    assert changes_of(device, "UPDATE OR REPLACE word SET sign = 'T' WHERE word = 'a'") == [
        ("delete", "b", None),
        ("modify", "a", {"sign": "T"}),
    ]
    assert changes_of(device, "REPLACE INTO word VALUES ('c', NULL, 't')") == [
        ("delete", "a", None),
        ("create", "c", {"meaning": None, "sign": "t"}),
    ]
    # What the other way sees, too, is not recorded twice.
    assert changes_of(device, "REPLACE INTO word VALUES ('c', NULL, 't')") == [
        ("delete", "c", None),
        ("create", "c", {"meaning": None, "sign": "t"}),
    ]


def test_names_that_need_quotes(open_device: OpenDevice) -> None:
    class Odd(SyncModel):
        select = peewee.TextField(column_name='the "{value}" of %s')

        class Meta:
            table_name = 'an "odd" {table}'
            schema = "main"

    device = open_device([Odd], recorder="triggers")
    with device:
        Odd.create(id=uuid.UUID(int=1), select="x")
        Odd.update(select="y").execute()
        Odd.replace(id=uuid.UUID(int=1), select="z").execute()
        assert [entry.value for entry in device.log()] == [{"select": text} for text in "xyz"]


@pytest.mark.parametrize("name", ["new", "old", "held"])
def test_tables_that_are_called_as_what_triggers_speak_of(
    name: str, open_device: OpenDevice
) -> None:
    class Odd(SyncModel):
        key = peewee.CharField(primary_key=True)
        v0 = peewee.TextField(unique=True)

        class Meta:
            table_name = name

    device = open_device([Odd], recorder="triggers")
    with device:
        for letter in "abc":
            Odd.create(key=letter, v0=letter)
        before = len(device.log())
        Odd.update(key="x").where(Odd.key == "a").execute()
        Odd.replace(key="y", v0="b").execute()
        assert [(operation, pk) for operation, _, pk, *_ in device.log()[before:]] == [
            ("delete", "a"),
            ("create", "x"),
            ("delete", "b"),
            ("create", "y"),
        ]


def test_a_table_that_is_wider_than_those_before(open_device: OpenDevice) -> None:
    wide: Any = type(
        "Wide", (SyncModel,), {f"f{n}": peewee.IntegerField(default=n) for n in range(150)}
    )
    device = open_device([Word], "file", recorder="triggers")
    with device:
        Word.create(word="a")
    device.close()
    device = open_device([Word, wide], "file", recorder="triggers")
    with device:
        wide.create()
        wide.update(f149=0).execute()
        Word.create(word="b")
        created, changed = [e.value for e in device.log() if e.collection == "wide"]
        assert created == {f"f{n}": n for n in range(150)}
        assert changed == {"f149": 0}
        assert [e.pk for e in device.log() if e.collection == "word"] == ["a", "b"]


def test_triggers_of_the_application_are_recorded_and_left_alone(open_device: OpenDevice) -> None:
    """What they write is a change as any other; their own statements do not start them again."""
    device = word_device(
        open_device,
        "CREATE TABLE word (word TEXT PRIMARY KEY, meaning, sign TEXT)",
        """CREATE TRIGGER signed AFTER UPDATE ON word BEGIN
            UPDATE word SET sign = ifnull(sign, '') || '!' WHERE word = NEW.word;
        END""",
    )
    changes_of(device, "INSERT INTO word VALUES ('a', NULL, NULL)")
    changes = changes_of(device, "UPDATE word SET meaning = 1")
    assert sorted(changes, key=repr) == [
        ("modify", "a", {"meaning": 1}),
        ("modify", "a", {"sign": "!"}),
    ]
    assert device.database.execute_sql("SELECT * FROM word").fetchall() == [("a", 1, "!")]
