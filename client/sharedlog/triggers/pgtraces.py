"""What PostgreSQL's triggers noted, as the same traces that SQLite's leave (see `traces`).

Transactions come in the order in which they ended: whoever changed a row before somebody else has
ended before that one changed it. What one transaction noted stands between two marks.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

from ..journal.journal import Journal, chunks
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import Uncarried
from .ddl import CREATED, DELETED, MODIFIED
from .marks import BEGIN, END
from .traces import CHUNK, Shape, Trace, Traces

_TYPES = """WITH RECURSIVE kind AS (
        SELECT attname, atttypid AS type FROM pg_attribute
        WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT attname, typbasetype FROM kind JOIN pg_type ON oid = type WHERE typbasetype <> 0
    )
    SELECT attname, typname FROM kind JOIN pg_type ON oid = type WHERE typbasetype = 0"""
"""The columns of a table and their types; of domains, what they are made of in the end."""

_SELECT = "SELECT number, shape, operation, at, tx, place, was, became FROM sharedlog_trace"

_PLACE = """SELECT CAST(made.oid AS text), nspname
    FROM pg_class AS made JOIN pg_namespace AS space ON space.oid = relnamespace
    WHERE made.oid = to_regclass(?)"""


class Layout(NamedTuple):
    """Where the values of a shape are: the names of columns, then and today, and their types, those
    of the key first; and which of the other fields have a rule."""

    columns: Sequence[tuple[str, str, str]]
    key: int
    ruled: Sequence[int]


class Untold(Uncarried):
    """The value of a column by another name, which is one of these."""

    hint = "Alter tables inside sync.migrating(). Write the value once more to send it."

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = hash(repr(sorted(values.items())))

    def __repr__(self) -> str:
        """As long as none of them changes, neither does this."""
        return f"Untold({self._values})"

    def __str__(self) -> str:
        return "its column had another name, or was gone, when this was written"


class PostgresTraces(Traces):
    """The traces of the tracked tables of one application."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        super().__init__(registry, journal)
        self._read: list[int] = []

    def names_of(self, tracked: Tracked) -> list[Any]:
        """With the columns' names and types, which may be others when the traces are read."""
        types = dict(self._run(_TYPES, (tracked.table,)).fetchall())
        columns = [column.field.column_name for column in tracked.every]
        return [*super().names_of(tracked), [[name, types[name]] for name in columns]]

    def shape_of(self, tracked: Tracked, names: Sequence[Any]) -> Shape:
        shape = super().shape_of(tracked, names[:5])
        _, key, fields, ruled, _, columns = names
        places = [len(key) + n for n, name in enumerate(fields) if name in ruled]
        today = {column.name: column.field.column_name for column in tracked.every}
        now = [today.get(shape.today.get(name, name), "") for name in (*key, *fields)]
        layout = [(name, now[n], kind) for n, (name, kind) in enumerate(columns)]
        shape.layout = Layout(layout, len(key), places)
        return shape

    def count(self) -> int:
        shapes = list(self.shapes())
        found = self._run("SELECT count(*) FROM sharedlog_trace WHERE shape = ANY(?)", (shapes,))
        return int(found.fetchone()[0])

    def read(self, shapes: Sequence[int]) -> Iterator[Trace]:
        known = self.shapes()
        ended = self._run(
            "SELECT tx, count(*), max(number) FROM sharedlog_trace WHERE shape = ANY(?) "
            "GROUP BY tx ORDER BY 3",
            (list(shapes),),
        ).fetchall()
        places = {number: self._places(known[number].tracked) for number in shapes if ended}
        self._read = []
        previous = 0
        for some in _portions(ended):
            for traces in self._of_transactions(some, list(shapes)):
                yield Trace(previous, None, BEGIN, 0, None, ())
                for number, shape, operation, at, place, was, became in traces:
                    previous = number
                    self._read.append(number)
                    if place is None or not places[shape].isdisjoint(place.split(" ", 1)):
                        yield from _traces(known[shape], number, shape, operation, at, was, became)
                yield Trace(previous, None, END, 0, None, ())

    def _places(self, tracked: Tracked) -> Set[str]:
        """Where a table is: by its number, and by its names of today and before, since it may have
        been made anew. A trigger goes with a table that is renamed, and what it notes there is not
        of the table which took the name."""
        number, schema = self._run(_PLACE, (tracked.table,)).fetchone() or ("", "")
        names = (tracked.collection, *self._registry.names.of_table(tracked.collection))
        return {number, *(f"{schema}.{name}" for name in names)}

    def _of_transactions(
        self, transactions: Sequence[int], shapes: Sequence[int]
    ) -> Iterator[Iterator[Any]]:
        """What these transactions noted; of one that is large, so much at a time."""
        if len(transactions) == 1:
            yield self._of_one(transactions[0], shapes)
            return
        rows: dict[int, list[Any]] = {tx: [] for tx in transactions}
        cursor = self._run(
            f"{_SELECT} WHERE tx = ANY(?) AND shape = ANY(?) ORDER BY number",
            (list(transactions), shapes),
        )
        for number, shape, operation, at, tx, *rest in cursor.fetchall():
            rows[tx].append((number, shape, operation, at, *rest))
        yield from map(iter, rows.values())

    def _of_one(self, transaction: int, shapes: Sequence[int]) -> Iterator[Any]:
        last = 0
        while rows := self._run(
            f"{_SELECT} WHERE tx = ? AND shape = ANY(?) AND number > ? ORDER BY number "
            f"LIMIT {CHUNK}",
            (transaction, shapes, last),
        ).fetchall():
            for number, shape, operation, at, _, *rest in rows:
                yield number, shape, operation, at, *rest
            last = rows[-1][0]

    def drop(self, shapes: Sequence[int], last: int) -> None:
        """Forget those that were read, up to this one."""
        if last in self._read:
            done = self._read[: self._read.index(last) + 1]
            for some in chunks(done, 10_000):
                self._run("DELETE FROM sharedlog_trace WHERE number = ANY(?)", (some,))


