"""What stands in the tables, for models of any shape: docs/protocol.md, compared with a model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import peewee
import pytest
from hypothesis import given, settings, strategies as st

from sharedlog import Entry, SyncModel
from sharedlog.changes import decode, dumps

from ..dictmodel import Write
from ..tablemodel import ForeignKey, Standing, Table, standing
from .test_apply import Replica, delivered, entry

NAMES = ("a", "b", "c")
KEYS = ("p", "q", "r")
WORDS = ("s", "t", None)
RULES = (None, "RESTRICT", "CASCADE", "SET NULL")


class Shape:
    """Three tables with foreign keys and unique constraints, drawn by chance."""

    def __init__(self, chance: random.Random) -> None:
        self.tables: dict[str, Table] = {}
        for name in NAMES:
            references = tuple(
                ForeignKey(f"f{n}", chance.choice(NAMES), chance.choice(RULES) or "")
                for n in range(chance.choice((0, 1, 1, 2)))
            )
            required = {fk.column for fk in references if chance.random() < 0.3}
            unique = chance.choice(((), (("u",),), (("u", "w"),), (("u",), ("w",))))
            if references and chance.random() < 0.3:
                unique = (*unique, ("f0",))
            columns = dict.fromkeys(("u", "w", *(fk.column for fk in references)))
            self.tables[name] = Table(
                ("key",),
                columns,
                references,
                unique,
                frozenset(required),
                update_wins=chance.random() < 0.4,
            )

    def models(self) -> dict[str, type[peewee.Model]]:
        made: dict[str, type[peewee.Model]] = {}
        for name, table in self.tables.items():
            fields: dict[str, Any] = {
                "key": peewee.CharField(primary_key=True),
                "u": peewee.CharField(null=True),
                "w": peewee.CharField(null=True),
            }
            for fk in table.foreign_keys:
                options: Any = {
                    "null": fk.column not in table.required,
                    "on_delete": fk.on_delete or None,
                    "backref": "+",
                }
                if fk.parent == name:
                    fields[fk.column] = peewee.ForeignKeyField("self", **options)
                elif fk.parent in made:
                    fields[fk.column] = peewee.ForeignKeyField(made[fk.parent], **options)
                else:
                    fields[fk.column] = peewee.DeferredForeignKey(fk.parent.upper(), **options)
            indexes = tuple((names, True) for names in table.unique)
            options = {"indexes": indexes, "update_wins": table.update_wins}
            meta = type("Meta", (), {"table_name": name, **options})
            made[name] = type(name.upper(), (SyncModel,), {**fields, "Meta": meta})
        return made

    def create(self, database: peewee.Database) -> None:
        """By hand: Peewee makes no constraint for a deferred foreign key."""
        for name, table in self.tables.items():
            parts = ["key TEXT NOT NULL PRIMARY KEY", "u TEXT", "w TEXT"]
            for fk in table.foreign_keys:
                null = " NOT NULL" if fk.column in table.required else ""
                rule = f" ON DELETE {fk.on_delete}" if fk.on_delete else ""
                parts.append(f"{fk.column}_id TEXT{null} REFERENCES {fk.parent} (key){rule}")
            column = {fk.column: f"{fk.column}_id" for fk in table.foreign_keys}
            for names in table.unique:
                parts.append(f"UNIQUE ({', '.join(column.get(n, n) for n in names)})")
            database.execute_sql(f"CREATE TABLE {name} ({', '.join(parts)})")

    def replica(self) -> Replica:
        return Replica(":memory:", self.models(), create=self.create)

    def entries(self, chance: random.Random, count: int) -> list[Entry]:
        entries = []
        stamps = [(tick, device) for tick in range(1, 15) for device in "xyz"]
        for stamp in chance.sample(stamps, count):
            name = chance.choice(NAMES)
            operation = chance.choice(("create", "create", "create", "modify", "delete", "delete"))
            values: Any = None
            if operation != "delete":
                values = {"u": chance.choice(WORDS), "w": chance.choice(WORDS)}
                for fk in self.tables[name].foreign_keys:
                    values[fk.column] = chance.choice((None, *KEYS))
            if operation == "modify":
                values = {n: v for n, v in values.items() if chance.random() < 0.5}
            entries.append(entry(name, chance.choice(KEYS), Write(stamp, operation, values)))
        return entries

    def wanted(self, entries: Sequence[Entry]) -> Standing:
        writes: dict[tuple[str, str], list[Write]] = {}
        for item in entries:
            change = decode(item.data)
            write = Write((item.ticks, item.device), change.operation, change.value)
            writes.setdefault((change.collection, dumps(change.pk)), []).append(write)
        return standing(self.tables, writes)


def check(replica: Replica, wanted: Standing) -> None:
    found = {
        (tracked.collection, pk): row
        for tracked in replica.registry
        for pk, row in replica.table(tracked.collection).items()
    }
    assert found == wanted.rows
    assert set(replica.parked()) == set(wanted.parked)
    replica.check_foreign_keys()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 16))
def test_models_of_any_shape_end_as_the_model_says(seed: int, count: int) -> None:
    run(seed, count)


def run(seed: int, count: int) -> None:
    chance = random.Random(seed)
    shape = Shape(chance)
    entries = shape.entries(chance, count)
    wanted = shape.wanted(entries)
    for _ in range(3):
        replica = shape.replica()
        delivered(replica, entries, chance)
        check(replica, wanted)
        replica.close()


@pytest.mark.parametrize("seed", range(100))
def test_seeds(seed: int) -> None:
    run(seed, 4 + seed % 20)
