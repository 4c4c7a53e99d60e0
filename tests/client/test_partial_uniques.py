"""Values that are unique among some rows only, or as an expression has them: the older row has
them, on every device, whichever came first there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel
from tests.volume import times

from .conftest import OpenDevice
from .devices import Device

INDEXES: Mapping[str, Sequence[str]] = {
    "among some": ["(email) WHERE NOT gone"],
    "an expression": ["(lower(email))"],
    "both": ["(team, lower(email) DESC) WHERE team IS NOT NULL AND NOT gone"],
    "two": ["(email) WHERE (gone)", "(team, substr(email, 1, 1))"],
}
ONLY_SQLITE: Mapping[str, Sequence[str]] = {
    "a collation": ["(\"email\" COLLATE NOCASE) WHERE /* ) */ [gone] = '0' -- not gone"],
    "a text with a bracket": ["(substr(email || ')', 1, 1)) where email <> '(' "],
}
NULLS: Mapping[str, Sequence[str]] = {
    "a column": ["(team) NULLS NOT DISTINCT"],
    "columns": ["(gone, team) NULLS NOT DISTINCT"],
    "an expression": ["(lower(team)) NULLS NOT DISTINCT"],
    "among some": ["(team) NULLS NOT DISTINCT WHERE NOT gone"],
}
"""PostgreSQL's, from version 15."""


class Member(SyncModel):
    key = peewee.CharField(primary_key=True)
    email = peewee.CharField()
    team = peewee.CharField(null=True)
    gone = peewee.BooleanField(default=False)


class Reading(SyncModel):
    key = peewee.CharField(primary_key=True)
    value: Any = peewee.BareField(unique=True)


def devices_with(
    indexes: Sequence[str], open_device: OpenDevice, log: MemorySharedLog, *wheres: str
) -> list[Device]:
    devices = [open_device([Member], where=where, shared_log=log) for where in wheres]
    for device in devices:
        for number, index in enumerate(indexes):
            sql = f"CREATE UNIQUE INDEX member_{number} ON member {index}"
            device.database.execute_sql(sql)
    return devices


def shown(device: Device) -> tuple[list[Any], list[Any]]:
    with device:
        rows = sorted(Member.select().tuples())
        return rows, [(parked.pk, parked.values) for parked in device.sync.parked()]


def sync(*devices: Device) -> None:
    for device in devices:
        with device:
            device.sync.sync()


