"""Tables as they are described: from this come the model classes, and what the oracle knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, Protocol

import peewee

from tests.tablemodel import ForeignKey, Table

from .faults import Faults
from .kinds import Kind


def longest(values: Sequence[Any]) -> Any:
    """A rule that an application may think of: the longest of all texts that were written."""
    return max((v for v in values if v is not None), key=lambda v: (len(v), v), default=None)


FUNCTIONS: Mapping[str, Callable[[list[Any]], Any]] = {"longest": longest}
"""The rules of applications themselves."""


@dataclass(frozen=True)
class Column:
    """A column. One that refers to a table has the kind of that table's key."""

    name: str
    kind: Kind
    null: bool = False
    default: Any = None
    parent: str | None = None
    on_delete: str | None = None
    on_update: str | None = None
    deferrable: str | None = None
    unique: bool = False
    rule: str | None = None

    @property
    def is_required(self) -> bool:
        """Whether an application has to give a value."""
        return not self.null and self.default is None


@dataclass(frozen=True)
class Shape:
    """A table."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    """Sets of columns that are unique together, besides columns that are alone."""
    update_wins: bool = False

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def others(self) -> Sequence[Column]:
        """The columns beside the key."""
        return [column for column in self.columns if column.name not in self.key]

    @property
    def key_column(self) -> Column:
        (name,) = self.key
        return self.by_name[name]

    def without(self, names: Sequence[str]) -> Shape:
        """The table as an older version of the application had it."""
        return replace(
            self,
            columns=tuple(column for column in self.columns if column.name not in names),
            unique=tuple(some for some in self.unique if not set(some) & set(names)),
        )

    @cached_property
    def table(self) -> Table:
        """What the oracle has to know."""
        singly = [(column.name,) for column in self.columns if column.unique]
        return Table(
            self.key,
            {column.name: column.default for column in self.others},
            tuple(
                ForeignKey(column.name, column.parent, column.on_delete or "")
                for column in self.columns
                if column.parent is not None
            ),
            (*singly, *self.unique),
            frozenset(column.name for column in self.others if not column.null),
            lambda name, value: self.by_name[name].kind.takes(name, value),
            {column.name: column.rule for column in self.others if column.rule is not None},
            FUNCTIONS,
            self.update_wins,
        )


class Models(Protocol):
    """One device's model classes. Each device has its own, bound to its own database."""

    @property
    def given(self) -> Sequence[Any]:
        """What the application passes to `Sync`."""

    @property
    def all(self) -> Sequence[Any]:
        """These, and the through models, which come along by themselves."""


class User(Protocol):
    """Somebody who works with the application, on one device."""

    def act(self, database: peewee.Database, models: Any) -> str: ...

    def at_noon(self, models: Any) -> str: ...


@dataclass(frozen=True)
class Application:
    """What a world's devices run.

    Attributes:
        shapes: Its tables, by name.
        strangers: Data of entries that no device of this application writes.
        older: Draws an older edition of it, which lacks some columns or tables.
    """

    name: str
    shapes: Mapping[str, Shape]
    define: Callable[[], Models]
    user: Callable[[Random, Faults], User]
    strangers: Sequence[str]
    older: Callable[[Random], Application] | None = None

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        return {name: shape.table for name, shape in self.shapes.items()}
