"""One cell of the matrix: so many clients, so many transactions a second, one kind of fault."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from sharedlog_service.store.store import Store
from tests.dictmodel import Write, row_of
from tests.service.support import read_all
from tests.system.service_process import PRELOADED, ServiceProcess

from .client import QUIET, SETTLE, WRITES, Ending, live
from .proxy import Proxy

FAULTS = ("none", "disconnect", "stop", "kill", "pause", "partition")

DEADLINE_S = 60.0
"""For a client to be done, once all is well again. On an idle machine it takes a second."""

Heal = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """`rate` is of all clients together, in transactions a second."""

    clients: int
    rate: float
    seconds: float
    fault: str
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    transactions: int
    faults: int
    away: int
    seconds_to_heal: float
    exchanges: int
    """Of the slowest client, from when all had sent everything."""


class Peer:
    """A client's process, and its network."""

    def __init__(self, path: Path, service: ServiceProcess, rate: float) -> None:
        address = urlsplit(service.url)
        self.proxy = Proxy(address.hostname or "", address.port or 0)
        self._url = f"http://127.0.0.1:{self.proxy.port}{address.path}"
        self._token = str(service.token)
        self._path = path
        self._rate = rate
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED])
        self._pipe, theirs = context.Pipe()
        given = (str(self._path), self._url, self._token, self._rate, theirs)
        self._process = context.Process(target=live, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def signal(self, number: int) -> None:
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def restart(self) -> None:
        assert self._process is not None
        self._process.join(DEADLINE_S)
        self.start()

    def tell(self, what: str) -> None:
        assert self._pipe is not None
        self._pipe.send(what)

    def hear(self, deadline: float) -> Any:
        assert self._pipe is not None
        assert self._pipe.poll(max(0.0, deadline - time.monotonic())), f"{self._path.stem} is stuck"
        return self._pipe.recv()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self.proxy.close()


class Nemesis:
    """Lets things go wrong, one after the other."""

    def __init__(self, fault: str, peers: Sequence[Peer], service: ServiceProcess, seed: int):
        self._act: Callable[[Peer | None], Heal] = getattr(self, f"_{fault}")
        self._with_service = fault in ("stop", "kill", "pause")
        self._peers = peers
        self._service = service
        self._chance = random.Random(seed)
        self.count = 0

    def strike(self) -> float:
        """Let something go wrong for a moment, and mend it; return how long it took."""
        victims: list[Peer | None] = [*self._peers, *([None] if self._with_service else [])]
        some = self._chance.sample(victims, self._chance.randint(1, len(victims)))
        begin = time.monotonic()
        heals = [self._act(victim) for victim in some]
        self.count += len(heals)
        time.sleep(self._chance.uniform(0.1, 1.5))
        for heal in heals:
            heal()
        return time.monotonic() - begin

    def _none(self, victim: Peer | None) -> Heal:
        self.count -= 1
        return lambda: None

    def _disconnect(self, victim: Peer | None) -> Heal:
        assert victim is not None
        victim.proxy.cut()
        return victim.proxy.heal

    def _partition(self, victim: Peer | None) -> Heal:
        assert victim is not None
        victim.proxy.hold(answers_only=self._chance.random() < 0.5)
        return victim.proxy.heal

    def _stop(self, victim: Peer | None) -> Heal:
        if victim is None:
            self._service.stop()
            return self._service.start
        victim.signal(signal.SIGTERM)
        return victim.restart

    def _kill(self, victim: Peer | None) -> Heal:
        if victim is None:
            self._service.kill()
            return self._service.start
        victim.signal(signal.SIGKILL)
        return victim.restart

    def _pause(self, victim: Peer | None) -> Heal:
        what = self._service if victim is None else victim
        what.signal(signal.SIGSTOP)
        return lambda: what.signal(signal.SIGCONT)


def run(cell: Cell, folder: Path, service: ServiceProcess) -> Outcome:
    """Run a cell against a running service, and check it."""
    with ExitStack() as stack:
        peers = []
        for number in range(cell.clients):
            peer = Peer(folder / f"c{number}.db", service, cell.rate / cell.clients)
            stack.callback(peer.close)
            peer.start()
            peers.append(peer)
        nemesis = Nemesis(cell.fault, peers, service, cell.seed)
        left = cell.seconds
        while left > 0:
            left -= nemesis.strike()
            pause = random.Random(f"{cell.seed} {nemesis.count}").uniform(0.1, 0.7)
            time.sleep(pause)
            left -= pause
        healed = time.monotonic()
        for peer in peers:
            peer.tell(QUIET)
        for peer in peers:
            assert peer.hear(healed + DEADLINE_S) == QUIET
        for peer in peers:
            peer.tell(SETTLE)
        endings = [peer.hear(healed + DEADLINE_S) for peer in peers]
        took = time.monotonic() - healed
    check(endings, entries_of(service))
    return Outcome(
        sum(len(ending.done) for ending in endings),
        nemesis.count,
        sum(ending.away for ending in endings),
        took,
        max(ending.exchanges for ending in endings),
    )


def entries_of(service: ServiceProcess) -> list[Any]:
    with closing(Store.open(service.place)) as store:
        reader = store.create_device(service.user)
        pages = read_all(store, service.user, reader)
        return [entry for page in pages for entry in page.entries]


def check(endings: Sequence[Ending], entries: Sequence[Any]) -> None:
    """Nothing is lost, nothing is there twice, no transaction is torn, all devices are equal, and
    their status says so."""
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    lives: dict[str, list[Write]] = defaultdict(list)
    written: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for entry in entries:
        change = orjson.loads(entry.data)
        stamp = entry.created_on, entry.device
        lives[change["pk"]].append(Write(stamp, change["operation"], change["value"]))
        written[change["value"]["value"]].append((entry.seq, change["pk"]))
    wanted = {key: row_of(life).values["value"] for key, life in lives.items()}
    for number, ending in enumerate(endings):
        assert ending.unexpected == []
        assert (ending.pending, ending.parked, ending.last_error) == (0, 0, None)
        assert ending.cells == wanted
        for transaction, keys in ending.done.items():
            found = written.pop(f"c{number} {transaction}", [])
            assert sorted(key for _, key in found) == sorted(keys.split())
            first = min(seq for seq, _ in found)
            assert sorted(seq for seq, _ in found) == list(range(first, first + WRITES))
    assert Counter(written) == Counter()  # nothing that no device says it wrote
