"""Devices that write without end, each in a thread: a load whose every entry is known."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count

from sharedlog import GraphQLSharedLog, HttpTransport, SharedLogError
from sharedlog.remote.sharedlog import Outgoing
from sharedlog_service.settings import system_clock

BATCH = 20


class Writer(threading.Thread):
    """A device that offers a batch to one service after the other until one acknowledges it. It
    keeps what was acknowledged."""

    def __init__(self, number: int, urls: Sequence[str], token: str) -> None:
        super().__init__(daemon=True)
        self._logs = [GraphQLSharedLog(HttpTransport(url, token)) for url in urls]
        if number % 2:
            self._logs.reverse()
        self.device = f"device-{number}"
        self.kept: list[Outgoing] = []
        self.failures = 0
        self.stop = threading.Event()

    def run(self) -> None:
        begin = system_clock() * 1024
        for turn in count():
            if self.stop.is_set():
                break
            batch = [
                Outgoing(begin + turn * BATCH + n, 0, f"{self.device} {turn} {n}")
                for n in range(BATCH)
            ]
            while not self._offer(batch):
                self._logs.reverse()
            self.kept += batch
        for log in self._logs:
            log.close()

    def _offer(self, batch: list[Outgoing]) -> bool:
        log = self._logs[0]
        try:
            log.register(None, self.device)
            receipt = log.write(
                self.device, batch, after=None, now_ms=0, limit=1, byte_limit=1, lineage=None
            )
        except SharedLogError:
            self.failures += 1
            return False
        assert receipt.accepted + receipt.duplicates == len(batch)
        return True

    @property
    def acknowledged(self) -> list[int]:
        return [entry.ticks for entry in self.kept]

    def offer_again(self) -> None:
        """As after a restored backup: all of its own, in batches."""
        log = self._logs[0]
        log.register(None, self.device)
        for start in range(0, len(self.kept), 1_000):
            assert self._offer(self.kept[start : start + 1_000])
        log.close()
