"""The shared log read from its beginning into a temporary database: what it comes to.

A device without a past: the same merging and placing, into copies of the application's tables
that are empty at first. SQLite keeps it on disk and deletes it with the connection, so memory
is bounded by the pages that are read, as on every device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import peewee

from ..apply.applier import Applier
from ..capture.comparing import enforces_foreign_keys
from ..changes import Change, Entry
from ..dialects import quote
from ..errors import EpochChanged
from ..exchange.pipeline import Pipeline
from ..journal.journal import CHUNK, SELECT, SENT, UNSENT, Journal, LocalEntry
from ..models.registry import Registry
from ..remote.sharedlog import SharedLog
from ..tables.versions import Versions

Decode = Callable[[str], "Change | None"]


class Replay:
    """The log up to where the device is, and what the device wrote itself.

    Args:
        source: The device's client log; its database has the tables to be copied.
        shared_log, pipeline, batch_size, byte_limit: As the device uses them.
    """

    def __init__(
        self,
        source: Journal,
        registry: Registry,
        shared_log: SharedLog,
        pipeline: Pipeline,
        *,
        batch_size: int,
        byte_limit: int,
    ) -> None:
        self._source = source
        self._shared_log = shared_log
        self._device = source.device_id()
        self._limits = {"limit": batch_size, "byte_limit": byte_limit}
        self._decode_others: Decode = pipeline.decode
        # What the device itself wrote did not pass post_receive.
        self._decode_own: Decode = replace(pipeline, post_receive=None).decode
        self._decode_logged: Decode = replace(pipeline, post_receive=None, serializer=None).decode
        self._decode: Decode = self._decode_others
        self.checkpoint: str | None = None
        self._followed = 0
        self.entries = 0
        self.database = _copy_of(source.database, registry)
        self.journal = Journal(self.database, lambda: 0)
        self.journal.create_tables()
        self.versions = Versions(self.journal, registry)
        self._applier = Applier(
            registry,
            self.journal,
            self.versions,
            lambda data: self._decode(data),
        )

    def close(self) -> None:
        self.database.close()

    def read_until(self, checkpoint: str | None, progress: Callable[[], None]) -> None:
        """Read on up to where the device is. Takes its time, and no lock of its database."""
        began_anew = checkpoint is None and self.checkpoint is not None
        if began_anew or self._source.device_id() != self._device:
            raise EpochChanged("The device began anew while it was being checked: check it again.")
        while checkpoint is not None and self.checkpoint != checkpoint:
            page = self._shared_log.read_all(
                self._device, after=self.checkpoint, until=checkpoint, **self._limits
            )
            own = [entry for entry in page.entries if entry.device == self._device]
            others = [entry for entry in page.entries if entry.device != self._device]
            self._apply(others, self._decode_others)
            self._apply(own, self._decode_own)
            self.checkpoint = page.cursor if page.has_more else checkpoint
            self.entries += len(page.entries)
            progress()

    def follow(self) -> None:
        """Apply what the device wrote and may not be in the part of the log that was read. Not what
        was refused: nobody else has that. Nor what lies before the checkpoint: it was read, or the
        log has dropped it, together with what ended it."""
        while written := self._written():
            self._apply(written, self._decode_logged)
            self._followed = written[-1].ticks

    def _written(self) -> list[Entry]:
        """The next of these entries, each under the id that it is sent under."""
        cursor = self._source.run(
            f"{SELECT} WHERE ticks > ? AND (status = {UNSENT} OR status = {SENT} "
            f"AND reason IS NULL AND ticks > ?) ORDER BY ticks LIMIT {CHUNK}",
            (self._followed, int(self._source.state("seen_until") or 0)),
        )
        entries = (LocalEntry(*row) for row in cursor.fetchall())
        return [
            Entry(entry.author or self._device, entry.ticks, entry.offset, entry.data())
            for entry in entries
        ]

    def _apply(self, entries: list[Entry], decode: Decode) -> None:
        self._decode = decode
        with self.journal.transaction(), self.journal.keeping():
            self._applier.apply(entries)


def _copy_of(database: peewee.Database, registry: Registry) -> peewee.SqliteDatabase:
    """A temporary database with the same tables, and nothing in those that are tracked."""
    assert isinstance(database, peewee.SqliteDatabase)
    copy = peewee.SqliteDatabase("file:", uri=True)  # no name: a file of SQLite's own
    # Constraints and indexes may use what the application taught its connections.
    for taught in ("_functions", "_aggregates", "_collations", "_window_functions", "_extensions"):
        setattr(copy, taught, getattr(database, taught).copy())
    copy.connect()
    tables = [(tracked.model._meta.schema or "main", tracked.collection) for tracked in registry]
    for schema in {schema for schema, _ in tables}.difference(("main",)):
        copy.execute_sql(f"ATTACH DATABASE '' AS {quote(schema)}")
    for schema, table in tables:
        _copy_table(database, copy, schema, table)
    for schema, table in _untracked_parents(database, tables):
        _copy_table(database, copy, schema, table)
        _copy_rows(database, copy, f"{quote(schema)}.{quote(table)}")
    copy.pragma("foreign_keys", int(enforces_foreign_keys(database)))
    return copy


def _copy_table(source: peewee.Database, copy: peewee.Database, schema: str, table: str) -> None:
    """The table and its indexes as they are; its triggers wrote what is in the log already."""
    found = source.execute_sql(
        f"SELECT sql FROM {quote(schema)}.sqlite_master WHERE lower(tbl_name) = lower(?) "
        "AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC",
        (table,),
    )
    for (sql,) in found.fetchall():
        # SQLite keeps the statement with its first words in this form, and without a schema.
        named = re.sub(
            r"^CREATE (TABLE|(UNIQUE )?INDEX) ", rf"CREATE \1 {quote(schema)}.", sql, count=1
        )
        copy.execute_sql(named)


def _untracked_parents(
    database: peewee.Database, tables: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Tables that are not tracked and that tracked ones refer to: their rows stay as they are."""
    known = {(schema, table.lower()) for schema, table in tables}
    parents = []
    for schema, table in list(known):
        for row in database.execute_sql(
            f"PRAGMA {quote(schema)}.foreign_key_list({quote(table)})"
        ).fetchall():
            parent = (schema, str(row[2]))
            if (schema, parent[1].lower()) not in known:
                known.add((schema, parent[1].lower()))
                parents.append(parent)
    return parents


def _copy_rows(source: peewee.Database, copy: peewee.Database, table: str) -> None:
    cursor = source.execute_sql(f"SELECT * FROM {table}")
    while rows := cursor.fetchmany(CHUNK):
        marks = ", ".join("?" * len(rows[0]))
        copy.cursor().executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
