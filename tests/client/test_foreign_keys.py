"""Foreign keys of the database that the models do not tell of, or tell otherwise: refused at once,
for such a device would diverge, or be stuck with its first deletion from elsewhere."""

from __future__ import annotations

from typing import Any

import peewee
import pytest

from sharedlog import ConfigurationError, MemorySharedLog, Sync, SyncModel

from .conftest import OpenDevice
from .devices import RECORDERS


class Town(SyncModel):
    name = peewee.CharField(primary_key=True)


class Street(SyncModel):
    name = peewee.CharField(primary_key=True)
    town = peewee.ForeignKeyField(Town, null=True)


class House(SyncModel):
    """A reference that the model does not call one."""

    name = peewee.CharField(primary_key=True)
    town_id = peewee.CharField(null=True)


class Region(peewee.Model):
    name = peewee.CharField(primary_key=True)


class Village(SyncModel):
    name = peewee.CharField(primary_key=True)
    region = peewee.ForeignKeyField(Region, on_delete="CASCADE", null=True)


WHERE = ("sqlite", "postgres", "mysql")
NAME = "name VARCHAR(255) NOT NULL PRIMARY KEY"


def table(name: str, parent: str, acts: str = "") -> str:
    return (
        f"CREATE TABLE {name} ({NAME}, {parent}_id VARCHAR(255), "
        f"FOREIGN KEY ({parent}_id) REFERENCES {parent} (name) {acts})"
    )


COUNTRY = f"CREATE TABLE country ({NAME})"
VILLAGE = table("village", "region", "ON DELETE CASCADE")


