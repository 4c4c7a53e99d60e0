"""The recorder whose work PostgreSQL does (see `tracing` for SQLite's)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import peewee

from ..dialects import Trigger, quote
from ..errors import ConfigurationError
from ..journal.journal import Journal
from ..layout import POSTGRES_TRACE_TABLES, POSTGRES_TRACES_BEFORE
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.checks import check_tables
from .ddl import fingerprint
from .pgtraces import PostgresTraces
from .pgtriggers import IS_OFF, OFF, function_of, lock_of, shape_in, triggers_of
from .tracing import TriggerRecorder, state_key

_IN_PARTS = """SELECT 1 FROM pg_class WHERE oid = to_regclass(?) AND relkind = 'p'
    UNION ALL SELECT 1 FROM pg_inherits WHERE to_regclass(?) IN (inhrelid, inhparent)"""

Triggers = Sequence[Trigger]


class PostgresTriggerRecorder(TriggerRecorder):
    """Records by triggers on the tracked tables."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        super().__init__(registry, journal)
        self._traces = PostgresTraces(registry, journal)
        self._found: Triggers | None = None
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

    def _check_places(self) -> None:
        """In any schema, but each in one table: who writes into a part of it passes by the
        triggers of statements, which are the whole's."""
        for tracked in self._registry:
            if self._run(_IN_PARTS, (tracked.table,) * 2).fetchone() is not None:
                raise ConfigurationError(
                    f"The table {tracked.collection!r} is partitioned or part of an inheritance: "
                    "triggers would not see all that is done to its parts.",
                    hint='Use capture="signals" for this database, or make it one plain table.',
                )

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
        found = self._triggers()
        if found == self._found:
            return []
        check_tables(self._database, self._registry)
        right = all(self._is_right(tracked, self._on(tracked, found)) for tracked in self._registry)
        if right and not self._strays(found):
            self._found = found
            return []
        try:
            unrecorded = self._make(found)
        except peewee.ProgrammingError as error:
            raise ConfigurationError(
                f"The triggers cannot be made: {error}",
                hint="Run setup() once as the owner of all tracked tables, or use "
                'capture="signals".',
            ) from error
        self._found = None  # what others do meanwhile is seen the next time
        return unrecorded

    def _triggers(self) -> list[Trigger]:
        """Those of all applications."""
        return self._journal.dialect.triggers(self._database)

    def _on(self, tracked: Tracked, found: Triggers) -> dict[str, str]:
        """Those of its table: what made them, by their names."""
        table = self._table(tracked)
        return {trigger.name: trigger.sql for trigger in found if trigger.quoted == table}

    def _strays(self, found: Triggers) -> list[Trigger]:
        """Those of ours that went with a table which is not the tracked one any more."""
        tables = {self._table(tracked) for tracked in self._registry}
        return [trigger for trigger in self._ours(found) if trigger.quoted not in tables]

    def _ours(self, found: Triggers) -> list[Trigger]:
        """Those that note rows of this application, wherever they are."""
        shapes = self._traces.shapes() if found else {}
        return [trigger for trigger in found if shape_in(trigger.sql) in shapes]

    def _table(self, tracked: Tracked) -> str | None:
        """What PostgreSQL calls its table, if there is one."""
        found = self._run("SELECT to_regclass(?)::text", (tracked.table,)).fetchone()
        return None if found is None else found[0]

    def _make(self, found: Triggers) -> list[str]:
        schema = self._schema()
        with self._journal.making_tables():
            for statement in POSTGRES_TRACE_TABLES:
                self._database.execute_sql(statement)
            if "place" not in self._journal.dialect.column_names(self._database, "sharedlog_trace"):
                self._database.execute_sql(POSTGRES_TRACES_BEFORE)
            self._database.execute_sql(function_of(schema))
            for trigger in self._strays(found):
                self._drop_from(trigger.quoted, [trigger.name])
            return [
                tracked.collection
                for tracked in self._registry
                if not self._put_right(tracked, schema, self._on(tracked, found))
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
        self._drop_from(tracked.table, there)
        for statement in triggers_of(tracked, shape, schema).values():
            self._database.execute_sql(statement)
        now = self._on(tracked, self._triggers())
        self._journal.set_state(**{key: self._said(tracked, now)})
        return as_left

    def _drop_from(self, table: str, names: Iterable[str]) -> None:
        for name in names:
            self._run(f"DROP TRIGGER IF EXISTS {quote(name)} ON {table}")

    def _take_off(self) -> None:
        """From the tables, by whatever names they have now."""
        with self._journal.transaction():
            for trigger in self._ours(self._triggers()):
                self._drop_from(trigger.quoted, [trigger.name])
