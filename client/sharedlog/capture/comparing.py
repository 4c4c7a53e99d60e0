"""Rows before and after a statement, compared: where no statement says what happens.

That is so for what the database does on its own (ON DELETE and ON UPDATE of foreign keys, the
rows that a REPLACE displaces) and for statements that change keys. Whatever the database made
of the rows that may be concerned, in whatever order: the difference is what is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import peewee

from ..changes import CREATE, DELETE, MODIFY, Wire, loads
from ..journal.journal import Record, chunks
from ..merge.rules import NOTHING_DONE
from ..models.registry import ACTING, Registry, Rule
from ..models.tracked import Tracked
from ..tables.collations import Collations
from ..tables.rows import read_rows, select_rows
from ..tables.ruled import RuledWrites
from ..tables.statements import Values, action_of, record, set_by
from ..tables.versions import Known

Found = dict[str, Values]
"""Rows of one table: pk as JSON text -> values by name."""


def enforces_foreign_keys(database: peewee.Database) -> bool:
    """Whether the database acts on foreign keys; SQLite does only when told to."""
    if isinstance(database, peewee.SqliteDatabase):
        row = database.execute_sql("PRAGMA foreign_keys").fetchone()
        return bool(row and row[0])
    return True


class Cascades:
    """Which statements make the database change other rows than those they speak of: tracked ones,
    whether the statement's own table is tracked or outside (`Registry.outside`)."""

    def __init__(self, database: peewee.Database, registry: Registry) -> None:
        self._database = database
        self._rules = registry.rules

    def on_delete(self, tracked: Tracked) -> bool:
        rules = self._rules.get(tracked, ())
        acts = any(rule.on_delete in ACTING for rule in rules)
        return acts and enforces_foreign_keys(self._database)

    def begun_by(self, outside: Tracked, query: Any) -> bool:
        """Whether a write to a table outside may make the database change tracked rows."""
        if action_of(query) == "replace" or isinstance(query, peewee.Delete):
            return self.on_delete(outside)
        names, moves = set_by(outside, query)
        keys = [column.name for column in outside.key] if moves else ()
        return self.on_update(outside, [*names, *keys])

    def on_update(self, tracked: Tracked, names: Collection[str]) -> bool:
        rules = self._rules.get(tracked, ())
        acts = any(r.on_update in ACTING and r.referred.name in names for r in rules)
        return acts and enforces_foreign_keys(self._database)


