"""The driver: sets up recording, and exchanges entries with the shared log.

`sync()` is three stages in one loop, each of which also runs alone: *send* unsent entries,
*receive* others', *reconcile* what was received. Everything durable happens in one local
transaction per exchange: entries marked sent, rows applied, checkpoint moved. A crash before
it repeats the exchange, which changes nothing the second time.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any

import peewee

from .apply.applier import Applier
from .apply.parking import Parked, Parking
from .capture.foreignkeys import check_foreign_keys
from .care.care import Care
from .care.described import describe
from .changes import FIRST_SCHEMA
from .clock import Now, system_now
from .errors import ConfigurationError, MissingToken, NotSetUp
from .events import (
    Event,
    Failed,
    Finished,
    Listener,
    Reconciling,
    Started,
    SyncResult,
    told,
)
from .evolution.evolution import Upgrader
from .exchange.carryover import Carryover
from .exchange.exchange import Exchange
from .exchange.horizon import Horizon
from .exchange.identity import Identity, random_id
from .exchange.pipeline import Pipeline, Processor, Serializer
from .exchange.registration import Registration
from .exchange.replica import Replica
from .journal.inbox import Inbox
from .journal.journal import Journal
from .journal.recorder import Capture
from .journal.status import Status, forget_failure, note_failure
from .models.registry import Registry
from .recording import Recording
from .remote.sharedlog import GraphQLSharedLog, SharedLog
from .remote.transports import HttpTransport, Token
from .tables.checks import (
    check_models,
    check_options,
    check_outside_transaction,
    check_tables,
    prepare_foreign_keys,
    resolved,
)
from .tables.versions import Versions

BATCH_SIZE = 1_000
"""Entries in one exchange, each way. Larger saves little; memory grows with it."""

BYTE_LIMIT = 1_000_000
"""Bytes of entries in one exchange, each way; one group may exceed it."""


class Sync(Care):
    """Keeps the tracked models of one database in step with a shared log.

        sync = Sync(database, [Note, Tag], url="https://example.org/graphql", token="…")
        sync.setup()
        sync.sync()

    Args:
        database: The Peewee database that the models live in (or a DatabaseProxy of it).
        models: The tracked models; the through models of many-to-many fields between them
            come along.
        url: The service's GraphQL address.
        token: This user's bearer token, or a function that is asked for it with each request.
        user: Whose log; by default whom the token belongs to.
        shared_log: Another way to reach a log, in place of `url` and `token`.
        device_name: What people see in the list of devices; 200 characters at most.
        capture: How local changes are noticed: "signals" records what is written through
            `database`, "triggers" whatever is written to its tables.
        batch_size, byte_limit: Bounds of one exchange, each way.
        serializer: How changes become text; JSON by default.
        pre_send, post_receive: Processors for changes on their way out and in.
        schema_version: To be raised when values get another meaning, so that older programs
            could not read them.
        upgraders: By schema version: what turns a change of that version into one of the next.
        now, new_id: The sources of time and of random ids.

    One `Sync` may be used from several threads; several processes may use one file.
    """

    def __init__(
        self,
        database: peewee.Database | peewee.Proxy,
        models: Iterable[type[peewee.Model]],
        *,
        url: str | None = None,
        token: Token | None = None,
        user: str | None = None,
        shared_log: SharedLog | None = None,
        device_name: str | None = None,
        capture: Capture = "signals",
        batch_size: int = BATCH_SIZE,
        byte_limit: int = BYTE_LIMIT,
        serializer: Serializer | None = None,
        pre_send: Processor | None = None,
        post_receive: Processor | None = None,
        schema_version: int = FIRST_SCHEMA,
        upgraders: Mapping[int, Upgrader] | None = None,
        now: Now = system_now,
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self.database = resolved(database)
        check_options(device_name, batch_size=batch_size, byte_limit=byte_limit)
        self.registry = Registry(self.database, models, schema_version, upgraders)
        self.shared_log = shared_log or _over_http(url, token, user)
        self._batch_size = batch_size
        self.journal = Journal(self.database, now, schema_version)
        self.inbox = Inbox(self.journal)
        self.versions = Versions(self.journal, self.registry)
        self._recording = Recording(capture, self.registry, self.journal, self.versions, self.emit)
        self._parking = Parking(self.registry, self.journal, self.versions, self.inbox)
        pipeline = Pipeline(serializer, pre_send, post_receive, self.registry.evolution)
        self._applier = Applier(self.registry, self.journal, self.versions, pipeline.decode)
        self.identity = Identity(self.journal, self.versions, new_id)
        self._replica = Replica(
            journal=self.journal,
            inbox=self.inbox,
            versions=self.versions,
            identity=self.identity,
            applier=self._applier,
            pipeline=pipeline,
            shared_log=self.shared_log,
            batch_size=batch_size,
            byte_limit=byte_limit,
            writing=self._writing,
            emit=self.emit,
        )
        self._registration = Registration(self._replica, self.registry, device_name)
        self._horizon = Horizon(self._replica, self.registry)
        self._carryover = Carryover(self._replica, self.registry)
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._working = False
        self._ready = False
        self._tables_checked = False

    # -- set-up --------------------------------------------------------------------------

    def setup(self) -> Sync:
        """Create the client log's tables where missing, and start recording. Idempotent.

        Call it once in each process, before the first write. It makes no table of yours.
        """
        if not self._ready:
            check_outside_transaction(self.journal, "setup")
            check_models(self.database, self.registry, self._recording.capture)
            for warning in self._check_foreign_keys():
                warnings.warn(warning, stacklevel=2)
            self.journal.create_tables()
            with self.journal.transaction():
                self.identity.prepare()
                self._carryover.begin()
                self.inbox.try_again()
                describe(self.journal, self.registry, self._replica.pipeline)
            self._registration.load_limits()
            self._recording.start()
            if any(tracked.rules for tracked in self.registry):
                # Writes to fields with a rule are merged at once, with what is known by then.
                with suppress(ConfigurationError):  # the tables are yet to be created
                    self._check_tables()
            self._ready = True
        return self

    def close(self) -> None:
        """Stop recording (triggers go on), and release the connection to the service."""
        self._recording.stop()
        self.shared_log.close()
        self._ready = self._tables_checked = False

    def __enter__(self) -> Sync:
        return self.setup()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Alter tracked tables inside, before or after `setup()`: triggers, which would be in the
        way or get lost, are off meanwhile. They do not record what is written inside."""
        check_outside_transaction(self.journal, "migrating")
        with self._lock, self._recording.migrating():
            self._tables_checked = False
            yield

    def on_event(self, listener: Listener) -> Listener:
        """Call `listener` with each event of `events`; usable as a decorator.

        Listeners run in the thread of `sync()`, between its transactions.
        """
        self._listeners.append(listener)
        return listener

    # -- the whole and its stages --------------------------------------------------------

    def sync(self) -> SyncResult:
        """Send what is unsent, receive what is new, apply it.

        Raises:
            ConnectionFailed, RateLimited: not now; nothing is lost, call again later.
            RemoteError: the service refuses; the message says why.
        """
        with self._run("sync") as result:
            self._reconcile_received(result)
            self._exchange(result, send=True, apply=True)
            self._finish_rereading()
            done = [self._finish_reset(), self._finish_relearning(), self._horizon.clear()]
            if any([*done, self._finish_unread()]):
                self._exchange(result, send=True, apply=True)
        return result

    def send(self) -> SyncResult:
        """Only send unsent entries."""
        with self._run("send") as result:
            self._exchange(result, send=True, apply=None)
        return result

    def receive(self) -> SyncResult:
        """Only fetch others' entries into the client log; `reconcile()` applies them."""
        with self._run("receive") as result:
            self._exchange(result, send=False, apply=False)
        return result

    def reconcile(self) -> SyncResult:
        """Only apply what was received, and try again what is parked. Needs no service."""
        with self._run("reconcile") as result:
            self._reconcile_received(result)
        return result

    def status(self) -> Status:
        self._check_ready()
        self._recording.harvest_if_free()
        return super().status()

    def parked(self) -> list[Parked]:
        """Rows that cannot stand in their tables and entries that cannot be read, with the
        reason. They are tried again by every sync()."""
        self._check_ready()
        return self._parking.all()

    def resolve(self, parked: Parked, **values: Any) -> SyncResult:
        """Give fields of a parked row new values, and try to place it. A change like any other:
        recorded, sent, and the same on every device. Needs no service."""
        return self._decide(lambda: self._parking.change(parked, values))

    def discard(self, parked: Parked) -> SyncResult:
        """Delete a parked row, on every device; or forget an entry that cannot be read."""
        return self._decide(lambda: self._parking.discard(parked))

    # -- the parts -----------------------------------------------------------------------

    @contextmanager
    def _run(self, method: str) -> Iterator[SyncResult]:
        """One run, told from its beginning to its end; `status()` knows why it failed."""
        result = SyncResult()
        with self._alone(method):
            try:
                self.emit(Started(method))
                self._check_tables()
                yield result
                if self.journal.state("last_error") is not None:
                    with self._writing():
                        forget_failure(self.journal)
                self.emit(Finished(result))
            except Exception as error:
                # Where even that cannot be written, the error itself matters more.
                with suppress(Exception), self._writing():
                    note_failure(self.journal, self.journal.now(), error)
                self.emit(Failed(error))
                raise

    def _exchange(self, result: SyncResult, *, send: bool, apply: bool | None) -> None:
        self._registration.ensure()
        parts = self._replica, self._registration, self._horizon
        Exchange(*parts, result, apply=apply).run(send=send)

    def _reconcile_received(self, result: SyncResult) -> None:
        if not self.inbox.waiting(1) and not self.versions.waiting_collections():
            return  # as usual, and then no other writer has to wait for us
        while True:
            received = self.inbox.waiting(self._batch_size)
            self.emit(Reconciling(len(received)))
            with self._writing():
                applied = self._applier.apply_received(received)
                self.inbox.drop(waiting.number for waiting in received)
            result.add(applied)
            for event in told(applied):
                self.emit(event)
            if len(received) < self._batch_size:
                return

    def _decide(self, decision: Callable[[], None]) -> SyncResult:
        result = SyncResult()
        with self._exclusively("resolve"):
            with self._writing():
                decision()
                applied = self._applier.apply([], None)
            result.add(applied)
            for event in told(applied):
                self.emit(event)
        return result

    # -- small things --------------------------------------------------------------------

    def _check_ready(self) -> None:
        if not self._ready:
            raise NotSetUp()

    @contextmanager
    def _exclusively(self, method: str) -> Iterator[None]:
        with self._alone(method):
            self._check_tables()
            yield

    @contextmanager
    def _alone(self, method: str) -> Iterator[None]:
        """One call at a time, and outside of the caller's transactions.

        That is looked at before waiting: who holds the write lock and waits for another
        thread's sync() would wait for one that waits for him.
        """
        self._check_ready()
        check_outside_transaction(self.journal, method)
        with self._lock:
            if self._working:
                raise ConfigurationError(
                    "sync() was called by one of its own listeners or processors.",
                    hint="Call it after sync() has returned, or from another thread.",
                )
            self._working = True
            try:
                yield
            finally:
                self._working = False

    def _check_tables(self) -> None:
        """Changes are recorded, and what was noted of them is in the client log. Once: all tables
        are there, and what is known beside them fits them."""
        self._recording.catch_up()
        if not self._tables_checked:
            check_tables(self.database, self.registry)
            self._check_foreign_keys()
            self._applier.look_again()
        if not self._tables_checked or self._carryover.aside():
            with self._writing():
                self._carryover.finish()
            self._tables_checked = True

    def _check_foreign_keys(self) -> list[str]:
        left_out = check_foreign_keys(self.database, self.registry)
        prepare_foreign_keys(self.database, self.registry)
        return left_out

    def _writing(self) -> AbstractContextManager[None]:
        return self._recording.writing()

    def _looking(self) -> AbstractContextManager[None]:
        return self._recording.looking()

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def _over_http(url: str | None, token: Token | None, user: str | None) -> SharedLog:
    if url is None:
        raise ConfigurationError(
            "No service is given.",
            hint='Write Sync(database, models, url="http://localhost:8000/graphql", token="…").',
        )
    if not token and user is None:
        raise MissingToken(
            "No token is given.",
            hint="Make one on the service with `sharedlog token create --user NAME` and write "
            'token="…". A service started with --no-auth takes user="NAME" instead.',
        )
    return GraphQLSharedLog(HttpTransport(url, token), user)
