"""Tables with odd references: a set of changes comes to the same rows in any order, in any pages,
and when it is read anew.

The orders are such as no fleet makes: whoever changes a row has mostly heard of it. What stands
must follow from the set alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from random import Random
from typing import Any, NamedTuple

import peewee
import pytest

from sharedlog import MemorySharedLog, Sync, SyncModel
from sharedlog.changes import CREATE, DELETE, MODIFY, Change, encode
from sharedlog.remote.sharedlog import Outgoing
from tests.volume import times

SETS = times(40)
PARTS = 2

ACTIONS = ("CASCADE", "RESTRICT", "SET NULL")

KEYS: Mapping[str, str] = {"firm": "pq", "person": "xy", "mention": "vw"}
FIELDS: Mapping[str, Mapping[str, str]] = {
    "firm": {"title": "TU", "boss": "xy"},
    "person": {"firm": "pq", "above": "xy", "nick": "NM"},
    "mention": {"title": "TU"},
}


class Rules(NamedTuple):
    """What the foreign keys of the tables say, and whether changes win over deletions."""

    firm: str
    above: str
    renamed: str
    gone: str
    firms_win: bool


def any_rules(chance: Random) -> Rules:
    one = chance.choice
    return Rules(one(ACTIONS), one(ACTIONS), one(ACTIONS), one(ACTIONS), chance.random() < 0.5)


def define(rules: Rules) -> list[Any]:
    """Firms and people refer to each other, people to people, and mentions to what is no key."""

    class Firm(SyncModel):
        code: Any = peewee.TextField(primary_key=True)
        title = peewee.TextField(null=True, unique=True)
        boss: Any = peewee.DeferredForeignKey(
            "Person",
            null=True,
            on_delete="SET NULL",
            constraints=[
                peewee.SQL(
                    'REFERENCES "person" ("code") ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED'
                )
            ],
        )

        class Meta:
            table_name = "firm"
            update_wins = rules.firms_win

    class Person(SyncModel):
        code: Any = peewee.TextField(primary_key=True)
        firm = peewee.ForeignKeyField(Firm, null=True, on_delete=rules.firm)
        above = peewee.ForeignKeyField("self", null=True, on_delete=rules.above)
        nick = peewee.TextField(null=True, unique=True)

        class Meta:
            table_name = "person"
            update_wins = not rules.firms_win

    class Mention(SyncModel):
        code: Any = peewee.TextField(primary_key=True)
        title = peewee.ForeignKeyField(
            Firm, field="title", null=True, on_update=rules.renamed, on_delete=rules.gone
        )

        class Meta:
            table_name = "mention"

    return [Firm, Person, Mention]


def any_change(chance: Random) -> Change:
    table = chance.choice(list(KEYS))
    operation = chance.choice((CREATE, CREATE, CREATE, MODIFY, MODIFY, DELETE))
    values = {name: chance.choice((None, *some)) for name, some in FIELDS[table].items()}
    if operation == MODIFY:
        name = chance.choice(list(values))
        values = {name: values[name]}
    return Change(
        operation, table, chance.choice(KEYS[table]), None if operation == DELETE else values
    )


class Reader:
    """A device that only reads."""

    def __init__(self, database: Any, models: Sequence[Any], sync: Sync) -> None:
        self._database = database
        self._models = models
        self.sync = sync

    def read(self) -> None:
        self.sync.sync()
        self.sync.reconcile()

    def holds(self) -> tuple[list[Any], list[Any]]:
        """What stands, and what is parked."""
        rows = [sorted(map(repr, model.select().tuples())) for model in self._models]
        return rows, sorted((row.collection, row.pk) for row in self.sync.parked())


@contextmanager
def reader(rules: Rules, order: Sequence[tuple[int, Change]], batch_size: int) -> Iterator[Reader]:
    """Of a log with these changes in this order; each was made at its time by somebody else."""
    log = MemorySharedLog()
    for time, change in order:
        device = log.register(None, f"device{time}")
        sent = [Outgoing(time, 0, encode(change))]
        log.write(device, sent, after=None, now_ms=0, limit=1, byte_limit=1)
    database = peewee.SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
    models = define(rules)
    database.bind(models)
    database.create_tables(models)
    with closing(database):
        sync = Sync(database, models, shared_log=log, batch_size=batch_size).setup()
        yield Reader(database, models, sync)


@pytest.mark.parametrize("part", range(PARTS))
def test_any_order_and_any_pages_come_to_the_same(part: int) -> None:
    for seed in range(part, SETS, PARTS):
        chance = Random(seed)
        rules = any_rules(chance)
        changes = list(enumerate((any_change(chance) for _ in range(chance.choice((5, 7, 9)))), 1))
        with reader(rules, changes, 1000) as first:
            first.read()
            wanted = first.holds()
        for batch_size in (1, chance.choice((2, 3))):
            order = chance.sample(changes, len(changes))
            with reader(rules, order, batch_size) as other:
                other.read()
                assert other.holds() == wanted, (seed, rules, order, batch_size)
                other.sync.reset()
                other.read()
                assert other.holds() == wanted, (seed, rules, order, batch_size, "anew")
