"""What becomes of rows whose deletion meets a foreign key: step 1 of docs/protocol.md.

A child with RESTRICT (NO ACTION, or nothing) keeps a deleted parent; one with CASCADE goes with
it; one with SET NULL or SET DEFAULT stays without it. All of that follows from the merged rows
alone, whatever the order in which they came: begin with everything kept, and take out what has
no reason to be, until nothing changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ..changes import Wire, dumps, loads
from ..merge.reconcile import BIRTH
from ..models.registry import CLEAR, FALL, KEEP, Registry, effect_of
from ..models.tracked import Tracked, TrackedColumn
from ..tables.rows import Work
from ..tables.versions import Versions
from .atwork import AtWork
from .parents import Park

Row = tuple[str, str]
"""Collection, and pk as JSON text."""


class Edge(NamedTuple):
    """A child's reference to a parent that is deleted, or may have to go."""

    child: Work
    column: TrackedColumn
    parent: Row

    @property
    def effect(self) -> str:
        return effect_of(self.child.tracked, self.column)


class Fates:
    """Decides for the rows of one page. Changes works and their states; writes nothing.

    `references` says whether the database acts on foreign keys at all.
    """

    def __init__(
        self,
        registry: Registry,
        versions: Versions,
        at_work: AtWork,
        park: Park,
        *,
        references: bool,
    ) -> None:
        self._registry = registry
        self._versions = versions
        self._at_work = at_work
        self._park = park
        self._references_count = references
        self._doubtful: dict[Row, Work] = {}
        self._edges: dict[Row, list[Edge]] = defaultdict(list)
        self._above: dict[Row, list[Edge]] = defaultdict(list)
        self._offered: dict[Row, list[tuple[Work, TrackedColumn]]] = defaultdict(list)

    def decide(self) -> None:
        """Keep dead rows, park children, clear references, restore cleared ones."""
        tables = (some[0].tracked for some in self._at_work.works.values() if some)
        # Also a trigger of the application may keep a row.
        if not any(map(self._concerns, tables)) and not any(w.state.kept for w in self._all()):
            return
        if self._references_count:
            for some in self._at_work.works.values():
                self._note_references(some)
            self._add_dead_parents()
        self._doubt([work for work in self._all() if work.state.dead])
        present = self._present()
        self._carry_out(present)
        self._restore(present)
        self._leave_alone_what_is_right()

    def _concerns(self, tracked: Tracked) -> bool:
        related = tracked.parents or self._registry.dependants(tracked)
        return tracked.update_wins or (self._references_count and bool(related))

    def _all(self) -> list[Work]:
        return [work for some in self._at_work.works.values() for work in some]

    # -- who refers to whom ---------------------------------------------------------------

    def _note_references(self, works: Iterable[Work]) -> None:
        """What rows of one table are about to refer to, as far as it is not in the table."""
        columns: list[tuple[TrackedColumn, str, bool]] | None = None
        for work in works:
            state = work.state
            if columns is None:
                columns = list(self._key_references(work.tracked))
            if state.dead:
                values = state.values_kept()
            elif not columns or state.born is None:
                continue
            else:
                values = work.written if work.in_table else work.values or {}
            for column, parent, in_key in columns:
                name = column.name
                if in_key and not (work.in_table and state.alive):
                    value = work.key_part(name)
                else:
                    value = values.get(name)
                if value is not None:
                    self._offered[parent, dumps(value)].append((work, column))

    def _key_references(self, tracked: Tracked) -> Iterator[tuple[TrackedColumn, str, bool]]:
        """The foreign keys that refer to keys of tracked tables, and whether they are part of
        the child's own key."""
        for column in tracked.parents:
            parent = self._registry.model(column.field.rel_model)
            if parent is not None and _refers_to_key(column, parent):
                yield column, parent.collection, column.name not in tracked.by_name

    def _add_dead_parents(self) -> None:
        """Find the deleted rows that rows at work refer to, and so on."""
        found = False
        wanted: dict[str, list[str]] = defaultdict(list)
        for name, pk in self._offered:
            if self._at_work.get(name, pk) is None:
                wanted[name].append(pk)
        for name, pks in wanted.items():
            tracked = self._registry.collection(name)
            assert tracked is not None
            for pk, state in self._versions.dead(name, pks).items():
                work = Work(tracked, pk, loads(pk), state, {}, state.stands)
                self._at_work.add(work)
                self._note_references([work])
                found = True
        if found:
            self._add_dead_parents()

    def _doubt(self, works: Iterable[Work]) -> None:
        """These rows may have to go: find their children, and whom these would take along."""
        level = list(works)
        while level:
            by_table: dict[str, list[Work]] = defaultdict(list)
            for work in level:
                self._doubtful[_row(work)] = work
                by_table[work.tracked.collection].append(work)
            level = []
            for some in by_table.values():
                for edge in self._children(some[0].tracked, [work.pk for work in some]):
                    self._edges[edge.parent].append(edge)
                    self._above[_row(edge.child)].append(edge)
                    if edge.effect == FALL and _row(edge.child) not in self._doubtful:
                        level.append(edge.child)
            level = list({_row(work): work for work in level}.values())

    def _children(self, parent: Tracked, pks: list[str]) -> Iterator[Edge]:
        if not self._references_count:
            return
        for pk in pks:
            row = parent.collection, pk
            for work, column in self._offered.get(row, ()):
                yield Edge(work, column, row)
        for child, column in self._registry.dependants(parent):
            for work, values in self._at_work.referring(child, column, pks):
                if work.state.alive and work.in_table and column.name not in work.written:
                    value = values.get(column.name, work.key_part(column.name))
                    yield Edge(work, column, (parent.collection, dumps(value)))

    # -- who stays ------------------------------------------------------------------------

    def _present(self) -> set[Row]:
        """The doubtful rows that stay: the largest set in which each has a reason to."""
        living = {row for row, work in self._doubtful.items() if work.lives}
        while True:
            there = living | self._kept_by(living)
            falling = {
                row
                for row in living
                if any(e.effect == FALL and e.parent not in there for e in self._above[row])
            }
            if not falling:
                return there
            living -= falling

    def _kept_by(self, living: set[Row]) -> set[Row]:
        """The rows that a living child keeps, and those that would take these along; and so on."""
        stack = [
            parent
            for parent, edges in self._edges.items()
            if any(edge.effect == KEEP and self._is_living(edge.child, living) for edge in edges)
        ]
        kept: set[Row] = set()
        while stack:
            row = stack.pop()
            if row not in kept and (row in living or _can_be_kept(self._doubtful[row])):
                kept.add(row)
                stack += [edge.parent for edge in self._above[row] if edge.effect != CLEAR]
        return kept

    def _is_living(self, work: Work, living: set[Row]) -> bool:
        row = _row(work)
        return row in living if row in self._doubtful else work.state.alive

    # -- what follows ---------------------------------------------------------------------

    def _carry_out(self, present: set[Row]) -> None:
        for row, work in self._doubtful.items():
            if row in present:
                if work.state.dead:
                    _keep(work)
                continue
            if work.state.dead:
                _let_go(work)
            if work.lives:
                edge = next(
                    e for e in self._above[row] if e.effect == FALL and e.parent not in present
                )
                self._park(work, f"PARENT_DELETED: {_named(edge)}", None)
        for parent, edges in self._edges.items():
            if parent not in present:
                for edge in edges:
                    if edge.child.stands and edge.effect == CLEAR:
                        _clear(edge)

    def _restore(self, present: set[Row]) -> None:
        """Let rows refer again to what is there again."""
        cleared: dict[Row, list[tuple[Work, str]]] = defaultdict(list)
        for work in self._all():
            if work.in_table and work.stands:
                for name, value in work.state.cleared.items():
                    parent = self._registry.model(work.tracked.by_name[name].field.rel_model)
                    if parent is not None:
                        cleared[parent.collection, dumps(value)].append((work, name))
        for row in self._there(cleared, present):
            for work, name in cleared[row]:
                work.written[name] = work.state.cleared.pop(name)

    def _there(self, rows: Collection[Row], present: set[Row]) -> list[Row]:
        """Of these rows: those that are there."""
        found = []
        others: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            work = self._at_work.get(*row)
            if work is None:
                others[row[0]].append(row[1])
            elif row in present or (row not in self._doubtful and work.state.alive):
                found.append(row)
        for name, pks in others.items():
            states = self._versions.load(name, pks)
            found += [(name, pk) for pk, state in states.items() if state.alive]
        return found

    def _leave_alone_what_is_right(self) -> None:
        """Kept rows are kept again with every page: write only what is another value now."""
        by_table: dict[str, list[Work]] = defaultdict(list)
        for work in self._doubtful.values():
            if work.state.dead and work.stands and work.in_table:
                by_table[work.tracked.collection].append(work)
        for some in by_table.values():
            current = self._at_work.read(some)
            for work in some:
                known = current.get(work.pk, {})
                work.written = {
                    name: value
                    for name, value in work.written.items()
                    if name not in known or dumps(known[name]) != dumps(value)
                }


