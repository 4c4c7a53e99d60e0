"""Rows that are first heard of by their creation: inserted all at once.

A first sync is nothing else, so this is what its speed comes from. It is a faster form of what
`placement` does, and only for tables where a row needs to know of no other one; whatever is
not quite as usual is left to `placement`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import peewee

from ..changes import CREATE, Change, Wire
from ..clock import Version
from ..journal.journal import Journal
from ..models.tracked import Tracked
from ..tables.rows import UNFIT, UNTAKEN, ValueAltered, check_written, conversions
from ..tables.uniques import key_is_exact
from ..tables.versions import Versions

Changes = dict[str, list[tuple[Version, Change]]]
"""The changes of each row, by its pk as JSON text."""


class _Plans(dict[tuple[type, ...], list[tuple[int, Callable[[Wire], Any]]]]):
    """Which values have to be converted, by the types of all: most rows have the same."""

    def __init__(self, tracked: Tracked, database: peewee.Database) -> None:
        super().__init__()
        self._conversions = conversions(tracked.columns)
        # SQLite has numbers for them, and its driver looks long for another way to write one.
        self._of_bool = int if isinstance(database, peewee.SqliteDatabase) else bool

    def __missing__(self, types: tuple[type, ...]) -> list[tuple[int, Callable[[Wire], Any]]]:
        plan = self[types] = []
        for place, kind in enumerate(types):
            _, plain, convert = self._conversions[place]
            if kind is plain is bool:
                plan.append((place, self._of_bool))
            elif kind is not plain and kind is not type(None):
                plan.append((place, convert))
        return plan


class Arrivals:
    """Inserts new rows inside the open transaction."""

    def __init__(self, journal: Journal, versions: Versions) -> None:
        self._journal = journal
        self._versions = versions

    def insert(self, tracked: Tracked, rows: Changes, known: Collection[str]) -> set[str]:
        """Insert what can be inserted just like that; return the pks.

        `known` are the rows that were heard of before.
        """
        if tracked.parents or not key_is_exact(self._journal.database, tracked):
            return set()
        names = list(tracked.by_name)
        plans = _Plans(tracked, self._journal.database)
        key = tracked.key[0] if len(tracked.key) == 1 else None
        parameters: list[list[Any]] = []
        births: list[tuple[str, Version]] = []
        for pk, changes in rows.items():
            version, change = changes[0]
            value = change.value
            if change.operation != CREATE or len(changes) > 1 or pk in known or value is None:
                continue
            if list(value) != names:
                continue
            try:
                row = [key.key_parameter(change.pk)] if key else tracked.checked_key(change.pk)
                values = list(value.values())
                for place, convert in plans[tuple([type(wire) for wire in values])]:
                    values[place] = convert(values[place])
                row += values
            except UNFIT:
                continue
            parameters.append(row)
            births.append((pk, version))
        if not births:
            return set()
        try:
            with self._journal.attempt():
                self._journal.run_many(tracked.upsert_sql, parameters)
                if tracked.dialect.typed:
                    keys = [row[: len(tracked.key)] for row in parameters]
                    said = {pk: rows[pk][0][1].value or {} for pk, _ in births}
                    check_written(self._journal.database, tracked, keys, said)
        except (*UNTAKEN, ValueAltered):
            return set()
        self._versions.store_births(tracked.collection, births, tracked.names)
        return {pk for pk, _ in births}
