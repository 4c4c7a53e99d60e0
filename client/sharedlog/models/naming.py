"""Which former names the models declare, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ..errors import ConfigurationError
from ..evolution.formerly import Fields, FormerNames
from .syncmodel import SyncModel
from .tracked import Tracked


def former_names(by_model: Mapping[Any, Tracked]) -> FormerNames:
    """What tracked models declare, checked."""
    tables: dict[str, str] = {}
    fields: dict[str, Fields] = {}
    present = {tracked.collection for tracked in by_model.values()}
    for tracked in by_model.values():
        for former in _former_tables(tracked, by_model):
            other = tables.setdefault(former, tracked.collection)
            if other != tracked.collection or former in present:
                raise ConfigurationError(
                    f"{tracked.model.__name__} was formerly the table {former!r}, which is "
                    "another tracked model's.",
                    hint="A name of the past means one table only. (Meta options are inherited: "
                    "write `formerly_table = ()` in a model that does not have its parent's.)",
                )
        if found := _former_fields(tracked):
            fields[tracked.collection] = found
    return FormerNames(tables, fields)


def _former_tables(tracked: Tracked, by_model: Mapping[Any, Tracked]) -> Iterator[str]:
    yield from _names(tracked, getattr(tracked.model._meta, "formerly_table", ()))
    if not issubclass(tracked.model, SyncModel):
        # A through model that Peewee made: its name is made of those of the two tables.
        parents = [by_model[column.field.rel_model] for column in tracked.key]
        names = [(parent.collection, *_former_tables(parent, by_model)) for parent in parents]
        for pair in product(*names):
            if (former := "_".join((*pair, "through"))) != tracked.collection:
                yield former


def _former_fields(tracked: Tracked) -> Fields:
    declared: Any = getattr(tracked.model._meta, "formerly", {})
    if not isinstance(declared, Mapping):
        raise _wrong(tracked, f"formerly is {declared!r}")
    present = {column.name for column in tracked.every}
    found: dict[str, tuple[str, ...]] = {}
    for name, formers in declared.items():
        if name not in present:
            raise _wrong(tracked, f"formerly speaks of {name!r}, which is no field of it")
        for former in _names(tracked, formers):
            if former in present:
                raise _wrong(tracked, f"formerly says {former!r}, which is a field of today, too")
            if name in tracked.by_name:  # the parts of a key travel without names
                found[former] = (*found.get(former, ()), name)
    return found


def _names(tracked: Tracked, declared: Any) -> tuple[str, ...]:
    names = (declared,) if isinstance(declared, str) else declared
    if not isinstance(names, tuple | list) or not all(type(n) is str and n for n in names):
        raise _wrong(tracked, f"{declared!r} is no name, nor several")
    return tuple(names)


def _wrong(tracked: Tracked, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{tracked.model.__name__}: {what}.",
        hint='Write `formerly = {"heading": "title"}` (new name: old name) in its Meta.',
    )
