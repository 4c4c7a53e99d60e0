"""What users of a drawn application do: everything Peewee offers for writing, on few rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import peewee

from .drawn import Drawn
from .faults import Faults
from .kinds import BIG, COUNT, INTEGER, UUID, Kind
from .shapes import Column, Shape
from .workload import Workload, count_of, rows_of

ROWS_MAX = 16
"""In one table: few enough for devices to meet."""

KEYS = 6
"""How many values of a kind serve as keys."""

TRIES = 6
"""How often a user looks for values that are free."""


class DrawnUser(Workload):
    """One user at one device."""

    def __init__(self, chance: Random, faults: Faults) -> None:
        super().__init__(chance, faults)
        self._deleted: list[tuple[str, dict[str, Any]]] = []
        often: dict[Callable[[Table], object], int] = {
            self.create: 6,
            self.edit: 4,
            self.move: 3,
            self.set_by_id: 2,
            self.update_where: 2,
            self.count_up: 1,
            self.insert_many: 2,
            self.insert_from: 1,
            self.bulk_create: 1,
            self.bulk_update: 1,
            self.get_or_create: 1,
            self.replace: 2,
            self.upsert: 2,
            self.insert_or_ignore: 1,
            self.swap: 1,
            self.rename: 1,
            self.delete: 4,
            self.delete_where: 1,
        }
        self._things = [action for action, times in often.items() for _ in range(times)]

    def at_noon(self, models: Drawn) -> str:
        """The same row on all devices, as far as they have the same tables."""
        tables = [Table(models, shape, self._chance) for shape in models.shapes.values()]
        free = [table for table in tables if table.stands_alone()]
        if not free:
            return self._noon(lambda: self.edit(tables[0]))
        values = {**free[0].new(), **{name: free[0].first_key(name) for name in free[0].shape.key}}
        return self._noon(lambda: free[0].model.replace(**values).execute())

    def _noon(self, write: Callable[[], object]) -> str:
        try:
            write()
            return "noon"
        except peewee.IntegrityError:
            return "noon refused"

    def _one(self, models: Drawn) -> str:
        if self._deleted and self._chance.random() < 0.1:
            return self._try("undo deletion", lambda: self._undo_deletion(models))
        shape = models.shapes[self._chance.choice(list(models.shapes))]
        action = self._chance.choice(self._things)
        table = Table(models, shape, self._chance)
        return self._try(f"{action.__name__} {shape.name}", lambda: action(table))

    def _try(self, what: str, action: Callable[[], object]) -> str:
        try:
            done = action()
        except peewee.IntegrityError:
            return f"{what} refused"
        return f"{what} {done}" if isinstance(done, str) else what

    def _remember(self, table: Table, row: Any) -> None:
        """For those who think better of it."""
        self._deleted = [*self._deleted[-9:], (table.shape.name, dict(row.__data__))]

    def _undo_deletion(self, models: Drawn) -> str:
        """Create a row again that was deleted here, with the same key, as far as it goes."""
        name, values = self._chance.choice(self._deleted)
        if name not in models.shapes:
            return "of an unknown table"
        table = Table(models, models.shapes[name], self._chance)
        for column in table.shape.others:
            if column.null and column.parent and values.get(column.name) is not None:
                known = table.other(column.parent).pks()
                values = {**values, column.name: self._chance.choice((*known, None))}
        table.model.create(**{n: v for n, v in values.items() if n in table.shape.by_name})
        return name

    # -- one row -------------------------------------------------------------------------

    def create(self, table: Table) -> object:
        table = table.lacking()
        if table.is_crowded():
            self.delete(table)
            return None
        (values,) = table.free(1)
        for column in table.shape.others:  # some are left to their defaults
            if not column.is_required and self._chance.random() < 0.2:
                del values[column.name]
        return table.model.create(**values)

    def edit(self, table: Table) -> None:
        self._edit(table, [c for c in table.shape.others if c.parent is None])

    def move(self, table: Table) -> None:
        self._edit(table, [c for c in table.shape.others if c.parent is not None])

    def _edit(self, table: Table, columns: Sequence[Column]) -> None:
        row = table.any()
        if row is not None and columns:
            for column in self._chance.sample(columns, min(len(columns), 2)):
                setattr(row, column.name, table.value(column))
            row.save()

    def set_by_id(self, table: Table) -> None:
        row, columns = table.any(), table.shape.others
        if row is not None and columns:
            column = self._chance.choice(columns)
            table.model.set_by_id(row._pk, {column.name: table.value(column)})

    def get_or_create(self, table: Table) -> None:
        values = table.new()
        key = {name: values.pop(name) for name in table.shape.key}
        table.model.get_or_create(**key, defaults=values)

    def replace(self, table: Table) -> str | None:
        values = table.new_or_again()
        for column in table.shape.columns:
            # SQLite (3.40 and 3.54) lets a REPLACE refer to nothing, and to what it displaces,
            # where something else than the key is unique and others refer to the table.
            mine = (values[table.shape.key[0]],)
            known = table.other(column.parent).pks() if column.parent else ()
            sound = mine if column.parent == table.shape.name else known
            if column.parent and values[column.name] not in (None, *sound):
                return "nothing"
        table.model.replace(**values).execute()
        return None

    def upsert(self, table: Table) -> str:
        """By the key, or by other unique columns."""
        values, shape = table.new_or_again(), table.shape
        targets = [shape.key, *shape.unique, *((c.name,) for c in shape.others if c.unique)]
        target = self._chance.choice(targets)
        others = [column.name for column in shape.others if column.name not in target]
        if not others:
            return "nothing"
        fields = table.model._meta.fields
        table.model.insert(**values).on_conflict(
            conflict_target=[fields[name] for name in target],
            preserve=[fields[name] for name in self._chance.sample(others, min(2, len(others)))],
        ).execute()
        return ",".join(target)

    def insert_or_ignore(self, table: Table) -> None:
        table.model.insert(**table.new_or_again()).on_conflict_ignore().execute()

    def rename(self, table: Table) -> None:
        """Give a row another key."""
        row = table.any()
        free = [c for c in table.key_columns() if c.parent is None]
        if row is not None and free:
            column, fields = self._chance.choice(free), table.model._meta.fields
            is_it = [fields[name] == row.__data__[name] for name in table.shape.key]
            table.model.update({column.name: table.value(column)}).where(*is_it).execute()

    def delete(self, table: Table) -> None:
        row = table.any()
        if row is not None:
            self._remember(table, row)
            chance = self._chance
            recursive = chance.random() < 0.25 and table.can_delete_recursively()
            row.delete_instance(recursive=recursive, delete_nullable=chance.random() < 0.5)

    # -- some rows -----------------------------------------------------------------------

    def insert_many(self, table: Table) -> None:
        if not table.is_crowded():
            table.model.insert_many(table.free(self._chance.choice((1, 2, 3, 8)))).execute()

    def insert_from(self, table: Table) -> str | None:
        """Copy rows, with other keys."""
        (key, *more), others = table.key_columns(), table.shape.others
        if more or key.kind is not INTEGER or key.parent or table.is_crowded():
            return "nothing"
        fields = table.model._meta.fields
        mine = fields[key.name]
        rest = [fields[column.name] for column in others]
        few = mine.between(0, 7)
        table.model.insert_from(
            table.model.select(mine + 20, *rest).where(few), [mine, *rest]
        ).execute()
        return None

    def bulk_create(self, table: Table) -> None:
        if not table.is_crowded():
            table.model.bulk_create([table.model(**values) for values in table.free(2)])

    def bulk_update(self, table: Table) -> None:
        rows = table.rows()[: self._chance.choice((3, 8))]
        if rows and table.shape.others and len(table.shape.key) == 1:  # Peewee takes no others
            column = self._chance.choice(table.shape.others)
            for row in rows:
                setattr(row, column.name, table.value(column))
            table.model.bulk_update(rows, [column.name])

    def update_where(self, table: Table) -> None:
        if table.shape.others:
            one, other = (self._chance.choice(table.shape.others) for _ in range(2))
            condition = table.model._meta.fields[other.name] == table.value(other)
            if other.kind.takes(other.name, ["?"]):  # JSON is not easily compared
                condition = table.model._meta.fields[other.name].is_null(False)
            table.model.update({one.name: table.value(one)}).where(condition).execute()

    def count_up(self, table: Table) -> None:
        numbers = [
            c for c in table.shape.others if c.kind in (INTEGER, BIG, COUNT) and c.parent is None
        ]
        if numbers:
            field = table.model._meta.fields[self._chance.choice(numbers).name]
            table.model.update({field: field + 1}).where(field.between(-100, 100)).execute()

    def delete_where(self, table: Table) -> None:
        if table.shape.others:
            column = self._chance.choice(table.shape.others)
            field = table.model._meta.fields[column.name]
            is_it = field.is_null() if column.null else field == table.value(column)
            if not column.kind.takes(column.name, ["?"]):
                table.model.delete().where(is_it).execute()

    def swap(self, table: Table) -> None:
        """Two rows exchange a value that is unique."""
        columns = [column for column in table.shape.others if column.unique and column.null]
        rows = table.rows()
        if columns and len(rows) > 1:
            name = self._chance.choice(columns).name
            one, other = self._chance.sample(rows, 2)
            mine, theirs = one.__data__[name], other.__data__[name]
            with table.model._meta.database.atomic():
                for row, value in ((one, None), (other, mine), (one, theirs)):
                    setattr(row, name, value)
                    row.save()


class Table:
    """One table on one device, as its user sees it."""

    def __init__(self, models: Drawn, shape: Shape, chance: Random) -> None:
        self.shape = shape
        self.model = models.by_name[shape.name]
        self._models = models
        self._chance = chance

    def other(self, name: str) -> Table:
        return Table(self._models, self._models.shapes[name], self._chance)

    def key_columns(self) -> list[Column]:
        return [self.shape.by_name[name] for name in self.shape.key]

    def pks(self) -> list[Any]:
        """The keys of all rows, of a table whose key is one column."""
        key, database = self.model._meta.primary_key, self.model._meta.database
        sql = f'SELECT "{key.column_name}" FROM "{self.shape.name}" ORDER BY 1'
        return [key.python_value(value) for (value,) in database.execute_sql(sql).fetchall()]

    def rows(self) -> list[Any]:
        return rows_of(self.model)

    def any(self) -> Any:
        """One of the rows, or None if there is none."""
        rows = self.rows()
        return self._chance.choice(rows) if rows else None

    def can_delete_recursively(self) -> bool:
        """Peewee goes astray where it comes back to the table in which it began."""
        return all(column.parent in (None, self.shape.name) for column in self.shape.columns)

    def stands_alone(self) -> bool:
        """Whether a row of it can be written without a look at others, with a key of its own."""
        return self.shape.key != ("id",) and not any(c.parent for c in self.shape.columns)

    def is_crowded(self) -> bool:
        return count_of(self.model) >= ROWS_MAX

    # -- values --------------------------------------------------------------------------

    def new(self) -> dict[str, Any]:
        """A row that may or may not be there already. The first refers to itself, if it must."""
        values = {column.name: self.value(column) for column in self.shape.columns}
        for column in self.shape.columns:
            if column.parent == self.shape.name and not column.null and not self.pks():
                values[column.name] = values[self.shape.key[0]]
        return values

    def free(self, number: int) -> list[dict[str, Any]]:
        """Rows that clash with none, mostly."""
        rows = [dict(row.__data__) for row in self.rows()]
        found = []
        for _ in range(number):
            for _ in range(TRIES):
                values = self.new()
                if not any(self._clash(values, row) for row in rows):
                    break
            rows.append(values)
            found.append(values)
        return found

    def _clash(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        singly = ((column.name,) for column in self.shape.columns if column.unique)
        return any(
            all(one[name] is not None and one[name] == other[name] for name in names)
            for names in (self.shape.key, *self.shape.unique, *singly)
        )

    def lacking(self) -> Table:
        """This one, or the one above it that has no row yet to refer to."""
        table = self
        for _ in self._models.shapes:
            required = [
                column.parent
                for column in table.shape.columns
                if column.parent not in (None, table.shape.name) and not column.null
            ]
            empty = [name for name in required if name and not self.other(name).pks()]
            if not empty:
                break
            table = self.other(empty[0])
        return table

    def new_or_again(self) -> dict[str, Any]:
        values = self.new()
        row = self.any() if self._chance.random() < 0.5 else None
        if row is not None:
            values |= {name: row.__data__[name] for name in self.shape.key}
        return values

    def first_key(self, name: str) -> Any:
        return self.shape.by_name[name].kind.values[0]

    def value(self, column: Column) -> Any:
        chance, in_key = self._chance, column.name in self.shape.key
        if column.null and not in_key and chance.random() < 0.25:
            return None
        if column.parent is not None:
            keys = self.other(column.parent).pks() if chance.random() < 0.97 else []
            return chance.choice(keys) if keys else self._key(column.kind)
        return self._key(column.kind) if in_key else chance.choice(column.kind.values)

    def _key(self, kind: Kind) -> Any:
        if kind is UUID:
            return uuid.UUID(int=self._chance.getrandbits(128), version=4)
        return self._chance.choice(kind.values[:KEYS])
