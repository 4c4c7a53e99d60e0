"""A change and its entry stand or fall together, whoever opened the transaction, and how."""

from __future__ import annotations

import multiprocessing
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import SyncModel

from .conftest import OpenDevice
from .devices import Device
from .shop import MODELS, NUMBERS, Comment, Note, Tag, key
from .test_capture import in_tables, played_back
from .writer import open_shared, write_in_a_process, write_turns


@pytest.fixture
def device(open_device: OpenDevice, recorder: str) -> Iterator[Device]:
    opened = open_device(MODELS, recorder=recorder)
    NUMBERS.restart()
    with opened:
        yield opened


def says_what_stands(device: Device) -> bool:
    return played_back(device) == in_tables(device, MODELS)


def groups(device: Device) -> list[int]:
    """The sizes of the groups, in order of their beginnings."""
    found = [entry.group for entry in device.log()]
    return [found.count(group) for group in dict.fromkeys(found)]


def alone(device: Device, statements: int) -> int:
    """How many groups so many statements are that come in autocommit, one after the other:
    triggers know of no transaction that nobody began, and see just that there is no pause."""
    return statements if device.recorder == "signals" else 1


def by_value() -> None:
    Note.create(title="x")


def by_reading_back() -> None:
    Note.update(title=Note.title + "!").execute()


def by_comparing() -> None:
    Note.delete().where(Note.title == "a").execute()


def many() -> None:
    Note.insert_many([{"title": title} for title in "xyz"]).execute()


WAYS = (by_value, by_reading_back, by_comparing, many)
Way = Callable[[], None]


# -- what is rolled back leaves nothing --------------------------------------------------


@pytest.mark.parametrize("write", WAYS)
def test_a_rollback_leaves_no_entry(device: Device, write: Way) -> None:
    Note.create(title="a")
    before = device.log(), device.stored()
    with device.database.atomic() as transaction:
        write()
        assert device.log() != before[0]
        transaction.rollback()
    assert (device.log(), device.stored()) == before


@pytest.mark.parametrize("write", WAYS)
def test_an_exception_leaves_no_entry(device: Device, write: Way) -> None:
    Note.create(title="a")
    before = device.log(), device.stored()
    with pytest.raises(KeyError), device.database.atomic():
        write()
        raise KeyError
    assert (device.log(), device.stored()) == before


@pytest.mark.parametrize("write", WAYS)
def test_a_savepoint_that_is_rolled_back_leaves_no_entry(device: Device, write: Way) -> None:
    Note.create(title="a")
    with device.database.atomic():
        Note.create(title="before")
        before = device.log()
        with pytest.raises(KeyError), device.database.atomic():
            write()
            raise KeyError
        assert device.log() == before
        Note.create(title="after")
    assert says_what_stands(device)
    assert groups(device) == [1, 2]


def test_the_first_entries_may_be_rolled_back(device: Device) -> None:
    with device.database.atomic():
        with pytest.raises(KeyError), device.database.atomic():
            Note.create(title="a")
            Note.create(title="b")
            raise KeyError
        Note.create(title="c")
        Note.create(title="d")
    assert [entry.value["title"] for entry in device.log()] == ["c", "d"]
    assert groups(device) == [2]


def clash_by_value() -> None:
    Tag.create(name="red")


def clash_by_reading_back() -> None:
    Tag.insert(name=peewee.fn.lower("RED")).execute()


def clash_of_many() -> None:
    Tag.insert_many([{"name": "green"}, {"name": "red"}]).execute()


def clash_of_an_update() -> None:
    Tag.update(name="red").where(Tag.name == "blue").execute()


def clash_of_an_upsert() -> None:
    query = Tag.insert(id=key(2), name="red")
    query.on_conflict(conflict_target=[Tag.id], preserve=[Tag.name]).execute()


def a_missing_parent() -> None:
    Comment.create(note=key(77))


def a_missing_value() -> None:
    Tag.create(name=None)


CLASHES = (
    clash_by_value,
    clash_by_reading_back,
    clash_of_many,
    clash_of_an_update,
    clash_of_an_upsert,
    a_missing_parent,
    a_missing_value,
)


@pytest.mark.parametrize("clash", CLASHES)
@pytest.mark.parametrize("together", [True, False], ids=["atomic", "autocommit"])
def test_a_failed_statement_leaves_no_entry(device: Device, clash: Way, together: bool) -> None:
    Tag.create(name="red")
    Tag.create(name="blue")
    before = device.log()
    if together:
        with device.database.atomic():
            Tag.create(name="first")
            with pytest.raises(peewee.IntegrityError):
                clash()
            Tag.create(name="last")
    else:
        with pytest.raises(peewee.IntegrityError):
            clash()
        assert device.log() == before
        assert not device.database.connection().in_transaction
        Tag.create(name="last")
    assert len(device.log()) == len(before) + 1 + together
    assert says_what_stands(device)