class Comparison:
    """Rows that a statement may change, as they were before it.

    Args:
        tracked: The table of the statement.
        rows: Those of its rows that the statement may change, or displace.
        collations: Tell by what the database compares references.
        ruled: Tells what it does to fields with a merge rule, if there are any.
    """

    def __init__(
        self,
        database: peewee.Database,
        registry: Registry,
        tracked: Tracked,
        rows: Found,
        collations: Collations,
        ruled: RuledWrites | None = None,
    ) -> None:
        self._database = database
        self._collations = collations
        self._registry = registry
        self._tracked = tracked
        self._ruled = ruled
        self._before: dict[Tracked, Found] = {tracked: rows}
        self._seen: set[tuple[Tracked, str, str | None]] = set()
        self._renames = False

    def follow_deletion(self) -> None:
        """Look at the children, too, of rows that are about to be deleted."""
        self._follow(self._tracked, dict(self._before[self._tracked]), None)

    def follow_update(self, names: Collection[str]) -> None:
        """Look at the children, too, of rows that are about to get new values."""
        self._renames = True
        self._follow(self._tracked, dict(self._before[self._tracked]), names)

    def _follow(self, parent: Tracked, rows: Found, updated: Collection[str] | None) -> None:
        for rule in self._registry.rules.get(parent, ()):
            acts = rule.on_delete if updated is None else rule.on_update
            if acts not in ACTING or (updated is not None and rule.referred.name not in updated):
                continue
            changed = None if updated is None and acts == "CASCADE" else rule.column.name
            fresh = {}
            for pk, values in self._referring(parent, rows, rule).items():
                if (rule.child, pk, changed) not in self._seen:
                    self._seen.add((rule.child, pk, changed))
                    fresh[pk] = values
            if fresh:
                self._before.setdefault(rule.child, {}).update(fresh)
                self._follow(rule.child, fresh, changed and (changed,))

    def _referring(self, parent: Tracked, rows: Found, rule: Rule) -> Found:
        """The rows of the child that refer to these rows."""
        name = rule.referred.name
        wires = (value_of(parent, pk, values, name) for pk, values in rows.items())
        parameters = [rule.referred.to_parameter(wire) for wire in wires if wire is not None]
        found: Found = {}
        for chunk in chunks(parameters):
            compared = rule.column.quoted + self._collations.of(rule.referred.field).said
            where = f"{compared} IN ({', '.join('?' * len(chunk))})"
            found |= select_rows(self._database, rule.child, where, chunk)
        return found

    def known(self) -> Known:
        """The tracked ones of the rows, as they were."""
        tables = self._in_order(self._before)
        return {table.collection: self._before[table] for table in tables}

    def records(self, written: Iterable[str], names: Collection[str]) -> list[Record]:
        """What happened, after the statement: `written` are the pks that it answered, `names`
        the fields that it set in those that stood already."""
        mine = self._tracked
        after = {
            table: self._read(table, [*before, *(written if table is mine else ())])
            for table, before in self._before.items()
        }
        if self._renames:
            self._add_renamed(mine, after[mine], after)
        written = set(written)
        order = self._in_order(after)
        records = []
        for table in reversed(order):
            before, now = self._before.get(table, {}), after[table]
            records += [
                record(table, DELETE, pk, was) for pk, was in before.items() if pk not in now
            ]
        for table in order:
            before, now = self._before.get(table, {}), after[table]
            operands = self._ruled.operands(table, before, now) if self._ruled else {}
            for pk, values in now.items():
                sets = names if table is mine and pk in written else ()
                found = operands.get(pk, {})
                records += _difference(table, pk, before.get(pk), values, sets, found)
        return records

    def _in_order(self, tables: Collection[Tracked]) -> list[Tracked]:
        """Without those that are not tracked: what becomes of their rows is not recorded."""
        return [table for table in self._registry.in_order if table in tables]

    def _read(self, table: Tracked, pks: Iterable[str]) -> Found:
        keys = [table.key_parameters(loads(pk)) for pk in dict.fromkeys(pks)]
        return read_rows(self._database, table, keys)

    def _add_renamed(self, parent: Tracked, rows: Found, after: dict[Tracked, Found]) -> None:
        """Add children with a new key, because it holds a reference that the database changed."""
        for rule in self._registry.rules.get(parent, ()):
            child = rule.child
            if rule.on_update in ACTING and rule.column.name not in child.by_name:
                before, now = self._before.get(child, {}), after.setdefault(child, {})
                found = self._referring(parent, rows, rule)
                fresh = {pk: v for pk, v in found.items() if pk not in before and pk not in now}
                if fresh:
                    now.update(fresh)
                    self._add_renamed(child, fresh, after)


def value_of(tracked: Tracked, pk: str, values: Values, name: str) -> Wire:
    """A row's value by field name, be it a part of the key."""
    if name in tracked.by_name:
        return values[name]
    key = loads(pk)
    if len(tracked.key) == 1:
        return key
    return key[[column.name for column in tracked.key].index(name)]


def _difference(
    tracked: Tracked,
    pk: str,
    before: Values | None,
    after: Values,
    sets: Collection[str],
    operands: Values,
) -> list[Record]:
    if before is None:
        return [record(tracked, CREATE, pk, after)]
    changed = {
        name: operands.get(name, value)
        for name, value in after.items()
        if (name in sets or value != before[name] or type(value) is not type(before[name]))
        and operands.get(name) is not NOTHING_DONE
    }
    return [record(tracked, MODIFY, pk, changed)] if changed else []
