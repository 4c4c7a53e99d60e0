"""The real service in a process of its own: `sharedlog serve` on a file, on any free port.

The process is forked from one that has imported what `serve` needs and done nothing else, which
halves what a start costs; `tests.service.test_served` starts the command itself.

    def test_something(service: ServiceProcess) -> None:
        sync = Sync(database, [Note], url=service.url, token=service.token)
        service.kill()      # SIGKILL
        service.start()     # again: same file, same address, same token

For more than one service, or one with other options, use `ServiceProcess` as a context manager.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import pytest

from sharedlog.cli import main
from sharedlog_service.access.auth import issue_token
from sharedlog_service.store.store import Store

DEADLINE_S = 30.0
"""For starting and for stopping; both take less than a second on an idle machine."""

PRELOADED = ("sharedlog.cli", "sharedlog_service.commands.serving", __name__)


def run(words: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
    """Be the command `sharedlog`, in a process that has just been forked."""
    os.environ.clear()
    os.environ.update(environment)
    with output.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sys.exit(main(words))


class ServiceProcess:
    """One service on one database file, which is made when it is not there; or on the database
    that `place` is the address of, and then `db` only tells where to keep notes."""

    def __init__(self, db: Path, *options: str, place: str | None = None) -> None:
        self.db = db
        self.place = place or db
        self.url = ""
        self.user = "me"
        self.token: str | None = None
        self._options = options
        self._port = 0
        self._process: ForkServerProcess | None = None

    @property
    def output(self) -> Path:
        """What the service printed, all starts one after the other."""
        return self.db.with_suffix(".output")

    @property
    def pid(self) -> int:
        assert self._process is not None, "the service is not running"
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> ServiceProcess:
        """Return when it answers. Every later start is at the same address."""
        assert not self.running, "the service is running already"
        ready = self.db.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        words = ["serve", "--db", str(self.place), "--port", str(self._port)]
        words += ["--ready-file", str(ready), "--grace", "0", *self._options]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED])
        self._process = context.Process(
            target=run, args=(words, self.output, dict(os.environ)), daemon=True
        )
        self._process.start()
        deadline = time.monotonic() + DEADLINE_S
        while not ready.exists():
            assert self.running, f"the service did not start:\n{self.output.read_text()}"
            assert time.monotonic() < deadline, "the service does not get ready"
            time.sleep(0.005)
        found = json.loads(ready.read_text())
        self.url = found["url"]
        self.user = found["user"] or self.user
        self.token = found["token"] or self.token
        self._port = urlsplit(self.url).port or 0
        return self

    def kill(self) -> None:
        """End it by SIGKILL: it has no say in it."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Ask it by SIGTERM to end; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait until it has ended; returns its exit code."""
        assert self._process is not None, "the service is not running"
        self._process.join(DEADLINE_S)
        code = self._process.exitcode
        assert code is not None, "the service does not end"
        self._process = None
        return code

    def make_token(self, user: str) -> str:
        """Make a token for a user, who is made too if new. The service may be running."""
        store = Store.open(self.place)
        try:
            return issue_token(store, user, "test")
        finally:
            store.close()

    def __enter__(self) -> ServiceProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running:
            self.kill()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """The real service on a fresh file, ready."""
    with ServiceProcess(tmp_path / "service.db") as running:
        yield running