def setup(open_device: OpenDevice, models: Any, where: str, *tables: str, **options: Any) -> None:
    """Set up a device with these tables beside the one of Town."""
    recorder = options.pop("recorder", "signals")
    device = open_device([Town], where=where, tracked=False, **options)
    for sql in tables:
        device.database.execute_sql(sql)
    sync = Sync(device.database, models, shared_log=MemorySharedLog(), capture=recorder)
    with device.database.bind_ctx(models, bind_refs=False, bind_backrefs=False), sync:
        pass


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("models", "tables", "told"),
    [
        pytest.param(
            [Town, Street],
            [table("street", "town", "ON DELETE CASCADE")],
            r"Street\.town.*ON DELETE CASCADE(.|\n)*on_delete=\"CASCADE\"",
            id="acts otherwise",
        ),
        pytest.param(
            [Town, House], [table("house", "town")], r"House.*town_id.*'town'", id="not declared"
        ),
        pytest.param(
            [Town], [table("mark", "town")], r"'mark'.*'town'(.|\n)*not tracked", id="not tracked"
        ),
    ],
)
def test_what_the_models_do_not_tell_is_refused(
    where: str, models: Any, tables: list[str], told: str, open_device: OpenDevice
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        setup(open_device, models, where, *tables)


@pytest.mark.parametrize("where", WHERE)
def test_what_harms_nothing_is_not_refused(where: str, open_device: OpenDevice) -> None:
    street = table("street", "town", "ON DELETE RESTRICT")
    mark = table("mark", "town", "ON DELETE SET NULL")
    setup(open_device, [Town, Street], where, street, mark)


@pytest.mark.parametrize("where", WHERE)
def test_of_a_reference_that_the_table_does_not_keep_is_warned(
    where: str, open_device: OpenDevice
) -> None:
    street = f"CREATE TABLE street ({NAME}, town_id VARCHAR(255))"
    with pytest.warns(UserWarning, match=r"Street\.town refers to Town") as warned:
        setup(open_device, [Town, Street], where, street)
    how = {"sqlite": """constraints=[SQL('REFERENCES "town" ("name")')]"""}
    assert how.get(where, "create_foreign_key(Street.town)") in str(warned[0].message)


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("rule", ["SET NULL", "CASCADE", None])
@pytest.mark.filterwarnings("ignore:Team.head refers to Player")
def test_devices_end_equal_where_the_tables_keep_no_reference(
    open_device: OpenDevice, recorder: str, rule: str | None
) -> None:
    """As Peewee makes a circle on SQLite."""

    class Team(SyncModel):
        name = peewee.CharField(primary_key=True)
        head: Any = peewee.DeferredForeignKey("Player", null=True, on_delete=rule)

    class Player(SyncModel):
        name = peewee.CharField(primary_key=True)
        team = peewee.ForeignKeyField(Team, on_delete="CASCADE")

    log = MemorySharedLog()
    devices = [open_device([Team, Player], recorder=recorder, shared_log=log) for _ in range(3)]
    with devices[0] as one:
        Team.create(name="a")
        Player.create(name="b", team="a")
        Team.update(head="b").execute()
        one.sync.sync()
    for device in devices[1:]:
        with device:
            device.sync.sync()
    with devices[0]:
        Player.delete_by_id("b")
    with devices[1]:
        Team.create(name="c", head="b")
    for device in devices * 2:
        with device:
            device.sync.sync()
    for device in devices:
        with device:
            assert sorted(Team.select(Team.name, Team.head).tuples()) == [("a", "b"), ("c", "b")]
            assert list(Player.select()) == []
            assert device.sync.parked() == []
            assert device.sync.verify().differences == []


def test_a_reference_of_several_columns_is_refused(open_device: OpenDevice) -> None:
    house = f"CREATE TABLE house ({NAME}, town_id TEXT, FOREIGN KEY (name, town_id) REFERENCES x)"
    with pytest.raises(ConfigurationError, match=r"\(name, town_id\)"):
        setup(open_device, [Town, House], "sqlite", house)


def test_nobody_asks_where_nobody_enforces(open_device: OpenDevice) -> None:
    mark = table("mark", "town")
    setup(open_device, [Town], "sqlite", mark, pragmas={"foreign_keys": 0})


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize(
    ("parent", "told"),
    [
        pytest.param("town", r"'region', which is not tracked(.|\n)*'town'", id="tracked"),
        pytest.param("country", r"Region does not tell.*country_id.*'country'", id="not declared"),
    ],
)
def test_a_table_outside_falls_with_no_other_than_its_model_tells(
    parent: str, told: str, recorder: str, open_device: OpenDevice
) -> None:
    """Least of all with a tracked one: what is deleted there elsewhere would be deleted here."""
    tables = COUNTRY, table("region", parent, "ON DELETE CASCADE"), VILLAGE
    with pytest.raises(ConfigurationError, match=told):
        setup(open_device, [Town, Village], "sqlite", *tables, recorder=recorder)


@pytest.mark.parametrize("parent", ["country", "town"])
@pytest.mark.parametrize("acts", ["ON DELETE SET NULL", "ON DELETE SET NULL ON UPDATE CASCADE"])
def test_one_that_takes_no_tracked_row_along_may_refer_to_any(
    parent: str, acts: str, open_device: OpenDevice
) -> None:
    tables = COUNTRY, table("region", parent, acts), VILLAGE
    setup(open_device, [Town, Village], "sqlite", *tables)


def test_a_table_that_is_made_later_is_looked_at_before_the_first_exchange(
    open_device: OpenDevice,
) -> None:
    device = open_device([Town])
    device.database.execute_sql(table("mark", "town"))
    with device, pytest.raises(ConfigurationError, match="'mark'"):
        device.sync.sync()


def test_a_parent_may_be_of_another_schema(open_device: OpenDevice) -> None:
    device = open_device([Town], where="postgres", tracked=False)
    schema = f"{device.database.execute_sql('SELECT current_schema()').fetchone()[0]}_2"

    class Far(SyncModel):
        name = peewee.CharField(primary_key=True)

    Far._meta.schema = schema

    class Near(SyncModel):
        name = peewee.CharField(primary_key=True)
        far = peewee.ForeignKeyField(Far, on_delete="CASCADE")

    models = [Far, Near]
    try:
        with device.database.bind_ctx(models):
            device.database.execute_sql(f"CREATE SCHEMA {schema}")
            device.database.create_tables(models)
            with Sync(device.database, models, shared_log=MemorySharedLog()):
                pass
    finally:
        device.database.execute_sql(f"DROP SCHEMA {schema} CASCADE")
