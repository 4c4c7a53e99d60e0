"""Every way to write, and exactly what is recorded of it.

Each case runs on a tracked device and on an untracked twin. The recorder must change nothing:
same result for the caller, same rows in the tables; and the client log must say everything:
exactly the expected changes, and played back from its beginning it gives the tables.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import peewee
import pytest
from peewee import CharField, IntegerField, TextField

from .conftest import OpenDevice
from .devices import Device, Models, with_through_models
from .shop import MODELS, NUMBERS
from .writes import CASES, Case

CHEAP = ("PRAGMA", "SAVEPOINT", "RELEASE", "UPDATE sharedlog_clock", "SELECT lead_ms")
"""Statements that are not counted: they read and write no rows."""

MODES: Mapping[str, Mapping[str, Any]] = {
    "autocommit": {},
    "atomic": {},
    "returning_clause": {"returning_clause": True},
    "proxy": {"proxy": True},
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def comparable(result: Any) -> Any:
    """A result of Peewee, so that two of them can be compared."""
    if isinstance(result, peewee.Model):
        return type(result).__name__, result.__data__
    if isinstance(result, tuple | list):
        return type(result), [comparable(item) for item in result]
    if isinstance(result, peewee.CursorWrapper | peewee.Query):
        return "rows", [comparable(item) for item in result]
    return type(result), result


def plain_value(field: peewee.Field, value: Any) -> Any:
    """What an entry should say for a value in a table of the shop: written for these fields."""
    if isinstance(field, peewee.ForeignKeyField):
        field = field.rel_field
    if value is None or isinstance(field, CharField | TextField | IntegerField):
        return value
    if isinstance(field, peewee.UUIDField):
        return str(uuid.UUID(value))
    assert isinstance(field, peewee.JSONField)
    return json.loads(value)


def in_tables(device: Device, models: Models) -> dict[tuple[str, str], dict[str, Any]]:
    """Every row: (table, key) -> values by field name."""
    found = {}
    for model in with_through_models(models):
        meta = model._meta
        fields = [f for f in meta.sorted_fields if not isinstance(f, peewee.AutoField)]
        names = ", ".join(f'"{field.column_name}"' for field in fields)
        keys = meta.get_primary_keys()
        if isinstance(keys[0], peewee.AutoField):
            keys = fields
        for row in device.database.execute_sql(f'SELECT {names} FROM "{meta.table_name}"'):
            values = {f.name: plain_value(f, v) for f, v in zip(fields, row, strict=True)}
            pk = [values.pop(field.name) for field in keys]
            found[meta.table_name, json.dumps(pk[0] if len(pk) == 1 else pk)] = values
    return found


def played_back(device: Device) -> dict[tuple[str, str], dict[str, Any]]:
    """What the client log makes of no rows at all."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in device.log():
        row = entry.collection, json.dumps(entry.pk)
        if entry.operation == "create":
            rows[row] = dict(entry.value)
        elif entry.operation == "modify":
            assert set(entry.value) <= set(rows[row])
            rows[row].update(entry.value)
        else:
            del rows[row]
    return rows


def in_mode(device: Device, mode: str) -> AbstractContextManager[Any]:
    return device.database.atomic() if mode == "atomic" else nullcontext()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_what_is_recorded(case: Case, mode: str, recorder: str, open_device: OpenDevice) -> None:
    options = MODES[mode]
    results = []
    statements: list[str] = []
    twin = open_device(MODELS, tracked=False, **options)
    device = open_device(MODELS, recorder=recorder, **options)
    for each in (twin, device):
        NUMBERS.restart()
        with each:
            case.before()
            before = len(device.log())
            with in_mode(each, mode):
                each.database.query_hooks.append(lambda event: statements.append(event.sql))
                results.append(comparable(case.run()))
                each.database.query_hooks.clear()
        if each is twin:
            statements.clear()
    statements = [sql for sql in statements if not sql.startswith(CHEAP)]

    assert results[1] == results[0]
    assert device.stored() == twin.stored()
    changes = [entry.change for entry in device.log()[before:]]
    assert sorted(changes, key=repr) == sorted(case.expected_by(recorder), key=repr)
    assert played_back(device) == in_tables(device, MODELS)
    assert len(statements) <= case.statements, "\n".join(statements)


def test_the_cases_have_names_of_their_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