def _portions(ended: Sequence[tuple[int, int, int]]) -> Iterator[list[int]]:
    """Transactions to be read together: some small ones, or a large one."""
    some: list[int] = []
    size = 0
    for tx, count, _ in ended:
        if some and size + count > CHUNK:
            yield some
            some, size = [], 0
        some.append(tx)
        size += count
    if some:
        yield some


def _traces(
    shape: Shape, number: int, of: int, operation: int, at: int, was: str | None, became: str | None
) -> Iterator[Trace]:
    layout = shape.layout
    old, new = _values(layout, was), _values(layout, became)
    nothing = [None] * len(layout.ruled)  # which a new row's fields were before
    if operation == CREATED:
        yield Trace(number, of, CREATED, at, None, [*new, *nothing])
    elif operation == DELETED:
        yield Trace(number, of, DELETED, at, "all", old)
    elif _differ(old[: layout.key], new[: layout.key]):
        yield Trace(number, of, DELETED, at, "all", old)
        yield Trace(number, of, CREATED, at, None, [*new, *nothing])
    else:
        signs = "".join("01"[_differ(*pair)] for pair in zip(old, new, strict=True))[layout.key :]
        if "1" in signs:
            before = [old[place] for place in layout.ruled]
            yield Trace(number, of, MODIFIED, at, signs, [*new, *before])


def _differ(one: Any, other: Any) -> bool:
    """True is 1 to Python, but not in JSON."""
    return repr(one) != repr(other)


def _values(layout: Layout, text: str | None) -> list[Any]:
    if text is None:
        return []
    try:
        row = json.loads(text, parse_float=Decimal, parse_int=_whole)
    except RecursionError:
        return [Uncarried() for _ in layout.columns]
    return [
        _value(kind, row[name]) if name in row else _renamed(layout, now, kind, row)
        for name, now, kind in layout.columns
    ]


def _renamed(layout: Layout, now: str, kind: str, row: Mapping[str, Any]) -> Any:
    """The value of a column that had another name when this was noted than when the triggers were
    made: the one that it has today, or one that nobody can tell."""
    if now in row:
        return _value(kind, row[now])
    known = {name for column in layout.columns for name in column[:2]}
    return Untold({name: row[name] for name in row.keys() - known})


def _value(kind: str, value: Any) -> Any:
    """A value as the driver would give it, from how it is written in JSON."""
    if value is None:
        return None
    try:
        convert = _FROM_JSON.get(kind)
        return value if convert is None else convert(value)
    except (ValueError, TypeError):
        return Uncarried()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


def _whole(digits: str) -> Any:
    """A number with more digits than Python makes one of is in no column of another database."""
    return int(digits) if len(digits) < sys.int_info.default_max_str_digits else Uncarried()


def _no_text(value: Any) -> Any:
    """What the driver gives as something else than a text is refused when it is written by the
    application, too."""
    raise TypeError


def _json(value: Any) -> Any:
    if type(value) is Uncarried:
        raise ValueError
    if type(value) is Decimal:
        return float(value)
    if type(value) is list:
        return [_json(item) for item in value]
    return {key: _json(item) for key, item in value.items()} if type(value) is dict else value


_FROM_JSON: Mapping[str, Callable[[Any], Any]] = {
    "bytea": _bytes,
    "uuid": uuid.UUID,
    "numeric": Decimal,
    "float4": float,
    "float8": float,
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
    "json": _json,
    "jsonb": _json,
    "interval": _no_text,
    "inet": _no_text,
    "cidr": _no_text,
    "int4range": _no_text,
    "int8range": _no_text,
    "numrange": _no_text,
    "daterange": _no_text,
    "tsrange": _no_text,
    "tstzrange": _no_text,
}
