"""A device with much to send, or to receive, in a process of its own that tells its memory.

python -m tests.system.backlog_device fill PATH URL TOKEN ROWS
python -m tests.system.backlog_device sync PATH URL TOKEN PAGES

With PAGES, it is killed by its own hand after so many pages; 0 lets it sync to the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import peewee

from sharedlog import GraphQLSharedLog, HttpTransport, Sync, SyncModel
from sharedlog.events import Reconciled
from tests.process_memory import EVER, memory_kib

AT_ONCE = 2_000
TEXT = "About as much as a line of an order has to say, with a name and an address in it. " * 3


class Line(SyncModel):
    key = peewee.IntegerField(primary_key=True)
    text = peewee.TextField()


def main(task: str, path: str, url: str, token: str, rows: str) -> dict[str, Any]:
    count, database = int(rows), peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal"})
    with database.bind_ctx([Line]):
        database.create_tables([Line])
        log = GraphQLSharedLog(HttpTransport(url, token))
        with Sync(database, [Line], shared_log=log) as sync:
            if task == "fill":
                _fill(count)
                return {}
            if count:
                _die_after(sync, count)
            log.register("warm up", "warm-up")  # so that all is loaded that it takes to ask
            before = memory_kib(EVER)
            result = sync.sync()
            rise = (memory_kib(EVER) - before) / 1024
            return {"rise_mb": rise, "sent": result.sent, "received": result.received}


def _fill(rows: int) -> None:
    for first in range(0, rows, AT_ONCE):
        some = range(first, min(first + AT_ONCE, rows))
        Line.insert_many([(key, f"{key} {TEXT}") for key in some]).execute()


def _die_after(sync: Sync, pages: int) -> None:
    seen: list[object] = []

    @sync.on_event
    def note(event: object) -> None:
        if isinstance(event, Reconciled):
            seen.append(event)
            if len(seen) == pages:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
