"""Steps of a process, counted where it touches the world; death or an error at the n-th.

A step is each SQL statement (before and after), each row of an `executemany`, and each call of
the transport (before and after). Nothing of the library is replaced: the client's statements are
seen by a connection class of the driver's, the service's by SQLite's own tracing.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apsw

from sharedlog import Transport
from tests.system.crash_points import CLIENT, SERVICE, Place


class Steps:
    """Counts steps; at number `die_at` the process is killed, by SIGKILL and on the spot. At
    number `fail_at` of those that can fail, it fails."""

    def __init__(self) -> None:
        self.client = Place("client", CLIENT)
        self.service = Place("service", SERVICE)
        self.key: object = None
        self.arm()

    def arm(
        self,
        die_at: int | None = None,
        fail_at: int | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Count from here on; `tell` is called with each step that was survived."""
        self.names: list[str] = []
        self.points: list[str] = []
        self.fallible: list[str] = []
        self.client.begin()
        self.service.begin()
        self._die_at = die_at
        self._fail_at = fail_at
        self._tell = tell

    def __call__(self, name: str, place: Place, error: Exception | None = None) -> None:
        self.names.append(name)
        self.points.append(place.here)
        if len(self.names) == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if error is not None and not _UNFAILING.search(name):
            self.fallible.append(name)
            if len(self.fallible) == self._fail_at:
                raise error
        if self._tell:
            self._tell(name)

    def rows(self, sql: str, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows of a client's `executemany`: a step before each."""
        for number, row in enumerate(rows):
            if number:
                self.client.after(sql, open=True, key=self.key)
            self("row", self.client, sqlite3.OperationalError(FULL))
            yield row
            self.key = row[0]


FULL = "database or disk is full"

_UNFAILING = re.compile("ROLLBACK|RELEASE|PRAGMA")
"""What SQLite does without asking the disk for anything."""


def counted_connection(steps: Steps) -> type[sqlite3.Connection]:
    """A connection class for `sqlite3.connect(factory=...)` whose statements are steps."""
    place = steps.client

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = ()) -> Cursor:
            steps(f"before {sql}", place, sqlite3.OperationalError(FULL))
            changes = self.connection.total_changes
            super().execute(sql, parameters)
            # What is being answered has not been counted yet.
            self._done(sql, changes if "RETURNING" not in sql else -1)
            return self

        def executemany(self, sql: str, rows: Iterable[Any]) -> Cursor:
            steps(f"before {sql}", place, sqlite3.OperationalError(FULL))
            changes = self.connection.total_changes
            super().executemany(sql, steps.rows(sql, rows))
            self._done(sql, changes, steps.key)
            return self

        def _done(self, sql: str, changes: int, key: object = None) -> None:
            connection = self.connection
            changed = sql.startswith("CREATE") or connection.total_changes != changes
            place.after(sql, open=connection.in_transaction, changed=changed, key=key)
            steps(f"after {sql}", place)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return Connection


class CountedTransport:
    """A transport whose calls are steps."""

    def __init__(self, transport: Transport, steps: Steps) -> None:
        self._transport = transport
        self._steps = steps

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        place = self._steps.client
        place.exchange(document, "to be sent")
        self._steps("before the exchange", place)
        answer = self._transport.execute(document, variables)
        place.exchange(document, "answered")
        self._steps("after the exchange", place)
        return answer

    def close(self) -> None:
        self._transport.close()


def count_service(steps: Steps) -> Callable[[], None]:
    """Make each statement of the service's connections that are opened from now on a step, in
    this process; the returned function ends that."""

    place = steps.service

    def watch(connection: Any) -> None:
        writing = False

        def before(cursor: Any, sql: str, bindings: Any) -> bool:
            steps(f"service: before {sql}", place, apsw.FullError(FULL))
            return True

        def after(event: dict[str, Any]) -> None:
            nonlocal writing
            sql = event["sql"].strip()
            ends = sql in ("commit;", "rollback;")
            writing = writing or sql == "BEGIN IMMEDIATE"
            if writing:
                place.after(sql, open=not ends)
            writing = writing and not ends
            steps(f"service: after {sql}", place)

        connection.exec_trace = before
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, after)

    apsw.connection_hooks.append(watch)
    return lambda: apsw.connection_hooks.remove(watch)
