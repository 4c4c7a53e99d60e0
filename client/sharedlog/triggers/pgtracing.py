"""The recorder whose work PostgreSQL does (see `tracing` for SQLite's)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import peewee

from ..dialects import quote
from ..errors import ConfigurationError
from ..journal.journal import Journal
from ..layout import POSTGRES_TRACE_TABLES
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.checks import check_tables
from .ddl import fingerprint, present
from .pgtraces import PostgresTraces
from .pgtriggers import IS_OFF, OFF, function_of, lock_of, triggers_of
from .tracing import TriggerRecorder, state_key


class PostgresTriggerRecorder(TriggerRecorder):
    """Records by triggers on the tracked tables."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        super().__init__(registry, journal)
        self._traces = PostgresTraces(registry, journal)
        self._found: dict[str, dict[str, str]] | None = None
        """The triggers that were found to be right."""

    # Transactions are known by their numbers, whoever's they are.

    def _watch(self) -> None:
        self._journal.locks.insert(0, f"SELECT pg_advisory_xact_lock({lock_of(self._schema())})")

    def _unwatch(self) -> None:
        del self._journal.locks[:-1]

    def _schema(self) -> str:
        schema = self._run("SELECT current_schema()").fetchone()[0]
        if schema is None:
            raise ConfigurationError(
                "None of the schemas in this connection's search_path exists.",
                hint="Create the schema, or correct search_path.",
            )
        return str(schema)

    def _check_schemas(self) -> None:
        """Tables may be in any schema."""

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Others can neither write meanwhile, nor is it off for them."""
        before = self._run(IS_OFF).fetchone()
        self._run(OFF, ("1",))
        try:
            yield
        finally:
            if self._journal.in_transaction() and not self._journal.has_failed():
                self._run(OFF, before)

    # -- the triggers --------------------------------------------------------------------

    def install(self) -> list[str]:
        self._found = None
        return super().install()

    def check(self) -> list[str]:
        there = present(self._database, self._registry)
        if there == self._found:
            return []
        if all(self._is_right(tracked, there[tracked.collection]) for tracked in self._registry):
            self._found = there
            return []
        check_tables(self._database, self._registry)
        try:
            unrecorded = self._make(there)
        except peewee.ProgrammingError as error:
            raise ConfigurationError(
                f"The triggers cannot be made: {error}",
                hint="Run setup() once as the owner of all tracked tables, or use "
                'capture="signals".',
            ) from error
        self._found = None  # what others do meanwhile is seen the next time
        return unrecorded

    def _make(self, there: Mapping[str, Mapping[str, str]]) -> list[str]:
        schema = self._schema()
        with self._journal.making_tables():
            for statement in POSTGRES_TRACE_TABLES:
                self._database.execute_sql(statement)
            self._database.execute_sql(function_of(schema))
            return [
                tracked.collection
                for tracked in self._registry
                if not self._put_right(tracked, schema, there[tracked.collection])
            ]

    def _is_right(self, tracked: Tracked, there: Mapping[str, str]) -> bool:
        """Whether triggers are as this program made them."""
        if not there or not self._database.table_exists("sharedlog_trace_shape"):
            return False
        return self._journal.state(state_key(tracked)) == self._said(tracked, there)

    def _said(self, tracked: Tracked, there: Mapping[str, str]) -> str:
        """What is kept of a table's triggers: what this program makes, and how that looks there."""
        schema, shape = self._schema(), self._traces.shape_number(tracked)
        made = {"": function_of(schema), **triggers_of(tracked, shape, schema)}
        return f"{fingerprint(made)} {fingerprint(there)}"

    def _put_right(self, tracked: Tracked, schema: str, there: Mapping[str, str]) -> bool:
        """Make a table's triggers what they should be; return whether they were as we left them."""
        key, shape = state_key(tracked), self._traces.shape_number(tracked)
        known = self._journal.state(key)
        as_left = known is None or known.rpartition(" ")[2] == fingerprint(there)
        self._drop_on(tracked.table, there)
        for statement in triggers_of(tracked, shape, schema).values():
            self._database.execute_sql(statement)
        now = present(self._database, self._registry)[tracked.collection]
        self._journal.set_state(**{key: self._said(tracked, now)})
        return as_left

    def _drop_on(self, table: str, triggers: Mapping[str, str]) -> None:
        for name in triggers:
            self._run(f"DROP TRIGGER IF EXISTS {quote(name)} ON {table}")

    def _take_off(self) -> None:
        """From the tables, by whatever names they have now."""
        names = self._registry.names
        tables = {t.collection for t in self._registry}
        tables |= {former for table in tables for former in names.of_table(table)}
        with self._journal.transaction():
            for name, table, _ in self._journal.dialect.triggers(self._database):
                if table in tables:
                    self._drop_on(quote(table), {name: ""})