def test_a_commit_that_fails_leaves_no_entry(open_device: OpenDevice, recorder: str) -> None:
    class Parent(SyncModel):
        pass

    class Child(SyncModel):
        parent = peewee.ForeignKeyField(Parent, deferrable="INITIALLY DEFERRED")

    device = open_device([Parent, Child], recorder=recorder)
    with device, pytest.raises(peewee.IntegrityError):
        Child.create(parent=uuid.UUID(int=99))
    assert device.log() == []
    assert device.stored() == {"parent": [], "child": []}


def test_a_statement_that_rolls_back_the_transaction_leaves_nothing(device: Device) -> None:
    Tag.create(name="red")
    before = device.log(), device.stored()
    caught = []
    with pytest.raises(peewee.OperationalError, match="no transaction"), device.database.atomic():
        Tag.create(name="blue")
        try:
            Tag.insert(name="red").on_conflict("ROLLBACK").execute()
        except peewee.PeeweeException as error:
            caught.append(type(error))
    assert caught == [peewee.IntegrityError]
    assert (device.log(), device.stored()) == before


# -- transactions that are not atomic() --------------------------------------------------


@pytest.mark.parametrize("write", WAYS)
def test_autocommit_makes_a_group_of_each_statement(device: Device, write: Way) -> None:
    Note.create(title="a")
    write()
    assert not device.database.connection().in_transaction
    assert says_what_stands(device)
    assert len(groups(device)) == alone(device, 2)


@pytest.mark.parametrize("write", WAYS)
def test_autocommit_inside_manual_commit(device: Device, write: Way) -> None:
    Note.create(title="a")
    with device.database.manual_commit():
        write()
        assert not device.database.connection().in_transaction
        write()
        with pytest.raises(peewee.IntegrityError):
            Tag.create(name=None)
        assert not device.database.connection().in_transaction
    assert says_what_stands(device)
    assert len(groups(device)) == alone(device, 2 if write is by_comparing else 3)


def test_delete_recursively_inside_manual_commit(device: Device) -> None:
    root = Note.create(title="root")
    Comment.create(note=root)
    with device.database.manual_commit():
        root.delete_instance(recursive=True)
    assert says_what_stands(device)
    assert in_tables(device, MODELS) == {}


def test_transactions_inside_manual_commit_are_groups(device: Device) -> None:
    database = device.database
    with database.manual_commit():
        for end in (database.commit, database.rollback, database.commit):
            database.begin()
            Note.create(title="a")
            by_reading_back()
            end()
    assert says_what_stands(device)
    assert groups(device) == [2, 3]


def test_commits_and_rollbacks_inside_a_block_begin_groups(device: Device) -> None:
    with device.database.atomic() as transaction:
        Note.create(title="a")
        Note.create(title="b")
        transaction.commit()
        Note.create(title="c")
        transaction.rollback()
        Note.create(title="d")
        Note.create(title="e")
    assert says_what_stands(device)
    assert groups(device) == [2, 2]


def test_transactions_begun_by_hand_are_groups(device: Device) -> None:
    database = device.database
    for end in ("COMMIT", "ROLLBACK", "END"):
        database.execute_sql("BEGIN")
        Note.create(title="a")
        by_reading_back()
        by_comparing()
        many()
        database.execute_sql(end)
    assert says_what_stands(device)
    assert len(groups(device)) == 2


def test_savepoints_begun_by_hand_are_groups(device: Device) -> None:
    database = device.database
    for _ in range(2):
        with database.savepoint():
            Note.create(title="a")
            Note.create(title="b")
    database.execute_sql("SAVEPOINT one")
    Note.create(title="c")
    database.execute_sql("ROLLBACK TO one")
    database.execute_sql("RELEASE one")
    assert says_what_stands(device)
    assert groups(device) == [2, 2]


def test_a_session_is_a_group(device: Device) -> None:
    device.database.session_start()
    Note.create(title="a")
    Note.create(title="b")
    device.database.session_commit()
    device.database.session_start()
    Note.create(title="c")
    device.database.session_rollback()
    assert says_what_stands(device)
    assert groups(device) == [2]


def test_a_connection_that_was_closed_ends_the_group(device: Device) -> None:
    with device.database.atomic():
        Note.create(title="a")
    device.database.close()
    Note.create(title="b")
    assert groups(device) == [1, 1]


def test_entries_of_a_transaction_lie_one_after_the_other(
    open_device: OpenDevice, recorder: str
) -> None:
    device = open_device(MODELS, recorder=recorder, now=lambda: 1_700_000_000_000)
    with device:
        with device.database.atomic():
            many()
            Note.create(title="a")
            by_reading_back()
        Note.create(title="b")
    first = 1_700_000_000_000 * 1024
    assert [entry.ticks for entry in device.log()] == [first + n for n in range(9)]
    assert [entry.group for entry in device.log()] == [first] * 8 + [first + 8]


