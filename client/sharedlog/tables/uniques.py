"""The values that are unique in a table, as the database has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import peewee

from ..changes import Wire
from ..dialects.base import PLAIN, Dialect, UniqueIndex, quote
from ..journal.journal import chunks
from ..models.columns import TrackedColumn, TypedColumn
from ..models.tracked import Tracked
from .collations import has_texts
from .expressed import Expressed
from .rows import select_rows


class Unique(NamedTuple):
    """What is unique together.

    Attributes:
        columns: The tracked columns of it.
        collations: What each of them is compared by.
        others: Whether there are expressions in it, too, or columns that are not tracked.
        partial: Whether it is unique among some rows only.
        source: As the database tells of it; None of what it does not tell.
    """

    columns: Sequence[TrackedColumn]
    collations: Sequence[str]
    others: bool = False
    partial: bool = False
    source: UniqueIndex | None = None

    @property
    def folds(self) -> bool:
        """Whether values are compared by a collation that may take different ones for equal."""
        return any(collation != PLAIN for collation in self.collations)

    @property
    def takes_nulls(self) -> bool:
        """Whether NULL is a value like any other, and does not just equal nothing."""
        return self.source is not None and self.source.takes_nulls

    def condition(self, values: Sequence[Any]) -> str:
        """Says, in SQL, that a row has these values. Its parameters are those that are not None."""
        parts = zip(self.columns, self.collations, values, strict=True)
        return "({})".format(" AND ".join(_equals(*part) for part in parts))


def unique_sets(database: peewee.Database, tracked: Tracked, *, committed: bool) -> list[Unique]:
    """All there are in a table; the key may be among them. `committed`: the open transaction has
    not altered it, as one of the application's may have."""
    dialect, schema = tracked.dialect, tracked.model._meta.schema
    read = dialect.committed_unique_indexes if committed else dialect.unique_indexes
    found = []
    for index in read(database, tracked.collection, schema):
        parts = [(tracked.by_column.get(name or ""), collation) for name, collation in index.parts]
        known = [(column, collation) for column, collation in parts if column is not None]
        columns = [column for column, _ in known]
        collations = [name if _counts(column, dialect) else PLAIN for column, name in known]
        found.append(Unique(columns, collations, len(known) < len(parts), index.partial, index))
    return found


def _counts(column: TrackedColumn, dialect: Dialect) -> bool:
    """Whether the collation of a column can be of matter. In one without a type anything may stand
    that is a text."""
    return not dialect.typed or has_texts(column.codec)


def expressed_sets(
    database: peewee.Database, tracked: Tracked, uniques: Iterable[Unique]
) -> list[Expressed]:
    """Those of them over expressions, or among some rows only, as far as the database can be
    asked."""
    some = [u.source for u in uniques if u.source is not None and not u.source.is_plain]
    every = [Expressed(database, tracked, index) for index in some]
    return [expressed for expressed in every if expressed.is_decidable]


def key_is_exact(database: peewee.Database, tracked: Tracked) -> bool:
    """Whether the table takes no two keys for equal that differ, as some collations do, or what is
    written there is read back."""
    if tracked.dialect.typed:
        return True
    key = set(tracked.key)
    found = unique_sets(database, tracked, committed=True)
    return not any(unique.folds for unique in found if set(unique.columns) == key)


def rows_with(
    database: peewee.Database, tracked: Tracked, unique: Unique, wanted: Iterable[Sequence[Any]]
) -> dict[str, dict[str, Wire]]:
    """The rows that have what is unique in common with any of these values (the driver's): pk ->
    values by name."""
    able = (values for values in wanted if unique.takes_nulls or None not in values)
    found: dict[str, dict[str, Wire]] = {}
    for chunk in chunks(able, 200):
        condition = " OR ".join(map(unique.condition, chunk))
        parameters = [value for values in chunk for value in values if value is not None]
        found |= select_rows(database, tracked, condition, parameters)
    return found


def _equals(column: TrackedColumn, collation: str, value: Any) -> str:
    """By the collation of the index; where it has the plainest one, that of the column finds as
    much, or more. Columns with types are compared by their own."""
    if value is None:
        return f"{column.quoted} IS NULL"
    text = f"{column.quoted} = {column.marker}"
    return (
        text
        if collation == PLAIN or isinstance(column, TypedColumn)
        else f"{text} COLLATE {quote(collation)}"
    )
