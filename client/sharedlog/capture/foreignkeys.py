"""Foreign keys that only the database knows of, refused before anything is recorded.

What a deletion does to children is told by the models, on each device the same. Where the
database goes its own way, devices diverge (a cascade that nobody records), or one is stuck (rows
of others that can never be committed).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import peewee

from ..dialects.base import ForeignKey, quote
from ..errors import ConfigurationError
from ..models.columns import TrackedColumn
from ..models.registry import ACTING, RESTRICTING, Registry, Rule, on_delete, on_update
from ..models.tracked import Tracked
from ..tables.checks import column_names
from .comparing import enforces_foreign_keys


def check_foreign_keys(database: peewee.Database, registry: Registry) -> list[str]:
    """Refuse what the models do not tell of, as far as there are tables yet, and leave alone what
    only they tell of: what is said of such references, to be warned of."""
    if not enforces_foreign_keys(database):
        return []
    some = next(iter(registry))
    tables = {_folded(tracked, tracked.collection): tracked for tracked in registry}
    every = (*registry, *registry.all_outside)
    children = {(c.model._meta.schema, _folded(c, c.collection)): c for c in every}
    kept = set[TrackedColumn]()
    for schema in dict.fromkeys(schema for schema, _ in children):
        for found in some.dialect.foreign_keys(database, schema):
            child = children.get((schema, _folded(some, found.table)))
            parent = tables.get(_folded(some, found.parent))  # which may be of another schema
            if child is not None and registry.model(child.model):
                kept.add(_check_child(child, found))
            elif parent is not None and found.acts[0] in RESTRICTING:
                raise ConfigurationError(
                    f"The table {found.table!r} refers to {found.parent!r} and is not tracked: "
                    "a row that another device deletes could not be deleted here.",
                    hint=f"Give the model of {found.table!r} to Sync, too, or let its foreign key "
                    "say ON DELETE CASCADE or SET NULL.",
                )
            elif child is not None and _goes_on(registry.rules.get(child, ()), found):
                _check_outside(child, parent, found)
    return list(_leave_out(database, registry, kept))


def _folded(tracked: Tracked, table: str) -> str:
    """A table's name as it is compared: SQLite knows no capitals."""
    return table if tracked.dialect.typed else table.lower()


def _leave_out(
    database: peewee.Database, registry: Registry, kept: Collection[TrackedColumn]
) -> Iterator[str]:
    """Take references that their tables do not have for plain values, as the database does: to do
    for the rows of others what it does not do for its own would let devices differ."""
    for child in registry:
        if not column_names(database, child):
            continue  # the table is yet to be made
        child.parents = [column for column in child.references if column in kept]
        for column in child.references:
            if column not in kept:
                yield (
                    f"{column} refers to {column.field.rel_model.__name__}, but its table does "
                    "not: nothing happens to a row when what it refers to is deleted. "
                    + _how_to_keep(child, column)
                )


def _how_to_keep(child: Tracked, column: TrackedColumn) -> str:
    if child.dialect.typed:
        model = child.model.__name__
        return f"To change that, on all devices: {model}._schema.create_foreign_key({column})"
    told = (("DELETE", on_delete(column)), ("UPDATE", on_update(column)))
    acts = "".join(f" ON {what} {act}" for what, act in told if act)
    meta, name = column.field.rel_model._meta, column.field.rel_field.column_name
    return (
        "To change that, make the table anew on all devices. For a DeferredForeignKey Peewee "
        "leaves it out on SQLite, unless the field says "
        f"constraints=[SQL('REFERENCES {quote(meta.table_name)} ({quote(name)}){acts}')]."
    )


def _check_child(child: Tracked, found: ForeignKey) -> TrackedColumn:
    """Return the field for a foreign key of a tracked table."""
    column = _declared(child, found)
    if column is None:
        names = ", ".join(found.columns)
        write = f"Write {names} = ForeignKeyField(…) in {child.model.__name__}, or take it"
        raise ConfigurationError(
            f"{child.model.__name__} does not tell that ({names}) of its table refers to "
            f"{found.parent!r}: what others write could be refused here for ever.",
            hint=("Take it" if len(found.columns) > 1 else write) + " out of the table.",
        )
    _check_acts(column, found)
    return column


def _check_acts(column: TrackedColumn, found: ForeignKey) -> None:
    told = on_delete(column), on_update(column)
    for word, does, says in zip(("delete", "update"), found.acts, told, strict=True):
        if does in ACTING and does != says:
            raise ConfigurationError(
                f"{column} says {says or 'nothing'} where its table does: "
                f"ON {word.upper()} {does}.",
                hint=f'Write on_{word}="{does}" in its ForeignKeyField.',
            )


def _goes_on(rules: Iterable[Rule], found: ForeignKey) -> bool:
    """Whether what a foreign key does to a row makes others act (`rules`) that refer to it."""
    deletes, *changes = found.acts
    if deletes != "CASCADE":
        changes.append(deletes)
    return any(
        (deletes == "CASCADE" and rule.on_delete in ACTING)
        or (
            not ACTING.isdisjoint(changes)
            and rule.on_update in ACTING
            and rule.referred.field.column_name in found.columns
        )
        for rule in rules
    )


def _check_outside(table: Tracked, parent: Tracked | None, found: ForeignKey) -> None:
    model = table.model.__name__
    if parent is not None:
        raise ConfigurationError(
            f"Tracked rows refer to {found.table!r}, which is not tracked and changes with "
            f"{found.parent!r}, which is: what another device does there would change rows here "
            "that nobody changed.",
            hint=f"Give {model} to Sync, too.",
        )
    column = _declared(table, found)
    if column is None:
        names = ", ".join(found.columns)
        raise ConfigurationError(
            f"{model} does not tell that ({names}) of its table refers to {found.parent!r}: what "
            "that does to tracked rows would not be recorded.",
            hint=f"Write {names} = ForeignKeyField(…) in {model}, or give {model} to Sync, too.",
        )
    _check_acts(column, found)


def _declared(child: Tracked, found: ForeignKey) -> TrackedColumn | None:
    """The model's field for a foreign key of its table."""
    for column in child.references:
        referred = _folded(child, column.field.rel_model._meta.table_name)
        if [column.field.column_name] == [*found.columns] and referred == _folded(
            child, found.parent
        ):
            return column
    return None
