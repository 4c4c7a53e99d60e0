"""The driver: sets up recording, and exchanges entries with the shared log.

`sync()` is three stages in one loop, each of which also runs alone: *send* unsent entries,
*receive* others', *reconcile* what was received. Everything durable happens in one local
transaction per exchange: entries marked sent, rows applied, checkpoint moved. A crash before
it repeats the exchange, which changes nothing the second time.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import peewee

from . import changes
from .adopt import Adopted, Adoption
from .apply import Applied, Applier
from .capture import Recorder
from .changes import Change
from .clock import TICKS_PER_MS, Now, system_now
from .errors import (
    ConfigurationError,
    EntryUnreadable,
    EpochChanged,
    MissingToken,
    NotSetUp,
    ServiceFailed,
)
from .events import (
    Event,
    Listener,
    Progress,
    Received,
    Reconciled,
    Reconciling,
    Refused,
    Restamped,
    Sending,
    Sent,
    SyncResult,
)
from .journal import Journal, LocalEntry, RefusedEntry
from .remote import (
    GraphQLSharedLog,
    HttpTransport,
    Outgoing,
    Page,
    Receipt,
    Rejection,
    SharedLog,
)
from .tracked import Registry
from .versions import FOLD_LIMIT, Versions

BATCH_SIZE = 1_000
"""Entries in one exchange, each way. Larger saves little; memory grows with it."""

BYTE_LIMIT = 1_000_000
"""Bytes of entries in one exchange, each way; one group may exceed it."""

MAX_LEAD_MS = 5 * 60 * 1000
"""A clock this far ahead is corrected; the service refuses entries from beyond it."""

TOO_LARGE = frozenset(("BATCH_TOO_LARGE", "BODY_TOO_LARGE", "HTTP_413"))
"""What the service says when a whole request is over its limits."""

Processor = Callable[[Change], Change | None]
"""Sees a change on its way out or in; may answer another one, or None to drop it. Must be
pure: the same change always gives the same answer, because an exchange may be repeated."""


class Serializer(Protocol):
    """How changes become the opaque text that the service keeps (encryption goes here)."""

    def encode(self, change: Change) -> str: ...

    def decode(self, data: str) -> Change: ...


@dataclass(frozen=True, slots=True)
class Status:
    """Where this device stands. Reads the client log only."""

    device: str | None
    pending: int
    parked: int
    unreadable: int
    checkpoint: str | None


class Sync:
    """Keeps the tracked models of one database in step with a shared log.

        sync = Sync(database, [Note, Tag], url="https://example.org/graphql", token="…")
        sync.setup()
        sync.sync()

    Args:
        database: The Peewee database that the models live in (or a DatabaseProxy of it).
        models: The tracked models; the through models of many-to-many fields between them
            come along.
        url: The service's GraphQL address.
        token: This user's bearer token.
        user: Whose log; by default whom the token belongs to.
        shared_log: Another way to reach a log, in place of `url` and `token`.
        device_name: What people see in the list of devices.
        batch_size, byte_limit: Bounds of one exchange, each way.
        serializer: How changes become text; JSON by default.
        pre_send, post_receive: Processors for changes on their way out and in.
        now, new_request_id: The sources of time and of random ids.

    One `Sync` may be used from several threads; several processes may use one file.
    """

    def __init__(
        self,
        database: peewee.Database | peewee.Proxy,
        models: Iterable[type[peewee.Model]],
        *,
        url: str | None = None,
        token: str | None = None,
        user: str | None = None,
        shared_log: SharedLog | None = None,
        device_name: str | None = None,
        batch_size: int = BATCH_SIZE,
        byte_limit: int = BYTE_LIMIT,
        serializer: Serializer | None = None,
        pre_send: Processor | None = None,
        post_receive: Processor | None = None,
        now: Now = system_now,
        new_request_id: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self.database = _resolved(database)
        self.registry = Registry(self.database, models)
        if not len(self.registry):
            raise ConfigurationError(
                "No models are given.", hint="Write Sync(database, [Note, Tag], …)."
            )
        self._shared_log = shared_log or _over_http(url, token, user)
        self._device_name = device_name
        self._batch_size = batch_size
        self._byte_limit = byte_limit
        self._serializer = serializer
        self._pre_send = pre_send
        self._post_receive = post_receive
        self._now = now
        self._new_request_id = new_request_id
        self.journal = Journal(self.database, now)
        self.versions = Versions(self.journal)
        self._applier = Applier(
            self.database, self.registry, self.journal, self.versions, self._decode
        )
        self._recorder = Recorder(self.database, self.registry, self.journal)
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._ready = False

    # -- set-up --------------------------------------------------------------------------

    def setup(self) -> Sync:
        """Create the client log's tables where missing, and start recording. Idempotent.

        Call it once in each process, before the first write. The application's own tables
        are its own business.
        """
        if not self._ready:
            self.journal.create_tables()
            self._recorder.install()
            self._ready = True
        return self

    def close(self) -> None:
        """Stop recording and release the connection to the service."""
        self._recorder.uninstall()
        self._shared_log.close()
        self._ready = False

    def __enter__(self) -> Sync:
        return self.setup()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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
            ConnectionFailed: the service cannot be reached; nothing is lost, call again.
            RemoteError: the service refuses; the message says why.
        """
        result = SyncResult()
        with self._exclusively():
            self._reconcile_received(result)
            self._exchange(result, send=True, apply=True)
        return result

    def send(self) -> SyncResult:
        """Only send unsent entries."""
        result = SyncResult()
        with self._exclusively():
            self._exchange(result, send=True, apply=None)
        return result

    def receive(self) -> SyncResult:
        """Only fetch others' entries into the client log; `reconcile()` applies them."""
        result = SyncResult()
        with self._exclusively():
            self._exchange(result, send=False, apply=False)
        return result

    def reconcile(self) -> SyncResult:
        """Only apply what was received, and try again what is parked. Needs no service."""
        result = SyncResult()
        with self._exclusively():
            self._reconcile_received(result)
        return result

    def status(self) -> Status:
        """Where this device stands: what is pending, parked, unreadable."""
        self._check_ready()
        run = self.journal.run
        return Status(
            self.journal.device_id() or None,
            self.journal.count_unsent(),
            run("SELECT count(*) FROM sharedlog_row WHERE parked IS NOT NULL").fetchone()[0],
            run("SELECT count(*) FROM sharedlog_inbox WHERE reason IS NOT NULL").fetchone()[0],
            self.journal.state("checkpoint"),
        )

    def adopt(self, progress: Callable[[Adopted], None] | None = None) -> Adopted:
        """Record rows that stand in the tables but not in the log, and rows that are gone.

        For data from before tracking, and for changes made behind the recorder's back: raw
        SQL, other programs. (A value that was changed in a row that stays is not noticed.)
        Idempotent and resumable; commits every few hundred rows. Needs no service: the next
        `sync()` sends what was recorded. `progress` is called after each chunk.
        """
        with self._exclusively():
            with self._writing():
                pass  # refuses to run inside a transaction
            return Adoption(
                self.registry, self.journal, self.versions, progress or (lambda _: None)
            ).run()

    def prune(self, keep_ms: int = 30 * 24 * 3600 * 1000) -> int:
        """Delete sent entries older than `keep_ms` from the client log; return how many.

        No later outcome changes: versions and tombstones are kept apart.
        """
        self._check_ready()
        with self.journal.transaction():
            self.versions.fold_local()
            return self.journal.prune((self._now() - keep_ms) * TICKS_PER_MS)

    # -- one exchange after the other ----------------------------------------------------

    def _exchange(self, result: SyncResult, *, send: bool, apply: bool | None) -> None:
        """Go on until there is nothing to send and nothing to receive.

        `apply`: True applies pages at once, False stores them, None does not look at them.
        """
        device = self._registered()
        since = self.journal.oldest_unsent()
        pending = self.journal.count_unsent()
        more = True
        while True:
            after = self.journal.state("checkpoint")
            batch = self._next_batch() if send else []
            if not batch and not more:
                return
            try:
                if batch:
                    more = self._push(device, batch, after, apply, since, result)
                elif apply is None:
                    return
                else:
                    more = self._pull(device, after, apply, since, result)
            except EpochChanged:
                if after is None:
                    raise  # a log that refuses its own beginning is broken
                self._start_over()
                more = True
                continue
            left = max(0, pending - result.sent - result.refused)
            self._emit(Progress(result.sent, result.received, left))

    def _push(
        self,
        device: str,
        outgoing: list[Outgoing],
        after: str | None,
        apply: bool | None,
        since: int | None,
        result: SyncResult,
    ) -> bool:
        """Send a batch; settle it and take the page that came with it in one transaction."""
        self._emit(Sending(outgoing))
        try:
            receipt = self._shared_log.write(
                device,
                outgoing,
                after=after,
                now_ms=self._now(),
                limit=self._batch_size,
                byte_limit=self._byte_limit,
            )
        except ServiceFailed as error:
            if error.service_code not in TOO_LARGE:
                raise
            if len(outgoing) > 1:  # better a group in two parts than a device that is stuck
                half = outgoing[: len(outgoing) // 2]
                return self._push(device, half, after, apply, since, result)
            receipt = _refusing(error)
        result.exchanges += 1
        self._emit(Sent(receipt))
        if receipt.page is not None and apply is not None:
            self._announce(receipt.page, apply)
        with self._writing():
            refused = self._settle(outgoing, receipt)
            applied = None
            if receipt.page is not None and apply is not None:
                applied = self._store_page(receipt.page, after, apply, since)
        result.sent += receipt.accepted + receipt.duplicates
        result.duplicates += receipt.duplicates
        result.refused += len(refused)
        for entry in refused:
            self._emit(entry)
        return self._took(receipt.page, applied, result) if apply is not None else False

    def _pull(
        self,
        device: str,
        after: str | None,
        apply: bool,
        since: int | None,
        result: SyncResult,
    ) -> bool:
        page = self._shared_log.read(
            device, after=after, limit=self._batch_size, byte_limit=self._byte_limit
        )
        result.exchanges += 1
        self._announce(page, apply)
        with self._writing():
            applied = self._store_page(page, after, apply, since)
        return self._took(page, applied, result)

    def _settle(self, outgoing: Sequence[Outgoing], receipt: Receipt) -> list[Refused]:
        """Mark exactly the entries that the receipt speaks of; return the refused ones."""
        rejected = {rejection.index: rejection for rejection in receipt.rejected}
        refused = [
            Refused(outgoing[r.index].ticks, r.code, r.reason)
            for r in receipt.rejected
            if r.code != "CLOCK_AHEAD"
        ]
        self.journal.mark_sent(
            [entry.ticks for index, entry in enumerate(outgoing) if index not in rejected],
            [RefusedEntry(entry.ticks, f"{entry.code}: {entry.reason}") for entry in refused],
        )
        if len(refused) < len(rejected):
            self._restamp(receipt)
        return refused

    def _store_page(
        self, page: Page, after: str | None, apply: bool, since: int | None
    ) -> Applied | None:
        """Apply a page, or keep it for `reconcile()`, and move the checkpoint with it.

        None if the checkpoint is not where this page begins: another thread or process was
        faster, and its work stands.
        """
        if self.journal.state("checkpoint") != after:
            return None
        applied = Applied(entries=len(page.entries))
        if apply:
            applied = self._applier.apply(page.entries, since)
        else:
            self.journal.receive(page.entries)
        if page.cursor != after:
            self.journal.set_state(checkpoint=page.cursor, epoch=page.epoch)
        return applied

    def _announce(self, page: Page, apply: bool) -> None:
        self._emit(Received(page.entries))
        if apply:
            self._emit(Reconciling(len(page.entries)))
        while apply and page.entries and self.journal.has_unfolded(FOLD_LIMIT):
            # A backlog is folded in transactions of its own: other writers get their turn.
            with self._writing():
                self.versions.fold_some()

    def _took(self, page: Page | None, applied: Applied | None, result: SyncResult) -> bool:
        """Account for a page that is stored; return whether there is more to read."""
        if page is None or applied is None:
            return True
        result.add(applied)
        self._emit(Reconciled(applied))
        return page.has_more

    def _reconcile_received(self, result: SyncResult) -> None:
        while True:
            with self._writing():
                received = self.journal.received(self._batch_size)
                self._emit(Reconciling(len(received)))
                applied = self._applier.apply([entry for _, entry in received], None)
                self.journal.drop_received(number for number, _ in received)
            result.add(applied)
            self._emit(Reconciled(applied))
            if len(received) < self._batch_size:
                return

    # -- what happens now and then -------------------------------------------------------

    def _registered(self) -> str:
        device = self.journal.device_id()
        if device:
            return device
        with self._writing():
            request = self.journal.state("request") or self._new_request_id()
            self.journal.set_state(request=request)
        device = self._shared_log.register(self._device_name, request)
        with self._writing():
            if not self.journal.device_id():
                self.journal.set_state(device=device)
            self.versions.forget_numbers()
        return self.journal.device_id()

    def _restamp(self, receipt: Receipt) -> None:
        """Bring unsent entries back into the service's time, and later ones with them."""
        lead = max(0, self._now() - int(receipt.server_time_ms))
        self.versions.fold_local()
        keys = self.journal.unsent_rows()
        renamed = self.journal.restamp_unsent(lead)
        self.versions.rename_local(renamed, keys)
        self.journal.set_state(folded_until=str(max(renamed.values(), default=0)))
        self._emit(Restamped(len(renamed), lead))

    def _start_over(self) -> None:
        """The log began a new life: read it from its beginning, offer it all we wrote."""
        with self._writing():
            self.journal.set_state(checkpoint=None)
            self.journal.unsend_everything()

    def _next_batch(self) -> list[Outgoing]:
        """The next entries to send. What `pre_send` drops is marked, and not sent."""
        while True:
            local = self.journal.unsent(self._batch_size, self._byte_limit)
            if self._pre_send is None and self._serializer is None:
                return [Outgoing(entry.ticks, entry.offset, entry.data()) for entry in local]
            batch, dropped = self._processed(local)
            if dropped:
                with self._writing():
                    self.journal.mark_sent([], dropped)
            if batch or not local:
                return batch

    def _processed(self, local: list[LocalEntry]) -> tuple[list[Outgoing], list[RefusedEntry]]:
        batch, dropped = [], []
        for entry in local:
            change: Change | None = changes.decode(entry.data())
            if change is not None and self._pre_send is not None:
                change = self._pre_send(change)
            if change is None:
                dropped.append(RefusedEntry(entry.ticks, "dropped by pre_send"))
                continue
            encode = self._serializer.encode if self._serializer else changes.encode
            batch.append(Outgoing(entry.ticks, entry.offset, encode(change)))
        return batch, dropped

    def _decode(self, data: str) -> Change | None:
        """A received entry's change, through the serializer and `post_receive`."""
        if self._serializer is None:
            change = changes.decode(data)
        else:
            try:
                change = self._serializer.decode(data)
            except Exception as error:
                raise EntryUnreadable(f"The serializer failed: {error!r}.") from error
        return change if self._post_receive is None else self._post_receive(change)

    # -- small things --------------------------------------------------------------------

    def _check_ready(self) -> None:
        if not self._ready:
            raise NotSetUp()

    def _exclusively(self) -> threading.Lock:
        self._check_ready()
        return self._lock

    def _writing(self) -> Any:
        if self.journal.in_transaction():
            raise ConfigurationError(
                "sync() was called inside a transaction.",
                hint="Call it after the `with database.atomic()` block.",
            )
        return _Writing(self)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def _refusing(error: ServiceFailed) -> Receipt:
    """A receipt for an entry that is too large for the service to even look at."""
    rejection = Rejection(0, error.service_code, error.message)
    return Receipt(0, 0, [rejection], "", 0.0, None)


class _Writing:
    """A transaction of our own; after a rollback, numbers cached from it are forgotten."""

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        self._transaction = sync.journal.transaction()

    def __enter__(self) -> None:
        self._transaction.__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self._sync.versions.forget_numbers()
        self._transaction.__exit__(kind, error, traceback)


def _resolved(database: peewee.Database | peewee.Proxy) -> peewee.Database:
    if isinstance(database, peewee.Proxy):
        if database.obj is None:
            raise ConfigurationError(
                "The database proxy is not initialized.",
                hint="Call proxy.initialize(SqliteDatabase(…)) before making the Sync.",
            )
        resolved: peewee.Database = database.obj
        return resolved
    return database


def _over_http(url: str | None, token: str | None, user: str | None) -> SharedLog:
    if url is None:
        raise ConfigurationError(
            "No service is given.",
            hint='Write Sync(database, models, url="http://localhost:8000/graphql", token="…").',
        )
    if token is None and user is None:
        raise MissingToken(
            "No token is given.",
            hint="Make one on the service with `sharedlog token create --user NAME` and write "
            'token="…". A service started with --no-auth takes user="NAME" instead.',
        )
    return GraphQLSharedLog(HttpTransport(url, token), user)
