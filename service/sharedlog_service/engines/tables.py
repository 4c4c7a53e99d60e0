"""The tables: their SQL, step by step, and the Peewee models that read them.

The steps are the truth and only ever grow: a released step is never edited. They are in SQLite's
words; `postgres` has its own for the few that differ. The models belong to
no database; each query is bound to the one it runs on, so several stores live in one process.
"""

from __future__ import annotations

from peewee import BigIntegerField, BlobField, IntegerField, Model, TextField

from sharedlog_service.engines.session import Steps

STEPS: Steps = (
    (
        "CREATE TABLE users (id TEXT NOT NULL PRIMARY KEY, created_at INTEGER NOT NULL)",
        """CREATE TABLE logs (
            id INTEGER NOT NULL PRIMARY KEY,
            "user" TEXT NOT NULL UNIQUE REFERENCES users (id),
            epoch TEXT NOT NULL,
            head INTEGER NOT NULL DEFAULT 0,
            bytes INTEGER NOT NULL DEFAULT 0,
            shared_on INTEGER NOT NULL DEFAULT 0
        )""",
        """CREATE TABLE devices (
            no INTEGER NOT NULL PRIMARY KEY,
            log INTEGER NOT NULL REFERENCES logs (id),
            id TEXT NOT NULL UNIQUE,
            name TEXT,
            request_id TEXT,
            created_at INTEGER NOT NULL,
            last_seen INTEGER,
            cursor INTEGER NOT NULL,
            shared_until INTEGER,
            revoked_at INTEGER,
            clock_skew INTEGER,
            UNIQUE (log, request_id)
        )""",
        """CREATE TABLE tokens (
            hash TEXT NOT NULL PRIMARY KEY,
            "user" TEXT NOT NULL REFERENCES users (id),
            name TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            revoked_at INTEGER
        )""",
        # The counts make `stats` independent of the log's length.
        """CREATE TABLE collections (
            id INTEGER NOT NULL PRIMARY KEY,
            log INTEGER NOT NULL REFERENCES logs (id),
            name TEXT NOT NULL,
            creates INTEGER NOT NULL DEFAULT 0,
            modifies INTEGER NOT NULL DEFAULT 0,
            deletes INTEGER NOT NULL DEFAULT 0,
            last_shared_on INTEGER NOT NULL DEFAULT 0,
            UNIQUE (log, name)
        )""",
        # One integer key and a rowid table, not (log, seq) WITHOUT ROWID: an index b-tree keeps
        # only a quarter of a page locally and gives each larger entry an overflow page of its own
        # (entries of 1.2 kB took 4.7 kB). No foreign keys here: they would be looked up per row.
        """CREATE TABLE entries (
            id INTEGER NOT NULL PRIMARY KEY,
            device INTEGER NOT NULL,
            created_on INTEGER NOT NULL,
            group_offset INTEGER NOT NULL,
            shared_on INTEGER NOT NULL,
            operation SMALLINT,
            collection INTEGER,
            row_hash INT,
            -- without what operation and collection tell again: see beginnings.py
            data TEXT NOT NULL
        )""",
        # A device belongs to one log, so this is the identity (log, device, createdOn).
        "CREATE UNIQUE INDEX entries_identity ON entries (device, created_on)",
        # By stretches of the log (see entries.BUCKET_BITS): hashes are scattered, so one tree of
        # them would have a page written for each new entry once the log is long.
        "CREATE INDEX entries_row ON entries ((id >> 14), row_hash) WHERE row_hash IS NOT NULL",
    ),
    # What a device has to show with its next request (see devices.py); empty: it wrote nothing.
    ("ALTER TABLE devices ADD COLUMN lineage TEXT NOT NULL DEFAULT ''",),
    # Of entries that were dropped (see compacting.py) the identity stays, and the place.
    (
        "ALTER TABLE logs ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE logs ADD COLUMN horizon_ticks INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE logs ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE dropped (
            id INTEGER NOT NULL PRIMARY KEY,
            device INTEGER NOT NULL,
            created_on INTEGER NOT NULL,
            shared_on INTEGER NOT NULL,
            fingerprint BLOB NOT NULL
        )""",
        "CREATE UNIQUE INDEX dropped_identity ON dropped (device, created_on)",
    ),
    # What a token may do; none is what those could that were made before there was this column.
    (
        "ALTER TABLE tokens ADD COLUMN scopes TEXT",
        "ALTER TABLE tokens ADD COLUMN device TEXT",
        "ALTER TABLE tokens ADD COLUMN expires_at INTEGER",
    ),
)


class User(Model):
    """Somebody who owns a log."""

    id = TextField(primary_key=True)
    created_at = BigIntegerField()

    class Meta:
        table_name = "users"


class Log(Model):
    """One user's log. `head` is the last seq given; `shared_on` the last service time used."""

    id = BigIntegerField(primary_key=True)
    user = TextField()
    epoch = TextField()
    head = BigIntegerField()
    bytes = BigIntegerField()
    shared_on = BigIntegerField()
    horizon = BigIntegerField(default=0)
    horizon_ticks = BigIntegerField(default=0)
    dropped = BigIntegerField(default=0)

    class Meta:
        table_name = "logs"


class DeviceRow(Model):
    """One replica. `cursor` is a seq: what the device has told us it durably has."""

    no = BigIntegerField(primary_key=True)
    log = BigIntegerField()
    id = TextField()
    name = TextField(null=True)
    request_id = TextField(null=True)
    created_at = BigIntegerField()
    last_seen = BigIntegerField(null=True)
    cursor = BigIntegerField()
    shared_until = BigIntegerField(null=True)
    revoked_at = BigIntegerField(null=True)
    clock_skew = BigIntegerField(null=True)
    lineage = TextField(default="")

    class Meta:
        table_name = "devices"


class Token(Model):
    """A bearer token, as its SHA-256 only."""

    hash = TextField(primary_key=True)
    user = TextField()
    name = TextField()
    created_at = BigIntegerField()
    revoked_at = BigIntegerField(null=True)
    scopes = TextField(null=True)
    device = TextField(null=True)
    expires_at = BigIntegerField(null=True)

    class Meta:
        table_name = "tokens"


class Collection(Model):
    """A collection's name, kept once a log, and how often its entries did what."""

    id = BigIntegerField(primary_key=True)
    log = BigIntegerField()
    name = TextField()
    creates = BigIntegerField()
    modifies = BigIntegerField()
    deletes = BigIntegerField()
    last_shared_on = BigIntegerField()

    class Meta:
        table_name = "collections"


class Entry(Model):
    """One entry. Operation, collection and row hash are null when the data is sealed; the
    collection also if the log had as many as it may (`Limits.log_collections`)."""

    id = BigIntegerField(primary_key=True)
    device = BigIntegerField()
    created_on = BigIntegerField()
    group_offset = BigIntegerField()
    shared_on = BigIntegerField()
    operation = IntegerField(null=True)
    collection = BigIntegerField(null=True)
    row_hash = IntegerField(null=True)
    data = TextField()

    class Meta:
        table_name = "entries"


class Dropped(Model):
    """What stays of an entry that was dropped: that it was there, and what it was."""

    id = BigIntegerField(primary_key=True)
    device = BigIntegerField()
    created_on = BigIntegerField()
    shared_on = BigIntegerField()
    fingerprint = BlobField()

    class Meta:
        table_name = "dropped"


MODELS: tuple[type[Model], ...] = (User, Log, DeviceRow, Token, Collection, Entry, Dropped)

NUMBERED = (("logs", "id"), ("devices", "no"), ("collections", "id"))
"""The columns that the database numbers."""
