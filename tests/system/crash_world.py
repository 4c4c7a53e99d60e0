"""The world of the crash tests: models, devices, and what must be true of their files.

The files are read by plain SQL, and what should stand in them is worked out by
`tests.dictmodel` from nothing but entries; so a fault of the library cannot hide itself.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import peewee

from sharedlog import SharedLog, Sync, SyncModel
from sharedlog.clock import Now, system_now
from sharedlog.exchange.pipeline import Processor
from sharedlog.journal.journal import FINALLY_DELETED, OPERATION_NAMES
from sharedlog_service.entries import EntryFilter
from sharedlog_service.store.store import Store
from tests.dictmodel import Write, row_of

UNSENT, SENT, REFUSED = 0, 1, 2

Tables = dict[str, dict[str, dict[str, Any]]]
"""Rows by collection and key, their values by field name."""


class Folder(SyncModel):
    key = peewee.TextField(primary_key=True)
    name = peewee.TextField()


class Note(SyncModel):
    key = peewee.TextField(primary_key=True)
    title = peewee.TextField()
    stars = peewee.IntegerField(default=0)
    meta = peewee.JSONField(null=True)
    folder = peewee.ForeignKeyField(Folder, null=True, on_delete="CASCADE", backref="notes")


class Tag(SyncModel):
    key = peewee.TextField(primary_key=True)
    text = peewee.TextField()


MODELS: list[type[SyncModel]] = [Folder, Note, Tag]


def open_database(
    path: Path, *, journal: str = "wal", timeout_s: float = 5, **connecting: Any
) -> peewee.SqliteDatabase:
    """The application's database, as an application that cares would open it."""
    pragmas = {"journal_mode": journal, "synchronous": "full", "foreign_keys": 1}
    return peewee.SqliteDatabase(str(path), pragmas=pragmas, timeout=timeout_s, **connecting)


@contextmanager
def device(
    path: Path,
    *,
    shared_log: SharedLog | None = None,
    url: str | None = None,
    token: str | None = None,
    batch_size: int = 1000,
    now: Now = system_now,
    pre_send: Processor | None = None,
    **connecting: Any,
) -> Iterator[Sync]:
    """A device that is set up, its models bound; nothing of it is open afterwards."""
    database = open_database(path, **connecting)
    with database.bind_ctx(MODELS):
        database.create_tables(MODELS)
        sync = Sync(
            database,
            MODELS,
            shared_log=shared_log,
            url=url,
            token=token,
            batch_size=batch_size,
            now=now,
            pre_send=pre_send,
        )
        try:
            yield sync.setup()
        finally:
            sync.close()
            database.close()


# -- what is in the files ----------------------------------------------------------------


class ClientEntry(NamedTuple):
    """An entry of a device's client log; `device` is the id that it has, or had, in the log."""

    device: str
    ticks: int
    offset: int
    change: dict[str, Any]
    status: int


class LogEntry(NamedTuple):
    """An entry of the shared log."""

    seq: int
    device: str
    ticks: int
    offset: int
    change: dict[str, Any]


@dataclass(frozen=True)
class ClientFile:
    """A device's database as it stands."""

    device: str
    checkpoint: int
    entries: list[ClientEntry]
    received: set[tuple[str, int]]
    tables: Tables

    def changes(self) -> list[dict[str, Any]]:
        return [entry.change for entry in self.entries]

    def with_pruned(self, known: Iterable[ClientEntry]) -> ClientFile:
        """The file as if it had not forgotten these entries, which it had sent."""
        entries = {entry.ticks: entry for entry in known if entry.status == SENT}
        entries |= {entry.ticks: entry for entry in self.entries}
        return replace(self, entries=[entries[ticks] for ticks in sorted(entries)])


def read_client(path: Path) -> ClientFile:
    """Read a device's database, and check that it is sound."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        made = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        tables = _tables(db) if "tag" in made else tables_of([])
        if "sharedlog_state" not in made:
            return ClientFile("", 0, [], set(), tables)
        state = dict(db.execute("SELECT key, value FROM sharedlog_state"))
        entries = [
            ClientEntry(
                (reason if status != REFUSED else None) or state["device"],
                ticks,
                offset,
                _change(*change),
                status,
            )
            for ticks, offset, status, reason, *change in db.execute(
                "SELECT ticks, offset_ticks, status, reason, operation, collection, pk, value "
                "FROM sharedlog_entry ORDER BY ticks"
            )
        ]
        received = set(db.execute("SELECT device, ticks FROM sharedlog_inbox"))
    checkpoint = int((state.get("checkpoint") or "0").rpartition(".")[2])
    return ClientFile(state.get("device") or "", checkpoint, entries, received, tables)


def _tables(db: sqlite3.Connection) -> Tables:
    folders = db.execute("SELECT key, name FROM folder")
    notes = db.execute("SELECT key, title, stars, meta, folder_id FROM note")
    tags = db.execute("SELECT key, text FROM tag")
    return {
        "folder": {key: {"name": name} for key, name in folders},
        "note": {
            key: {"title": title, "stars": stars, "meta": meta and json.loads(meta), "folder": on}
            for key, title, stars, meta, on in notes
        },
        "tag": {key: {"text": text} for key, text in tags},
    }


def _change(operation: int, collection: str, pk: str, value: str | None) -> dict[str, Any]:
    final = {"final": True} if operation == FINALLY_DELETED else {}
    return final | {
        "operation": OPERATION_NAMES[operation],
        "collection": collection,
        "pk": json.loads(pk),
        "field": None,
        "value": value and json.loads(value),
    }


def _said(data: str) -> Any:
    """A change, without what its entry was dated at first."""
    return {name: said for name, said in json.loads(data).items() if name != "recorded"}


def read_log(path: Path, user: str = "me") -> list[LogEntry]:
    """Read a user's shared log, and check that it is sound: numbered 1, 2, 3 without a gap up to
    its head, nothing behind that, each device's entries in the order of their timestamps."""
    # By the service's own SQLite: two copies of SQLite in one process must not open one file,
    # because the locks of a process are dropped when either of them closes it.
    with _unwatched(), closing(apsw.Connection(str(path))) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = "SELECT (SELECT count(*) FROM entries), (SELECT sum(head) FROM logs)"
        ((there, numbered),) = db.execute(counted).fetchall()
        assert there == numbered, "entries that no log counts"
        store = Store.open(path)
        page = store.find(user, EntryFilter(), count=10**9)
        store.close()
    log = [
        LogEntry(entry.seq, entry.device, entry.created_on, entry.group, _said(entry.data))
        for entry in page.entries
    ]
    assert [entry.seq for entry in log] == list(range(1, page.head.seq + 1))
    by_device: dict[str, list[int]] = defaultdict(list)
    for entry in log:
        by_device[entry.device].append(entry.ticks)
    for ticks in by_device.values():
        assert ticks == sorted(set(ticks)), "a device's entries are out of order"
    return log


