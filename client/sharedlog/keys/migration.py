"""Replacing the numbered keys of a database file by keys that devices can make.

Everything happens in one transaction: planned, rebuilt, compared, and only then committed. What
cannot be done is refused with what stands in the way, and the file is as it was.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee

from ..clock import Now, system_now
from ..dialects import quote
from ..errors import ConfigurationError, MigrationRefused
from ..tables.checks import resolved
from .before import Before
from .catalog import Catalog, Column, StoredTable
from .making import DerivedKeys, Keys, OrderedKeys
from .models import references_of, with_new_keys, with_through_models
from .plan import Plan, Request, make_plan
from .rebuild import KEYS, Progress, Rebuild

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class MigratedTable:
    """A table that was rebuilt: its own key, if that is new, and the other columns that got
    new keys, each with the table that it refers to."""

    name: str
    rows: int
    key: str | None
    references: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MigratedKeys:
    """What `migrate_keys()` did, or in a dry run would do.

    Attributes:
        tables: The tables that were rebuilt; empty if there was nothing to do.
        done: Tables that had no numbered keys any more.
        virtual: Virtual tables of the file. Nothing says whether they know rows by number;
            those that do, such as a full-text index by rowid, have to be made anew.
        digest: Of what was in the tables. Copies with the same digest hold the same.
    """

    tables: Sequence[MigratedTable]
    done: Sequence[str]
    virtual: Sequence[str] = ()
    digest: str | None = None


def migrate_keys(
    database: peewee.Database | str | os.PathLike[str],
    *,
    tables: Iterable[str] = (),
    models: Iterable[type[peewee.Model]] = (),
    references: Mapping[str, str] | None = None,
    numbers: Iterable[str] = (),
    namespace: str | None = None,
    mapping: str | None = None,
    backup: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    now: Now = system_now,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> MigratedKeys:
    """Replace auto-increment keys by UUIDs, and every reference to them.

    Args:
        database: The file, or the Peewee database object that has it open.
        tables: The tables that get new keys, by name; or
        models: the models whose tables get new keys. Models also name references that the
            file does not declare.
        references: Columns that refer to a key without declaring it: {"book.current": "track"}.
        numbers: Columns that only look like references: ["post.external_id"].
        namespace: Derive the keys from this name and the old numbers, so that copies of the
            same file get the same keys. By default keys are new each time.
        mapping: Keep the old numbers in a table of this name.
        backup: First copy the file here.
        dry_run: Do everything, look at it, and undo it.
        progress: Called with what is being done, the rows done, and all rows.
        now, random_bytes: The sources of time and chance.

    Raises:
        MigrationRefused: something stands in the way; nothing was changed.
    """
    keys = OrderedKeys(now, random_bytes) if namespace is None else DerivedKeys(namespace)
    copy = None if backup is None or dry_run else Path(backup)
    with _opened(database) as connection:
        _check_idle(connection)
        with _foreign_keys_off(connection), _transaction(connection, commit=not dry_run):
            catalog = Catalog(connection)
            request = _request(catalog, tables, models, references or {}, numbers)
            plan = make_plan(catalog, request)
            return _migrate(connection, plan, keys, mapping, copy, progress or _silent)


def _migrate(
    connection: sqlite3.Connection,
    plan: Plan,
    keys: Keys,
    mapping: str | None,
    backup: Path | None,
    progress: Progress,
) -> MigratedKeys:
    """The work itself, inside the transaction."""
    problems = [*plan.problems, *_already_shared(connection, plan)]
    if problems:
        raise MigrationRefused.because(problems)
    if not plan.made:
        return MigratedKeys((), plan.done)
    if backup is not None:
        _back_up(connection, backup)
    digest = _digest(connection, plan) if isinstance(keys, DerivedKeys) else None
    before = Before(connection, plan)
    rebuild = Rebuild(connection, plan, progress)
    rebuild.run(keys)
    before.compare()
    _finish(connection, plan, mapping)
    tables = [_migrated(plan, table, rebuild.rows[table.id]) for table in plan.rebuilt]
    return MigratedKeys(tables, plan.done, tuple(sorted(plan.catalog.virtual)), digest)


def _migrated(plan: Plan, table: StoredTable, rows: int) -> MigratedTable:
    columns = plan.columns(table.id)
    key = table.key[0] if table.id in plan.made else None
    references = {name: source for name, source in sorted(columns.items()) if name != key}
    return MigratedTable(table.name, rows, key, references)


def _finish(connection: sqlite3.Connection, plan: Plan, mapping: str | None) -> None:
    """What else belongs to the file: the old numbers on request, the planner's statistics."""
    if mapping is not None:
        name = f"main.{quote(mapping)}"
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (table_name TEXT NOT NULL, number INTEGER "
            "NOT NULL, key TEXT NOT NULL, PRIMARY KEY (table_name, number)) WITHOUT ROWID"
        )
        connection.execute(
            f"INSERT INTO {name} (table_name, number, key) SELECT source, number, key FROM {KEYS}"
        )
    connection.execute(f"DROP TABLE {KEYS}")
    statistics = "SELECT 1 FROM main.sqlite_master WHERE name = 'sqlite_stat1'"
    if connection.execute(statistics).fetchone():
        for table in plan.rebuilt:
            connection.execute(f"ANALYZE main.{quote(table.name)}")


# -- what is asked for -------------------------------------------------------------------


