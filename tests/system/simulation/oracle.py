"""What must be in the tables, worked out from the log alone, by the dictionary model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.dictmodel import Row, Write, row_of

from .models import TABLES
from .service import Logged

Key = tuple[str, str]
"""A row: its table, and its pk as JSON."""


@dataclass(frozen=True)
class Expected:
    """What every device must hold: rows in tables, rows that wait, and what is known of all."""

    standing: Mapping[Key, Mapping[str, Any]]
    parked: Mapping[Key, Mapping[str, Any]]
    rows: Mapping[Key, Row]
    unreadable: int


def expected(log: Iterable[Logged]) -> Expected:
    """What a set of entries comes to, in whatever order."""
    writes: dict[Key, list[Write]] = {}
    unreadable = 0
    for entry in log:
        change = _change(entry.data)
        if change is None:
            unreadable += 1
            continue
        key = (change["collection"], _json(change["pk"]))
        write = Write((entry.ticks, entry.device), change["operation"], change["value"])
        writes.setdefault(key, []).append(write)
    rows = {key: row_of(some) for key, some in writes.items()}
    alive = {key: row.values for key, row in rows.items() if row.alive}
    standing = _with_parents(alive)
    tables = {key: _columns(key, values) for key, values in standing.items()}
    parked = {key: values for key, values in alive.items() if key not in standing}
    return Expected(tables, parked, rows, unreadable)


def _columns(key: Key, values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the columns: values of fields that nobody wrote are the defaults."""
    return {name: values.get(name, default) for name, default in TABLES[key[0]].fields.items()}


def _with_parents(alive: Mapping[Key, Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """The largest set of rows that fit known tables in which every row's parents are, too."""
    standing = {key: values for key, values in alive.items() if _fits(key)}
    while orphans := [
        key
        for key, values in standing.items()
        if any(parent not in standing for parent in _parents(key, values))
    ]:
        for key in orphans:
            del standing[key]
    return standing


def _fits(key: Key) -> bool:
    """Whether there is such a table, and this can be a key of it."""
    name, pk = key
    if name in ("folder", "note"):
        try:
            return bool(str(uuid.UUID(json.loads(pk))) == json.loads(pk))
        except (ValueError, AttributeError):
            return False
    return name in TABLES


def _parents(key: Key, values: Mapping[str, Any]) -> list[Key]:
    table, pk = TABLES[key[0]], json.loads(key[1])
    parts = zip(table.key, pk if len(table.key) > 1 else [pk], strict=True)
    fields = {**dict(parts), **values}
    return [
        (parent, _json(fields[name]))
        for name, parent in table.parents.items()
        if fields.get(name) is not None
    ]


def _change(data: str) -> Any:
    """An entry's change, or None if it is none."""
    try:
        change = json.loads(data)
        operation, value = change["operation"], change["value"]
        if operation not in ("create", "modify", "delete") or change["pk"] is None:
            return None
        fitting = value is None if operation == "delete" else isinstance(value, dict)
        return change if fitting and change["collection"] else None
    except (ValueError, KeyError, TypeError):
        return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
