"""Rows on their way to the application's tables, and rows as they are in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from ..changes import Wire, dumps, loads
from ..errors import ValueRefused
from ..journal.journal import chunks
from ..merge.reconcile import BIRTH, RowState
from ..models.columns import TrackedColumn
from ..models.tracked import Tracked
from ..raw import Uncarried
from .stored import stored_rows

UNFIT = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What converting a value from the wire may raise when it is not one of its column."""

UNTAKEN = (
    peewee.IntegrityError,
    peewee.DataError,
    peewee.ProgrammingError,
    peewee.InterfaceError,
    OverflowError,
)
"""What the database or its driver may raise for a row that it does not take."""


CONSTRAINT = "CONSTRAINT"
"""The code of rows that the database refuses."""


def refusal(error: Exception) -> str:
    """Why a row is parked that the database refuses."""
    return f"{CONSTRAINT}: {error}"


class ValueAltered(Exception):
    """The database took a value and made another one of it."""


Target = tuple[str, str]
"""A field that others refer to: table and field name."""

Reference = tuple[Target, str]
"""A row as others refer to it: the field, and its value as JSON text, one for all that are equal
to its collation."""


KEPT = "KEPT"


@dataclass(slots=True)
class Work:
    """A row on its way to its table.

    Attributes:
        key: The pk as a wire value; `pk` is the same as JSON text.
        written: What a row in the table gets.
        values: All values of a row that is to be inserted, else None.
        parameters: Either of them as the statement takes it.
        yields: The columns of a row in the table that give up a unique value.
        before: Why the row was parked until now; KEPT if it was kept.
    """

    tracked: Tracked
    pk: str
    key: Wire
    state: RowState
    written: dict[str, Wire]
    in_table: bool
    values: dict[str, Wire] | None = None
    parameters: Sequence[Any] = ()
    yields: Sequence[TrackedColumn] = ()
    before: str | None = None

    @property
    def stands(self) -> bool:
        """Whether the row is to be in its table, for all that is known so far."""
        return self.state.stands

    @property
    def lives(self) -> bool:
        """Whether the row is alive, or was changed after its deletion where that counts."""
        state = self.state
        changed = self.tracked.update_wins and BIRTH in state.buried and bool(state.fields)
        return state.alive or changed

    def is_found(self) -> None:
        """It is in its table after all: what was to be inserted is written anew there."""
        self.in_table = True
        if self.values is not None:
            self.written, self.values = self.values, None

    def key_parameters(self) -> list[Any]:
        return self.tracked.key_parameters(self.key)

    def wire(self, name: str) -> Wire:
        """What is about to be written in a field, or the part of the key of that name."""
        if name not in self.tracked.by_name:
            return self.key_part(name)
        return (self.written if self.values is None else self.values).get(name)

    def key_part(self, name: str) -> Wire:
        """The part of the key of that name; None if it is none, or if this key, which may come
        from anybody, has other parts."""
        key, pk = self.tracked.key, self.key
        for index, column in enumerate(key):
            if column.name == name:
                if len(key) == 1:
                    return pk
                return pk[index] if type(pk) is list and len(pk) == len(key) else None
        return None

    def writes(self, column: TrackedColumn) -> bool:
        return not self.in_table or column.name in self.written

    def blank(self, column: TrackedColumn) -> Any:
        """What can stand in the column for a moment, and means nothing."""
        return None if column.field.null else column.placeholder(f"sharedlog {self.pk}")

    def references(self) -> Iterator[tuple[TrackedColumn, Wire]]:
        """The values by which this row is about to refer to others anew."""
        for column in self.tracked.parents:
            if self.writes(column) and (value := self.wire(column.name)) is not None:
                yield column, value


def target_of(column: TrackedColumn) -> Target:
    """The field that a foreign key refers to."""
    referred = column.field.rel_field
    return referred.model._meta.table_name, referred.name


Conversion = tuple[str, "type | None", Callable[[Wire], Any]]
"""A column's name, what the driver takes as it is, and what converts the rest."""


