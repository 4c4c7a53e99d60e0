"""How one application records: the recorder that it chose, and transactions that know its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import peewee

from .capture.capture import StatementRecorder
from .errors import ConfigurationError
from .events import Event, Refused, Unrecorded
from .journal.journal import Journal
from .journal.recorder import Capture, Recorder
from .models.registry import Registry
from .tables.checks import check_outside_transaction
from .tables.versions import Versions
from .triggers.harvest import REFUSAL
from .triggers.pgtracing import PostgresTriggerRecorder
from .triggers.tracing import TriggerRecorder

PORTION = 10_000
"""Changes that triggers noted which become entries in one transaction; a backlog takes several."""


class Recording:
    """Recording by statements or by triggers. `emit` tells listeners."""

    def __init__(
        self,
        capture: Capture,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        emit: Callable[[Event], None],
    ) -> None:
        if capture not in ("signals", "triggers"):
            raise ConfigurationError(
                f"capture is {capture!r}.", hint='Write capture="signals" or capture="triggers".'
            )
        self.capture = capture
        self._triggers = _triggers(registry, journal)
        self.recorder: Recorder
        if capture == "signals":
            self.recorder = StatementRecorder(registry, journal)
        elif self._triggers is not None:
            self.recorder = self._triggers
        else:
            raise ConfigurationError(
                "MySQL's triggers do not see what its foreign keys do.",
                hint='Use capture="signals" for this database.',
            )
        journal.unrecorded = self.recorder.unrecorded
        self._journal = journal
        self._versions = versions
        self._emit = emit

    def start(self) -> None:
        if self._triggers is not None and self.recorder is not self._triggers:
            self._triggers.remove()  # the file's, from when it was recorded so
        self._tell(self.recorder.install())

    def stop(self) -> None:
        self.recorder.uninstall()

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Tables may be altered inside. Triggers are off, also such as a program before left: what
        they noted waits for `start`."""
        left: AbstractContextManager[None] = nullcontext()
        if self._triggers is not None and self.recorder is not self._triggers:
            left = self._triggers.migrating()
        with left, self.recorder.migrating():
            yield

    def catch_up(self) -> None:
        """Make sure that changes are recorded, and that the client log has what was noted."""
        self._tell(self.recorder.check())
        self.harvest()

    def harvest(self) -> None:
        """Bring what triggers noted into the client log, in transactions of bounded size."""
        while self.recorder.waiting():
            with self.writing(PORTION):
                pass

    @contextmanager
    def writing(self, portion: int | None = None) -> Iterator[None]:
        """A write transaction of our own. The client log has all that was written before, or the
        next portion. After a rollback, cached numbers are forgotten."""
        check_outside_transaction(self._journal, "sync")
        try:
            with self._journal.transaction(), self._journal.keeping():
                self._journal.dialect.check_at_once(self._journal.database)
                refused = self.recorder.harvest(portion)
                yield
        except BaseException:  # of the commit, too
            self._versions.forget_numbers()
            raise
        for entry in refused:
            self._emit(Refused(entry.ticks, REFUSAL, entry.reason))

    def looking(self) -> AbstractContextManager[None]:
        """A transaction in which the client log has all that was done to the tables: one of
        reading, unless there is something to bring in."""
        return self._journal.reading() if self.recorder is not self._triggers else self.writing()

    def harvest_if_free(self) -> None:
        """The same as `harvest()`, unless others write, or we are in their transaction."""
        if not self._journal.in_transaction():
            with suppress(peewee.OperationalError):
                self.harvest()

    def _tell(self, unrecorded: Sequence[str]) -> None:
        if unrecorded:
            self._emit(Unrecorded(unrecorded))


def _triggers(registry: Registry, journal: Journal) -> TriggerRecorder | None:
    """The recorder by triggers of this database, if it can have one."""
    if isinstance(journal.database, peewee.MySQLDatabase):
        return None
    if isinstance(journal.database, peewee.PostgresqlDatabase):
        return PostgresTriggerRecorder(registry, journal)
    return TriggerRecorder(registry, journal)
