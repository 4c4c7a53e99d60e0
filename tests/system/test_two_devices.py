"""Two devices, two files, one service, real HTTP: what a user lives through."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
import pytest
from peewee import chunked

from sharedlog import (
    ConfigurationError,
    ConnectionFailed,
    Event,
    GraphQLSharedLog,
    LocalTransport,
    MemorySharedLog,
    Sync,
    Transport,
    Unauthorized,
)
from sharedlog.events import Received, Sending
from sharedlog.limits import GROUP_ENTRIES
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.system.crash_world import (
    UNSENT,
    Folder,
    Note,
    check_client,
    check_equal,
    device,
    read_client,
    read_log,
)
from tests.system.service_process import ServiceProcess

Open = Callable[[str], AbstractContextManager[Sync]]


@pytest.fixture
def opened(service: ServiceProcess, tmp_path: Path) -> Open:
    """Opens a device by its name: `with opened("a") as sync`."""
    return lambda name: device(
        tmp_path / f"{name}.db", url=service.url, token=service.token, batch_size=5
    )


def assert_equal(service: ServiceProcess, folder: Path) -> None:
    clients = [read_client(folder / f"{name}.db") for name in "ab"]
    check_equal(clients, read_log(service.db))


def sync_all(opened: Open) -> None:
    for name in "aba":
        with opened(name) as sync:
            sync.sync()


# -- the main job ------------------------------------------------------------------------


def test_devices_edit_the_same_rows_offline_and_end_equal(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        Folder.create(key="f", name="from a")
        for number in range(12):
            Note.create(key=f"n{number}", title="from a", folder="f")
        result = a.sync()
        assert (result.sent, result.received, result.exchanges) == (13, 0, 3)
    with opened("b") as b:
        assert b.sync().created == 13
        note = Note.get_by_id("n0")
        note.title, note.stars = "from b", 5
        note.save()
        Note.get_by_id("n1").delete_instance()
        Note.update(title="b moves it out", folder=None).where(Note.key == "n2").execute()
    with opened("a") as a:
        Note.update(title="later, from a").where(Note.key == "n0").execute()
        Note.update(stars=9).where(Note.key == "n1").execute()
        Folder.delete_by_id("f")  # and all its notes, by ON DELETE CASCADE
        a.sync()
    with opened("b") as b:
        Note.create(key="n99", title="nothing but new")
        result = b.sync()
        assert result.sent == 4
        decided = {(found.pk, found.field) for found in result.conflicts}
        assert {("n0", None), ("n1", None)} <= decided
    with opened("a") as a:
        a.sync()
    assert_equal(service, tmp_path)
    # Deleted with its folder by a, after b had moved it out: the deletion is later.
    assert sorted(read_client(tmp_path / "a.db").tables["note"]) == ["n99"]


def test_defaults_and_upserts_arrive_as_they_were_written(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        Note.insert_many([{"key": "n1", "title": "no word of stars"}]).execute()
        a.sync()
    with opened("b") as b:
        b.sync()
        assert Note.get_by_id("n1").stars == 0
        Note.update(title="from b").where(Note.key == "n1").execute()
        b.sync()
    with opened("a") as a:
        # The key is not the first of the columns.
        Note.insert_many([{"title": "lost", "stars": 7, "key": "n1"}]).on_conflict(
            conflict_target=[Note.key], preserve=[Note.stars]
        ).execute()
        entry = read_client(tmp_path / "a.db").changes()[-1]
        assert (entry["operation"], entry["value"]) == ("modify", {"stars": 7})
        a.sync()
    sync_all(opened)
    assert_equal(service, tmp_path)
    note = read_client(tmp_path / "a.db").tables["note"]["n1"]
    assert (note["title"], note["stars"]) == ("from b", 7)


def test_statement_on_more_rows_than_a_group_holds_is_recorded_whole(tmp_path: Path) -> None:
    count = 2 * GROUP_ENTRIES + 1
    with device(tmp_path / "a.db", shared_log=MemorySharedLog()) as a:
        with a.database.atomic():
            for some in chunked(({"key": f"{i}", "title": "many"} for i in range(count)), 1000):
                Note.insert_many(some).execute()
        assert a.status().pending == count
        assert Note.update(stars=Note.stars + 1).execute() == count
        assert a.status().pending == 2 * count
        sizes = Counter(e.ticks - e.offset for e in read_client(tmp_path / "a.db").entries)
        assert len(sizes) == 6
        assert max(sizes.values()) == GROUP_ENTRIES
    check_client(read_client(tmp_path / "a.db"), [])


# -- the service is not there, or not for you --------------------------------------------


def test_unreachable_service_costs_nothing(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    service.stop()
    with opened("a") as a:
        Note.create(key="n1", title="offline, before it ever met the service")
        with pytest.raises(ConnectionFailed, match="Cannot reach the service") as caught:
            a.sync()
        assert caught.value.retryable
        assert "the next sync() sends them" in (caught.value.hint or "")
        Note.create(key="n2", title="offline")
        assert a.status().pending == 2
        service.start()
        assert a.sync().sent == 2
        service.stop()
        Note.get_by_id("n2").delete_instance()
        for stage in (a.sync, a.send, a.receive):
            with pytest.raises(ConnectionFailed):
                stage()
        assert a.reconcile().received == 0  # needs no service
        service.start()
        assert a.sync().sent == 1
    sync_all(opened)
    assert_equal(service, tmp_path)


def test_silent_service_is_given_up_on(tmp_path: Path) -> None:
    """Something accepts connections there and hangs up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/graphql"

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with device(tmp_path / "a.db", url=url, token="any") as a:
            Note.create(key="n1", title="kept")
            with pytest.raises(ConnectionFailed):
                a.sync()
            assert a.status().pending == 1
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_wrong_token_is_refused_and_nothing_lost(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with device(tmp_path / "a.db", url=service.url, token="slog_wrong") as a:
        Note.create(key="n1", title="kept")
        with pytest.raises(Unauthorized, match="sharedlog token create"):
            a.sync()
        Note.create(key="n2", title="kept, too")
        assert a.status().pending == 2
    assert read_log(service.db) == []
    sync_all(opened)
    assert len(read_log(service.db)) == 2
    assert_equal(service, tmp_path)


def test_token_of_somebody_else_does_not_open_this_log(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        Note.create(key="n1", title="mine")
        a.sync()
    other = service.make_token("somebody else")
    with device(tmp_path / "a.db", url=service.url, token=other) as a:
        Note.create(key="n2", title="not theirs")
        with pytest.raises(Exception) as caught:
            a.sync()
        assert type(caught.value).__name__ in ("DeviceRefused", "Unauthorized")
    sync_all(opened)


# -- the service ends --------------------------------------------------------------------


@pytest.mark.parametrize("moment", [Sending, Received])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_service_ends_in_the_middle_and_comes_back(
    service: ServiceProcess,
    opened: Open,
    tmp_path: Path,
    moment: type[Event],
    number: signal.Signals,
) -> None:
    with opened("b") as b:
        for i in range(20):
            Note.create(key=f"b{i}", title="from b")
        b.sync()
    with opened("a") as a:
        for i in range(20):
            Note.create(key=f"a{i}", title="from a")
        moments = 0

        @a.on_event
        def end_the_service(event: Event) -> None:
            nonlocal moments
            moments += isinstance(event, moment)
            if isinstance(event, moment) and moments == 3:
                service.signal(number)
                service.wait()

        with pytest.raises(ConnectionFailed):
            a.sync()
        log = read_log(service.db)
        check_client(read_client(tmp_path / "a.db"), log)
        assert 20 < len(log) < 40
        Note.create(key="a99", title="meanwhile")
        service.start()
        a.sync()
    sync_all(opened)
    assert_equal(service, tmp_path)


def test_service_stops_at_once_and_leaves_one_file(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        Note.create(key="n1", title="the connection is kept open")
        a.sync()
        assert service.stop() in (0, -signal.SIGTERM)
        assert not service.db.with_name("service.db-wal").exists()
        assert "Traceback" not in service.output.read_text()
        service.start()
        Note.create(key="n2", title="by a new connection")
        assert a.sync().sent == 1
    sync_all(opened)
    assert_equal(service, tmp_path)


def test_service_is_asked_to_stop_while_devices_push(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    """Whatever the service had answered to is there afterwards."""
    with opened("a") as a:
        told = threading.Event()

        @a.on_event
        def tell(event: Event) -> None:
            if isinstance(event, Received):
                told.set()

        def push() -> None:
            with suppress(ConnectionFailed):
                for number in range(10_000):
                    Note.create(key=f"n{number}", title="one of many")
                    a.sync()
            a.database.close()

        thread = threading.Thread(target=push)
        thread.start()
        assert told.wait(30)
        code = service.stop()
        thread.join()
        assert code in (0, -signal.SIGTERM)
        assert a.status().pending == 1
        check_client(read_client(tmp_path / "a.db"), read_log(service.db))
        service.start()
        assert a.sync().sent == 1
    sync_all(opened)
    assert_equal(service, tmp_path)


class Deaf:
    """A transport that hears no answers while it is `deaf`."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.deaf = False

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.transport.execute(document, variables)
        if self.deaf:
            raise ConnectionFailed("the answer got lost")
        return answer

    def close(self) -> None:
        self.transport.close()


def test_service_whose_clock_is_set_back_knows_what_it_has(tmp_path: Path) -> None:
    """An entry that it took, but whose receipt got lost, is not ahead of its time."""
    now = 1_800_000_000_000
    store = Store.open(tmp_path / "service.db", now=lambda: now)
    store.create_user("me")
    transport = Deaf(LocalTransport(InProcess(store, "me").execute))
    log = GraphQLSharedLog(transport, "me")
    with device(tmp_path / "a.db", shared_log=log, now=lambda: now) as a:
        a.sync()
        Note.create(key="n1", title="once")
        transport.deaf = True
        with pytest.raises(ConnectionFailed):
            a.sync()
        transport.deaf = False
        now -= 10 * 60 * 1000
        result = a.sync()
        assert (result.sent, result.duplicates, result.refused) == (1, 1, 0)
    store.close()
    assert [entry.change["pk"] for entry in read_log(tmp_path / "service.db")] == ["n1"]
    check_client(read_client(tmp_path / "a.db"), read_log(tmp_path / "service.db"))


# -- transactions ------------------------------------------------------------------------


@contextmanager
def by_hand(database: peewee.Database) -> Iterator[None]:
    database.execute_sql("BEGIN")
    yield
    database.execute_sql("COMMIT")


@contextmanager
def savepoint(database: peewee.Database) -> Iterator[None]:
    with database.atomic(), database.atomic():
        yield


@pytest.mark.parametrize("transaction", [peewee.Database.atomic, savepoint, by_hand])
def test_sync_inside_a_transaction_is_refused(
    service: ServiceProcess,
    opened: Open,
    tmp_path: Path,
    transaction: Callable[[peewee.Database], AbstractContextManager[object]],
) -> None:
    stages = ["sync", "send", "receive", "reconcile", "prune", "adopt"]
    with opened("a") as a:
        a.sync()
        Note.create(key="waits", title="to be sent")
        before = read_client(tmp_path / "a.db")
        for stage in stages:
            with transaction(a.database):
                with pytest.raises(ConfigurationError, match="inside a transaction") as caught:
                    getattr(a, stage)()
                assert "after the `with database.atomic()` block" in (caught.value.hint or "")
        assert read_log(service.db) == [], "refused, but it was sent"
        assert read_client(tmp_path / "a.db") == before
        with transaction(a.database):
            Note.create(key="n1", title="first")
            for stage in stages:
                with pytest.raises(ConfigurationError):
                    getattr(a, stage)()
            Note.create(key="n2", title="the transaction is as it was")
        assert read_log(service.db) == []
        a.sync()
    sync_all(opened)
    assert_equal(service, tmp_path)
    assert sorted(read_client(tmp_path / "b.db").tables["note"]) == ["n1", "n2", "waits"]


def test_sync_from_its_own_listener_is_refused(tmp_path: Path) -> None:
    """It used to wait for itself for ever."""
    with device(tmp_path / "a.db", shared_log=MemorySharedLog()) as a:
        Note.create(key="n1", title="x")
        refused: list[ConfigurationError] = []

        @a.on_event
        def sync_again(event: Event) -> None:
            try:
                a.sync()
            except ConfigurationError as error:
                refused.append(error)

        done = threading.Thread(target=lambda: (a.sync(), a.database.close()), daemon=True)
        done.start()
        done.join(30)
        assert not done.is_alive(), "it waits for itself"
        assert any("by one of its own listeners" in str(error) for error in refused)
        assert a.status().pending == 0


def test_what_is_rolled_back_leaves_no_entry(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        with suppress(LookupError), a.database.atomic():
            Note.create(key="lost", title="lost")
            raise LookupError
        assert a.sync().sent == 0
        with a.database.atomic() as transaction:
            Note.create(key="lost", title="lost, too")
            transaction.rollback()
            Note.create(key="kept1", title="a rollback begins anew")
            with suppress(LookupError), a.database.atomic():
                Note.create(key="lost", title="in a savepoint")
                Note.update(stars=99).execute()
                Note.delete_by_id("kept1")
                raise LookupError
            with a.database.atomic() as inner:
                Note.create(key="lost", title="in another savepoint")
                inner.rollback()
            Note.create(key="kept2", title="after the savepoints")
        check_client(read_client(tmp_path / "a.db"), read_log(service.db))
        assert a.sync().sent == 2
    sync_all(opened)
    assert_equal(service, tmp_path)
    entries = read_client(tmp_path / "a.db").entries
    assert [entry.status == UNSENT for entry in entries] == [False, False]
    assert entries[0].ticks - entries[0].offset == entries[1].ticks - entries[1].offset
