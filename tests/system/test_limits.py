"""A service with bounds and devices that run into them, over real HTTP: told, and stuck nowhere."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import peewee
import pytest

from sharedlog import QuotaExceeded, RateLimited, Sync, SyncModel
from sharedlog.limits import DEVICE_NAME_CHARS
from sharedlog_service.settings import Policy
from sharedlog_service.store.devices import LABEL_CHARS_MAX
from sharedlog_service.store.store import Store
from tests.service.support import NOON, WRITE, change
from tests.system.service_process import ServiceProcess

ANSWERED = 1_500
"""50 times the 30 requests that a device may send at once where 60 a minute are allowed."""


class Note(SyncModel):
    title = peewee.TextField()


Serve = Callable[..., ServiceProcess]
Open = Callable[..., Sync]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[ServiceProcess] = []

    def serving(*options: str) -> ServiceProcess:
        running.append(ServiceProcess(tmp_path / "service.db", *options).start())
        return running[-1]

    yield serving
    for service in running:
        if service.running:
            service.kill()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Open]:
    """Opens a device of a service, and leaves Note bound to its file."""
    opened: list[Sync] = []

    def opening(service: ServiceProcess, name: str, **options: Any) -> Sync:
        database = peewee.SqliteDatabase(str(tmp_path / f"{name}.db"), pragmas={"synchronous": 0})
        Note.bind(database)
        if not database.table_exists("note"):
            database.create_tables([Note])
        sync = Sync(database, [Note], url=service.url, token=service.token, **options)
        opened.append(sync.setup())
        return sync

    yield opening
    for sync in opened:
        sync.close()
        sync.database.close()


class Asking(threading.Thread):
    """Sends pushes of one entry each, as fast as it can, and counts the statuses."""

    def __init__(self, service: ServiceProcess, user: str, token: str, requests: range) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.without_a_time = 0
        self._service = service
        self._user = user
        self._token = token
        self._requests = requests

    def run(self) -> None:
        address = urlsplit(self._service.url)
        assert address.hostname
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {self._token}",
        }
        for number in self._requests:
            packed = [[NOON - 10_000_000_000_000 + number, 0, change(number)]]
            variables = {"user": self._user, "device": f"{self._user}-1", "packed": packed}
            body = json.dumps({"query": WRITE, "variables": variables})
            connection.request("POST", "/graphql", body, headers)
            response = connection.getresponse()
            response.read()
            self.statuses[response.status] += 1
            if response.status == 429 and not int(response.headers["retry-after"]) > 0:
                self.without_a_time += 1
        connection.close()


def test_both_sides_know_how_long_a_name_may_be() -> None:
    assert DEVICE_NAME_CHARS == LABEL_CHARS_MAX


def test_a_noisy_user_is_told_to_wait_and_a_quiet_one_is_served(serve: Serve) -> None:
    service = serve("--requests-per-minute", "60")
    tokens = {user: service.make_token(user) for user in ("noisy", "quiet")}
    store = Store.open(service.db)
    for user in tokens:
        store.create_device(user, device_id=f"{user}-1")
    store.close()
    part = ANSWERED // 3
    noisy = [
        Asking(service, "noisy", tokens["noisy"], range(part * n, part * (n + 1))) for n in range(3)
    ]
    quiet = Asking(service, "quiet", tokens["quiet"], range(25))
    for thread in (*noisy, quiet):
        thread.start()
    for thread in (*noisy, quiet):
        thread.join(120)
    assert quiet.statuses == {200: 25}
    heard = sum((thread.statuses for thread in noisy), Counter())
    assert set(heard) == {200, 429}
    assert heard.total() == ANSWERED
    assert heard[429] > ANSWERED * 0.9
    assert [thread.without_a_time for thread in noisy] == [0, 0, 0]
    store = Store.open(service.db)
    assert store.stats("quiet").entries == 25
    assert store.stats("noisy").entries == heard[200]
    store.close()


def test_a_device_that_is_told_to_wait_waits_and_loses_nothing(
    serve: Serve, device: Open, tmp_path: Path
) -> None:
    service = serve("--entries-per-minute", "100")
    later = [0]

    def now() -> int:
        return time.time_ns() // 1_000_000 + later[0]

    sync = device(service, "one", batch_size=40, now=now)
    for number in range(100):
        Note.create(title=str(number))
    with pytest.raises(RateLimited) as error:
        sync.sync()
    assert error.value.retryable
    assert 0 < error.value.retry_after <= 60
    status = sync.status()
    assert status.last_error is not None and status.last_error.code == "RATE_LIMITED"
    assert status.held_until is not None and status.held_until > status.last_error.at
    assert status.pending == 20  # two batches went through, and the second is being paid for
    # Until then the service is not asked again: it could not even be reached.
    service.kill()
    with pytest.raises(RateLimited) as again:
        sync.sync()
    assert again.value.retry_after <= error.value.retry_after
    service.start()
    later[0] = int(error.value.retry_after * 1000)
    assert sync.sync().sent == 20
    assert (sync.status().pending, sync.status().last_error) == (0, None)


def test_a_full_log_still_gives_what_others_wrote_and_takes_the_rest_when_there_is_room(
    serve: Serve, device: Open
) -> None:
    service = serve("--quota-entries", "10")
    one, two = device(service, "one"), device(service, "two")
    Note.bind(one.database)
    first = Note.create(title="first")
    for number in range(7):
        Note.update(title=str(number)).where(Note.id == first.id).execute()
    Note.bind(two.database)
    for _ in range(5):
        Note.create(title="two's")
    assert one.sync().sent == 8
    for _ in range(2):
        with pytest.raises(QuotaExceeded):
            two.sync()
        # The others' rows are here, and its own are not lost.
        assert Note.select().where(Note.id == first.id).get().title == "6"
        status = two.status()
        assert (status.pending, status.refused) == (5, 0)
        assert status.last_error is not None and status.last_error.code == "QUOTA_EXCEEDED"
    store = Store.open(service.db)
    store.compact("me", Policy())
    store.close()
    assert two.sync().sent == 5
    one.sync()
    Note.bind(one.database)
    assert Note.select().count() == 6
    # Seven entries are left. When it is full again, a deletion finds room nevertheless.
    for _ in range(3):
        Note.create(title="one's")
    assert one.sync().sent == 3
    Note.delete().where(Note.id == first.id).execute()
    assert one.sync().sent == 1
    Note.create(title="one too many")
    with pytest.raises(QuotaExceeded):
        one.sync()


def test_where_a_log_takes_no_more_devices_work_goes_on_until_it_does(
    serve: Serve, device: Open
) -> None:
    service = serve("--quota-devices", "1")
    one = device(service, "one")
    one.sync()
    two = device(service, "two")
    Note.create(title="two's")
    for _ in range(2):
        with pytest.raises(QuotaExceeded, match="sharedlog devices revoke"):
            two.sync()
        Note.create(title="two's")
    status = two.status()
    assert (status.device, status.pending, status.refused) == (None, 3, 0)
    assert status.last_error is not None and status.last_error.code == "QUOTA_EXCEEDED"
    one.sync()  # who is registered notices nothing
    store = Store.open(service.db)
    store.revoke_device("me", store.devices("me")[0].id)
    assert two.sync().sent == 3
    # A device that begins anew as another one finds itself in the same place, and comes out of it.
    two.reset()
    with pytest.raises(QuotaExceeded, match="sharedlog devices revoke"):
        two.sync()
    store.revoke_device("me", store.devices("me")[1].id)
    store.close()
    two.sync()
    assert Note.select().count() == 3
