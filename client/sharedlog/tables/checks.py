"""What must be right before anything is recorded or exchanged; each error says what to write."""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import Any

import peewee

from ..dialects import quote
from ..errors import AutoIncrementKey, ConfigurationError
from ..journal.journal import Journal
from ..journal.recorder import Capture
from ..journal.transactions import ABORT
from ..limits import DEVICE_NAME_CHARS, is_text
from ..models.registry import Registry
from ..models.syncmodel import SyncModel
from ..models.tracked import Tracked

UNSUPPORTED = frozenset(
    ("APSWDatabase", "SqliteQueueDatabase", "CySqliteDatabase", "CockroachDatabase")
)
"""SQLite by other drivers, or in a thread of its own: their transactions cannot be watched. And
what only looks like PostgreSQL."""

SUPPORTED = (peewee.SqliteDatabase, peewee.PostgresqlDatabase, peewee.MySQLDatabase)


def resolved(database: Any) -> peewee.Database:
    """The database behind a proxy, if it is one that sharedlog works on."""
    if isinstance(database, peewee.Proxy):
        if database.obj is None:
            raise ConfigurationError(
                "The database proxy is not initialized.",
                hint="Call proxy.initialize(SqliteDatabase(…)) before making the Sync.",
            )
        database = database.obj
    names = {cls.__name__ for cls in type(database).__mro__}
    if not isinstance(database, SUPPORTED) or names & UNSUPPORTED:
        raise ConfigurationError(
            f"A {type(database).__name__} cannot be synced.",
            hint="sharedlog works on peewee.SqliteDatabase, PostgresqlDatabase, MySQLDatabase, "
            "and their pooled variants.",
        )
    check_driver(database)
    return database


def check_bound(database: peewee.Database, registry: Registry, capture: Capture) -> None:
    """Refuse models that write elsewhere. Those that are bound to nothing yet are bound later."""
    for tracked in registry:
        found: Any = tracked.model._meta.database
        while isinstance(found, peewee.Proxy):
            found = found.obj
        if found is None or found is database:
            continue
        if capture == "triggers" and _in_one_file(found, database):
            continue
        model = tracked.model.__name__
        raise ConfigurationError(
            f"{model} is bound to another database than the one given to Sync: "
            "what it writes would not be recorded.",
            hint=f"Give that one, Sync({model}._meta.database, …), or bind the models first: "
            f"database.bind([{model}, …]).",
        )


def _in_one_file(one: peewee.Database, other: peewee.Database) -> bool:
    """Whether triggers see what is written by either. Memory is another one each time."""
    names = {str(database.database) for database in (one, other)}
    return len(names) == 1 and not names & {"None", ":memory:"}


def warn_of_parents(registry: Registry) -> None:
    """Warn of references to rows that no other device will have: nobody brings them there. A
    parent with a key that no device makes up may have the same rows everywhere."""
    for tracked in registry:
        for column in tracked.parents:
            parent, key = column.field.rel_model, column.field.rel_field
            if registry.table(parent) is None and (
                issubclass(parent, SyncModel) or callable(key.default)
            ):
                name = parent.__name__
                warnings.warn(
                    f"{column} refers to {name}, which is not given to Sync: on a device without "
                    f"that row of {name} such a row is parked. Give {name} to Sync, too; or, if "
                    f"its rows are the same on all devices, derive it from peewee.Model and give "
                    "it a key without a default.",
                    stacklevel=4,
                )


def check_driver(database: peewee.Database) -> None:
    """Refuse drivers that sharedlog was not tried with."""
    if isinstance(database, peewee.PostgresqlDatabase):
        if not isinstance(database._adapter, peewee.Psycopg3Adapter):  # type: ignore[attr-defined]
            raise ConfigurationError(
                "This PostgresqlDatabase uses psycopg2; sharedlog works with psycopg 3.",
                hint="pip install 'sharedlog[postgres]', and write "
                "PostgresqlDatabase(…, prefer_psycopg3=True).",
            )
    elif isinstance(database, peewee.MySQLDatabase):
        driver = getattr(peewee.mysql, "__name__", None)  # type: ignore[attr-defined]
        if driver != "pymysql":
            raise ConfigurationError(
                f"This MySQLDatabase uses {driver or 'no driver'}; sharedlog works with PyMySQL.",
                hint="pip install 'sharedlog[mysql]'.",
            )
    elif database.connect_params.get("detect_types"):
        raise ConfigurationError(
            "This SqliteDatabase has detect_types: what Python makes of a value when it is read "
            "is not what stands in the table.",
            hint="Leave it out: Peewee's fields convert dates and times themselves.",
        )


def check_options(device_name: Any, **bounds: Any) -> None:
    """Refuse bounds that are none, and a name for the device that no service takes."""
    for name, value in bounds.items():
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{name} is {value!r}; it must be a whole number from 1.")
    if device_name is not None and not (
        is_text(device_name) and len(device_name) <= DEVICE_NAME_CHARS and "\0" not in device_name
    ):
        raise ConfigurationError(
            f"device_name is {device_name!r:.100}; it must be a text.",
            hint=f"Give {DEVICE_NAME_CHARS} characters at most, or none.",
        )


