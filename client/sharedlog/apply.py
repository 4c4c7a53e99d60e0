"""Applying others' changes: merged row states onto the application's tables, in bulk.

Nothing here is recorded: the statements go to the driver and do not pass `Database.execute`.

The table holds the alive rows whose parents are there; what cannot stand in it is *parked*:
its values are held in the row's state, the reason is told, and it comes back by itself. To
find out what can stand, rows are first assumed to stand and then removed until nothing
changes, so that rows that need each other (cycles) arrive together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import peewee

from .capture import enforces_foreign_keys
from .changes import CREATE, DELETE, Change, Entry, Wire, dumps, loads
from .clock import BEFORE_TRACKING, Version
from .errors import EntryUnreadable
from .journal import Journal, chunks
from .reconcile import RowState, merge
from .tracked import Registry, Tracked, TrackedColumn
from .versions import Versions

UNKNOWN_COLLECTION = "unknown collection"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two devices changed the same thing without having seen each other's change.

    `field` is None where a whole row was deleted on one side. `value` is what stands now,
    `lost` what was given up; None for a deletion.
    """

    collection: str
    pk: Wire
    field: str | None
    winner: Version
    value: Wire
    loser: Version
    lost: Wire


@dataclass(slots=True)
class Applied:
    """What became of some entries."""

    entries: int = 0
    created: int = 0
    modified: int = 0
    deleted: int = 0
    unreadable: int = 0
    parked: int = 0
    conflicts: list[Conflict] = field(default_factory=list)


@dataclass(slots=True)
class Work:
    """A row on its way to its table. `values` are all its values if it is to be inserted."""

    tracked: Tracked
    pk: str
    key: Wire
    state: RowState
    written: dict[str, Wire]
    in_table: bool
    values: dict[str, Wire] | None = None

    def key_parameters(self) -> list[Any]:
        return self.tracked.key_parameters(self.key)

    def parked(self, reason: str) -> None:
        self.state.parked = reason
        self.state.held.update(self.values or {})


