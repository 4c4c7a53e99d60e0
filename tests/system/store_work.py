"""What a service does to its database, one durable transaction after the other.

The same for everybody who wants to see it interrupted: by death, by a power cut, by a disk that
is full or broken. Time stands still and ids are told by the operation, so that an operation that
is repeated does the same again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sharedlog_service.access.auth import issue_token, new_token, token_digest
from sharedlog_service.entries import Cursor, NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store

NOON_MS = 1_800_000_000_000
TICKS_PER_MS = 1024

Contents = tuple[tuple[str, tuple[tuple[Any, ...], ...]], ...]
"""All rows of all tables, by table."""

NOTHING: Contents = ()


class Operation(NamedTuple):
    """One transaction. `run` may be called again when it failed."""

    name: str
    run: Callable[[Store], object]


@dataclass
class Ids:
    """Says which operation asked, and for the how manieth."""

    operation: str = ""
    given: int = 0

    def __call__(self) -> str:
        self.given += 1
        return f"{self.operation}/{self.given}"


@dataclass
class World:
    """Where a store works."""

    path: Path
    ids: Ids = field(default_factory=Ids)

    def open(self) -> Store:
        return Store.open(self.path, now=lambda: NOON_MS, new_id=self.ids)

    def perform(self, operation: Operation, store: Store) -> object:
        self.ids.operation, self.ids.given = operation.name, 0
        return operation.run(store)


def contents(connection: Any) -> Contents:
    """Everything that is in a database."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
    return tuple(
        (name, tuple(connection.execute(f"SELECT * FROM {name} ORDER BY 1")))
        for (name,) in found.fetchall()
    )


def check_whole(found: Contents) -> None:
    """Each log is numbered 1, 2, 3 ... up to its head, and nothing is behind that."""
    tables = dict(found)
    if not tables.get("logs"):
        assert not tables.get("entries")
        return
    seqs: dict[int, list[int]] = {row[0]: [] for row in tables["logs"]}
    for row in tables["entries"]:
        seqs[row[0] >> 40].append(row[0] & (1 << 40) - 1)
    for log, _, _, head, *_ in tables["logs"]:
        assert seqs[log] == list(range(1, head + 1))


def first_operations() -> list[Operation]:
    """What makes a service ready: a user with a token, and two devices."""
    return [
        Operation("issue a token", _token("ada", "laptop")),
        Operation("register a device", lambda s: s.create_device("ada", request_id="one")),
        Operation("register another", lambda s: s.create_device("ada", request_id="two")),
    ]


def operations(turn: int) -> Iterator[Operation]:
    """Ten different transactions; each turn with other values."""
    one, two = "register a device/1", "register another/1"
    name = f"device {turn}"
    yield Operation(
        f"register {name}", lambda s: s.create_device("ada", name=name, request_id=name)
    )
    yield Operation(f"append, {turn}", lambda s: s.write("ada", one, batch(turn, 0, 3)))
    yield Operation(f"append large ones, {turn}", lambda s: s.write("ada", two, _large(turn)))
    yield Operation(f"append what is known or bad, {turn}", lambda s: _mixed(s, one, turn))
    yield Operation(f"append in a shared commit, {turn}", lambda s: _shared(s, one, two, turn))
    yield Operation(f"mark as seen, {turn}", lambda s: _mark(s, two))
    yield Operation(f"issue a token, {turn}", _token("ada", f"phone {turn}"))
    yield Operation(f"revoke a token, {turn}", lambda s: s.revoke_tokens(_digest(f"phone {turn}")))
    yield Operation(f"revoke {name}", lambda s: s.revoke_device("ada", f"register {name}/1"))
    yield Operation(f"make a user, {turn}", lambda s: s.create_user(f"user {turn}"))
    yield Operation(f"begin a new epoch, {turn}", lambda s: s.renew_epoch("ada"))


def batch(turn: int, first: int, count: int, text: str = "x") -> list[NewEntry]:
    """Some entries that nobody else makes."""
    start = (NOON_MS - 1_000_000 + turn * 1000 + first) * TICKS_PER_MS
    return [
        NewEntry(
            start + n,
            n,
            json.dumps(
                {
                    "operation": "create",
                    "collection": f"notes {turn % 3}",
                    "pk": f"{turn}-{first}-{n}",
                    "field": None,
                    "value": {"text": text},
                }
            ),
        )
        for n in range(count)
    ]


def _large(turn: int) -> list[NewEntry]:
    """Over several pages each, one of them sealed."""
    start = (NOON_MS - 1_000_000 + turn * 1000 + 100) * TICKS_PER_MS
    return [*batch(turn, 101, 2, "large " * 2000), NewEntry(start, 0, "sealed " * 1500)]


def _mixed(store: Store, device: str, turn: int) -> None:
    """Two that the log has, one under a known name, one new."""
    known = batch(turn, 0, 2)
    forged = NewEntry(known[0].created_on, 0, "another")
    store.write("ada", device, [*known, forged, *batch(turn, 200, 1)])


def _shared(store: Store, one: str, two: str, turn: int) -> None:
    """Several requests in one commit, one of them refused."""
    with store.transaction():
        store.write("ada", one, batch(turn, 300, 2))
        try:
            with store.transaction():
                store.write("ada", two, batch(turn, 300, 1))
                store.create_device("nobody")
        except Refused as refused:
            if refused.code is not Code.USER_UNKNOWN:
                raise
        store.write("ada", two, batch(turn, 301, 2))


def _mark(store: Store, device: str) -> None:
    head: Cursor = store.stats("ada").head
    store.mark_seen("ada", device, head)


def _token(user: str, name: str) -> Callable[[Store], object]:
    return lambda store: issue_token(store, user, name, lambda count: _bytes(name, count))


def _bytes(name: str, count: int) -> bytes:
    return name.encode().ljust(count, b"-")


def _digest(name: str) -> str:
    return token_digest(new_token(lambda count: _bytes(name, count)))
