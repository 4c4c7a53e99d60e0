"""PostgreSQL for benchmarks: a schema of its own, and the limit that the server alone sets."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from types import TracebackType

import psycopg

SERVER = os.environ.get("SHAREDLOG_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


def reachable() -> bool:
    try:
        psycopg.connect(SERVER, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


class Schema:
    """Exists for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self._name = f"bench_{uuid.uuid4().hex}"
        separator = "&" if "?" in SERVER else "?"
        self.place = f"{SERVER}{separator}options=-csearch_path%3D{self._name}"

    def raw(self, data: list[str]) -> Callable[[int], None]:
        """Inserts ten rows and commits, on a connection of its own."""
        connection = psycopg.connect(self.place)
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

    def __enter__(self) -> Schema:
        self._run(f"CREATE SCHEMA {self._name}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run("SET client_min_messages = warning", f"DROP SCHEMA {self._name} CASCADE")

    def _run(self, *statements: str) -> None:
        with psycopg.connect(SERVER, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
