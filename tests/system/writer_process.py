"""A device that writes and syncs, in a process of its own, until its input ends.

It prints the number of each change that the service has acknowledged, and in the end how often
the service was away: python -m tests.system.writer_process FILE URL TOKEN
"""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

from sharedlog import ConnectionFailed
from tests.system.crash_world import Note, device
from tests.system.service_process import DEADLINE_S, ServiceProcess

PAUSE_S = 0.2
"""While the service is away."""


class WriterProcess:
    """One running writer."""

    def __init__(self, db: Path, service: ServiceProcess) -> None:
        self.db = db
        self.output = db.with_suffix(".output")
        command = [sys.executable, "-m", __name__, str(db), service.url, service.token or ""]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def acknowledged(self) -> int:
        """How many of its changes, the first so many, the service has acknowledged."""
        assert self._process.poll() is None, self.output.read_text()
        return len(self.output.read_text().splitlines())

    def end(self) -> int:
        """Let it sync a last time, and end; returns how often the service was away."""
        self._process.communicate(timeout=DEADLINE_S)
        *_, last = self.output.read_text().splitlines()
        assert self._process.returncode == 0, self.output.read_text()
        return int(last.removeprefix("away "))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def write(db: Path, url: str, token: str) -> None:
    told = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    away = told_of = 0
    with device(db, url=url, token=token) as sync:
        for number in count():
            Note.create(key=f"{db.stem}-{number}", title="one of many")
            try:
                sync.sync()
            except ConnectionFailed:
                away += 1
                told.wait(PAUSE_S)
                continue
            for acknowledged in range(told_of, number + 1):
                print(acknowledged, flush=True)  # noqa: T201
            told_of = number + 1
            if told.is_set():
                break
    print(f"away {away}")  # noqa: T201


if __name__ == "__main__":
    write(Path(sys.argv[1]), *sys.argv[2:])
