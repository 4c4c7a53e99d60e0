"""Foreign keys that only the database knows of, refused before anything is recorded.

What a deletion does to children is told by the models, on each device the same. Where the
database goes its own way, devices diverge (a cascade that nobody records), or one is stuck (rows
of others that can never be committed).
"""

from __future__ import annotations

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
    schemas: dict[str | None, dict[str, Tracked]] = {}
    for tracked in registry:
        tables = schemas.setdefault(tracked.model._meta.schema, {})
        tables[_folded(tracked, tracked.collection)] = tracked
    for schema, tables in schemas.items():
        some = next(iter(tables.values()))
        for found in some.dialect.foreign_keys(database, schema):
            child = tables.get(_folded(some, found.table))
            parent = tables.get(_folded(some, found.parent))
            if child is not None:
                _check_child(child, parent, found, by_triggers)
            elif parent is not None and found.acts[0] in RESTRICTING:
                raise ConfigurationError(
                    f"The table {found.table!r} refers to {found.parent!r} and is not tracked: "
                    "a row that another device deletes could not be deleted here.",
                    hint=f"Give the model of {found.table!r} to Sync, too, or let its foreign key "
                    "say ON DELETE CASCADE or SET NULL.",
                )


def _folded(tracked: Tracked, table: str) -> str:
    """A table's name as it is compared: SQLite knows no capitals."""
    return table if tracked.dialect.typed else table.lower()


def _check_child(
    child: Tracked, parent: Tracked | None, found: ForeignKey, by_triggers: bool
) -> None:
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
        if parent is None and not by_triggers:
            raise ConfigurationError(
                f"What ON {word.upper()} {does} does to {child.model.__name__} would not be "
                f"recorded: {found.parent!r} is not tracked.",
                hint=f"Give the model of {found.parent!r} to Sync, too, or let triggers record: "
                'capture="triggers".',
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
