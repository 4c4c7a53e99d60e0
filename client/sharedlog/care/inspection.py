"""Looking into a device's database file without its application: what the commands show."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import peewee

from ..apply.parking import Parked, Parking
from ..capture.foreignkeys import check_foreign_keys
from ..changes import FIRST_SCHEMA, dumps, loads
from ..clock import TICKS_PER_MS, Now, system_now
from ..errors import ConfigurationError
from ..exchange.pipeline import Pipeline
from ..journal.inbox import Inbox
from ..journal.journal import DROPPED, OPERATION_NAMES, REFUSED, SENT, Journal
from ..journal.status import Status, read_status
from ..layout import LAYOUT
from ..models.registry import Registry
from ..remote.sharedlog import SharedLog
from ..tables.checks import column_names, missing_columns
from ..tables.digest import DIFFERS, Difference, Digest, parked_rows, take_digest
from ..tables.rows import UNFIT, standing_rows
from ..tables.statements import Values
from ..tables.versions import Versions
from .described import application, gone_tables, models_of, own_rules
from .replay import Replay
from .verify import Verification, Verified, only_differing

SQLITE = b"SQLite format 3\0"
"""How a database file begins."""

UNABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY")
"""How the names of errors begin where SQLite cannot make a file beside the database's, or not use
one that is there."""

BATCH_SIZE, BYTE_LIMIT = 1_000, 1_000_000
BUSY_S = 5


@dataclass(frozen=True, slots=True)
class RefusedChange:
    """A change of this device that the service refused."""

    ticks: int
    operation: str
    collection: str
    pk: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning a file did: entries that are gone, that stay, and that could go, too, once
    the application has merged them."""

    deleted: int
    kept: int
    unmerged: int


class DeviceFile:
    """A device's database file."""

    def __init__(self, path: Path, database: peewee.SqliteDatabase, now: Now) -> None:
        self.path = path
        self.database = database
        self.journal = Journal(database, now)
        self.versions = Versions(self.journal)
        self.inbox = Inbox(self.journal)
        self._now = now

    @cached_property
    def registry(self) -> Registry:
        """The tracked models, as the file tells of them."""
        schema = application(self.journal).get("schema", FIRST_SCHEMA)
        registry = Registry(self.database, models_of(self.journal), schema)
        self._check_columns(registry)
        check_foreign_keys(self.database, registry)
        return registry

    def _check_columns(self, registry: Registry) -> None:
        """Refuse tables that were altered since: SQLite takes the name of a column that is not
        there for a text, the same in each row."""
        for tracked in registry:
            for name in missing_columns(tracked, column_names(self.database, tracked)):
                raise ConfigurationError(
                    f"{self.path}: the table {tracked.collection!r} has no column {name!r} any "
                    "more, and no program was started since that could tell what it has now.",
                    hint="Run the application once, as it is after the migration: its setup() "
                    "notes the columns of today.",
                )

    def gone_tables(self) -> list[str]:
        """Tracked tables that are not in the file any more."""
        return gone_tables(self.journal)

    def status(self) -> Status:
        return read_status(self.journal)

    def parked(self) -> list[Parked]:
        """Parked rows, then entries that cannot be read."""
        return Parking(self.registry, self.journal, self.versions, self.inbox).all()

    def refused(self) -> list[RefusedChange]:
        cursor = self.journal.run(
            "SELECT ticks, operation, collection, pk, reason FROM sharedlog_entry "
            f"WHERE status = {REFUSED} AND reason <> ? ORDER BY ticks",
            (DROPPED,),
        )
        return [
            RefusedChange(ticks, OPERATION_NAMES[operation], collection, loads(pk), reason)
            for ticks, operation, collection, pk, reason in cursor.fetchall()
        ]

    def prune(self, keep_ms: int) -> Pruned:
        """Delete sent entries older than that, as far as the application has merged them."""
        bound = max(0, (self._now() - keep_ms) * TICKS_PER_MS)
        with self.journal.transaction():
            deleted = self.journal.prune(bound)
            kept, unmerged = self.journal.run(
                f"SELECT count(*), ifnull(sum(status = {SENT} AND ticks <= ?), 0) "
                "FROM sharedlog_entry",
                (bound,),
            ).fetchone()
        return Pruned(deleted, kept, unmerged)

    def digest(self, *, rows: Any = False) -> Digest:
        return take_digest(self.registry, self.journal, self.versions, rows=rows)

    def verify(
        self, shared_log: SharedLog, limit: int, progress: Callable[[Verified], None]
    ) -> Verified:
        """Compare the file with what the shared log comes to."""
        noted = application(self.journal)
        if noted.get("serializer") or noted.get("upgraders"):
            raise ConfigurationError(
                "The application seals its entries, or upgrades older ones: only it can read them.",
                hint="Call sync.verify() in the application.",
            )
        if own := own_rules(self.journal):
            raise ConfigurationError(
                f"The application merges fields by functions of its own: {', '.join(own)}.",
                hint="Call sync.verify() in the application.",
            )
        replay = Replay(
            self.journal,
            self.registry,
            shared_log,
            Pipeline(evolution=self.registry.evolution),
            batch_size=BATCH_SIZE,
            byte_limit=BYTE_LIMIT,
        )
        with closing(replay):
            return Verification(
                self.registry,
                self.journal,
                self.versions,
                replay,
                self.journal.reading,
                progress,
            ).run(limit)

    def row(self, collection: str, pk: str) -> Values | None:
        """A row's values, be it parked or not."""
        tracked = self.registry.collection(collection)
        standing = standing_rows(self.database, tracked, [pk]) if tracked else {}
        parked = parked_rows(self.database, self.versions, collection, tracked)
        return standing.get(pk, parked.get(pk))


