"""What keeps a device healthy: telling where it stands, checking it, tidying it up.

The methods that `Sync` has beside exchanging entries. Each runs alone, and outside of the
caller's transactions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager

import peewee

from ..capture.adopt import Adopted, Adoption
from ..changes import dumps, loads
from ..clock import TICKS_PER_MS
from ..errors import ConfigurationError, UnsentWork
from ..exchange.horizon import Horizon
from ..exchange.identity import Identity
from ..exchange.relearning import Clearance
from ..exchange.replica import Replica
from ..journal.inbox import Inbox
from ..journal.journal import Journal
from ..journal.reset import (
    UNREAD,
    count_unshared,
    finish,
    forget,
    is_read_anew,
    is_relearning,
    is_resetting,
)
from ..journal.status import Status, read_status
from ..models.registry import Registry
from ..remote.history import HistoryEntry, history_of
from ..tables.digest import Digest, take_digest
from ..tables.versions import Versions
from .replay import Replay
from .verify import LISTED, Verification, Verified

PRUNE_KEEP_MS = 30 * 24 * 3600 * 1000
"""How long sent entries stay in the client log, unless `prune()` is told otherwise."""


CLEARED, ADOPTED = "cleared", "adopted"
"""What is done with rows that the log does not know, once all of it was read again."""


class Care(ABC):
    """The part of `Sync` that looks after the device; `Sync` brings what it works with."""

    registry: Registry
    journal: Journal
    inbox: Inbox
    versions: Versions
    identity: Identity
    _replica: Replica
    _horizon: Horizon

    @abstractmethod
    def _check_ready(self) -> None: ...

    @abstractmethod
    def _exclusively(self, method: str) -> AbstractContextManager[None]:
        """One call at a time, outside of the caller's transactions, with all tables there."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]:
        """A write transaction of our own."""

    @abstractmethod
    def _looking(self) -> AbstractContextManager[None]:
        """A transaction in which the client log has all that was done to the tables."""

    def status(self) -> Status:
        """Where this device stands: what is pending, parked, refused, and how the last exchange
        ended. Reads the client log only; needs no service."""
        self._check_ready()
        return read_status(self.journal)

    def history(self, instance: peewee.Model, limit: int = 100) -> list[HistoryEntry]:
        """Who wrote what to this row, and when: its first entries in the shared log, 1,000 at
        most. Those of a former name of the table are among them, as they were written."""
        with self._exclusively("history"):
            return history_of(self.registry, self._replica.shared_log, instance, limit)

    def adopt(
        self, progress: Callable[[Adopted], None] | None = None, *, values: bool = False
    ) -> Adopted:
        """Record what stands in the tables and nobody recorded, so that all devices get it.

        For data from before tracking, and for changes made behind the recorder's back: raw
        SQL, other programs, migrations. Rows that the log does not know, rows that are gone,
        and values of fields that no entry ever wrote are found without the service. Other
        values that changed in a row that stays are found with `values=True`, which reads the
        whole log, as `verify()` does: what stands in this device's tables then wins.

        Idempotent and resumable; commits every few hundred rows. The next `sync()` sends what
        was recorded. `progress` is called after each chunk.
        """
        with self._exclusively("adopt"):
            adoption = self._adoption(progress or (lambda _: None))
            adopted = adoption.run()
            if values:
                self._adopt_values(adoption, progress)
            return adopted

    def _adoption(
        self, progress: Callable[[Adopted], None], only: Container[str] | None = None
    ) -> Adoption:
        return Adoption(self.registry, self.journal, self.versions, self._writing, progress, only)

    def _adopt_values(self, adoption: Adoption, progress: Callable[[Adopted], None] | None) -> None:
        def tell(_: Verified) -> None:
            if progress is not None:
                progress(adoption.adopted)

        with self._verification(self._writing, tell) as verification:
            for differences in verification.standing_here():
                adoption.adopt_changed(differences)

    def digest(self, *, rows: bool = False) -> Digest:
        """A digest of each collection, to be compared with another device's: `compare()`.

        Order-independent and small; with `rows`, a hash of every row comes along (some 100
        bytes a row), which tells the rows that differ. Needs no service. Everything is read
        in one transaction.
        """
        with self._exclusively("digest"):
            return take_digest(self.registry, self.journal, self.versions, rows=rows)

    def verify(
        self, *, limit: int = LISTED, progress: Callable[[Verified], None] | None = None
    ) -> Verified:
        """Compare this device with what the shared log comes to, and say which rows differ.

        Reads the whole log from the service (this device's own entries, too) up to where the
        device is, into a temporary database, and adds what is not sent yet. So a row differs
        if it was changed behind the recorder's back, if the service refused its change, or if
        something is wrong. Changes nothing, and registers nothing. At most `limit` differences
        are listed; all are counted. `progress` is called now and then.

        Raises:
            RemoteError: the service cannot be reached or refuses.
            EpochChanged: the service was restored: call `sync()` first.
        """
        with self._exclusively("verify"), self._verification(self._looking, progress) as v:
            return v.run(limit)

    @contextmanager
    def _verification(
        self,
        transaction: Callable[[], AbstractContextManager[None]],
        progress: Callable[[Verified], None] | None = None,
    ) -> Iterator[Verification]:
        if self.journal.dialect.typed:
            raise ConfigurationError(
                "The log can be compared with an SQLite database only: it is read into a copy of "
                "the file's tables.",
                hint="Compare two devices: device.digest(rows=True).compare(other's).",
            )
        replica = self._replica
        replay = Replay(
            self.journal,
            self.registry,
            replica.shared_log,
            replica.pipeline,
            batch_size=replica.batch_size,
            byte_limit=replica.byte_limit,
        )
        with closing(replay):
            yield Verification(
                self.registry,
                self.journal,
                self.versions,
                replay,
                transaction,
                progress or (lambda _: None),
            )

    def prune(self, keep_ms: int = PRUNE_KEEP_MS) -> int:
        """Delete sent entries older than `keep_ms` from the client log; return how many.

        No later outcome changes: versions and tombstones are kept apart. What only this
        device has stays, too, whatever its age: entries that are not sent or that the service
        refused, received entries that cannot be read yet, and the values of parked rows.
        """
        with self._exclusively("prune"), self._writing():
            self.versions.fold_local()
            return self.journal.prune((self.journal.now() - keep_ms) * TICKS_PER_MS)

    def reset(self, *, force: bool = False) -> None:
        """Forget the client log and begin as a new device; the application's rows stay.

        For a copied or damaged file, for a device that was revoked, for another service. The
        next `sync()` registers a new device and reads the log from its beginning. Then this
        holds: *what the log says wins over what the tables hold; what it never heard of, rows
        and fields, is recorded as new.* So what was sent is not lost, what was deleted stays
        deleted, and all devices end equal. What was changed behind the recorder's back is
        overwritten, unless `adopt(values=True)` recorded it before.

        Raises:
            UnsentWork: changes that only this device has would be lost: those that are not
                sent yet, and those that the service refused. With `force`, they are: changed
                rows become what the log says, deleted ones come back; created ones are
                recorded anew.
        """
        with self._exclusively("reset"), self._writing():
            if not force and (count := count_unshared(self.journal)):
                raise UnsentWork(count)
            self._horizon.remember()
            forget(self.journal)
            self.identity.prepare()

    def _finish_relearning(self) -> bool:
        """Take out what the log does not know, once all of it was read again; return whether
        there was anything to do."""
        if not is_relearning(self.journal) or self.inbox.waiting(1):
            return False
        self._clear()
        self._leave_unread(dict.fromkeys(self._replica.applier.given_up, CLEARED))
        return True

    def _clear(self, only: Container[str] | None = None) -> None:
        parts = self.registry, self.journal, self.versions, self._writing, lambda _: None
        Clearance(*parts, only).clear(self._replica.applier)

    def _leave_unread(self, left: Mapping[str, str]) -> None:
        """What was done with all tables is to be done with those that this program has not, too."""
        with self._writing():
            self.journal.set_state(**{UNREAD: dumps(dict(left)) if left else None})

    def _finish_unread(self) -> bool:
        """Do so when they are known again, and what had been set aside of them is merged; return
        whether there was anything to do."""
        left: dict[str, str] = loads(self.journal.state(UNREAD) or "{}")
        today = {name: self.registry.names.table(name) for name in left}
        known = {now: left[name] for name, now in today.items() if self.registry.collection(now)}
        if not known or is_read_anew(self.journal) or self.inbox.waiting(1):
            return False
        with self._writing():
            for name, now in today.items():
                if now in known:
                    self._horizon.end_known(name, now)
        self._clear({name for name, what in known.items() if what == CLEARED})
        self._adoption(
            lambda _: None, {name for name, what in known.items() if what == ADOPTED}
        ).adopt_rows()
        self._leave_unread({name: left[name] for name in left if today[name] not in known})
        return True

    def _finish_rereading(self) -> None:
        if self.identity.rereads and not (self.identity.behind or self.inbox.waiting(1)):
            with self._writing():
                self.identity.has_reread()

    def _finish_reset(self) -> bool:
        """Record what the log never heard of, once all of it was read after a reset; return
        whether there was anything to do."""
        if not is_resetting(self.journal) or self.inbox.waiting(1):
            return False
        self._adoption(lambda _: None).adopt_rows()
        with self._writing():
            finish(self.journal)
        self._leave_unread(dict.fromkeys(self._replica.applier.given_up, ADOPTED))
        return True
