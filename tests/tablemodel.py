"""What stands in the tables, said once more and as simply as possible: the section of that name in
docs/protocol.md, on dictionaries.

Slow, without state, and written from that text alone, without a look at the library: the whole
set of changes goes in, what every device must show comes out. Tests compare the library with this.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.dictmodel import Row, Stamp, Write, row_of
from tests.fieldmodel import Functions, operands, value_of

Key = tuple[str, str]
"""A row: its table, and its pk as JSON text."""

Values = Mapping[str, Any]

CASCADED, CLASHING, MISFIT, ORPHANED, UNKNOWN = (
    "its parent was deleted",
    "an older row has its unique value",
    "a value does not fit",
    "a parent is missing",
    "there is no such table",
)
"""Why rows are parked."""

KEEP, PARK, CLEAR = "keep", "park", "clear"
"""What a foreign key does when the row it refers to is deleted: it keeps that row, parks its own,
or is taken out of it."""


class ForeignKey(NamedTuple):
    """A column that refers to the primary key of a table."""

    column: str
    parent: str
    on_delete: str = ""


def anything(column: str, value: Any) -> bool:
    return True


def itself(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Table:
    """What there is to know of a table.

    Attributes:
        key: The columns of the primary key.
        columns: The others, with what stands there if nobody wrote it.
        unique: Sets of columns that are unique together.
        required: Columns that take no NULL.
        takes: Whether a column can hold a value (that is not null).
        rules: The merge rules of columns that have one; `functions` are the application's own.
        update_wins: Whether changes win over deletions.
        fold: Makes one of all keys that are equal, where a key is one column with a collation.
    """

    key: tuple[str, ...]
    columns: Values = field(default_factory=dict)
    foreign_keys: tuple[ForeignKey, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    required: frozenset[str] = frozenset()
    takes: Callable[[str, Any], bool] = anything
    rules: Mapping[str, str] = field(default_factory=dict)
    functions: Functions = field(default_factory=dict)
    update_wins: bool = False
    fold: Callable[[Any], Any] = itself

    def effect(self, foreign_key: ForeignKey) -> str:
        if foreign_key.on_delete in ("", "RESTRICT", "NO ACTION"):
            return KEEP
        clears = foreign_key.on_delete in ("SET NULL", "SET DEFAULT")
        return CLEAR if clears and self._can_clear(foreign_key) else PARK

    def _can_clear(self, foreign_key: ForeignKey) -> bool:
        name = foreign_key.column
        takes = name not in self.required or self.instead(foreign_key) is not None
        return takes and name not in self.key

    def instead(self, foreign_key: ForeignKey) -> Any:
        """What stands in the place of a reference that is taken out."""
        if foreign_key.on_delete == "SET DEFAULT":
            return self.columns.get(foreign_key.column)
        return None


class Candidate(NamedTuple):
    """A row on its way to its table: when it was created, its columns with those of the key."""

    born: Stamp
    values: Values


Candidates = Mapping[Key, Candidate]


@dataclass(frozen=True)
class Standing:
    """What every device must show.

    Attributes:
        rows: What stands in the tables: the columns beside the key.
        parked: The rows that should and do not, with the reason: alive ones, and dead ones that
            were changed since, where changes win.
        kept: Those of `rows` that are dead.
    """

    rows: Mapping[Key, Values]
    parked: Mapping[Key, str]
    kept: frozenset[Key]


def standing(
    tables: Mapping[str, Table],
    writes: Mapping[Key, Sequence[Write]],
    rows: Mapping[Key, Row] | None = None,
) -> Standing:
    """What a set of changes, by row, comes to in these tables. `rows` are what the changes merge
    to, if that is known already."""
    if rows is None:
        rows = {key: row_of(some) for key, some in writes.items()}
    alive = {key for key, row in rows.items() if row.alive and key[0] in tables}
    died = {key for key, row in rows.items() if row.died is not None and not row.alive}
    candidates: dict[Key, Candidate] = {}
    for key in sorted(alive | died):
        since = rows[key].died if key in alive else None
        if key[0] in tables and (row := _candidate(tables[key[0]], key, writes[key], since)):
            candidates[key] = row

    changed = {k for k in died & candidates.keys() if tables[k[0]].update_wins and rows[k].values}

    parked = {key: UNKNOWN for key, row in rows.items() if row.alive and key[0] not in tables}
    parents = _Parents(tables, candidates, died, alive | changed)
    left = {key: parents.cleared(key) for key in sorted(parents.there)}
    silent = died - changed
    parked |= dict.fromkeys((alive | changed) - left.keys(), CASCADED)
    clashing = _clashing(tables, left, died)
    parked |= dict.fromkeys(clashing - silent, CLASHING)
    left = {key: row for key, row in left.items() if key not in clashing}
    misfits = {key for key, row in left.items() if not _fits(tables[key[0]], row)}
    parked |= dict.fromkeys(misfits - silent, MISFIT)
    left = {key: row for key, row in left.items() if key not in misfits}
    whole = _with_parents(tables, left)
    parked |= dict.fromkeys(left.keys() - whole.keys() - silent, ORPHANED)
    return Standing(
        {key: {n: row.values[n] for n in tables[key[0]].columns} for key, row in whole.items()},
        parked,
        frozenset(whole.keys() & died),
    )


def _candidate(
    table: Table, key: Key, writes: Sequence[Write], after: Stamp | None
) -> Candidate | None:
    """The row that the changes after a deletion make; all of them, if it is None, as if the row
    had never been deleted. None if nobody created it."""
    since = [w for w in writes if w.operation != "delete" and (after is None or w.stamp > after)]
    born = max((write.stamp for write in since if write.operation == "create"), default=None)
    if born is None:
        return None
    written = {**row_of(since).values, **_ruled(table, since, after)}
    columns = {name: written.get(name, default) for name, default in table.columns.items()}
    return Candidate(born, {**columns, **_parts(table, key)})


def _ruled(table: Table, since: Sequence[Write], died: Stamp | None) -> Values:
    """The columns that have a merge rule, as far as anybody wrote them."""
    return {
        name: value_of(rule, said, died, table.columns[name], table.functions)
        for name, rule in table.rules.items()
        if (said := operands(since, name))
    }


def _parts(table: Table, key: Key) -> Values:
    """The columns of the key; NULL for all of them if it has another number of parts."""
    pk = json.loads(key[1])
    parts = pk if len(table.key) > 1 else [pk]
    if not isinstance(parts, list) or len(parts) != len(table.key):
        parts = [None] * len(table.key)
    return dict(zip(table.key, parts, strict=True))


# -- 1. deleted parents -------------------------------------------------------------------


class _Parents:
    """The rows that are there although rows were deleted, and what they may refer to."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        rows: Candidates,
        died: Collection[Key],
        living: Collection[Key],
    ) -> None:
        self._tables = tables
        self._rows = rows
        self._died = died
        self._of: dict[Key, list[Key]] = defaultdict(list)
        for key in sorted(rows.keys() | set(died)):
            if key[0] in tables:
                self._of[name(tables, key[0], json.loads(key[1]))].append(key)
        self._keeps = {key: self._referred(key, KEEP) for key in rows}
        self._falls_with = {key: self._referred(key, PARK) for key in rows}
        alive = set(living) & rows.keys()
        self.there = alive | self._needed(alive)
        while falling := self._falling(alive):
            alive -= falling
            self.there = alive | self._needed(alive)

    def _referred(self, key: Key, effect: str) -> list[Key]:
        """The names that this row refers to by foreign keys of this effect."""
        table, values = self._tables[key[0]], self._rows[key].values
        return [
            name(self._tables, fk.parent, values[fk.column])
            for fk in table.foreign_keys
            if values[fk.column] is not None and table.effect(fk) == effect
        ]

    def _needed(self, alive: set[Key]) -> set[Key]:
        """The dead rows that these need, and those that these need, and so on."""
        there = alive | {key for key in self._rows if key in self._died}
        needed = self._bearers(parent for key in alive for parent in self._keeps[key]) & there
        while (
            more := self._bearers(
                parent for key in needed for parent in (*self._keeps[key], *self._falls_with[key])
            )
            & there - needed
        ):
            needed |= more
        return {key for key in needed if key in self._died}

    def _bearers(self, names: Iterable[Key]) -> set[Key]:
        """The rows that can stand for these names: of each all that were not deleted, else the
        oldest."""
        found: set[Key] = set()
        for each in names:
            rows = [key for key in self._of[each] if key in self._rows]
            living = [key for key in rows if key not in self._died]
            found.update(living or sorted(rows, key=lambda k: (self._rows[k].born, k[1]))[:1])
        return found

    def _falling(self, alive: set[Key]) -> set[Key]:
        return {key for key in alive if any(map(self._is_gone, self._falls_with[key]))}

    def _is_gone(self, called: Key) -> bool:
        some = self._of.get(called, [])
        return bool(some) and self.there.isdisjoint(some)

    def cleared(self, key: Key) -> Candidate:
        """The row, with references to rows that are gone taken out where ON DELETE says so."""
        table, row = self._tables[key[0]], self._rows[key]
        values = dict(row.values)
        for fk in table.foreign_keys:
            gone = self._is_gone(name(self._tables, fk.parent, values[fk.column]))
            if gone and table.effect(fk) == CLEAR:
                values[fk.column] = table.instead(fk)
        return Candidate(row.born, values)


