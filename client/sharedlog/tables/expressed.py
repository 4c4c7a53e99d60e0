"""Unique values that only the database can tell: those of expressions, or among some rows only.

So it is asked. Rows are given to it as if they stood in the table, with its columns' types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import peewee

from ..changes import Wire
from ..dialects.base import PLAIN, UniqueIndex
from ..dialects.tokens import tokens
from ..journal.journal import chunks
from ..models.columns import TrackedColumn
from ..models.tracked import Tracked
from .rows import select_rows
from .stored import stored_rows

ROWS = 50
"""How many rows the database is asked about at a time."""

FOLDED: Mapping[str, str] = {
    PLAIN: "({0})",
    "NOCASE": "CASE typeof({0}) WHEN 'text' THEN lower({0}) ELSE ({0}) END",
    "RTRIM": "CASE typeof({0}) WHEN 'text' THEN rtrim({0}, ' ') ELSE ({0}) END",
}
"""What makes one value of all that are equal by a collation."""

Claim = tuple[Any, ...]
"""What a row has in such an index, as the database gives it: the same for all that are equal."""


class Expressed:
    """A unique index over expressions, or among some rows only.

    Attributes:
        columns: The columns that it speaks of.
        names: What it is over, for people.
    """

    def __init__(self, database: peewee.Database, tracked: Tracked, index: UniqueIndex) -> None:
        self._database = database
        self._tracked = tracked
        self._said = index.said
        self._takes_nulls = index.takes_nulls
        self._where = index.where or "1 = 1"
        self._collations = [collation.upper() for _, collation in index.parts]
        self.names = ", ".join(index.said)
        spoken_of = {token.name for token in tokens(f"{self.names} {self._where}")}
        self.columns: Sequence[TrackedColumn] = [
            column for column in tracked.every if column.field.column_name.lower() in spoken_of
        ]

    @property
    def is_decidable(self) -> bool:
        return bool(self._said) and all(name in FOLDED for name in self._collations)

    def claims(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, Claim]:
        """What these rows have in it, by pk: those that it is about, and that have no NULL there,
        which as a rule equals nothing. Rows are as the driver takes them (`tracked.every`)."""
        claims: dict[str, Claim] = {}
        for chunk in chunks(list(rows.items()), ROWS):
            asked = [value for number, (_, row) in enumerate(chunk) for value in (number, *row)]
            sql = self._asking(len(chunk))
            found = stored_rows(self._tracked.dialect, self._database, sql, asked)
            for number, is_concerned, *values in found:
                if is_concerned and (self._takes_nulls or None not in values):
                    claims[chunk[number][0]] = tuple(map(_hashable, values))
        return claims

    def rivals(self, claims: Iterable[Claim]) -> dict[str, dict[str, Wire]]:
        """The rows in the table that have any of this: pk -> values by name."""
        found: dict[str, dict[str, Wire]] = {}
        for chunk in chunks(list(dict.fromkeys(claims)), ROWS):
            condition = f"({self._where}) AND ({' OR '.join(map(self._equals, chunk))})"
            parameters = [value for claim in chunk for value in claim if value is not None]
            found |= select_rows(self._database, self._tracked, condition, parameters)
        return found

    def _equals(self, claim: Claim) -> str:
        parts = zip(self._said, claim, strict=True)
        equal = (f"({said}) {'IS NULL' if value is None else '= ?'}" for said, value in parts)
        return f"({' AND '.join(equal)})"

    def _asking(self, rows: int) -> str:
        """The first part gives the columns their types, and no row. (What stands behind WHERE,
        SQLite looks at where there are none.)"""
        every = self._tracked.every
        columns = ", ".join(column.quoted for column in every)
        row = f" UNION ALL SELECT ?, {', '.join(column.marker for column in every)}"
        folded = ", ".join(
            f"CASE WHEN ({self._where}) THEN {FOLDED[name].format(said)} END"
            for said, name in zip(self._said, self._collations, strict=True)
        )
        return (
            f"SELECT sharedlog_row, CASE WHEN ({self._where}) THEN 1 END, {folded} "
            f"FROM (SELECT 0 AS sharedlog_row, {columns} "
            f"FROM {self._tracked.table} WHERE 1 = 0{row * rows}) AS made"
        )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
