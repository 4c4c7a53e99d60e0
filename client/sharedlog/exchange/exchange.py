"""Exchanging entries with the shared log, until there is nothing to send or to receive.

Everything durable happens in one local transaction per exchange: entries marked sent, rows
applied, checkpoint moved. A crash before it repeats the exchange, which changes nothing the
second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..apply.applier import Applied
from ..changes import MODIFY
from ..errors import (
    DeviceUnknown,
    EpochChanged,
    HorizonPassed,
    LineageChanged,
    QuotaExceeded,
    RemoteError,
    ServiceFailed,
)
from ..events import (
    BegunAnew,
    LogShrunk,
    Progress,
    Received,
    Reconciling,
    Refused,
    Restamped,
    Sending,
    Sent,
    SyncResult,
    told,
)
from ..journal.journal import OPERATION_CODES, RefusedEntry
from ..journal.status import note_contact
from ..limits import TOO_LARGE
from ..remote.sharedlog import Outgoing, Page, Receipt, Rejection
from ..tables.versions import FOLD_LIMIT
from .horizon import Horizon
from .lineage import Lineage
from .registration import Registration
from .relearning import forget
from .replica import Replica
from .restamping import restamp

KEPT_UNSENT = frozenset(("CLOCK_AHEAD", "ENTRY_TOO_OLD", "DEVICE_CLONED"))
"""Refused as they are: they are sent again with other timestamps, or as another device's."""

RESTAMPS = 3
"""How often one run corrects its timestamps before it gives up, to try again later."""

SURPRISING = (EpochChanged, HorizonPassed, LineageChanged, DeviceUnknown)

SURPRISES = 10
"""How often the log may turn out to be, or to hold, something else than was known, until something
is sent, or there is nothing to be found out any more."""