class Applier:
    """Merges entries and brings the result into the tables."""

    def __init__(
        self,
        database: peewee.Database,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        decode: Callable[[str], Change | None],
    ) -> None:
        self._database = database
        self._registry = registry
        self._journal = journal
        self._versions = versions
        self._decode_data = decode
        self._shapes: dict[tuple[str, ...], frozenset[str]] = {}

    def apply(self, entries: Sequence[Entry], local_since: int | None = None) -> Applied:
        """Apply entries inside the open transaction; parked rows are tried again, too.

        Any order, any repetition. `local_since` is the timestamp of the oldest local change
        that the authors of these entries may not have seen: what meets it is a conflict.
        """
        applied = Applied(entries=len(entries))
        waiting = self._versions.parked_collections()
        if not entries and not waiting:
            return applied
        self._versions.fold_local()
        changes = self._decode(entries, applied)
        works: dict[str, list[Work]] = {}
        for name in [*changes, *(n for n in waiting if n not in changes)]:
            tracked = self._registry.collection(name)
            rows = changes.get(name, {})
            if tracked is None:
                self._hold(name, rows)
            else:
                works[name] = self._merge(tracked, rows, local_since, applied)
                if name in waiting:
                    works[name] += self._waiting(tracked, rows)
        _Placement(self._database, self._registry, self._journal, self._versions, applied).place(
            works
        )
        for name, some in works.items():
            self._versions.store(name, ((work.pk, work.state) for work in some))
        return applied

    def _decode(
        self, entries: Sequence[Entry], applied: Applied
    ) -> dict[str, dict[str, list[tuple[Version, Change]]]]:
        """Changes by collection and row. What is not a change is kept aside, with the reason."""
        changes: dict[str, dict[str, list[tuple[Version, Change]]]] = {}
        newest = 0
        for entry in entries:
            device, ticks, _, data = entry
            try:
                change = self._decode_data(data)
            except EntryUnreadable as error:
                self._journal.receive([entry], error.message)
                applied.unreadable += 1
                continue
            newest = max(newest, ticks)
            if change is None:
                continue
            rows = changes.setdefault(change.collection, {})
            rows.setdefault(dumps(change.pk), []).append((Version(ticks, device), change))
        self._journal.lift_clock(newest)
        return changes

    def _hold(self, collection: str, rows: dict[str, list[tuple[Version, Change]]]) -> None:
        """Merge rows of a table that this application does not know (yet)."""
        states = self._versions.load(collection, list(rows))
        for pk, changes in rows.items():
            state = states.setdefault(pk, RowState())
            state.held.update(merge(state, changes))
            state.parked = UNKNOWN_COLLECTION if state.alive else None
        self._versions.store(collection, states.items())

    def _waiting(self, tracked: Tracked, rows: Iterable[str]) -> list[Work]:
        parked = self._versions.parked(tracked.collection)
        fresh = set(parked).difference(rows)
        return [
            _to_insert(Work(tracked, pk, loads(pk), parked[pk], {}, False)) for pk in sorted(fresh)
        ]

    def _merge(
        self,
        tracked: Tracked,
        rows: dict[str, list[tuple[Version, Change]]],
        local_since: int | None,
        applied: Applied,
    ) -> list[Work]:
        states = self._versions.load(tracked.collection, list(rows)) if rows else {}
        unknown = [
            pk
            for pk, changes in rows.items()
            if pk not in states and any(change.operation != CREATE for _, change in changes)
        ]
        for pk in self._read(tracked, unknown):
            states[pk] = RowState(BEFORE_TRACKING)
        tables = self._read(
            tracked,
            [pk for pk, state in states.items() if _needs_table(state, rows[pk], local_since)],
        )
        works = []
        for pk, changes in rows.items():
            state = states.get(pk)
            if state is None and len(changes) == 1 and changes[0][1].operation == CREATE:
                works.append(self._new_row(tracked, pk, *changes[0]))
                continue
            state = state or RowState()
            in_table = state.alive and state.parked is None
            work = Work(tracked, pk, changes[0][1].pk, state, {}, in_table)
            died, known = state.died, tables.get(pk)
            conflicts = _Conflicts(work, changes, known, local_since)
            work.written = merge(state, changes, known=known)
            applied.conflicts += conflicts.decided()
            works.append(_prepared(work, recreated=state.died != died))
        return works

    def _new_row(self, tracked: Tracked, pk: str, version: Version, change: Change) -> Work:
        """The usual case, made fast: the first that is heard of a row is its creation."""
        values = dict(change.value or {})
        names = tuple(values)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shapes[names] = frozenset(names)
        state = RowState(version, shape)
        if shape == tracked.names:
            return Work(tracked, pk, change.pk, state, values, False, values)
        return _to_insert(Work(tracked, pk, change.pk, state, values, False))

    def _read(self, tracked: Tracked, pks: Sequence[str]) -> dict[str, dict[str, Wire]]:
        """The values in the table, by row, of those rows that are there."""
        keys = []
        for pk in pks:
            try:
                keys.append(tracked.key_parameters(loads(pk)))
            except (ValueError, TypeError, KeyError):
                continue  # not a key of this table: the row cannot be in it
        return read_rows(self._database, tracked, keys)


def read_rows(
    database: peewee.Database, tracked: Tracked, keys: Sequence[Sequence[Any]]
) -> dict[str, dict[str, Wire]]:
    """Rows of a table by their keys (driver values): pk as JSON text -> values by name."""
    every = [*tracked.key, *tracked.columns]
    found: dict[str, dict[str, Wire]] = {}
    select = f"SELECT {', '.join(c.quoted for c in every)} FROM {tracked.table} WHERE "
    for chunk in chunks(keys, 200):
        where = " OR ".join([f"({tracked.where_key})"] * len(chunk))
        cursor = database.execute_sql(select + where, [part for key in chunk for part in key])
        for pk, values in _wire_rows(tracked, cursor.fetchall()):
            found[pk] = values
    return found


def _wire_rows(tracked: Tracked, rows: Iterable[Any]) -> Iterable[tuple[str, dict[str, Wire]]]:
    every = [*tracked.key, *tracked.columns]
    width = len(tracked.key)
    for row in rows:
        values = [c.field.python_value(value) for c, value in zip(every, row, strict=True)]
        pk = tracked.pk_json(tracked.pk_wire(values[:width]))
        yield (
            pk,
            {
                c.name: c.to_wire(value)
                for c, value in zip(tracked.columns, values[width:], strict=True)
            },
        )


