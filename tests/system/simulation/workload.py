"""What users do, whatever the application: one thing after the other, or in transactions."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import peewee

from .faults import Faults


def rows_of(model: Any) -> list[Any]:
    """All rows, in the order of their keys. In SQL: to look around is not what is tested."""
    meta = model._meta
    columns = ", ".join(f'"{field.column_name}"' for field in meta.sorted_fields)
    keys = ", ".join(f'"{field.column_name}"' for field in meta.get_primary_keys())
    return list(model.raw(f'SELECT {columns} FROM "{meta.table_name}" ORDER BY {keys}'))


def count_of(model: Any) -> int:
    meta = model._meta
    counted = meta.database.execute_sql(f'SELECT count(*) FROM "{meta.table_name}"')
    return int(counted.fetchone()[0])


class RolledBack(Exception):
    """The application changes its mind in the middle of a transaction."""


class Workload:
    """One user at one device. Subclasses say what there is to do."""

    _actions: list[Callable[[Any], object]]

    def __init__(self, chance: Random, faults: Faults) -> None:
        self._chance = chance
        self._faults = faults

    def act(self, database: peewee.Database, models: Any) -> str:
        """Do something, in one transaction or without any; say what."""
        if self._chance.random() < 0.6:
            return self._one(models)
        try:
            with database.atomic():
                done = [self._one(models) for _ in range(self._chance.randint(1, 4))]
                if self._faults.strike("savepoint rolled back"):
                    done.append(self._in_vain(database, models))
                    done.append(self._one(models))
                if self._faults.strike("transaction rolled back"):
                    raise RolledBack
                return "(" + ", ".join(done) + ")"
        except RolledBack:
            return "rolled back"
        except peewee.IntegrityError:
            return "refused at the end"  # by a deferred constraint

    def at_noon(self, models: Any) -> str:
        """What every device does by itself at the same time each day."""
        raise NotImplementedError

    def _in_vain(self, database: peewee.Database, models: Any) -> str:
        try:
            with database.atomic():
                self._one(models)
                self._one(models)
                raise RolledBack
        except RolledBack:
            return "savepoint rolled back"

    def _one(self, models: Any) -> str:
        action = self._chance.choice(self._actions)
        try:
            done = action(models)
        except peewee.IntegrityError:
            return f"{action.__name__} refused"
        return f"{action.__name__} {done}" if isinstance(done, str) else action.__name__
