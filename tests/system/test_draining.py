"""The service is asked to end while many write: it says so first, and loses nothing."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from sharedlog import ConnectionFailed, GraphQLSharedLog, HttpTransport
from sharedlog.remote.sharedlog import Outgoing
from tests.engines import SERVER, Postgres
from tests.system.crash_world import check_client, read_client, read_log
from tests.system.service_process import DEADLINE_S, ServiceProcess
from tests.system.writer_process import WriterProcess
from tests.waiting import until

WRITERS = 3
SOCKETS = 50
DRAIN_S = 10
"""What operations.md promises."""


@pytest.fixture
def graceful(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "service.db", "--grace", "1") as service:
        yield service


@pytest.fixture
def writers(graceful: ServiceProcess, tmp_path: Path) -> Iterator[list[WriterProcess]]:
    found = [WriterProcess(tmp_path / f"writer{n}.db", graceful) for n in range(WRITERS)]
    yield found
    for writer in found:
        writer.kill()


def status(service: ServiceProcess, path: str) -> int:
    """Ask by a connection of its own."""
    address = urlsplit(service.url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=DEADLINE_S)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def all_are_acknowledged(writers: list[WriterProcess], more_than: list[int]) -> bool:
    counts = [writer.acknowledged for writer in writers]
    return all(count > least for count, least in zip(counts, more_than, strict=True))


def test_sigterm_under_load_loses_nothing_and_everybody_goes_on(
    graceful: ServiceProcess, writers: list[WriterProcess]
) -> None:
    until(lambda: all_are_acknowledged(writers, [10] * WRITERS), DEADLINE_S)
    assert (status(graceful, "/readyz"), status(graceful, "/healthz")) == (200, 200)
    with ExitStack() as stack:
        for opening in [open_socket] * SOCKETS + [open_half_a_request]:
            stack.enter_context(opening(graceful))
        before = [writer.acknowledged for writer in writers]
        began = time.monotonic()
        graceful.signal(signal.SIGTERM)
        until(lambda: status(graceful, "/readyz") == 503, DEADLINE_S)
        # It is not ready any more, and yet alive: everybody is answered, new connections too.
        assert status(graceful, "/healthz") == 200
        until(lambda: all_are_acknowledged(writers, before), DEADLINE_S)
        assert graceful.running
        assert graceful.wait() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < DRAIN_S
    acknowledged = [writer.acknowledged for writer in writers]
    kept = {entry.change["pk"] for entry in read_log(graceful.db)}
    told = {
        f"{w.db.stem}-{n}" for w, c in zip(writers, acknowledged, strict=True) for n in range(c)
    }
    assert told <= kept
    assert "Traceback" not in graceful.output.read_text()

    graceful.start()
    until(lambda: all_are_acknowledged(writers, acknowledged), DEADLINE_S)
    for writer in writers:
        assert writer.end() > 0
    log = read_log(graceful.db)
    for writer in writers:
        check_client(read_client(writer.db), log)


def test_another_signal_ends_the_time_of_grace(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "service.db", "--grace", "60") as service:
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        until(lambda: status(service, "/readyz") == 503, DEADLINE_S)
        assert service.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < DEADLINE_S


def test_work_that_hangs_in_the_database_does_not_keep_it(
    tmp_path: Path, postgres: Postgres
) -> None:
    """Somebody holds a lock: a push and a pull wait for it, and are told of nothing."""
    with ServiceProcess(tmp_path / "x.db", place=str(postgres.place)) as service:
        with psycopg.connect(SERVER) as other, ExitStack() as stack:
            logs = [GraphQLSharedLog(HttpTransport(service.url, service.token)) for _ in range(2)]
            for log in logs:
                stack.callback(log.close)
            device = logs[0].register(None, "device")
            other.execute(f"LOCK TABLE {postgres.schema}.entries".encode())
            pool = stack.enter_context(ThreadPoolExecutor(2))
            batch = [Outgoing(1024, 0, "never acknowledged")]
            how: dict[str, Any] = {"after": None, "limit": 1, "byte_limit": 1, "lineage": None}
            hanging: list[Future[Any]] = [
                pool.submit(logs[0].write, "device", batch, now_ms=0, **how),
                pool.submit(logs[1].read, "device", **how),
            ]
            until(lambda: waiting(other, postgres) == len(hanging), DEADLINE_S)
            began = time.monotonic()
            assert service.stop() in (0, -signal.SIGTERM)
            assert time.monotonic() - began < DRAIN_S
            for found in hanging:
                assert isinstance(found.exception(DEADLINE_S), ConnectionFailed)
        assert device


def waiting(connection: psycopg.Connection[Any], postgres: Postgres) -> int:
    """How many wait for the table of entries."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    found = connection.execute(sql, [f"{postgres.schema}.entries"]).fetchone()
    assert found is not None
    return int(found[0])


def open_socket(service: ServiceProcess) -> ExitStack:
    """A client that listens, and says nothing."""
    stack = ExitStack()
    socket = stack.enter_context(
        connect(
            service.url.replace("http://", "ws://"),
            subprotocols=[Subprotocol("graphql-transport-ws")],
            proxy=None,
        )
    )
    payload = {"authorization": f"Bearer {service.token}"}
    socket.send(json.dumps({"type": "connection_init", "payload": payload}))
    assert json.loads(socket.recv(DEADLINE_S)) == {"type": "connection_ack"}
    return stack


def open_half_a_request(service: ServiceProcess) -> socket.socket:
    address = urlsplit(service.url)
    assert address.hostname and address.port
    found = socket.create_connection((address.hostname, address.port), DEADLINE_S)
    found.sendall(b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
    found.sendall(b"content-length: 1000\r\n\r\n{")
    return found
