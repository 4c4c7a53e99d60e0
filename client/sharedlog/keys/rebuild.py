"""Rebuilding tables with new keys, inside an open transaction: SQLite's own recipe for changes
that ALTER TABLE cannot make (new table, copy, drop, rename, indexes and triggers again).

Old and new tables stand side by side until every row has been compared. Each row keeps its row
number, where it has one, so that the tables stay in their order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ..dialects import quote
from ..errors import MigrationRefused
from .catalog import StoredColumn, StoredTable
from .ddl import retyped
from .making import Keys
from .plan import Plan

CHUNK = 20_000
"""Rows between two reports of progress."""

KEYS = "temp.sharedlog_keys"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the rows done so far, and all rows."""


class Rebuild:
    """One run over one file. The caller begins and ends the transaction."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan, progress: Progress) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._plan = plan
        self._progress = progress
        self.rows = {table.id: self._count(_old(table)) for table in plan.rebuilt}

    def run(self, keys: Keys) -> None:
        self._make_keys(keys)
        self._check_references()
        self._drop_items()
        for table in self._plan.rebuilt:
            self._run(self._create(table))
            self._copy(table)
        for table in self._plan.rebuilt:
            self._progress(f"comparing {table.name}", 0, self.rows[table.id])
            self._compare(table)
        for table in self._plan.rebuilt:
            self._run(f"DROP TABLE {_old(table)}")
            self._run(f"ALTER TABLE {_new(table)} RENAME TO {quote(table.name)}")
        self._make_items()

    # -- the keys ------------------------------------------------------------------------

    def _make_keys(self, keys: Keys) -> None:
        self._run(f"DROP TABLE IF EXISTS {KEYS}")
        self._run(
            f"CREATE TABLE {KEYS} (source TEXT NOT NULL, number INTEGER NOT NULL, "
            "key TEXT NOT NULL UNIQUE, PRIMARY KEY (source, number)) WITHOUT ROWID"
        )
        for name in self._plan.made:
            table = self._plan.catalog.tables[name]
            numbers = self._run(f"SELECT {table.rowid} FROM {_old(table)} ORDER BY 1")
            made = keys.make(table.name, (number for (number,) in numbers), self.rows[name])
            done = 0
            while some := [(name, *pair) for pair in islice(made, CHUNK)]:
                self._run_many(f"INSERT INTO {KEYS} VALUES (?, ?, ?)", some)
                done += len(some)
                self._progress(f"numbering {table.name}", done, self.rows[name])

    def _key_of(self, source: str, column: str) -> str:
        """SQL for the new key in place of the number in a column."""
        return f"(SELECT key FROM {KEYS} WHERE source = {_text(source)} AND number = {column})"

    def _check_references(self) -> None:
        """A number that leads nowhere has no key to become."""
        problems = []
        for table in self._plan.rebuilt:
            for name, source in self._plan.columns(table.id).items():
                column = f"o.{quote(name)}"
                lost = f"{column} IS NOT NULL AND {self._key_of(source, column)} IS NULL"
                found = f"FROM {_old(table)} AS o WHERE {lost}"
                (count,) = self._run(f"SELECT count(*) {found}").fetchone()
                if count:
                    some = self._run(f"SELECT DISTINCT {column} {found} ORDER BY 1 LIMIT 5")
                    shown = ", ".join(str(value) for (value,) in some)
                    problems.append(
                        f"{count:,} rows of {table.name} have a {name} that is not in {source} "
                        f"({shown}{', …' if count > 5 else ''}): delete them, or set it to NULL."
                    )
        if problems:
            raise MigrationRefused.because(problems)

    # -- the tables ----------------------------------------------------------------------

    def _create(self, table: StoredTable) -> str:
        columns = self._plan.columns(table.id)
        key = table.numbered.lower() if table.numbered else None
        return retyped(table.sql, _name(table), columns, key if key in columns else None)

    def _copy(self, table: StoredTable) -> None:
        values = {
            quote(column.name): self._value(table, column)
            for column in table.columns
            if not column.computed
        }
        if table.rowid and not self._keeps_number(table):
            values[table.rowid] = f"o.{table.rowid}"
        insert = (
            f"INSERT INTO {_new(table)} ({', '.join(values)}) "
            f"SELECT {', '.join(values.values())} FROM {_old(table)} AS o"
        )
        total, done = self.rows[table.id], 0
        for where, bounds in self._chunks(table):
            done += self._run(f"{insert} {where}", bounds).rowcount
            self._progress(f"copying {table.name}", done, total)

    def _value(self, table: StoredTable, column: StoredColumn) -> str:
        """SQL for what the new row has in a column, from the old row `o`."""
        old = f"o.{quote(column.name)}"
        source = self._plan.columns(table.id).get(column.name.lower())
        return self._key_of(source, old) if source else old

    def _keeps_number(self, table: StoredTable) -> bool:
        """Whether the new table has a numbered key, too, which is its row number."""
        return bool(table.numbered) and (table.id, table.key[0]) not in self._plan.rewritten

    def _chunks(self, table: StoredTable) -> Iterator[tuple[str, Sequence[int]]]:
        """Conditions on the old row `o` that together hold for every row once."""
        rowid, old = table.rowid, _old(table)
        if rowid is None:
            yield "", ()
            return
        (start,) = self._run(f"SELECT min({rowid}) FROM {old}").fetchone()
        following = (
            f"SELECT {rowid} FROM {old} WHERE {rowid} >= ? ORDER BY 1 LIMIT 1 OFFSET {CHUNK}"
        )
        while start is not None:
            stop = self._run(following, (start,)).fetchone()
            if stop is None:
                yield f"WHERE o.{rowid} >= ?", (start,)
                return
            yield f"WHERE o.{rowid} >= ? AND o.{rowid} < ?", (start, *stop)
            (start,) = stop

    # -- what was copied -----------------------------------------------------------------

    def _compare(self, table: StoredTable) -> None:
        """Every row is there, with the same values, and its references lead where they led."""
        count = self._count(_new(table))
        if count != self.rows[table.id]:
            raise _different(table, f"{count:,} rows in place of {self.rows[table.id]:,}")
        join = f"{_old(table)} AS o LEFT JOIN {_new(table)} AS n ON {self._same_row(table)}"
        self._refuse_differences(table, join, self._differences(table))
        for column, source in self._plan.columns(table.id).items():
            parent = self._plan.catalog.tables[source]
            led = f"CAST(o.{quote(column)} AS INTEGER)"
            to_parent = f"p.{quote(parent.key[0])} = n.{quote(column)}"
            self._refuse_differences(
                table,
                f"{join} LEFT JOIN {_new(parent)} AS p ON {to_parent}",
                {column: f"p.{parent.rowid} IS NOT {led}"},
            )

    def _differences(self, table: StoredTable) -> dict[str, str]:
        """SQL for whether a new row `n` has another value in a column than it should."""
        found = {}
        for column in table.columns:
            value, new = self._value(table, column), f"n.{quote(column.name)}"
            found[column.name] = f"{new} IS NOT {value} COLLATE BINARY"
            if column.name.lower() not in self._plan.columns(table.id):
                found[column.name] += f" OR typeof({new}) <> typeof({value})"
        return found

    def _same_row(self, table: StoredTable) -> str:
        if table.rowid:
            return f"n.{table.rowid} = o.{table.rowid}"
        parts = [column for column in table.columns if column.key_part]
        return " AND ".join(f"n.{quote(c.name)} = {self._value(table, c)}" for c in parts)

    def _refuse_differences(self, table: StoredTable, join: str, wrong: dict[str, str]) -> None:
        sums = ", ".join(f"total({condition})" for condition in wrong.values())
        counts = self._run(f"SELECT {sums} FROM {join}").fetchone()
        for column, count in zip(wrong, counts, strict=True):
            if count:
                raise _different(table, f"another {column} in {count:,.0f} rows")

    # -- what hangs on the tables --------------------------------------------------------

    def _drop_items(self) -> None:
        """Renaming a table looks at every trigger and view of the file, so all of them go."""
        for kind in ("trigger", "view"):
            for item in self._plan.catalog.of_kind(kind):
                self._run(f"DROP {kind} IF EXISTS main.{quote(item.name)}")

    def _make_items(self) -> None:
        rebuilt = {table.id for table in self._plan.rebuilt}
        for kind in ("index", "view", "trigger"):
            for item in self._plan.catalog.of_kind(kind):
                if kind != "index" or item.table.lower() in rebuilt:
                    self._run(item.sql)

    def _count(self, table: str) -> int:
        count: int = self._run(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


def _name(table: StoredTable) -> str:
    return f"sharedlog_new_{table.name}"


def _new(table: StoredTable) -> str:
    return f"main.{quote(_name(table))}"


def _old(table: StoredTable) -> str:
    return f"main.{quote(table.name)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _different(table: StoredTable, what: str) -> MigrationRefused:
    return MigrationRefused(
        f"The copy of {table.name} is not what it should be: {what}.",
        hint="Nothing was changed. Does a column compute something from a key?",
    )
