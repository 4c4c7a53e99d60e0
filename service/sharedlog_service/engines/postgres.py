"""PostgreSQL: any number of processes at one database, each with a few connections.

Writers of one log take turns by the lock of its row (see `places.log_of`), so a seq is never given
out of the order of the commits. Nothing here waits for ever: locks, statements and connections that
were left behind have an end.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import peewee
import psycopg
from psycopg import errors

from sharedlog_service.engines.session import Row, Session, migrate
from sharedlog_service.engines.tables import NUMBERED, STEPS
from sharedlog_service.errors import Code, ConfigurationError, Refused

WRITERS = 8

STREAM_ROWS = 200
"""Rows in one portion of a stream: the largest entries there may be must fit into memory."""

MIGRATION_LOCK = 0x5106_0001
"""Taken while the tables are looked at, so that two processes do not make them at once."""

SETTINGS: Mapping[str, str] = {
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
}

# Trouble of the server or of a race that another try decides: whole or absent.
TRANSIENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.UniqueViolation,
)


class PostgresSession(Session, peewee.PostgresqlDatabase):
    """A connection to a PostgreSQL server."""

    locking = " FOR UPDATE"
    numbers = "(SELECT jsonb_array_elements_text(?::jsonb)::bigint)"
    texts = "(SELECT jsonb_array_elements_text(?::jsonb))"

    def __init__(self, url: str) -> None:
        super().__init__(url, prefer_psycopg3=True, thread_safe=False, connect_timeout=10)
        self._streams = 0

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        cursor = self.driver.execute(_marked(sql), parameters or None)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def stream(self, sql: str, *parameters: object) -> Iterator[Iterator[Row]]:
        self._streams += 1
        with self.driver.cursor(f"stream{self._streams}") as cursor:
            cursor.itersize = STREAM_ROWS
            yield iter(cursor.execute(_marked(sql), parameters))

    def insert_rows(self, table: str, rows: Sequence[Row]) -> None:
        with self.driver.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def be_patient(self) -> None:
        self.rows("SET LOCAL statement_timeout = 0")
        self.rows("SET LOCAL idle_in_transaction_session_timeout = 0")

    def continue_numbers(self, table: str, column: str) -> None:
        self.rows(
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) "
            f"FROM {table}"
        )

    @property
    def works(self) -> bool:
        """Whether the connection can be used again."""
        found = self.driver
        return not found.closed and found.info.transaction_status == IDLE


IDLE = psycopg.pq.TransactionStatus.IDLE


class PostgresServer:
    """Hands out connections inside transactions, and nothing else."""

    writers = WRITERS

    def __init__(self, url: str, *, making: bool = True, migrating: bool = False) -> None:
        self._url = url
        self._idle: deque[PostgresSession] = deque()
        self._closed = False
        self._here = threading.local()
        try:
            with self.transaction() as db:
                self._prepare(db, making=making, only_new=not migrating)
        except Refused as refused:
            reason = str(refused.__cause__).strip()
            raise Refused(refused.code, f"The database cannot be used: {reason}") from refused
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[PostgresSession]:
        """Write: all or nothing, durable on return. Inside another one, a savepoint of it."""
        outer: PostgresSession | None = getattr(self._here, "session", None)
        if outer is not None:
            with translated_errors(), outer.atomic():
                yield outer
            return
        with self._lent() as db:
            self._here.session = db
            try:
                with translated_errors(), db.atomic():
                    yield db
            finally:
                self._here.session = None

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSession]:
        """Read: everything inside sees one and the same committed state."""
        with self._lent() as db, translated_errors(), db.atomic("REPEATABLE READ READ ONLY"):
            yield db

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _lent(self) -> Iterator[PostgresSession]:
        try:
            db = self._idle.pop()
        except IndexError:
            db = self._connect()
        try:
            yield db
        finally:
            if self._closed or not db.works:
                db.close()
            else:
                self._idle.append(db)

    def _connect(self) -> PostgresSession:
        with translated_errors():
            db = PostgresSession(self._url)
            db.connect()
            db.rows("; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items()))
            if db.scalar("SHOW synchronous_commit") == "off":
                db.rows("SET synchronous_commit = on")  # what is acknowledged is durable
            return db

    def _prepare(self, db: PostgresSession, *, making: bool, only_new: bool) -> None:
        db.rows("SELECT pg_advisory_xact_lock(?)", MIGRATION_LOCK)
        if db.scalar("SHOW server_encoding") != "UTF8":
            raise ConfigurationError("The database must have the encoding UTF8.")
        tables = db.get_tables()
        if not (making or tables):
            raise ConfigurationError(
                "The database is empty. To make the tables, run: sharedlog migrate"
            )
        steps = [[_in_our_words(statement) for statement in step] for step in STEPS]
        migrate(db, steps, tables, only_new=only_new)


def _in_our_words(statement: str) -> str:
    """A statement of `tables`: SQLite's integers have 64 bits, and number rows by themselves."""
    for table, column in NUMBERED:
        if statement.startswith(f"CREATE TABLE {table} "):
            numbered = f"{column} BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
            statement = statement.replace(f"{column} INTEGER NOT NULL PRIMARY KEY", numbered)
    return re.sub(r"\bINTEGER\b", "BIGINT", statement.replace("BLOB", "BYTEA"))


def _marked(sql: str) -> str:
    return sql.replace("?", "%s")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's words for "not now" into ours, in one place."""
    try:
        yield
    except (psycopg.Error, peewee.PeeweeException) as error:
        # Peewee wraps what it runs itself and keeps the driver's own error as `orig`.
        if isinstance(getattr(error, "orig", error), TRANSIENT):
            raise Refused(Code.UNAVAILABLE) from error
        raise