def test_a_clock_that_goes_back_does_not_take_timestamps_with_it(
    open_device: OpenDevice, recorder: str
) -> None:
    times = iter([2_000_000, 1_000_000, 1_500_000, 3_000_000, 10, 10, 10])
    device = open_device(MODELS, recorder=recorder, now=lambda: next(times))
    with device:
        for title in "abcde":
            Note.create(title=title)
            device.sync.status()  # brings what triggers noted into the log
    ticks = [entry.ticks for entry in device.log()]
    assert ticks == sorted(set(ticks))
    assert [entry.value["title"] for entry in device.log()] == list("abcde")


def test_recording_takes_the_write_lock_before_it_reads(device: Device) -> None:
    """A transaction that reads, then writes, fails at once if another one wrote in between."""
    if device.recorder == "triggers":
        return  # they read within the statement that writes
    Note.create(title="a")
    statements: list[str] = []
    for write in (by_reading_back, by_comparing, lambda: Tag.replace(name="x").execute()):
        statements.clear()
        with device.database.atomic():
            device.database.query_hooks.append(lambda event: statements.append(event.sql))
            write()
            device.database.query_hooks.clear()
        first = next(s for s in statements if not s.startswith(("SAVEPOINT", "PRAGMA")))
        assert first.startswith("UPDATE")


def test_closing_stops_the_recording(device: Device) -> None:
    Note.create(title="a")
    device.sync.close()
    Note.create(title="b")
    seen = {"signals": ["a"], "triggers": ["a", "b"]}[device.recorder]
    assert [entry.value["title"] for entry in device.log()] == seen
    device.sync.setup()
    Note.create(title="c")
    assert [entry.value["title"] for entry in device.log()] == [*seen, "c"]


# -- several writers ---------------------------------------------------------------------


def check_what_writers_left(device: Device, writers: list[str], turns: int) -> None:
    rows: dict[Any, Any] = {}
    order: dict[str, list[int]] = {writer: [] for writer in writers}
    size: dict[int, int] = {}
    owners: dict[int, set[str]] = {}
    created: dict[int, list[tuple[str, int]]] = {}
    log = device.log()
    ticks = [entry.ticks for entry in log]
    assert ticks == sorted(set(ticks))
    for entry in log:
        if entry.operation == "create":
            assert entry.pk not in rows
            rows[entry.pk] = dict(entry.value)
            turn = entry.value["writer"], entry.value["turn"]
            created.setdefault(entry.group, []).append(turn)
        else:
            rows[entry.pk].update(entry.value)
        writer = rows[entry.pk]["writer"]
        owners.setdefault(entry.group, set()).add(writer)
        size[entry.group] = size.get(entry.group, 0) + 1
        order[writer].append(rows[entry.pk]["turn"])
    kept = [turn for turn in range(turns) if turn % 4 != 3]
    expected = sorted((w, t, t) for w in writers for t in kept for _ in range(3 if t % 2 else 1))
    cursor = device.database.execute_sql('SELECT writer, turn, "change" FROM entry')
    assert sorted(cursor.fetchall()) == expected
    assert sorted((r["writer"], r["turn"], r["change"]) for r in rows.values()) == expected
    assert all(turns == sorted(turns) for turns in order.values())
    # What a transaction created is one group, and nothing else is in it.
    turns_of = {(w, t): 3 if t % 2 else 1 for w in writers for t in kept}
    assert sorted((some[0], len(some)) for some in created.values()) == sorted(turns_of.items())
    assert all(some.count(some[0]) == len(some) for some in created.values())
    if device.recorder == "triggers":
        return  # of what comes in autocommit they cannot tell who wrote it
    assert all(len(some) == 1 for some in owners.values())
    # Of a kept turn: what its transaction wrote, then what the update in autocommit wrote.
    assert sorted(size.values()) == sorted(
        n for _ in writers for turn in kept for n in ((4, 3) if turn % 2 else (2, 1))
    )


def test_threads_that_write_at_once(tmp_path: Path, recorder: str) -> None:
    device = open_shared(tmp_path / "shared.db", recorder, create=True)
    errors: list[BaseException] = []

    def work(writer: str) -> None:
        try:
            with device.database.connection_context():
                write_turns(device.database, writer, 40)
        except BaseException as error:
            errors.append(error)

    writers = ["one", "two", "three"]
    with device:
        threads = [threading.Thread(target=work, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        check_what_writers_left(device, writers, 40)
    device.close()


def test_processes_that_write_at_once(tmp_path: Path, recorder: str) -> None:
    path = tmp_path / "shared.db"
    device = open_shared(path, recorder, create=True)
    writers = ["one", "two"]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write_in_a_process, args=(path, recorder, writer, 40))
        for writer in writers
    ]
    for process in processes:
        process.start()
    with device:
        write_turns(device.database, "parent", 40)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    check_what_writers_left(device, [*writers, "parent"], 40)
    device.close()
