"""Answers that nobody takes: so many wait, of one user and in all; pages become shorter."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.access.answers import ROOM_MIN, SHORT_BYTES, Answers
from sharedlog_service.access.auth import issue_token
from sharedlog_service.entries import NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.answering import PART_BYTES, InParts
from sharedlog_service.web.app import create_app
from tests.service.support import NOON

MIB = 1024 * 1024

LONG_AGO = NOON - 10_000_000_000_000
"""Before the service's own time, which is the real one here."""

PAGE = """
    query Page($user: ID!, $device: ID!) { sharedSyncLog {
        getUnsyncedEntries(
            userId: $user, deviceId: $device, byteLimit: 8000000, batchSize: 1000
        ) { packed hasMore cursor }
    } }
"""


def fits(answers: Answers, user: str, size: int) -> bool:
    try:
        with answers.hold(user, size):
            return True
    except Refused as refused:
        assert (refused.code, refused.details) == (Code.ANSWERS_WAITING, {"retryAfterMs": 1_000})
        return False


def test_one_user_has_a_quarter_of_what_there_is_room_for() -> None:
    answers = Answers(100 * MIB)
    with answers.hold("ada", 20 * MIB):
        assert fits(answers, "ada", 5 * MIB)
        assert not fits(answers, "ada", 5 * MIB + 1)
        assert fits(answers, "bob", 80 * MIB)
    assert len(answers) == 0
    assert fits(answers, "ada", 200 * MIB)  # alone


def test_all_users_together_have_no_more_than_all() -> None:
    answers = Answers(100 * MIB)
    with ExitStack() as held:
        for number in range(4):
            held.enter_context(answers.hold(f"user-{number}", 24 * MIB))
        assert fits(answers, "ada", 4 * MIB)
        assert not fits(answers, "ada", 4 * MIB + 1)
    assert fits(answers, "ada", 4 * MIB + 1)


def test_the_less_room_there_is_the_shorter_are_the_pages() -> None:
    answers = Answers(100 * MIB)
    assert [answers.room("ada", page) for page in (1, 2, 3)] == [
        25 * MIB // 2,
        25 * MIB // 4,
        25 * MIB // 8,
    ]
    with answers.hold("ada", 21 * MIB):
        assert answers.room("ada", 1) == 2 * MIB
        assert answers.room("bob", 1) == 25 * MIB // 2
        with answers.hold("bob", 78 * MIB):
            assert answers.room("ada", 1) == answers.room("cy", 1) == MIB // 2
            assert answers.room("bob", 1) == ROOM_MIN
    assert answers.room("ada", 1_000) == ROOM_MIN


def test_without_a_bound_everything_fits() -> None:
    answers = Answers(None)
    with answers.hold("ada", 1_000 * MIB):
        assert fits(answers, "ada", 1_000 * MIB)
        assert answers.room("ada", 9) is None


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize(
    ("size", "parts"),
    [(0, 1), (1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 2), (3 * PART_BYTES, 3)],
)
def test_a_server_is_given_parts(size: int, parts: int, more: bool) -> None:
    body = bytes(n % 251 for n in range(size))
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    asyncio.run(InParts(app)({"type": "http"}, receive, send))
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert b"".join(message["body"] for message in rest) == body
    assert [message["more_body"] for message in rest] == [True] * (parts - 1) + [more]
    assert max(len(message["body"]) for message in rest) <= PART_BYTES


class Reader:
    """Asks for a page, and takes no more than its beginning before it is told to."""

    def __init__(self, app: ASGIApp, user: str, token: str, *, gzip: bool = False) -> None:
        self.waits, self.go_on = asyncio.Event(), asyncio.Event()
        self.status = 0
        self.taken = 0
        self._app = app
        self._sent: list[Message] = []
        variables = {"user": user, "device": f"{user}-reader"}
        self._body = json.dumps({"query": PAGE, "variables": variables}).encode()
        self._headers = [
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {token}".encode()),
            (b"accept-encoding", b"gzip" if gzip else b"identity"),
        ]

    async def run(self) -> dict[str, Any]:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "query_string": b"",
            "headers": self._headers,
            "client": None,
        }
        await self._app(scope, self._receive, self._send)
        start, *rest = self._sent
        self.status = start["status"]
        self.headers = dict(start["headers"])
        body = b"".join(message["body"] for message in rest)
        self.taken = len(body)
        return {} if b"content-encoding" in self.headers else dict(json.loads(body))

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        self._sent.append(message)
        if message.get("more_body"):
            self.waits.set()
            await self.go_on.wait()


