"""`Live` with a log in memory, whose pokes come when the test says so."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from peewee import TextField

from sharedlog import (
    ConfigurationError,
    ConnectionFailed,
    GraphQLSharedLog,
    HttpTransport,
    Live,
    LocalTransport,
    MemorySharedLog,
    MissingToken,
    NotSetUp,
    RateLimited,
    SyncModel,
    Unauthorized,
)
from sharedlog.events import Finished, PokesBegan, PokesEnded, Postponed, Started
from sharedlog.remote.listening import FIRST_S, MAX_S, Backoff
from sharedlog.remote.sharedlog import PokingLog
from tests.client.devices import SHARED, Device
from tests.waiting import WAIT_S, until

NEVER_S = 3600.0


class Note(SyncModel):
    text = TextField()


class Pokes:
    """What a device is poked with: cursors, or an error that ends it. None: it was closed."""

    def __init__(self) -> None:
        self.coming: SimpleQueue[str | Exception | None] = SimpleQueue()

    def __iter__(self) -> Iterator[str]:
        while (found := self.coming.get(timeout=WAIT_S)) is not None:
            if isinstance(found, Exception):
                raise found
            yield found
        raise ConnectionFailed("closed")

    def close(self) -> None:
        self.coming.put(None)


class PokedLog(MemorySharedLog):
    """A log in memory that pokes."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, Pokes]] = []
        self.refusing: Exception | None = None

    @contextmanager
    def pokes(self, device: str) -> Iterator[Any]:
        if self.refusing is not None:
            raise self.refusing
        pokes = Pokes()
        self.opened.append((device, pokes))
        yield pokes

    def poke(self, found: str | Exception) -> None:
        self.opened[-1][1].coming.put(found)


class Watched:
    """A device on a file, and what its listeners were told."""

    def __init__(self, folder: Path, log: MemorySharedLog, **options: Any) -> None:
        self.device = Device(folder / "app.db", [Note], shared_log=log, pragmas=SHARED, **options)
        self.events: list[Any] = []
        self.device.sync.on_event(self.events.append)
        self.now = 0.0
        self.looks = 0

    def live(self, **options: Any) -> Live:
        options = {
            "poll_s": NEVER_S,
            "calm_s": NEVER_S,
            "look_s": 0.01,
            "seconds": self.seconds,
            **options,
        }
        return Live(self.device.sync, **options)

    def seconds(self) -> float:
        """Time goes by when the test says so; each look asks for it."""
        self.looks += 1
        return self.now

    def settle(self) -> None:
        """Let the thread look a few times more."""
        looks = self.looks
        until(lambda: self.looks > looks + 4)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def until(self, kind: type, times: int) -> None:
        until(lambda: self.count(kind) >= times)


@pytest.fixture
def log() -> PokedLog:
    return PokedLog()


@pytest.fixture
def here(tmp_path: Path, log: PokedLog) -> Iterator[Watched]:
    watched = Watched(tmp_path, log)
    with watched.device:
        yield watched
    watched.device.close()


def test_the_interface_is_what_the_library_s_own_log_has() -> None:
    assert isinstance(PokedLog(), PokingLog)
    assert isinstance(GraphQLSharedLog(HttpTransport("http://127.0.0.1:1")), PokingLog)
    assert not isinstance(MemorySharedLog(), PokingLog)
    assert GraphQLSharedLog(LocalTransport(lambda *_: {})).pokes("device") is None


def test_it_syncs_at_the_beginning_when_poked_and_when_something_was_written(
    here: Watched, log: PokedLog
) -> None:
    with here.live():
        here.until(Finished, 1)
        until(lambda: log.opened)
        assert log.opened[0][0] == here.device.sync.identity.device
        log.poke("somewhere else")
        here.until(PokesBegan, 1)
        here.until(Finished, 2)
        Note.create(text="a")
        here.until(Finished, 3)
        here.settle()
    assert here.count(Started) == here.count(Finished) == 3


def test_what_is_written_in_one_look_is_sent_together(here: Watched, log: PokedLog) -> None:
    with here.live(look_s=NEVER_S) as live:
        here.until(Finished, 1)
        for n in range(10):
            Note.create(text=str(n))
        live.wake()
        here.until(Finished, 2)
    results = [event.result for event in here.events if isinstance(event, Finished)]
    assert [(result.sent, result.exchanges) for result in results] == [(0, 1), (10, 1)]


