"""Fields with a merge rule on whole devices: written through Peewee, recorded, merged."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from peewee import CharField, DateTimeField, DecimalField, ForeignKeyField, IntegerField, JSONField

from sharedlog import (
    Change,
    ConfigurationError,
    Conflict,
    Counter,
    Custom,
    Maximum,
    Members,
    MemorySharedLog,
    Minimum,
    NotASyncModel,
    Sync,
    SyncModel,
    ValueRefused,
)
from sharedlog.care.inspection import opened
from sharedlog.events import Event
from sharedlog.remote.sharedlog import Outgoing

from .conftest import OpenDevice
from .devices import Device


def average(values: list[Any]) -> Any:
    """Of all prices that were ever written; fails for one."""
    if Decimal("6.66") in values:
        raise ValueError("no such price")
    return sum(values, Decimal(0)) / len(values)


class Shelf(SyncModel):
    code = CharField(primary_key=True)


class Product(SyncModel):
    code = CharField(primary_key=True)
    name = CharField(default="")
    barcode = CharField(null=True, unique=True)
    shelf = ForeignKeyField(Shelf, null=True, on_delete="CASCADE")
    stock = IntegerField(default=0, column_name="number")
    labels = JSONField(default=list, null=True)
    best = IntegerField(null=True)
    first = DateTimeField(null=True)
    price = DecimalField(default=Decimal(1), auto_round=True)

    class Meta:
        merge: ClassVar = {
            "stock": Counter(),
            "labels": Members(),
            "best": Maximum(),
            "first": Minimum(),
            "price": Custom("average", average),
        }


class Box(SyncModel):
    """A parent that its children keep."""

    code = CharField(primary_key=True)
    stock = IntegerField(default=0)
    labels = JSONField(default=list)

    class Meta:
        merge: ClassVar = {"stock": Counter(), "labels": Members()}


class Thing(SyncModel):
    code = CharField(primary_key=True)
    box = ForeignKeyField(Box)


class Draft(SyncModel):
    """Deletions of it do not win over changes."""

    code = CharField(primary_key=True)
    words = IntegerField(default=0)

    class Meta:
        update_wins = True
        merge: ClassVar = {"words": Counter()}


class NoProduct(SyncModel):
    pass


MODELS = (Shelf, Product)
BOXES = (Box, Thing, Draft)
OpenDevices = Callable[..., list[Device]]


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


@pytest.fixture
def open_devices(open_device: OpenDevice, log: MemorySharedLog) -> OpenDevices:
    """So many devices of one log."""

    def opening(count: int, **options: Any) -> list[Device]:
        return [open_device(MODELS, shared_log=log, **options) for _ in range(count)]

    return opening


def sync(*devices: Device) -> None:
    """Everybody hears of everything."""
    for _ in range(2):
        for device in devices:
            with device:
                device.sync.sync()
    assert all(device.stored() == devices[0].stored() for device in devices)
    for device in devices:  # and all have what the log comes to, read from its beginning
        with device:
            assert device.sync.verify().differences == []


def row(device: Device, code: str = "x") -> dict[str, Any]:
    with device:
        found: dict[str, Any] = Product.select().where(Product.code == code).dicts().get()
        return found


def said(device: Device) -> list[tuple[str, Any]]:
    """What the client log says of products, operation and values."""
    return [(entry.operation, entry.value) for entry in device.log() if entry.pk == "x"]


# -- every way to write ----------------------------------------------------------------------


def by_expression() -> None:
    Product.update(stock=Product.stock + 2).execute()


def by_assignment() -> None:
    product = Product.get()
    product.stock = 7
    product.save()


def by_an_expression_of_an_instance() -> None:
    product = Product.get()
    product.stock = Product.stock + 2
    product.save()


def by_set_by_id() -> None:
    Product.set_by_id("x", {"stock": 7})


def by_bulk_update() -> None:
    product = Product.get()
    product.stock = 7
    Product.bulk_update([product], [Product.stock])


def by_upsert() -> None:
    Product.insert(code="x").on_conflict(
        conflict_target=[Product.code], update={Product.stock: Product.stock + 2}
    ).execute()


def by_upsert_preserving() -> None:
    Product.insert(code="x", stock=7).on_conflict(
        conflict_target=[Product.code], preserve=[Product.stock]
    ).execute()


def by_upsert_of_another_unique_value() -> None:
    Product.insert(code="other", barcode="111").on_conflict(
        conflict_target=[Product.barcode], update={Product.stock: Product.stock + 2}
    ).execute()


def by_the_plain_table() -> None:
    table = Product._meta.table.bind(Product._meta.database)
    table.update({table.number: 7}).execute()


def by_an_update_of_more_rows() -> None:
    Product.create(code="y")
    Product.update(stock=Product.stock + 2).where(Product.code != "z").execute()


WAYS = [way for name, way in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("way", WAYS)
def test_a_counter_is_recorded_as_an_increment(
    open_devices: OpenDevices, way: Callable[[], None]
) -> None:
    [device] = open_devices(1)
    with device:
        Product.create(code="x", stock=5, barcode="111")
        way()
    [_, (operation, value)] = said(device)
    assert (operation, value) == ("modify", {"stock": {"add": 2, "total": 2}})
    assert row(device)["stock"] == 7


def test_a_replaced_row_keeps_its_history(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=5, labels=["a"], best=3)
    sync(one, two)
    with two:
        Product.update(stock=Product.stock + 10).execute()
    with one:
        Product.replace(code="x", stock=7, labels=["b"], best=1).execute()
    _, (operation, value) = said(one)
    assert operation == "modify"
    assert value["stock"] == {"add": 2, "total": 2}
    assert value["labels"] == {"add": ["b"], "remove": ["a"]}
    sync(one, two)
    assert (row(one)["stock"], row(one)["labels"], row(one)["best"]) == (17, ["b"], 3)


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
@pytest.mark.parametrize("labels", [None, ["c", "b"]])
def test_a_row_replaced_by_itself_shows_what_the_rule_says(
    open_devices: OpenDevices, labels: list[str] | None, recorder: str
) -> None:
    """Triggers tell of both writes only with the next sync: the second one, to which the field
    was in hand as it had been written, did nothing to it."""
    one, two = open_devices(2, recorder=recorder)
    with one, one.database.atomic():
        Product.create(code="x", labels=labels)
        Product.replace(code="x", labels=labels, name="a").execute()
    sync(one, two)
    assert row(one)["labels"] == row(two)["labels"] == sorted(labels or [])


@pytest.mark.parametrize(
    "change",
    [
        lambda: Product.update(labels=["c", "b"]).execute(),
        lambda: Product.update(labels=Product.labels[0].set("c")).execute(),
        lambda: Product.bulk_update([Product(code="x", labels=["c", "b", "c"])], ["labels"]),
    ],
)
def test_members_are_recorded_as_added_and_removed(
    open_devices: OpenDevices, change: Callable[[], object]
) -> None:
    [device] = open_devices(1)
    with device:
        Product.create(code="x", labels=["b", "a"])
        assert row(device)["labels"] == ["a", "b"]
        change()
    assert said(device)[1] == ("modify", {"labels": {"add": ["c"], "remove": ["a"]}})
    assert row(device)["labels"] == ["b", "c"]


def test_a_list_that_was_changed_in_place(open_devices: OpenDevices) -> None:
    [device] = open_devices(1)
    with device:
        product = Product.create(code="x", labels=["b"])
        product.labels.append("a")
        product.save()
    assert said(device)[1] == ("modify", {"labels": {"add": ["a"], "remove": []}})
    assert row(device)["labels"] == ["a", "b"]


@pytest.mark.parametrize(("before", "after"), [([], None), (["a", "b"], ["b", "a", "b"])])
def test_a_set_that_is_written_in_another_way_shows_as_it_did(
    open_devices: OpenDevices, before: Any, after: Any
) -> None:
    [device] = open_devices(1)
    with device:
        Product.create(code="x", labels=before)
        Product.update(labels=after).execute()
        assert row(device)["labels"] == before


def test_what_does_nothing_to_a_field_is_not_recorded(open_devices: OpenDevices) -> None:
    [device] = open_devices(1)
    with device:
        Product.create(code="x", stock=5, labels=["a"])
        Product.update(stock=5, labels=["a"]).execute()
        assert len(said(device)) == 1
        Product.update(stock=Product.stock + 0, name="new").execute()
    assert said(device)[1:] == [("modify", {"name": "new"})]


def test_the_column_always_holds_what_the_rule_says(open_devices: OpenDevices) -> None:
    [device] = open_devices(1)
    early, late = datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 2)
    with device:
        Product.create(code="x", best=5, first=late, labels=None, price=Decimal(2))
        assert row(device)["labels"] == []
        product = Product.get()
        product.best, product.first, product.price = 3, early, Decimal(4)
        product.save()
        assert (row(device)["best"], row(device)["first"]) == (5, early)
        assert row(device)["price"] == Decimal(3)
        Product.update(best=8, first=late).execute()
    assert (row(device)["best"], row(device)["first"]) == (8, early)


def test_rules_are_named_in_what_travels(open_devices: OpenDevices, log: MemorySharedLog) -> None:
    [device] = open_devices(1)
    with device:
        Shelf.create(code="s")
        Product.create(code="x")
        Product.update(stock=1, name="n").execute()
        Product.update(name="m").execute()
        Product.delete().execute()
        device.sync.sync()
    rules = [json.loads(entry.data).get("rules") for entry in log.entries]
    assert rules == [
        None,
        {
            "stock": "counter",
            "labels": "members",
            "best": "maximum",
            "first": "minimum",
            "price": "average",
        },
        {"stock": "counter"},
        None,
        None,
    ]
    assert log.entries[0].data.endswith(',"value":{}}')


# -- devices together ------------------------------------------------------------------------


def test_concurrent_changes_of_three_devices(open_devices: OpenDevices) -> None:
    devices = open_devices(3)
    with devices[0]:
        Product.create(code="x", stock=10, labels=["a", "b"], best=5)
    sync(*devices)
    for number, device in enumerate(devices, 1):
        with device:
            Product.update(stock=Product.stock + number).execute()
            product = Product.get()
            product.labels = [*product.labels[1:], f"by {number}"]
            product.best = 10 - number
            product.price = Decimal(2 * number)
            product.save()
            Product.update(stock=Product.stock + 10 * number).execute()
    sync(*devices)
    found = row(devices[1])
    assert found["stock"] == 10 + 66
    assert found["labels"] == ["b", "by 1", "by 2", "by 3"]
    assert found["best"] == 9
    assert found["price"] == Decimal(13) / 4


def test_two_devices_create_the_same_natural_key(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=10, labels=["a"], best=9)
        Product.update(stock=Product.stock + 1).execute()
    with two:
        Product.create(code="x", stock=20, labels=["b"], best=3)
        Product.update(stock=Product.stock + 2).execute()
    sync(one, two)
    found = row(one)
    assert found["stock"] in (13, 23)  # the later base, and both increments
    assert (found["labels"], found["best"]) == (["a", "b"], 9)
    with one:
        Product.update(stock=0).execute()
    sync(one, two)
    assert row(two)["stock"] == 0


def test_an_increment_from_an_earlier_life_of_the_row_does_not_count(
    open_devices: OpenDevices,
) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=10, labels=["a"])
    sync(one, two)
    with two:
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two)
    with one:
        Product.delete().execute()
        Product.create(code="x", stock=100, labels=[])
    with two:
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two)
    assert row(one)["stock"] == 100
    with two:
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two)
    assert row(one)["stock"] == 101


def test_writes_to_a_row_that_cannot_stand_yet_are_not_lost(open_devices: OpenDevices) -> None:
    one, two, three = open_devices(3)
    with one:
        Shelf.create(code="s")
        Product.create(code="x", shelf="s", stock=5, labels=["a"])
        one.sync.sync()
    with two:
        two.sync.sync()
        Shelf.delete().execute()
        two.sync.sync()
    with three:
        three.sync.sync()
        assert Product.select().count() == 0
    with one:
        Product.update(stock=Product.stock + 1, labels=["b"]).execute()
        one.sync.sync()
    with three:
        three.sync.sync()
        Shelf.create(code="s")
        Product.insert(code="x", stock=5, shelf="s").on_conflict_ignore().execute()
    sync(one, two, three)
    with one:
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two, three)


def test_a_row_that_a_child_keeps_has_what_all_its_lives_added(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, two, three = [open_device(BOXES, shared_log=log) for _ in range(3)]
    with one:
        Box.create(code="b", stock=5, labels=["a"])
    sync(one, two, three)
    with one:
        Box.update(stock=Box.stock + 1, labels=["a", "b"]).execute()
        one.sync.sync()
        Box.delete().execute()
    with two:
        Thing.create(code="t", box="b")
        Box.update(stock=Box.stock + 10, labels=["c"]).execute()
    sync(one, two, three)
    with three:
        assert (Box.get().stock, Box.get().labels) == (16, ["b", "c"])
        Box.update(stock=Box.stock + 100, labels=["c", "d"]).execute()
        assert Box.get().stock == 116
    sync(one, two, three)
    with one:
        assert (Box.get().stock, Box.get().labels) == (116, ["c", "d"])
        Thing.delete().execute()
    sync(one, two, three)
    with one:
        assert Box.select().count() == 0
        Box.create(code="b", stock=1)
    sync(one, two, three)
    with two:
        assert Box.get().stock == 111  # what began after the deletion


def test_a_change_that_revives_a_row_adds_to_what_it_was(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, two = [open_device(BOXES, shared_log=log) for _ in range(2)]
    with one:
        Draft.create(code="d", words=5)
        Draft.update(words=Draft.words + 1).execute()
    sync(one, two)
    with one:
        Draft.delete().execute()
    with two:
        Draft.update(words=Draft.words + 10).execute()
    sync(one, two)
    with one:
        assert Draft.get().words == 16
        Draft.update(words=Draft.words + 100).execute()
    sync(one, two)
    with two:
        assert Draft.get().words == 116


def test_a_parked_row_is_counted_on(open_device: OpenDevice, log: MemorySharedLog) -> None:
    one = open_device(MODELS, shared_log=log, now=lambda: 1_000_000)
    two = open_device(MODELS, shared_log=log, now=lambda: 2_000_000)
    with one:
        Product.create(code="x", barcode="1", stock=5)
    with two:
        Product.create(code="y", barcode="1", stock=7, labels=["a"])
        Product.update(stock=Product.stock + 1).execute()
        two.sync.sync()
    with one:
        one.sync.sync()
    sync(one, two)
    with two:
        [parked] = two.sync.parked()
        assert (parked.code, parked.pk, parked.values["stock"]) == ("UNIQUE", "y", 8)
        two.sync.resolve(parked, barcode="2", stock=10, labels=["b"])
        [(_, value)] = [(e.operation, e.value) for e in two.log()[-1:]]
        assert value["stock"] == {"add": 2, "total": 3, "since": value["stock"]["since"]}
        assert value["labels"] == {"add": ["b"], "remove": ["a"]}
    sync(one, two)
    assert (row(one, "y")["stock"], row(one, "y")["labels"]) == (10, ["b"])


def test_a_random_life_of_boxes(open_device: OpenDevice) -> None:
    """With rows that are kept, revived, and deleted for good."""
    log = MemorySharedLog()
    devices = [open_device(BOXES, shared_log=log) for _ in range(3)]
    dice = random.Random(8)
    for _ in range(200):
        with dice.choice(devices) as device:
            code = dice.choice("xyz")
            model: Any = dice.choice((Box, Draft))
            kind = dice.choice(("add", "add", "create", "delete", "thing", "sync", "prune"))
            if kind == "add":
                field = Box.stock if model is Box else Draft.words
                changes: Any = {field: field + dice.randint(1, 3)}
                if model is Box:
                    changes[Box.labels] = dice.sample("abcd", 2)
                model.update(changes).where(model.code == code).execute()
            elif kind == "create" and model.get_or_none(code=code) is None:
                model.create(code=code)
            elif kind == "delete":
                Thing.delete().where(Thing.box == code).execute()
                if dice.random() < 0.5:
                    model.delete().where(model.code == code).execute()
            elif (
                kind == "thing" and Box.get_or_none(code=code) and not Thing.get_or_none(code=code)
            ):
                Thing.create(code=code, box=code)
            elif kind == "sync":
                device.sync.sync()
            elif kind == "prune":
                device.sync.prune(keep_ms=0)
    sync(*devices)
    assert any(devices[0].stored().values())


def test_a_random_life_of_three_devices(open_devices: OpenDevices) -> None:
    """Whatever they do and whenever they sync: in the end all have the same."""
    devices = open_devices(3)
    dice = random.Random(7)
    for _ in range(150):
        with dice.choice(devices) as device:
            code = dice.choice("xyz")
            kind = dice.choice(("add", "add", "save", "save", "create", "delete", "sync", "prune"))
            mine = Product.select().where(Product.code == code)
            if kind == "add":
                Product.update(stock=Product.stock + dice.randint(-3, 3)).where(
                    Product.code == code
                ).execute()
            elif kind == "save" and (product := mine.first()):
                product.stock = dice.randint(0, 50)
                product.labels = dice.sample("abcdef", 3)
                product.best = dice.randint(0, 50)
                product.price = Decimal(dice.randint(1, 5))
                product.save()
            elif kind == "create" and not mine.exists():
                Product.create(code=code, stock=dice.randint(0, 9), labels=dice.sample("abc", 2))
            elif kind == "delete" and dice.random() < 0.3:
                Product.delete().where(Product.code == code).execute()
            elif kind == "sync":
                device.sync.sync()
            elif kind == "prune":
                device.sync.prune(keep_ms=0)
    sync(*devices)


def test_increments_after_pruning_go_on(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=1)
        for _ in range(3):
            Product.update(stock=Product.stock + 1).execute()
            one.sync.sync()
            one.sync.prune(keep_ms=-1000)
        assert one.log() == []
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two)
    assert row(two)["stock"] == 5


def test_what_is_kept_of_a_counter_does_not_grow(open_devices: OpenDevices) -> None:
    devices = open_devices(3)
    with devices[0]:
        Product.create(code="x")
    for _ in range(5):
        sync(*devices)
        for device in devices:
            with device:
                Product.update(stock=Product.stock + 1).execute()
    sync(*devices)
    assert row(devices[0])["stock"] == 15
    cursor = devices[0].database.execute_sql("SELECT writes FROM sharedlog_row")
    [[_, writes]] = [json.loads(text)["stock"] for (text,) in cursor.fetchall()]
    assert len(writes) == 1 + 3


# -- clocks ----------------------------------------------------------------------------------


def test_increments_follow_the_entries_that_get_new_timestamps(
    open_device: OpenDevice,
) -> None:
    """A device whose clock is an hour ahead: what its increments name is renamed with them."""
    times = {"here": 1_000_000_000_000, "there": 1_000_000_000_000 + 3_600_000}
    log = MemorySharedLog(now=lambda: times["here"])
    fast = open_device(MODELS, shared_log=log, now=lambda: times["there"])
    other = open_device(MODELS, shared_log=log, now=lambda: times["here"])
    with fast:
        Product.create(code="x", stock=5)
        for _ in range(3):
            Product.update(stock=Product.stock + 1).execute()
        fast.sync.sync()
        Product.update(stock=Product.stock + 1).execute()
    sync(fast, other)
    assert row(other)["stock"] == 9
    words = [json.loads(entry.data)["value"]["stock"] for entry in log.entries[1:]]
    first = log.entries[1].ticks
    assert words[0] == {"add": 1, "total": 1}
    assert words[1:] == [{"add": 1, "total": n, "since": first} for n in (2, 3, 4)]
    with other:
        Product.delete().execute()
        Product.create(code="x", stock=0)
    sync(fast, other)
    with fast:
        Product.update(stock=Product.stock + 1).execute()
    sync(fast, other)
    assert row(other)["stock"] == 1


# -- rows from before, rows of others -----------------------------------------------------------


def test_adopting_a_row_that_was_counted_already(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    device = open_device(MODELS, tracked=False, shared_log=log)
    with device:
        Product.create(code="x", stock=5, labels=["b", "a"], price=Decimal(2))
        device.sync.setup()
        Product.update(price=Decimal(4)).execute()
        assert row(device)["price"] == Decimal(3)
        Product.update(stock=Product.stock + 2).execute()
        Product.update(labels=["c", "a"]).execute()
        assert (row(device)["stock"], row(device)["labels"]) == (7, ["a", "c"])
        assert device.sync.adopt().created == 1
    sync(device, open_device(MODELS, shared_log=log))
    assert (row(device)["stock"], row(device)["labels"]) == (7, ["a", "c"])
    assert row(device)["price"] == Decimal("3.5")  # of 4, and of 3, which was adopted


def test_adopting_tells_what_cannot_be_merged(open_device: OpenDevice) -> None:
    device = open_device(MODELS, tracked=False)
    with device:
        Product.create(code="x")
        device.database.execute_sql("UPDATE product SET labels = '5'")
        device.sync.setup()
        [(collection, pk, reason)] = device.sync.adopt().refused
    assert (collection, pk) == ("product", "x")
    assert "Product.labels: 5 cannot be merged by the rule 'members'" in reason


def test_adopting_values_that_were_changed_behind_the_recorders_back(
    open_devices: OpenDevices,
) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=5, labels=["a", "b"], best=5)
    sync(one, two)
    with two:
        Product.update(stock=Product.stock + 1).execute()
    with one:
        one.database.execute_sql(
            "UPDATE product SET number = 9, labels = '[\"c\",\"b\"]', best = 3, name = 'new'"
        )
        assert one.sync.adopt(values=True).modified == 1
    [(operation, value)] = said(one)[1:]
    assert operation == "modify"
    assert value["stock"] == {"add": 4, "total": 4}
    assert value["labels"] == {"add": ["c"], "remove": ["a"]}
    assert row(one)["best"] == 5
    sync(one, two)
    assert (row(two)["stock"], row(two)["labels"]) == (10, ["b", "c"])


def test_a_device_that_begins_anew_counts_on(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=5, labels=["a", "b"], best=5, price=Decimal(2))
        Product.update(stock=Product.stock + 1, labels=["b"], best=3).execute()
        Product.update(price=Decimal(4)).execute()
    sync(one, two)
    with one:
        before = one.sync.journal.device_id()
        one.sync.reset()
        one.sync.sync()
        assert one.sync.journal.device_id() != before
        Product.update(stock=Product.stock + 1, labels=["b", "c"]).execute()
        assert said(one)[-1][1]["stock"] == {"add": 1, "total": 1}
    with two:
        Product.update(stock=Product.stock + 1).execute()
    sync(one, two)
    found = row(two)
    assert (found["stock"], found["labels"], found["best"]) == (8, ["b", "c"], 5)
    assert found["price"] == Decimal(3)


def test_the_command_line_knows_the_rules_of_a_file(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    device = open_device(BOXES, "boxes", shared_log=log)
    other = open_device(MODELS, "shop", shared_log=MemorySharedLog())
    with device:
        Box.create(code="b", stock=5)
        Box.update(stock=Box.stock + 1, labels=["a"]).execute()
        Box.update(stock=Box.stock + 1, labels=["b"]).execute()
        device.sync.sync()
    paths = [Path(each.database.database) for each in (device, other)]
    with opened(paths[0]) as file:
        assert {n: r.name for n, r in file.registry.collection("box").rules.items()} == {  # type: ignore[union-attr]
            "stock": "counter",
            "labels": "members",
        }
        verified = file.verify(log, 10, lambda _: None)
        assert (verified.rows, verified.differences) == (1, [])
    with opened(paths[1]) as file, pytest.raises(ConfigurationError, match="own: average"):
        file.verify(log, 10, lambda _: None)


def send(log: MemorySharedLog, *changes: dict[str, Any], since: int = 1) -> None:
    """Entries of a device in another language, one each second."""
    device = log.register(None, "foreign")
    entries = [
        Outgoing(1024_000 * i, 0, json.dumps({"collection": "product", "pk": "x"} | change))
        for i, change in enumerate(changes, since)
    ]
    log.write(device, entries, after=None, now_ms=0, limit=1, byte_limit=1)


PLAIN = {"name": "", "barcode": None, "shelf": None, "best": None, "first": None, "price": "1"}


def test_a_creation_that_gets_other_values_than_it_says(
    open_devices: OpenDevices, log: MemorySharedLog
) -> None:
    value = {**PLAIN, "stock": 1, "labels": ["b", "a", "b"]}
    send(log, {"operation": "create", "value": value, "rules": {"labels": "members"}})
    [device] = open_devices(1)
    with device:
        assert device.sync.sync().created == 1
    assert row(device)["labels"] == ["a", "b"]


def test_two_creations_and_a_deletion_between_them_that_comes_late(
    open_devices: OpenDevices, log: MemorySharedLog
) -> None:
    rules = {"rules": {"stock": "counter", "labels": "members"}}
    create = {"operation": "create", "value": {**PLAIN, "stock": 1, "labels": ["a"]}, **rules}
    again = {"operation": "create", "value": {**PLAIN, "stock": 2, "labels": ["b"]}, **rules}
    [device] = open_devices(1)
    with device:
        send(log, create, since=1)
        send(log, again, since=3)
        device.sync.sync()
        assert (row(device)["stock"], row(device)["labels"]) == (2, ["a", "b"])
        send(log, {"operation": "delete", "value": None}, since=2)
        device.sync.sync()
    assert (row(device)["stock"], row(device)["labels"]) == (2, ["b"])


def test_a_client_without_the_rules_writes_plain_values(
    open_devices: OpenDevices, log: MemorySharedLog
) -> None:
    [device] = open_devices(1)
    with device:
        value = {**PLAIN, "stock": 5, "labels": ["a"], "best": 5}
        send(
            log,
            {"operation": "create", "value": value},
            {"operation": "modify", "value": {"stock": 9, "labels": ["b"], "best": 3}},
        )
        device.sync.sync()
        Product.update(stock=Product.stock + 1).execute()
    assert (row(device)["stock"], row(device)["labels"], row(device)["best"]) == (10, ["b"], 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"operation": "modify", "value": {"name": 1}, "rules": {"name": "counter"}},
            "The field name has not the merge rule 'counter' here.",
        ),
        (
            {"operation": "modify", "value": {"new": 1}, "rules": {"new": "counter"}},
            "The field new has not the merge rule 'counter' here.",
        ),
        (
            {"operation": "modify", "value": {"stock": "?"}, "rules": {"stock": "counter"}},
            "'?' is nothing that the merge rule 'counter' knows for stock.",
        ),
        (
            {"operation": "modify", "value": {"stock": {"add": 1, "total": 1}}},
            "{'add': 1, 'total': 1} is nothing that the merge rule 'counter' knows for stock.",
        ),
        (
            {"operation": "create", "value": {"x": 1}, "rules": {"x": "sum"}, "collection": "new"},
            "The field x has not the merge rule 'sum' here.",
        ),
        (
            {"operation": "modify", "value": {"stock": 1}, "rules": {"best": "maximum"}},
            "There are rules of fields that are not in the value.",
        ),
        (
            {"operation": "modify", "value": {"stock": 1}, "rules": ["stock"]},
            "The rules are not names by field.",
        ),
    ],
)
def test_what_no_rule_knows_is_set_aside(
    open_devices: OpenDevices, log: MemorySharedLog, change: dict[str, Any], reason: str
) -> None:
    send(log, change)
    [device] = open_devices(1)
    with device:
        assert device.sync.sync().unreadable == 1
        assert [why for _, why in device.sync.inbox.unreadable()] == [reason]


def test_an_entry_waits_until_its_rule_is_declared(
    open_device: OpenDevice, log: MemorySharedLog
) -> None:
    def model(rules: dict[str, Any]) -> Any:
        class Item(SyncModel):
            code = CharField(primary_key=True)
            number = IntegerField(default=0)

            class Meta:
                table_name = "item"
                merge = rules

        return Item

    new, old = model({"number": Counter()}), model({})
    one = open_device([new], shared_log=log)
    with one:
        new.create(code="x", number=5)
        new.update(number=new.number + 1).execute()
        one.sync.sync()
    two = open_device([old], "two", shared_log=log)
    with two:
        old.create(code="y")
        assert two.sync.sync().unreadable == 2
        assert two.sync.status().unreadable == 2
        assert old.select().count() == 1
    two.close()
    two = open_device([new], "two", shared_log=log, create=False)
    with two:
        two.sync.sync()
        assert two.sync.status().unreadable == 0
        assert new.get(code="x").number == 6
        new.update(number=new.number + 1).execute()
        two.sync.sync()
    with one:
        one.sync.sync()
        assert [(r.code, r.number) for r in new.select().order_by(new.code)] == [("x", 7), ("y", 1)]


def test_a_rule_may_be_replaced_by_another_one(
    open_device: OpenDevice, log: MemorySharedLog
) -> None:
    """What was kept for the old rule is none of the new one's business."""
    rules: dict[str, Any] = {}

    def model() -> Any:
        class Item(SyncModel):
            code = CharField(primary_key=True)
            number = IntegerField(default=0)

            class Meta:
                table_name = "item"
                merge = rules.copy()

        return Item

    rules["number"] = Counter()
    before = model()
    device = open_device([before], "one", shared_log=log)
    with device:
        before.create(code="x", number=5)
        before.update(number=before.number + 2).execute()
        device.sync.sync()
    device.close()
    rules["number"] = Maximum()
    after = model()
    device = open_device([after], "one", shared_log=log, create=False)
    with device:
        after.update(number=6).execute()
        assert after.get().number == 7
        after.update(number=9).execute()
        assert after.get().number == 9


