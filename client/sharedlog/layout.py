"""The tables that sharedlog keeps in the application's database.

- `sharedlog_entry`: local entries, in the order of their timestamps; unsent, sent or refused;
- `sharedlog_inbox`: received entries that are not applied: not yet, or not readable;
- `sharedlog_row`: versions and tombstones, one record a row; they outlive the entries;
- `sharedlog_device`, `sharedlog_shape`: short numbers for device ids and lists of fields;
- `sharedlog_clock`, `sharedlog_state`: the clock's floor; device id, checkpoint, and the like.
"""

from __future__ import annotations

from collections.abc import Mapping

OURS = "sharedlog_"
"""Begins the names of what is no table of the application."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS sharedlog_entry (
        ticks INTEGER PRIMARY KEY, offset_ticks INTEGER NOT NULL, collection TEXT NOT NULL,
        pk TEXT NOT NULL, operation INTEGER NOT NULL, value TEXT, rules TEXT,
        status INTEGER NOT NULL, reason TEXT, schema INTEGER NOT NULL)""",
    """CREATE INDEX IF NOT EXISTS sharedlog_entry_reason ON sharedlog_entry (reason)
        WHERE reason IS NOT NULL""",
    """CREATE TABLE IF NOT EXISTS sharedlog_inbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, ticks INTEGER NOT NULL,
        offset_ticks INTEGER NOT NULL, data TEXT NOT NULL, reason TEXT,
        UNIQUE (device, ticks))""",
    """CREATE TABLE IF NOT EXISTS sharedlog_row (
        collection TEXT NOT NULL, pk TEXT NOT NULL, born INTEGER, born_device INTEGER,
        shape INTEGER, died INTEGER, died_device INTEGER, fields TEXT, held TEXT, parked TEXT,
        buried TEXT, kept INTEGER, cleared TEXT, writes TEXT,
        PRIMARY KEY (collection, pk)) WITHOUT ROWID""",
    """CREATE INDEX IF NOT EXISTS sharedlog_row_parked ON sharedlog_row (collection)
        WHERE parked IS NOT NULL""",
    """CREATE INDEX IF NOT EXISTS sharedlog_row_held ON sharedlog_row (collection)
        WHERE held IS NOT NULL AND born IS NOT NULL AND parked IS NULL""",
    """CREATE INDEX IF NOT EXISTS sharedlog_row_apart ON sharedlog_row (collection)
        WHERE kept IS NOT NULL OR cleared IS NOT NULL""",
    "CREATE TABLE IF NOT EXISTS sharedlog_device (number INTEGER PRIMARY KEY, id TEXT UNIQUE)",
    "CREATE TABLE IF NOT EXISTS sharedlog_shape (number INTEGER PRIMARY KEY, fields TEXT UNIQUE)",
    """CREATE TABLE IF NOT EXISTS sharedlog_clock (
        one INTEGER PRIMARY KEY CHECK (one = 1), floor INTEGER NOT NULL,
        lead_ms INTEGER NOT NULL)""",
    "INSERT OR IGNORE INTO sharedlog_clock VALUES (1, 0, 0)",
    "CREATE TABLE IF NOT EXISTS sharedlog_state (key TEXT PRIMARY KEY, value TEXT)",
)

DATED_ANEW = (
    "ALTER TABLE sharedlog_entry ADD COLUMN recorded INTEGER",
    """CREATE INDEX IF NOT EXISTS sharedlog_entry_recorded ON sharedlog_entry (recorded)
        WHERE recorded IS NOT NULL""",
)

STEPS = (TABLES, DATED_ANEW)
"""What brings a database from one layout to the next, each a series of statements. A new one
takes all of them. They only ever grow: a released step is never edited."""

LAYOUT = 2
"""The version of these tables, kept in `sharedlog_state`: how many steps a database has taken."""

REPLACED: Mapping[str, tuple[str, str]] = {
    "sharedlog_row": (
        "collection, pk",
        "born, born_device, shape, died, died_device, fields, held, parked, buried, kept, "
        "cleared, writes",
    ),
    "sharedlog_state": ("key", "value"),
}
"""The tables whose records are replaced as a whole: their keys, and their other columns."""

TRACE_TABLES = (
    """CREATE TABLE IF NOT EXISTS sharedlog_capture (
        one INTEGER PRIMARY KEY CHECK (one = 1), off INTEGER NOT NULL)""",
    "INSERT OR IGNORE INTO sharedlog_capture VALUES (1, 0)",
    """CREATE TABLE IF NOT EXISTS sharedlog_trace (
        number INTEGER PRIMARY KEY, shape INTEGER, operation INTEGER, at REAL, changed TEXT)""",
    """CREATE TABLE IF NOT EXISTS sharedlog_trace_shape (
        number INTEGER PRIMARY KEY, names TEXT UNIQUE)""",
    "CREATE TABLE IF NOT EXISTS sharedlog_rival (shape INTEGER)",
)
"""Only where triggers record. Traces and rivals get columns v0, v1, … for the values of the
widest table; they have no type, so that each value stays what it is."""

POSTGRES_TRACE_TABLES = (
    """CREATE TABLE IF NOT EXISTS sharedlog_trace (
        number BIGSERIAL PRIMARY KEY, shape BIGINT NOT NULL, operation BIGINT NOT NULL,
        at BIGINT NOT NULL, tx BIGINT NOT NULL, place TEXT, was TEXT, became TEXT)""",
    "CREATE INDEX IF NOT EXISTS sharedlog_trace_tx ON sharedlog_trace (tx)",
    """CREATE TABLE IF NOT EXISTS sharedlog_trace_shape (
        number BIGSERIAL PRIMARY KEY, names TEXT COLLATE "C" UNIQUE)""",
)
"""The same in PostgreSQL, where one function notes the rows of all tables. `place` is where:
number, schema and name of the table at that time."""

POSTGRES_TRACES_BEFORE = """ALTER TABLE sharedlog_trace ADD COLUMN place TEXT,
    ALTER COLUMN was TYPE TEXT, ALTER COLUMN became TYPE TEXT"""
"""For a table of traces that has no `place` yet."""
