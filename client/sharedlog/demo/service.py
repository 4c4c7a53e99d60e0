"""The demonstration's service: a process of its own, started by the command that users type."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from ..errors import SharedLogError
from .signals import Signals

START_S = 30
STOP_S = 15


class ServiceNotStarted(SharedLogError):
    """The service did not start."""

    code = "SERVICE_NOT_STARTED"


class ServiceProcess:
    """`sharedlog serve` on one SQLite file; it can be stopped and started again."""

    def __init__(self, folder: Path, port: int, signals: Signals) -> None:
        self.path = folder / "service.db"
        self._ready_file = folder / "ready.json"
        self._errors = folder / "service.errors"
        self._port = port
        self._signals = signals
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""
        self.graphiql = ""

    @property
    def command(self) -> list[str]:
        """The arguments of `sharedlog`, as a user would type them."""
        return ["serve", "--database", str(self.path), "--port", str(self._port)]

    def start(self) -> None:
        """Start and wait until it answers. Keeps its port and its token when started again."""
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "sharedlog.cli", *self.command]
        with self._errors.open("wb") as errors, self._signals.held():
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(self._ready_file), "--grace", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self._await_ready(self._process)
        found = json.loads(self._ready_file.read_text(encoding="utf-8"))
        self._ready_file.unlink()
        self.url = found["url"]
        self._port = int(self.url.rsplit(":", 1)[1].partition("/")[0])
        if found["token"]:  # told once, on the first start
            self.token, self.graphiql = found["token"], found["graphiql"]

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self._ready_file.exists():
            if process.poll() is not None:
                raise ServiceNotStarted(
                    f"The service stopped with exit code {process.returncode}: {self._said()}"
                )
            if time.monotonic() > deadline:
                raise ServiceNotStarted(f"The service does not answer. {self._said()}")
            time.sleep(0.01)

    def _said(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def wait(self) -> int:
        """Wait until it stops by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Stop it if it runs, and see it gone."""
        process = self._process
        if process is None:
            return
        with self._signals.held():
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._process = None
            if not self._said():
                self._errors.unlink(missing_ok=True)
