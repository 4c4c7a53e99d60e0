"""Many devices at once: how many pushes and pulls a second one service process takes, and how long
each waits, on SQLite and on PostgreSQL.

A push is ten new entries of one device, durable when it is answered; a pull is a page of a
hundred. Each device is a thread with a connection of its own, which asks again as soon as it was
answered, and each has a log of its own: what devices of one user do to each other is another
matter. The limit is the database alone, without a service: as many connections, one commit for
ten rows.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
from tests.engines import Postgres, drop_schema, new_schema, unreachable

from sharedlog_service.access.auth import issue_token
from sharedlog_service.store.store import Store

from .asking import PAGE, PUSH, Device
from .figures import Figure, percentile
from .records import as_change, records
from .service import Service

DEVICES = (1, 8, 64)

Ask = Callable[[int], None]
"""One request of one device; the argument counts them."""


def measure(folder: Path, seconds: float, devices: Sequence[int] = DEVICES) -> Iterator[Figure]:
    yield from _engine("SQLite", folder, None, seconds, devices)
    if unreachable() is None:
        schema = new_schema()
        try:
            place = str(Postgres(schema).place)
            yield from _engine("PostgreSQL", folder, place, seconds, devices)
        finally:
            drop_schema(schema)


def _engine(
    engine: str, folder: Path, server: str | None, seconds: float, devices: Sequence[int]
) -> Iterator[Figure]:
    place: Path | str = server or folder / "load.db"
    data = [as_change(record) for record in records(PUSH)]
    with Service(place) as service:
        for count in devices:
            users = [f"user-{count}-{number}" for number in range(count)]
            with contextlib.closing(Store.open(place)) as store:
                tokens = [issue_token(store, user, "load") for user in users]
            limit = _rate(_raw(folder, server, count, data), seconds)[0]
            # Not before that: the service closes a connection that is idle for five seconds.
            asking = [
                Device(service.announced["url"], user, token, data)
                for user, token in zip(users, tokens, strict=True)
            ]
            for what, asks in (
                ("push", [device.push for device in asking]),
                ("pull", [device.pull for device in asking]),
            ):
                rate, waits = _rate(asks, seconds)
                yield _figure(engine, what, count, rate, waits, limit if what == "push" else None)


def _figure(
    engine: str, what: str, count: int, rate: float, waits: list[float], limit: float | None
) -> Figure:
    details = {f"p{p}_ms": 1_000 * percentile(waits, p / 100) for p in (50, 99)}
    text = ", ".join(f"{name.removesuffix('_ms')} {ms:.1f} ms" for name, ms in details.items())
    name = f"{engine}, {what}es of {PUSH}" if what == "push" else f"{engine}, {what}s of {PAGE}"
    return Figure("load", f"{name}, {text}", count, rate, "a second", limit=limit, details=details)


def _rate(asks: Sequence[Ask], seconds: float) -> tuple[float, list[float]]:
    """How many a second all together, and how long each took."""
    waits: list[float] = []
    begin = threading.Barrier(len(asks) + 1)
    end = threading.Event()

    def run(ask: Ask) -> None:
        try:
            ask(0)  # what happens once is not measured
        except Exception:
            begin.abort()  # or everybody would wait for this one
            raise
        begin.wait()
        number = 1
        while not end.is_set():
            started = time.perf_counter()
            ask(number)
            waits.append(time.perf_counter() - started)
            number += 1

    threads = [threading.Thread(target=run, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    begin.wait()
    end.wait(seconds)
    end.set()
    for thread in threads:
        thread.join()
    return len(waits) / seconds, waits


def _raw(folder: Path, server: str | None, count: int, data: list[str]) -> list[Ask]:
    """The database alone: SQLite has one writer, so there is one; PostgreSQL has one for each."""
    if server is not None:
        return [_raw_on(server, data) for _ in range(count)]
    connection = sqlite3.connect(folder / f"raw-{count}.db", check_same_thread=False)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.execute("CREATE TABLE raw (id INTEGER PRIMARY KEY, data TEXT)")

    def insert(number: int) -> None:
        connection.executemany("INSERT INTO raw (data) VALUES (?)", [(text,) for text in data])
        connection.commit()

    return [insert]


def _raw_on(server: str, data: list[str]) -> Ask:
    connection = psycopg.connect(server)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS raw (id BIGSERIAL PRIMARY KEY, data TEXT NOT NULL)"
    )
    connection.commit()

    def insert(number: int) -> None:
        with connection.cursor().copy("COPY raw (data) FROM STDIN") as copy:
            for text in data:
                copy.write_row((text,))
        connection.commit()

    return insert
