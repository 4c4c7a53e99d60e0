"""What to do when the log has other entries of this device than this file believes.

An answer that got lost, a database file that was copied or put back from a backup, a log that was
put back: from afar they look alike, and the service only says that something is not as this device
last heard (`LineageChanged`). So the device reads what the log has of it, in the order of its
timestamps, beginning with the newest entry that it knows to be there:

- what is there and unsent here: the answer got lost, and it is sent;
- the newest one is not there: the log lost what it had. Everything is compared, and what the log
  lacks is sent again;
- what is there and not from here: another copy of this file wrote it. This one takes another id,
  sends under it what it has not sent, and reads what the other copy wrote as any other device.

Copies have everything in common up to some timestamp and nothing after it, so the first foreign
entry comes after all that are known.
"""

from __future__ import annotations

from collections.abc import Sequence

from .changes import Entry
from .events import Event, Forked, LogShrunk
from .identity import akin
from .replica import Replica


class Lineage:
    """Finds out what became of this device's entries. `apply` as in `Exchange`."""

    def __init__(self, replica: Replica, *, apply: bool | None) -> None:
        self._replica = replica
        self._journal = replica.journal
        self._identity = replica.identity
        self._apply = apply
        self.found = 0
        """Entries that were in the log although nobody had told."""

    def trace(self) -> None:
        """Settle with the log what is unsent. Afterwards the device may go on, if need be as
        another one. What another process of this device finds out meanwhile stands."""
        newest = self._journal.state("sent_until")
        since = self._compare(int(newest or 0), expected=newest is not None)
        while since is not None:
            since = self._compare(since, expected=False)

    def _compare(self, since: int, *, expected: bool) -> int | None:
        """Compare a page of the log's entries of this device with its own; return where the next
        one begins. `expected` says that there must be an entry at `since`."""
        replica = self._replica
        event: Event | None = None
        following: int | None = None
        before = self._identity.device, self._identity.lineage
        page = replica.shared_log.read_own(
            before[0], since=since, limit=replica.entries_max, byte_limit=replica.bytes_max
        )
        with replica.writing():
            if before != (self._identity.device, self._identity.lineage):
                return None
            if expected and not self._begins_with(since, page.entries):
                self._journal.unsend_everything()
                self._identity.doubt()
                event, following = LogShrunk(self._journal.count_unsent()), 0
            elif not self._settle(page.entries):
                event = Forked(before[0], self._identity.fork())
            elif page.has_more:
                following = page.entries[-1].ticks + 1
            else:
                self._journal.set_state(lineage=page.lineage)
        self._tell(event)
        return following

    def fork(self) -> None:
        """The log refuses an entry because another one has its timestamp: a copy, of which there
        was no other sign. Nothing is known of what was passed over, so read all again."""
        former = self._identity.device
        with self._replica.writing():
            if former != self._identity.device:
                return
            self._identity.fork()
            self._journal.set_state(checkpoint=None)
        self._tell(Forked(former, self._identity.device))

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._replica.emit(event)

    def _begins_with(self, ticks: int, entries: Sequence[Entry]) -> bool:
        if not entries or entries[0].ticks != ticks:
            return False
        mine = self._journal.entries_at([ticks]).get(ticks)
        return mine is None or self._replica.pipeline.same(mine, entries[0].data)

    def _settle(self, entries: Sequence[Entry]) -> bool:
        """Mark as sent what is in the log; return whether all of it is this file's."""
        local = self._journal.entries_at([entry.ticks for entry in entries])
        acknowledged = int(self._journal.state("sent_until") or -1)
        pruned = int(self._journal.state("pruned_until") or -1)
        known: list[int] = []
        forgotten: list[Entry] = []
        foreign = False
        for entry in entries:
            mine = local.get(entry.ticks)
            if mine is not None and self._replica.pipeline.same(mine, entry.data):
                known.append(entry.ticks)
            elif mine is None and entry.ticks <= pruned:
                forgotten.append(entry)
            else:
                foreign = True
                break
        self._journal.mark_sent(known, [])
        self.found += sum(ticks > acknowledged for ticks in known)
        if forgotten:
            self._take(forgotten)
        return not foreign

    def _take(self, forgotten: Sequence[Entry]) -> None:
        """Entries that were pruned here, or never here: nobody can tell, and to apply them once
        more changes nothing."""
        if self._apply:
            self._replica.applier.apply(forgotten)
        else:
            self._replica.inbox.keep(forgotten)

    def recognize(self, entries: Sequence[Entry]) -> None:
        """What is unsent here may be among what comes from a copy of this file: both had it when
        they parted."""
        if self._journal.oldest_unsent() is None:
            return
        device = self._identity.device
        for other in {entry.device for entry in entries}:
            if not akin(device, other):
                continue
            theirs = {entry.ticks: entry.data for entry in entries if entry.device == other}
            mine = self._journal.unsent_at(list(theirs))
            same = [
                entry
                for entry in mine
                if self._replica.pipeline.same(entry, theirs[entry.ticks], device, other)
            ]
            if same:
                self._identity.recognize(same, other)