def test_a_poke_that_tells_nothing_new_is_no_reason(here: Watched, log: PokedLog) -> None:
    Note.create(text="a")
    with here.live():
        here.until(Finished, 1)
        until(lambda: log.opened)
        checkpoint = here.device.sync.status().checkpoint
        assert checkpoint is not None
        for _ in range(3):
            log.poke(checkpoint)
            here.settle()
        assert here.count(Started) == 1
        log.poke("elsewhere")
        here.until(Finished, 2)
        here.settle()
    assert here.count(Started) == 2


def test_what_cannot_be_sent_is_not_tried_without_end(here: Watched, log: PokedLog) -> None:
    send = here.device.sync.journal.count_unsent
    here.device.sync.journal.count_unsent = lambda: 1 + send()  # type: ignore[method-assign]
    with here.live():
        here.until(Finished, 1)
        here.settle()
        assert here.count(Started) == 1


def test_what_is_written_while_a_run_ends_is_sent(here: Watched, log: PokedLog) -> None:
    late = ["a", "b"]

    def listener(event: object) -> None:
        if late and isinstance(event, Finished):
            Note.create(text=late.pop())

    here.device.sync.on_event(listener)
    with here.live():
        here.until(Finished, 3)
        here.settle()
        assert here.device.sync.status().pending == 0
    results = [event.result for event in here.events if isinstance(event, Finished)]
    assert [result.sent for result in results] == [0, 1, 1]


@pytest.mark.parametrize(("poked", "interval"), [(True, "calm_s"), (False, "poll_s")])
def test_a_lost_poke_costs_time_only(
    here: Watched, log: PokedLog, poked: bool, interval: str
) -> None:
    with here.live(**{interval: 60.0}):
        here.until(Finished, 1)
        until(lambda: log.opened)
        if poked:
            checkpoint = here.device.sync.status().checkpoint
            log.poke(checkpoint or "")
            here.until(PokesBegan, 1)
            here.settle()
        done = here.count(Finished)
        here.now += 59.9
        here.settle()
        assert here.count(Finished) == done
        here.now += 0.2
        here.until(Finished, done + 1)


def test_whoever_has_no_token_for_a_while_is_poked_again(here: Watched, log: PokedLog) -> None:
    """The token is asked for by the thread that listens: it must not end by that."""
    with here.live(wait=lambda flag, s: flag.wait(min(s, 0.01))):
        until(lambda: log.opened)
        log.poke("x")
        here.until(PokesBegan, 1)
        log.refusing = MissingToken("logged out")
        log.poke(ConnectionFailed("cut"))
        here.until(PokesEnded, 2)
        log.refusing = None
        until(lambda: len(log.opened) == 2)
        log.poke("y")
        here.until(PokesBegan, 2)


def test_pokes_that_end_are_tried_for_again_less_and_less_often(
    here: Watched, log: PokedLog
) -> None:
    waits: list[float] = []
    go_on = threading.Semaphore(0)

    def wait(flag: threading.Event, seconds: float) -> None:
        if seconds < 0.1:
            flag.wait(seconds)
        else:
            waits.append(seconds)
            while not flag.is_set() and not go_on.acquire(timeout=0.01):
                pass

    with here.live(wait=wait, chance=lambda: 0.5):
        until(lambda: log.opened)
        log.poke("x")
        here.until(PokesBegan, 1)
        log.refusing = ConnectionFailed("away")
        log.poke(ConnectionFailed("cut"))
        for n in range(1, 9):
            here.until(PokesEnded, n)
            until(lambda n=n: len(waits) == n)  # type: ignore[misc]
            if n == 8:
                log.refusing = None
            go_on.release()
        until(lambda: len(log.opened) == 2)
        log.poke("y")
        here.until(PokesBegan, 2)
        log.poke(ConnectionFailed("cut"))
        until(lambda: len(waits) == 9)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 1]
    assert [e.again_s for e in here.events if isinstance(e, PokesEnded)][:8] == waits[:8]


