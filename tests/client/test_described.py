"""Models made from what a file tells are like the application's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, NotSetUp, SyncModel, ValueRefused
from sharedlog.care.described import application, describe, models_of
from sharedlog.exchange.pipeline import Pipeline
from sharedlog.models.registry import Registry
from sharedlog.tables.digest import take_digest
from sharedlog.tables.versions import Versions

from . import shop
from .conftest import OpenDevice
from .devices import Device
from .kinds import KINDS, STORED, Kind


class Upper(peewee.TextField):
    """A class of the application's own."""

    def db_value(self, value: Any) -> Any:
        return value.upper()


class Odd(SyncModel):
    own = Upper(default="x")
    price = peewee.DecimalField(default=Decimal("1.5"))
    text = peewee.TextField(default="é", column_name="words")
    data = peewee.JSONField(default={"raw": 1}, null=True)
    loose = peewee.JSONField(dumps=lambda value: json.dumps(value, indent=1), null=True)
    many = peewee.IntegerField(default=7)
    when = peewee.DateTimeField(default=None, null=True)


class Head(SyncModel):
    code = peewee.CharField(primary_key=True)


class Body(SyncModel):
    """A key that is a reference, and a reference to itself."""

    head = peewee.ForeignKeyField(
        Head, primary_key=True, on_delete="SET DEFAULT", on_update="CASCADE"
    )
    twin = peewee.ForeignKeyField("self", null=True, default="none", on_delete="SET DEFAULT")

    class Meta:
        update_wins = True


class Tail(SyncModel):
    body = peewee.ForeignKeyField(Body)


class Left(SyncModel):
    right: Any = peewee.DeferredForeignKey("Right", null=True)


class Right(SyncModel):
    left = peewee.ForeignKeyField(Left, null=True)


def notes(device: Device) -> dict[str, Any]:
    found = device.database.execute_sql(
        "SELECT key, value FROM sharedlog_state WHERE key LIKE 'table %'"
    )
    return {key: json.loads(value) for key, value in found}


@pytest.mark.parametrize(
    "models",
    [shop.MODELS, (Odd,), (Head, Body, Tail), (Tail, Body, Head), (Left, Right), (Body, Tail)],
    ids=lambda models: models[0].__name__,
)
@pytest.mark.filterwarnings("ignore:Body.head refers to Head, which is not given")
@pytest.mark.filterwarnings("ignore:Left.right refers to Right, but its table does not")
def test_models_made_from_a_file_are_described_the_same(
    open_device: OpenDevice, models: Any
) -> None:
    device = open_device(models)
    before = notes(device)
    assert len(before) >= len(models)
    made = models_of(device.sync.journal)
    with device.sync.journal.transaction():
        describe(device.sync.journal, Registry(device.database, made), Pipeline())
    after = notes(device)
    for note in (*before.values(), *after.values()):
        note["fields"] = dict(sorted(note["fields"].items()))
    assert after == before


def test_digests_of_both_are_the_same(open_device: OpenDevice) -> None:
    device = open_device([Odd, *shop.MODELS])
    shop.NUMBERS.restart()
    with device:
        Odd.create(own="abc", loose=[1], data={"raw": 2})
        Odd.create()
        tag = shop.Tag.create(name="red")
        note = shop.Note.create(title="a", tag=tag, data={"b": [1.5, None]})
        note.tags.add(tag)
        shop.Article.create(code="x", shelf=1, place=1, barcode="777")
        shop.Price.create(article="x", currency="EUR", cents=5)
    journal = device.sync.journal
    registry = Registry(device.database, models_of(journal))
    digest = take_digest(registry, journal, Versions(journal))
    assert digest == device.sync.digest()
    assert sum(found.rows for found in digest.collections.values()) == 7


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_field_is_read_alike(open_device: OpenDevice, kind: Kind) -> None:
    class Thing(SyncModel):
        value = kind.field(null=True)

    device = open_device([Thing])
    made = Registry(device.database, models_of(device.sync.journal)).collection("thing")
    real = device.sync.registry.collection("thing")
    assert made is not None and real is not None
    for expression in STORED:
        stored = device.database.execute_sql(f"SELECT {expression}").fetchone()[0]
        wires = [tracked.by_name["value"].wire_of_stored for tracked in (made, real)]
        assert len({outcome(wire, stored) for wire in wires}) == 1, expression
    with device:
        Thing.insert_many([{"value": value} for value in kind.values]).execute()
        rows = device.database.execute_sql("SELECT value FROM thing").fetchall()
    for (stored,) in rows:
        texts = [tracked.by_name["value"].wire_of_stored(stored) for tracked in (made, real)]
        assert json.dumps(texts[0]) == json.dumps(texts[1])


def outcome(convert: Callable[[Any], Any], value: Any) -> str:
    try:
        return json.dumps(convert(value))
    except ValueRefused as refused:
        return refused.message.partition(":")[2]


def test_what_a_file_says_of_the_application(open_device: OpenDevice) -> None:
    device = open_device([Head])
    said = {"foreign_keys": True, "serializer": False, "processors": False}
    assert application(device.sync.journal) == {**said, "schema": 1, "upgraders": False}


def test_what_is_noted_follows_the_program(open_device: OpenDevice) -> None:
    class Old(SyncModel):
        code = peewee.CharField(primary_key=True)

        class Meta:
            table_name = "head"

    class New(Old):
        more = peewee.TextField(default="")

        class Meta:
            table_name = "head"

    log = MemorySharedLog()
    old = open_device([Old], name="a", shared_log=log)
    assert list(notes(old)["table head"]["fields"]) == ["code"]
    old.database.execute_sql("ALTER TABLE head ADD COLUMN more TEXT")
    new = open_device([New], name="a", shared_log=log, create=False)
    assert list(notes(new)["table head"]["fields"]) == ["code", "more"]
    changes = new.database.connection().total_changes
    open_device([New], name="a", shared_log=log, create=False)
    assert new.database.connection().total_changes == changes


def test_a_file_that_says_nothing(open_device: OpenDevice) -> None:
    device = open_device([Head])
    device.database.execute_sql("DELETE FROM sharedlog_state WHERE key LIKE 'table %'")
    with pytest.raises(NotSetUp, match="which tables"):
        models_of(device.sync.journal)
