"""The former names of tables and fields: what older programs call them. Declared on the model.

    class Note(SyncModel):
        heading = TextField()

        class Meta:
            formerly_table = "memo"
            formerly = {"heading": "title"}

A field may have had several names, one after the other (`{"heading": ("title", "name")}`), and
two fields may both come from one that was split; a value written under the old name is then
written to both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from .changes import Change, Wire
from .errors import ConfigurationError
from .models import SyncModel
from .registry import Registry
from .tracked import Tracked

Fields = Mapping[str, tuple[str, ...]]
"""Of one collection: a former name -> the fields that have taken its place."""


@dataclass(frozen=True, slots=True)
class FormerNames:
    """What changes of older programs mean today.

    Attributes:
        tables: A collection's former name -> its name.
        fields: A collection's name -> the former names of its fields.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Fields] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables or self.fields)

    def table(self, name: str) -> str:
        return self.tables.get(name, name)

    def of_table(self, name: str) -> list[str]:
        """The former names of a collection."""
        return [former for former, current in self.tables.items() if current == name]

    def current(self, change: Change) -> Change:
        """The change under the names of today."""
        collection = self.table(change.collection)
        fields, value = self.fields.get(collection), change.value
        if fields and value:
            value = renamed(value, fields)
        return change._replace(collection=collection, value=value)


def renamed(value: Mapping[str, Wire], fields: Fields) -> dict[str, Wire]:
    """Values under the names of today. What is there under both names stays the new one's."""
    result: dict[str, Wire] = {}
    for name, wire in value.items():
        for new in fields.get(name, (name,)):
            if new == name or new not in value:
                result[new] = wire
    return result


def former_names(registry: Registry) -> FormerNames:
    """What the models of a registry declare, checked."""
    tables: dict[str, str] = {}
    fields: dict[str, Fields] = {}
    for tracked in registry:
        for former in _former_tables(tracked, registry):
            other = tables.setdefault(former, tracked.collection)
            if other != tracked.collection or registry.collection(former) is not None:
                raise ConfigurationError(
                    f"{tracked.model.__name__} was formerly the table {former!r}, which is "
                    "another tracked model's.",
                    hint="A name of the past means one table only. (Meta options are inherited: "
                    "write `formerly_table = ()` in a model that does not have its parent's.)",
                )
        if found := _former_fields(tracked):
            fields[tracked.collection] = found
    return FormerNames(tables, fields)


def _former_tables(tracked: Tracked, registry: Registry) -> Iterator[str]:
    yield from _names(tracked, getattr(tracked.model._meta, "formerly_table", ()))
    if not issubclass(tracked.model, SyncModel):
        # A through model that Peewee made: its name is made of those of the two tables.
        parents = [registry.model(column.field.rel_model) for column in tracked.key]
        pairs = product(
            *(
                (parent.collection, *_former_tables(parent, registry))
                for parent in parents
                if parent is not None
            )
        )
        for pair in pairs:
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
