"""What the data of many entries begin with, kept once a collection and not in each entry.

Plain data usually begin with `{"operation":"create","collection":"note","pk":`. The columns say the
same, so the log leaves that much out, an eighth of a usual entry, and puts it back when an entry
is read. Data that begin in any other way are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson
import peewee

from sharedlog_service.database import Row, scalar
from sharedlog_service.entries import OPERATIONS

OBJECT = frozenset("{ \t\r\n")
"""How whole plain data begin: with a brace or with white space. What is left out is never
followed by any of these, so what is kept tells by itself which it is."""


class Beginnings(dict[tuple[int | None, int | None], str]):
    """The beginnings of plain data, by the columns operation and collection."""

    def __init__(self, db: peewee.Database) -> None:
        super().__init__({(None, None): ""})
        self._db = db

    def __missing__(self, kind: tuple[int | None, int | None]) -> str:
        operation, collection = kind
        assert operation is not None
        name = scalar(self._db, "SELECT name FROM collections WHERE id = ?", collection)
        start = f'{{"operation":"{OPERATIONS[operation]}","collection":'
        self[kind] = f'{start}{orjson.dumps(name).decode()},"pk":'
        return self[kind]

    def without(self, data: str, operation: int | None, collection: int | None) -> str:
        """Return what the log keeps of these data."""
        rest = data.removeprefix(self[operation, collection])
        return data if rest[0] in OBJECT else rest

    def whole(self, found: Iterable[Row]) -> Iterator[Row]:
        """Put the beginnings back: of rows that end in (operation, collection, what was kept),
        yield rows that end in the data."""
        for key, device, created_on, group, shared_on, operation, collection, kept in found:
            data = kept if kept[0] in OBJECT else self[operation, collection] + kept
            yield key, device, created_on, group, shared_on, data
