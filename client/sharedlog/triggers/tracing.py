"""The recorder whose work SQLite does: triggers note every change, raw SQL and other programs' too.

Triggers belong to the file: they stay when this program ends, and vanish when somebody makes a
table anew. So they are compared with what they should be, at set-up and with every exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import peewee

from ..dialects import quote
from ..errors import ConfigurationError
from ..journal.journal import Journal, RefusedEntry
from ..journal.recorder import claim, release
from ..layout import TRACE_TABLES
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.checks import check_tables
from ..tables.inserts import check_key, in_hand, prepared
from .ddl import fingerprint, present, remembered, table_of, triggers_of
from .harvest import Harvest
from .marks import Marks
from .traces import Traces


class TriggerRecorder:
    """Records by triggers on the tracked tables."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._database = journal.database
        self._registry = registry
        self._journal = journal
        self._run = journal.run
        self._traces: Traces = Traces(registry, journal)
        self._marks = Marks(self._database)
        self._execute: Any = self._database.execute
        self._seen: int | None = None
        """The version of the schema that was found to be right."""
        self._installed = False

    # -- recording -----------------------------------------------------------------------

    def install(self) -> list[str]:
        self._check_places()
        claim(self._database, self)
        try:
            self._seen = None
            unrecorded = self.check()
        except BaseException:
            release(self._database, self)
            raise
        self._execute = self._database.execute
        self._database.execute = self.execute  # type: ignore[method-assign]
        self._watch()
        self._installed = True
        return unrecorded

    def uninstall(self) -> None:
        """The triggers stay: what other programs write meanwhile is noted, too."""
        if release(self._database, self):
            self._installed = False
            self._database.execute = self._execute  # type: ignore[method-assign]
            self._unwatch()

    def _watch(self) -> None:
        self._marks.watch()

    def _unwatch(self) -> None:
        self._marks.unwatch()

    def waiting(self) -> int:
        return self._traces.count() if self._traces.are_there() else 0

    def harvest(self, limit: int | None = None) -> list[RefusedEntry]:
        if not self._traces.are_there():
            return []
        if any(tracked.rules for tracked in self._registry):
            limit = None  # what rules make of changes goes into the tables: nothing may be left
        return Harvest(self._registry, self._journal, self._traces).run(limit)

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """No other connection can write meanwhile, or ever sees that recording is off."""
        before = self._run("SELECT off FROM sharedlog_capture").fetchone()
        self._run("UPDATE sharedlog_capture SET off = 1")
        try:
            yield
        finally:
            if self._journal.in_transaction():  # else all of it is gone with the transaction
                self._run("UPDATE sharedlog_capture SET off = ?", before)

    def execute(self, query: Any, **options: Any) -> Any:
        """What `Database.execute` does. An insert must not leave its key to SQLite; and that of
        one instance is written faster (see `inserts`)."""
        tracked = None
        if isinstance(query, peewee.Insert):
            tracked = self._registry.table(query.table)
        if tracked is None:
            return self._execute(query, **options)
        return self._insert(tracked, query, options)

    def _insert(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        simple = (
            query.table is tracked.model
            and query._query_type == peewee.Insert.SIMPLE
            and query._on_conflict is None
        )
        statement = None
        if simple or tracked.numbered:
            query, found = in_hand(tracked, query)
            check_key(tracked, found)
            if found and simple and not options:
                statement = prepared(self._database, query, found)
        if statement is None:
            return self._execute(query, **options)
        return self._database.execute_sql(*statement)

    def _check_places(self) -> None:
        for tracked in self._registry:
            if tracked.model._meta.schema not in (None, "", "main"):
                raise ConfigurationError(
                    f"{tracked.model.__name__} is in another file ({tracked.table}): triggers "
                    "cannot write from one into another.",
                    hint='Use capture="signals" for this database.',
                )

    # -- the triggers --------------------------------------------------------------------

    def check(self) -> list[str]:
        """Put back what is missing. The collections that are returned were recorded once, and
        then not, or by something else: what changed in them meanwhile is for `adopt()`."""
        if self._seen == self._schema_version() and self._is_on():
            return []
        check_tables(self._database, self._registry)
        with self._journal.transaction():
            for statement in TRACE_TABLES:
                self._run(statement)
            was_on = self._is_on()
            self._run("UPDATE sharedlog_capture SET off = 0")
            self._widen()
            there = present(self._database, self._registry)
            unrecorded = [
                tracked.collection
                for tracked in self._registry
                if not self._put_on(tracked, there[tracked.collection]) or not was_on
            ]
            self._seen = self._schema_version()
        return unrecorded

    def _put_on(self, tracked: Tracked, there: Mapping[str, str]) -> bool:
        """Make a table's triggers what they should be; return whether they were as we left them."""
        table = table_of(self._database, tracked.collection)
        expected = triggers_of(tracked, self._traces.shape_number(tracked), table)
        if there != expected:
            self._drop(there)
            for statement in expected.values():
                self._run(statement)
        key = state_key(tracked)
        known = self._journal.state(key)
        if known != fingerprint(expected):
            self._journal.set_state(**{key: fingerprint(expected)})
        return known is None or known == fingerprint(there)

    def _drop(self, triggers: Mapping[str, str]) -> None:
        for name in triggers:
            self._run(f"DROP TRIGGER IF EXISTS {quote(name)}")

    def _widen(self) -> None:
        """Give the tables of traces a column for each value of the widest table."""
        for name, width in (
            ("sharedlog_trace", max(len(t.every) + len(t.rules) for t in self._registry)),
            ("sharedlog_rival", max(len(remembered(tracked)) for tracked in self._registry)),
        ):
            columns = self._run("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
            have = sum(column.startswith("v") for (column,) in columns)
            for number in range(have, width):
                self._run(f"ALTER TABLE {name} ADD COLUMN v{number}")

    def _schema_version(self) -> int:
        return int(self._run("PRAGMA schema_version").fetchone()[0])

    def _is_on(self) -> bool:
        row = self._run("SELECT off FROM sharedlog_capture").fetchone()
        return row is not None and not row[0]

    # -- without triggers ----------------------------------------------------------------

    @contextmanager
    def migrating(self) -> Iterator[None]:
        self._take_off()
        try:
            yield
        except BaseException:
            with suppress(ConfigurationError):  # the next exchange says it
                self._put_back()
            raise
        self._put_back()

    def remove(self) -> None:
        """Record by triggers no more. What they noted comes into the client log."""
        if self._database.table_exists("sharedlog_trace"):
            with self._journal.transaction():
                self._take_off()
                self.harvest()
                self._forget()

    def _take_off(self) -> None:
        with self._journal.transaction():
            for triggers in present(self._database, self._registry).values():
                self._drop(triggers)

    def _put_back(self) -> None:
        self._forget()
        self._seen = None
        if self._installed:
            self.check()

    def _forget(self) -> None:
        """Not to find them is no surprise. (A program that dies before is told by the next.)"""
        if self._database.table_exists("sharedlog_state"):
            self._journal.set_state(**{state_key(tracked): None for tracked in self._registry})


def state_key(tracked: Tracked) -> str:
    return f"triggers {tracked.collection}"