# -- 2. unique values, 3. values that do not fit, 4. missing parents ----------------------


def _clashing(tables: Mapping[str, Table], rows: Candidates, died: Collection[Key]) -> set[Key]:
    """The rows whose unique values belong to earlier ones that are not among them."""
    clashing: set[Key] = set()
    taken: set[tuple[str, tuple[str, ...], str]] = set()
    for key in sorted(rows, key=lambda key: (key in died, rows[key].born, key[1])):
        values = rows[key].values
        wanted = {
            (key[0], names, as_json([values[each] for each in names]))
            for names in tables[key[0]].unique
            if all(values[each] is not None for each in names)
        }
        wanted.add((key[0], (), name(tables, key[0], json.loads(key[1]))[1]))
        if wanted & taken:
            clashing.add(key)
        else:
            taken |= wanted
    return clashing


def _fits(table: Table, row: Candidate) -> bool:
    never_null = table.required.union(table.key)
    return all(
        name not in never_null if value is None else table.takes(name, value)
        for name, value in row.values.items()
    )


def _with_parents(tables: Mapping[str, Table], rows: Candidates) -> dict[Key, Candidate]:
    """The largest set of these rows in which every row's parents are, too."""
    whole = dict(rows)
    while True:
        present = {name(tables, key[0], json.loads(key[1])) for key in whole}
        orphans = [
            key
            for key, row in whole.items()
            if any(
                row.values[fk.column] is not None
                and fk.parent in tables
                and name(tables, fk.parent, row.values[fk.column]) not in present
                for fk in tables[key[0]].foreign_keys
            )
        ]
        if not orphans:
            return whole
        for key in orphans:
            del whole[key]


def name(tables: Mapping[str, Table], table: str, value: Any) -> Key:
    """A row as others refer to it: all that are equal have one."""
    return table, as_json(tables[table].fold(value) if table in tables else value)


def as_json(value: Any) -> str:
    """A value as text; a pk is written so, too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
