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


class Steps:
    """Counts steps; at number `die_at` the process is killed, by SIGKILL and on the spot. At
    number `fail_at` of those that can fail, it fails."""

    def __init__(self, die_at: int | None = None) -> None:
        self.arm(die_at)

    def arm(
        self,
        die_at: int | None = None,
        fail_at: int | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Count from here on; `tell` is called with each step that was survived."""
        self.names: list[str] = []
        self.fallible: list[str] = []
        self._die_at = die_at
        self._fail_at = fail_at
        self._tell = tell

    def __call__(self, name: str, error: Exception | None = None) -> None:
        self.names.append(name)
        if len(self.names) == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if error is not None and not _UNFAILING.search(name):
            self.fallible.append(name)
            if len(self.fallible) == self._fail_at:
                raise error
        if self._tell:
            self._tell(name)

    def rows(self, rows: Iterable[Any]) -> Iterator[Any]:
        for row in rows:
            self("row", sqlite3.OperationalError(FULL))
            yield row


FULL = "database or disk is full"

_UNFAILING = re.compile("ROLLBACK|RELEASE|PRAGMA")
"""What SQLite does without asking the disk for anything."""


_WRITING = re.compile("INSERT|UPDATE|DELETE|REPLACE")
"""A statement that is a transaction of its own when none is open."""


def decides(name: str) -> bool:
    """Whether what is durable, here or there, may differ before and after this step."""
    return "COMMIT" in name or "exchange" in name or name.startswith("after alone: ")


def counted_connection(steps: Steps) -> type[sqlite3.Connection]:
    """A connection class for `sqlite3.connect(factory=...)` whose statements are steps."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = ()) -> Cursor:
            steps(f"before {sql}", sqlite3.OperationalError(FULL))
            begun = self.connection.in_transaction
            super().execute(sql, parameters)
            alone = not begun and _WRITING.match(sql)
            steps(f"after alone: {sql}" if alone else f"after {sql}")
            return self

        def executemany(self, sql: str, rows: Iterable[Any]) -> Cursor:
            steps(f"before {sql}", sqlite3.OperationalError(FULL))
            super().executemany(sql, steps.rows(rows))
            steps(f"after {sql}")
            return self

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
        self._steps("before the exchange")
        answer = self._transport.execute(document, variables)
        self._steps("after the exchange")
        return answer

    def close(self) -> None:
        self._transport.close()


def count_service(steps: Steps) -> Callable[[], None]:
    """Make each statement of the service's connections that are opened from now on a step, in
    this process; the returned function ends that."""

    def before(cursor: Any, sql: str, bindings: Any) -> bool:
        steps(f"service: before {sql}", apsw.FullError(FULL))
        return True

    def after(event: dict[str, Any]) -> None:
        steps(f"service: after {event['sql']}")

    def watch(connection: Any) -> None:
        connection.exec_trace = before
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, after)

    apsw.connection_hooks.append(watch)
    return lambda: apsw.connection_hooks.remove(watch)
