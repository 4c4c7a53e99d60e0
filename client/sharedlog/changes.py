"""Changes and entries as values, and their JSON. No database, no network.

A *change* is what happened to a row; an *entry* is a change on its way: who made it, when,
in which local transaction, with the change as opaque text.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import orjson

from .clock import Version
from .errors import EntryUnreadable

CREATE, MODIFY, DELETE = "create", "modify", "delete"
OPERATIONS = frozenset((CREATE, MODIFY, DELETE))

TICKS_END = 2**63
"""Timestamps are whole numbers from 0 to here, which databases have a type for."""

FIRST_SCHEMA = 1
"""The schema version of programs that name none; their changes do not name it either."""

Wire: TypeAlias = Any
"""A JSON value: what a field's value becomes on its way (see `fields`)."""


def canonical(wire: Wire) -> Wire:
    """What a JSON value means, written in one way: 100 for 1e2, and keys in order. Databases that
    keep JSON for what it means write it in their own way."""
    kind = type(wire)
    if kind is float:
        whole = Decimal(repr(wire)) if wire.is_integer() else None
        return int(whole) if whole is not None and -(2**63) <= whole < 2**63 else wire
    if kind is dict:
        return {name: canonical(wire[name]) for name in sorted(wire)}
    return [canonical(item) for item in wire] if kind is list else wire


class Change(NamedTuple):
    """One operation on one row. `value` has all fields for a creation, the changed ones for a
    modification, and is None for a deletion. `pk` is what stands for the key's value (usually
    a scalar), or a list if composite. `rules` names the merge rule of each field in `value` that
    has one; what stands there for the field is then a word of that rule. `schema` is the schema
    version of the program that wrote it: what its names and values mean (see `evolution`).
    `recorded` is the timestamp that it was recorded with, if its entry has another one."""

    operation: str
    collection: str
    pk: Wire
    value: Mapping[str, Wire] | None
    rules: Mapping[str, str] | None = None
    schema: int = FIRST_SCHEMA
    recorded: int | None = None


class Entry(NamedTuple):
    """One immutable item of a log, identified by (device, ticks).

    `offset` is the distance in ticks to the first entry of the same local transaction:
    entries of one device with equal `ticks - offset` are one group.
    """

    device: str
    ticks: int
    offset: int
    data: str

    @property
    def version(self) -> Version:
        return Version(self.ticks, self.device)

    @property
    def group(self) -> tuple[str, int]:
        """The local transaction that it belongs to."""
        return self.device, self.ticks - self.offset


def dumps(value: Wire) -> str:
    """Canonical JSON text. Raises TypeError for what JSON cannot hold (lone surrogates too)."""
    return orjson.dumps(value).decode()


def loads(text: str) -> Wire:
    return orjson.loads(text)


def beginning(operation: str, collection: str) -> str:
    """What the data of an entry begin with: the same for all changes of a kind."""
    return f'{{"operation":"{operation}","collection":{dumps(collection)},"pk":'


def assemble(
    beginning: str,
    pk_json: str,
    value_json: str | None,
    rules_json: str | None = None,
    schema: int = FIRST_SCHEMA,
    recorded: int | None = None,
    *,
    final: bool = False,
) -> str:
    """The data of an entry, from its beginning and parts that are JSON already. `final` says of a
    deletion that nobody may need the row any more, so that the log can forget it in time."""
    rules = f',"rules":{rules_json}' if rules_json else ""
    end = "}" if schema == FIRST_SCHEMA else f',"schema":{schema}}}'
    if recorded is not None:
        end = f',"recorded":{recorded}{end}'
    last = ',"final":true' if final else ""
    return f'{beginning}{pk_json},"field":null,"value":{value_json or "null"}{rules}{last}{end}'


def encode(change: Change) -> str:
    """The change as JSON text."""
    value = None if change.value is None else dumps(dict(change.value))
    rules = dumps(dict(change.rules)) if change.rules else None
    pk = dumps(change.pk)
    start = beginning(change.operation, change.collection)
    return assemble(start, pk, value, rules, change.schema, change.recorded)


def decode(data: str) -> Change:
    """The change in an entry's data. Raises `EntryUnreadable`, never anything else.

    Members that this version does not know are ignored, so that later versions may add some.
    """
    try:
        raw = orjson.loads(data)
    except ValueError as error:
        raise EntryUnreadable(f"The data is not JSON: {error}.") from None
    if type(raw) is not dict:
        raise EntryUnreadable("The data is not a JSON object.")
    operation, collection = raw.get("operation"), raw.get("collection")
    pk, value = raw.get("pk"), raw.get("value")
    if type(operation) is not str or operation not in OPERATIONS:
        raise EntryUnreadable(f"Unknown operation {operation!r}.")
    if type(collection) is not str or not collection:
        raise EntryUnreadable("The collection is not a name.")
    if pk is None:
        raise EntryUnreadable("There is no pk.")
    if (type(value) is not dict) if operation != DELETE else (value is not None):
        raise EntryUnreadable(f"A {operation} with value {type(value).__name__}.")
    field = raw.get("field")
    if field is not None and (value is None or list(value) != [field]):
        # The proof of concept could name the one field that changed.
        raise EntryUnreadable("A change of one field must hold exactly that field in its value.")
    rules = raw.get("rules")
    if rules is not None:
        _check_rules(rules, value)
    schema = raw.get("schema", FIRST_SCHEMA)
    if type(schema) is not int or schema < FIRST_SCHEMA:
        raise EntryUnreadable(f"The schema version is {schema!r:.100}.")
    recorded = raw.get("recorded")
    if recorded is not None and (type(recorded) is not int or not 0 <= recorded < TICKS_END):
        raise EntryUnreadable(f"It was recorded at {recorded!r:.100}.")
    # A fast Change(…):
    return tuple.__new__(Change, (operation, collection, pk, value, rules, schema, recorded))


def _check_rules(rules: Wire, value: Mapping[str, Wire] | None) -> None:
    if type(rules) is not dict or any(type(name) is not str for name in rules.values()):
        raise EntryUnreadable("The rules are not names by field.")
    if not rules.keys() <= (value or {}).keys():
        raise EntryUnreadable("There are rules of fields that are not in the value.")
