"""Rows as they are stored, whatever another program wrote in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peewee

from ..dialects import Dialect

Decode = Callable[[bytes], Any]


def text_or_bytes(raw: bytes) -> str | bytes:
    """Text that is not UTF-8 comes as the bytes that it is: so it has a wire form like any value of
    another type than its field's, and blocks nobody."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def stored_rows(
    dialect: Dialect,
    database: peewee.Database,
    sql: str,
    parameters: Sequence[Any],
    decode: Decode = text_or_bytes,
) -> list[Any]:
    """What a query finds. If there is text among it that is not UTF-8, `decode` makes something of
    all texts."""
    try:
        return dialect.rows(dialect.run(database, sql, parameters))
    except (peewee.OperationalError, sqlite3.OperationalError) as error:
        if "decode" not in str(error):
            raise
    with _decoding(database.connection(), decode):
        return dialect.rows(dialect.run(database, sql, parameters))


@contextmanager
def _decoding(connection: Any, decode: Decode) -> Iterator[None]:
    factory = connection.text_factory
    connection.text_factory = decode
    try:
        yield
    finally:
        connection.text_factory = factory
