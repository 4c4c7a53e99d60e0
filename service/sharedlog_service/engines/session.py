"""A connection to the database as the store's modules use it, whichever engine is behind it.

SQL is written once, with `?` for parameters, in words that both engines understand; where they have
none in common, a session has the word. Free of threads: a session is one thread's at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import peewee

from sharedlog_service.errors import ConfigurationError

Row = tuple[Any, ...]

Steps = Sequence[Sequence[str]]
"""What brings a database from one version of its tables to the next, each so many statements."""


class Session(peewee.Database):
    """What an engine's connection can do beside running Peewee's queries."""

    locking: ClassVar[str] = ""
    """Behind a SELECT: keep others from changing its rows until the end of the transaction."""

    numbers: ClassVar[str] = ""
    """The numbers of a JSON list, which is the parameter, as a subquery."""

    texts: ClassVar[str] = ""
    """The same for a list of texts."""

    @property
    def driver(self) -> Any:
        """The driver's own connection."""
        untyped: Any = self
        return untyped.connection()

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """Run one statement, prepared once a connection, and return all its rows."""
        raise NotImplementedError

    def scalar(self, sql: str, *parameters: object) -> Any:
        """Return the first column of the first row, None where there is none."""
        found = self.rows(sql, *parameters)
        return found[0][0] if found else None

    def stream(self, sql: str, *parameters: object) -> AbstractContextManager[Iterator[Row]]:
        """Hand out rows as they are needed: there may be more than fit into memory."""
        raise NotImplementedError

    def insert_rows(self, table: str, rows: Sequence[Row]) -> None:
        """Insert whole rows, with all the table's columns in their order."""
        raise NotImplementedError

    def be_patient(self) -> None:
        """Let statements of this transaction take as long as they need."""

    def continue_numbers(self, table: str, column: str) -> None:
        """Number new rows on from those that were inserted with their numbers."""


def migrate(
    db: Session,
    steps: Steps,
    tables: Sequence[str],
    *,
    named: str = "The database",
    only_new: bool = False,
) -> None:
    """Bring a database to this version's tables, in the caller's transaction. Forward only.

    `tables` are those that it has. With `only_new`, a database that has older ones is refused.
    """
    if not tables:
        db.rows("CREATE TABLE meta (schema_version INTEGER NOT NULL)")
        db.rows("INSERT INTO meta VALUES (0)")
    elif "meta" not in tables or "logs" not in tables:
        raise ConfigurationError(f"{named} belongs to another program; choose another one.")
    version = db.scalar("SELECT schema_version FROM meta")
    if version > len(steps):
        raise ConfigurationError(
            f"{named} has schema version {version}, this service knows {len(steps)}: "
            "it was written by a newer sharedlog. Upgrade this one."
        )
    if only_new and tables and version < len(steps):
        raise ConfigurationError(
            f"{named} has schema version {version}, this service needs {len(steps)}. "
            "Run: sharedlog migrate"
        )
    for step in steps[version:]:
        for statement in step:
            db.rows(statement)
    if version < len(steps):
        db.rows("UPDATE meta SET schema_version = ?", len(steps))