def settle(*devices: Device) -> None:
    sync(*devices, *devices)
    first, *others = map(shown, devices)
    assert others == [first] * len(others)
    for device in devices:
        assert device.sync.status().pending == 0


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
@pytest.mark.parametrize("first", [0, 1])
def test_the_older_row_has_the_value(
    where: str, first: int, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = devices_with(INDEXES["both"], open_device, log, where, where)
    for number, device in enumerate(devices):
        with device:
            Member.create(key=f"m{number}", email="ANN"[: 3 - number] + "n" * number, team="t")
    sync(devices[first], devices[1 - first])
    settle(*devices)
    rows, parked = shown(devices[0])
    assert [row[0] for row in rows] == ["m0"]
    assert [pk for pk, _ in parked] == ["m1"]
    assert devices[1].sync.parked()[0].reason == (
        'team, lower(email) t, ann belongs to "m0"'
        if where == "sqlite"
        else 'team, lower(email::text) t, ann belongs to "m0"'
    )


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_it_comes_back_when_the_older_one_is_not_among_these_rows_any_more(
    where: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = devices_with(INDEXES["among some"], open_device, log, where, where)
    for number, device in enumerate(devices):
        with device:
            Member.create(key=f"m{number}", email="ann")
    settle(*devices)
    with devices[0]:
        Member.update(gone=True).where(Member.key == "m0").execute()
    settle(*devices)
    rows, parked = shown(devices[1])
    assert [(row[0], row[3]) for row in rows] == [("m0", True), ("m1", False)]
    assert parked == []


KINDS = [(name, "sqlite", indexes) for name, indexes in {**INDEXES, **ONLY_SQLITE}.items()] + [
    (name, "postgres", indexes) for name, indexes in INDEXES.items()
]


@pytest.mark.parametrize(("name", "where", "indexes"), KINDS)
def test_all_devices_end_equal(
    name: str, where: str, indexes: Sequence[str], log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = devices_with(indexes, open_device, log, where, where, where)
    assert sum(run(Random(f"{name} {seed}"), devices) for seed in range(times(6)))


def run(chance: Random, devices: Sequence[Device]) -> int:
    """Returns how many rows are parked in the end."""
    for _ in range(30):
        device = chance.choice(devices)
        with device:
            write(chance, device)
            if chance.random() < 0.3:
                device.sync.sync()
    settle(*devices)
    for device in devices:
        if isinstance(device.database, peewee.SqliteDatabase):
            assert device.sync.verify().equal
    return len(devices[0].sync.parked())


def write(chance: Random, device: Device) -> None:
    values: dict[str, Any] = {
        "email": chance.choice(("a", "A", "b", "B", "(", "bb", "")),
        "team": chance.choice((None, "t", "u")),
        "gone": chance.random() < 0.5,
    }
    key = chance.choice("pqrstuv")
    try:
        with device.database.atomic():
            match chance.choice(("create", "create", "update", "update", "swap", "delete")):
                case "create":
                    Member.create(key=key, **values)
                case "update":
                    name = chance.choice(list(values))
                    Member.update({name: values[name]}).where(Member.key == key).execute()
                case "swap":
                    rows = list(Member.select().limit(2))
                    emails = [row.email for row in rows]
                    for row, email in zip(rows, ["x", *emails[:1]], strict=False):
                        Member.update(email=email).where(Member.key == row.key).execute()
                    if rows:
                        email = emails[-1]
                        Member.update(email=email).where(Member.key == rows[0].key).execute()
                case "delete":
                    Member.delete().where(Member.key == key).execute()
    except peewee.IntegrityError:
        pass  # the application's own constraint


@pytest.mark.parametrize("indexes", NULLS)
def test_null_is_a_value_where_the_index_says_so(
    indexes: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    options = {"where": "postgres", "recorder": recorder, "shared_log": log}
    devices = [open_device([Member], **options) for _ in "ab"]
    if devices[0].database.server_version < 150_000:
        pytest.skip("no NULLS NOT DISTINCT")
    for number, device in enumerate(devices):
        device.database.execute_sql(f"CREATE UNIQUE INDEX one ON member {NULLS[indexes][0]}")
        with device:
            Member.create(key=f"m{number}", email="e")
            Member.create(key=f"n{number}", email="e", team=f"t{number}")
    settle(*devices)
    rows, parked = shown(devices[0])
    assert [row[0] for row in rows] == ["m0", "n0", "n1"]
    assert [pk for pk, _ in parked] == ["m1"]
    with devices[0]:
        Member.update(team="other").where(Member.key == "m0").execute()
    settle(*devices)
    assert [row[0] for row in shown(devices[1])[0]] == ["m0", "m1", "n0", "n1"]


@pytest.mark.parametrize("first", [1, 2**60, True])
def test_an_integer_and_a_float_that_are_equal_are_one_value(
    first: Any, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = [open_device([Reading], recorder=recorder, shared_log=log) for _ in "ab"]
    for number, (device, value) in enumerate(zip(devices, [first, float(first)], strict=True)):
        with device:
            Reading.create(key=f"r{number}", value=value)
            Reading.create(key=f"s{number}", value=str(value))
    sync(*devices, *devices)
    for device in devices:
        assert [row.pk for row in device.sync.parked()] == ["r1"]
        with device:
            assert device.sync.digest().compare(devices[0].sync.digest()) == []
