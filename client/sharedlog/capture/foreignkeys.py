"""Foreign keys that only the database knows of, refused before anything is recorded.

What a deletion does to children is told by the models, on each device the same. Where the
database goes its own way, devices diverge (a cascade that nobody records), or one is stuck (rows
of others that can never be committed).
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import peewee

from ..dialects.base import ForeignKey
from ..errors import ConfigurationError
from ..models.registry import ACTING, RESTRICTING, Registry, on_delete, on_update
from ..models.tracked import Tracked, TrackedColumn
from .comparing import enforces_foreign_keys


def check_foreign_keys(database: peewee.Database, registry: Registry, *, by_triggers: bool) -> None:
    """Refuse what the models do not tell of, as far as there are tables yet; `by_triggers` is
    whether cascades are recorded wherever they begin."""
    if not enforces_foreign_keys(database):
        return
    tables = {_folded(tracked, tracked.collection): tracked for tracked in registry}
    some = next(iter(registry))
    for schema in {tracked.model._meta.schema for tracked in registry}:
        keys = some.dialect.foreign_keys(database, schema)
        for found in keys:
            child = tables.get(_folded(some, found.table))
            if child is not None and child.model._meta.schema != schema:
                child = None  # another table of that name
            parent = tables.get(_folded(some, found.parent))  # which may be of another schema
            if child is not None:
                recorded = parent is not None or (
                    by_triggers and not _falls(some, found.parent, keys, tables)
                )
                _check_child(child, found, recorded=recorded)
            elif parent is not None and found.acts[0] in RESTRICTING:
                raise ConfigurationError(
                    f"The table {found.table!r} refers to {found.parent!r} and is not tracked: "
                    "a row that another device deletes could not be deleted here.",
                    hint=f"Give the model of {found.table!r} to Sync, too, or let its foreign key "
                    "say ON DELETE CASCADE or SET NULL.",
                )


def _falls(some: Tracked, table: str, keys: Iterable[ForeignKey], tables: Container[str]) -> bool:
    """Whether rows of a table that is not tracked may go with tracked ones: then they go, too,
    while others' deletions are applied, which nobody records."""
    return any(
        _folded(some, key.table) == _folded(some, table)
        and _folded(some, key.parent) in tables
        and ACTING.intersection(key.acts)
        for key in keys
    )


def _folded(tracked: Tracked, table: str) -> str:
    """A table's name as it is compared: SQLite knows no capitals."""
    return table if tracked.dialect.typed else table.lower()


def _check_child(child: Tracked, found: ForeignKey, *, recorded: bool) -> None:
    column = _declared(child, found)
    names = ", ".join(found.columns)
    if column is None:
        write = f"Write {names} = ForeignKeyField(…) in {child.model.__name__}, or take it"
        raise ConfigurationError(
            f"{child.model.__name__} does not tell that ({names}) of its table refers to "
            f"{found.parent!r}: what others write could be refused here for ever.",
            hint=("Take it" if len(found.columns) > 1 else write) + " out of the table.",
        )
    told = on_delete(column), on_update(column)
    for word, does, says in zip(("delete", "update"), found.acts, told, strict=True):
        if does not in ACTING:
            continue
        if does != says:
            raise ConfigurationError(
                f"{column} says {says or 'nothing'} where its table does: "
                f"ON {word.upper()} {does}.",
                hint=f'Write on_{word}="{does}" in its ForeignKeyField.',
            )
        if not recorded:
            raise ConfigurationError(
                f"What ON {word.upper()} {does} does to {child.model.__name__} would not be "
                f"recorded: {found.parent!r} is not tracked.",
                hint=f"Give the model of {found.parent!r} to Sync, too, or, where it refers to "
                'nothing that is tracked, let triggers record: capture="triggers".',
            )


def _declared(child: Tracked, found: ForeignKey) -> TrackedColumn | None:
    """The model's field for a foreign key of its table."""
    for column in child.parents:
        referred = _folded(child, column.field.rel_model._meta.table_name)
        if [column.field.column_name] == [*found.columns] and referred == _folded(
            child, found.parent
        ):
            return column
    return None
