"""The real thing: `sharedlog serve` in its own process, real HTTP, real signals."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sharedlog_service.store.store import Store
from tests.service.support import CREATE_DEVICE, READ, WRITE, read_all

PATIENCE_S = 30

SERVE = """
import argparse, sys
from sharedlog_service.cli import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers())
args = parser.parse_args(sys.argv[1:])
sys.exit(args.handler(args))
"""


class Served:
    """One running service."""

    def __init__(self, folder: Path, *options: str) -> None:
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        options = ("--db", str(folder / "log.db"), "--ready-file", str(ready), *options)
        command = [sys.executable, "-c", SERVE, "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + PATIENCE_S
        while not ready.exists():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = json.loads(ready.read_text())
        self.url: str = found["url"]
        self.token: str | None = found["token"]

    def connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self.url)
        assert address.hostname
        return http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)

    def end(self, how: int) -> tuple[int, str]:
        """Send a signal and return the exit code and all that was printed."""
        self.process.send_signal(how)
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, printed


def ask(
    connection: http.client.HTTPConnection,
    token: str | None,
    document: str,
    variables: dict[str, Any],
) -> Any:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    body = json.dumps({"query": document, "variables": variables})
    connection.request("POST", "/graphql", body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert "errors" not in answer, answer
    assert response.getheader("server") is None
    return answer["data"]["sharedSyncLog"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def serving(*options: str) -> Served:
        running.append(Served(tmp_path, *options))
        return running[-1]

    yield serving
    for service in running:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def test_the_first_start_prints_a_token_that_works(served: Callable[..., Served]) -> None:
    service = served("--user", "ada")
    connection = service.connect()
    device = ask(connection, service.token, CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    write = {"user": "ada", "device": device, "packed": [[1024, 0, "x"]]}
    assert ask(connection, service.token, WRITE, write)["writeEntries"]["accepted"] == 1
    update = ask(connection, service.token, READ, {"user": "ada", "device": device})
    assert update["getUnsyncedEntries"]["packed"]["entries"] == []
    connection.close()
    code, printed = service.end(signal.SIGTERM)
    assert code in (0, -signal.SIGTERM)
    assert f"token     {service.token}" in printed
    assert f"{service.url}#token={service.token}" in printed


def test_the_second_start_prints_none(served: Callable[..., Served]) -> None:
    token = served("--user", "ada").token
    assert token is not None
    served_again = served("--user", "ada")
    assert served_again.token is None
    connection = served_again.connect()
    ask(connection, token, CREATE_DEVICE, {"user": "ada"})
    connection.close()
    assert "slog_" not in served_again.end(signal.SIGTERM)[1]


def test_stopping_is_quick_and_quiet_and_tidies_up(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    for how in (signal.SIGTERM, signal.SIGINT):
        service = served("--no-auth")
        # A client that keeps its connection open must not keep the service alive.
        connection = service.connect()
        ask(connection, None, CREATE_DEVICE, {"user": "ada"})
        start = time.monotonic()
        code, printed = service.end(how)
        connection.close()
        assert time.monotonic() - start < PATIENCE_S / 2
        assert code in (0, -how)
        assert "Traceback" not in printed
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log.db", "ready.json"]


def test_without_tokens_it_serves_loopback_names_only(served: Callable[..., Served]) -> None:
    service = served("--no-auth", "--host", "localhost")
    for host, status in (("localhost", 200), ("evil.example", 421)):
        connection = service.connect()
        connection.request("GET", "/healthz", headers={"host": host})
        assert connection.getresponse().status == status
        connection.close()


def test_settings_come_from_the_file_and_the_environment(
    served: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "chosen.toml"
    file.write_text("auth = false\nexplore = true\n")
    monkeypatch.setenv("SHAREDLOG_EXPLORE", "false")
    served("--settings", str(file))
    found = json.loads((tmp_path / "ready.json").read_text())
    assert (found["user"], found["token"], found["graphiql"]) == ("me", None, None)


class Pusher(threading.Thread):
    """Pushes one small batch after the other and remembers what was acknowledged."""

    def __init__(self, service: Served, device: str, number: int) -> None:
        super().__init__()
        self._service = service
        self._device = device
        self._number = number
        self.sent: list[str] = []
        self.acknowledged: list[str] = []

    def run(self) -> None:
        connection = self._service.connect()
        try:
            for turn in range(100_000):
                texts = [f"{self._number}-{turn}-{n}" for n in range(3)]
                batch = [[1024 + turn * 10 + n, n, text] for n, text in enumerate(texts)]
                self.sent += texts
                write = {"user": "me", "device": self._device, "packed": batch}
                answer = ask(connection, self._service.token, WRITE, write)["writeEntries"]
                assert answer["accepted"] == 3
                self.acknowledged += texts
        except (OSError, http.client.HTTPException):
            # Killed under way, as intended.
            connection.close()


def test_kill_9_loses_nothing_that_was_acknowledged(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    service = served()
    connection = service.connect()
    devices = [
        ask(connection, service.token, CREATE_DEVICE, {"user": "me"})["createDeviceId"]
        for _ in range(4)
    ]
    connection.close()
    pushers = [Pusher(service, device, n) for n, device in enumerate(devices[:3])]
    for pusher in pushers:
        pusher.start()
    while sum(len(pusher.acknowledged) for pusher in pushers) < 150:
        assert service.process.poll() is None
    service.end(signal.SIGKILL)
    for pusher in pushers:
        pusher.join()

    store = Store.open(tmp_path / "log.db")
    found = [entry for page in read_all(store, "me", devices[3]) for entry in page.entries]
    assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
    texts = [entry.data for entry in found]
    assert len(set(texts)) == len(texts)
    for pusher, device in zip(pushers, devices, strict=False):
        own = [entry.data for entry in found if entry.device == device]
        # In order, without a hole, at least what was acknowledged, whole batches only.
        assert own == pusher.sent[: len(own)]
        assert len(own) >= len(pusher.acknowledged)
        assert len(own) % 3 == 0
    store.close()


OPEN_FILES = """
import resource
hard = min(int(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), 300)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
from sharedlog_service.commands.serving import allow_open_files
allow_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_it_takes_as_many_open_files_as_it_may_have() -> None:
    assert subprocess.check_output([sys.executable, "-c", OPEN_FILES], text=True) == "True\n"
