"""Database files for the tests of key migration, and what is in them, read by plain SQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

FORUM = """
    CREATE TABLE "user" ("id" INTEGER NOT NULL PRIMARY KEY, "label" TEXT NOT NULL COLLATE NOCASE
        UNIQUE, "photo" BLOB, "score" REAL DEFAULT 1.5, CHECK ("score" > 0));
    CREATE TABLE profile (user_id INTEGER PRIMARY KEY REFERENCES "user" ON DELETE CASCADE,
        label TEXT, shout TEXT GENERATED ALWAYS AS (upper(label)) VIRTUAL);
    CREATE TABLE Message (id INTEGER PRIMARY KEY AUTOINCREMENT, label VARCHAR(40) NOT NULL,
        author_id INT NOT NULL REFERENCES "USER" (id), answers INTEGER DEFAULT NULL,
        /* the first one, by the way */ thread_id INTEGER,
        FOREIGN KEY (answers) REFERENCES message (id) ON DELETE SET NULL,
        FOREIGN KEY (thread_id) REFERENCES message (id) DEFERRABLE INITIALLY DEFERRED,
        UNIQUE (author_id, label));
    CREATE TABLE "likes" (user_id INTEGER REFERENCES user, message_id INTEGER REFERENCES message,
        at DATETIME, PRIMARY KEY (user_id, message_id)) WITHOUT ROWID;
    CREATE TABLE setting (id INTEGER PRIMARY KEY, name TEXT, value);
    CREATE TABLE tag (id INTEGER PRIMARY KEY, setting_id INTEGER REFERENCES setting);
    CREATE INDEX message_thread ON message (thread_id, id DESC) WHERE thread_id IS NOT NULL;
    CREATE INDEX setting_name ON setting (name);
    CREATE VIEW talk AS SELECT u.label, m.label AS said FROM message m JOIN user u
        ON u.id = m.author_id ORDER BY m.id;
    CREATE VIEW loud AS SELECT upper(said) FROM talk;
    CREATE TRIGGER keep_score AFTER INSERT ON message BEGIN
        UPDATE user SET score = score + 1 WHERE id = new.author_id; END;
    CREATE TRIGGER talk_back INSTEAD OF INSERT ON talk BEGIN
        INSERT INTO setting (name) VALUES (new.said); END;

    INSERT INTO user VALUES (1, 'Ann', x'00ff', 1.5), (7, 'bob', NULL, 2), (3, 'Cyd', x'', 1e300);
    INSERT INTO profile VALUES (7, 'about bob'), (1, 'about ann');
    INSERT INTO message VALUES (10, 'hello', 1, NULL, NULL), (12, 'hi', 7, 10, 10),
        (11, 'new', 3, NULL, 11), (-4, 'early', 1, 12, 10);
    INSERT INTO likes VALUES (1, 12, 'now'), (3, 12, 5), (7, -4, NULL);
    INSERT INTO setting VALUES (1, 'theme', 'dark'), (5, 'size', 12.5);
"""
"""All kinds of tables, references and what hangs on them."""

Graph = dict[str, list[dict[str, Any]]]
"""Rows by table, in the order of their keys; a reference is shown as the label it leads to."""


def make(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA synchronous = 0; BEGIN; {script}; COMMIT")
    return path


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as db:
        yield db
        db.commit()


def rows(path: Path, sql: str) -> list[Any]:
    with opened(path) as db:
        return db.execute(sql).fetchall()


def dump(path: Path) -> list[Any]:
    """Everything that is in a file: its schema, and the rows of its tables as they are stored."""
    with opened(path) as db:
        schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        names = sorted(name.replace('"', '""') for kind, name, *_ in schema if kind == "table")
        return sorted(schema) + [db.execute(f'SELECT * FROM "{n}"').fetchall() for n in names]


def graph(path: Path, references: Mapping[str, Mapping[str, str]], key: str = "id") -> Graph:
    """What the tables say. `references` has the columns of each table that refer to another
    one. Keys themselves are left out: they are what changes."""
    with opened(path) as db:
        db.row_factory = sqlite3.Row
        every = {
            table: [dict(row) for row in db.execute(f'SELECT * FROM "{table}" ORDER BY "{key}"')]
            for table in references
        }
    labels = {table: {row[key]: row["label"] for row in some} for table, some in every.items()}
    return {
        table: [
            {
                name: labels[columns[name]][value]
                if name in columns and value is not None
                else value
                for name, value in row.items()
                if name != key
            }
            for row in every[table]
        ]
        for table, columns in references.items()
    }


def check_sound(path: Path) -> None:
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA foreign_key_check") == []


def is_key(value: object, version: int = 7) -> bool:
    """Whether this is a UUID as Peewee's UUIDField stores it."""
    return (
        isinstance(value, str)
        and re.fullmatch("[0-9a-f]{32}", value) is not None
        and UUID(value).version == version
    )
