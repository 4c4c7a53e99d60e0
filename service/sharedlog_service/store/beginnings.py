"""What the data of many entries begin with, kept once a collection and not in each entry.

Plain data usually begin with `{"operation":"create","collection":"note","pk":`. The columns say the
same, so the log leaves that much out, an eighth of a usual entry, and puts it back when an entry
is read. Data that begin in any other way are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from sharedlog_service.engines.session import Row, Session
from sharedlog_service.entries import OPERATIONS

KIND = "collection << 2 | operation"
"""One number for both; null where the data are sealed. What `Beginnings` are kept by."""

OBJECT = frozenset("{ \t\r\n")
"""How whole plain data begin: with a brace or with white space. What is left out is never
followed by any of these, so what is kept tells by itself which it is."""


def parts_of(kind: int) -> tuple[int, int]:
    """Return the collection's number and the operation that a `KIND` holds."""
    return kind >> 2, kind & 3


def beginning(operation: int, collection: str) -> str:
    name = orjson.dumps(collection).decode()
    return f'{{"operation":"{OPERATIONS[operation]}","collection":{name},"pk":'


def without(start: str, data: str) -> str:
    """Return what the log keeps of plain data whose beginning should be `start`."""
    rest = data.removeprefix(start)
    return data if rest[0] in OBJECT else rest


class Beginnings(dict[int | None, str]):
    """The beginnings of plain data, by kind."""

    def __init__(self, db: Session) -> None:
        super().__init__({None: ""})
        self._db = db

    def __missing__(self, kind: int) -> str:
        collection, operation = parts_of(kind)
        name = self._db.scalar("SELECT name FROM collections WHERE id = ?", collection)
        self[kind] = beginning(operation, name)
        return self[kind]

    def whole(self, found: Iterable[Row]) -> Iterator[Row]:
        """Put the beginnings back: of rows that end in (kind, what was kept), yield rows that
        end in the data."""
        for key, device, created_on, group, shared_on, kind, kept in found:
            data = kept if kept[0] in OBJECT else self[kind] + kept
            yield key, device, created_on, group, shared_on, data