class Logs:
    """An application that lets 4 MiB of answers wait, 1 MiB of one user."""

    def __init__(self, folder: Path, *users: str) -> None:
        settings = Settings(db=folder / "log.db", limits=Limits(answers_bytes=4 * MIB))
        self.tokens: dict[str, str] = {}
        store = Store.open(settings.db)
        for user in users:
            self.tokens[user] = issue_token(store, user, "test")
            for role in ("writer", "reader"):
                store.create_device(user, device_id=f"{user}-{role}")
        store.close()
        self.db = settings.db
        self.app = create_app(settings)

    def write(self, user: str, count: int, *, group: bool) -> None:
        store = Store.open(self.db)
        entries = [NewEntry(LONG_AGO + n, n if group else 0, "x" * 100_000) for n in range(count)]
        assert store.write(user, f"{user}-writer", entries).accepted == count
        store.close()

    def reader(self, user: str, **more: Any) -> Reader:
        return Reader(self.app, user, self.tokens[user], **more)


def entries_of(answer: dict[str, Any]) -> int:
    return len(answer["data"]["sharedSyncLog"]["getUnsyncedEntries"]["packed"]["entries"])


async def waiting(reader: Reader) -> asyncio.Task[dict[str, Any]]:
    """Let a reader ask, and return when its answer waits to be taken."""
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(30):
        await reader.waits.wait()
    return task


async def taking(reader: Reader) -> dict[str, Any]:
    """Let a reader ask, and take its answer."""
    reader.go_on.set()
    return await reader.run()


def test_pages_become_shorter_while_answers_wait(tmp_path: Path) -> None:
    logs = Logs(tmp_path, "slow", "quiet")
    for user in ("slow", "quiet"):
        logs.write(user, 20, group=False)

    async def story() -> None:
        slow = [logs.reader("slow") for _ in range(3)]
        tasks = [await waiting(reader) for reader in slow]
        # Half of the megabyte, half of what is left then, and so on; the others are not concerned.
        assert entries_of(await taking(logs.reader("slow"))) == 1
        assert entries_of(await taking(logs.reader("quiet"))) == 5
        for reader in slow:
            reader.go_on.set()
        assert [entries_of(answer) for answer in await asyncio.gather(*tasks)] == [5, 2, 1]
        assert entries_of(await taking(logs.reader("slow"))) == 5

    with TestClient(logs.app) as client:
        assert client.portal is not None
        client.portal.call(story)


@pytest.mark.parametrize("gzip", [False, True])
def test_an_answer_that_does_not_fit_is_refused_and_can_be_asked_for_again(
    tmp_path: Path, gzip: bool
) -> None:
    """A transaction that no page divides."""
    logs = Logs(tmp_path, "slow", "quiet")
    for user in ("slow", "quiet"):
        logs.write(user, 6, group=True)

    async def story() -> None:
        slow = logs.reader("slow", gzip=False)
        task = await waiting(slow)
        refused = logs.reader("slow", gzip=gzip)
        answer = await taking(refused)
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
        [error] = answer["errors"]
        assert error["extensions"] == {"code": "ANSWERS_WAITING", "retryAfterMs": 1_000}
        other = logs.reader("quiet", gzip=gzip)
        await taking(other)
        assert other.status == 200
        slow.go_on.set()
        assert entries_of(await task) == 6
        assert entries_of(await taking(logs.reader("slow"))) == 6

    with TestClient(logs.app) as client:
        assert client.portal is not None
        client.portal.call(story)


def test_what_is_short_has_room_always(tmp_path: Path) -> None:
    logs = Logs(tmp_path, "slow")
    logs.write("slow", 6, group=True)

    async def story() -> None:
        slow = logs.reader("slow")
        task = await waiting(slow)
        short = logs.reader("slow")
        short._body = json.dumps({"query": "{sharedSyncLog {viewer}}"}).encode()
        assert (await taking(short))["data"]["sharedSyncLog"]["viewer"] == "slow"
        assert short.taken < SHORT_BYTES
        slow.go_on.set()
        await task

    with TestClient(logs.app) as client:
        assert client.portal is not None
        client.portal.call(story)


def test_who_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    logs = Logs(tmp_path, "slow")
    logs.write("slow", 6, group=True)

    async def story() -> None:
        for _ in range(3):
            task = await waiting(logs.reader("slow"))
            task.cancel()
            await asyncio.wait([task])
        assert entries_of(await taking(logs.reader("slow"))) == 6

    with TestClient(logs.app) as client:
        assert client.portal is not None
        client.portal.call(story)
    assert len(logs.app.state.service.answers) == 0