@contextmanager
def opened(path: Path, *, write: bool = False, now: Now = system_now) -> Iterator[DeviceFile]:
    """Open a device's file, for reading only unless told otherwise."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; the file of a device is needed.")
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    if not is_database(path):
        raise ConfigurationError(f"{path} is not an SQLite database.")
    database = _database(path, "rw" if write else "ro")
    if not (write or _opens(database)):
        with _as_it_stands(path) as database, _checked(path, database, now) as file:
            yield file
        return
    with _checked(path, database, now) as file:
        yield file


def _database(path: Path, mode: str) -> peewee.SqliteDatabase:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return peewee.SqliteDatabase(uri, uri=True, timeout=BUSY_S)


def _opens(database: peewee.SqliteDatabase) -> bool:
    """Whether SQLite can do beside the file what it needs to for reading."""
    try:
        database.execute_sql("SELECT 1 FROM sqlite_master")
    except peewee.OperationalError as error:
        database.close()
        driver: Any = getattr(error, "orig", None)
        return not getattr(driver, "sqlite_errorname", "").startswith(UNABLE)
    except (peewee.DatabaseError, UnicodeDecodeError):
        return True  # of other trouble is told where it is read
    return True


@contextmanager
def _as_it_stands(path: Path) -> Iterator[peewee.SqliteDatabase]:
    """Read a file without anything beside it: nobody can be told that it is being read."""
    for beside in (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")):
        if beside.exists() and beside.stat().st_size:
            raise ConfigurationError(
                f"{path} cannot be read here: a part of it is in {beside.name}, and SQLite has to "
                "write to bring them together.",
                hint="Do it as a user who may write to the folder, or copy both files elsewhere.",
            )
    before = path.stat()
    yield _database(path, "ro&immutable=1")
    after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise ConfigurationError(f"{path} was written while it was read. Try again.")


@contextmanager
def _checked(path: Path, database: peewee.SqliteDatabase, now: Now) -> Iterator[DeviceFile]:
    """The file, if it is one of a device and of this version."""
    file = DeviceFile(path, database, now)
    try:
        _check(file)
        database.pragma("foreign_keys", int(application(file.journal).get("foreign_keys", False)))
        yield file
    except (peewee.DatabaseError, sqlite3.Error) as error:
        raise ConfigurationError(f"{path}: {error}.") from error
    except UnicodeDecodeError as error:  # of names, or of what SQLite says of them
        raise ConfigurationError(
            f"{path} is damaged: its schema has names that are no text.",
            hint="Take a copy from before, or ask for what is left: `sqlite3 FILE .recover`.",
        ) from error
    finally:
        database.close()


def _check(file: DeviceFile) -> None:
    if not file.database.table_exists("sharedlog_state"):
        raise ConfigurationError(
            f"{file.path} has no client log: it is not the file of a device.",
            hint="Give the database of an application that called sync.setup(), not the service's.",
        )
    layout = file.journal.state("layout")
    if layout != str(LAYOUT):
        raise ConfigurationError(
            f"{file.path} has the client log of another version (layout {layout}, not {LAYOUT}).",
            hint="Use the `sharedlog` command of the application's own version.",
        )


def is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error


def compare_files(one: DeviceFile, other: DeviceFile) -> tuple[Digest, Digest, list[Difference]]:
    """Two files: their digests, and the rows that are not the same in both."""
    here, there = one.digest(), other.digest()
    differing = {found.collection for found in here.compare(there)}
    if not differing:
        return here, there, []
    here, there = one.digest(rows=differing), other.digest(rows=differing)
    return here, there, here.compare(there)


def in_detail(difference: Difference, one: DeviceFile, other: DeviceFile) -> Difference:
    """A difference with the values of both sides."""
    pk = dumps(difference.pk)
    here, there = one.row(difference.collection, pk), other.row(difference.collection, pk)
    if difference.kind == DIFFERS and here is not None and there is not None:
        here, there = only_differing(here, there), only_differing(there, here)
    return replace(difference, here=here, there=there)


def saved_digest(path: Path) -> Digest:
    """A digest that was saved as JSON."""
    try:
        return Digest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *UNFIT) as error:
        raise ConfigurationError(
            f"{path} is neither a device's file nor a digest of one: {error}.",
            hint="Make a digest with `sharedlog verify FILE --json`.",
        ) from None