def _request(
    catalog: Catalog,
    tables: Iterable[str],
    models: Iterable[type[peewee.Model]],
    references: Mapping[str, str],
    numbers: Iterable[str],
) -> Request:
    selected = [name.lower() for name in tables]
    named = {_column(text): parent.lower() for text, parent in references.items()}
    every = with_through_models(models)
    for table, column, parent in references_of(every):
        if table.lower() in catalog.tables and parent.lower() in catalog.tables:
            named.setdefault((table.lower(), column.lower()), parent.lower())
    of_models = [name.lower() for name in with_new_keys(every)]
    selected += [name for name in of_models if name in catalog.tables]
    if not selected:
        _refuse_to_choose(catalog, of_models)
    return Request(list(dict.fromkeys(selected)), named, {_column(text) for text in numbers})


def _column(text: str) -> Column:
    table, dot, column = text.lower().rpartition(".")
    if not dot:
        raise ConfigurationError(f"{text!r} is not a column.", hint="Write table.column.")
    return table, column


def _refuse_to_choose(catalog: Catalog, of_models: Sequence[str]) -> None:
    if of_models:
        raise ConfigurationError(
            f"The file has none of the models' tables ({', '.join(of_models)}).",
            hint="Is it the right file?",
        )
    numbered = ",".join(table.name for table in catalog.tables.values() if table.numbered)
    if numbered:
        raise ConfigurationError(
            "Which tables are to get new keys?",
            hint=f"These have numbered ones: --tables {numbered}. Leave out those that stay on "
            "this device, and the tables that Peewee made for many-to-many fields.",
        )


def _already_shared(connection: sqlite3.Connection, plan: Plan) -> Iterator[str]:
    """Other devices know the rows of a table that is in the log by the keys that they have."""
    rows = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
    ours = {"sharedlog_entry", "sharedlog_row"} & {name for (name,) in rows.fetchall()}
    for table in plan.rebuilt:
        for name in sorted(ours):
            found = f"SELECT 1 FROM main.{name} WHERE lower(collection) = ? LIMIT 1"
            if connection.execute(found, (table.id,)).fetchone():
                yield f"{table.name} is in the shared log: other devices know its rows as they are."
                break


def _digest(connection: sqlite3.Connection, plan: Plan) -> str:
    """A digest of everything in the tables, in the order of their rows."""
    digest = hashlib.sha256()
    for table in sorted(plan.rebuilt, key=lambda table: table.id):
        columns = [quote(column.name) for column in table.columns]
        values = ", ".join(f"typeof({name}), CAST({name} AS BLOB)" for name in columns)
        order = table.rowid or ", ".join(quote(name) for name in table.key)
        digest.update(repr((table.id, columns)).encode())
        for row in connection.execute(
            f"SELECT {values} FROM main.{quote(table.name)} ORDER BY {order}"
        ):
            digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


# -- the connection ----------------------------------------------------------------------


@contextmanager
def _opened(database: Any) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode that gives plain rows: the caller's own, or a new one."""
    if isinstance(database, str | os.PathLike):
        path = Path(database)
        if not path.is_file():
            raise MigrationRefused(f"There is no file {path}.")
        try:
            connection = sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise MigrationRefused(f"{path} cannot be opened: {error}.") from error
        with closing(connection):
            yield connection
        return
    database = resolved(database)
    if not isinstance(database, peewee.SqliteDatabase):
        raise MigrationRefused(
            "Keys are migrated in SQLite files only.",
            hint="On a server: add a column for the new keys, fill it, and move the references.",
        )
    opened = database.connect(reuse_if_open=True)
    connection = database.connection()
    factories = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield connection
    finally:
        connection.row_factory, connection.text_factory = factories
        if opened:
            database.close()


def _check_idle(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        raise ConfigurationError(
            "migrate_keys() was called inside a transaction.",
            hint="It needs one of its own, because foreign keys can only be switched off outside.",
        )


@contextmanager
def _foreign_keys_off(connection: sqlite3.Connection) -> Iterator[None]:
    """With them on, dropping a table would delete what refers to its rows."""
    (before,) = connection.execute("PRAGMA foreign_keys").fetchone()
    connection.execute("PRAGMA foreign_keys = 0")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA foreign_keys = {before}")


@contextmanager
def _transaction(connection: sqlite3.Connection, *, commit: bool) -> Iterator[None]:
    """One transaction, and what SQLite says in it as a refusal."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT" if commit else "ROLLBACK")
    except sqlite3.Error as error:
        raise MigrationRefused(f"SQLite says: {error}.", hint=_hint(str(error))) from error


def _hint(message: str) -> str:
    if "locked" in message:
        return "Another program uses the file. Stop it first."
    if "no such collation" in message or "no such function" in message:
        return (
            "The application brings it along: call sharedlog.migrate_keys() there, with the "
            "database object that has it."
        )
    if "constraint failed" in message:
        return "The new keys are text, which this constraint does not take. Nothing was changed."
    return "Nothing was changed."


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the file by a connection of its own, which sees what was committed; ours holds the
    lock, so that nobody else writes meanwhile."""
    if path.exists():
        raise MigrationRefused(f"The backup {path} is there already.", hint="Name another file.")
    databases = connection.execute("PRAGMA database_list").fetchall()
    (file,) = (file for _, name, file in databases if name == "main")
    if not file:
        raise MigrationRefused("A database in memory has no file that could be copied.")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)


def _silent(what: str, done: int, total: int) -> None:
    pass
