"""The triggers stay what they are: found out when they vanish, taken off and put back, silent while
others' changes are applied."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.migrate import SqliteMigrator, migrate

from sharedlog import ConfigurationError, MemorySharedLog, Sync, SyncModel, UnsentWork
from sharedlog.care.inspection import opened
from sharedlog.events import Event, Unrecorded

from .conftest import OpenDevice
from .devices import Device


class Note(SyncModel):
    title = peewee.TextField(null=True)
    number = peewee.IntegerField(default=0)
    label = peewee.CharField(null=True)


class Tag(SyncModel):
    name = peewee.CharField(primary_key=True)


MODELS = (Note, Tag)


@pytest.fixture
def device(open_device: OpenDevice) -> Iterator[Device]:
    with open_device(MODELS, recorder="triggers") as device:
        yield device


def titles(device: Device) -> list[Any]:
    return [entry.value.get("title") for entry in device.log() if entry.collection == "note"]


def triggers(device: Device) -> list[str]:
    cursor = device.database.execute_sql(
        "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    )
    return [table for table, _ in cursor.fetchall()]


def unrecorded(sync: Sync) -> list[list[str]]:
    """What the sync tells from here on of tables that were not recorded."""
    found: list[list[str]] = []

    def listener(event: Event) -> None:
        if isinstance(event, Unrecorded):
            found.append(list(event.collections))

    sync.on_event(listener)
    return found


def again(device: Device, capture: Any = "triggers") -> Sync:
    """The next program at the same file."""
    device.sync.close()
    log = device.sync.shared_log
    return Sync(device.database, device.models, shared_log=log, capture=capture)


# -- the guard ---------------------------------------------------------------------------


def test_nothing_is_told_as_long_as_nothing_happens(device: Device) -> None:
    told = unrecorded(device.sync)
    Note.create(title="a")
    device.sync.sync()
    device.database.execute_sql("CREATE TABLE another (a)")
    device.sync.sync()
    sync = again(device)
    told += unrecorded(sync)
    with sync:
        sync.sync()
    assert told == []


def test_looking_is_cheap(device: Device) -> None:
    device.sync.sync()
    statements: list[str] = []
    device.database.query_hooks.append(lambda event: statements.append(event.sql))
    device.sync._recording.catch_up()
    device.database.query_hooks.clear()
    assert len(statements) <= 4


def rebuild(device: Device) -> None:
    migrate(SqliteMigrator(device.database).add_not_null("note", "title"))


def drop_one(device: Device) -> None:
    device.database.execute_sql('DROP TRIGGER "sharedlog_note_deleted"')


def exchange_one(device: Device) -> None:
    drop_one(device)
    device.database.execute_sql(
        'CREATE TRIGGER "sharedlog_note_deleted" AFTER DELETE ON note BEGIN SELECT 1; END'
    )


def turn_off(device: Device) -> None:
    device.database.execute_sql("UPDATE sharedlog_capture SET off = 1")


@pytest.mark.parametrize("harm", [rebuild, drop_one, exchange_one])
def test_triggers_that_vanished_are_put_back_and_that_is_told(
    harm: Callable[[Device], None], device: Device
) -> None:
    told = unrecorded(device.sync)
    before = triggers(device)
    Note.create(title="a")
    harm(device)
    Note.delete().execute()
    device.sync.sync()
    assert told == [["note"]]
    assert triggers(device) == before
    device.sync.adopt()
    Note.create(title="b")
    Note.delete().execute()
    device.sync.sync()
    assert [entry.operation for entry in device.log()] == ["create", "delete", "create", "delete"]
    assert told == [["note"]]


def test_a_program_that_finds_them_gone_tells_it_too(device: Device) -> None:
    drop_one(device)
    sync = again(device)
    told = unrecorded(sync)
    sync.setup()
    assert told == [["note"]]
    sync.close()


def test_recording_that_was_turned_off_is_turned_on(device: Device) -> None:
    told = unrecorded(device.sync)
    turn_off(device)
    Note.create(title="a")
    device.sync.sync()
    assert told == [["note", "tag"]]
    Note.create(title="b")
    assert titles(device) == ["b"]


def test_another_index_is_taken_notice_of(device: Device) -> None:
    told = unrecorded(device.sync)
    device.database.execute_sql("CREATE UNIQUE INDEX labels ON note (label)")
    device.sync.sync()
    Note.create(id=uuid.UUID(int=1), label="x")
    Note.replace(id=uuid.UUID(int=2), label="x").execute()
    assert [entry.operation for entry in device.log()] == ["create", "delete", "create"]
    assert told == []


def test_tables_of_ours_that_vanished_are_made_again(device: Device) -> None:
    for name in ("trace", "trace_shape", "rival", "capture"):
        device.database.execute_sql(f"DROP TABLE sharedlog_{name}")
    device.sync.sync()
    Note.create(title="a")
    assert titles(device) == ["a"]


# -- migrations --------------------------------------------------------------------------


def test_tables_may_be_altered_between(device: Device) -> None:
    told = unrecorded(device.sync)
    Note.create(title="a")
    migrator = SqliteMigrator(device.database)
    with pytest.raises(peewee.OperationalError, match="no such column"):
        migrate(migrator.drop_column("note", "label"))
    with device.sync.migrating():
        assert triggers(device) == []
        migrate(
            migrator.drop_column("note", "label"),
            migrator.add_not_null("note", "title"),
            migrator.add_column("note", "label", peewee.IntegerField(null=True)),
        )
        Note.update(number=5).execute()
    Note.create(title="b")
    assert titles(device) == ["a", "b"]
    device.sync.sync()
    assert told == []


def test_a_program_may_migrate_before_its_set_up(device: Device) -> None:
    class NewNote(SyncModel):
        title = peewee.TextField()
        stars = peewee.IntegerField(default=0)

        class Meta:
            table_name = "note"

    Note.create(title="a", number=1)
    device.sync.close()
    sync = Sync(device.database, [NewNote, Tag], shared_log=MemorySharedLog(), capture="triggers")
    told = unrecorded(sync)
    with device.database.bind_ctx([NewNote]):
        with sync.migrating():
            migrator = SqliteMigrator(device.database)
            migrate(
                migrator.drop_column("note", "number"),
                migrator.add_column("note", "stars", NewNote.stars),
            )
        sync.setup()
        NewNote.create(title="b")
        sync.sync()
    values = [entry.value for entry in device.log()]
    assert values == [
        {"title": "a", "number": {"raw": 1}, "label": None},  # whatever a number was
        {"title": "b", "stars": 0},
    ]
    assert told == []
    sync.close()


def test_a_new_file_may_be_migrated(tmp_path: Path) -> None:
    database = peewee.SqliteDatabase(str(tmp_path / "new.db"))
    for capture in ("triggers", "signals"):
        sync = Sync(database, MODELS, shared_log=MemorySharedLog(), capture=capture)
        with sync.migrating():
            database.execute_sql(f"CREATE TABLE {capture} (a)")
    database.close()


def test_a_migration_that_fails_leaves_the_triggers_on(device: Device) -> None:
    before = triggers(device)
    with pytest.raises(KeyError), device.sync.migrating():
        raise KeyError
    assert triggers(device) == before
    with pytest.raises(KeyError), device.sync.migrating():
        device.database.execute_sql("DROP TABLE note")
        raise KeyError
    with pytest.raises(ConfigurationError, match="create_tables"):
        device.sync.sync()


def test_a_migration_that_was_killed_is_told(device: Device) -> None:
    killed = device.sync.migrating()
    killed.__enter__()  # and never comes back
    sync = again(device)
    told = unrecorded(sync)
    sync.setup()
    assert told == [["note", "tag"]]
    sync.close()


def test_migrating_inside_a_transaction_is_refused(device: Device) -> None:
    with device.database.atomic(), pytest.raises(ConfigurationError, match="migrating"):
        device.sync.migrating().__enter__()


# -- from one recorder to the other ------------------------------------------------------


def test_an_application_changes_its_mind_and_back(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    device = open_device(MODELS, shared_log=log)
    other = open_device(MODELS, shared_log=log)
    with device:
        Note.create(title="by signals")
        for capture, title in (("triggers", "b"), ("signals", "c"), ("triggers", "d")):
            device.sync.close()
            device.sync = Sync(device.database, MODELS, shared_log=log, capture=capture)  # type: ignore[arg-type]
            device.sync.setup()
            Note.create(title=title)
            Note.update(number=Note.number + 1).execute()
        device.sync.sync()
        assert len(log.entries) == 4 + 2 + 3 + 4
    with other:
        other.sync.sync()
    assert other.stored() == device.stored()


def test_signals_take_what_triggers_noted_and_leave_none(device: Device) -> None:
    Note.create(title="a")
    sync = again(device, "signals")
    sync.setup()
    assert triggers(device) == []
    Note.create(title="b")
    sync.close()
    device.recorder = "signals"
    assert titles(device) == ["a", "b"]


def test_signals_may_migrate_a_file_that_triggers_recorded(device: Device) -> None:
    """The triggers of the program before are off inside, and what they noted is not lost."""
    Note.create(title="a", number=1)
    sync = again(device, "signals")
    device.recorder = "signals"
    told = unrecorded(sync)
    with pytest.raises(KeyError), sync.migrating():
        assert triggers(device) == []
        raise KeyError
    with sync.migrating():
        device.database.execute_sql("UPDATE note SET number = 10")
        migrator = SqliteMigrator(device.database)
        migrate(
            migrator.drop_column("note", "label"),
            migrator.add_column("note", "label", peewee.CharField(null=True)),
        )
    sync.setup()
    Note.create(title="b")
    sync.sync()
    assert [(entry.operation, entry.value) for entry in device.log()] == [
        ("create", {"title": "a", "number": 1, "label": None}),
        ("create", {"title": "b", "number": 0, "label": None}),
    ]
    assert triggers(device) == []
    assert told == []
    sync.close()


def test_two_programs_that_record_in_both_ways_are_told(tmp_path: Path) -> None:
    syncs = []
    for capture in ("signals", "triggers"):
        database = peewee.SqliteDatabase(str(tmp_path / "both.db"), pragmas={"journal_mode": "wal"})
        with database.bind_ctx(MODELS):
            database.create_tables(MODELS)
        sync = Sync(database, MODELS, shared_log=MemorySharedLog(), capture=capture)
        syncs.append(sync.setup())
    with pytest.raises(ConfigurationError, match="recorded twice"):
        syncs[0].sync()
    syncs[1].sync()
    for sync in syncs:
        sync.close()
        sync.database.close()


def test_what_cannot_be_is_said_at_once(device: Device, tmp_path: Path) -> None:
    log = MemorySharedLog()
    with pytest.raises(ConfigurationError, match="capture is 'trigger'"):
        Sync(device.database, MODELS, shared_log=log, capture="trigger")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="recorded already"):
        Sync(device.database, MODELS, shared_log=log, capture="triggers").setup()
    empty = peewee.SqliteDatabase(str(tmp_path / "empty.db"))
    sync = Sync(empty, MODELS, shared_log=log, capture="triggers")
    with empty.bind_ctx(MODELS):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="create_tables"):
                sync.setup()
        empty.create_tables(MODELS)
        sync.setup()
        sync.close()
    empty.close()

    class Elsewhere(SyncModel):
        class Meta:
            schema = "aux"

    empty.attach(str(tmp_path / "aux.db"), "aux")
    with empty.bind_ctx([Elsewhere]):
        empty.create_tables([Elsewhere])
        with pytest.raises(ConfigurationError, match="another file"):
            Sync(empty, [Elsewhere], shared_log=log, capture="triggers").setup()
    empty.close()


# -- looking after a device --------------------------------------------------------------


def test_what_another_program_wrote_is_no_difference(device: Device) -> None:
    Note.create(title="a")
    device.sync.sync()
    device.database.execute_sql("UPDATE note SET title = 'b'")
    assert device.sync.verify().equal
    device.sync.reset(force=True)
    device.sync.sync()
    assert device.sync.verify().equal
    assert device.log() == []


def test_a_reset_does_not_forget_what_was_only_noted(device: Device) -> None:
    device.sync.sync()
    device.database.execute_sql("INSERT INTO tag VALUES ('red')")
    with pytest.raises(UnsentWork):
        device.sync.reset()


def test_a_status_counts_what_is_only_noted(device: Device) -> None:
    Note.create(title="a")
    device.database.execute_sql("UPDATE note SET number = 7")
    with opened(Path(device.database.database)) as file:
        assert file.status().pending == 2
    with device.database.atomic():
        assert device.sync.status().pending == 2
    assert device.sync.status().pending == 2
    assert device.database.execute_sql("SELECT count(*) FROM sharedlog_trace").fetchone() == (0,)


# -- applying others' changes ------------------------------------------------------------


@pytest.fixture
def pair(open_device: OpenDevice) -> tuple[Device, Device]:
    log = MemorySharedLog()
    one, other = (open_device(MODELS, recorder="triggers", shared_log=log) for _ in range(2))
    with one:
        Note.create(id=uuid.UUID(int=1), title="a")
        Tag.create(name="red")
        one.sync.sync()
    with other:
        other.sync.sync()
    return one, other


def test_what_is_applied_is_not_recorded(pair: tuple[Device, Device]) -> None:
    one, other = pair
    with one:
        Note.update(title="b").execute()
        Tag.delete().execute()
        Tag.create(name="blue")
        one.sync.sync()
    with other:
        result = other.sync.sync()
        assert (result.created, result.modified, result.deleted) == (1, 1, 1)
        assert other.sync.status().pending == 0
        assert other.log() == []
        Note.update(title="c").execute()
        assert [entry.value for entry in other.log()] == [{"title": "c"}]


def test_nobody_can_write_unseen_meanwhile(pair: tuple[Device, Device]) -> None:
    _, other = pair
    off = "SELECT off FROM sharedlog_capture"
    with closing(sqlite3.connect(other.database.database, timeout=0)) as stranger, other:
        with other.sync._writing(), other.sync._recording.recorder.unrecorded():
            Note.update(title="unrecorded").execute()
            assert other.database.execute_sql(off).fetchone() == (1,)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                stranger.execute("UPDATE note SET title = 'unseen'")
        other.database.close()
        assert stranger.execute(off).fetchone() == (0,)
        stranger.execute("UPDATE note SET number = 9")
        stranger.commit()
        assert [entry.value for entry in other.log()] == [{"number": 9}]


def test_an_error_while_applying_does_not_leave_recording_off(pair: tuple[Device, Device]) -> None:
    _, other = pair
    with other:
        unrecorded = other.sync._recording.recorder.unrecorded
        with pytest.raises(KeyError), other.sync._writing(), unrecorded():
            raise KeyError
        with other.sync._writing(), pytest.raises(KeyError), unrecorded():
            raise KeyError  # is caught inside the transaction, which goes on
        Note.update(title="c").execute()
        assert [entry.value for entry in other.log()] == [{"title": "c"}]
        with other.sync._writing(), unrecorded():
            with unrecorded():
                pass
            Note.update(title="d").execute()
        assert [entry.value for entry in other.log()] == [{"title": "c"}]


KILLED = """\
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE sharedlog_capture SET off = 1")
connection.execute("UPDATE note SET title = 'half'")
connection.execute("PRAGMA cache_spill = 1")
os.kill(os.getpid(), 9)
"""


def test_a_kill_while_applying_does_not_leave_recording_off(pair: tuple[Device, Device]) -> None:
    _, other = pair
    other.database.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, other.database.database], check=False)
    assert killed.returncode == -9
    with other:
        assert Note.get().title == "a"
        Note.update(title="c").execute()
        assert [entry.value for entry in other.log()] == [{"title": "c"}]


@pytest.mark.parametrize("swapped", [False, True])
def test_triggers_that_went_with_a_table_which_was_renamed_are_dropped(
    swapped: bool, open_device: OpenDevice
) -> None:
    device = open_device([Note], recorder="triggers")
    with device:
        run = device.database.execute_sql
        [made] = run("SELECT sql FROM sqlite_master WHERE name = 'note'").fetchone()
        Note.create(id=uuid.UUID(int=1))
        device.sync.sync()
        if swapped:
            run(made.replace('"note"', '"note_new"', 1))
            run("INSERT INTO note_new SELECT * FROM note")
            run("ALTER TABLE note RENAME TO note_old")
            run("ALTER TABLE note_new RENAME TO note")
        else:
            run("ALTER TABLE note RENAME TO note_old")
            run(made)
            run("INSERT INTO note SELECT * FROM note_old")
        device.sync.sync()
        run("DELETE FROM note_old")
        Note.update(number=1).execute()
        assert [entry.operation for entry in device.log()] == ["create", "modify"]
