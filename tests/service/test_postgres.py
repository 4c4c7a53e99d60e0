"""What is different where several processes write: taking turns, migrations, lost connections."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from sharedlog_service.engines import postgres as engine
from sharedlog_service.engines.database import shown
from sharedlog_service.engines.postgres import PostgresServer
from sharedlog_service.engines.tables import STEPS
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.engines import SERVER, Postgres, drop_schema, new_schema
from tests.service.support import NOON, ManualClock, entries

WRITERS = 8
COMMITS = 125
BATCH = 50


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Postgres]:
    """A database that nobody has made tables in."""
    schema = new_schema()
    yield Postgres(schema)
    drop_schema(schema)


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    with closing(Store.open(postgres.place, now=ManualClock())) as found:
        found.create_user("ada")
        yield found


# Several at once


def test_readers_miss_nothing_although_commits_overtake_each_other(store: Store) -> None:
    """Eight writers with slow commits, four logs, a reader each that polls all the time. A reader
    of a plain serial, written in the same transactions, misses some."""
    users = ["ada", "bob", "cleo", "dan"]
    for user in users[1:]:
        store.create_user(user)
    with store._database.transaction() as db:
        db.rows("CREATE TABLE naive (id BIGSERIAL PRIMARY KEY, said TEXT)")
    devices = {number: store.create_device(users[number % 4]) for number in range(WRITERS)}
    writing = threading.Barrier(WRITERS + 5)
    done = threading.Event()
    read: dict[str, list[int]] = {user: [] for user in users}
    naive: list[int] = []

    def write(number: int) -> None:
        user, slow = users[number % 4], random.Random(number)
        writing.wait()
        for turn in range(COMMITS):
            with store._database.transaction() as db:
                db.rows("INSERT INTO naive (said) VALUES (?)", f"{number} {turn}")
                store.write(user, devices[number], entries(BATCH, start=NOON + turn * BATCH))
                db.rows("SELECT pg_sleep(?)", slow.choice([0, 0, 0, 0.004]))

    def follow(user: str) -> None:
        reader, cursor = store.create_device(user), None
        writing.wait()
        while True:
            finished = done.is_set()
            page = store.read(user, reader, cursor, limit=500)
            read[user] += [entry.seq for entry in page.entries]
            cursor = page.cursor
            if finished and not page.has_more:
                return

    def follow_naively() -> None:
        last = 0
        writing.wait()
        while True:
            finished = done.is_set()
            with store._database.snapshot() as db:
                found = db.rows("SELECT id FROM naive WHERE id > ? ORDER BY id", last)
            naive.extend(number for (number,) in found)
            last = naive[-1] if naive else 0
            if finished:
                return

    writers = [started(write, number) for number in range(WRITERS)]
    readers = [started(follow, user) for user in users] + [started(follow_naively)]
    joined(writers)
    done.set()
    joined(readers)
    each = COMMITS * BATCH * WRITERS // 4
    assert {user: len(seqs) for user, seqs in read.items()} == dict.fromkeys(users, each)
    assert all(seqs == list(range(1, each + 1)) for seqs in read.values())
    assert len(naive) < COMMITS * WRITERS, "the control must show that the test can fail"


def test_writers_of_one_log_take_turns_and_others_do_not_wait(store: Store) -> None:
    store.create_user("bob")
    ada, bob = store.create_device("ada"), store.create_device("bob")
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction():
            store.write("ada", ada, entries(2))
            held.set()
            go_on.wait(20)

    seqs: list[int] = []
    holder = started(hold)
    held.wait(20)
    waiting = started(
        lambda: seqs.append(store.write("ada", ada, entries(1, start=NOON + 9)).head.seq)
    )
    assert store.write("bob", bob, entries(1)).head.seq == 1
    assert store.stats("ada").head.seq == 0
    assert seqs == []
    go_on.set()
    joined([holder, waiting])
    assert seqs == [3]


def started(work: Callable[..., Any], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


# Migrations


def test_an_empty_database_gets_its_tables_also_from_two_at_once(empty: Postgres) -> None:
    opened: list[Store] = []
    joined([started(lambda: opened.append(Store.open(empty.place))) for _ in range(4)])
    assert [store.create_user("ada") for store in opened] == [True, False, False, False]
    for store in opened:
        store.close()


def test_a_command_that_needs_tables_makes_none(empty: Postgres) -> None:
    with pytest.raises(ConfigurationError, match="sharedlog migrate"):
        Store.open(empty.place, making=False)
    assert empty.tables() == []


def test_older_tables_are_migrated_when_it_is_asked_for_and_not_before(
    empty: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store.open(empty.place)) as store:
        store.create_user("ada")
    newer = (*STEPS, ("CREATE TABLE more (id BIGINT)",))
    monkeypatch.setattr(engine, "STEPS", newer)
    with pytest.raises(ConfigurationError, match="sharedlog migrate"):
        Store.open(empty.place)
    assert "more" not in empty.tables()
    with closing(Store.open(empty.place, migrating=True)) as store:
        assert store.users() == ["ada"]
    assert "more" in empty.tables()
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="written by a newer sharedlog"):
        Store.open(empty.place, migrating=True)


def test_a_migration_that_fails_leaves_nothing(
    empty: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(empty.place).close()
    before = empty.tables()
    broken = (*STEPS, ("CREATE TABLE half (id BIGINT)", "CREATE NONSENSE"))
    monkeypatch.setattr(engine, "STEPS", broken)
    with pytest.raises(psycopg.errors.SyntaxError):
        Store.open(empty.place, migrating=True)
    assert empty.tables() == before
    monkeypatch.undo()
    Store.open(empty.place).close()


def test_the_tables_of_another_program_are_left_alone(empty: Postgres) -> None:
    with closing(PostgresServer(str(empty.place))) as server, server.transaction() as db:
        db.rows("DROP TABLE meta")
    with pytest.raises(ConfigurationError, match="another program"):
        Store.open(empty.place)


# Connections


def test_a_lost_connection_is_no_more_than_a_bad_moment(store: Store) -> None:
    device = store.create_device("ada")
    with pytest.raises(Refused) as refused, store.transaction():
        store.write("ada", device, entries(2))
        with store._database.transaction() as db:
            cut(db.scalar("SELECT pg_backend_pid()"))
        store.write("ada", device, entries(2, start=NOON + 9))
    assert refused.value.code is Code.UNAVAILABLE
    assert store.stats("ada").head.seq == 0
    assert store.write("ada", device, entries(2)).head.seq == 2


def test_connections_that_were_cut_while_idle_are_replaced(store: Store) -> None:
    with store._database.snapshot() as db, store._database.transaction() as other:
        pids = [found.scalar("SELECT pg_backend_pid()") for found in (db, other)]
    for pid in pids:
        cut(pid)
    codes = []
    for _ in range(3):
        try:
            store.stats("ada")
        except Refused as refused:
            codes.append(refused.code)
    assert codes in ([], [Code.UNAVAILABLE], [Code.UNAVAILABLE] * 2)
    assert store.stats("ada").head.seq == 0


def cut(pid: int) -> None:
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://postgres@127.0.0.1:1/postgres", "refused"),
        ("postgresql://postgres@127.0.0.1:5432/no_such_database", "does not exist"),
    ],
)
def test_a_server_that_cannot_be_used_says_why(postgres: Postgres, url: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        Store.open(url)


def test_no_password_is_shown() -> None:
    url = "postgresql://ada:s3cr:et@db.example:5432/logs?sslmode=require"
    assert shown(url) == "postgresql://ada@db.example:5432/logs?sslmode=require"
    assert shown("postgresql:///logs") == "postgresql:///logs"


def test_acknowledged_means_durable_whatever_the_server_was_told(postgres: Postgres) -> None:
    place = str(postgres.place) + "%20-csynchronous_commit%3Doff"
    with closing(PostgresServer(place)) as server, server.transaction() as db:
        assert db.scalar("SHOW synchronous_commit") == "on"


def test_numbers_of_streams_and_marks(store: Store) -> None:
    """Streams may lie inside each other, and texts may hold what SQL would take for a mark."""
    with store._database.snapshot() as db:
        sql = "SELECT n FROM generate_series(1, ?) AS n"
        with db.stream(sql, 1_000) as outer, db.stream(sql, 3) as inner:
            pairs = [(a, b) for (a,), (b,) in zip(outer, inner, strict=False)]
        assert pairs == [(1, 1), (2, 2), (3, 3)]
        assert db.scalar("SELECT ?::text", "100 % of ?") == "100 % of ?"


def test_a_service_is_not_ready_while_the_database_does_not_answer(postgres: Postgres) -> None:
    with TestClient(create_app(Settings(db=postgres.place))) as client:
        assert client.get("/readyz").status_code == 200
        with psycopg.connect(SERVER) as other:
            other.execute(f"LOCK TABLE {postgres.schema}.meta".encode())
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
