"""Short numbers for what many rows have in common: device ids, lists of field names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..changes import dumps, loads
from ..journal.journal import Journal

T = TypeVar("T")

ME = 0
"""The number of this device; its id is in the journal's state once it is registered. It stays the
number of that id when the device takes another one (see `identity`)."""


class Numbers(Generic[T]):
    """The numbers of one table of ours. One that was committed stays what it is, whoever gave it,
    so those that were looked up are remembered until somebody forgets them."""

    def __init__(
        self,
        journal: Journal,
        table: str,
        column: str,
        encode: Callable[[T], str],
        decode: Callable[[str], T],
    ) -> None:
        self._journal = journal
        self._table = table
        self._column = column
        self._encode = encode
        self._decode = decode
        self._known: dict[T, int] = {}

    def of(self, value: T) -> int:
        """Its number. If it has none, it is given one: that needs the write lock."""
        number = self._known.get(value)
        return self._learn(value) if number is None else number

    def values(self) -> dict[int, T]:
        """All there are, by their numbers; nobody else's to change."""
        return self._journal.kept(self._table, self._read)

    def forget(self) -> None:
        """After a rollback, numbers may be wrong."""
        self._known = {}

    def _learn(self, value: T) -> int:
        values = self.values()
        self._known = {known: number for number, known in values.items()}
        if value not in self._known:
            number = 1 + max(values, default=0)
            self._journal.run(
                f"INSERT INTO sharedlog_{self._table} (number, {self._column}) VALUES (?, ?)",
                (number, self._encode(value)),
            )
            values[number], self._known[value] = value, number
        return self._known[value]

    def _read(self) -> dict[int, T]:
        found = self._journal.run(f"SELECT number, {self._column} FROM sharedlog_{self._table}")
        return {number: self._decode(text) for number, text in found.fetchall()}


class Devices(Numbers[str]):
    """The numbers of device ids."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, "device", "id", str, str)

    def _read(self) -> dict[int, str]:
        ids = super()._read()
        if ME not in ids:
            ids[ME] = self._journal.device_id()
        return ids


class Shapes(Numbers[frozenset[str]]):
    """The numbers of lists of field names."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(
            journal, "shape", "fields", lambda shape: dumps(sorted(shape)), _read_names
        )


def _read_names(text: str) -> frozenset[str]:
    return frozenset(loads(text))
