"""What becomes of rows whose deletion meets a foreign key: step 1 of docs/protocol.md.

A child with RESTRICT (NO ACTION, or nothing) keeps a deleted parent; one with CASCADE goes with
it; one with SET NULL or SET DEFAULT stays without it. All of that follows from the merged rows
alone, whatever the order in which they came: begin with everything kept, and take out what has
no reason to be, until nothing changes.

Rows whose keys are equal to their collation are one to those that refer to them (a *name*): any of
them that is there will do. Where none is alive, it is the oldest that is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..changes import Wire, dumps, loads
from ..merge.reconcile import BIRTH
from ..models.columns import TrackedColumn
from ..models.registry import CLEAR, FALL, KEEP, Registry, effect_of
from ..models.tracked import Tracked
from ..tables.rows import Work
from ..tables.versions import Versions
from .atwork import AtWork
from .names import Name, Names
from .parents import Park

Row = tuple[str, str]
"""Collection, and pk as JSON text."""

Held = tuple[Work, TrackedColumn, Wire]
"""A row, and what it has in a column that refers to others."""


_KeyReference = tuple[TrackedColumn, str, Callable[[Wire], str], bool]
"""A foreign key that refers to the key of a tracked table: that table, what makes names of values,
and whether it is part of the child's own key."""


