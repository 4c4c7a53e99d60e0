"""Rows as they are stored, whatever another program wrote in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peewee

from .dialects import Dialect


def stored_rows(
    dialect: Dialect, database: peewee.Database, sql: str, parameters: Sequence[Any]
) -> list[Any]:
    """What a query finds. Text that is not UTF-8 comes as the bytes that it is: so it has a wire
    form like any value of another type than its field's, and blocks nobody."""
    try:
        return list(dialect.run(database, sql, parameters).fetchall())
    except (peewee.OperationalError, sqlite3.OperationalError) as error:
        if "decode" not in str(error):
            raise
    with _any_text(database.connection()):
        return list(dialect.run(database, sql, parameters).fetchall())


@contextmanager
def _any_text(connection: Any) -> Iterator[None]:
    factory = connection.text_factory
    connection.text_factory = _text
    try:
        yield
    finally:
        connection.text_factory = factory


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
