"""Pokes within one process, with what subscribers look at in the test's hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.pokes import DEVICE_SOCKETS_MAX, LOOKS_MAX, Pokes

WAIT_S = 10


def run(test: Callable[[Pokes], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        pokes = Pokes(pause_s=0)
        pokes.start()
        async with asyncio.timeout(WAIT_S):
            await test(pokes)

    asyncio.run(bounded())


class Looking:
    """What a subscriber finds when it looks: a number that the test sets."""

    def __init__(self) -> None:
        self.head = 0
        self.looks = 0

    async def __call__(self) -> int:
        self.looks += 1
        return self.head


@asynccontextmanager
async def following(
    pokes: Pokes, user: str, device: str, look: Callable[[], Awaitable[int]], owner: object = None
) -> AsyncIterator[AsyncGenerator[int]]:
    found = pokes.follow(user, device, owner or object(), look)
    try:
        yield found
    finally:
        await found.aclose()


async def settle() -> None:
    """Let all that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_who_comes_is_told_where_the_log_ends_and_then_of_what_others_write() -> None:
    async def test(pokes: Pokes) -> None:
        log = Looking()
        log.head = 3
        async with following(pokes, "ada", "phone", log) as found:
            assert await anext(found) == 3
            coming = asyncio.ensure_future(anext(found))
            pokes.wrote("ada", "phone")  # its own
            pokes.wrote("bob", "laptop")  # not its log
            await settle()
            assert not coming.done()
            log.head = 4
            pokes.wrote("ada", "laptop")
            assert await coming == 4

    run(test)


def test_what_comes_between_looking_and_waiting_is_not_missed() -> None:
    async def test(pokes: Pokes) -> None:
        heads = iter(range(10))

        async def look() -> int:
            found = next(heads)
            if found == 1:  # behind the first look, which only asks whether one may
                pokes.poke("ada")
            return found

        async with following(pokes, "ada", "phone", look) as found:
            assert await anext(found) == 1
            assert await anext(found) == 2

    run(test)


def test_a_slow_subscriber_holds_one_poke_and_finds_the_newest() -> None:
    async def test(pokes: Pokes) -> None:
        log = Looking()
        async with following(pokes, "ada", "phone", log) as found:
            assert await anext(found) == 0
            for head in range(1, 1_001):  # while it is busy with the first
                log.head = head
                pokes.wrote("ada", "laptop")
            await settle()
            assert log.looks == 2
            assert await anext(found) == 1_000
            coming = asyncio.ensure_future(anext(found))
            await settle()
            assert not coming.done()
            coming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await coming

    run(test)


def test_writing_is_told_from_any_thread_and_never_fails() -> None:
    kept: list[Pokes] = []

    async def test(pokes: Pokes) -> None:
        kept.append(pokes)
        log = Looking()
        async with following(pokes, "ada", "phone", log) as found:
            await anext(found)
            coming = asyncio.ensure_future(anext(found))
            log.head = 1
            thread = threading.Thread(target=pokes.wrote, args=("ada", "laptop"))
            thread.start()
            assert await coming == 1
            thread.join()

    run(test)
    kept[0].wrote("ada", "laptop")  # its loop has ended
    Pokes().wrote("ada", "laptop")  # it was never started


def test_others_are_told_what_was_written_here_and_nothing_that_they_told() -> None:
    async def test(pokes: Pokes) -> None:
        told: list[tuple[str, str]] = []
        pokes.start(lambda user, device: told.append((user, device)))
        pokes.poke("ada", "elsewhere")
        pokes.wrote("ada", "laptop")
        await settle()
        assert told == [("ada", "laptop")]

    run(test)


def test_all_are_poked_when_pokes_may_be_lost() -> None:
    async def test(pokes: Pokes) -> None:
        log = Looking()
        async with (
            following(pokes, "ada", "phone", log) as one,
            following(pokes, "bob", "laptop", log) as two,
        ):
            for found in (one, two):
                await anext(found)
            log.head = 1
            pokes.poke_all()
            assert [await anext(one), await anext(two)] == [1, 1]

    run(test)


def test_a_device_waits_on_so_many_sockets_and_gives_its_place_back() -> None:
    async def test(pokes: Pokes) -> None:
        log = Looking()
        taken = []
        for _ in range(DEVICE_SOCKETS_MAX):
            taken.append(pokes.follow("ada", "phone", object(), log))
            await anext(taken[-1])
        with pytest.raises(Refused) as refused:
            await anext(pokes.follow("ada", "phone", object(), log))
        assert refused.value.code is Code.TOO_MANY_SOCKETS
        # Another device, and another's device of this name, have places of their own.
        for user, device in (("ada", "laptop"), ("bob", "phone")):
            async with following(pokes, user, device, log) as found:
                await anext(found)
        await taken.pop().aclose()
        async with following(pokes, "ada", "phone", log) as found:
            await anext(found)
        for one in taken:
            await one.aclose()
        assert list(pokes.subscribers()) == []

    run(test)


def test_several_subscriptions_on_one_socket_count_as_one() -> None:
    async def test(pokes: Pokes) -> None:
        owner, log = object(), Looking()
        taken = [pokes.follow("ada", "phone", owner, log) for _ in range(2 * DEVICE_SOCKETS_MAX)]
        for one in taken:
            await anext(one)
        for one in taken:
            await one.aclose()

    run(test)


def test_who_may_not_look_takes_no_place() -> None:
    async def test(pokes: Pokes) -> None:
        async def look() -> int:
            assert list(pokes.subscribers()) == []
            raise Refused(Code.FORBIDDEN)

        with pytest.raises(Refused):
            await anext(pokes.follow("ada", "phone", object(), look))

    run(test)


def test_a_crowd_looks_one_after_the_other() -> None:
    async def test(pokes: Pokes) -> None:
        looking, most = 0, 0

        async def look() -> int:
            nonlocal looking, most
            looking += 1
            most = max(most, looking)
            await asyncio.sleep(0)
            looking -= 1
            return 0

        crowd = [pokes.follow("ada", f"device-{n}", object(), look) for n in range(20)]
        await asyncio.gather(*(anext(one) for one in crowd))
        assert most == LOOKS_MAX
        for one in crowd:
            await one.aclose()

    run(test)
