"""The reference work: records of a text key, two texts, an integer, a boolean, a timestamp.

A change of one record is about 320 bytes of JSON with its envelope.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from typing import Any

import orjson
import peewee

WORDS = [
    "harbour",
    "letter",
    "market",
    "garden",
    "winter",
    "bridge",
    "copper",
    "signal",
    "orchard",
    "paper",
    "engine",
    "valley",
    "lantern",
    "meadow",
    "ticket",
    "summer",
    "café",
    "island",
    "number",
    "window",
]

FIRST_TIMESTAMP = datetime.datetime(2026, 1, 1)

CREATE_TABLE = """CREATE TABLE record (id VARCHAR(255) NOT NULL PRIMARY KEY, title TEXT NOT NULL,
    body TEXT NOT NULL, number INTEGER NOT NULL, done INTEGER NOT NULL, at DATETIME NOT NULL)"""

INSERT = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)"


def record_model(database: peewee.Database, base: Any) -> Any:
    """The model of a record on one database, derived from a tracked or an untracked base."""

    class Record(base):  # type: ignore[misc]
        id = peewee.CharField(primary_key=True)
        title = peewee.TextField()
        body = peewee.TextField()
        number = peewee.IntegerField()
        done = peewee.BooleanField()
        at = peewee.DateTimeField()

    Record._meta.set_database(database)
    return Record


def records(count: int, prefix: str = "a") -> Iterator[dict[str, Any]]:
    """The same records for the same arguments. Other prefixes give other keys."""
    rng = random.Random(prefix)
    for number in range(count):
        yield {
            "id": f"{prefix:0<8}{number:018d}",
            "title": _text(rng, 28),
            "body": _text(rng, 110),
            "number": rng.randrange(100_000),
            "done": rng.random() < 0.5,
            "at": FIRST_TIMESTAMP + datetime.timedelta(seconds=number, microseconds=1),
        }


def _text(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(WORDS, k=length // 5))[:length]


def as_row(record: dict[str, Any]) -> tuple[Any, ...]:
    """A record as the database driver takes it."""
    *others, at = record.values()
    return (*others, str(at))


def as_change(record: dict[str, Any]) -> str:
    """A record's creation as an entry carries it."""
    value = {name: record[name] for name in ("title", "body", "number", "done", "at")}
    change = {
        "operation": "create",
        "collection": "record",
        "pk": record["id"],
        "field": None,
        "value": value,
    }
    return orjson.dumps(change).decode()
