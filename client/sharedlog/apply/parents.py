"""Which rows can stand: those whose parents stand, too. Says who has to leave; writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import peewee

from ..changes import Wire, dumps, loads
from ..journal.journal import chunks
from ..models.columns import TrackedColumn
from ..models.registry import ACTING, Registry, on_delete, on_update
from ..models.tracked import Tracked
from ..tables.collations import EXACT, Collation, Collations
from ..tables.rows import UNFIT, Reference, Target, Work, read_rows, target_of
from .atwork import AtWork

Park = Callable[[Work, str, "Mapping[str, Wire] | None"], None]
"""Parks a row, for a reason; with the values in its table, where they are at hand."""


class Relations:
    """Who refers to whom among the tracked tables."""

    def __init__(self, registry: Registry, collations: Collations) -> None:
        self.collations = collations
        self._texts: dict[Target, Callable[[Wire], str]] = {}
        self.children: dict[Target, list[tuple[Tracked, TrackedColumn]]] = defaultdict(list)
        self.referred: dict[str, list[TrackedColumn]] = defaultdict(list)
        self.fields: dict[Target, peewee.Field] = {}
        self.following: dict[Target, list[tuple[Tracked, TrackedColumn]]] = defaultdict(list)
        """The references that the database changes with what they refer to."""
        for child in registry:
            for column in child.parents:
                target = target_of(column)
                parent = registry.model(column.field.rel_model)
                if target not in self.fields and parent is not None:
                    self.referred[parent.collection].append(parent.by_field[column.field.rel_field])
                self.fields[target] = column.field.rel_field
                self.children[target].append((child, column))
                if _acts(child, column, on_update(column)):
                    self.following[target].append((child, column))

    def collation(self, target: Target) -> Collation:
        """By what values are compared with those of a field that others refer to."""
        return self.collations.of(self.fields[target])

    def of_key(self, tracked: Tracked) -> Collation:
        """By what the values are compared that refer to a key."""
        target = tracked.collection, tracked.key[0].name
        refers = len(tracked.key) == 1 and target in self.fields
        return self.collation(target) if refers else EXACT

    def learn(self, works: Mapping[str, Sequence[Work]]) -> None:
        """What these rows refer to, and are referred to by, is going to be compared."""
        self.collations.begin()
        for target in self.fields:
            concerned = {target[0], *(child.collection for child, _ in self.children[target])}
            if concerned & works.keys() and (collation := self.collation(target)).asks:
                collation.learn(self._values(target, works))

    def _values(self, target: Target, works: Mapping[str, Sequence[Work]]) -> Iterator[Wire]:
        yield from (work.wire(target[1]) for work in works.get(target[0], ()))
        for child, column in self.children[target]:
            yield from (work.wire(column.name) for work in works.get(child.collection, ()))

    def reference(self, target: Target, value: Wire) -> Reference:
        text = self._texts.get(target)
        if text is None:
            text = self._texts[target] = self.collation(target).text
        return target, text(value)


class Parents:
    """The parents of the rows of one page: in the tables, at work, or missing.

    Args:
        at_work: All rows at work. Rows that are found in the tables are added.
    """

    def __init__(
        self, database: peewee.Database, relations: Relations, at_work: AtWork, park: Park
    ) -> None:
        self._database = database
        self._relations = relations
        self._reference = relations.reference
        self._at_work = at_work
        self._works = at_work.works
        self._park = park
        self._arriving: dict[Reference, Work] = {}
        self._present: set[Reference] = set()
        self._lost: set[Reference] = set()
        self._dependants: dict[Reference, list[Work]] = {}
        self._shielded: set[tuple[str, str, str]] = set()
        self._detached: list[Work] = []
        self._told: list[Work] = []
        self._former: dict[Reference, Work] = {}
        self._vanished: set[int] = set()
        """The works whose rows are not where they should be: they went unseen."""

    def detached(self) -> list[Work]:
        """The rows that must refer to nothing until they are written, because the database would
        act on what they refer to in the table; told once."""
        detached, self._detached = self._detached, []
        self._told += detached
        return [work for work in detached if work.stands]

    def begin_again(self) -> None:
        """What was written was taken back."""
        self._detached, self._told = self._told + self._detached, []
        self._former.clear()

    def shield(self) -> None:
        """Let rows be written anew as they are that the database would change with their parents,
        when these get another value, if only for a moment.

        Whoever changed a parent recorded what became of its children there. What they are here
        follows from that alone: not from what the parent was in between.
        """
        while fresh := list(self._exposed()):
            for work, name, value in fresh:
                work.written.setdefault(name, value)
                self._shielded.add((work.tracked.collection, work.pk, name))
                self._detached.append(work)

    def _exposed(self) -> Iterator[tuple[Work, str, Wire]]:
        """Rows that refer to what is about to change by a field that the database would change,
        too; and what stands there."""
        for target, following in self._relations.following.items():
            some = self._works.get(target[0], ())
            changing = [work for work in some if work.in_table and target[1] in work.written]
            texts = [text for found, text in self._offered(changing) if found == target]
            collation = self._relations.collation(target)
            for child, reference in following:
                for work, values in self._at_work.referring(child, reference, texts, collation):
                    place = child.collection, work.pk, reference.name
                    if work.in_table and work.stands and place not in self._shielded:
                        yield work, reference.name, values[reference.name]

    def left_behind(self, gone: Sequence[Work], *, written: bool) -> list[Work]:
        """Park the rows that refer to rows that do not stand, and so on; return them.

        `gone` are the rows that are known not to stand. `written`: the tables may refer to
        rows that never got into them. Rows that are about to refer to another parent than the
        one they lose are `detached`.
        """
        dependants = self._dependants = defaultdict[Reference, list[Work]](list)
        columns: dict[Reference, TrackedColumn] = {}
        for work in self._candidates():
            for column, value in work.references():
                reference = self._reference(target_of(column), value)
                dependants[reference].append(work)
                columns[reference] = column
        fresh = self._offered([work for work in gone if work.in_table or written])
        fresh |= self._renamed()
        if not dependants and not fresh:
            return []
        self._arriving = self._find_arriving({target for target, _ in (*dependants, *fresh)})
        self._present = self._find_present(columns)
        self._lost = fresh
        orphans = self._bereft(work for some in dependants.values() for work in some)
        parked: list[Work] = []
        while fresh or orphans:
            orphans += self._in_tables(fresh)
            parked += orphans
            fresh = self._offered([work for work in orphans if work.in_table]) - self._lost
            hopes = self._offered([work for work in orphans if not work.in_table])
            hopes |= self._promised(orphans)
            again = hopes & self._lost  # what was to be there again with these
            self._lost |= fresh
            fresh, hopes = fresh | again, fresh | hopes
            orphans = self._bereft(w for r in sorted(hopes) for w in dependants.get(r, ()))
        return parked

    def above(self, works: Sequence[Work], among: Sequence[Work]) -> list[Work]:
        """Of the rows `among`, those that `works` refer to in the tables, and so on; no row of
        `works` itself."""
        others = [(work, self._offered([work])) for work in among if work not in works]
        found: list[Work] = []
        level = list(works)
        while level:
            wanted = {reference for work in level for reference in self._referred(work)}
            level = [work for work, offered in others if offered & wanted and work not in found]
            found += level
        return found

    def renamed_above(self, works: Sequence[Work]) -> list[Work]:
        """The rows that get another value in what `works` refer to in the tables."""
        wanted = {reference for work in works for reference in self._referred(work)}
        lost = sorted(reference for reference in wanted if not self._stands(reference))
        return [self._former[reference] for reference in lost if reference in self._former]

    def _referred(self, work: Work) -> Iterator[Reference]:
        """What a row refers to in its table."""
        rows = read_rows(self._database, work.tracked, [work.key_parameters()])
        for column in work.tracked.parents:
            for values in rows.values():
                name = column.name
                value = values[name] if name in values else work.key_part(name)
                if value is not None:
                    yield self._reference(target_of(column), value)

    def _candidates(self) -> Iterator[Work]:
        for some in self._works.values():
            if some and some[0].tracked.parents:
                yield from (work for work in some if work.stands)

    def _stands(self, reference: Reference) -> bool:
        work = self._arriving.get(reference)
        if work is not None and work.stands:
            return True
        return reference in self._present and reference not in self._lost

    def _bereft(self, works: Iterable[Work]) -> list[Work]:
        """Park those of these rows that are about to refer to a row that does not stand."""
        orphans = []
        for work in works:
            if work.stands:
                for column, value in work.references():
                    if not self._stands(self._reference(target_of(column), value)):
                        self._park(work, missing(column, value), None)
                        orphans.append(work)
                        break
        return orphans

    def _in_tables(self, lost: set[Reference]) -> list[Work]:
        """Park the rows in the tables that refer to what is lost. Those that refer to another row
        by it from here on stay: what the database would do to them is not about that one."""
        texts: dict[Target, list[str]] = defaultdict(list)
        for target, text in sorted(lost):
            texts[target].append(text)
        orphans = []
        for target, some in texts.items():
            gone = [text for text in some if not self._stands((target, text))]
            collation = self._relations.collation(target)
            for child, column in self._relations.children[target]:
                concerned = some if _acts(child, column, on_delete(column)) else gone
                for work, values in self._at_work.referring(child, column, concerned, collation):
                    if not (work.stands and work.in_table):
                        continue
                    name = column.name
                    value = values[name] if name in values else work.wire(name)
                    reference = self._reference(target, value)
                    if name in work.written or self._stands(reference):
                        work.written.setdefault(name, value)
                        self._detached.append(work)
                        self._dependants[reference].append(work)
                        continue
                    self._park(work, missing(column, value), values)
                    orphans.append(work)
        return orphans

    def _offered(self, works: Iterable[Work]) -> set[Reference]:
        """As what others may refer to these rows, by what is in the tables (or was to be)."""
        offered: set[Reference] = set()
        by_table: dict[str, list[Work]] = defaultdict(list)
        for work in works:
            if self._relations.referred.get(work.tracked.collection):
                by_table[work.tracked.collection].append(work)
        for name, some in by_table.items():
            tracked = some[0].tracked
            for column in self._relations.referred[name]:
                target = (name, column.name)
                as_offered = partial(self._reference, target)
                if column.name not in tracked.by_name:
                    offered.update(as_offered(work.wire(column.name)) for work in some)
                    continue
                offered.update(as_offered(w.values[column.name]) for w in some if w.values)
                keys = [work.key_parameters() for work in some if work.in_table]
                for values in read_rows(self._database, tracked, keys).values():
                    offered.add(as_offered(values[column.name]))
        return offered

    def _promised(self, works: Iterable[Work]) -> set[Reference]:
        """As what others may have been about to refer to these rows, had they got new values."""
        return {
            self._reference((work.tracked.collection, column.name), work.written[column.name])
            for work in works
            for column in self._relations.referred.get(work.tracked.collection, ())
            if column.name in work.written
        }

    def _renamed(self) -> set[Reference]:
        """What rows that stay in their tables offered, and will no more. A row that is to be
        inserted may be in its table all the same, after `reset()`, and is overwritten."""
        renamed: set[Reference] = set()
        for name, some in self._works.items():
            for column in self._relations.referred.get(name, ()):
                if some and column.name in some[0].tracked.by_name:
                    changing = [w for w in some if w.stands and w.writes(column)]
                    keys = [work.key_parameters() for work in changing]
                    before = read_rows(self._database, some[0].tracked, keys)
                    vanished = [w for w in changing if w.in_table and w.pk not in before]
                    self._vanished.update(map(id, vanished))
                    for work in changing:
                        old = before[work.pk][column.name] if work.pk in before else None
                        was = self._reference((name, column.name), old)
                        if old is not None and was != self._reference(
                            was[0], work.wire(column.name)
                        ):
                            renamed.add(was)
                            self._former.setdefault(was, work)
        return renamed

    def _find_arriving(self, targets: set[Target]) -> dict[Reference, Work]:
        """The rows at work that can be referred to anew."""
        arriving = {}
        for target in targets:
            for work in self._works.get(target[0], ()):
                name = target[1]
                writes = not work.in_table or name in work.written
                if work.stands and writes and id(work) not in self._vanished:
                    arriving[self._reference(target, work.wire(name))] = work
        return arriving

    def _find_present(self, columns: dict[Reference, TrackedColumn]) -> set[Reference]:
        """Of these references: those whose rows are in the tables. The column of a reference
        tells how its value becomes a parameter."""
        present: set[Reference] = set()
        parameters: dict[Target, list[object]] = defaultdict(list)
        some: dict[Target, TrackedColumn] = {}
        for (target, text), column in columns.items():
            some[target] = column
            if (target, text) not in self._arriving:
                try:
                    parameters[target].append(column.to_parameter(loads(text)))
                except UNFIT:
                    continue
        for target, values in parameters.items():
            field = self._relations.fields[target]
            for chunk in chunks(values):
                raw = [peewee.Value(parameter, converter=False) for parameter in chunk]
                query = field.model.select(field).where(field.in_(raw))
                for (value,) in self._database.execute(query).fetchall():
                    present.add(self._reference(target, some[target].wire_of_stored(value)))
        return present


def _acts(child: Tracked, column: TrackedColumn, rule: str) -> bool:
    """Whether a rule for what is referred to makes the database change what refers to it."""
    return rule in ACTING and column.name in child.by_name


def missing(column: TrackedColumn, value: Wire) -> str:
    table, _ = target_of(column)
    return f"PARENT_MISSING: {column.name} {dumps(value)} is not in {table}"