@contextmanager
def _unwatched() -> Iterator[None]:
    """Who only looks at a file is none of those whose statements are counted."""
    hooks = apsw.connection_hooks.copy()
    apsw.connection_hooks.clear()
    try:
        yield
    finally:
        apsw.connection_hooks.extend(hooks)


# -- what must be true of them -----------------------------------------------------------


def tables_of(entries: Iterable[tuple[int, str, Mapping[str, Any]]]) -> Tables:
    """What the tables hold that a set of (ticks, device, change) makes: alive rows whose
    parents are there."""
    writes: dict[tuple[str, str], list[Write]] = defaultdict(list)
    for ticks, author, change in entries:
        write = Write((ticks, author), change["operation"], change["value"])
        writes[change["collection"], change["pk"]].append(write)
    tables: Tables = {"folder": {}, "note": {}, "tag": {}}
    for (collection, pk), some in writes.items():
        row = row_of(some)
        if row.alive:
            tables[collection][pk] = dict(row.values)
    tables["note"] = {
        pk: values
        for pk, values in tables["note"].items()
        if values["folder"] is None or values["folder"] in tables["folder"]
    }
    return tables


def differing(left: Tables, right: Tables) -> list[tuple[str, str, object, object]]:
    """The rows that are not the same on both sides."""
    return [
        (name, pk, left[name].get(pk), right[name].get(pk))
        for name in left
        for pk in sorted(left[name].keys() | right[name].keys())
        if left[name].get(pk) != right[name].get(pk)
    ]


def check_client(
    client: ClientFile,
    log: list[LogEntry],
    *,
    adopted: bool = True,
    applied: int = 0,
    copied: bool = False,
) -> None:
    """What holds at every moment of a device's life, whoever died when.

    Its tables are what its own entries and the others' up to its checkpoint make: neither a row
    without its entry nor an entry without its row, and the checkpoint moves with what it means.
    Only rows from before tracking may stand there without entries until they are `adopted`; and a
    device that starts over has `applied` more than it remembers. Where its file is `copied`, the
    log may have entries of it that the copy made.
    """
    reached = max(client.checkpoint, applied)
    others = [
        (entry.ticks, entry.device, entry.change)
        for entry in log
        if entry.device != client.device
        and entry.seq <= reached
        and (entry.device, entry.ticks) not in client.received
    ]
    own = [(entry.ticks, entry.device, entry.change) for entry in client.entries]
    expected = tables_of([*others, *own])
    if not adopted:
        known = {(change["collection"], change["pk"]) for *_, change in (*others, *own)}
        for name, rows in client.tables.items():
            expected[name] |= {pk: row for pk, row in rows.items() if (name, pk) not in known}
    assert client.tables == expected, f"tables, entries: {differing(client.tables, expected)}"
    there_are = {(entry.device, entry.ticks): entry for entry in log}
    for entry in client.entries:
        there = there_are.pop(entry[:2], None)
        if there is None:
            assert entry.status != SENT, f"marked as sent, but not in the log: {entry}"
        else:
            assert (entry.offset, entry.change) == there[3:], f"changed on the way: {entry}"
    strange = [entry for entry in there_are.values() if entry.device == client.device]
    assert copied or not strange, f"in the log, but never committed by its device: {strange}"


def check_equal(
    clients: Iterable[ClientFile], log: list[LogEntry], *, private: int = 0, former: int = 0
) -> None:
    """What holds when all have synced: every entry of every device in the log, once, and all
    tables equal to what the log makes. Only `private` entries stay on the device that made
    them, and `former` ones are of a device that there is no more."""
    public = [(entry.ticks, entry.device, entry.change) for entry in log]
    kept = 0
    written = set()
    for client in clients:
        check_client(client, log)
        mine = [
            (entry.ticks, entry.device, entry.change)
            for entry in client.entries
            if entry.status == REFUSED
        ]
        assert [entry for entry in client.entries if entry.status == UNSENT] == []
        assert not client.received
        expected = tables_of([*public, *mine])
        assert client.tables == expected, f"tables, log: {differing(client.tables, expected)}"
        written |= {entry[:2] for entry in client.entries if entry.status != REFUSED}
        kept += len(mine)
    assert len(written) + former == len(log)
    assert kept == private