def _can_be_kept(work: Work) -> bool:
    return work.state.dead and BIRTH in work.state.buried


def _row(work: Work) -> Row:
    return work.tracked.collection, work.pk


def _refers_to_key(column: TrackedColumn, parent: Tracked) -> bool:
    return len(parent.key) == 1 and column.field.rel_field is parent.key[0].field


def _named(edge: Edge) -> str:
    name, pk = edge.parent
    return f"{edge.column.name} {pk} was deleted from {name}"


def _keep(work: Work) -> None:
    """Let a dead row stand, with the values that it would have if nobody had deleted it."""
    state, tracked = work.state, work.tracked
    values = {**state.values_kept(), **state.ruled(tracked.rules, kept=True)}
    row: dict[str, Wire] = {
        name: values[name] if name in values else tracked.default_wire(name)
        for name in tracked.by_name
    }
    state.kept = True
    if work.in_table:
        work.written = row
    else:
        work.values, work.written = row, {}


def _let_go(work: Work) -> None:
    work.state.kept = False
    work.written, work.values = {}, None


def _clear(edge: Edge) -> None:
    """Take a reference out of the column; its value is held, and comes back with the parent."""
    work, column = edge.child, edge.column
    name = column.name
    cleared = work.tracked.cleared_wire(column)
    if not work.state.alive:
        if work.values is not None:
            work.values[name] = cleared
        else:
            work.written[name] = cleared
        return  # what a dead row is, its state says anyway
    work.state.cleared[name] = loads(edge.parent[1])
    if work.in_table:
        work.written[name] = cleared
    else:
        work.values = {**(work.values or {}), name: cleared}
