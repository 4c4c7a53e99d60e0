"""Exchanging entries with the shared log, until there is nothing to send or to receive.

Everything durable happens in one local transaction per exchange: entries marked sent, rows
applied, checkpoint moved. A crash before it repeats the exchange, which changes nothing the
second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from .apply import Applied, Applier
from .clock import Now
from .errors import EpochChanged, ServiceFailed
from .events import (
    Event,
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
from .inbox import Inbox
from .journal import Journal, RefusedEntry
from .pipeline import Pipeline
from .remote import Outgoing, Page, Receipt, Rejection, SharedLog
from .status import note_contact
from .versions import FOLD_LIMIT, Versions

TOO_LARGE = frozenset(("BATCH_TOO_LARGE", "BODY_TOO_LARGE", "HTTP_413"))
"""What the service says when a whole request is over its limits."""


RESTAMPS = 3
"""How often one run corrects its timestamps before it gives up, to try again later."""


@dataclass(frozen=True, slots=True)
class Replica:
    """The parts of one device that an exchange works with.

    `writing` opens a write transaction of the local database; `emit` tells listeners.
    """

    journal: Journal
    inbox: Inbox
    versions: Versions
    applier: Applier
    pipeline: Pipeline
    shared_log: SharedLog
    batch_size: int
    byte_limit: int
    now: Now
    writing: Callable[[], AbstractContextManager[None]]
    emit: Callable[[Event], None]


class Exchange:
    """One run. `apply` says what is done with others' entries: True applies pages at once,
    False keeps them for `reconcile()`, None does not look at them."""

    def __init__(
        self, replica: Replica, device: str, result: SyncResult, *, apply: bool | None
    ) -> None:
        self._replica = replica
        self._journal = replica.journal
        self._emit = replica.emit
        self._device = device
        self._result = result
        self._apply = apply
        self._since: int | None = None
        self._restamps = 0

    def run(self, *, send: bool) -> None:
        """Go on until there is nothing to receive, and nothing to send of what was recorded
        before: under constant writing, what comes meanwhile is the next run's."""
        self._since = self._journal.oldest_unsent()
        until = self._journal.next_ticks()
        pending = self._journal.count_unsent()
        more = True
        while self._journal.device_id() == self._device:  # else reset() was called elsewhere
            if self._restamps > RESTAMPS:
                raise ServiceFailed(
                    "The service refuses every timestamp as too far ahead of its clock.",
                    service_code="CLOCK_AHEAD",
                    hint="Its clock may have been set back. Nothing is lost; try again later.",
                )
            after = self._journal.state("checkpoint")
            batch = self._next_batch(until) if send else []
            if not batch and not more:
                return
            try:
                if batch:
                    more = self._push(batch, after)
                elif self._apply is None:
                    return
                else:
                    more = self._pull(after)
            except EpochChanged:
                if after is None and self._journal.state("epoch") is None:
                    raise  # a log that refuses its own beginning is broken
                self._start_over()
                more = True
                continue
            left = max(0, pending - self._result.sent - self._result.refused)
            self._emit(Progress(self._result.sent, self._result.received, left))

    def _push(self, outgoing: list[Outgoing], after: str | None) -> bool:
        """Send a batch; settle it and take the page that came with it in one transaction."""
        self._emit(Sending(outgoing))
        try:
            receipt = self._replica.shared_log.write(
                self._device,
                outgoing,
                after=after,
                now_ms=self._replica.now(),
                limit=self._replica.batch_size,
                byte_limit=self._replica.byte_limit,
            )
        except ServiceFailed as error:
            if error.service_code not in TOO_LARGE:
                raise
            if len(outgoing) > 1:  # better a group in two parts than a device that is stuck
                half = outgoing[: len(outgoing) // 2]
                return self._push(half, after)
            receipt = _refusing(error)
        self._result.exchanges += 1
        self._emit(Sent(receipt))
        self._check_epoch(receipt.epoch)
        if receipt.page is not None and self._apply is not None:
            self._announce(receipt.page)
        with self._replica.writing():
            self._note(receipt.epoch, receipt.server_time_ms)
            refused = self._settle(outgoing, receipt)
            applied = None
            if receipt.page is not None and self._apply is not None:
                applied = self._store_page(receipt.page, after)
        self._result.sent += receipt.accepted + receipt.duplicates
        self._result.duplicates += receipt.duplicates
        self._result.refused += len(refused)
        for entry in refused:
            self._emit(entry)
        return self._took(receipt.page, applied) if self._apply is not None else False

    def _pull(self, after: str | None) -> bool:
        replica = self._replica
        page = replica.shared_log.read(
            self._device, after=after, limit=replica.batch_size, byte_limit=replica.byte_limit
        )
        self._result.exchanges += 1
        self._check_epoch(page.epoch)
        self._announce(page)
        with self._replica.writing():
            self._note(page.epoch, page.server_time_ms)
            applied = self._store_page(page, after)
        return self._took(page, applied)

    def _check_epoch(self, epoch: str) -> None:
        """Notice a new life of the log also where no cursor of the old one was sent: what was
        written to the old one may be missing from the new one."""
        known = self._journal.state("epoch")
        if known is not None and epoch and epoch != known:
            raise EpochChanged

    def _note(self, epoch: str, server_time_ms: float) -> None:
        """Keep what the service says of itself. An answer that is not its own says nothing."""
        if epoch:
            if self._journal.state("epoch") is None:
                self._journal.set_state(epoch=epoch)
            now = self._replica.now()
            self._journal.trust_clock(max(0, now - int(server_time_ms)))
            note_contact(self._journal, now, server_time_ms)

    def _settle(self, outgoing: Sequence[Outgoing], receipt: Receipt) -> list[Refused]:
        """Mark exactly the entries that the receipt speaks of; return the refused ones."""
        rejected = {rejection.index: rejection for rejection in receipt.rejected}
        refused = [
            Refused(outgoing[r.index].ticks, r.code, r.reason)
            for r in receipt.rejected
            if r.code != "CLOCK_AHEAD"
        ]
        self._journal.mark_sent(
            [entry.ticks for index, entry in enumerate(outgoing) if index not in rejected],
            [RefusedEntry(entry.ticks, f"{entry.code}: {entry.reason}") for entry in refused],
        )
        ahead = [outgoing[r.index].ticks for r in receipt.rejected if r.code == "CLOCK_AHEAD"]
        if ahead:
            self._restamp(min(ahead), receipt)
        return refused

    def _store_page(self, page: Page, after: str | None) -> Applied | None:
        """Apply a page, or keep it for `reconcile()`, and move the checkpoint with it.

        None if the checkpoint is not where this page begins, or is another device's by now:
        another thread or process was faster, and its work stands.
        """
        if self._journal.state("checkpoint") != after:
            return None
        if self._journal.device_id() != self._device:
            return None
        applied = Applied(entries=len(page.entries))
        if self._apply:
            applied = self._replica.applier.apply(page.entries, self._since)
        else:
            self._replica.inbox.keep(page.entries)
        if page.cursor != after:
            self._journal.set_state(checkpoint=page.cursor)
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
        if page is None or applied is None:
            return True
        self._result.add(applied)
        for event in told(applied):
            self._emit(event)
        return page.has_more

    def _restamp(self, since: int, receipt: Receipt) -> None:
        """Bring entries since then back into the service's time, and later ones with them."""
        self._restamps += 1
        lead = max(0, self._replica.now() - int(receipt.server_time_ms))
        self._replica.versions.fold_local()
        rows = self._journal.unshared_rows(since)
        renamed = self._journal.restamp(since, lead)
        self._replica.versions.rename_local(renamed, rows)
        if renamed:  # else another process of this device was faster
            self._journal.set_state(folded_until=str(max(renamed.values())))
            self._emit(Restamped(len(renamed), lead))

    def _start_over(self) -> None:
        """The log began a new life: read it from its beginning, offer it all we wrote."""
        with self._replica.writing():
            self._journal.set_state(checkpoint=None, epoch=None)
            self._journal.unsend_everything()

    def _next_batch(self, until: int) -> list[Outgoing]:
        """The next entries to send, if they are older than `until`. What `pre_send` drops is
        marked, and not sent."""
        replica = self._replica
        while True:
            local = self._journal.unsent(replica.batch_size, replica.byte_limit)
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
