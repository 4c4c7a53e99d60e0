"""The triggers of a tracked table: how SQLite itself notes every change, whoever makes it.

They must do for every program that writes to the file, so they call no function that an
application brings along, and none of JSON, which loses values and refuses others. A change is
one row of `sharedlog_trace`, each value as it stands in a column without a type.

A REPLACE does not tell which rows it displaces. So an insert looks for rows that are in its way
before (`sharedlog_rival`) and notes those that are gone after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import peewee

from ..changes import CREATE, DELETE, MODIFY
from ..dialects import dialect_of, quote
from ..journal.journal import OPERATION_CODES
from ..models.columns import TrackedColumn
from ..models.registry import Registry
from ..models.tracked import Tracked

CREATED, MODIFIED, DELETED = (OPERATION_CODES[name] for name in (CREATE, MODIFY, DELETE))
DISPLACED = 3
"""A deletion by the insert that is noted next."""

WHOLE = "'all'"
"""What is said of a deletion that has all values of the row, since somebody may need them."""

RECORDING = "(SELECT off FROM sharedlog_capture) IS NOT 1"
NOW = "julianday('now')"

EVENTS = ("offered", "created", "moved", "deleted", "modified")
"""What the triggers of a table are for."""

Run = Callable[..., Any]


class Table(NamedTuple):
    """What the database says of a table.

    Attributes:
        loose: Columns that keep integers, floats and texts apart, whatever their values.
        uniques: Sets of columns that are unique together, with their collations.
    """

    loose: frozenset[str]
    uniques: Sequence[Mapping[str, str | None]]


def table_of(database: peewee.Database, name: str) -> Table:
    """Unique expressions are left out: a trigger cannot ask for them."""
    run: Run = database.execute_sql
    columns = run("SELECT name, type, pk FROM pragma_table_info(?)", (name,)).fetchall()
    indexes = dialect_of(database).unique_indexes(database, name, None)
    found: list[dict[str, str | None]] = [
        {column: collation for column, collation in index.parts if column is not None}
        for index in indexes
        if all(column is not None for column, _ in index.parts)
    ]
    key: dict[str, str | None] = {column: None for column, _, pk in columns if pk}
    if key and all(unique.keys() != key.keys() for unique in found):
        found.append(key)  # the row's number, which has no index
    return Table(frozenset(column for column, kind, _ in columns if _is_loose(kind)), found)


def _is_loose(declared: str) -> bool:
    kind = declared.upper()
    if any(word in kind for word in ("INT", "CHAR", "CLOB", "TEXT")):
        return False
    return kind in ("", "ANY") or "BLOB" in kind


def triggers_of(tracked: Tracked, shape: int, table: Table) -> dict[str, str]:
    """The statements that make the triggers of a table, by their names."""
    key = [column.quoted for column in tracked.key]
    every = [column.quoted for column in tracked.every]
    old_key, new_key, new = _of("OLD", key), _of("NEW", key), _of("NEW", every)
    old = _of("OLD", (column.quoted for column in remembered(tracked)))
    whole = WHOLE if _is_remembered(tracked) else "NULL"
    moved = " OR ".join(_differs(column, table) for column in tracked.key)
    deleted = _note(shape, DELETED, old, changed=whole)
    created = _note(shape, CREATED, new)
    triggers = [
        ("offered", "BEFORE INSERT", *_in_the_way(tracked, shape, table)),
        ("created", "AFTER INSERT", "", [_displaced(tracked, shape, whole), created]),
        ("moved", "AFTER UPDATE", moved, [deleted, _stands(tracked, shape)]),
        ("deleted", "AFTER DELETE", "", [_no_rival(shape, old_key), deleted]),
    ]
    if tracked.columns:
        differ = [_differs(column, table) for column in tracked.columns]
        fresh = [
            f"CASE WHEN {d} THEN {v} END" for d, v in zip(differ, new[len(key) :], strict=True)
        ]
        ruled = [(n, c) for n, c in enumerate(tracked.columns) if c.name in tracked.rules]
        before = [f"CASE WHEN {differ[n]} THEN OLD.{c.quoted} END" for n, c in ruled]
        what = [*new_key, *fresh, *before]
        noted = _note(shape, MODIFIED, what, changed=" || ".join(differ))
        condition = f"NOT ({moved}) AND ({' OR '.join(differ)})"
        triggers.append(("modified", "AFTER UPDATE", condition, [noted]))
    return dict(_trigger(tracked, *trigger) for trigger in triggers)


def remembered(tracked: Tracked) -> Sequence[TrackedColumn]:
    """The columns of a deleted row that are noted: of a row that may be needed, and of one that may
    be displaced by itself, which is a modification, with a rule for some of its fields."""
    return tracked.every if _is_remembered(tracked) else tracked.key


def _is_remembered(tracked: Tracked) -> bool:
    """Not told by the columns: a table may have none beside its key."""
    return tracked.buries or bool(tracked.rules)


def present(database: peewee.Database, registry: Registry) -> dict[str, dict[str, str]]:
    """The triggers that are there now, by collection: what made them, by their names. Also those
    on a table that has its former name yet, and those that went with a table which was renamed."""
    found: dict[str, dict[str, str]] = {tracked.collection: {} for tracked in registry}
    names = {former: name for name in found for former in (*registry.names.of_table(name), name)}
    tables = {former.lower(): name for former, name in names.items()}
    made = {_name(former, event): names[former] for former in names for event in EVENTS}
    for name, table, sql, _ in dialect_of(database).triggers(database):
        collection = tables.get(table.lower()) or made.get(name)
        if collection is not None:
            found[collection][name] = sql
    return found


def fingerprint(triggers: Mapping[str, str]) -> str:
    text = "\n".join(triggers[name] for name in sorted(triggers))
    return hashlib.sha256(text.encode()).hexdigest()


# -- parts of the statements -------------------------------------------------------------


def _trigger(
    tracked: Tracked, event: str, timing: str, condition: str, body: Sequence[str]
) -> tuple[str, str]:
    name = _name(tracked.collection, event)
    when = f"{RECORDING} AND ({condition})" if condition else RECORDING
    statements = "".join(f"  {statement};\n" for statement in body)
    head = f"CREATE TRIGGER {quote(name)} {timing} ON {tracked.quoted_name}"
    return name, f"{head}\nWHEN {when}\nBEGIN\n{statements}END"


def _name(collection: str, event: str) -> str:
    return f"sharedlog_{collection}_{event}"


def _held(tracked: Tracked) -> str:
    """Its table, to be read from. Not by its own name: a table may be called `new`."""
    return f"{tracked.quoted_name} AS held"


def _of(row: str, columns: Iterable[str]) -> list[str]:
    return [f"{row}.{column}" for column in columns]


def values(count: int) -> str:
    """The columns of a trace that hold so many values."""
    return ", ".join(f"v{number}" for number in range(count))


def _note(shape: int, operation: int, what: Sequence[str], changed: str = "NULL") -> str:
    return (
        f"INSERT INTO sharedlog_trace (shape, operation, at, changed, {values(len(what))})\n"
        f"  VALUES ({shape}, {operation}, {NOW}, {changed},\n    {', '.join(what)})"
    )


def _stands(tracked: Tracked, shape: int) -> str:
    """A row as it stands under its new key: what is NEW may be old already, because references of
    the row to itself have followed before."""
    is_it = " AND ".join(f"{c.quoted} IS NEW.{c.quoted} COLLATE BINARY" for c in tracked.key)
    return (
        f"INSERT INTO sharedlog_trace (shape, operation, at, {values(len(tracked.every))})\n"
        f"  SELECT {shape}, {CREATED}, {NOW}, {', '.join(c.quoted for c in tracked.every)}\n"
        f"  FROM {_held(tracked)} WHERE {is_it}"
    )


def _differs(column: TrackedColumn, table: Table) -> str:
    """Whether an update changed a column: to the bit, whatever its collation."""
    new, old = f"NEW.{column.quoted}", f"OLD.{column.quoted}"
    differs = f"{new} IS NOT {old} COLLATE BINARY"
    if column.field.column_name in table.loose:
        # 1 and 1.0 are equal, and so are the two zeros: which of them it was nobody can tell.
        kinds = f"typeof({new}) <> typeof({old})"
        return f"({differs} OR {kinds} OR (typeof({new}) = 'real' AND {new} = 0))"
    return f"({differs})"


# -- rows that a REPLACE displaces -------------------------------------------------------


def _in_the_way(tracked: Tracked, shape: int, table: Table) -> tuple[str, list[str]]:
    """Before an insert: keep what is to be noted of rows that share a unique value with it."""
    mine = f"FROM sharedlog_rival WHERE shape = {shape}"
    shared = [
        " AND ".join(
            f"{quote(c)} = NEW.{quote(c)}" + (f" COLLATE {quote(collation)}" if collation else "")
            for c, collation in unique.items()
        )
        for unique in table.uniques
    ]
    looks = [f"EXISTS (SELECT 1 FROM {_held(tracked)} WHERE {each})" for each in shared]
    columns = [column.quoted for column in remembered(tracked)]
    return (
        " OR ".join([f"EXISTS (SELECT 1 {mine})", *looks]),
        [
            f"DELETE {mine}",
            f"INSERT INTO sharedlog_rival (shape, {values(len(columns))})\n"
            f"  SELECT {shape}, {', '.join(columns)} FROM {_held(tracked)}\n"
            f"  WHERE {' OR '.join(f'({each})' for each in shared) or '0'}",
        ],
    )


def _displaced(tracked: Tracked, shape: int, whole: str) -> str:
    """After an insert: note those of them that it took the place of."""
    kept = _of("sharedlog_rival", (f"v{number}" for number in range(len(remembered(tracked)))))
    pairs = list(zip(kept, (column.quoted for column in tracked.key), strict=False))
    same = " AND ".join(f"{v} IS NEW.{c} COLLATE BINARY" for v, c in pairs)
    stands = " AND ".join(f"{c} = {v} AND {c} = {v} COLLATE BINARY" for v, c in pairs)
    return (
        f"INSERT INTO sharedlog_trace (shape, operation, at, changed, {values(len(kept))})\n"
        f"  SELECT {shape}, {DISPLACED}, {NOW}, {whole}, {', '.join(kept)}\n"
        f"  FROM sharedlog_rival\n"
        f"  WHERE sharedlog_rival.shape = {shape} AND (({same})\n"
        f"    OR NOT EXISTS (SELECT 1 FROM {_held(tracked)} WHERE {stands}))"
    )


def _no_rival(shape: int, old_key: Sequence[str]) -> str:
    """With `PRAGMA recursive_triggers` a REPLACE tells: then it is a deletion as any other."""
    same = " AND ".join(f"v{n} IS {part} COLLATE BINARY" for n, part in enumerate(old_key))
    return f"DELETE FROM sharedlog_rival WHERE shape = {shape} AND {same}"
