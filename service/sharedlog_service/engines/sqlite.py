"""The SQLite file: one writing connection, a pool of reading ones, durable and up to date.

Knows how to open, migrate and begin; not what the tables mean. Free of threads: the pool only has
to survive being used from several, and whoever writes has to write from one at a time.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import peewee
from playhouse.apsw_ext import APSWDatabase

from sharedlog_service.engines.session import Row, Session, migrate
from sharedlog_service.engines.tables import STEPS
from sharedlog_service.errors import Code, ConfigurationError, Refused

SQLITE_MIN = (3, 51, 3)
"""From 3.7.0 to 3.51.2 several connections at one WAL could corrupt it: sqlite.org/wal.html."""

BUSY_TIMEOUT_S = 5

# Trouble of the machine, not of the request: whole or absent, and worth another try.
TRANSIENT = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
    apsw.InterruptError,
)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite found that it cannot make sense of the file."""
    reasons = (error, error.__cause__, error.__context__)
    return any(isinstance(reason, apsw.CorruptError | apsw.NotADBError) for reason in reasons)


class SqliteSession(Session, APSWDatabase):  # type: ignore[misc]
    """A connection to an SQLite file."""

    numbers = "(SELECT value FROM json_each(?))"
    texts = numbers

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        return list(self.driver.execute(sql, parameters))

    @contextmanager
    def stream(self, sql: str, *parameters: object) -> Iterator[Iterator[Row]]:
        cursor = self.driver.execute(sql, parameters)
        try:
            yield cursor
        finally:
            cursor.close(True)

    def insert_rows(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.driver.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    @property
    def in_autocommit(self) -> bool:
        """Whether no transaction is open; the driver knows, also after SQLite ended one itself."""
        return bool(self.driver.getautocommit())


class SqliteFile:
    """Hands out connections inside transactions, and nothing else."""

    writers = 1
    """How many transactions can write at a time. What waits for its turn shares a commit."""

    def __init__(self, path: Path | str) -> None:
        check_sqlite(apsw.sqlitelibversion())
        check_folder(Path(path))
        is_new = not Path(path).exists()
        self._path = str(path)
        self._idle: deque[SqliteSession] = deque()
        self._closed = False
        self._spoiled = False
        self._writer = self._connect(
            # Before the file exists: larger pages keep entries of up to 8 kB in one piece.
            ("page_size", 8192),
            ("journal_mode", "wal"),
            ("synchronous", "full"),
            ("foreign_keys", 1),
            ("cache_size", -16 * 1024),
            ("journal_size_limit", 64 * 1024 * 1024),
        )
        try:
            if is_new:
                make_private(self._path)
            self._check_durability()
            with self.transaction() as db:
                tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
                found = [name for (name,) in db.rows(tables)]
                migrate(db, STEPS, found, named=self._path)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[SqliteSession]:
        """Write: all or nothing, durable on return. Inside another one, a savepoint of it."""
        db = self._writer
        scope = self._savepoint if db.in_transaction() else self._whole
        with translated_errors(self._path), scope(db):
            yield db
            self._check_alive()

    @contextmanager
    def snapshot(self) -> Iterator[SqliteSession]:
        """Read: everything inside sees one and the same committed state."""
        try:
            db = self._idle.pop()
        except IndexError:
            db = self._reader()
        try:
            with translated_errors(self._path), unused(db).atomic():
                yield db
        finally:
            if self._closed:
                db.close()
            else:
                self._idle.append(db)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        # Last, so that SQLite folds the write-ahead log into the file and removes it.
        self._writer.close()

    @contextmanager
    def _whole(self, db: SqliteSession) -> Iterator[None]:
        with unused(db).transaction("IMMEDIATE"):
            self._spoiled = False
            yield

    @contextmanager
    def _savepoint(self, db: SqliteSession) -> Iterator[None]:
        """Undo only what happens inside when it fails. Of one fixed name, so that its statements
        stay prepared; the innermost is meant."""
        self._check_alive()
        db.rows("SAVEPOINT nested")
        try:
            yield
            db.rows("RELEASE nested")
        except BaseException:
            if not (db.in_autocommit or self._spoiled):
                self._spoiled = True
                db.rows("ROLLBACK TO nested")
                db.rows("RELEASE nested")
                self._spoiled = False
            raise

    def _check_alive(self) -> None:
        """After a full disk or an I/O error SQLite may have rolled back everything by itself, or a
        part may be left that could not be undone. Going on would commit halves, and acknowledge
        what is gone."""
        if self._spoiled or self._writer.in_autocommit:
            raise Refused(Code.UNAVAILABLE)

    def _reader(self) -> SqliteSession:
        return self._connect(("query_only", 1), ("cache_size", -8 * 1024))

    def _connect(self, *pragmas: tuple[str, str | int]) -> SqliteSession:
        with translated_errors(self._path):
            db: SqliteSession = SqliteSession(
                self._path, pragmas=pragmas, timeout=BUSY_TIMEOUT_S, thread_safe=False
            )
            db.connect()
            return db

    def _check_durability(self) -> None:
        """Read back what was set: SQLite ignores a pragma it cannot honour, without a word."""
        expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        for name, value in expected.items():
            found = self._writer.scalar(f"PRAGMA {name}")
            if found != value:
                raise ConfigurationError(
                    f"{self._path}: SQLite answers {name}={found!r} where {value!r} is needed to "
                    "keep what is acknowledged. Is the file on a network or read-only drive?"
                )


def unused(db: SqliteSession) -> SqliteSession:
    """Make sure that no transaction is open: out of memory even a rollback fails, and what it left
    behind would be in the way for ever."""
    if not db.in_autocommit:
        db.rows("ROLLBACK")
    return db


def check_sqlite(version: str) -> None:
    """Refuse an SQLite that can corrupt the file."""
    if tuple(map(int, version.split("."))) < SQLITE_MIN:
        raise ConfigurationError(
            f"SQLite {version} can corrupt a database that several connections use; "
            f"{'.'.join(map(str, SQLITE_MIN))} or newer is needed. Run: pip install -U apsw"
        )


def check_folder(path: Path) -> None:
    """Say plainly what SQLite would only call "unable to open database file"."""
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"The folder of {path} does not exist.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; a database file is needed.")


