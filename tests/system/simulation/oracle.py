"""What must be in the tables, worked out from the log alone, by the dictionary models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tests.dictmodel import Row, Write, row_of
from tests.tablemodel import Key, Standing, Table, as_json, standing

from . import switches
from .service import Logged


@dataclass(frozen=True)
class Expected:
    """What every device must hold: rows in tables, rows that wait, and what is known of all."""

    standing: Mapping[Key, Mapping[str, Any]]
    parked: Mapping[Key, str]
    kept: frozenset[Key]
    rows: Mapping[Key, Row]
    unreadable: int


class Reading(NamedTuple):
    """What an entry says: of which row, what, and by which rules it is to be merged."""

    key: Key
    write: Write
    rules: Mapping[str, str]


def _declared(table: Table | None, rules: Mapping[str, str]) -> bool:
    """Whether a program with this table knows these rules."""
    known = {} if table is None else table.rules
    return all(known.get(name) == rule for name, rule in rules.items())


class Oracle:
    """Works out what sets of entries come to, in whatever order. Remembers what it knows of entries
    and rows, because the next set is often the same with some more."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, int, str], Reading | None] = {}
        self._merged: dict[Key, tuple[list[Write], Row]] = {}

    def expected(self, tables: Mapping[str, Table], log: Iterable[Logged]) -> Expected:
        """What must be in these tables."""
        writes: dict[Key, list[Write]] = {}
        unreadable = 0
        for entry in log:
            read = self._reading(entry)
            if read is None or not _declared(tables.get(read.key[0]), read.rules):
                unreadable += 1
            else:
                writes.setdefault(read.key, []).append(read.write)
        rows = {key: self._row(key, some) for key, some in writes.items()}
        found = standing(tables, writes, rows) if switches.PLACEMENT else _older(tables, writes)
        return Expected(found.rows, found.parked, found.kept, rows, unreadable)

    def _reading(self, entry: Logged) -> Reading | None:
        identity = (entry.device, entry.ticks, entry.data)
        if identity not in self._read:
            change, read = _change(entry.data), None
            if change is not None:
                key = (change["collection"], as_json(change["pk"]))
                stamp = (entry.ticks, entry.device)
                rules = change.get("rules") or {}
                write = Write(stamp, change["operation"], change["value"], frozenset(rules))
                read = Reading(key, write, rules)
            self._read[identity] = read
        return self._read[identity]

    def _row(self, key: Key, writes: list[Write]) -> Row:
        known = self._merged.get(key)
        if known is None or known[0] != writes:
            known = self._merged[key] = writes, row_of(writes)
        return known[1]


def _older(tables: Mapping[str, Table], writes: Mapping[Key, Sequence[Write]]) -> Standing:
    """The rule before: dead rows are as rows that never were, and nothing is unique."""
    alive = {key: some for key, some in writes.items() if row_of(some).alive}
    return standing({name: replace(table, unique=()) for name, table in tables.items()}, alive)


def expected(tables: Mapping[str, Table], log: Iterable[Logged]) -> Expected:
    """What one set of entries comes to."""
    return Oracle().expected(tables, log)


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