def conversions(columns: Iterable[TrackedColumn]) -> list[Conversion]:
    """What converts the values of these columns, for many rows at a time."""
    return [(column.name, column.plain, column.to_parameter) for column in columns]


def read_rows(
    database: peewee.Database, tracked: Tracked, keys: Sequence[Sequence[Any]]
) -> dict[str, dict[str, Wire]]:
    """Rows of a table by their keys (driver values): pk as JSON text -> values by name."""
    found: dict[str, dict[str, Wire]] = {}
    for chunk in chunks(keys, 200):
        where = " OR ".join([f"({tracked.where_key})"] * len(chunk))
        found |= select_rows(database, tracked, where, [part for key in chunk for part in key])
    return found


def standing_rows(
    database: peewee.Database, tracked: Tracked, pks: Iterable[str]
) -> dict[str, dict[str, Wire]]:
    """Those of these rows that are in the table."""
    asked, keys = set(), []
    for pk in pks:
        try:
            keys.append(tracked.checked_key(loads(pk)))
        except UNFIT:
            continue  # not a key of this table: the row cannot be in it
        asked.add(pk)
    found = read_rows(database, tracked, keys)
    # A collation finds other rows, too, whose keys are equal to it.
    return {pk: values for pk, values in found.items() if pk in asked}


def select_rows(
    database: peewee.Database, tracked: Tracked, where: str, parameters: Sequence[Any]
) -> dict[str, dict[str, Wire]]:
    """Rows of a table by a condition: pk as JSON text -> values by name."""
    names = ", ".join(column.quoted for column in tracked.every)
    sql = f"SELECT {names} FROM {tracked.table} WHERE {where}"
    return as_wires(tracked, stored_rows(tracked.dialect, database, sql, parameters))


def all_rows(database: peewee.Database, tracked: Tracked) -> dict[str, dict[str, Wire]]:
    return select_rows(database, tracked, "1 = 1", ())


def check_written(
    database: peewee.Database,
    tracked: Tracked,
    keys: Sequence[Sequence[Any]],
    expected: Mapping[str, Mapping[str, Wire]],
) -> None:
    """Raise `ValueAltered` unless these rows, which were just written, are as they should be:
    a column with a type may round a number or cut off a text, and say nothing."""
    try:
        found = read_rows(database, tracked, keys)
    except ValueRefused as error:
        raise ValueAltered(error.message) from None
    for pk, values in expected.items():
        if pk not in found:
            raise ValueAltered(f"the table of {tracked.collection} makes another key of {pk:.100}")
        for name, value in values.items():
            column, made = tracked.by_name[name], found[pk][name]
            if not column.same(made, value):
                said = str(made) if isinstance(made, Uncarried) else dumps(made)
                raise ValueAltered(f"the column of {name} makes {said:.100} of {dumps(value):.100}")


def rows_after(
    database: peewee.Database, tracked: Tracked, last: Sequence[Any] | None, limit: int
) -> list[Any]:
    """The next rows of a table in key order, as they stand in it (`tracked.every`); `last` is
    the row to go on after, None for the first ones."""
    every = ", ".join(column.quoted for column in tracked.every)
    key = ", ".join(column.quoted for column in tracked.key)
    where, parameters = "", list[Any]()
    if last is not None:
        parameters = list(last[: len(tracked.key)])
        where = f"WHERE ({key}) > ({', '.join(column.marker for column in tracked.key)})"
    sql = f"SELECT {every} FROM {tracked.table} {where} ORDER BY {key} LIMIT {limit}"
    return stored_rows(tracked.dialect, database, sql, parameters)


def as_wires(tracked: Tracked, rows: Iterable[Sequence[Any]]) -> dict[str, dict[str, Wire]]:
    """Rows as they stand in the table (`tracked.every`): pk as JSON text -> values by name."""
    width = len(tracked.key)
    columns = [(column.name, column.wire_of_stored) for column in tracked.columns]
    return {
        tracked.pk_json(tracked.pk_of_stored(row)): {
            name: wire(stored) for (name, wire), stored in zip(columns, row[width:], strict=True)
        }
        for row in rows
    }
