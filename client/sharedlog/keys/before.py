"""What must be as before once the tables are rebuilt: the schema, the views, all references."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace

from ..dialects import quote
from ..errors import MigrationRefused
from .catalog import Catalog, StoredTable
from .plan import Plan


class Before:
    """Notes what holds before, and compares it with what holds after."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan) -> None:
        self._connection = connection
        self._run = connection.execute
        self._plan = plan
        self._orphans = self._find_orphans()
        self._views = self._count_views()

    def compare(self) -> None:
        """Raises MigrationRefused if the file is not what it was, but for the keys."""
        self._compare_schema(Catalog(self._connection))
        problems = [
            f"The view {name} gave {_rows(self._views.get(name))}, and now {_rows(count)}: "
            "drop it, and make it anew afterwards."
            for name, count in self._count_views().items()
            if count != self._views.get(name)
        ]
        if self._find_orphans() != self._orphans:
            problems.append("Other references lead nowhere than before.")
        found = [row[0] for row in self._run("PRAGMA main.integrity_check(5)")]
        if found != ["ok"]:
            problems.append(f"SQLite's integrity check says: {'; '.join(found)}.")
        if problems:
            raise MigrationRefused.because(problems)

    def _find_orphans(self) -> Counter[tuple[str, str]]:
        """References that lead nowhere, by table and parent; those of tables that are not
        rebuilt are not our business, as long as they stay what they are."""
        return Counter((row[0], row[2]) for row in self._run("PRAGMA main.foreign_key_check"))

    def _count_views(self) -> dict[str, int | None]:
        counts: dict[str, int | None] = {}
        for view in self._plan.catalog.of_kind("view"):
            try:
                count = self._run(f"SELECT count(*) FROM main.{quote(view.name)}").fetchone()[0]
            except sqlite3.Error:  # it did not work before, so it need not now
                count = None
            counts[view.name] = count
        return counts

    def _compare_schema(self, after: Catalog) -> None:
        before = self._plan.catalog
        if (
            set(after.items) != set(before.items)
            or Counter(after.references) != Counter(before.references)
            or self._without_keys(after) != self._without_keys(before)
        ):
            raise MigrationRefused("The tables did not come out as they were, but for the keys.")

    def _without_keys(self, catalog: Catalog) -> dict[str, StoredTable]:
        """The tables as they are, but for what is meant to change."""
        tables = {}
        for name, table in catalog.tables.items():
            rewritten = self._plan.columns(name)
            columns = tuple(
                replace(column, type="") if column.name.lower() in rewritten else column
                for column in table.columns
            )
            numbered = None if set(table.key) & rewritten.keys() else table.numbered
            sql = "" if rewritten else table.sql
            tables[name] = replace(table, sql=sql, numbered=numbered, columns=columns)
        return tables


def _rows(count: int | None) -> str:
    return "an error" if count is None else f"{count:,} rows"
