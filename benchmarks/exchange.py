"""Pushing and pulling: a real client, real HTTP, the durable service; as shares of the bare route.

The limit moves the same bytes in batches of the client's size. Its push: orjson, one POST,
`executemany`, a commit. Its pull: a select, orjson, and on the client orjson again,
`executemany` and a commit. Limit and client take turns, in files of their own each round,
and a share compares what was measured in the same round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from sharedlog.sync import BATCH_SIZE

from .devices import Device, raw_file
from .figures import Figure, middle, seconds
from .records import INSERT, as_change, as_row, records
from .service import BareRoute, Service

TICKS = 1_790_000_000_000 * 1024

PUSH_TARGET, PULL_TARGET = 0.2, 0.4

Rates = dict[str, float]
"""Changes a second, by what moved them."""


def measure(folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    work = list(records(rows))
    entries = [(TICKS + i, i, as_change(record)) for i, record in enumerate(work)]
    found = [_round(folder / f"exchange-{rows}-{i}", work, entries) for i in range(rounds)]

    def figure(what: str, limit: str, name: str, target: float | None) -> Figure:
        return Figure(
            "exchange",
            name,
            rows,
            middle([rates[what] / rates[limit] for rates in found]),
            "share",
            limit=1.0,
            target=target,
            at_least=True,
            details={
                f"{kind}_changes_a_second": middle([rates[kind] for rates in found])
                for kind in (what, limit)
            },
        )

    yield figure("push", "bare_push", "push, share of the bare route's rate", PUSH_TARGET)
    yield figure("pull", "bare_pull", "pull and apply, share of the bare route's rate", PULL_TARGET)
    yield figure("push", "raw_insert", "push, share of raw sqlite3's rate", None)
    yield figure("pull", "raw_insert", "pull and apply, share of raw sqlite3's rate", None)


def _round(folder: Path, work: list[dict[str, Any]], entries: list[tuple[int, int, str]]) -> Rates:
    folder.mkdir()
    with Service(folder / "service.db") as service, BareRoute(folder / "bare.db") as bare:
        sender = Device(folder / "sender.db", service.shared_log())
        receiver = Device(folder / "receiver.db", service.shared_log())
        raw, bare_receiver = raw_file(folder / "raw.db"), raw_file(folder / "bare-receiver.db")
        # What happens once in a device's life is not measured: it registers and connects.
        sender.sync.sync()
        receiver.sync.sync()
        bare.pull(0, 1)
        sender.insert(work)
        rows = [as_row(record) for record in work]
        took = {
            "raw_insert": seconds(lambda: _insert_raw(raw, rows)),
            "bare_push": seconds(lambda: _push_bare(bare, entries)),
            "push": seconds(sender.sync.sync),
            "bare_pull": seconds(lambda: _pull_bare(bare, bare_receiver)),
            "pull": seconds(receiver.sync.sync),
        }
        arrived = (receiver.count(), _count(bare_receiver))
        for connection in (raw, bare_receiver):
            connection.close()
        for device in (sender, receiver):
            device.close()
    if arrived != (len(work), len(work)):
        raise RuntimeError(f"{len(work)} rows were sent, {arrived} arrived.")
    for path in folder.iterdir():
        path.unlink()
    return {name: len(work) / elapsed for name, elapsed in took.items()}


def _insert_raw(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), BATCH_SIZE):
        connection.executemany(INSERT, rows[start : start + BATCH_SIZE])
        connection.commit()


def _push_bare(bare: BareRoute, entries: list[tuple[int, int, str]]) -> None:
    for start in range(0, len(entries), BATCH_SIZE):
        bare.push(entries[start : start + BATCH_SIZE])


def _pull_bare(bare: BareRoute, connection: sqlite3.Connection) -> None:
    after = 0
    while found := bare.pull(after, BATCH_SIZE):
        changes = [orjson.loads(entry[3]) for entry in found]
        connection.executemany(INSERT, [(c["pk"], *c["value"].values()) for c in changes])
        after = found[-1][0]
        connection.execute("UPDATE checkpoint SET seq = ?", (after,))
        connection.commit()


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM record").fetchone()[0])
