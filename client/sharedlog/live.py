"""Keeping a device in step by itself: whoever has news calls `sync()`, in a thread.

News are a poke of the service, something written here, or that nothing was asked for a while. So
a poke that gets lost costs time, and nothing else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from threading import Event as Flag, Thread
from types import TracebackType
from typing import NamedTuple

from .events import Event, PokesBegan, PokesEnded, Postponed
from .remote.listening import Backoff, Listening, Random, Wait
from .remote.sharedlog import Pokes, PokingLog
from .sync import Sync

LOOK_S = 0.5
POLL_S = 30.0
CALM_S = 600.0


class Poked(NamedTuple):
    """A poke. Two of them differ, also where their cursors are equal."""

    number: int
    cursor: str


class Live:
    """Syncs in a thread, for as long as the block lasts: when another device has written, when
    something was written here, and now and then all the same.

        with Live(sync):
            ...  # the application

    Pokes come over a WebSocket (`pip install 'sharedlog[live]'`). Where a `SharedLog` has none,
    and while the socket is away, the service is asked every `poll_s`. Errors end nothing: `sync()`
    is tried again, after waits that grow. What happens is told to the listeners of `sync`, in this
    thread, and `sync.status()` knows the last error.

    The thread uses a connection to the database of its own, as Peewee gives each thread one: an
    SQLite database has to be a file.

    Args:
        sync: Set up already; may be used by other threads, too.
        look_s: How often the client log is looked at for what was written here: what is written
            in one such while is sent together. `wake()` does not wait for it.
        poll_s: How often to sync without pokes.
        calm_s: How often to sync with them.
        seconds, wait, chance: The sources of time, waiting and chance.

    To be entered once. What was written in the last moment before its end may not be sent yet:
    call `sync()` behind it where that matters.

    Raises, on entering:
        ConfigurationError: the package for WebSockets is missing, or `sync` is not set up.
    """

    def __init__(
        self,
        sync: Sync,
        *,
        look_s: float = LOOK_S,
        poll_s: float = POLL_S,
        calm_s: float = CALM_S,
        seconds: Callable[[], float] = time.monotonic,
        wait: Wait = Flag.wait,
        chance: Random = random.random,
    ) -> None:
        self._sync = sync
        self._look_s = look_s
        self._poll_s = poll_s
        self._calm_s = calm_s
        self._seconds = seconds
        self._wait = wait
        self._chance = chance
        self._backoff = Backoff(chance)
        self._closing, self._woken, self._asked = Flag(), Flag(), Flag()
        self._told: SimpleQueue[Event] = SimpleQueue()
        self._listening: Listening | None = None
        self._device = ""
        self._poked = self._heard = Poked(0, "")
        self._has_pokes = False
        self._failed = False
        self._synced_at = self._again_at = 0.0
        self._left = 0
        self._thread = Thread(target=self._run, name="sharedlog-live", daemon=True)

    def __enter__(self) -> Live:
        # What can never work is refused here.
        self._sync.status()
        self._open_pokes()
        self._asked.set()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End at once; only a `sync()` that is running is waited for."""
        self._closing.set()
        self._woken.set()
        self._thread.join()

    def wake(self) -> None:
        """Sync now, in the thread; for who has just committed and is in a hurry."""
        self._asked.set()
        self._woken.set()

    # -- the thread that syncs -----------------------------------------------------------

    def _run(self) -> None:
        own_connection = self._sync.database.is_closed()
        while not self._closing.is_set():
            try:
                while not self._told.empty():
                    self._sync.emit(self._told.get())
                if self._is_time():
                    self._turn()
            except Exception as error:
                self._postpone(error)
            self._wait(self._woken, min(self._look_s, max(0.0, self._due() - self._seconds())))
            self._woken.clear()
        if self._listening is not None:
            self._listening.close()
        if own_connection:  # as usual: this thread's
            self._sync.database.close()

    def _is_time(self) -> bool:
        if self._asked.is_set() or self._seconds() >= self._due():
            return True
        return not self._failed and self._has_news()

    def _due(self) -> float:
        """When to sync without any news."""
        if self._failed:
            return self._again_at
        return self._synced_at + (self._calm_s if self._has_pokes else self._poll_s)

    def _has_news(self) -> bool:
        poked, status = self._poked, self._sync.status()
        if poked is not self._heard and poked.cursor != status.checkpoint:
            return True
        self._heard = poked
        return status.pending > self._left

    def _turn(self) -> None:
        self._asked.clear()
        self._heard = self._poked
        before = self._sync.status().pending
        sent = self._sync.sync().sent
        after = self._sync.status().pending
        # What cannot be sent is no news; what was written while the run ended is.
        self._left = after if after == before and not sent else 0
        self._failed = False
        self._backoff.reset()
        self._synced_at = self._seconds()
        self._listen()

    def _postpone(self, error: Exception) -> None:
        again_s = self._backoff.after(error)
        self._failed = True
        self._again_at = self._seconds() + again_s
        self._told.put(Postponed(error, again_s))

    # -- pokes ---------------------------------------------------------------------------

    def _listen(self) -> None:
        """Listen as the device that this is by now: a copied file takes another id."""
        device = self._sync.identity.device
        if device == self._device:
            return
        self._device = device
        if self._listening is not None:
            self._listening.close()
        if self._open_pokes() is not None:
            self._listening = Listening(
                self._open_pokes, self._on_poke, self._on_loss, wait=self._wait, chance=self._chance
            )
            self._listening.start()

    def _open_pokes(self) -> AbstractContextManager[Pokes] | None:
        log = self._sync.shared_log
        return log.pokes(self._device) if isinstance(log, PokingLog) else None

    def _on_poke(self, cursor: str) -> None:
        self._poked = Poked(self._poked.number + 1, cursor)
        if not self._has_pokes:
            self._has_pokes = True
            self._told.put(PokesBegan())
            if self._failed:  # the service is there again
                self._asked.set()
        self._woken.set()

    def _on_loss(self, error: Exception, again_s: float) -> None:
        self._has_pokes = False
        self._told.put(PokesEnded(error, again_s))
        self._woken.set()
