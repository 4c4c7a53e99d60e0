"""Tables whose keys fold, against the model of what stands in tables (`tests/tablemodel.py`): any
changes come to what it says, in any order, in any pages, and when they are read anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.changes import CREATE, DELETE, MODIFY, Change, encode
from sharedlog.remote.sharedlog import Outgoing
from tests.dictmodel import Write
from tests.tablemodel import CASCADED, CLASHING, ORPHANED, ForeignKey, Table, as_json, standing
from tests.volume import times

from .servers import Server

SETS = times(35)
SETS_ON_MYSQL = times(1)
PARTS = 2

RULES = ("", "RESTRICT", "CASCADE", "SET NULL")
CODES = {"PARENT_DELETED": CASCADED, "UNIQUE": CLASHING, "PARENT_MISSING": ORPHANED}

KEYS: Mapping[str, Sequence[str]] = {"land": "xX", "firm": ("a", "A", "b", "B"), "person": "pP"}
REFERENCES: Mapping[str, Mapping[str, str]] = {
    "land": {},
    "firm": {"land": "land", "owner": "firm"},
    "person": {"firm": "firm", "other": "firm"},
}

Rules = Mapping[tuple[str, str], str]


def any_rules(chance: Random) -> Rules:
    return {(t, name): chance.choice(RULES) for t, some in REFERENCES.items() for name in some}


def small(key: Any) -> Any:
    return key.lower() if isinstance(key, str) else key


def model_of(rules: Rules) -> dict[str, Table]:
    return {
        table: Table(
            ("id",),
            {"note": None, **dict.fromkeys(some)},
            tuple(ForeignKey(n, parent, rules[table, n]) for n, parent in some.items()),
            fold=small,
        )
        for table, some in REFERENCES.items()
    }


def define(rules: Rules, collation: str | None) -> list[Any]:
    def key() -> Any:
        return peewee.CharField(primary_key=True, collation=collation)

    def refers(parent: Any, table: str, name: str) -> Any:
        rule = rules[table, name] or None
        return peewee.ForeignKeyField(parent, null=True, on_delete=rule, backref=f"{table}_{name}")

    class Land(SyncModel):
        id: Any = key()
        note = peewee.TextField(null=True)

        class Meta:
            table_name = "land"

    class Firm(SyncModel):
        id: Any = key()
        note = peewee.TextField(null=True)
        land = refers(Land, "firm", "land")
        owner = refers("self", "firm", "owner")

        class Meta:
            table_name = "firm"

    class Person(SyncModel):
        id: Any = key()
        note = peewee.TextField(null=True)
        firm = refers(Firm, "person", "firm")
        other = refers(Firm, "person", "other")

        class Meta:
            table_name = "person"

    return [Land, Firm, Person]


def any_change(chance: Random) -> Change:
    table = chance.choice(("land", "firm", "firm", "person"))
    operation = chance.choice((CREATE, CREATE, CREATE, MODIFY, DELETE))
    values: dict[str, Any] = {
        name: chance.choice((None, *KEYS[parent])) for name, parent in REFERENCES[table].items()
    }
    values["note"] = chance.choice("nm")
    if operation == MODIFY:
        name = chance.choice(list(values))
        values = {name: values[name]}
    return Change(
        operation, table, chance.choice(KEYS[table]), None if operation == DELETE else values
    )


Holds = tuple[Mapping[tuple[str, str], Any], Mapping[tuple[str, str], str]]
"""What stands, and what is parked."""


def expected(rules: Rules, changes: Sequence[tuple[int, Change]]) -> Holds:
    writes: dict[tuple[str, str], list[Write]] = {}
    for time, change in changes:
        write = Write((time, f"device{time}"), change.operation, change.value)
        writes.setdefault((change.collection, as_json(change.pk)), []).append(write)
    found = standing(model_of(rules), writes)
    return {key: dict(values) for key, values in found.rows.items()}, dict(found.parked)


@contextmanager
def reader(
    rules: Rules,
    order: Sequence[tuple[int, Change]],
    batch_size: int,
    server: Server | None = None,
) -> Iterator[tuple[Sync, list[Any]]]:
    """Of a log with these changes in this order; each was made at its time by somebody else."""
    log = MemorySharedLog()
    for time, change in order:
        device = log.register(None, f"device{time}")
        sent = [Outgoing(time, 0, encode(change))]
        log.write(device, sent, after=None, now_ms=0, limit=1, byte_limit=1)
    database: Any = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
    models = define(rules, "NOCASE" if server is None else None)
    if server is not None:
        database = server.database(server.place())
    database.bind(models)
    database.create_tables(models)
    with closing(database):
        yield Sync(database, models, shared_log=log, batch_size=batch_size).setup(), models


def held(sync: Sync, models: Sequence[Any]) -> Holds:
    sync.sync()
    sync.reconcile()
    rows = {
        (model._meta.table_name, as_json(row["id"])): {n: v for n, v in row.items() if n != "id"}
        for model in models
        for row in model.select().dicts()
    }
    parked = {(row.collection or "", as_json(row.pk)): CODES[row.code] for row in sync.parked()}
    return rows, parked


def check(seed: int, sizes: Sequence[int], server: Server | None = None) -> None:
    chance = Random(seed)
    rules = any_rules(chance)
    changes = list(enumerate((any_change(chance) for _ in range(chance.choice((5, 8, 12)))), 1))
    wanted = expected(rules, changes)
    for batch_size in sizes:
        order = chance.sample(changes, len(changes))
        with reader(rules, order, batch_size, server) as (sync, models):
            assert held(sync, models) == wanted, (seed, rules, order, batch_size)
            sync.reset()
            assert held(sync, models) == wanted, (seed, rules, order, batch_size, "anew")


@pytest.mark.parametrize("part", range(PARTS))
def test_any_changes_come_to_what_the_model_says(part: int) -> None:
    for seed in range(part, SETS, PARTS):
        check(seed, (1000, 1, 2 + seed % 2))


def test_so_they_do_where_mysql_compares(mysql: Server) -> None:
    """By the collation that it has where nobody chooses one."""
    for seed in range(SETS_ON_MYSQL):
        check(seed, (1000, 1 + seed % 3), mysql)