class Edge(NamedTuple):
    """A child's reference to a parent that is deleted, or may have to go."""

    child: Work
    column: TrackedColumn
    value: Wire
    parent: Name

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
        names: Names,
        versions: Versions,
        at_work: AtWork,
        park: Park,
        *,
        references: bool,
    ) -> None:
        self._registry = registry
        self._names = names
        self._versions = versions
        self._at_work = at_work
        self._park = park
        self._references_count = references
        self._doubtful: dict[Row, Work] = {}
        self._edges: dict[Name, list[Edge]] = defaultdict(list)
        self._above: dict[Row, list[Edge]] = defaultdict(list)
        self._offered: dict[Name, list[Held]] = defaultdict(list)
        self._namesakes: dict[Name, list[Work]] = {}

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
        self._gather()
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
        columns: list[_KeyReference] | None = None
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
            for column, parent, text, in_key in columns:
                name = column.name
                if in_key and not (work.in_table and state.alive):
                    value = work.key_part(name)
                else:
                    value = values.get(name)
                if value is not None:
                    self._offered[parent, text(value)].append((work, column, value))

    def _key_references(self, tracked: Tracked) -> Iterator[_KeyReference]:
        for column in tracked.parents:
            parent = self._registry.model(column.field.rel_model)
            if parent is not None and _refers_to_key(column, parent):
                text = self._names.collation(parent).text
                yield column, parent.collection, text, column.name not in tracked.by_name

    def _add_dead_parents(self) -> None:
        """Find the deleted rows that rows at work refer to, and so on."""
        asked: set[Name] = set()
        while wanted := self._wanted(asked):
            asked.update(wanted)
            for tracked, texts in self._names.by_table(wanted):
                dead = self._names.dead(tracked, texts)
                works = [Work(tracked, pk, loads(pk), s, {}, s.stands) for pk, s in dead.items()]
                for work in works:
                    self._at_work.add(work)
                self._note_references(works)

    def _wanted(self, asked: Collection[Name]) -> list[Name]:
        """What rows at work are about to refer to; and what rows in the tables refer to, of which a
        deleted row at work may not be the only one of its name."""
        wanted = list(self._offered)
        for some in list(self._at_work.works.values()):
            if some and self._names.fold(some[0].tracked):
                names = {self._names.of(w.tracked, w.key) for w in some if w.state.dead}
                texts = [text for _, text in sorted(names.difference(asked))]
                wanted += [edge.parent for edge in self._children(some[0].tracked, texts)]
        return [name for name in dict.fromkeys(wanted) if name not in asked]

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
                for edge in self._children(some[0].tracked, self._unnamed(some)):
                    self._edges[edge.parent].append(edge)
                    self._above[_row(edge.child)].append(edge)
                    if edge.effect == FALL and _row(edge.child) not in self._doubtful:
                        level.append(edge.child)
            level = list({_row(work): work for work in level}.values())

    def _unnamed(self, works: Iterable[Work]) -> list[str]:
        """The names of these rows of one table whose children are yet to be found."""
        names = dict.fromkeys(self._names.of(work.tracked, work.key) for work in works)
        return [text for name, text in names if (name, text) not in self._edges]

    def _children(self, parent: Tracked, texts: list[str]) -> Iterator[Edge]:
        """What refers to these names of a table."""
        if not self._references_count:
            return
        for text in texts:
            name = parent.collection, text
            for held in self._offered.get(name, ()):
                yield Edge(*held, name)
        collation = self._names.collation(parent)
        for child, column in self._registry.dependants(parent):
            for work, values in self._at_work.referring(child, column, texts, collation):
                if work.state.alive and work.in_table and column.name not in work.written:
                    value = values.get(column.name, work.key_part(column.name))
                    yield Edge(work, column, value, self._names.of(parent, value))

    def _gather(self) -> None:
        """Find all rows of the names that are referred to, where that may be several."""
        for tracked, texts in self._names.by_table(self._edges):
            if self._names.fold(tracked):
                found = self._names.rows(tracked, texts)
                self._namesakes |= {(tracked.collection, t): some for t, some in found.items()}

    # -- who stays ------------------------------------------------------------------------

    def _present(self) -> set[Row]:
        """The doubtful rows that stay: the largest set in which each has a reason to."""
        living = {row for row, work in self._doubtful.items() if work.lives}
        while True:
            there = living | self._kept_by(living)
            falling = {
                row
                for row in living
                if any(
                    e.effect == FALL and self._is_gone(e.parent, there) for e in self._above[row]
                )
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
            for work in self._keepers(stack.pop()):
                row = _row(work)
                if row not in kept and (row in living or _can_be_kept(work)):
                    kept.add(row)
                    stack += [edge.parent for edge in self._above[row] if edge.effect != CLEAR]
        return kept

    def _members(self, name: Name) -> Sequence[Work]:
        """The rows of a name that is referred to."""
        return self._namesakes.get(name) or [self._doubtful[name]]

    def _keepers(self, name: Name) -> Sequence[Work]:
        """Of the rows of a name those that may have to be there for others."""
        members = self._members(name)
        if len(members) == 1:
            return members
        living = [work for work in members if work.lives]
        dead = [work for work in members if _can_be_kept(work)]
        return living or sorted(dead, key=lambda work: (work.state.age, work.pk))[:1]

    def _is_gone(self, name: Name, there: set[Row]) -> bool:
        return not any(self._is_there(work, there) for work in self._members(name))

    def _is_there(self, work: Work, there: set[Row]) -> bool:
        row = _row(work)
        return row in there or (row not in self._doubtful and work.state.alive)

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
                    e
                    for e in self._above[row]
                    if e.effect == FALL and self._is_gone(e.parent, present)
                )
                self._park(work, f"PARENT_DELETED: {_named(edge)}", None)
        for parent, edges in self._edges.items():
            if self._is_gone(parent, present):
                for edge in edges:
                    if edge.child.stands and edge.effect == CLEAR:
                        _clear(edge)

    def _restore(self, present: set[Row]) -> None:
        """Let rows refer again to what is there again."""
        cleared: dict[Name, list[tuple[Work, str]]] = defaultdict(list)
        for work in self._all():
            if work.in_table and work.stands:
                for name, value in work.state.cleared.items():
                    parent = self._registry.model(work.tracked.by_name[name].field.rel_model)
                    if parent is not None:
                        cleared[self._names.of(parent, value)].append((work, name))
        for tracked, texts in self._names.by_table(cleared):
            for text in self._there(tracked, texts, present):
                for work, name in cleared[tracked.collection, text]:
                    work.written[name] = work.state.cleared.pop(name)

    def _there(self, tracked: Tracked, texts: list[str], present: set[Row]) -> list[str]:
        """Of these names: those of rows that are there."""
        if self._names.fold(tracked):
            rows = self._names.rows(tracked, texts)
            return [t for t, some in rows.items() if any(self._is_there(w, present) for w in some)]
        found, others = [], []
        for pk in texts:
            work = self._at_work.get(tracked.collection, pk)
            if work is None:
                others.append(pk)
            elif self._is_there(work, present):
                found.append(pk)
        states = self._versions.load(tracked.collection, others)
        return found + [pk for pk, state in states.items() if state.alive]

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
    return f"{edge.column.name} {dumps(edge.value)} was deleted from {edge.parent[0]}"


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
    work.state.cleared[name] = edge.value
    if work.in_table:
        work.written[name] = cleared
    else:
        work.values = {**(work.values or {}), name: cleared}
