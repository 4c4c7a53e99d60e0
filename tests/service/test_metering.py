"""Who asks for too much is told when to ask again, and nobody else notices."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Scope

from sharedlog.remote.documents import GET_UNSYNCED_ENTRIES
from sharedlog_service.access.auth import issue_token, revoke_token, token_digest
from sharedlog_service.access.metering import Asking, Bodies, Meter, Refusals
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import PUBLIC_RATES, Limits, Rates, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.service.support import NOON, READ, WRITE, Asker, ManualClock, change

MINUTE = 60_000
STATS = "query($user: ID!) {sharedSyncLog {stats(userId: $user) {entries}}}"
LIMITS = "{sharedSyncLog {limits {entryBytes}}}"
PUBLIC = "0.0.0.0"


def wait_of(ask: Callable[[], object]) -> int | None:
    """Return how long to wait, None if it was let in."""
    try:
        ask()
    except Refused as refused:
        assert refused.code is Code.RATE_LIMITED
        wait = refused.details["retryAfterMs"]
        assert type(wait) is int and wait > 0
        return wait
    return None


def let_in(meter: Meter, user: str, device: str | None = None) -> int:
    """Ask until refused; return how often it was let in."""
    for count in range(10_000):
        if wait_of(lambda: meter.ask(user, device)) is not None:
            return count
    raise AssertionError("it is never refused")


@pytest.fixture
def steady() -> ManualClock:
    return ManualClock(5_000)


def test_a_minutes_worth_at_once_and_then_at_the_rate(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=60), steady)
    # One more than a minute's worth: what is asked for is paid for afterwards.
    assert let_in(meter, "ada") == 61
    assert wait_of(lambda: meter.ask("ada")) == 1_000
    steady.ms += 999
    assert wait_of(lambda: meter.ask("ada")) == 1
    steady.ms += 1
    assert let_in(meter, "ada") == 1
    steady.ms += 10 * MINUTE
    assert let_in(meter, "ada") == 61


def test_waiting_as_long_as_told_is_enough(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=7, entries=1_000), steady)
    for _ in range(50):
        wait = wait_of(lambda: meter.ask("ada", "till"))
        if wait is not None:
            steady.ms += wait
            meter.ask("ada", "till")
        meter.wrote("ada", "till", 130, 0)


def test_a_device_gets_half_and_leaves_the_rest_to_the_others(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=60), steady)
    assert let_in(meter, "ada", "till") == 31
    assert let_in(meter, "ada", "tablet") == 30
    assert let_in(meter, "ada", "phone") == 0
    assert let_in(meter, "bob", "till") == 31


@pytest.mark.parametrize("measure", ["entries", "bytes"])
def test_what_was_written_is_paid_for_before_the_next_request(
    steady: ManualClock, measure: str
) -> None:
    meter = Meter(Rates(**{measure: 6_000}), steady)
    meter.ask("ada", "till")
    # As large as it likes: a batch must get through at any rate.
    meter.wrote("ada", "till", **{"entries": 0, "bytes": 0, measure: 60_000})
    assert wait_of(lambda: meter.ask("ada", "till")) == 19 * MINUTE
    assert wait_of(lambda: meter.ask("ada", "tablet")) == 9 * MINUTE
    assert wait_of(lambda: meter.check("ada")) == 9 * MINUTE
    assert wait_of(lambda: meter.ask("bob", "till")) is None


def test_who_is_refused_pays_nothing(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=60), steady)
    let_in(meter, "ada")
    for _ in range(500):
        wait_of(lambda: meter.ask("ada"))
    assert wait_of(lambda: meter.ask("ada")) == 1_000


def test_where_there_are_no_bounds_nothing_is_kept(steady: ManualClock) -> None:
    meter = Meter(Rates(), steady)
    for number in range(100):
        meter.ask(str(number), "x")
        meter.wrote(str(number), "x", 10**9, 10**9)
    assert len(meter) == 0


def test_what_is_kept_has_a_bound_and_the_one_in_use_stays(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=600), steady, kept_max=50)
    devices = iter(f"d{number}" for number in range(2_000))
    asked = sum(wait_of(lambda: meter.ask("ada", next(devices))) is None for _ in range(2_000))
    assert len(meter) <= 50
    assert asked == 601


def test_threads_get_no_more_than_one_would(steady: ManualClock) -> None:
    meter = Meter(Rates(requests=600), steady)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(let_in(meter, "ada"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(counts) == 601


def test_on_loopback_there_are_no_bounds_unless_they_are_set() -> None:
    assert Settings().metered == Rates()
    assert Settings(host=PUBLIC).metered == PUBLIC_RATES
    assert Settings(rates=Rates(requests=1)).metered == Rates(requests=1)
    assert Settings(host=PUBLIC, rates=Rates()).metered == Rates()


# In front of the service


Ask = Callable[[str, str, dict[str, Any]], Any]


@pytest.fixture
def ask(tmp_path: Path, clock: ManualClock, steady: ManualClock) -> Iterator[Ask]:
    """Asks as a user, of a service that allows 60 requests and 100 entries a minute."""
    settings = Settings(
        db=tmp_path / "log.db",
        now=clock,
        steady=steady,
        rates=Rates(requests=60, entries=100, bytes=1_000_000),
    )
    store = Store.open(settings.db, now=clock)
    tokens = {user: issue_token(store, user, "test") for user in ("noisy", "quiet")}
    for user in tokens:
        store.create_device(user, device_id=f"{user}-1")
        store.create_device(user, device_id=f"{user}-2")
    store.close()
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:

        def asking(user: str, document: str, variables: dict[str, Any]) -> Any:
            headers = {"authorization": f"Bearer {tokens[user]}"}
            body = {"query": document, "variables": variables}
            return client.post("/graphql", json=body, headers=headers)

        yield asking


def write(device: str, count: int, start: int = 0) -> dict[str, Any]:
    packed = [[NOON + start + n, 0, change(start + n)] for n in range(count)]
    return {"user": device.partition("-")[0], "device": device, "packed": packed}


def code_of(response: Any) -> str | None:
    errors = response.json().get("errors")
    return None if errors is None else str(errors[0]["extensions"]["code"])


def test_the_answer_says_when_to_ask_again_in_both_languages(ask: Ask, steady: ManualClock) -> None:
    responses = [ask("noisy", STATS, {"user": "noisy"}) for _ in range(62)]
    assert [r.status_code for r in responses] == [200] * 61 + [429]
    refused = responses[-1]
    assert refused.headers["retry-after"] == "1"
    [error] = refused.json()["errors"]
    assert error["extensions"] == {"code": "RATE_LIMITED", "retryAfterMs": 1_000}
    assert "1 s" in error["message"]
    steady.ms += 1_000
    assert ask("noisy", STATS, {"user": "noisy"}).status_code == 200


def test_a_noisy_user_at_fifty_times_the_rate_disturbs_nobody(
    ask: Ask, steady: ManualClock
) -> None:
    """8 seconds: 50 requests a second where one is allowed, beside one each other second."""
    statuses: dict[str, list[int]] = {"noisy": [], "quiet": []}
    numbers = itertools.count()
    for second in range(8):
        for _ in range(50):
            response = ask("noisy", WRITE, write("noisy-1", 1, next(numbers)))
            statuses["noisy"].append(response.status_code)
            assert (response.status_code == 429) == ("retry-after" in response.headers)
        if second % 2 == 0:
            response = ask("quiet", WRITE, write("quiet-1", 1, second))
            assert response.json()["data"]["sharedSyncLog"]["writeEntries"]["accepted"] == 1
            statuses["quiet"].append(response.status_code)
        steady.ms += 1_000
    assert set(statuses["quiet"]) == {200}
    assert set(statuses["noisy"]) == {200, 429}
    # Half a minute's worth at once and then half a request a second, for one device.
    assert statuses["noisy"].count(200) == 31 + 3
    held = ask("quiet", STATS, {"user": "quiet"}).json()["data"]["sharedSyncLog"]["stats"]
    assert held == {"entries": 4}


def test_entries_count_whatever_becomes_of_them(ask: Ask, steady: ManualClock) -> None:
    for _ in range(2):  # the second time they are duplicates
        assert code_of(ask("noisy", WRITE, write("noisy-1", 40))) is None
    refused = ask("noisy", WRITE, write("noisy-1", 1, 900))
    assert (refused.status_code, code_of(refused)) == (429, "RATE_LIMITED")
    # The user's own bound is not reached: another device goes on.
    assert code_of(ask("noisy", WRITE, write("noisy-2", 1))) is None
    # Reading as this device waits, too.
    assert code_of(ask("noisy", READ, {"user": "noisy", "device": "noisy-1"})) == "RATE_LIMITED"
    steady.ms += int(refused.json()["errors"][0]["extensions"]["retryAfterMs"])
    assert code_of(ask("noisy", WRITE, write("noisy-1", 1, 900))) is None


def test_a_large_body_of_who_has_to_wait_is_not_read(ask: Ask) -> None:
    large = write("noisy-1", 4)
    for entry in large["packed"]:
        entry[2] = "x" * 500_000
    assert code_of(ask("noisy", WRITE, large)) is None
    refused = ask("noisy", WRITE, {**large, "device": "noisy-2"})
    assert (refused.status_code, code_of(refused)) == (429, "RATE_LIMITED")
    [error] = refused.json()["errors"]
    assert "path" not in error  # not even its fields were looked at
    assert int(refused.headers["retry-after"]) == 60


@pytest.mark.parametrize("document", ["{sharedSyncLog {limits {entryBytes}}}", "no document"])
def test_a_large_body_counts_as_several_requests_whatever_it_asks(ask: Ask, document: str) -> None:
    """Else its user could keep the service busy with what costs nothing to send in gzip."""
    statuses = [ask("noisy", document, {"x": "x" * 16 * 1024 * 1024}).status_code for _ in range(6)]
    assert statuses == [statuses[0]] * 4 + [429] * 2
    assert ask("quiet", document, {"x": "x" * 100_000}).status_code == statuses[0]


class Halting:
    """A request whose last byte comes when it is told to; `begun`: the rest was taken."""

    def __init__(self, app: ASGIApp, token: str, size: int) -> None:
        self.begun, self.end = asyncio.Event(), asyncio.Event()
        self._app = app
        self._token = token
        self._body = json.dumps({"query": LIMITS}).encode().ljust(size)
        self._sent: list[Message] = []

    async def run(self) -> int:
        """Return the status, the seconds to wait instead if it is 429."""
        authorization = f"Bearer {self._token}".encode()
        headers = [(b"content-type", b"application/json"), (b"authorization", authorization)]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "query_string": b"",
            "headers": headers,
            "client": None,
        }
        await self._app(scope, self._receive, self._send)
        start, *_ = self._sent
        told = dict(start["headers"])
        return int(told[b"retry-after"]) if start["status"] == 429 else int(start["status"])

    async def _receive(self) -> Message:
        if len(self._body) > 1:
            body, self._body = self._body[:-1], self._body[-1:]
            return {"type": "http.request", "body": body, "more_body": True}
        self.begun.set()
        await self.end.wait()
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        self._sent.append(message)


def test_large_bodies_of_one_user_are_held_up_to_a_bound_at_a_time(tmp_path: Path) -> None:
    settings = Settings(db=tmp_path / "log.db", limits=Limits(bodies_bytes=400_000))
    store = Store.open(settings.db)
    noisy, quiet = (issue_token(store, user, "test") for user in ("noisy", "quiet"))
    store.close()
    app = create_app(settings)

    async def whole(token: str, size: int) -> int:
        request = Halting(app, token, size)
        request.end.set()
        return await request.run()

    async def together() -> None:
        halves = [Halting(app, noisy, 150_000) for _ in range(2)]
        running = [asyncio.create_task(half.run()) for half in halves]
        for half in halves:
            await half.begun.wait()
        assert await whole(noisy, 150_000) == 1
        assert await whole(noisy, 90_000) == 200
        assert await whole(noisy, 150_000) == 1
        # What is short always has room, and so has who else asks.
        assert await whole(noisy, 60_000) == 200
        assert await whole(quiet, 150_000) == 200
        for half in halves:
            half.end.set()
        assert await asyncio.gather(*running) == [200, 200]
        # Nothing is left of them; and one alone may be as large as it may be at all.
        assert await whole(noisy, 500_000) == 200

    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(together)


def test_a_body_that_grows_is_held_as_far_as_there_is_room() -> None:
    bodies = Bodies(Meter(Rates(), ManualClock()), 100)
    with bodies.admit("ada") as one, bodies.admit("ada") as other, bodies.admit("bob") as bobs:
        one.hold(40)
        other.hold(10)
        bobs.hold(100)
        assert wait_of(lambda: other.hold(61)) == 1_000
        other.hold(60)
        one.hold(30)  # it never becomes less
        assert wait_of(lambda: one.hold(41)) == 1_000
    assert len(bodies) == 0


def test_nobody_uses_up_what_is_anothers(ask: Ask) -> None:
    for _ in range(100):
        assert code_of(ask("noisy", STATS, {"user": "quiet"})) == "FORBIDDEN"
    assert code_of(ask("quiet", STATS, {"user": "quiet"})) is None


def test_made_up_devices_do_not_help(ask: Ask) -> None:
    codes = [
        code_of(ask("noisy", READ, {"user": "noisy", "device": "x" * 5_000 + str(n)}))
        for n in range(100)
    ]
    # All of them are one device to the meter.
    assert codes == ["DEVICE_UNKNOWN"] * 31 + ["RATE_LIMITED"] * 69


def test_who_was_refused_a_moment_ago_is_not_looked_up(tmp_path: Path, steady: ManualClock) -> None:
    """By the library's documents, which tell in their variables who asks."""
    settings = Settings(db=tmp_path / "log.db", steady=steady, rates=Rates(requests=8))
    store = Store.open(settings.db)
    token = issue_token(store, "ada", "test")
    for device in ("till", "tablet"):
        store.create_device("ada", device_id=device)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:

        def pull(device: str, wait_ms: int = 0) -> int:
            steady.ms += wait_ms
            pages = {"after": None, "batchSize": 1, "byteLimit": 1, "lineage": None}
            body = {
                "query": GET_UNSYNCED_ENTRIES,
                "variables": {"userId": "ada", "deviceId": device, **pages},
            }
            headers = {"authorization": f"Bearer {token}"}
            return int(client.post("/graphql", json=body, headers=headers).status_code)

        assert [pull("till") for _ in range(7)] == [200] * 5 + [429] * 2
        assert pull("tablet") == 200
        # A device may ask each 15 seconds, which it is told at once.
        assert [pull("till", ms) for ms in (14_999, 1, 0)] == [429, 200, 429]
        revoke_token(store, token_digest(token))
        assert [pull("till"), pull("tablet"), pull("till", 999)] == [429, 401, 429]
        assert pull("till", 1) == 401
    store.close()