class Exchange:
    """One run. `apply` says what is done with others' entries: True applies pages at once,
    False keeps them for `reconcile()`, None does not look at them."""

    def __init__(
        self,
        replica: Replica,
        registration: Registration,
        horizon: Horizon,
        result: SyncResult,
        *,
        apply: bool | None,
    ) -> None:
        self._replica = replica
        self._registration = registration
        self._horizon = horizon
        self._journal = replica.journal
        self._identity = replica.identity
        self._lineage = Lineage(replica, apply=apply)
        self._emit = replica.emit
        self._result = result
        self._apply = apply
        self._since: int | None = None
        self._restamps = 0

    def run(self, *, send: bool) -> None:
        """Go on until there is nothing to receive, and nothing to send of what was recorded
        before: under constant writing, what comes meanwhile is the next run's. Where the log is
        full, what others wrote is received all the same, and then QuotaExceeded is raised."""
        self._since = self._journal.oldest_unsent()
        until = self._journal.next_ticks()
        pending = self._journal.count_unsent()
        if send and self._may_be_a_copy():
            with self._replica.writing():
                self._identity.look_again()
        more, surprises = True, 0
        full: QuotaExceeded | None = None
        while True:
            if self._restamps > RESTAMPS:
                raise ServiceFailed(
                    "The service refuses every timestamp as too far ahead of its clock.",
                    service_code="CLOCK_AHEAD",
                    hint="Its clock may have been set back. Nothing is lost; try again later.",
                )
            after, lineage = self._journal.state("checkpoint"), self._identity.lineage
            behind = self._identity.behind
            batch = self._next_batch(until) if send and not (behind or full) else []
            if not batch and not more and not behind:
                break
            try:
                if not self._identity.registered:  # it is another device by now
                    self._registration.register()
                if self._horizon.is_unknown:
                    self._horizon.ask()
                    self._result.exchanges += 1
                    continue
                if batch:
                    more = self._push(batch, after, lineage)
                elif self._apply is None and not behind:
                    break
                else:
                    more = self._pull(after, lineage)
                if not behind:
                    surprises = 0
            except QuotaExceeded as error:
                if not self._identity.registered:
                    raise  # there is no place for the device: it may not read either
                full = error
            except SURPRISING as surprise:
                surprises += self._find_out(surprise, after, lineage)
                if surprises > SURPRISES:
                    raise
                more = True
                continue
            left = max(0, pending - self._result.sent - self._result.refused)
            self._emit(Progress(self._result.sent, self._result.received, left))
        if full is not None:
            raise full

    def _may_be_a_copy(self) -> bool:
        """Whether copies may have sent what this device counted, as with a program that is
        delivered with data: it has been to no log yet."""
        if self._apply is None or self._journal.state("checkpoint") is not None:
            return False
        counted = f"operation = {OPERATION_CODES[MODIFY]} AND rules IS NOT NULL"
        return self._journal.oldest_unsent(counted) is not None

    def _find_out(self, surprise: RemoteError, after: str | None, lineage: str) -> bool:
        """The log is not what it was when this device last heard of it, or the device is not.
        Return whether that was new: another process may have found out already, and go on."""
        self._result.exchanges += 1
        if isinstance(surprise, DeviceUnknown):
            with self._replica.writing():
                self._identity.unregister()
        elif isinstance(surprise, HorizonPassed):
            self._begin_anew(after)
        elif isinstance(surprise, EpochChanged):
            if after is None:
                raise surprise  # a log that refuses its own beginning is broken
            self._start_over()
        elif lineage != self._identity.lineage:
            return False
        else:
            with suppress(DeviceUnknown):  # the next request will tell
                self._lineage.trace()
            self._count_found()
        return True

    def _begin_anew(self, after: str | None) -> None:
        """The log has forgotten what this device has not seen."""
        former = self._identity.device
        with self._replica.writing():
            if self._journal.state("checkpoint") != after or self._identity.device != former:
                return  # another process has found out already
            if self._horizon.has_moved():
                return
            forget(self._journal, self._identity, self._replica.versions)
            self._journal.set_state(horizon=None)
        self._emit(BegunAnew(former, self._identity.device))

    def _count_found(self) -> None:
        """What was in the log although nobody had told counts as sent, and as known there."""
        self._result.sent += self._lineage.found
        self._result.duplicates += self._lineage.found
        self._lineage.found = 0

    def _push(self, outgoing: list[Outgoing], after: str | None, lineage: str) -> bool:
        """Send a batch; settle it and take the page that came with it in one transaction."""
        device = self._identity.device
        self._emit(Sending(outgoing))
        try:
            receipt = self._replica.shared_log.write(
                device,
                outgoing,
                after=after,
                now_ms=self._journal.now(),
                limit=self._replica.batch_size,
                byte_limit=self._replica.byte_limit,
                lineage=lineage,
            )
        except ServiceFailed as error:
            if error.service_code not in TOO_LARGE:
                raise
            self._registration.ask_again_soon()
            if len(outgoing) > 1:  # better a group in two parts than a device that is stuck
                half = outgoing[: len(outgoing) // 2]
                return self._push(half, after, lineage)
            receipt = _refusing(error)
        self._result.exchanges += 1
        self._emit(Sent(receipt))
        cloned = any(rejection.code == "DEVICE_CLONED" for rejection in receipt.rejected)
        page = None if self._apply is None or cloned else receipt.page
        if page is not None:
            self._announce(page)
        with self._replica.writing():
            if (device, lineage) != (self._identity.device, self._identity.lineage):
                return True  # another process has asked the log since: what it found out stands
            self._note(receipt.epoch, receipt.server_time_ms)
            refused = self._settle(outgoing, receipt)
            if receipt.epoch:
                self._journal.set_state(lineage=receipt.lineage)
            applied = None
            if page is not None:
                applied = self._store_page(page, after, device, receipt.lineage)
        self._result.sent += receipt.accepted + receipt.duplicates
        self._result.duplicates += receipt.duplicates
        self._result.refused += len(refused)
        for entry in refused:
            self._emit(entry)
        if cloned:
            self._lineage.fork()
        return self._took(page, applied) if self._apply is not None else False

    def _pull(self, after: str | None, lineage: str) -> bool:
        replica, device = self._replica, self._identity.device
        page = replica.shared_log.read(
            device,
            after=after,
            limit=replica.batch_size,
            byte_limit=replica.byte_limit,
            lineage=lineage,
        )
        self._result.exchanges += 1
        self._announce(page)
        with self._replica.writing():
            self._note(page.epoch, page.server_time_ms)
            applied = self._store_page(page, after, device, lineage)
        return self._took(page, applied)

    def _note(self, epoch: str, server_time_ms: float) -> None:
        """Keep what the service says of itself. An answer that is not its own says nothing."""
        if epoch:
            now = self._journal.now()
            self._journal.trust_clock(max(0, now - int(server_time_ms)))
            note_contact(self._journal, now, server_time_ms)

    def _settle(self, outgoing: Sequence[Outgoing], receipt: Receipt) -> list[Refused]:
        """Mark exactly the entries that the receipt speaks of; return the refused ones."""
        rejected = {rejection.index: rejection for rejection in receipt.rejected}
        refused = [
            Refused(outgoing[r.index].ticks, r.code, r.reason)
            for r in receipt.rejected
            if r.code not in KEPT_UNSENT
        ]
        taken = [entry.ticks for index, entry in enumerate(outgoing) if index not in rejected]
        self._journal.mark_sent(
            taken, [RefusedEntry(entry.ticks, f"{entry.code}: {entry.reason}") for entry in refused]
        )
        self._horizon.settle(taken, receipt.horizon_ticks)
        ahead = [outgoing[r.index].ticks for r in receipt.rejected if r.code == "CLOCK_AHEAD"]
        old = [outgoing[r.index].ticks for r in receipt.rejected if r.code == "ENTRY_TOO_OLD"]
        if old:
            done = self._lineage.lift(old, receipt.horizon_ticks)
            self._horizon.settle(done, receipt.horizon_ticks)
        if ahead:
            self._restamp(min(ahead), receipt)
        return refused

    def _store_page(
        self, page: Page, after: str | None, device: str, lineage: str
    ) -> Applied | None:
        """Apply a page, or keep it for `reconcile()`, and move the checkpoint with it.

        None if the checkpoint is not where this page begins, or the device is not what it was:
        another thread or process was faster, and its work stands.
        """
        if self._journal.state("checkpoint") != after:
            return None
        if (self._identity.device, self._identity.lineage) != (device, lineage):
            return None
        if not self._lineage.recognize(page.entries):
            return None
        applied = Applied(entries=len(page.entries))
        if self._apply:
            applied = self._replica.applier.apply(page.entries, self._since)
        else:
            self._replica.inbox.keep(page.entries)
        if page.cursor != after:
            self._journal.set_state(checkpoint=page.cursor)
        if not page.has_more:
            self._lineage.catch_up()
        self._identity.note_seen(complete=not page.has_more)
        return applied

    def _announce(self, page: Page) -> None:
        self._emit(Received(page.entries))
        if self._apply:
            self._emit(Reconciling(len(page.entries)))
        while self._apply and page.entries and self._journal.has_unfolded(FOLD_LIMIT):
            # A backlog is folded in transactions of its own: other writers get their turn.
            with self._replica.writing():
                self._replica.versions.fold_some()

    def _took(self, page: Page | None, applied: Applied | None) -> bool:
        """Account for a page that is stored; return whether there is more to read."""
        while self._lineage.forked:
            self._emit(self._lineage.forked.pop())
        if self._lineage.lost:
            self._emit(LogShrunk(self._lineage.lost))
            self._lineage.lost = 0
        if page is None or applied is None:
            return True
        self._result.add(applied)
        for event in told(applied):
            self._emit(event)
        return page.has_more

    def _restamp(self, since: int, receipt: Receipt) -> None:
        """Bring entries since then back into the service's time, and later ones with them."""
        self._restamps += 1
        lead = max(0, self._journal.now() - int(receipt.server_time_ms))
        self._replica.versions.fold_local()
        rows = self._journal.unshared_rows(since)
        renamed = restamp(self._journal, since, lead)
        self._replica.versions.rename_local(renamed, rows)
        if renamed:  # else another process of this device was faster
            self._journal.set_state(folded_until=str(max(renamed.values())))
            self._lineage.list_named(min(renamed.values()))
            self._emit(Restamped(len(renamed), lead))

    def _start_over(self) -> None:
        """The log began a new life, or lost its end: nothing is known of it any more."""
        with self._replica.writing():
            self._identity.doubt()

    def _next_batch(self, until: int) -> list[Outgoing]:
        """The next entries to send, if they are older than `until`. What `pre_send` drops is
        marked, and not sent."""
        replica = self._replica
        while True:
            local = self._journal.unsent(replica.entries_max, replica.bytes_max)
            if local and local[0].ticks >= until:
                return []
            batch, dropped = replica.pipeline.outgoing(local)
            if dropped:
                with replica.writing():
                    self._journal.mark_sent([], dropped)
            if batch or not local:
                return batch


def _refusing(error: ServiceFailed) -> Receipt:
    """A receipt for an entry that is too large for the service to even look at."""
    rejection = Rejection(0, error.service_code, error.message)
    return Receipt(0, 0, [rejection], "", 0.0, None)
