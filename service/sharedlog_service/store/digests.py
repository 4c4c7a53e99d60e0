"""What a backup holds, in digests that lie in it: they show that a bit of a row has changed.

SQLite itself checks that pages fit together, and not what is written on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from sharedlog_service.store.copying import contents_of

TABLE = "digests"

SCHEMA = "sqlite_master"

SCHEMA_SQL = f"SELECT type, name, tbl_name, sql FROM {SCHEMA} WHERE tbl_name != '{TABLE}'"
"""The tables as such, without the pages where they begin."""

Digests = Mapping[str, tuple[int, str]]
"""By a table's name, how many rows it has, and their digest in hex: SQLite's integers are too short
by one bit. The tables themselves are rows of SQLite's own one."""


def make_digests(db: apsw.Connection) -> Digests:
    """Read all that there is, of whatever version, but digests."""
    names = [name for kind, _, name, _ in db.execute(SCHEMA_SQL) if kind == "table"]
    found = {name: contents_of(db.execute(f'SELECT * FROM "{name}"')) for name in names}
    found[SCHEMA] = contents_of(db.execute(SCHEMA_SQL))
    return {name: (rows, f"{digest:016x}") for name, (rows, digest) in found.items()}


def keep_digests(db: apsw.Connection, digests: Digests) -> None:
    """Write them into a backup; there are some already if it was made of another backup."""
    drop_digests(db)
    with db:
        db.execute(f"CREATE TABLE {TABLE} (name TEXT NOT NULL, count INTEGER, digest TEXT)")
        rows = [(name, *found) for name, found in digests.items()]
        db.executemany(f"INSERT INTO {TABLE} VALUES (?, ?, ?)", rows)


def kept_digests(db: apsw.Connection) -> Digests | None:
    """Return what a backup says of itself; None if that was not yet done when it was made."""
    if not db.execute(f"SELECT 1 FROM {SCHEMA} WHERE name = '{TABLE}'").get:
        return None
    kept = db.execute(f"SELECT name, count, digest FROM {TABLE}")
    return {name: (rows, digest) for name, rows, digest in kept}


def drop_digests(db: apsw.Connection) -> None:
    """Leave none in what is a database again."""
    db.execute(f"DROP TABLE IF EXISTS {TABLE}")


def changed_table(kept: Digests, found: Digests) -> str | None:
    """Return the name of a table that is not what it was."""
    return next((name for name in {**kept, **found} if kept.get(name) != found.get(name)), None)
