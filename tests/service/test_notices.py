"""Notices between processes: two of them here in one event loop, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from sharedlog_service.engines.notices import FIRST_WAIT_S, WAIT_MAX_S, Notices
from tests.engines import SERVER, Postgres

WAIT_S = 30

Told = list[tuple[str, str | None]]


class Process:
    """One process's notices; the test decides when it tries again."""

    def __init__(self, url: str, name: str) -> None:
        self.heard: Told = []
        self.connected = 0
        self.waits: list[float] = []
        self.again = asyncio.Semaphore(0)
        self.notices = Notices(
            url,
            name,
            lambda user, device: self.heard.append((user, device)),
            self._connected,
            sleep=self._sleep,
            random=lambda: 0.5,
        )
        self._task = asyncio.create_task(self.notices.run())

    def _connected(self) -> None:
        self.connected += 1

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.again.acquire()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def run(url: str, test: Callable[[Process, Process], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            pair = Process(url, "one"), Process(url, "two")
            try:
                await test(*pair)
            finally:
                for process in pair:
                    await process.end()

    asyncio.run(bounded())


def connection(**options: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(SERVER, autocommit=True, **options)


def test_what_one_tells_the_other_hears_and_not_itself(postgres: Postgres) -> None:
    async def test(one: Process, two: Process) -> None:
        await until(lambda: one.connected and two.connected)
        one.notices.tell("ada", "phone")
        one.notices.tell("Łukasz\n'\"", "laptop")
        await until(lambda: len(two.heard) == 2)
        two.notices.tell("ada", "tablet")
        await until(lambda: one.heard)
        assert two.heard == [("ada", "phone"), ("Łukasz\n'\"", "laptop")]
        assert one.heard == [("ada", "tablet")]

    run(str(postgres.place), test)


def test_what_comes_up_meanwhile_is_one_notice(postgres: Postgres) -> None:
    async def test(one: Process, two: Process) -> None:
        await until(lambda: one.connected and two.connected)
        for _ in range(3):
            one.notices.tell("ada", "phone")
            one.notices.tell("bob", "laptop")
        one.notices.tell("bob", "tablet")
        await until(lambda: len(two.heard) == 2)
        one.notices.tell("eve", "phone")
        await until(lambda: len(two.heard) > 2)
        assert two.heard == [("ada", "phone"), ("bob", None), ("eve", "phone")]

    run(str(postgres.place), test)


def test_after_a_lost_connection_everything_may_be_new(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(one: Process, two: Process) -> None:
        await until(lambda: one.connected and two.connected)
        with connection() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'sharedlog pokes' AND query LIKE %s",
                [f"%{postgres.schema}%"],
            )
        await until(lambda: one.waits and two.waits)
        one.notices.tell("ada", "phone")  # nobody hears it
        one.again.release()
        two.again.release()
        await until(lambda: one.connected == 2 and two.connected == 2)
        assert one.waits == two.waits == [FIRST_WAIT_S]

    run(str(postgres.place), test)
    assert "notices between processes stopped: OperationalError" in caplog.text


def test_what_is_not_understood_is_passed_over(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(one: Process, two: Process) -> None:
        await until(lambda: one.connected and two.connected)
        with connection() as other:
            for payload in ("CANARY", "5", "[1]", '["x", 1, 2, 3]'):
                other.execute("SELECT pg_notify(%s, %s)", [f"sharedlog_{postgres.schema}", payload])
        one.notices.tell("ada", "phone")
        await until(lambda: two.heard)
        assert two.heard == [("ada", "phone")]

    run(str(postgres.place), test)
    assert caplog.text.count("a notice was not understood") == 8
    assert "CANARY" not in caplog.text


def test_a_database_that_is_away_is_tried_less_and_less_often() -> None:
    async def test(one: Process, two: Process) -> None:
        for tries in range(1, 11):
            while len(one.waits) < tries:
                await asyncio.sleep(0.001)
            one.again.release()
        assert one.waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
        assert one.waits[-2:] == [WAIT_MAX_S] * 2

    run("postgresql://nobody@127.0.0.1:1/nothing", test)
