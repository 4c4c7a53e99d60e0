"""Pokes by real services: their sockets, their ends, and from process to process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing

import psycopg
import pytest

from sharedlog import GraphQLSharedLog, HttpTransport
from sharedlog.remote.sharedlog import Outgoing
from sharedlog_service.access.auth import issue_token, revoke_token, rotate_token, token_digest
from sharedlog_service.settings import system_clock
from sharedlog_service.store.store import Store
from tests.engines import SERVER, Postgres
from tests.system.service_process import ServiceProcess
from tests.system.subscriber import Subscriber, subscribed

CLOSED_WITHIN_S = 5.0


class Writer:
    """A device that writes one entry after the other, by HTTP."""

    def __init__(self, service: ServiceProcess, device: str = "writer") -> None:
        self._log = GraphQLSharedLog(HttpTransport(service.url, service.token))
        self.device = self._log.register(None, device)
        self._ticks = system_clock() * 1024

    def write(self) -> str:
        """Return the log's end after it."""
        self._ticks += 1
        entry = Outgoing(self._ticks, 0, f"{self.device} {self._ticks}")
        receipt = self._log.write(
            self.device, [entry], after=None, now_ms=0, limit=1_000, byte_limit=100_000
        )
        assert receipt.accepted == 1
        assert receipt.page is not None
        return receipt.page.cursor

    def close(self) -> None:
        self._log.close()


def waiting(
    service: ServiceProcess, device: str, token: str | None = None
) -> AbstractContextManager[Subscriber]:
    return subscribed(service.url, token or service.token, service.user, device)


@pytest.fixture
def writer(service: ServiceProcess) -> Iterator[Writer]:
    with closing(Writer(service)) as writer:
        yield writer


def register(service: ServiceProcess, *devices: str) -> None:
    with closing(GraphQLSharedLog(HttpTransport(service.url, service.token))) as log:
        for device in devices:
            log.register(None, device)


def test_what_one_device_writes_pokes_the_others_and_not_itself(
    service: ServiceProcess, writer: Writer
) -> None:
    register(service, "phone", "laptop")
    with waiting(service, "phone") as phone, waiting(service, writer.device) as itself:
        beginnings = [phone.poke(), itself.poke()]
        assert beginnings[0] == beginnings[1]
        first = writer.write()
        assert phone.poke() == first
        with closing(Writer(service, "laptop")) as other:
            second = other.write()
        assert phone.poke() == second
        assert itself.poke() == second


def test_many_writes_are_few_pokes_and_the_last_one_is_told(
    service: ServiceProcess, writer: Writer
) -> None:
    register(service, "phone")
    with waiting(service, "phone") as phone:
        phone.poke()
        began = time.monotonic()
        cursors = [writer.write() for _ in range(100)]
        took = time.monotonic() - began
        assert phone.poked_up_to(cursors[-1]) <= took / 0.05 + 3


def test_who_does_not_read_holds_up_neither_writers_nor_others(
    service: ServiceProcess, writer: Writer
) -> None:
    register(service, "phone", "asleep")
    with waiting(service, "phone") as phone, waiting(service, "asleep"):
        phone.poke()
        for _ in range(20):
            cursor = writer.write()
            assert phone.poke() == cursor


def test_sockets_end_with_their_token_or_device_and_others_stay(service: ServiceProcess) -> None:
    register(service, "phone", "lost")
    with closing(Store.open(service.db)) as store, ExitStack() as stack:
        tokens = [issue_token(store, service.user, "test") for _ in range(3)]
        revoked, rotated = (token_digest(token) for token in tokens[:2])
        soon = issue_token(store, service.user, "test", expires_at=store.now() + 500)
        devices = [*zip([*tokens, soon], ["phone"] * 4, strict=True), (None, "lost")]
        *ending, staying = [
            stack.enter_context(waiting(service, device, token))
            for token, device in [*devices[:2], *devices[3:], devices[2]]
        ]
        for one in (*ending, staying):
            one.poke()
        began = time.monotonic()
        revoke_token(store, revoked)
        rotate_token(store, rotated, 0)
        store.revoke_device(service.user, "lost")
        assert [one.closed(CLOSED_WITHIN_S) for one in ending] == [4403] * 4
        assert time.monotonic() - began < CLOSED_WITHIN_S
        with closing(Writer(service)) as writer:
            cursor = writer.write()
        assert staying.poke() == cursor


def test_the_service_ends_in_time_with_hundreds_of_sockets(service: ServiceProcess) -> None:
    devices = [f"device-{number}" for number in range(50)]
    register(service, *devices)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(waiting(service, device)) for device in devices for _ in range(4)
        ]
        for one in opened:
            one.poke()
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        assert {one.closed() for one in opened} == {1012}
        assert service.wait() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 10
    assert "Traceback" not in service.output.read_text()
    service.start()
    with waiting(service, devices[0]) as again:
        again.poke()


# Several processes at one PostgreSQL


def test_what_is_written_by_one_process_pokes_who_waits_at_another(
    services: list[ServiceProcess],
) -> None:
    services[1].token = services[0].token
    register(services[0], "phone", "laptop")
    with (
        waiting(services[0], "phone") as phone,
        waiting(services[1], "laptop") as laptop,
        closing(Writer(services[0])) as here,
        closing(Writer(services[1], "writer-2")) as there,
    ):
        for writer in (here, there, here, there):
            cursor = writer.write()
            phone.poked_up_to(cursor)
            laptop.poked_up_to(cursor)


def test_a_lost_connection_between_processes_loses_no_news(
    services: list[ServiceProcess], postgres: Postgres
) -> None:
    services[1].token = services[0].token
    register(services[0], "laptop")
    with waiting(services[1], "laptop") as laptop, closing(Writer(services[0])) as writer:
        laptop.poked_up_to(writer.write())
        for _ in range(3):
            assert end_listening(postgres.schema) > 0
            laptop.poked_up_to(writer.write())


def end_listening(schema: str) -> int:
    """Cut the connections that listen; return how many there were."""
    with psycopg.connect(SERVER, autocommit=True) as connection:
        sql = """
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'sharedlog pokes' AND query LIKE '%%' || %s || '%%'
        """
        found = connection.execute(sql, [schema]).fetchone()
    return found[0] if found else 0
