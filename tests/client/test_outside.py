"""Writes to tables that are not tracked, of which the database makes changes of tracked rows.

As in `test_capture`, each case runs on a tracked device and on an untracked twin: the tables end
alike, and the client log says exactly what became of the tracked ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import peewee
import pytest
from peewee import CharField, ForeignKeyField, IntegerField

from sharedlog import MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import Device, tables
from .servers import Server
from .writes import Change, create, delete, modify


class World(peewee.Model):
    """Two steps away from what is tracked, and numbered by the database."""

    name = CharField(unique=True)


class Country(peewee.Model):
    code = CharField(primary_key=True)
    short = CharField(unique=True)
    name = CharField(default="")
    world = ForeignKeyField(World, null=True, on_delete="CASCADE")
    heir = ForeignKeyField("self", null=True, on_delete="CASCADE")


class City(SyncModel):
    name = CharField(primary_key=True)
    country = ForeignKeyField(Country, on_delete="CASCADE", on_update="CASCADE")


class Street(SyncModel):
    name = CharField(primary_key=True)
    city = ForeignKeyField(City, on_delete="CASCADE", null=True)


class Club(SyncModel):
    """Refers to what is no key."""

    name = CharField(primary_key=True)
    country = ForeignKeyField(
        Country, field=Country.short, null=True, on_delete="SET NULL", on_update="SET NULL"
    )


class Stamp(SyncModel):
    """Has the reference in its key."""

    country = ForeignKeyField(Country, on_delete="CASCADE", on_update="CASCADE")
    cents = IntegerField()

    class Meta:
        primary_key = peewee.CompositeKey("country", "cents")


class Plain(peewee.Model):
    """Of no consequence."""

    name = CharField(primary_key=True)


TRACKED = (City, Street, Club, Stamp)
OUTSIDE = (World, Country, Plain)

WAYS = [
    ("sqlite", "signals"),
    ("sqlite", "triggers"),
    ("postgres", "signals"),
    ("postgres", "triggers"),
    ("mysql", "signals"),
]


def rows() -> None:
    World.insert_many([{"id": 1, "name": "old"}, {"id": 2, "name": "new"}]).execute()
    Country.create(code="pt", short="p", world=1)
    Country.create(code="br", short="b", world=2, heir="pt")
    Country.create(code="is", short="i")
    for name, country in (("porto", "pt"), ("rio", "br"), ("vik", "is")):
        City.create(name=name, country=country)
        Street.create(name=f"{name} 1", city=name)
        Club.create(name=f"{name} fc", country=country[0])
        Stamp.create(country=country, cents=5)


def gone(name: str, country: str) -> list[Change]:
    return [
        delete(Street, f"{name} 1"),
        delete(City, name),
        modify(Club, f"{name} fc", country=None),
        delete(Stamp, [country, 5]),
    ]


class Case(NamedTuple):
    run: Callable[[], Any]
    expected: list[Change]
    without: str = ""
    """Where there is no such thing."""


def upon_code() -> dict[str, Any]:
    """MySQL knows no other conflict than all of them."""
    everywhere = isinstance(Country._meta.database, peewee.MySQLDatabase)
    return {} if everywhere else {"conflict_target": [Country.code]}


def delete_from_a_plain_table() -> Any:
    country = peewee.Table("country")
    return country.delete().where(country.c.code == "is").execute(Country._meta.database)


ICELAND = Country.code == "is"


CASES = {
    "instance": Case(lambda: Country.get_by_id("is").delete_instance(), gone("vik", "is")),
    "query": Case(lambda: Country.delete().where(ICELAND).execute(), gone("vik", "is")),
    "plain table": Case(delete_from_a_plain_table, gone("vik", "is")),
    "self-reference": Case(
        lambda: Country.delete().where(Country.code == "pt").execute(),
        [*gone("porto", "pt"), *gone("rio", "br")],
    ),
    "two steps": Case(
        lambda: World.delete().where(World.name == "new").execute(), gone("rio", "br")
    ),
    "nothing": Case(lambda: World.delete().where(World.name == "none").execute(), []),
    "key": Case(
        lambda: Country.update(code="ic", name="Iceland").where(ICELAND).execute(),
        [
            modify(City, "vik", country="ic"),
            delete(Stamp, ["is", 5]),
            create(Stamp, ["ic", 5]),
        ],
    ),
    "other field": Case(
        lambda: Country.update(short="x").where(ICELAND).execute(),
        [modify(Club, "vik fc", country=None)],
    ),
    "no field of theirs": Case(lambda: Country.update(name="x").where(ICELAND).execute(), []),
    "upsert": Case(
        lambda: (
            Country.insert(code="is", short="x")
            .on_conflict(**upon_code(), preserve=[Country.short])
            .as_rowcount()
            .execute()
        ),
        [modify(Club, "vik fc", country=None)],
    ),
    "returning": Case(
        lambda: list(
            Country.delete().where(ICELAND).returning(Country.code, Country.name).tuples().execute()
        ),
        gone("vik", "is"),
        "mysql",
    ),
    "replace": Case(
        lambda: Country.insert(code="xx", short="i").on_conflict_replace().execute(),
        gone("vik", "is"),
        "postgres",
    ),
    "replace two steps": Case(
        lambda: World.insert_many([{"id": 3, "name": "new"}]).on_conflict_replace().execute(),
        gone("rio", "br"),
        "postgres",
    ),
}


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, tuple[Device, Device]]]:
    """What was opened on servers; it takes longer than what is done there."""
    pairs: dict[str, tuple[Device, Device]] = {}
    yield pairs
    for pair in pairs.values():
        for device in pair:
            device.close()


Twins = Callable[[str, str], tuple[Device, Device]]


@pytest.fixture
def twins(open_device: OpenDevice, opened: Any, request: pytest.FixtureRequest) -> Twins:
    """An untracked device and a tracked one, empty."""

    def opening(where: str, recorder: str) -> tuple[Device, Device]:
        kinds: Any = ({"tracked": False}, {"recorder": recorder})
        if where == "sqlite":
            twin, device = (open_device(TRACKED, outside=OUTSIDE, **kind) for kind in kinds)
            return twin, device
        server: Server = request.getfixturevalue(where)
        if (where, recorder) not in opened:
            opened[where, recorder] = tuple(
                Device(
                    Path("there"),
                    TRACKED,
                    outside=OUTSIDE,
                    database=server.database(server.place()),
                    **kind,
                )
                for kind in kinds
            )
        for device in opened[where, recorder]:
            every = tables(device.models)
            ours = ["sharedlog_entry", "sharedlog_trace"]
            every += [name for name in ours if device.database.table_exists(name)]
            server.empty_tables(device.database, every)
        twin, device = opened[where, recorder]
        return twin, device

    return opening


@pytest.mark.parametrize(
    ("where", "recorder", "case"),
    [
        pytest.param(*way, case, id="-".join((*way, name)))
        for way in WAYS
        for name, case in CASES.items()
        if case.without != way[0]
    ],
)
def test_what_the_database_does_to_tracked_rows_is_recorded(
    where: str, recorder: str, case: Case, twins: Twins
) -> None:
    results = []
    twin, device = twins(where, recorder)
    for each in (twin, device):
        with each:
            rows()
            before = len(device.log())
            results.append(case.run())
    changes = [entry.change for entry in device.log()[before:]]
    assert sorted(changes, key=repr) == sorted(case.expected, key=repr)
    assert device.stored() == twin.stored()
    assert results[1] == results[0]


def test_the_parent_may_have_no_key_and_columns_of_any_kind(open_device: OpenDevice) -> None:
    class Odd(peewee.Field):
        field_type = "TEXT"

        def db_value(self, value: Any) -> Any:
            return None if value is None else repr(value)

    class Zone(peewee.Model):
        code = CharField(unique=True)
        odd = Odd(null=True)

        class Meta:
            primary_key = False

    class Clock(SyncModel):
        name = CharField(primary_key=True)
        zone = ForeignKeyField(Zone, field=Zone.code, on_delete="CASCADE", on_update="CASCADE")

    device = open_device([Clock], outside=[Zone])
    with device:
        Zone.insert_many([{"code": "utc", "odd": object}, {"code": "cet"}]).execute()
        Clock.create(name="big", zone="utc")
        Zone.update(code="gmt").where(Zone.code == "utc").execute()
        assert device.log()[-1].change == modify(Clock, "big", zone="gmt")
        Zone.delete().where(Zone.code == "gmt").execute()
        assert device.log()[-1].change == delete(Clock, "big")


def test_a_default_in_place_of_the_reference_is_recorded(open_device: OpenDevice) -> None:
    """InnoDB has no SET DEFAULT."""

    class Flag(SyncModel):
        name = CharField(primary_key=True)
        country = ForeignKeyField(
            Country,
            default="pt",
            constraints=[peewee.SQL("DEFAULT 'pt'")],
            on_delete="SET DEFAULT",
        )

    device = open_device([Flag], outside=(World, Country))
    with device:
        Country.create(code="pt", short="p")
        Country.create(code="is", short="i")
        Flag.create(name="cross", country="is")
        Country.delete().where(ICELAND).execute()
    assert device.log()[-1].change == modify(Flag, "cross", country="pt")


def test_other_devices_have_the_same_rows_then(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, other = (open_device(TRACKED, outside=OUTSIDE, shared_log=log) for _ in range(2))
    with one:
        rows()
        one.sync.sync()
    with other:
        World.insert_many([{"id": 1, "name": "old"}, {"id": 2, "name": "new"}]).execute()
        for code, world in (("pt", 1), ("br", 2), ("is", None)):
            Country.create(code=code, short=code[0], world=world)
        other.sync.sync()
    with one:
        World.delete().where(World.name == "new").execute()
        one.sync.sync()
    with other:
        other.sync.sync()
        assert World.select().count() == 2  # they stay, where nobody deleted them
    for table in tables(TRACKED):
        assert other.stored()[table] == one.stored()[table]
    assert one.sync.verify().equal and other.sync.verify().equal


def test_what_is_rolled_back_is_not_recorded(open_device: OpenDevice) -> None:
    device = open_device(TRACKED, outside=OUTSIDE)
    with device:
        rows()
        before = device.log()
        with device.database.atomic() as transaction:
            Country.delete().where(ICELAND).execute()
            assert len(device.log()) == len(before) + 4
            transaction.rollback()
        Country.create(code="xx", short="x", heir="is")
        with pytest.raises(peewee.IntegrityError):
            Country.update(short="p").where(ICELAND).execute()
    assert device.log() == before


@pytest.mark.parametrize(
    "write",
    [
        lambda: Plain.create(name="x"),
        lambda: Plain.insert(name="x").on_conflict_replace().execute(),
        lambda: Plain.delete().execute(),
        lambda: Country.create(code="xx", short="x"),
        lambda: Country.insert(code="xx", short="x").on_conflict_ignore().execute(),
        lambda: Country.update(name="x").execute(),
    ],
)
def test_a_write_that_changes_nothing_tracked_costs_nothing(
    write: Callable[[], Any], open_device: OpenDevice
) -> None:
    device = open_device(TRACKED, outside=OUTSIDE)
    said: list[str] = []
    with device:
        device.database.query_hooks.append(lambda event: said.append(event.sql))
        write()
    assert len(said) == 1, said
