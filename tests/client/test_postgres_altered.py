"""PostgreSQL's triggers on tables that are unusual, or that somebody altered beside sharedlog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from sharedlog import ConfigurationError, SyncModel
from sharedlog.events import Refused, Unrecorded
from sharedlog.triggers.ddl import fingerprint
from tests.engines import SERVER

from .conftest import OpenDevice
from .devices import Device
from .servers import Server
from .test_postgres_triggers import schema_of

OLDER = (
    "CREATE OR REPLACE FUNCTION sharedlog_note() RETURNS trigger LANGUAGE plpgsql "
    "AS $$ BEGIN RETURN NULL; END $$"
)

OLDER_TRACES = (
    "ALTER TABLE sharedlog_trace DROP COLUMN place, ALTER was TYPE jsonb USING was::jsonb, "
    "ALTER became TYPE jsonb USING became::jsonb"
)


class Thing(SyncModel):
    """Its columns are named as what our own SQL might name rows and variables."""

    key = peewee.CharField(primary_key=True)
    t = peewee.TextField(null=True)
    was = peewee.TextField(null=True)
    new = peewee.TextField(null=True)


@pytest.fixture
def device(open_device: OpenDevice) -> Device:
    return opened(open_device, [Thing])


def opened(open_device: OpenDevice, models: Any, **options: Any) -> Device:
    return open_device(models, where="postgres", recorder="triggers", **options)


def run(device: Device, script: str, **names: str) -> None:
    for statement in script.format(schema=schema_of(device), **names).split(";"):
        device.database.execute_sql(statement)


def changes(device: Device) -> list[tuple[str, str, Any, Any]]:
    return [entry.change for entry in device.log()]


def names(device: Device) -> list[tuple[str, Any]]:
    return [(operation, pk) for operation, _, pk, _ in changes(device)]


def played(device: Device) -> list[Any]:
    """The keys of the rows that other devices have."""
    rows: dict[Any, Any] = {}
    for operation, pk in names(device):
        rows.pop(pk, None) if operation == "delete" else rows.setdefault(pk)
    return list(rows)


# -- what columns are called -------------------------------------------------------------


@pytest.mark.parametrize("value", ["x", None])
def test_columns_may_be_called_as_what_our_own_sql_speaks_of(value: Any, device: Device) -> None:
    with device:
        Thing.create(key="a", t=value, was=value, new=value)
        Thing.update(t="y", was="y", new="y").execute()
        device.database.execute_sql("TRUNCATE thing")
        same = {"t": value, "was": value, "new": value}
        assert changes(device) == [
            ("create", "thing", "a", same),
            ("modify", "thing", "a", {"t": "y", "was": "y", "new": "y"}),
            ("delete", "thing", "a", None),
        ]


def test_another_version_makes_its_own_function_and_nothing_was_unrecorded(device: Device) -> None:
    """What the version before left is as it left it, and is not what this one makes. What it
    noted is read."""
    told: list[str] = []
    device.sync.on_event(
        lambda e: told.extend(e.collections) if isinstance(e, Unrecorded) else None
    )
    with device:
        Thing.create(key="before")
        run(device, OLDER_TRACES)
        device.database.execute_sql(OLDER)
        triggers = device.sync.journal.dialect.triggers(device.database)
        there = {trigger.name: trigger.sql for trigger in triggers}
        device.sync.journal.set_state(**{"triggers thing": f"1 {fingerprint(there)}"})
        device.sync.close()
        device.sync.setup()
        Thing.create(key="a")
        assert (names(device), told) == ([("create", "before"), ("create", "a")], [])


# -- what columns hold -------------------------------------------------------------------


def test_json_that_jsonb_would_refuse_is_written_and_noted(open_device: OpenDevice) -> None:
    """Not by sharedlog's doing may the application's own write fail."""

    class Page(SyncModel):
        key = peewee.CharField(primary_key=True)
        data = peewee.JSONField(null=True)

    device = opened(open_device, [Page], tracked=False)
    refused: list[str] = []
    device.sync.on_event(lambda e: refused.append(e.reason) if isinstance(e, Refused) else None)
    with device:
        run(device, "ALTER TABLE page ALTER data TYPE json")
        device.sync.setup()
        device.database.execute_sql(
            r"""INSERT INTO page VALUES ('a', '{"x": "\u0000"}'), ('b', '["\ud800"]'),
            ('c', '[1.10, 1e2, 12345]')"""
        )
        device.sync.sync()
        said = {pk: value for operation, _, pk, value in changes(device) if operation == "create"}
        assert said == {
            "a": {"data": {"x": "\0"}},
            "b": {},
            "c": {"data": [1.1, 100.0, 12345]},
        }
        assert len(refused) == 1 and "data" in refused[0]
        run(device, "TRUNCATE page")
        assert [pk for operation, pk in names(device) if operation == "delete"] == ["a", "b", "c"]


def test_a_domain_over_a_domain_is_of_its_type(device: Device) -> None:
    class Day(SyncModel):
        key = peewee.CharField(primary_key=True)
        day = peewee.DateField(null=True)
        amount = peewee.DecimalField(null=True)

    with device:
        run(device, "CREATE DOMAIN d1 AS date; CREATE DOMAIN d2 AS d1; CREATE DOMAIN d3 AS d2")
        run(device, "CREATE DOMAIN n1 AS numeric; CREATE DOMAIN n2 AS n1")
        run(device, "CREATE TABLE day (key varchar PRIMARY KEY, day d3, amount n2)")
    options: Any = {"database": device.database, "recorder": "triggers", "create": False}
    device.sync.close()
    days = Device(Path("days"), [Day], **options)
    with days:
        run(days, "INSERT INTO day VALUES ('a', '2024-02-29', 1.50)")
        assert changes(days) == [("create", "day", "a", {"day": "2024-02-29", "amount": "1.5"})]
    days.close()


# -- columns that were renamed -----------------------------------------------------------


class Titled(SyncModel):
    key = peewee.CharField(primary_key=True)
    title = peewee.TextField(null=True)
    was = peewee.TextField(null=True)
    new = peewee.TextField(null=True)

    class Meta:
        table_name = "thing"
        formerly = {"title": "t"}  # noqa: RUF012


WRITES = """INSERT INTO thing (key, {t}) VALUES ('b', 'b');
    UPDATE thing SET {t} = 'c' WHERE key = 'a';
    UPDATE thing SET was = 'w' WHERE key = 'a'; DELETE FROM thing WHERE key = 'b'"""


def test_what_was_written_to_a_column_by_its_next_name_is_found(
    device: Device, postgres: Server
) -> None:
    with device:
        Thing.create(key="a")
        device.sync.sync()
        run(device, "ALTER TABLE thing RENAME COLUMN t TO title")
        run(device, WRITES, t="title")
    database = postgres.database(schema_of(device))
    options: Any = {"database": database, "recorder": "triggers", "create": False}
    titled = Device(Path("titled"), [Titled], **options)
    assert changes(titled)[1:] == [
        ("create", "thing", "b", {"t": "b", "was": None, "new": None}),
        ("modify", "thing", "a", {"t": "c"}),
        ("modify", "thing", "a", {"was": "w"}),
        ("delete", "thing", "b", None),
    ]
    titled.close()


def test_what_was_written_to_a_column_by_a_passing_name_is_told_and_never_null(
    device: Device,
) -> None:
    refused: list[str] = []
    device.sync.on_event(lambda e: refused.append(e.reason) if isinstance(e, Refused) else None)
    with device:
        Thing.create(key="a", t="a")
        device.sync.sync()
        run(device, "ALTER TABLE thing RENAME COLUMN t TO tt")
        run(device, WRITES, t="tt")
        run(device, "ALTER TABLE thing RENAME COLUMN key TO k")
        run(device, "UPDATE thing SET new = 'lost'; ALTER TABLE thing RENAME COLUMN k TO key")
        run(device, "ALTER TABLE thing RENAME COLUMN tt TO t")
        device.sync.sync()
        said = [
            change for change in changes(device)[1:] if change[3] != {} and change[2] in ("a", "b")
        ]
        assert said == [
            ("create", "thing", "b", {"was": None, "new": None}),
            ("modify", "thing", "a", {"was": "w"}),
            ("delete", "thing", "b", None),
        ]
    assert ["another name" in reason for reason in refused] == [True] * 3
    assert [reason.partition(":")[0] for reason in refused] == ["Thing.t", "Thing.t", "Thing"]


# -- tables that were renamed ------------------------------------------------------------

AWAY = "ALTER TABLE thing RENAME TO thing_old"
ELSEWHERE = "CREATE SCHEMA {schema}_old; ALTER TABLE thing SET SCHEMA {schema}_old"
COPY = "CREATE TABLE thing (LIKE {old} INCLUDING ALL); INSERT INTO thing SELECT * FROM {old}"


@pytest.mark.parametrize("away, old", [(AWAY, "thing_old"), (ELSEWHERE, "{schema}_old.thing")])
@pytest.mark.parametrize("looked", [True, False])
def test_what_is_done_to_a_table_that_was_replaced_is_nothing_to_others(
    looked: bool, away: str, old: str, device: Device
) -> None:
    """Its triggers go with it, and note for the one that has its name, until somebody looks."""
    old = old.format(schema=schema_of(device))
    with device:
        Thing.create(key="a")
        run(device, away)
        run(device, COPY, old=old)
        if looked:
            device.sync.sync()
        run(device, f"UPDATE {old} SET t = 'old'; DELETE FROM {old}")
        device.sync.sync()
        assert names(device) == [("create", "a")]
        Thing.create(key="b")
        device.sync.sync()
        assert names(device) == [("create", "a"), ("create", "b")]
        run(device, f"INSERT INTO {old} (key) VALUES ('c')")
        assert device.sync._recording.recorder.waiting() == 0
        run(device, f"DROP TABLE {old}; DROP SCHEMA IF EXISTS {{schema}}_old")


def test_migrating_takes_triggers_off_wherever_their_table_went(device: Device) -> None:
    with device:
        run(device, AWAY)
        with device.sync.migrating():
            run(device, COPY, old="thing_old")
            run(device, "DELETE FROM thing_old")
        Thing.create(key="a")
        assert names(device) == [("create", "a")]


def test_what_another_application_tracks_is_left_alone(device: Device, postgres: Server) -> None:
    class Other(SyncModel):
        key = peewee.CharField(primary_key=True)

    database = postgres.database(schema_of(device))
    other = Device(Path("other"), [Other], database=database, recorder="triggers")
    with device:
        run(device, AWAY)
        run(device, COPY, old="thing_old")
        device.sync.sync()
    with other:
        Other.create(key="a")
        assert other.sync._recording.recorder.waiting() == 1
    other.close()


# -- statements that are refused ---------------------------------------------------------


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_truncate_that_takes_more_than_its_transaction_sees_is_refused(
    level: str, device: Device
) -> None:
    with device, psycopg.connect(SERVER) as program:
        program.execute("SELECT set_config('search_path', %s, false)", (schema_of(device),))
        program.commit()
        program.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        program.execute("SELECT 1")
        Thing.create(key="unseen")
        if level == "READ COMMITTED":
            program.execute("TRUNCATE thing")
        else:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="READ COMMITTED"):
                program.execute("TRUNCATE thing")
        program.commit()
        left = [row.key for row in Thing.select()]
        assert played(device) == left == ([] if level == "READ COMMITTED" else ["unseen"])


PARTS = "CREATE TABLE thing (key varchar PRIMARY KEY, t text, was text, new text)"


@pytest.mark.parametrize(
    "script",
    [
        f"{PARTS} PARTITION BY LIST (key); CREATE TABLE part PARTITION OF thing DEFAULT",
        f"{PARTS}; CREATE TABLE part () INHERITS (thing)",
        "CREATE TABLE whole (key varchar, t text, was text, new text) PARTITION BY LIST (key); "
        "CREATE TABLE thing PARTITION OF whole (PRIMARY KEY (key)) DEFAULT",
    ],
)
def test_a_table_in_parts_is_refused_where_triggers_record(
    script: str, open_device: OpenDevice, postgres: Server
) -> None:
    device = opened(open_device, [Thing], create=False, tracked=False)
    run(device, script)
    with device:
        with pytest.raises(ConfigurationError, match=r"'thing' is partitioned.*\n.*signals"):
            device.sync.setup()
        database = postgres.database(schema_of(device))
    signals = Device(Path("signals"), [Thing], database=database, create=False)
    with signals:
        Thing.create(key="a")
        assert names(signals) == [("create", "a")]
    signals.close()


# -- where a table is --------------------------------------------------------------------

PUT_ASIDE = (
    "CREATE SCHEMA old_{schema}; ALTER TABLE thing SET SCHEMA old_{schema}; "
    "CREATE TABLE thing (LIKE old_{schema}.thing INCLUDING ALL); "
    "INSERT INTO thing SELECT * FROM old_{schema}.thing; DELETE FROM old_{schema}.thing"
)


def test_nothing_is_believed_of_a_schema_whose_name_ends_alike(device: Device) -> None:
    with device:
        Thing.create(key="a")
        device.sync.status()
        try:
            run(device, PUT_ASIDE)
            device.sync.status()
            assert played(device) == ["a"]
        finally:
            run(device, "DROP SCHEMA old_{schema} CASCADE")


def test_what_is_noted_while_a_table_has_another_name_is_the_tables(device: Device) -> None:
    with device:
        Thing.create(key="a", t="old")
        device.sync.status()
        with device.database.atomic():
            run(device, "ALTER TABLE thing RENAME TO x; UPDATE x SET t = 'new'")
            run(device, "ALTER TABLE x RENAME TO thing")
        device.sync.status()
        assert changes(device)[-1] == ("modify", "thing", "a", {"t": "new"})


def test_a_name_that_postgresql_cuts_off(open_device: OpenDevice) -> None:
    class Long(SyncModel):
        key = peewee.CharField(primary_key=True)

        class Meta:
            table_name = "l" * 64

    device = opened(open_device, [Long])
    with device:
        Long.create(key="a")
        device.sync.status()
        assert played(device) == ["a"]
