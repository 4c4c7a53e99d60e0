"""The service: the real store and schema on a file, without HTTP and threads. It can die."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import apsw

from sharedlog import GraphQLSharedLog, LocalTransport, SharedLog
from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.entries import EntryFilter
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess

from .clocks import Clock
from .faults import Crash
from .files import Fuse

USER = "me"
STATEMENTS = 12
"""About how many statements an exchange takes."""

T = TypeVar("T")


class Logged(NamedTuple):
    """An entry as it stands in the log."""

    seq: int
    device: str
    ticks: int
    offset: int
    data: str


@cache
def _schema() -> ServiceSchema:
    return build_schema()


class Service:
    """One user's log. Reopens its file after it died."""

    def __init__(self, folder: Path, clock: Clock, chance: Random) -> None:
        self._path = folder / "service.db"
        self._backup = folder / "service.backup.db"
        self._clock = clock
        self._chance = chance
        self._fuse = Fuse()
        self._store: Store | None = None
        self._log: SharedLog | None = None
        self.start()

    def start(self) -> None:
        self._fuse = Fuse()
        with self._watched():
            self._store = Store.open(self._path, now=self._clock, new_id=self._new_id)
            self._store.create_user(USER)
        execute = InProcess(self._store, USER, schema=_schema()).execute
        self._log = GraphQLSharedLog(LocalTransport(_plain(execute)), USER)

    def _new_id(self) -> str:
        return f"{self._chance.getrandbits(96):024x}"

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let the fuse see the statements of connections that are opened meanwhile."""
        fuse = self._fuse

        def before(cursor: Any, sql: str, bindings: Any) -> bool:
            fuse.run(sql, lambda: None)
            return True

        def watch(connection: Any) -> None:
            connection.exec_trace = before

        apsw.connection_hooks.append(watch)
        try:
            yield
        finally:
            apsw.connection_hooks.remove(watch)

    def stop(self) -> None:
        """End as a killed process does: uncommitted work is gone."""
        if self._store is not None:
            self._fuse.blown = False
            self._fuse.put_out()
            self._store.close()
        self._store = self._log = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def answer(self, request: Callable[[SharedLog], T], *, dies: bool = False) -> T:
        """Handle a request. Raises Crash if the service died of it; it is up again then."""
        assert self._log is not None
        try:
            with self._watched():
                if dies:
                    self._fuse.light(self._chance, STATEMENTS)
                return request(self._log)
        except Crash:
            self.restart()
            raise
        finally:
            self._fuse.put_out()

    # -- what happens to logs now and then -----------------------------------------------

    def begin_new_life(self) -> None:
        """As an operator does who is not sure what the log has lost."""
        assert self._store is not None
        self._store.renew_epoch(USER)

    def back_up(self) -> None:
        self.stop()
        shutil.copyfile(self._path, self._backup)
        self.start()

    def restore(self, *, renew: bool) -> None:
        """Go back to the backup. What was acknowledged since is only on the devices now; `renew` as
        an operator does who tells that it was."""
        self.stop()
        shutil.copyfile(self._backup, self._path)
        self.start()
        if renew:
            self.begin_new_life()

    def wipe(self) -> None:
        """Lose everything, backups too."""
        self.stop()
        for path in (self._path, self._backup):
            path.unlink(missing_ok=True)
        self.start()

    @property
    def has_backup(self) -> bool:
        return self._backup.exists()

    # -- what is in the log --------------------------------------------------------------

    def entries(self) -> list[Logged]:
        """The whole log, as people may see it: not by the way devices read."""
        assert self._store is not None
        with self._watched():
            page = self._store.find(USER, EntryFilter(), count=10_000_000)
        return [Logged(e.seq, e.device, e.created_on, e.group, e.data) for e in page.entries]


def _plain(execute: Callable[..., Any]) -> Callable[..., Any]:
    return lambda document, variables: execute(document, dict(variables))
