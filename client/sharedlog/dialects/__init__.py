"""The databases that an application may keep its tables in, and what differs between them."""

from __future__ import annotations

import peewee

from .base import Dialect, Trigger, quote
from .mysql import MySQL
from .postgres import Postgres
from .sqlite import SQLite

__all__ = ["Dialect", "Trigger", "dialect_of", "quote"]


def dialect_of(database: peewee.Database) -> Dialect:
    """The dialect of a database that `checks.resolved` let pass."""
    if isinstance(database, peewee.PostgresqlDatabase):
        return Postgres()
    return MySQL() if isinstance(database, peewee.MySQLDatabase) else SQLite()
