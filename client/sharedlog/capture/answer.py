"""What a statement answered, all of it read: SQLite ends no savepoint before it is."""

from __future__ import annotations

from typing import Any


class Answer:
    """A cursor for the caller: its own columns of what RETURNING answered, and the counts."""

    def __init__(self, cursor: Any, rows: list[Any], hidden: int = 0) -> None:
        self._cursor = cursor
        self._rows = iter(rows)
        self.rowcount = cursor.rowcount  # -1 for WITH, as without us
        description = tuple(cursor.description or ())
        self.description = description[: len(description) - hidden]

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Any:
        return self._rows

    def close(self) -> None:
        self._cursor.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
