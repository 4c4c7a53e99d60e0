"""Every way to write, and exactly what is recorded of it.

Each case runs on a tracked device and on an untracked twin. The recorder must change nothing:
same result for the caller, same rows in the tables; and the client log must say everything:
exactly the expected changes, and played back from its beginning it gives the tables.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import peewee
import pytest
from peewee import CharField, IntegerField, TextField

from sharedlog import MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import RECORDERS, Device, Models, tables, with_through_models
from .servers import Server
from .shop import MODELS, NUMBERS
from .writes import CASES, Case

CHEAP = (
    *("PRAGMA", "SAVEPOINT", "RELEASE", "UPDATE sharedlog_clock", "SELECT lead_ms"),
    "SELECT value = ",  # by what a column compares, asked for once
)
"""Statements that are not counted: they read and write no rows."""

MODES: Mapping[str, Mapping[str, Any]] = {
    "autocommit": {},
    "atomic": {},
    "returning_clause": {"returning_clause": True},
    "proxy": {"proxy": True},
}


WAYS = [
    *(("sqlite", recorder, mode) for recorder in RECORDERS for mode in MODES),
    ("postgres", "signals", "autocommit"),
    ("postgres", "triggers", "autocommit"),
    ("mysql", "signals", "autocommit"),
]
"""Where is recorded, by what, and how."""

LOG: Mapping[str, Sequence[str]] = {
    "signals": ("sharedlog_entry",),
    "triggers": ("sharedlog_entry", "sharedlog_trace"),
}
"""Where a recorder puts what it sees."""

NOT_THERE: Mapping[str, Sequence[str]] = {
    "sqlite": (),
    "postgres": (
        "replace_nothing",
        "replace_the_same_key",
        "replace_displaces_a_row",
        "replace_displaces_several_rows_by_several_indexes",
        "replace_deletes_the_children_of_the_row",
        "replace_many_that_displace_each_other",
        "replace_many",
        "replace_from_a_select",
        "upsert_many_onto_itself",
    ),
    "mysql": (
        "update_from_another_table",
        "update_with_a_common_table_expression",
        "update_one_row_that_is_not_there_with_a_common_table_expression",
        "update_returning",
        "update_one_row_returning_an_instance",
        "delete_by_a_common_table_expression",
        "upsert_with_what_was_offered",
        "upsert_where_false",
        "do_nothing_on_a_conflict",
    ),
}
"""What a database does not know, by the names of cases."""


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
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))
    assert isinstance(field, peewee.JSONField)
    return json.loads(value) if isinstance(value, str) else value


def in_tables(device: Device, models: Models) -> dict[tuple[str, str], dict[str, Any]]:
    """Every row: (table, key) -> values by field name."""
    found = {}
    for model in with_through_models(models):
        meta = model._meta
        fields = [f for f in meta.sorted_fields if not isinstance(f, peewee.AutoField)]
        opening, closing = device.database.quote
        names = ", ".join(f"{opening}{field.column_name}{closing}" for field in fields)
        keys = meta.get_primary_keys()
        if isinstance(keys[0], peewee.AutoField):
            keys = fields
        for row in device.database.execute_sql(f"SELECT {names} FROM {meta.table_name}"):
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


def outcome(case: Case) -> Any:
    """What comes of it: the result, or the error that says that there is no such thing."""
    try:
        return comparable(case.run())
    except (ValueError, peewee.DatabaseError) as error:
        return type(error)


Twins = Callable[[str, str, str], tuple[Device, Device]]


@pytest.fixture(scope="module")
def twins_on_servers(request: pytest.FixtureRequest) -> Iterator[Twins]:
    """Two devices for each way. To open them takes longer than what they do, so they are opened
    once, and emptied."""
    opened: dict[tuple[str, str], tuple[Device, Device]] = {}

    def opening(where: str, recorder: str, mode: str) -> tuple[Device, Device]:
        server: Server = request.getfixturevalue(where)
        if (where, recorder) not in opened:
            databases = [server.database(server.place()) for _ in range(2)]
            opened[where, recorder] = (
                Device(Path("twin"), MODELS, tracked=False, database=databases[0]),
                Device(Path("device"), MODELS, recorder=recorder, database=databases[1]),
            )
        twin, device = opened[where, recorder]
        server.empty_tables(twin.database, tables(MODELS))
        server.empty_tables(device.database, [*tables(MODELS), *LOG[recorder]])
        return twin, device

    yield opening
    for pair in opened.values():
        for device in pair:
            device.close()


@pytest.fixture
def twins(open_device: OpenDevice, request: pytest.FixtureRequest) -> Twins:
    """An untracked device and a tracked one."""

    def opening(where: str, recorder: str, mode: str) -> tuple[Device, Device]:
        if where != "sqlite":
            on_servers: Twins = request.getfixturevalue("twins_on_servers")
            return on_servers(where, recorder, mode)
        options = MODES[mode]
        twin = open_device(MODELS, tracked=False, **options)
        return twin, open_device(MODELS, recorder=recorder, **options)

    return opening


@pytest.mark.parametrize(("where", "recorder", "mode"), WAYS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_what_is_recorded(case: Case, where: str, recorder: str, mode: str, twins: Twins) -> None:
    results = []
    statements: list[str] = []
    twin, device = twins(where, recorder, mode)
    for each in (twin, device):
        NUMBERS.restart()
        with each:
            case.before()
            before = len(device.log())
            with in_mode(each, mode):
                each.database.query_hooks.append(lambda event: statements.append(event.sql))
                results.append(outcome(case))
                each.database.query_hooks.clear()
        if each is twin:
            statements.clear()
    statements = [sql for sql in statements if not sql.startswith(CHEAP)]

    assert results[1] == results[0]
    assert device.stored() == twin.stored()
    there = case.name not in NOT_THERE[where]
    assert isinstance(results[0], type) is not there
    changes = [entry.change for entry in device.log()[before:]]
    expected = case.expected_by(recorder, where) if there else ()
    assert sorted(changes, key=repr) == sorted(expected, key=repr)
    assert played_back(device) == in_tables(device, MODELS)
    if where == "sqlite":
        assert len(statements) <= case.statements, "\n".join(statements)


def test_the_cases_have_names_of_their_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


# -- keys that their columns turn into another type ----------------------------------------


class SkuField(CharField):
    """Leaves an integer alone; the column makes a text of it."""

    def db_value(self, value: Any) -> Any:
        return value


class Article(SyncModel):
    key = SkuField(primary_key=True)
    number = IntegerField(default=0, unique=True)
    weight = IntegerField(default=0)


class Box(SyncModel):
    code = CharField(primary_key=True)
    article = peewee.ForeignKeyField(Article, null=True, on_delete="CASCADE")


def upsert(by: Any, **values: Any) -> None:
    query = Article.insert(**values)
    query.on_conflict(conflict_target=[by], preserve=[Article.weight]).execute()


def create_one() -> None:
    Article.create(key=12)


def create_many() -> None:
    Article.insert_many([(12, 1), ("b", 2)], [Article.key, Article.number]).execute()


def upsert_one() -> None:
    upsert(Article.key, key=12, weight=1)
    upsert(Article.key, key=12, weight=2)


def upsert_by_another_unique_value() -> None:
    Article.create(key=12, number=1)
    upsert(Article.number, key=13, number=1, weight=7)
    upsert(Article.number, key=14, number=2, weight=7)


def update_and_delete_by_the_key() -> None:
    Article.create(key=12)
    Article.update(weight=3).where(Article.key == 12).execute()
    article = Article.get()
    article.weight = 5
    article.save()
    Article.create(key=13, number=13)
    Article.delete_by_id(13)


def refer_to_it() -> None:
    Article.create(key=12)
    Box.create(code="created", article=12)
    Box.create(code="updated")
    Box.update(article=12).where(Box.code == "updated").execute()


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize(
    "write",
    [
        create_one,
        create_many,
        upsert_one,
        upsert_by_another_unique_value,
        update_and_delete_by_the_key,
        refer_to_it,
    ],
)
def test_a_key_is_recorded_as_it_stands(
    open_device: OpenDevice, write: Callable[[], None], recorder: str
) -> None:
    log = MemorySharedLog()
    one, two = (open_device([Article, Box], recorder=recorder, shared_log=log) for _ in range(2))
    with one:
        write()
        created = {e.pk for e in one.log() if e.operation == "create"}
        assert {e.pk for e in one.log() if e.collection == "article"} <= created
        assert {type(pk) for pk in created} == {str}
        one.sync.sync()
        assert one.sync.verify().equal
    with two:
        two.sync.sync()
        assert two.sync.verify().equal
    assert {t: sorted(rows) for t, rows in one.stored().items()} == {
        t: sorted(rows) for t, rows in two.stored().items()
    }
