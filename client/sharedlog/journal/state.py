"""sharedlog's own tables, brought to this version's layout, and what is kept there by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import peewee

from ..changes import FIRST_SCHEMA
from ..errors import DatabaseTooNew
from ..layout import STEPS
from .transactions import Transactions

_ADDED = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)")


class State(Transactions):
    """The tables of one database. `schema` is the schema version of the program that uses it."""

    def __init__(self, database: peewee.Database, schema: int = FIRST_SCHEMA) -> None:
        super().__init__(database)
        self.schema = schema

    def create_tables(self, steps: Sequence[Sequence[str]] = STEPS) -> None:
        """Bring the tables to this version's layout. Idempotent; all or nothing."""
        with self.making_tables():
            made = self.database.table_exists("sharedlog_state")
            layout = int(self.state("layout") or 0) if made else 0
            if layout > len(steps):
                raise DatabaseTooNew(
                    "This database was used by a newer version of sharedlog.",
                    hint="Upgrade sharedlog; nothing was changed.",
                )
            for step in steps[layout:]:
                for statement in step:
                    self._make(statement)
            if layout < len(steps):
                self.set_state(layout=str(len(steps)))
            self._check_schema()

    def _make(self, statement: str) -> None:
        text = self.dialect.layout(statement)
        if text is not None and not self._is_made(statement):
            self.run(text)

    def _is_made(self, statement: str) -> bool:
        """Whether this column is there: MySQL does not undo an interrupted step, and somebody
        may have emptied our tables, with what they say of the layout."""
        added = _ADDED.match(statement)
        return added is not None and added[2] in self.dialect.column_names(self.database, added[1])

    def _check_schema(self) -> None:
        used = int(self.state("schema") or FIRST_SCHEMA)
        if used > self.schema:
            raise DatabaseTooNew(
                f"This database was used by a newer version of this program: schema version "
                f"{used}, where this one has {self.schema}.",
                hint="Run the newer program; nothing was changed.",
            )
        if used < self.schema:
            self.set_state(schema=str(self.schema))

    def state(self, key: str) -> str | None:
        """What is kept by this name, None if nothing is."""
        if self.is_keeping and " " not in key:
            return self.kept("state", self._every_state).get(key)
        row = self.run("SELECT value FROM sharedlog_state WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _every_state(self) -> dict[str, str | None]:
        """All but what is kept of tables, whose names follow a space."""
        return dict(self.run("SELECT key, value FROM sharedlog_state WHERE key NOT LIKE '% %'"))

    def set_state(self, **values: str | None) -> None:
        self.run_many("INSERT OR REPLACE INTO sharedlog_state VALUES (?, ?)", values.items())
        if self.is_keeping:
            self.kept("state", self._every_state).update(values)

    def forget_state(self, keys: Iterable[str]) -> None:
        self.run_many("DELETE FROM sharedlog_state WHERE key = ?", [(key,) for key in keys])
        self.read_anew("state")

    # -- the clock's floor -----------------------------------------------------------------

    def lift_clock(self, ticks: int) -> None:
        """Make every later local timestamp greater than `ticks`."""
        self.run(f"UPDATE sharedlog_clock SET floor = {self.dialect.greatest}(floor, ?)", (ticks,))

    def trust_clock(self, lead_ms: int) -> None:
        """Take back a correction of this device's clock as far as it is no longer needed."""
        self.run("UPDATE sharedlog_clock SET lead_ms = ? WHERE lead_ms > ?", (lead_ms, lead_ms))