# -- transactions, failures ------------------------------------------------------------------


def test_a_rollback_takes_everything_back(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x", stock=5)
    sync(one, two)
    with one:
        with one.database.atomic() as transaction:
            Product.update(stock=Product.stock + 1, best=4).execute()
            Product.insert(code="y", labels=["b", "a"]).execute()
            transaction.rollback()
        assert row(one)["stock"] == 5
        Product.update(stock=Product.stock + 2).execute()
        with one.database.atomic():
            Product.create(code="z", labels=["d", "c"])
            with one.database.atomic() as savepoint:
                Product.update(stock=Product.stock + 1).execute()
                savepoint.rollback()
    sync(one, two)
    assert row(two)["stock"] == 7
    assert row(two, "z")["labels"] == ["c", "d"]


def test_a_value_that_the_rule_cannot_merge_is_refused(open_devices: OpenDevices) -> None:
    [device] = open_devices(1)
    with device:
        Product.create(code="x", stock=5, price=Decimal(1))
        before = device.stored(), device.log()
        for values in ({"labels": {"a": 1}}, {"price": Decimal("6.66")}, {"stock": "many"}):
            with pytest.raises(ValueRefused, match=rf"Product\.{next(iter(values))}"):
                Product.update(**values).execute()
            with pytest.raises(ValueRefused, match=rf"Product\.{next(iter(values))}"):
                Product.create(code="y", **values)
        assert (device.stored(), device.log()) == before


def test_an_own_rule_that_fails_here_is_told(open_device: OpenDevice) -> None:
    def latest(values: list[Any]) -> Any:
        if "bad" in values:
            raise KeyError("no bad")
        return values[-1]

    class Item(SyncModel):
        code = CharField(primary_key=True)
        text = CharField()

        class Meta:
            merge: ClassVar = {"text": Custom("latest", latest)}

    with open_device([Item]):
        Item.create(code="x", text="good")
        for write in (lambda: Item.create(code="y", text="bad"), Item.update(text="bad").execute):
            with pytest.raises(ValueRefused) as refused:
                write()
            assert str(refused.value) == (
                "Item.text: the rule 'latest' failed: KeyError('no bad')\n"
                "  Let its function take any list of values that the field may have."
            )
        assert list(Item.select().tuples()) == [("x", "good")]


def test_an_own_rule_that_fails_elsewhere_parks_the_row(
    open_devices: OpenDevices, log: MemorySharedLog
) -> None:
    value = {**PLAIN, "stock": 5, "labels": ["a"]}
    send(
        log,
        {"operation": "create", "value": value},
        {"operation": "modify", "value": {"price": "6.66"}},
    )
    [device] = open_devices(1)
    with device:
        assert device.sync.sync().parked == 1
        cursor = device.database.execute_sql("SELECT parked FROM sharedlog_row")
        assert "the rule 'average' failed" in cursor.fetchone()[0]
        send(
            log,
            {"operation": "create", "value": value},
            {"operation": "modify", "value": {"price": "6.66"}},
            {"operation": "delete", "value": None},
            {"operation": "create", "value": value},
        )
        assert device.sync.sync().parked == 0
    assert row(device)["price"] == 1


def test_a_row_comes_back_when_its_rule_no_longer_fails(
    open_device: OpenDevice, log: MemorySharedLog
) -> None:
    broken = [True]

    def first_of(values: list[Any]) -> Any:
        return values[0] if not broken else 1 // 0

    class Item(SyncModel):
        code = CharField(primary_key=True)
        text = CharField()

        class Meta:
            table_name = "product"
            merge: ClassVar = {"text": Custom("first", first_of)}

    rules = {"rules": {"text": "first"}}
    create = {"operation": "create", "value": {"text": "a"}, **rules}
    send(log, create, {"operation": "modify", "value": {"text": "b"}, **rules})
    device = open_device([Item], shared_log=log)
    with device:
        assert device.sync.sync().parked == 1
        broken.clear()
        assert device.sync.sync().parked == 0
        assert Item.get().text == "a"


def item(rules: dict[str, Any]) -> Any:
    """The model of a program that has these rules."""

    class Item(SyncModel):
        code = CharField(primary_key=True)
        text = CharField()

        class Meta:
            table_name = "item"
            merge = rules

    return Item


def test_what_was_recorded_before_the_rule_was_declared(
    open_device: OpenDevice, log: MemorySharedLog
) -> None:
    before, after = item({}), item({"text": Custom("join", "+".join)})
    device = open_device([before], "one", shared_log=log)
    with device:
        before.create(code="x", text="a")
        before.update(text="b").execute()
    device.close()
    device = open_device([after], "one", shared_log=log, create=False)
    with device:
        after.update(text="c").execute()
        assert after.get().text == "b+c"


@pytest.mark.parametrize(
    ("rule", "said"), [(Maximum, "d"), (Minimum, "b"), (lambda: Custom("join", "+".join), "b+d")]
)
def test_who_was_there_before_the_rule_and_who_comes_later_end_equal(
    rule: Callable[[], Any], said: str, open_device: OpenDevice, log: MemorySharedLog
) -> None:
    """Of what was written without the rule only the latest counts: whoever was there knows no
    more. That may come when the rule is known already."""
    before, after = item({}), item({"text": rule()})
    early, late = (open_device([before], name, shared_log=log) for name in ("early", "late"))
    with early:
        before.create(code="x", text="e")
        early.sync.sync()
        before.update(text="a").execute()
        early.sync.sync()
    with late:
        late.sync.sync()
        before.update(text="b").execute()  # sent when the others have the rule
    early.close()
    early = open_device([after], "early", shared_log=log, create=False)
    with early:
        early.sync.sync()
        assert after.get().text == "a"
        after.update(text="d").execute()
        early.sync.sync()
    late.close()
    late = open_device([after], "late", shared_log=log, create=False)
    fresh = open_device([after], shared_log=log)
    for device in (late, fresh, early):
        with device:
            device.sync.sync()
    for device in (late, fresh, early):
        with device:
            device.sync.sync()
            assert after.get().text == said
            assert device.sync.verify().equal
    assert early.stored() == late.stored() == fresh.stored()


# -- events and history ----------------------------------------------------------------------


def test_each_conflict_is_an_event_and_rules_make_none(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x")
    sync(one, two)
    events: list[Event] = []
    for device in (one, two):
        device.sync.on_event(events.append)
        with device:
            name = f"by {device.sync.status().device}"
            Product.update(name=name, stock=Product.stock + 1, best=3, labels=["a"]).execute()
    sync(one, two)
    [conflict] = [event for event in events if isinstance(event, Conflict)]
    assert conflict.field == "name"
    assert {conflict.value, conflict.lost} == {
        f"by {device.sync.status().device}" for device in (one, two)
    }
    assert row(one)["name"] == conflict.value


def test_conflicts_of_stages_are_events_too(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        Product.create(code="x")
    sync(one, two)
    events: list[Event] = []
    with two:
        Product.update(name="two").execute()
        two.sync.on_event(events.append)
    with one:
        Product.delete().execute()
        one.sync.sync()
    with two:
        result = two.sync.sync()
    assert [event for event in events if isinstance(event, Conflict)] == result.conflicts
    assert [conflict.field for conflict in result.conflicts] == [None]


def test_history_tells_who_wrote_what_when(open_devices: OpenDevices) -> None:
    one, two = open_devices(2)
    with one:
        product = Product.create(code="x", stock=5)
        Product.create(code="y")
    sync(one, two)
    with two:
        Product.update(stock=Product.stock + 2).where(Product.code == "x").execute()
    sync(one, two)
    with one:
        product.delete_instance()
        one.sync.sync()
        history = one.sync.history(product)
        assert one.sync.history(product, limit=1) == history[:1]
        with pytest.raises(NotASyncModel):
            one.sync.history(NoProduct())
    ids = [device.sync.status().device for device in (one, two)]
    assert [(h.version.device, h.change.operation) for h in history] == [
        (ids[0], "create"),
        (ids[1], "modify"),
        (ids[0], "delete"),
    ]
    assert history[1].change.value == {"stock": {"add": 2, "total": 2}}
    now = datetime.datetime.now(datetime.UTC)
    assert all(datetime.timedelta(0) <= now - h.written_at < datetime.timedelta(1) for h in history)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 2.5, None])
def test_how_much_history_can_be_asked_for(open_devices: OpenDevices, limit: Any) -> None:
    (device,) = open_devices(1)
    with device, pytest.raises(ConfigurationError, match=r"^limit is .*from 1 to 1000\.$"):
        device.sync.history(Product.create(code="x"), limit=limit)


def test_a_renamed_field_is_counted_on(open_device: OpenDevice) -> None:
    """Under another name of the field and of the table, with entries that are not sent yet."""

    class Old(SyncModel):
        code = CharField(primary_key=True)
        stock = IntegerField(default=0)
        labels = JSONField(default=list)

        class Meta:
            table_name = "old"
            merge: ClassVar = {"stock": Counter(), "labels": Members()}

    class New(SyncModel):
        code = CharField(primary_key=True)
        count = IntegerField(default=0)
        tags = JSONField(default=list)

        class Meta:
            table_name = "new"
            formerly_table = "old"
            formerly: ClassVar = {"count": "stock", "tags": "labels"}
            merge: ClassVar = {"count": Counter(), "tags": Members()}

    log = MemorySharedLog()
    one, two = [open_device([Old], name, shared_log=log) for name in ("one", "two")]
    with one:
        Old.create(code="x", stock=5, labels=["a"])
        one.sync.sync()
    with two:
        two.sync.sync()
    for device in (one, two):
        with device:
            Old.update(stock=Old.stock + 1, labels=["a", str(device.database.database)]).execute()
    paths = sorted(str(device.database.database) for device in (one, two))
    with one:
        one.sync.sync()
    one.close()
    one.database.connect()
    for statement in (
        "ALTER TABLE old RENAME TO new",
        "ALTER TABLE new RENAME COLUMN stock TO count",
        "ALTER TABLE new RENAME COLUMN labels TO tags",
    ):
        one.database.execute_sql(statement)
    one.database.close()
    one = open_device([New], "one", shared_log=log, create=False)
    with one:
        New.update(count=New.count + 10).execute()  # before the first sync() of the new program
        one.sync.sync()
    with two:
        two.sync.sync()
        Old.update(stock=Old.stock + 100).execute()
        two.sync.sync()
    with one:
        one.sync.sync()
        row = New.get()
        assert (row.count, row.tags) == (117, sorted(["a", *paths]))
        assert one.sync.verify().differences == []


def test_what_is_kept_of_a_counter_passes_the_upgraders(open_device: OpenDevice) -> None:
    """The new program counts in hundredths; the other device still has the old one."""

    class Coin(SyncModel):
        code = CharField(primary_key=True)
        worth = IntegerField(default=0)

        class Meta:
            merge: ClassVar = {"worth": Counter()}

    def in_hundredths(change: Change) -> Change:
        value = dict(change.value or {})
        if isinstance(said := value.get("worth"), dict):
            value["worth"] = {**said, "add": said["add"] * 100, "total": said["total"] * 100}
        elif "worth" in value:
            value["worth"] *= 100
        return change._replace(value=value)

    log = MemorySharedLog()
    one, two = [open_device([Coin], name, shared_log=log) for name in ("one", "two")]
    with one:
        Coin.create(code="x", worth=5)
        Coin.update(worth=Coin.worth + 1).execute()
    sync(one, two)
    with two:
        Coin.update(worth=Coin.worth + 2).execute()
    sync(one, two)
    one.close()
    one = open_device([Coin], "one", shared_log=log, tracked=False, create=False)
    with one:
        one.database.execute_sql("UPDATE coin SET worth = worth * 100")
        upgraded = Sync(
            one.database,
            [Coin],
            shared_log=log,
            schema_version=2,
            upgraders={1: in_hundredths},
        ).setup()
        Coin.update(worth=Coin.worth + 1).execute()
    with two:
        Coin.update(worth=Coin.worth + 3).execute()
        two.sync.sync()
    with one:
        upgraded.sync()
        assert Coin.get().worth == 1101
        assert upgraded.verify().differences == []
        upgraded.close()
