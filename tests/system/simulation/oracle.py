"""What must be in the tables, worked out from the log alone, by the dictionary model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.dictmodel import Row, Write, row_of

from .models import COLUMNS, PARENTS
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
    parked = {key: values for key, values in alive.items() if key not in standing}
    return Expected(standing, parked, rows, unreadable)


def _with_parents(alive: Mapping[Key, Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """The largest set of rows of known tables in which every row's parents are, too."""
    standing = {key: values for key, values in alive.items() if key[0] in COLUMNS}
    while orphans := [
        key
        for key, values in standing.items()
        if any(parent not in standing for parent in _parents(key, values))
    ]:
        for key in orphans:
            del standing[key]
    return standing


def _parents(key: Key, values: Mapping[str, Any]) -> list[Key]:
    table, pk = key
    names, _ = COLUMNS[table]
    parts = json.loads(pk)
    fields = {**dict(zip(names, parts if len(names) > 1 else [parts], strict=True)), **values}
    return [
        (parent, _json(fields[name]))
        for name, parent in PARENTS.get(table, {}).items()
        if fields.get(name) is not None
    ]


def _change(data: str) -> Any:
    """An entry's change, or None if it is none."""
    try:
        change = json.loads(data)
        if change["operation"] in ("create", "modify", "delete") and change["pk"] is not None:
            return change
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