def check_models(database: peewee.Database, registry: Registry, capture: Capture) -> None:
    """Refuse models that write elsewhere, and tables that number their rows or settle conflicts;
    warn of rows that will be missing elsewhere. For the caller of our caller: the warning is said
    to be its."""
    check_bound(database, registry, capture)
    check_keys(database, registry)
    check_triggers(database, registry)
    check_conflicts(database, registry)
    check_deferred_keys(database, registry)
    warn_of_parents(registry)


def check_triggers(database: peewee.Database, registry: Registry) -> None:
    """Refuse triggers of the application that end whole transactions: what others write would
    end each exchange in its midst."""
    for tracked in registry:
        schema = tracked.model._meta.schema
        for name in tracked.dialect.ending_triggers(database, tracked.collection, schema):
            raise ConfigurationError(
                f"The trigger {name!r} of the table {tracked.collection!r} ends transactions.",
                hint=ABORT,
            )


def check_conflicts(database: peewee.Database, registry: Registry) -> None:
    """Refuse tables that settle conflicts themselves: which rows they displace or leave out no
    statement tells, so it would not be recorded, and others' rows would vanish in silence."""
    for tracked in registry:
        schema = tracked.model._meta.schema
        for word in tracked.dialect.conflict_clauses(database, tracked.collection, schema):
            raise ConfigurationError(
                f"The table {tracked.collection!r} says ON CONFLICT {word}: what it does to rows "
                "by that would not be recorded.",
                hint="Make the table anew without it, and say with the write what is to be done: "
                f"{tracked.model.__name__}.replace(…), or insert(…).on_conflict(…).",
            )


def check_deferred_keys(database: peewee.Database, registry: Registry) -> None:
    """Refuse keys that are unique only when a transaction ends: no row can be written by one,
    "insert it, or else update it"."""
    for tracked in registry:
        key = [column.field.column_name for column in tracked.key]
        schema = tracked.model._meta.schema
        for name in tracked.dialect.deferred_keys(database, tracked.collection, schema, key):
            raise ConfigurationError(
                f"The key of {tracked.collection!r} is DEFERRABLE ({name}): others' rows cannot be "
                "brought into that table.",
                hint=f"ALTER TABLE {tracked.table} DROP CONSTRAINT {quote(name)}, "
                f"ADD PRIMARY KEY ({', '.join(column.quoted for column in tracked.key)})",
            )


def check_keys(database: peewee.Database, registry: Registry) -> None:
    """Refuse tables that number their rows although the model's key says otherwise."""
    for tracked in registry:
        [key, *others] = tracked.key
        if others or not _is_uuid(key.field) or not column_names(database, tracked):
            continue
        for found in database.get_columns(tracked.collection, tracked.model._meta.schema):
            if found.name != key.field.column_name or not found.primary_key:
                continue
            if found.data_type.upper() == "INTEGER":
                raise AutoIncrementKey(
                    f"The table {tracked.collection!r} still numbers its rows "
                    f"({found.name} INTEGER), so two devices give one number to different rows.",
                    hint="Give the rows new keys first, with the application stopped: "
                    f"sharedlog migrate-keys FILE --tables {tracked.collection}",
                )


def check_outside_transaction(journal: Journal, method: str) -> None:
    if journal.in_transaction():
        raise ConfigurationError(
            f"{method}() was called inside a transaction.",
            hint="Call it after the `with database.atomic()` block.",
        )


def check_tables(database: peewee.Database, registry: Registry) -> None:
    """Refuse to exchange anything while a table or a column is missing."""
    for tracked in registry:
        stored = column_names(database, tracked)
        if not stored:
            raise ConfigurationError(
                f"The table {tracked.collection!r} does not exist.",
                hint=f"Call database.create_tables([{tracked.model.__name__}]) before sync().",
            )
        for name in missing_columns(tracked, stored):
            raise ConfigurationError(
                f"The table {tracked.collection!r} has no column {name!r}, but "
                f"{tracked.model.__name__} has.",
                hint="Alter the table first (playhouse.migrate), then sync.",
            )


def missing_columns(tracked: Tracked, stored: Container[str]) -> list[str]:
    """Those of a model that are not among the columns of its table."""
    names = [column.field.column_name for column in tracked.every]
    return [name for name in names if name not in stored]


def column_names(database: peewee.Database, tracked: Tracked) -> set[str]:
    """Those of a model's table, as far as there is one."""
    try:
        schema = tracked.model._meta.schema
        return tracked.dialect.column_names(database, tracked.collection, schema)
    except peewee.OperationalError:  # its database is yet to be attached
        return set()


def _is_uuid(field: Any) -> bool:
    while isinstance(field, peewee.ForeignKeyField):
        field = field.rel_field
    return isinstance(field, peewee.UUIDField)


def prepare_foreign_keys(database: peewee.Database, registry: Registry) -> None:
    """Make sure that others' rows can come in any order, as far as there are tables yet."""
    for tracked in registry:
        if tracked.parents:
            schema = tracked.model._meta.schema
            tracked.dialect.prepare_foreign_keys(database, tracked.collection, schema)
