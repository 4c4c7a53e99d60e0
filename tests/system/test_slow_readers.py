"""Readers that ask for the largest pages and take nothing, at a real service: its memory stays
within bounds, others are answered, and who was cut off goes on where it was."""

from __future__ import annotations

import http.client
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sharedlog_service.store.store import Store
from tests.process_memory import NOW, memory_kib
from tests.service.support import NOON
from tests.system.service_process import ServiceProcess

MIB = 1024 * 1024

USERS, READERS = 4, 25
"""How many users, and how many readers each of them."""

PAGE_BYTES = 8 * MIB

ENTRIES = 1_000

ANSWERS_BYTES = 32 * MIB

OVERHEAD_BYTES = 64 * MIB
"""What a service takes beside: pages that are just read and made, and a little of each connection.
Without bounds it would be 800 MiB of pages."""

DEADLINE_S = 60

PULL = """
    query Pull($user: ID!, $device: ID!, $after: Cursor, $bytes: Int!) { sharedSyncLog {
        getUnsyncedEntries(
            userId: $user, deviceId: $device, after: $after, batchSize: 1000, byteLimit: $bytes
        ) { cursor hasMore packed }
    } }
"""


class Asker:
    """Asks as one user."""

    def __init__(self, service: ServiceProcess, user: str) -> None:
        address = urlsplit(service.url)
        assert address.hostname and address.port
        self._address = address.hostname, address.port
        self._user = user
        self._token = service.make_token(user)
        store = Store.open(service.db)
        for role in ("writer", "reader"):
            store.create_device(user, device_id=f"{user}-{role}")
        store.close()

    def fill(self, service: ServiceProcess, data: str) -> None:
        """Let another device of the user have written the largest page there is."""
        entries = [(NOON - 10_000_000_000_000 + n, 0, f"{n} {data}") for n in range(ENTRIES)]
        store = Store.open(service.db)
        assert store.write(self._user, f"{self._user}-writer", entries).accepted == ENTRIES
        store.close()

    def pull(self, after: str | None = None, bytes: int = 1_000_000) -> tuple[list[int], str]:
        """Return the numbers of the entries on a page, and where it ends."""
        connection = http.client.HTTPConnection(*self._address, timeout=DEADLINE_S)
        connection.request("POST", "/graphql", self._body(after, bytes), self._headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == 200, answer
        page = answer["data"]["sharedSyncLog"]["getUnsyncedEntries"]
        numbers = [int(data.partition(" ")[0]) for *_, data in page["packed"]["entries"]]
        return numbers, page["cursor"]

    def pull_and_wait(self) -> socket.socket:
        """Ask for the largest page, and take nothing of it."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(self._address)
        body = self._body(None, PAGE_BYTES)
        headers = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **self._headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"POST /graphql HTTP/1.1\r\n{head}\r\n".encode() + body)
        return connection

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}

    def _body(self, after: str | None, bytes: int) -> bytes:
        device = f"{self._user}-reader"
        variables = {"user": self._user, "device": device, "after": after, "bytes": bytes}
        return json.dumps({"query": PULL, "variables": variables}).encode()


class Watch(threading.Thread):
    """Looks at the memory of a service until it is told to end."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.most = self.before = memory_kib(NOW, pid) * 1024
        self.end = threading.Event()
        self._pid = pid

    def run(self) -> None:
        while not self.end.wait(0.02):
            self.most = max(self.most, memory_kib(NOW, self._pid) * 1024)


@contextmanager
def watching(pid: int) -> Iterator[Watch]:
    watch = Watch(pid)
    watch.start()
    try:
        yield watch
    finally:
        watch.end.set()
        watch.join()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    options = ("--answers-bytes", str(ANSWERS_BYTES))
    with ServiceProcess(tmp_path / "service.db", *options) as running:
        yield running


def until(true: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        meanwhile()


def are_cut(connections: list[socket.socket]) -> int:
    """How many of these the service has ended, without reading anything from them."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, 0)
    return len(poll.poll(20))


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell a process's memory")
def test_readers_that_take_nothing_are_cut_off_and_hurt_nobody(
    service: ServiceProcess, record_property: Callable[[str, object], None]
) -> None:
    slow, quiet = [Asker(service, f"slow-{n}") for n in range(USERS)], Asker(service, "quiet")
    for asker in slow:
        asker.fill(service, "x" * (PAGE_BYTES // ENTRIES - 10))
    quiet.fill(service, "q")
    usual = [len(asker.pull(bytes=PAGE_BYTES)[0]) for asker in slow]

    def ask() -> None:
        assert len(quiet.pull()[0]) == ENTRIES

    def are_free() -> bool:
        return [len(asker.pull(bytes=PAGE_BYTES)[0]) for asker in slow] == usual

    with watching(service.pid) as watch, ExitStack() as held:
        readers = [held.enter_context(asker.pull_and_wait()) for asker in slow * READERS]
        for _ in range(20):
            ask()
        until(lambda: are_cut(readers) >= USERS, ask)
        until(are_free, ask)
    record_property("memory with slow readers, MiB", (watch.most - watch.before) // MIB)
    assert watch.most - watch.before < ANSWERS_BYTES + OVERHEAD_BYTES
    # Nothing is lost: the same devices read all of it, each entry once.
    for asker in slow:
        found: list[int] = []
        cursor: str | None = None
        while len(found) < ENTRIES:
            numbers, cursor = asker.pull(cursor, PAGE_BYTES)
            found += numbers
        assert found == [*range(ENTRIES)]
        assert asker.pull(cursor)[0] == []