def _needs_table(
    state: RowState, changes: list[tuple[Version, Change]], local_since: int | None
) -> bool:
    """Whether merging needs the values that are in the table now."""
    if not state.alive or state.parked is not None:
        return False
    if state.fields and any(change.operation == DELETE for _, change in changes):
        return True
    return local_since is not None and any(
        version is not None and version.ticks >= local_since
        for version in (state.born, *state.fields.values())
    )


def _prepared(work: Work, *, recreated: bool) -> Work:
    """Decide what is to be done with a merged row's table, and hold what it cannot take."""
    state, names = work.state, work.tracked.names
    if not state.alive:
        state.held.update(work.written)
        state.parked = None
        return work
    if not work.in_table:
        return _to_insert(work)
    for name in work.written:
        if name not in names:
            state.held[name] = work.written[name]
    work.written = {name: value for name, value in work.written.items() if name in names}
    if recreated:
        for name in names:
            if state.version_of(name) is None:
                work.written[name] = work.tracked.default_wire(name)
    return work


def _to_insert(work: Work) -> Work:
    """Collect all values of an alive row that is not in its table."""
    state, tracked = work.state, work.tracked
    values = {**state.held, **work.written}
    state.held = {name: value for name, value in values.items() if name not in tracked.names}
    work.values = {
        name: values[name] if name in values else tracked.default_wire(name)
        for name in tracked.by_name
    }
    return work


class _Conflicts:
    """Notes before a merge what meets a local change, and tells how it is decided."""

    def __init__(
        self,
        work: Work,
        changes: list[tuple[Version, Change]],
        known: dict[str, Wire] | None,
        local_since: int | None,
    ) -> None:
        self._work, self._known = work, known or {}
        self._rivals: dict[str | None, tuple[Version, Version, Wire]] = {}
        if local_since is None:
            return
        state = work.state
        for version, change in changes:
            if change.operation == DELETE:
                self._note(
                    None, max(state.fields.values(), default=None), version, None, local_since
                )
            elif not state.alive and state.died is not None:
                self._note(None, state.died, version, dict(change.value or {}), local_since)
            else:
                for name, value in (change.value or {}).items():
                    self._note(name, state.version_of(name), version, value, local_since)

    def _note(
        self, name: str | None, mine: Version | None, theirs: Version, value: Wire, since: int
    ) -> None:
        if mine is None or mine.ticks < since or mine == theirs:
            return
        earlier = self._rivals.get(name)
        if earlier is None or theirs > earlier[1]:
            self._rivals[name] = (mine, theirs, value)

    def decided(self) -> list[Conflict]:
        collection, pk = self._work.tracked.collection, self._work.key
        result = []
        for name, (mine, theirs, value) in self._rivals.items():
            kept = None if name is None else self._known.get(name)
            # A deletion stands unless a creation is later: a modification never revives.
            died = self._work.state.died
            if theirs == died or (mine != died and theirs > mine):
                result.append(Conflict(collection, pk, name, theirs, value, mine, kept))
            else:
                result.append(Conflict(collection, pk, name, mine, kept, theirs, value))
        return result


