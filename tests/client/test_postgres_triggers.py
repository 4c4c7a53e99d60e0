"""Recording by PostgreSQL's triggers: whoever writes, in whatever order, and nobody unseen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from sharedlog import ConfigurationError, MemorySharedLog, Sync, SyncModel
from sharedlog.events import Refused, Unrecorded
from tests.engines import SERVER

from .conftest import OpenDevice
from .devices import Device
from .programs import RENAMED, WANDERING, Program
from .servers import Server
from .test_capture import played_back


class Thing(SyncModel):
    key = peewee.CharField(primary_key=True)
    title = peewee.TextField(default="")
    amount = peewee.DecimalField(max_digits=30, decimal_places=20, default=0)
    share = peewee.DoubleField(null=True)


class Part(SyncModel):
    key = peewee.CharField(primary_key=True)
    thing = peewee.ForeignKeyField(Thing, on_delete="CASCADE")


MODELS = [Thing, Part]
Connection = psycopg.Connection[Any]


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


@pytest.fixture
def device(log: MemorySharedLog, open_device: OpenDevice) -> Device:
    return open_device(MODELS, where="postgres", recorder="triggers", shared_log=log)


def schema_of(device: Device) -> str:
    return str(device.database.execute_sql("SELECT current_schema()").fetchone()[0])


@pytest.fixture
def program(device: Device) -> Iterator[Connection]:
    """Another program, which knows nothing of sharedlog."""
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (schema_of(device),))
        yield connection


def insert(program: Connection, key: str, title: str = "") -> None:
    program.execute("INSERT INTO thing (key, title, amount) VALUES (%s, %s, 0)", (key, title))


def changes(device: Device) -> list[tuple[str, str, Any, Any]]:
    return [entry.change for entry in device.log()]


# -- whoever writes ----------------------------------------------------------------------


def copied(program: Connection) -> None:
    with program.cursor().copy("COPY thing (key, title, amount) FROM STDIN") as copy:
        copy.write("a\tx\t1\nb\ty\t2.5\n")


def upserted(program: Connection) -> None:
    insert(program, "a")
    program.execute(
        "INSERT INTO thing VALUES ('a', 'n', 1), ('b', 'n', 2) "
        "ON CONFLICT (key) DO UPDATE SET title = 'upserted'"
    )


def chained(program: Connection) -> None:
    insert(program, "a")
    program.execute(
        "WITH gone AS (DELETE FROM thing RETURNING *) "
        "INSERT INTO thing SELECT key || '2', title, amount FROM gone"
    )


def truncated(program: Connection) -> None:
    insert(program, "a")
    program.execute("INSERT INTO part VALUES ('p', 'a'), ('q', 'a')")
    program.execute("TRUNCATE thing CASCADE")
    insert(program, "b")


def emptied_by_a_cascade(program: Connection) -> None:
    insert(program, "a")
    program.execute("INSERT INTO part VALUES ('p', 'a')")
    program.execute("DELETE FROM thing")


def by_a_user_without_rights(program: Connection) -> None:
    """It may write the table, and knows none of ours."""
    row = program.execute("SELECT current_schema()").fetchone()
    assert row is not None
    schema, guest = row[0], f"guest_{row[0]}"
    script = (
        f"CREATE ROLE {guest}; GRANT USAGE ON SCHEMA {schema} TO {guest}; "
        f"GRANT SELECT, INSERT, UPDATE ON thing TO {guest}; SET ROLE {guest}"
    )
    program.execute(script.encode())
    try:
        insert(program, "a")
        program.execute("UPDATE thing SET title = 'guest'")
    finally:
        program.execute(f"RESET ROLE; DROP OWNED BY {guest}; DROP ROLE {guest}".encode())


def in_a_savepoint(program: Connection) -> None:
    with program.transaction():
        insert(program, "a")
        with program.transaction(force_rollback=True):
            insert(program, "b")


@pytest.mark.parametrize(
    "write",
    [
        copied,
        upserted,
        chained,
        truncated,
        emptied_by_a_cascade,
        by_a_user_without_rights,
        in_a_savepoint,
    ],
)
def test_whoever_writes_is_recorded(
    write: Callable[[Connection], None], device: Device, program: Connection
) -> None:
    write(program)
    assert len(device.log()) > 0
    assert as_numbers(played_back(device)) == as_numbers(in_rows(device))


def in_rows(device: Device) -> dict[tuple[str, str], dict[str, Any]]:
    with device:
        things = {
            ("thing", f'"{row.key}"'): {
                "title": row.title,
                "amount": str(row.amount.normalize()),
                "share": row.share,
            }
            for row in Thing.select()
        }
        parts = {("part", f'"{row.key}"'): {"thing": row.thing_id} for row in Part.select()}
    return {**things, **parts}


def as_numbers(rows: dict[tuple[str, str], dict[str, Any]]) -> dict[Any, Any]:
    return {
        row: {name: float(v) if name == "amount" else v for name, v in values.items()}
        for row, values in rows.items()
    }


def test_digits_that_no_float_has_arrive(device: Device, program: Connection, log: Any) -> None:
    program.execute("INSERT INTO thing VALUES ('a', '', 1234567890.12345678901234567890, 0.1)")
    assert changes(device) == [
        (
            "create",
            "thing",
            "a",
            {"title": "", "amount": "1234567890.1234567890123456789", "share": 0.1},
        )
    ]


# -- transactions ------------------------------------------------------------------------


def test_a_transaction_is_a_group_whoever_writes_beside_it(
    device: Device, program: Connection
) -> None:
    with psycopg.connect(SERVER) as other:
        other.execute("SELECT set_config('search_path', %s, false)", (schema_of(device),))
        insert(other, "a1")
        insert(program, "b")
        insert(other, "a2")
        insert(program, "c")
        other.commit()
    groups: dict[int, list[str]] = {}
    for entry in device.log():
        groups.setdefault(entry.group, []).append(entry.pk)
    assert list(groups.values()) == [["b"], ["a1", "a2"], ["c"]]


def test_a_row_gets_what_was_committed_last(device: Device, program: Connection) -> None:
    """A transaction that began before another one may write a row after it."""
    insert(program, "a")
    with psycopg.connect(SERVER) as early:
        early.execute("SELECT set_config('search_path', %s, false)", (schema_of(device),))
        insert(early, "b")
        program.execute("UPDATE thing SET title = 'first' WHERE key = 'a'")
        early.execute("UPDATE thing SET title = 'last' WHERE key = 'a'")
        early.commit()
    assert changes(device)[-1] == ("modify", "thing", "a", {"title": "last"})


def test_a_trigger_that_writes_the_row_again_comes_after(
    device: Device, program: Connection
) -> None:
    program.execute(
        """CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE thing SET title = upper(title) WHERE key = NEW.key; RETURN NULL; END $$"""
    )
    program.execute(
        "CREATE TRIGGER a_first AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION again()"
    )
    insert(program, "a", "small")
    assert [(operation, value["title"]) for operation, _, _, value in changes(device)] == [
        ("create", "small"),
        ("modify", "SMALL"),
    ]


def test_a_trigger_can_rest_while_others_changes_are_applied(
    device: Device, program: Connection, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    program.execute(
        """CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE thing SET title = title || '!' WHERE key = NEW.key; RETURN NULL; END $$"""
    )
    program.execute(
        "CREATE TRIGGER mark AFTER INSERT ON thing FOR EACH ROW "
        "WHEN (current_setting('sharedlog.off', true) IS DISTINCT FROM '1') EXECUTE FUNCTION mark()"
    )
    other = open_device(MODELS, shared_log=log)
    with other:
        Thing.create(key="theirs", title="a")
        other.sync.sync()
    with device:
        device.sync.sync()
        insert(program, "ours", "b")
        assert {row.key: row.title for row in Thing.select()} == {"theirs": "a", "ours": "b!"}


def test_nobody_writes_between_what_is_harvested_and_what_is_applied(
    device: Device, program: Connection, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    """Another program that writes meanwhile waits, and is recorded."""
    insert(program, "a")
    other = open_device(MODELS, shared_log=log)
    done = threading.Event()

    def write() -> None:
        program.execute("UPDATE thing SET title = 'theirs' WHERE key = 'a'")
        done.set()

    thread = threading.Thread(target=write)
    with device:
        with device.sync._writing():
            thread.start()
            assert not done.wait(0.3)
            with device.sync._recording.recorder.unrecorded():
                Thing.update(title="applied").execute()
        thread.join()
        device.sync.sync()
    with other:
        other.sync.sync()
        assert [row.title for row in Thing.select()] == ["theirs"]


def test_what_is_applied_is_not_recorded(
    device: Device, log: MemorySharedLog, open_device: OpenDevice
) -> None:
    other = open_device(MODELS, shared_log=log)
    with other:
        Thing.create(key="a")
        Part.create(key="p", thing="a")
        other.sync.sync()
    with device:
        device.sync.sync()
        assert (Part.select().count(), device.log()) == (1, [])
        Thing.update(title="x").execute()
        assert [entry.value for entry in device.log()] == [{"title": "x"}]


def test_an_error_while_applying_does_not_leave_recording_off(device: Device) -> None:
    unrecorded = device.sync._recording.recorder.unrecorded
    with device:
        with device.sync._writing(), pytest.raises(KeyError), unrecorded():
            raise KeyError  # is caught inside the transaction, which goes on
        Thing.create(key="a")
        with pytest.raises(peewee.ProgrammingError), device.sync._writing(), unrecorded():
            device.database.execute_sql("NONSENSE")
        Thing.create(key="b")
        assert [entry.pk for entry in device.log()] == ["a", "b"]


def test_a_large_transaction_is_read_in_parts(
    device: Device, program: Connection, log: MemorySharedLog
) -> None:
    program.execute("INSERT INTO thing SELECT n, '', 0 FROM generate_series(1, 2345) AS n")
    insert(program, "last")
    with device:
        device.sync.sync()
    assert len(log.entries) == 2346
    assert [entry.ticks for entry in log.entries] == sorted({e.ticks for e in log.entries})
    assert device.sync._recording.recorder.waiting() == 0


# -- values that cannot be carried -------------------------------------------------------


def test_a_value_that_cannot_be_carried_is_told_and_stops_nothing(
    device: Device, program: Connection
) -> None:
    refused: list[Refused] = []
    device.sync.on_event(lambda e: refused.append(e) if isinstance(e, Refused) else None)
    program.execute("INSERT INTO thing VALUES ('a', 'x', 1, 'NaN'), ('b', 'y', 'NaN', 0.5)")
    with device:
        device.sync.sync()
    assert len(refused) == 2
    assert ["share" in refused[0].reason, "amount" in refused[1].reason] == [True, True]
    said = {entry.pk: entry.value for entry in device.log() if entry.operation == "create"}
    assert said == {"a": {"title": "x", "amount": "1"}, "b": {"title": "y", "share": 0.5}}


# -- the triggers themselves -------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        'DROP TRIGGER "00_sharedlog_note" ON thing',
        'ALTER TABLE thing DISABLE TRIGGER "00_sharedlog_note"',
        "ALTER TABLE thing DISABLE TRIGGER ALL",
        "CREATE OR REPLACE FUNCTION sharedlog_note() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RETURN NULL; END $$",
    ],
)
def test_triggers_that_are_not_as_they_were_are_put_back_and_that_is_told(
    harm: str, device: Device, program: Connection
) -> None:
    told: list[str] = []
    device.sync.on_event(
        lambda e: told.extend(e.collections) if isinstance(e, Unrecorded) else None
    )
    with device:
        device.sync.sync()
        assert told == []
        program.execute(harm)
        insert(program, "unseen")
        device.sync.sync()
        assert "thing" in told
        insert(program, "seen")
        device.sync.sync()
        assert [entry.pk for entry in device.log()] == ["seen"]
        device.sync.adopt()
        assert sorted(entry.pk for entry in device.log()) == ["seen", "unseen"]


def test_a_sync_asks_little_of_triggers_that_are_right(device: Device) -> None:
    with device:
        device.sync.sync()
        statements: list[str] = []
        device.database.query_hooks.append(lambda event: statements.append(event.sql))
        device.sync._recording.catch_up()
        assert len(statements) == 2, statements


def test_tables_may_be_altered_between(device: Device, program: Connection) -> None:
    with device:
        with device.sync.migrating():
            program.execute("ALTER TABLE thing ALTER COLUMN title TYPE varchar(20)")
            insert(program, "unseen")
        insert(program, "seen")
        assert [entry.pk for entry in device.log()] == ["seen"]


@pytest.mark.parametrize("versions", [RENAMED, WANDERING])
def test_names_may_change_while_changes_wait(versions: Sequence[Program], postgres: Server) -> None:
    """What a program of another version noted has its names, and is understood."""
    log, place = MemorySharedLog(), postgres.place()
    seen = []
    for number, version in enumerate(versions):
        device = open_program(version, postgres, place, log, create=number == 0)
        with device:
            for sql in version.migration:
                device.database.execute_sql(sql)
            device.sync.setup()
            version.note.create(key=f"k{number}", price=number)
            if number == len(versions) - 1:
                device.sync.sync()
                seen = [(entry.pk, entry.value) for entry in device.log()]
        device.close()
    assert [pk for pk, _ in seen] == ["k0", "k1", "k2"]
    assert [value["price"] for _, value in seen] == [0, 1, 2]


def open_program(version: Program, server: Server, place: str, log: Any, *, create: bool) -> Device:
    options: Any = {"recorder": "triggers", "shared_log": log, "tracked": False, "create": create}
    database = server.database(place)
    # Its migration runs before its setup(), as an application's does.
    return Device(Path("program"), version.models, database=database, **options)


def test_two_ways_of_recording_at_once_are_refused(device: Device, postgres: Server) -> None:
    with device:
        device.sync.sync()
        same = postgres.database(schema_of(device))
        with same.bind_ctx(MODELS):
            signals = Sync(same, MODELS, shared_log=MemorySharedLog())
            signals.setup()  # takes the triggers off
            signals.close()
        told: list[str] = []
        device.sync.on_event(
            lambda e: told.extend(e.collections) if isinstance(e, Unrecorded) else None
        )
        device.sync.sync()
        with same.bind_ctx(MODELS):
            again = Sync(same, MODELS, shared_log=MemorySharedLog())
            again.setup()
            device.sync.sync()
            with pytest.raises(ConfigurationError, match="by triggers"):
                again.sync()
            again.close()
        same.close()
    assert told == []
