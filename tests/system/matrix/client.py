"""A device in a process of its own: transactions in one thread, exchanges in another one."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import peewee

from sharedlog import GraphQLSharedLog, HttpTransport, Sync, SyncModel
from sharedlog.errors import RemoteError

KEYS = 100
WRITES = 4

TIMEOUT_S = 1.0
"""For an answer of the service: a held network is noticed after that."""

PAUSE_S = 0.05
"""Between two exchanges."""

QUIET, SETTLE = "quiet", "settle"
"""What a client is told in the end: to write no more and send what it has; to receive all."""


class Cell(SyncModel):
    key = peewee.CharField(primary_key=True)
    value = peewee.TextField()


class Done(peewee.Model):
    """The transactions of this device, noted by themselves: not tracked."""

    number = peewee.IntegerField(primary_key=True)
    keys = peewee.TextField()


@dataclass
class Ending:
    """What a client has in the end, and what it went through."""

    cells: dict[str, str]
    done: dict[int, str]
    pending: int
    parked: int
    last_error: str | None
    exchanges: int
    away: int
    unexpected: list[str] = field(default_factory=list)


class Client:
    """Writes `rate` transactions a second until it is told otherwise."""

    def __init__(self, sync: Sync, name: str, rate: float, pipe: Connection) -> None:
        self._sync = sync
        self._name = name
        self._rate = rate
        self._pipe = pipe
        self._away = 0
        self._unexpected: list[str] = []
        self._ended = threading.Event()

    def run(self) -> Ending:
        exchanging = threading.Thread(target=self._exchange_again_and_again, daemon=True)
        exchanging.start()
        last = Done.select(peewee.fn.max(Done.number)).scalar() or 0
        number, chance = last, random.Random(f"{self._name} {last}")
        while not self._pipe.poll(1 / self._rate):
            number += 1
            self._transact(number, chance)
        assert self._pipe.recv() == QUIET
        self._ended.set()
        exchanging.join()
        while self._exchange() is None or self._sync.status().pending:
            time.sleep(PAUSE_S)
        self._pipe.send(QUIET)
        assert self._pipe.recv() == SETTLE
        exchanges = 1
        while (result := self._exchange()) is None or result.received or result.sent:
            exchanges += 1
            time.sleep(PAUSE_S)
        return self._ending(exchanges)

    def _transact(self, number: int, chance: random.Random) -> None:
        with self._sync.database.atomic("IMMEDIATE"):
            found = {cell.key for cell in Cell.select()}
            keys = [f"{key}" for key in chance.sample(range(KEYS), WRITES)]
            for key in keys:
                value = f"{self._name} {number}"
                if key in found:
                    Cell.update(value=value).where(Cell.key == key).execute()
                else:
                    Cell.create(key=key, value=value)
            Done.insert(number=number, keys=" ".join(sorted(keys))).execute()

    def _exchange_again_and_again(self) -> None:
        while not self._ended.wait(PAUSE_S):
            self._exchange()

    def _exchange(self) -> Any:
        """The result of an exchange; None if the service cannot be reached."""
        try:
            return self._sync.sync()
        except RemoteError as error:
            self._away += 1
            if not error.retryable:
                self._unexpected.append(repr(error))
        except Exception as error:
            self._unexpected.append(repr(error))
        return None

    def _ending(self, exchanges: int) -> Ending:
        status = self._sync.status()
        return Ending(
            {cell.key: cell.value for cell in Cell.select()},
            {done.number: done.keys for done in Done.select()},
            status.pending,
            status.parked + status.waiting + status.unreadable + status.refused,
            None if status.last_error is None else str(status.last_error),
            exchanges,
            self._away,
            self._unexpected,
        )


def live(path: str, url: str, token: str, rate: float, pipe: Connection) -> None:
    """Be a client, in a process that was just forked."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    name = os.path.basename(path).partition(".")[0]
    database = peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal"}, timeout=10)
    log = GraphQLSharedLog(HttpTransport(url, token, timeout_s=TIMEOUT_S))
    with database.bind_ctx([Cell, Done]):
        database.create_tables([Cell, Done])
        with Sync(database, [Cell], shared_log=log, device_name=name) as sync:
            pipe.send(Client(sync, name, rate, pipe).run())