def make_private(path: str) -> None:
    """Leave a file to its owner only, as long as there is nothing in it: it gets everybody's data.
    SQLite gives those that it makes beside it later the same rights."""
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):  # a file system may know no rights
            Path(name).chmod(0o600)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be read, written or made, with the system's reason; makes
    nothing."""
    check_folder(path)
    try:
        if not path.exists():
            # Not under its own name: another process might open that before it is gone again.
            with tempfile.TemporaryFile(dir=path.absolute().parent):
                pass
        # Asked, not opened: closing would drop locks that this process has on the file.
        elif not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigurationError(f"Cannot read and write {path}: {error.strerror}.") from error


def check_unused(path: Path) -> None:
    """Refuse a file that is open elsewhere: in another process, or in this one."""
    flags = apsw.SQLITE_OPEN_READWRITE
    with translated_errors(path), closing(apsw.Connection(str(path), flags)) as db:
        db.execute("PRAGMA locking_mode = exclusive")
        try:
            db.execute("BEGIN EXCLUSIVE; ROLLBACK")
        except (apsw.BusyError, apsw.LockedError) as error:
            raise Refused(
                Code.UNAVAILABLE,
                f"{path} is in use: stop the service, and whatever else has it open, first.",
            ) from error


@contextmanager
def translated_errors(path: Path | str) -> Iterator[None]:
    """Turn the driver's words for "not now" into ours, in one place."""
    try:
        yield
    except (apsw.Error, peewee.PeeweeException) as error:
        # Peewee wraps what it runs itself and keeps the driver's own error as `orig`.
        driver = getattr(error, "orig", error)
        if isinstance(driver, apsw.NotADBError):
            raise ConfigurationError(f"{path} is not an SQLite database.") from error
        if isinstance(driver, TRANSIENT):
            raise Refused(Code.UNAVAILABLE) from error
        raise
