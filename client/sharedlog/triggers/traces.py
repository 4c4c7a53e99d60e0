"""What triggers noted: the rows of `sharedlog_trace`, and what their values are.

A trace is a change as SQLite saw it. Its values become JSON here, by the codecs of the model's
fields, under the names that the program had which made the trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

from ..changes import Wire, dumps, loads
from ..errors import ValueRefused
from ..journal.journal import Journal
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import Uncarried, escape
from ..tables.stored import stored_rows
from .ddl import MODIFIED

CHUNK = 500
"""Traces read at a time."""


class Trace(NamedTuple):
    """A row of `sharedlog_trace`. `at` is wall time in milliseconds; marks have none."""

    number: int
    shape: int | None
    operation: int
    at: int
    changed: str | None
    values: Sequence[Any]


class Shape:
    """What the values of a trace are: its key, its fields, and what those with a merge rule were
    before a modification.

    Attributes:
        collection, schema: As the program was that made the trigger.
        layout: Where its values are found, if they are not kept one by one.
        today: The names that its fields have now.
        ruled: Those of its fields that had a merge rule.
    """

    layout: Any = None

    def __init__(self, registry: Registry, tracked: Tracked, names: Sequence[Any]) -> None:
        self.tracked = tracked
        self.collection, key, fields, ruled, self.schema = names
        self._same_key = key == [column.name for column in tracked.key]
        former = registry.names.fields.get(tracked.collection, {})
        self.today = {name: former.get(name, (name,))[0] for name in fields}
        self._width = len(key)
        self._fields = [(name, self._converter(name)) for name in fields]
        self.ruled = frozenset(ruled)
        # In the order of their columns, as the triggers note them, not as the model names them.
        self._ruled = [(name, self._converter(name)) for name in fields if name in ruled]

    def of_today(self, schema: int, names: Iterable[str]) -> Shape:
        """The same for values that were turned into those of this schema version, of fields with
        these names. (The model need not have all of them any more.)"""
        shape = copy(self)
        shape.collection, shape.schema = self.tracked.collection, schema
        shape.today = {name: name for name in names}
        known = {new: old for old, new in self.today.items()}
        shape.ruled = frozenset(n for n in shape.today if known.get(n) in (None, *self.ruled))
        return shape

    def _converter(self, name: str) -> Callable[[Any], Wire]:
        column = self.tracked.by_name.get(self.today[name])
        return _former if column is None else column.wire_of_stored

    def pk(self, trace: Trace) -> str:
        if not self._same_key:
            raise ValueRefused(f"The key of {self.collection} was another one.")
        pk = self.tracked.pk_json(self.tracked.pk_of_stored(trace.values))
        self.tracked.check_key(pk)
        return pk

    def wires(self, trace: Trace) -> dict[str, Wire]:
        """The values that a row has, or those that a modification changed."""
        stored = trace.values[self._width : self._width + len(self._fields)]
        pairs = zip(self._fields, stored, strict=True)
        if trace.operation == MODIFIED:
            some = zip(pairs, trace.changed or "", strict=True)
            return {name: wire(value) for ((name, wire), value), sign in some if sign == "1"}
        return {name: wire(value) for (name, wire), value in pairs}

    def before(self, trace: Trace) -> dict[str, Wire]:
        """What the fields with a rule were before a modification, as far as it changed them."""
        begin = self._width + len(self._fields)
        pairs = zip(self._ruled, trace.values[begin : begin + len(self._ruled)], strict=True)
        return {name: wire(value) for (name, wire), value in pairs}


def _former(stored: Any) -> Wire:
    """Of a field that the model had once: what stood in its column travels."""
    return stored if stored is None or isinstance(stored, Uncarried) else escape(stored)


class Traces:
    """The traces of the tracked tables of one application. Others' are left to others."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._registry = registry
        self._journal = journal
        self._run = journal.run

    def shape_number(self, tracked: Tracked) -> int:
        """The number of what a table's traces are now."""
        names = dumps(self.names_of(tracked))
        self._run("INSERT OR IGNORE INTO sharedlog_trace_shape (names) VALUES (?)", (names,))
        found = self._run("SELECT number FROM sharedlog_trace_shape WHERE names = ?", (names,))
        return int(found.fetchone()[0])

    def names_of(self, tracked: Tracked) -> list[Any]:
        """What its traces are, to be kept."""
        key, fields = ([c.name for c in columns] for columns in (tracked.key, tracked.columns))
        return [tracked.collection, key, fields, list(tracked.rules), self._journal.schema]

    def shape_of(self, tracked: Tracked, names: Sequence[Any]) -> Shape:
        return Shape(self._registry, tracked, names)

    def shapes(self) -> dict[int, Shape]:
        """The shapes of our tables, by number."""
        shapes = {}
        for number, text in self._run("SELECT number, names FROM sharedlog_trace_shape").fetchall():
            names = loads(text)
            tracked = self._registry.collection(self._registry.names.table(names[0]))
            if tracked is not None:
                shapes[number] = self.shape_of(tracked, names)
        return shapes

    def are_there(self) -> bool:
        """Whether there may be some."""
        return self._run("SELECT 1 FROM sharedlog_trace LIMIT 1").fetchone() is not None

    def count(self) -> int:
        shapes = ", ".join(map(str, self.shapes()))
        found = self._run(f"SELECT count(*) FROM sharedlog_trace WHERE shape IN ({shapes})")
        return int(found.fetchone()[0])

    def read(self, shapes: Sequence[int]) -> Iterator[Trace]:
        """The traces of these shapes, and the marks between them."""
        number = 0
        while rows := self._chunk(_of(shapes), number):
            for number, shape, operation, at, changed, *values in rows:
                yield Trace(number, shape, operation, _milliseconds(at), changed, values)

    def drop(self, shapes: Sequence[int], last: int) -> None:
        """Forget them, up to this one."""
        self._run(f"DELETE FROM sharedlog_trace WHERE number <= ? AND {_of(shapes)}", (last,))

    def _chunk(self, condition: str, after: int) -> list[Any]:
        sql = (
            f"SELECT * FROM sharedlog_trace WHERE number > ? AND {condition} "
            f"ORDER BY number LIMIT {CHUNK}"
        )
        return stored_rows(
            self._journal.dialect, self._journal.database, sql, (after,), _with_surrogates
        )


def _of(shapes: Sequence[int]) -> str:
    return f"(shape IS NULL OR shape IN ({', '.join(map(str, shapes))}))"


def _milliseconds(julian_day: float | None) -> int:
    return 0 if julian_day is None else round((julian_day - 2_440_587.5) * 86_400_000)


def _with_surrogates(raw: bytes) -> str:
    """Text that is not UTF-8: what is wrong with it becomes lone surrogates, which are refused."""
    return raw.decode("utf-8", "surrogateescape")