class _Placement:
    """Brings prepared rows into their tables, parents first, and parks what does not fit."""

    def __init__(
        self,
        database: peewee.Database,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        applied: Applied,
    ) -> None:
        self._database = database
        self._registry = registry
        self._savepoint = journal.savepoint
        self._run_many = journal.run_many
        self._versions = versions
        self._applied = applied
        self._checks = False

    def place(self, works: dict[str, list[Work]]) -> None:
        self._checks = enforces_foreign_keys(self._database)
        if self._checks and isinstance(self._database, peewee.SqliteDatabase):
            self._database.execute_sql("PRAGMA defer_foreign_keys = 1")
        self._remove(works)
        if self._checks:
            self._park_orphans(works)
        for tracked in self._registry.in_order:
            some = works.get(tracked.collection)
            if some:
                self._insert(tracked, [work for work in some if work.values is not None])
                self._update(
                    tracked, [w for w in some if w.in_table and w.state.alive and w.written]
                )

    # -- deletions -----------------------------------------------------------------------

    def _remove(self, works: dict[str, list[Work]]) -> None:
        """Delete rows, children before parents; children that stay alive become candidates."""
        removals: list[tuple[Tracked, list[list[Any]]]] = []
        for some in list(works.values()):
            gone = [work for work in some if work.in_table and not work.state.alive]
            if not gone:
                continue
            tracked = gone[0].tracked
            keys = [work.key_parameters() for work in gone]
            self._applied.deleted += len(gone)
            removals.append((tracked, keys))
            if self._checks:
                self._move_out_children(tracked, keys, works, removals)
        for tracked, keys in reversed(removals):
            self._run_many(tracked.delete_sql, keys)

    def _move_out_children(
        self,
        parent: Tracked,
        keys: list[list[Any]],
        works: dict[str, list[Work]],
        removals: list[tuple[Tracked, list[list[Any]]]],
    ) -> None:
        for child, column in self._registry.children(parent):
            rows = self._referring(parent, keys, child, column)
            if not rows:
                continue
            some = works.setdefault(child.collection, [])
            at_work = {work.pk: work for work in some}
            states = self._versions.load(child.collection, [p for p in rows if p not in at_work])
            moved = []
            for pk, values in rows.items():
                work = at_work.get(pk)
                if work is None:
                    state = states.get(pk, RowState(BEFORE_TRACKING))
                    work = Work(child, pk, loads(pk), state, {}, True)
                    some.append(work)
                if work.in_table and work.state.alive:
                    work.values = {**values, **work.written}
                    work.in_table = False
                    moved.append(work.key_parameters())
            if moved:
                removals.append((child, moved))
                self._move_out_children(child, moved, works, removals)

    def _referring(
        self, parent: Tracked, keys: list[list[Any]], child: Tracked, column: TrackedColumn
    ) -> dict[str, dict[str, Wire]]:
        """The rows of `child` that refer to these rows of `parent`."""
        referred = parent.by_field[column.field.rel_field].quoted
        every = ", ".join(c.quoted for c in (*child.key, *child.columns))
        found: dict[str, dict[str, Wire]] = {}
        for chunk in chunks(keys, 200):
            where = " OR ".join([f"({parent.where_key})"] * len(chunk))
            cursor = self._database.execute_sql(
                f"SELECT {every} FROM {child.table} WHERE {column.quoted} IN "
                f"(SELECT {referred} FROM {parent.table} WHERE {where})",
                [part for key in chunk for part in key],
            )
            found.update(_wire_rows(child, cursor.fetchall()))
        return found

    # -- parents -------------------------------------------------------------------------

    def _park_orphans(self, works: dict[str, list[Work]]) -> None:
        """Park candidates whose parent is neither in its table nor a candidate itself."""
        candidates = [
            work
            for some in works.values()
            for work in some
            if work.tracked.parents and _pending(work)
        ]
        if not candidates:
            return
        present = self._present(candidates)
        while orphans := self._orphans(candidates, present, works):
            for work, reason in orphans:
                self._park(work, reason)
            candidates = [work for work in candidates if work.state.parked is None]

    def _present(self, candidates: list[Work]) -> dict[peewee.Field, set[str]]:
        """Of the values that candidates refer to: those that are in the tables."""
        wanted: dict[peewee.Field, dict[str, TrackedColumn]] = defaultdict(dict)
        for work in candidates:
            for column, value in _references(work):
                wanted[column.field.rel_field].setdefault(dumps(value), column)
        present: dict[peewee.Field, set[str]] = {}
        for rel_field, values in wanted.items():
            some = next(iter(values.values()))
            seen = present[rel_field] = set()
            model = rel_field.model
            parameters = {}
            for text in values:
                try:
                    parameters[text] = some.to_parameter(loads(text))
                except (ValueError, TypeError, KeyError):
                    continue
            for chunk in chunks(parameters.values()):
                raw = [peewee.Value(parameter, converter=False) for parameter in chunk]
                query = model.select(rel_field).where(rel_field.in_(raw))
                for (value,) in self._database.execute(query).fetchall():
                    seen.add(dumps(some.to_wire(rel_field.python_value(value))))
        return present

    def _orphans(
        self,
        candidates: list[Work],
        present: dict[peewee.Field, set[str]],
        works: dict[str, list[Work]],
    ) -> list[tuple[Work, str]]:
        arriving: dict[peewee.Field, set[str]] = {}
        orphans = []
        for work in candidates:
            for column, value in _references(work):
                target = column.field.rel_field
                text = dumps(value)
                if text in present[target]:
                    continue
                if target not in arriving:
                    arriving[target] = self._arriving(target, works)
                if text not in arriving[target]:
                    table = target.model._meta.table_name
                    reason = f"parent missing: {column.name} {text} is not in {table}"
                    orphans.append((work, reason))
                    break
        return orphans

    def _arriving(self, target: peewee.Field, works: dict[str, list[Work]]) -> set[str]:
        """Values of a referred field in rows that are about to be inserted."""
        tracked = self._registry.model(target.model)
        if tracked is None:
            return set()
        arriving = set()
        for work in works.get(tracked.collection, ()):
            if work.values is not None and work.state.parked is None and work.state.alive:
                arriving.add(dumps(_wire_of(work, tracked.by_field[target].name)))
        return arriving

    def _park(self, work: Work, reason: str) -> None:
        """Take a row out of its table, if it is there, and hold its values."""
        tracked = work.tracked
        if work.in_table:
            key = work.key_parameters()
            for values in read_rows(self._database, tracked, [key]).values():
                work.values = {**values, **work.written}
            self._run_many(tracked.delete_sql, [key])
            work.in_table = False
        work.parked(reason)
        work.values = None
        self._applied.parked += 1

    # -- insertions and updates ----------------------------------------------------------

    def _insert(self, tracked: Tracked, works: list[Work]) -> None:
        rows, fit = [], []
        columns = [(column.name, column.to_parameter) for column in tracked.columns]
        for work in works:
            values = work.values or {}
            try:
                key = work.key_parameters()
                rows.append([*key, *[convert(values[name]) for name, convert in columns]])
                fit.append(work)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                self._park(work, f"value does not fit: {error}")
        failed = self._run_or_park(tracked.upsert_sql, fit, rows)
        for work in fit:
            work.state.parked = work.state.parked if work in failed else None
        self._applied.created += len(fit) - len(failed)

    def _update(self, tracked: Tracked, works: list[Work]) -> None:
        by_names: dict[tuple[str, ...], tuple[list[Work], list[list[Any]]]] = {}
        for work in works:
            names = tuple(sorted(work.written))
            try:
                parameters = [tracked.by_name[n].to_parameter(work.written[n]) for n in names]
                parameters += work.key_parameters()
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                self._park(work, f"value does not fit: {error}")
                continue
            fit, rows = by_names.setdefault(names, ([], []))
            fit.append(work)
            rows.append(parameters)
        for names, (fit, rows) in by_names.items():
            failed = self._run_or_park(tracked.update_sql(names), fit, rows)
            self._applied.modified += len(fit) - len(failed)

    def _run_or_park(self, sql: str, works: list[Work], rows: list[list[Any]]) -> list[Work]:
        """Run a statement for all rows at once; if that fails, one by one, and park the bad."""
        if not rows:
            return []
        try:
            with self._savepoint():
                self._run_many(sql, rows)
            return []
        except (peewee.IntegrityError, peewee.DataError):
            pass
        failed = []
        for work, row in zip(works, rows, strict=True):
            try:
                with self._savepoint():
                    self._run_many(sql, [row])
            except (peewee.IntegrityError, peewee.DataError) as error:
                self._park(work, f"constraint: {error}")
                failed.append(work)
        return failed


def _pending(work: Work) -> bool:
    return work.state.alive and (work.values is not None or bool(work.in_table and work.written))


def _wire_of(work: Work, name: str) -> Wire:
    """A row's value by field name, of its key or of what is about to be written."""
    for index, column in enumerate(work.tracked.key):
        if column.name == name:
            return work.key[index] if len(work.tracked.key) > 1 else work.key
    source = work.written if work.values is None else work.values
    return source.get(name)


def _references(work: Work) -> list[tuple[TrackedColumn, Wire]]:
    """The parents that a row is about to refer to."""
    pairs = ((column, _wire_of(work, column.name)) for column in work.tracked.parents)
    return [(column, value) for column, value in pairs if value is not None]
