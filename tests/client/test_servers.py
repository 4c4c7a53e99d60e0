"""What applications on PostgreSQL and MySQL do beside writing: look after the device, go wrong."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase
from playhouse.postgres_ext import ArrayField

from sharedlog import (
    ConfigurationError,
    Counter,
    Maximum,
    Members,
    MemorySharedLog,
    MigrationRefused,
    Sync,
    SyncModel,
    ValueRefused,
    migrate_keys,
)
from sharedlog.changes import Entry
from sharedlog.events import Refused, RowKept
from tests.engines import SERVER

from .conftest import OpenDevice
from .devices import Device
from .servers import Server
from .writer import frozen


class Folder(SyncModel):
    key = peewee.CharField(primary_key=True)
    name = peewee.CharField(unique=True)


class Paper(SyncModel):
    key = peewee.CharField(primary_key=True)
    folder = peewee.ForeignKeyField(Folder, on_delete="CASCADE")
    below = peewee.ForeignKeyField("self", null=True, on_delete="SET NULL")
    copies = peewee.IntegerField(default=0)
    best = peewee.IntegerField(null=True)
    words = peewee.JSONField(null=True)

    class Meta:
        merge = {"copies": Counter(), "best": Maximum(), "words": Members()}  # noqa: RUF012


MODELS = [Folder, Paper]
WAYS = [("postgres", "signals"), ("postgres", "triggers"), ("mysql", "signals")]
on_each = pytest.mark.parametrize(("where", "recorder"), WAYS)


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


def sync(*devices: Device) -> None:
    for device in devices:
        with device:
            device.sync.sync()


@on_each
def test_fields_with_a_rule_add_up(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    devices = [
        open_device(MODELS, shared_log=log),
        open_device(MODELS, where=where, recorder=recorder, shared_log=log),
    ]
    with devices[0]:
        Folder.create(key="f", name="f")
        Paper.create(key="a", folder="f", copies=10, best=1, words=["x"])
    sync(*devices)
    for number, device in enumerate(devices, 1):
        with device:
            Paper.update(copies=Paper.copies + number, best=number * 5).execute()
            paper = Paper.get()
            paper.words = [*paper.words, f"w{number}"]
            paper.save()
    sync(*devices, *devices)
    for device in devices:
        with device:
            paper = Paper.get()
            assert (paper.copies, paper.best, paper.words) == (13, 10, ["w1", "w2", "x"])
    with devices[0]:
        here = devices[0].sync.digest(rows=True)
    assert devices[1].sync.digest(rows=True).compare(here) == []


@on_each
def test_rows_with_such_fields_are_created_and_get_other_keys(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, recorder=recorder, shared_log=log)
    other = open_device(MODELS, shared_log=log)
    with device:
        Folder.create(key="f", name="f")
        Paper.create(key="a", folder="f", copies=1, best=1, words=["x"])
        device.sync.sync()
        Paper.update(copies=Paper.copies + 1).execute()
        Paper.update(key="b", copies=Paper.copies + 1).execute()
    sync(device, other)
    for each in (device, other):
        with each:
            paper = Paper.get()
            assert (paper.key, paper.copies, paper.best, paper.words) == ("b", 3, 1, ["x"])


@on_each
def test_a_device_is_looked_after(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, recorder=recorder, shared_log=log, tracked=False)
    other = open_device(MODELS, shared_log=log)
    with device:
        device.database.execute_sql("INSERT INTO folder VALUES ('old', 'from before')")
        device.sync.setup()
        assert device.sync.adopt().created == 1
        Folder.create(key="new", name="new")
        assert device.sync.status().pending == 2
        device.sync.sync()
        assert [told.change.operation for told in device.sync.history(Folder.get_by_id("new"))]
        assert device.sync.prune(keep_ms=-1000) == 2
        device.sync.reset()
        assert device.sync.sync().received == 2
    sync(other)
    with other:
        assert sorted(folder.key for folder in Folder.select()) == ["new", "old"]


@on_each
def test_rows_in_the_way_are_parked_and_settled(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, recorder=recorder, shared_log=log)
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.create(key="a", name="same")
    with device:
        Folder.create(key="b", name="same")
    sync(other, device, other)
    for each in (device, other):
        with each:
            assert [(row.pk, row.code) for row in each.sync.parked()] == [("b", "UNIQUE")]
    with device:
        device.sync.resolve(device.sync.parked()[0], name="another")
    sync(device, other)
    for each in (device, other):
        with each:
            names = {folder.key: folder.name for folder in Folder.select()}
            assert names == {"a": "same", "b": "another"}


def test_a_key_that_an_older_row_has_to_its_collation_is_parked(
    log: MemorySharedLog, open_device: OpenDevice
) -> None:
    """By default MySQL takes capitals for equal; what is done to the other row blocks nobody."""
    device = open_device(MODELS, where="mysql", shared_log=log)
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.create(key="a", name="small")
        Folder.update(name="smaller").execute()
    with device:
        Folder.create(key="A", name="large")
    sync(other, device, other, device)
    with device:
        assert [(folder.key, folder.name) for folder in Folder.select()] == [("a", "smaller")]
        assert [(row.pk, row.code) for row in device.sync.parked()] == [("A", "UNIQUE")]


@on_each
def test_rows_come_in_any_order(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    """A circle of rows, and a child before its parent."""
    device = open_device(MODELS, where=where, recorder=recorder, shared_log=log)
    other = open_device(MODELS, shared_log=log, pragmas={"foreign_keys": 0})
    with other:
        Paper.create(key="a", folder="f", below="b")
        Paper.create(key="b", folder="f", below="a")
        other.sync.sync()
        device.sync.sync()
        Folder.create(key="f", name="f")
        other.sync.sync()
    with device:
        assert sorted(row.code for row in device.sync.parked()) == ["PARENT_MISSING"] * 2
        device.sync.sync()
        assert {paper.key: paper.below_id for paper in Paper.select()} == {"a": "b", "b": "a"}
        with pytest.raises(peewee.IntegrityError):
            Paper.create(key="c", folder="nowhere")


class Moment(peewee.DateTimeField):
    field_type = "DATETIME(6)"


def test_mysql_keeps_microseconds_where_the_column_does(
    log: MemorySharedLog, open_device: OpenDevice
) -> None:
    class Visit(SyncModel):
        key = peewee.CharField(primary_key=True)
        at = Moment()

    device = open_device([Visit], where="mysql", shared_log=log)
    other = open_device([Visit], shared_log=log)
    moment = datetime.datetime(2024, 2, 29, 12, 30, 0, 1)
    with other:
        Visit.create(key="a", at=moment)
    with device:
        Visit.create(key="b", at=moment)
    sync(other, device, other)
    for each in (device, other):
        with each:
            assert [visit.at for visit in Visit.select()] == [moment] * 2


@on_each
def test_keys_that_are_too_long_are_refused_and_set_aside(
    where: str, recorder: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    class Long(SyncModel):
        key = peewee.CharField(600, primary_key=True)

    device = open_device([Long], where=where, recorder=recorder, shared_log=log)
    other = open_device([Long], shared_log=log)
    refused: list[Refused] = []

    @device.sync.on_event
    def note(event: Any) -> None:
        if isinstance(event, Refused):
            refused.append(event)

    with device:
        if recorder == "signals":
            with pytest.raises(ValueRefused):
                Long.create(key="x" * 550)
        else:
            Long.create(key="x" * 550)
    with other:
        Long.insert_many([("a",), ("y" * 550,), ("b",)]).execute()
    sync(other, device)
    with device:
        assert {"a", "b"} <= {row.key for row in Long.select()}
        assert [row.code for row in device.sync.parked()] == ["UNREADABLE"]
    assert len(refused) == (recorder == "triggers")


def test_what_no_other_database_has_is_refused_by_name(open_device: OpenDevice) -> None:
    class Row(SyncModel):
        key = peewee.CharField(primary_key=True)
        numbers = ArrayField(peewee.IntegerField, null=True)

    device = open_device([Row], where="postgres")
    with device:
        Row.create(key="a")
        for write in (Row.insert(key="b", numbers=[1]), Row.update(numbers=[1])):
            with pytest.raises(ValueRefused, match=r"Row\.numbers"):
                write.execute()
        assert len(device.log()) == Row.select().count() == 1


def test_what_postgres_cannot_keep_as_text_stops_nothing(
    log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where="postgres", shared_log=log)
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.create(key="a", name="a")
        other.sync.sync()
    log._append(Entry("stranger", log.entries[-1].ticks + 1, 0, "no \0 JSON"))
    sync(device)
    with device:
        assert Folder.select().count() == 1
        assert [row.code for row in device.sync.parked()] == ["UNREADABLE"]


REFUSING = {
    "sqlite": "CREATE TRIGGER strict BEFORE INSERT ON folder WHEN NEW.name = 'no' "
    "BEGIN SELECT RAISE(ABORT, 'not that one'); END",
    "postgres": "CREATE FUNCTION strict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.name = 'no' THEN RAISE EXCEPTION 'not that one'; END IF; RETURN NEW; END $$; "
    "CREATE TRIGGER strict BEFORE INSERT ON folder FOR EACH ROW EXECUTE FUNCTION strict()",
    "mysql": "CREATE TRIGGER strict BEFORE INSERT ON folder FOR EACH ROW IF NEW.name = 'no' "
    "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not that one'; END IF",
}


@pytest.mark.parametrize("where", REFUSING)
def test_a_row_that_a_trigger_of_the_application_refuses_is_parked(
    where: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, shared_log=log)
    device.database.connection().cursor().execute(REFUSING[where])
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.insert_many(
            [{"key": name, "name": name} for name in ("yes", "no", "well")]
        ).execute()
    sync(other, device)
    with device:
        assert sorted(folder.key for folder in Folder.select()) == ["well", "yes"]
        (parked,) = device.sync.parked()
        assert (parked.pk, parked.code) == ("no", "CONSTRAINT")
        assert "not that one" in parked.reason


def test_rows_beside_one_that_is_refused_stand_however_often_it_is_tried(
    log: MemorySharedLog, open_device: OpenDevice
) -> None:
    """The driver prepares a statement for each combination of types; what it had not come to when
    another row was refused, it must not take for prepared the next time."""
    device = open_device(MODELS, where="postgres", shared_log=log)
    refusing = (
        REFUSING["postgres"].replace("folder", "paper").replace("name = 'no'", "key LIKE 'no %'")
    )
    device.database.connection().cursor().execute(refusing)
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.create(key="f", name="f")
    for turn in range(3):
        with other:
            Paper.create(key=f"no {turn}", folder="f", best=1)
            Paper.create(key=f"large {turn}", folder="f", best=100_000)
            Paper.create(key=f"none {turn}", folder="f")
        sync(other, device)
        with device:
            assert [row.pk for row in device.sync.parked()] == [f"no {n}" for n in range(turn + 1)]


@pytest.mark.parametrize("where", REFUSING)
def test_a_row_that_a_trigger_of_the_application_does_not_let_go_is_kept(
    where: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, shared_log=log)
    refusing = REFUSING[where].replace("BEFORE INSERT", "BEFORE DELETE").replace("NEW", "OLD")
    device.database.connection().cursor().execute(refusing)
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.insert_many([{"key": name, "name": name} for name in ("a", "no", "z")]).execute()
        sync(other, device)
        Folder.delete().where(Folder.key << ["a", "no"]).execute()
        Folder.create(key="new", name="new")
        other.sync.sync()
    kept: list[Any] = []

    @device.sync.on_event
    def note(event: Any) -> None:
        kept.extend([event.pk] if isinstance(event, RowKept) else ())

    assert device.sync.sync().deleted == 1
    with device:
        assert sorted(folder.key for folder in Folder.select()) == ["new", "no", "z"]
        assert kept == ["no"]
        drop = "DROP TRIGGER strict" + (" ON folder" if where == "postgres" else "")
        device.database.execute_sql(drop)
    with other:
        Folder.create(key="last", name="last")
    sync(other, device)
    with device:
        assert sorted(folder.key for folder in Folder.select()) == ["last", "new", "z"]


@pytest.mark.parametrize("where", REFUSING)
def test_untracked_children_go_with_what_others_delete(
    where: str, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, shared_log=log)
    device.database.execute_sql(
        "CREATE TABLE mark (folder VARCHAR(255), FOREIGN KEY (folder) REFERENCES folder (`key`) "
        "ON DELETE CASCADE)".replace("`", device.database.quote[0])
    )
    other = open_device(MODELS, shared_log=log)
    with other:
        Folder.create(key="a", name="a")
    sync(other, device)
    device.database.execute_sql("INSERT INTO mark VALUES ('a')")
    with other:
        Folder.delete().execute()
    sync(other, device)
    assert device.database.execute_sql("SELECT count(*) FROM mark").fetchone()[0] == 0
    with device, pytest.raises(peewee.IntegrityError):
        Paper.create(key="p", folder="a")  # foreign keys are checked as before


@on_each
def test_a_failed_write_leaves_no_entry(where: str, recorder: str, open_device: OpenDevice) -> None:
    device = open_device(MODELS, where=where, recorder=recorder)
    with device:
        Folder.create(key="a", name="a")
        with device.database.atomic():
            Folder.create(key="b", name="b")
            with pytest.raises(peewee.IntegrityError), device.database.atomic():
                Folder.create(key="c", name="c")
                Folder.create(key="d", name="a")
        with pytest.raises(peewee.IntegrityError):
            Folder.update(name="a").execute()
        assert [entry.pk for entry in device.log()] == ["a", "b"]


@pytest.mark.parametrize("where", ["postgres", "mysql"])
def test_a_transaction_that_looked_before_others_wrote_comes_after_them(
    where: str, open_device: OpenDevice
) -> None:
    device = open_device(MODELS, where=where, now=frozen)

    def write() -> None:
        with device.database.connection_context():
            Folder.create(key="b", name="b")
            Folder.update(name="others").where(Folder.key == "a").execute()

    with device:
        Folder.create(key="a", name="a")
        with device.database.atomic():
            assert Folder.select().count() == 1
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            Folder.update(name=Folder.name + "!").where(Folder.key == "a").execute()
        assert [(entry.pk, entry.value["name"]) for entry in device.log()] == [
            ("a", "a"),
            ("b", "b"),
            ("a", "others"),
            ("a", "others!"),
        ]


@pytest.mark.parametrize(
    ("where", "pooled"), [("postgres", PooledPostgresqlDatabase), ("mysql", PooledMySQLDatabase)]
)
def test_a_pool_of_connections_will_do(
    where: str, pooled: Any, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(where)
    plain = server.database(server.place())
    database = pooled(plain.database, max_connections=2, **plain.connect_params)
    with_options = {"prefer_psycopg3": True} if where == "postgres" else {"mariadb": True}
    database.init(plain.database, **plain.connect_params, **with_options)
    device = Device(Path("pooled"), MODELS, database=database)
    with device:
        for number in range(3):
            with database.connection_context() if database.is_closed() else database.atomic():
                Folder.create(key=str(number), name=str(number))
            database.close()
        assert len(device.log()) == 3
        device.sync.sync()
    device.close()
    database.close_all()


# -- what is refused ---------------------------------------------------------------------


def test_the_other_driver_is_refused() -> None:
    database = peewee.PostgresqlDatabase("nowhere")
    database._adapter = peewee.Psycopg2Adapter()  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="psycopg2") as refused:
        Sync(database, MODELS, shared_log=MemorySharedLog())
    assert "prefer_psycopg3=True" in str(refused.value)


def test_mysql_has_no_recording_by_triggers() -> None:
    with pytest.raises(ConfigurationError, match="triggers"):
        Sync(
            peewee.MySQLDatabase("nowhere"),
            MODELS,
            shared_log=MemorySharedLog(),
            capture="triggers",
        )


@pytest.mark.parametrize("where", ["postgres", "mysql"])
def test_what_is_for_files_only_says_so(where: str, open_device: OpenDevice) -> None:
    device = open_device(MODELS, where=where)
    with device, pytest.raises(ConfigurationError, match="SQLite"):
        device.sync.verify()


@pytest.fixture
def guest(postgres: Server) -> Iterator[tuple[str, str]]:
    """A place whose tables belong to somebody else, and a user who may write them."""
    place = postgres.place()
    name = f"guest_{place}"
    database = postgres.database(place)
    with database.bind_ctx(MODELS):
        database.create_tables(MODELS)
    database.execute_sql(f"CREATE ROLE {name} LOGIN")
    database.execute_sql(f"GRANT USAGE, CREATE ON SCHEMA {place} TO {name}")
    database.execute_sql(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {place} TO {name}"
    )
    yield place, name
    database.execute_sql(f"DROP OWNED BY {name} CASCADE")
    database.execute_sql(f"DROP ROLE {name}")
    database.close()


def test_what_only_the_owner_of_a_table_may_is_told(
    guest: tuple[str, str], postgres: Server
) -> None:
    place, name = guest
    database: Any = postgres.database(place)
    database.connect_params["options"] += f" -c role={name}"
    with database.bind_ctx(MODELS):
        sync = Sync(database, MODELS, shared_log=MemorySharedLog())
        with pytest.raises(ConfigurationError, match="cannot be deferred") as refused:
            sync.setup()
    assert "deferrable='INITIALLY IMMEDIATE'" in str(refused.value)
    with psycopg.connect(SERVER, autocommit=True) as owner:
        owner.execute("SELECT set_config('search_path', %s, false)", (place,))
        for column in ("folder", "below"):
            owner.execute(
                f"ALTER TABLE paper ALTER CONSTRAINT paper_{column}_id_fkey "
                "DEFERRABLE INITIALLY IMMEDIATE"
            )
    with database.bind_ctx(MODELS), sync:
        assert sync.status().pending == 0
    with database.bind_ctx(MODELS):
        by_triggers = Sync(database, MODELS, shared_log=MemorySharedLog(), capture="triggers")
        with pytest.raises(ConfigurationError, match="triggers cannot be made") as refused:
            by_triggers.setup()
    assert 'capture="signals"' in str(refused.value)
    database.close()


def test_keys_are_migrated_in_files_only(postgres: Server) -> None:
    database = postgres.database(postgres.place())
    with pytest.raises(MigrationRefused, match="SQLite"):
        migrate_keys(database, models=[Folder])
    database.close()
