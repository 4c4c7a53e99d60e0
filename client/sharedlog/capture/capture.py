"""The recorder: every ORM write to a tracked table becomes entries of the client log.

All ORM writes meet in `Database.execute`, whether they come from an instance, from a query,
from `bulk_create` or from a many-to-many field, so that is where changes are recorded: at
the statement that makes them, in the transaction that makes them, exactly once. (A handler
of the `post_save` signal would come too late: another handler may have written the same row
in between, and the older values would be recorded last.)

Three ways, and the first two are only faster forms of the third:

- *by value*: the statement says itself which rows it writes and which values they get.
  The entries are written first and taken back if the statement did not do it.
- *by reading back*: the statement is given a RETURNING clause, and what it answers is
  recorded: expressions, upserts, conditions, database defaults, converted values.
- *by comparing*: rows are read before and after: cascades, displaced rows, changed keys,
  fields with a merge rule.

A write to a table that is not tracked is recorded, by comparing, for what the database makes of
it in tracked ones; of the table itself nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import peewee

from ..changes import CREATE, DELETE, MODIFY
from ..errors import ConfigurationError
from ..journal.journal import Journal, Record, RefusedEntry
from ..journal.recorder import claim, release
from ..models.columns import TrackedColumn
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import NotCanonical
from ..tables.collations import Collations
from ..tables.inserts import Rows, check_key, in_hand, inserted, prepared
from ..tables.rows import all_rows, as_wires, read_rows
from ..tables.ruled import RuledWrites
from ..tables.statements import (
    Said,
    Sets,
    Values,
    action_of,
    check_constants,
    deleted,
    is_cut,
    record,
    same_rows,
    set_by,
    updated,
)
from ..tables.versions import Known
from ..triggers.ddl import present
from .answer import Answer
from .comparing import Cascades, Comparison, Found
from .concerned import concerned_by
from .rivals import offered_keys, rivals_of


class StatementRecorder:
    """Records what is written through one database object while it is installed."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._database = journal.database
        self._registry = registry
        self._journal = journal
        self._cascades = Cascades(self._database, registry)
        self._collations = Collations(self._database)
        has_rules = any(tracked.rules for tracked in registry)
        self._ruled = RuledWrites(journal, registry) if has_rules else None
        self._execute: Callable[..., Any] = self._database.execute
        self._defaults: dict[str, frozenset[str]] = {}

    def install(self) -> Sequence[str]:
        """Start recording: from here on `database.execute` is this recorder's."""
        claim(self._database, self)
        self._execute = self._database.execute
        self._database.execute = self.execute  # type: ignore[method-assign]
        self._journal.watch_transactions()
        return ()

    def uninstall(self) -> None:
        if release(self._database, self):
            self._database.execute = self._execute  # type: ignore[method-assign]
            self._journal.unwatch_transactions()

    def check(self) -> Sequence[str]:
        if any(present(self._database, self._registry).values()):
            raise ConfigurationError(
                "Another program records the same tables by triggers: what this one writes would "
                "be recorded twice.",
                hint='Give the Sync of each program the same capture="triggers" or "signals".',
            )
        return ()

    def waiting(self) -> int:
        return 0

    def harvest(self, limit: int | None = None) -> Sequence[RefusedEntry]:
        return ()

    def unrecorded(self) -> AbstractContextManager[None]:
        return nullcontext()  # what is applied does not pass `Database.execute`

    @contextmanager
    def migrating(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._collations.forget()

    def execute(self, query: Any, **options: Any) -> Any:
        """What `Database.execute` does, and the entries for it."""
        if not isinstance(query, peewee._WriteQuery):
            return self._execute(query, **options)
        tracked, recorded = self._registry.table(query.table), self._recorded
        if tracked is None:
            tracked, recorded = self._registry.outside(query.table), self._recorded_outside
            if tracked is None or not self._cascades.begun_by(tracked, query):
                return self._execute(query, **options)
        if self._journal.in_transaction():
            return recorded(tracked, query, options)
        with self._journal.transaction():
            return recorded(tracked, query, options)

    def _recorded(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        found: Rows | None = None
        if isinstance(query, peewee.Insert):
            query, found = in_hand(tracked, query)
            check_key(tracked, found)
        said = None if tracked.dialect.typed else self._said(tracked, query, found)
        if said is not None:
            if self._ruled is not None and tracked.rules and isinstance(query, peewee.Insert):
                with self._journal.savepoint():
                    cursor = self._by_value(said, found, options)
                    self._ruled.settle_new(tracked, said.records)
                    return cursor
            return self._by_value(said, found, options)
        check_constants(tracked, query, () if found is None else found.values())
        with self._journal.savepoint():
            self._journal.take_write_lock()
            if not tracked.dialect.returning or is_cut(query):
                return self._untold(tracked, query, found, options)
            if isinstance(query, peewee.Insert):
                return self._insert(tracked, query, found, options)
            if isinstance(query, peewee.Update):
                return self._update(tracked, query, options)
            return self._delete(tracked, query, options)

    def _recorded_outside(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        """Of a table outside (`Registry.outside`): what the database does to tracked rows."""
        found: Rows | None = None
        if isinstance(query, peewee.Insert):
            query, found = in_hand(tracked, query)
        with self._journal.savepoint():
            self._journal.take_write_lock()
            return self._untold(tracked, query, found, options)

    # -- by value ------------------------------------------------------------------------

    def _said(self, tracked: Tracked, query: Any, found: Rows | None) -> Said | None:
        if query.table is not tracked.model:
            return None  # a plain table: its values are not converted as the fields' are
        try:
            if isinstance(query, peewee.Insert):
                return inserted(tracked, query, found, self._database_defaults)
            if isinstance(query, peewee.Update):
                said = updated(tracked, query)
                return None if said and self._moves_children(tracked, query) else said
            if tracked.buries or self._cascades.on_delete(tracked):
                return None
            return deleted(tracked, query)
        except NotCanonical:
            return None

    def _moves_children(self, tracked: Tracked, query: Any) -> bool:
        return self._cascades.on_update(tracked, set_by(tracked, query).names)

    def _database_defaults(self, tracked: Tracked) -> frozenset[str]:
        """The fields whose columns have a default that the database itself fills in."""
        known = self._defaults.get(tracked.collection)
        if known is None:
            meta = tracked.model._meta
            self._journal.take_write_lock()
            columns = self._database.get_columns(tracked.collection, meta.schema)
            known = frozenset(
                tracked.by_column[column.name].name
                for column in columns
                if column.default is not None and column.name in tracked.by_column
            )
            if columns:  # else the table is yet to be created
                self._defaults[tracked.collection] = known
        return known

    def _by_value(self, said: Said, found: Rows | None, options: dict[str, Any]) -> Any:
        query, records = said.query, said.records
        if not records:
            return self._execute(query, **options)
        first = self._journal.append(records)
        try:
            cursor = self._written(query, found, options)
            if query._returning:
                cursor = Answer(cursor, cursor.fetchall())
            elif not isinstance(query, peewee.Insert) and cursor.rowcount == 0:
                self._journal.take_back(first)
        except BaseException:
            self._journal.take_back(first)
            raise
        return cursor

    def _written(self, query: Any, found: Rows | None, options: dict[str, Any]) -> Any:
        statement = prepared(self._database, query, found) if found and not options else None
        if statement is None:
            return self._execute(query, **options)
        return self._database.execute_sql(*statement)

    # -- by reading back -----------------------------------------------------------------

    def _insert(
        self, tracked: Tracked, query: Any, found: Rows | None, options: dict[str, Any]
    ) -> Any:
        action = action_of(query)
        if action == "replace":
            return self._replace(tracked, query, found, options)
        if action == "update":
            return self._upsert(tracked, query, found, options)
        cursor, rows = self._answered(tracked, query, options)
        self._append([record(tracked, CREATE, pk, values) for pk, values in rows.items()])
        self._settle()
        return cursor

    def _upsert(
        self, tracked: Tracked, query: Any, found: Rows | None, options: dict[str, Any]
    ) -> Any:
        names, moves = set_by(tracked, query)
        offered = offered_keys(tracked, query, found)
        if offered is None or moves or self._cascades.on_update(tracked, names):
            rows = self._all_rows(tracked)
            return self._compare_update(tracked, query, options, rows, Sets(names, moves))
        if tracked.rules or any(column in tracked.doubted for column in tracked.key):
            rivals = rivals_of(self._database, tracked, query, found)
            rows = self._all_rows(tracked) if rivals is None else rivals
            return self._compare_update(tracked, query, options, rows, Sets(names, moves))
        keys = [tracked.key_parameters(pk) for pk in offered.values()]
        known = read_rows(self._database, tracked, keys)
        cursor, rows = self._answered(tracked, query, options)
        records = []
        for pk, values in rows.items():
            if pk in offered and pk not in known:
                records.append(record(tracked, CREATE, pk, values))
            else:
                records += _modified(tracked, pk, values, names)
        self._append(records)
        return cursor

    def _update(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        sets = set_by(tracked, query)
        ruled = any(name in tracked.rules for name in sets.names)
        if sets.moves or ruled or self._cascades.on_update(tracked, sets.names):
            rows = self._rows(tracked, same_rows(tracked, query))
            return self._compare_update(tracked, query, options, rows, sets)
        cursor, rows = self._answered(tracked, query, options)
        self._append(
            [r for pk, values in rows.items() for r in _modified(tracked, pk, values, sets.names)]
        )
        return cursor

    def _delete(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        if self._cascades.on_delete(tracked):
            rows = self._rows(tracked, same_rows(tracked, query))
            comparison = self._comparison(tracked, rows)
            comparison.follow_deletion()
            return self._compare(tracked, query, options, comparison, ())
        if tracked.buries:
            cursor, rows = self._answered(tracked, query, options)
            self._append([record(tracked, DELETE, pk, was) for pk, was in rows.items()])
            return cursor
        cursor, stored = self._run(tracked, query, options, tracked.key)
        pks = [tracked.pk_json(tracked.pk_of_stored(row)) for row in stored]
        self._append([record(tracked, DELETE, pk, None) for pk in pks])
        return cursor

    def _answered(
        self, tracked: Tracked, query: Any, options: dict[str, Any]
    ) -> tuple[Answer, Found]:
        cursor, stored = self._run(tracked, query, options, tracked.every)
        return cursor, as_wires(tracked, stored)

    def _run(
        self,
        tracked: Tracked,
        query: Any,
        options: dict[str, Any],
        columns: Sequence[TrackedColumn],
    ) -> tuple[Answer, list[Any]]:
        """Run the query; return what the caller expects, and these columns of the rows it wrote."""
        width = len(columns)
        clone = query.clone()
        # The plus, because SQLite (3.40, for one) may return the integers of a bare column as
        # floats where the table has a column of floats, too, and so lose those beyond 2**53.
        prefix = f"{tracked.quoted_name}." if tracked.dialect.typed else "+"
        ours = [peewee.SQL(prefix + column.quoted) for column in columns]
        clone._returning = [*(query._returning or ()), *ours]
        cursor = self._execute(clone, **options)
        answered = tracked.dialect.rows(cursor, width)
        return Answer(cursor, [row[:-width] for row in answered], width), [
            row[-width:] for row in answered
        ]

    def _append(self, records: list[Record]) -> None:
        if records:
            self._journal.append(records)

    # -- by comparing --------------------------------------------------------------------

    def _replace(
        self, tracked: Tracked, query: Any, found: Rows | None, options: dict[str, Any]
    ) -> Any:
        rivals = rivals_of(self._database, tracked, query, found)
        rows = self._all_rows(tracked) if rivals is None else rivals
        comparison = self._comparison(tracked, rows)
        if self._cascades.on_delete(tracked):
            comparison.follow_deletion()
        return self._compare(tracked, query, options, comparison, tracked.names)

    def _compare_update(
        self, tracked: Tracked, query: Any, options: dict[str, Any], rows: Found, sets: Sets
    ) -> Any:
        comparison = self._comparison(tracked, rows)
        names = [*sets.names, *(column.name for column in tracked.key)]
        if self._cascades.on_update(tracked, names):
            comparison.follow_update(names)
        return self._compare(tracked, query, options, comparison, sets.names)

    def _compare(
        self,
        tracked: Tracked,
        query: Any,
        options: dict[str, Any],
        comparison: Comparison,
        names: Collection[str],
    ) -> Any:
        cursor, stored = self._run(tracked, query, options, tracked.key)
        pks = [tracked.pk_json(tracked.pk_of_stored(row)) for row in stored]
        self._append(comparison.records(pks, names))
        self._settle(comparison.known())
        return cursor

    def _untold(
        self, tracked: Tracked, query: Any, found: Rows | None, options: dict[str, Any]
    ) -> Any:
        """Where the database cannot say which rows a statement wrote, or nobody asks because they
        are not tracked, those that it may have written are read before and after it."""
        concerned = concerned_by(self._database, tracked, query, found)
        comparison = self._comparison(tracked, concerned.rows)
        if concerned.deletes and self._cascades.on_delete(tracked):
            comparison.follow_deletion()
        keys = [column.name for column in tracked.key]
        if concerned.moves and self._cascades.on_update(tracked, [*concerned.names, *keys]):
            comparison.follow_update([*concerned.names, *keys])
        cursor = self._execute(query, **options)
        if query._returning:
            cursor = Answer(cursor, cursor.fetchall())
        if concerned.written is None:
            self._append(comparison.records(self._all_rows(tracked), ()))
        else:
            self._append(comparison.records(concerned.written, concerned.names))
        self._settle(comparison.known())
        return cursor

    def _settle(self, known: Known | None = None) -> None:
        """Let fields with a rule have what comes of the write that was just recorded."""
        if self._ruled is not None:
            self._ruled.settle(known)

    def _comparison(self, tracked: Tracked, rows: Found) -> Comparison:
        return Comparison(
            self._database, self._registry, tracked, rows, self._collations, self._ruled
        )

    def _rows(self, tracked: Tracked, select: Any) -> Found:
        return as_wires(tracked, tracked.dialect.rows(self._execute(select)))

    def _all_rows(self, tracked: Tracked) -> Found:
        return all_rows(self._database, tracked)


def _modified(tracked: Tracked, pk: str, values: Values, names: Sequence[str]) -> list[Record]:
    written = {name: values[name] for name in names}
    return [record(tracked, MODIFY, pk, written)] if written else []
