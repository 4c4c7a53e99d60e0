"""Moving a service's whole state from one database to another, and making sure that it arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from sharedlog_service.engines.database import Database
from sharedlog_service.engines.session import Row, Session
from sharedlog_service.engines.tables import MODELS, NUMBERED
from sharedlog_service.errors import ConfigurationError

PORTION = 500
"""Rows at a time: the largest entries there may be must fit into memory."""


class Contents(NamedTuple):
    """What a table holds: how many rows, and the sum of their hashes, whatever their order."""

    rows: int
    digest: int


Tell = Callable[[str, int], None]
"""Is told a table's name and how many of its rows were copied so far."""


def copy(source: Database, target: Database, tell: Tell = lambda table, rows: None) -> int:
    """Copy everything into an empty database, in one transaction; return the number of rows.

    What is read is of one moment; what was written is read back and compared.
    """
    total = 0
    with source.snapshot() as old, target.transaction() as new:
        old.be_patient()
        new.be_patient()
        for model in MODELS:
            table = model._meta.table_name
            if new.scalar(f"SELECT 1 FROM {table} LIMIT 1"):
                raise ConfigurationError(
                    f"The target is not empty: it has {table}. Choose another database."
                )
        for model in MODELS:
            table, columns = model._meta.table_name, column_names(model)
            copied = _copy_table(old, new, table, columns, tell)
            if copied != contents(new, table, columns):
                raise ConfigurationError(f"What was written to {table} is not what was read.")
            total += copied.rows
        for table, column in NUMBERED:
            new.continue_numbers(table, column)
    return total


def column_names(model: type) -> list[str]:
    """A table's columns, in the order that they have in it."""
    return [field.column_name for field in model._meta.sorted_fields]  # type: ignore[attr-defined]


def contents(db: Session, table: str, columns: Sequence[str]) -> Contents:
    with _streamed(db, table, columns) as found:
        return contents_of(found)


def contents_of(rows: Iterable[Row]) -> Contents:
    count = digest = 0
    for row in rows:
        count += 1
        digest += _hash(row)
    return Contents(count, digest % 2**64)


def _copy_table(
    old: Session, new: Session, table: str, columns: Sequence[str], tell: Tell
) -> Contents:
    rows = digest = 0
    with _streamed(old, table, columns) as found:
        while portion := list(islice(found, PORTION)):
            new.insert_rows(table, portion)
            rows += len(portion)
            digest += contents_of(portion).digest
            tell(table, rows)
    return Contents(rows, digest % 2**64)


def _streamed(
    db: Session, table: str, columns: Sequence[str]
) -> AbstractContextManager[Iterator[Row]]:
    names = ", ".join(f'"{column}"' for column in columns)
    return db.stream(f"SELECT {names} FROM {table}")


def _hash(row: Row) -> int:
    return int.from_bytes(blake2b(repr(tuple(row)).encode(), digest_size=8).digest())
