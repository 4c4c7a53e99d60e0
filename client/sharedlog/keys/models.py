"""What an application's models say of keys: whose tables get new ones, and who refers to whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import peewee

from ..models.registry import through_key

Model = type[peewee.Model]


def with_through_models(models: Iterable[Model]) -> list[Model]:
    found = list(models)
    for model in found:
        for field in model._meta.manytomany.values():
            if (through := field.get_through_model()) not in found:
                found.append(through)
    return found


def with_new_keys(models: Iterable[Model]) -> Iterator[str]:
    """The tables whose keys the database numbers, or did before the models were changed.

    The table that Peewee makes for a many-to-many field keeps its numbers: the pair identifies
    its rows.
    """
    for model in models:
        field = model._meta.primary_key
        if isinstance(field, peewee.AutoField | peewee.UUIDField) and through_key(model) is None:
            yield model._meta.table_name


def references_of(models: Iterable[Model]) -> Iterator[tuple[str, str, str]]:
    """The table and column of each foreign key, and the table whose key it holds."""
    for model in models:
        for field in model._meta.refs:
            if field.rel_field.primary_key:
                parent = field.rel_model._meta.table_name
                yield model._meta.table_name, field.column_name, parent