def test_only_the_last_who_were_refused_are_remembered(steady: ManualClock) -> None:
    refusals = Refusals(steady, kept_max=2)
    for user in ("ada", "bob", "cy"):
        refusals.note(Asking("token", user, None), 5_000)
    waits = [
        wait_of(lambda user=user: refusals.check(Asking("token", user, None)))  # type: ignore[misc]
        for user in ("ada", "bob", "cy")
    ]
    assert waits == [None, 5_000, 5_000]
    steady.ms += 400
    assert wait_of(lambda: refusals.check(Asking("token", "cy", None))) == 4_600
    assert wait_of(lambda: refusals.check(Asking("other", "cy", None))) is None
    assert wait_of(lambda: refusals.check(Asking("token", "cy", "till"))) is None


def test_several_fields_of_one_request_count_each(ask: Ask) -> None:
    fields = " ".join(f"a{n}: stats(userId: $user) {{entries}}" for n in range(4))
    document = f"query($user: ID!) {{sharedSyncLog {{{fields}}}}}"
    statuses = [ask("noisy", document, {"user": "noisy"}).status_code for _ in range(20)]
    assert statuses == [200] * 15 + [429] * 5


def test_sockets_count_as_requests_do(tmp_path: Path, steady: ManualClock) -> None:
    settings = Settings(db=tmp_path / "log.db", steady=steady, rates=Rates(requests=10))
    store = Store.open(settings.db)
    token = issue_token(store, "ada", "test")
    store.close()
    with (
        TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client,
        client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as socket,
    ):
        payload: dict[str, Any] = {"authorization": f"Bearer {token}"}
        socket.send_json({"type": "connection_init", "payload": payload})
        assert socket.receive_json()["type"] == "connection_ack"
        codes: list[str | None] = []
        for number in range(13):
            payload = {"query": STATS, "variables": {"user": "ada"}}
            socket.send_json({"type": "subscribe", "id": str(number), "payload": payload})
            found = socket.receive_json()["payload"]
            codes.append(found["errors"][0]["extensions"]["code"] if "errors" in found else None)
            assert socket.receive_json()["type"] == "complete"
    assert codes == [None] * 11 + ["RATE_LIMITED"] * 2


def test_without_bounds_all_goes_through(ada: Asker) -> None:
    for _ in range(70):
        ada.ask(STATS, {"user": "ada"})