def test_a_run_that_fails_is_tried_again_and_at_once_where_pokes_come(
    here: Watched, log: PokedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failing = log.read, [True]

    def reading(*args: Any, **kwargs: Any) -> Any:
        if failing[0]:
            raise ConnectionFailed("away")
        return read(*args, **kwargs)

    monkeypatch.setattr(log, "read", reading)
    quick = {"wait": lambda flag, s: flag.wait(min(s, 0.01)), "chance": lambda: 0.5}
    with here.live(**quick) as live:
        here.until(Postponed, 1)
        here.settle()
        assert here.count(Started) == 1
        here.now += FIRST_S
        here.until(Postponed, 2)
        failing[0] = False
        here.now += 2 * FIRST_S
        here.until(Finished, 1)
        until(lambda: log.opened)
        log.poke("x")
        here.until(Finished, 2)
        failing[0] = True
        live.wake()
        here.until(Postponed, 3)
        log.poke(ConnectionFailed("cut"))
        until(lambda: len(log.opened) == 2)
        here.settle()
        assert here.count(Finished) == 2
        failing[0] = False
        log.poke("y")  # and no time goes by
        here.until(Finished, 3)
    postponed = [event for event in here.events if isinstance(event, Postponed)]
    assert [event.again_s for event in postponed] == [FIRST_S, 2 * FIRST_S, FIRST_S]
    assert all(isinstance(event.error, ConnectionFailed) for event in postponed)


def test_a_device_that_takes_another_id_listens_as_that(here: Watched, log: PokedLog) -> None:
    sync = here.device.sync
    with here.live() as live:
        until(lambda: log.opened)
        with sync.journal.transaction():
            sync.identity.fork()
        live.wake()
        until(lambda: len(log.opened) == 2)
        (_, one), (device, _) = log.opened
        assert device == sync.identity.device
        assert one.coming.empty()  # it was closed, and is read no more


def test_a_listener_that_fails_ends_nothing(here: Watched, log: PokedLog) -> None:
    failing = [True]

    def listener(event: object) -> None:
        if failing[0] and isinstance(event, Started):
            failing[0] = False
            raise RuntimeError("of the application")

    here.device.sync.on_event(listener)
    with here.live():
        here.until(Postponed, 1)
        here.now += 2 * FIRST_S
        here.until(Finished, 1)


def test_a_log_without_pokes_is_asked_now_and_then(tmp_path: Path) -> None:
    watched = Watched(tmp_path, MemorySharedLog())
    with watched.live(poll_s=0.02, seconds=time.monotonic):
        watched.until(Finished, 3)
    assert watched.count(PokesEnded) == 0
    watched.device.close()


def test_what_other_programs_write_is_sent_where_triggers_record(tmp_path: Path) -> None:
    log = MemorySharedLog()
    watched = Watched(tmp_path, log, recorder="triggers")
    with watched.live():
        watched.until(Finished, 1)
        with closing(sqlite3.connect(tmp_path / "app.db")) as other:
            other.execute("INSERT INTO note (id, text) VALUES ('a', 'b')")
            other.commit()
        until(lambda: sum(e.result.sent for e in watched.events if isinstance(e, Finished)) == 1)
    watched.device.close()


def test_it_closes_its_own_connection_and_nobody_elses(here: Watched, log: PokedLog) -> None:
    closed: list[str] = []
    close = here.device.database.close

    def closing() -> Any:
        closed.append(threading.current_thread().name)
        return close()

    here.device.database.close = closing
    Note.create(text="a")
    with here.live():
        here.until(Finished, 1)
    assert closed == ["sharedlog-live"]
    assert not here.device.database.is_closed()


def test_without_the_package_it_says_what_to_install(
    here: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.device.sync.shared_log = GraphQLSharedLog(HttpTransport("http://127.0.0.1:1", "slog_x"))
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    with pytest.raises(ConfigurationError, match=r"sharedlog\[live\]"), here.live():
        raise AssertionError("it began")


def test_it_begins_only_where_sync_is_set_up(tmp_path: Path) -> None:
    watched = Watched(tmp_path, PokedLog(), tracked=False)
    with pytest.raises(NotSetUp), watched.live():
        raise AssertionError("it began")
    watched.device.close()


def test_waits_grow_up_to_a_minute_give_or_take_a_half() -> None:
    for chance, factor in ((0.0, 0.5), (1.0, 1.5)):
        backoff = Backoff(lambda chance=chance: chance)  # type: ignore[misc]
        found = [backoff.after(ConnectionFailed()) for _ in range(8)]
        assert found == [factor * s for s in (1, 2, 4, 8, 16, 32, 60, 60)]
        backoff.reset()
        assert backoff.after(ConnectionFailed()) == factor * FIRST_S
        backoff.reset()
        found = [backoff.after(Unauthorized()) for _ in range(3)]
        assert found == [factor * FIRST_S, factor * MAX_S, factor * MAX_S]


def test_who_is_told_how_long_to_wait_waits_so_long_at_least() -> None:
    backoff = Backoff(lambda: 0.5)
    assert backoff.after(RateLimited(retry_after=90)) == 90
    assert backoff.after(RateLimited(retry_after=0.1)) == 2 * FIRST_S
