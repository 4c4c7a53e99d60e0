"""Who this database file is in the log, and what becomes of that when it turns out to be a copy.

A copy goes on under another id. What was sent before stays its former id's, in the client log
and in the versions of rows; what was not is the new one's. Nothing is sent a second time, not even
by two copies that have the same unsent entries: the service takes nothing from the one before it
has read what the other one sent (see `SharedLog`), and there it finds its own.

That an entry is in the log is known of the present id's by the lineage, of former ids' by the
checkpoint: it is there, before it. Where neither says so any more, the entry is in *doubt*: it is
unsent, and still its author's. Before anything is sent, all that may have it is read; what is
found is sent, and what is not is the present id's, and sent once more. (Where that fails, what
came meanwhile is read before it is tried again: other copies look for the same entries.)

Where a copy goes on under an id (`elsewhere`), it goes on with that id's runs of counters. So what
others have of these, and the log has not, leaves them (see `merge.runs`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..changes import dumps, loads
from ..journal.inbox import Inbox
from ..journal.journal import REFUSED, SENT, UNSENT, Journal, LocalEntry
from ..tables.numbers import ME
from ..tables.reattribution import Reattribution
from ..tables.versions import Versions

UNKNOWN = "unknown"
"""What is known of the log's horizon until it was asked."""

ID_CHARS_MAX = 200
"""What the service takes for an id."""

WORD_CHARS = 8
"""What tells apart the descendants of one device."""

AGAIN = "again"
"""How a device is behind that has been at the end before, and has told what the log lost."""

FOUND = "found"
"""How a device reads anew that has found out on its way through the log."""


class CaughtUp(NamedTuple):
    """What became of a device that was behind: how many entries the log has lost, and whether what
    it counted has to be merged once more. (Not if it only looked for what copies sent, and nothing
    left its run.)"""

    lost: int
    recounts: bool


class Identity:
    """The device's ids. What writes needs an open transaction."""

    def __init__(self, journal: Journal, versions: Versions, new_id: Callable[[], str]) -> None:
        self._journal = journal
        self._versions = versions
        self._entries = Reattribution(journal, versions)
        self._new_id = new_id

    def prepare(self) -> None:
        """Give a new file its id. Not by the service, and not only when it is first sent to:
        copies that were made before are told apart by what they write, as later ones are."""
        if not self.device:
            self._journal.set_state(device=self._new_id())
        if not self.former():
            sql = "INSERT OR IGNORE INTO sharedlog_device VALUES (?, ?)"
            self._journal.run(sql, (ME, self.device))

    @property
    def device(self) -> str:
        return self._journal.device_id()

    @property
    def registered(self) -> bool:
        """Whether the service knows the id, as far as this file knows."""
        return self._journal.state("registered") == self.device

    def unregister(self) -> None:
        """The service does not know the id: it lost this device, and maybe more."""
        self._journal.set_state(registered=None)
        self.doubt()

    @property
    def lineage(self) -> str:
        """What the next request has to show (see `SharedLog`)."""
        return self._journal.state("lineage") or ""

    def former(self) -> list[str]:
        """The ids that this file gave up, the latest last."""
        found: list[str] = loads(self._journal.state("former") or "[]")
        return found

    @property
    def behind(self) -> bool:
        """Whether this device has to read all there is before it sends anything: what it has not
        sent may be there already, from a copy."""
        return self._journal.state("behind") is not None

    def look_again(self) -> None:
        """Read up to the end once more before anything is sent."""
        if not self.behind:
            self._journal.set_state(behind=AGAIN)

    def read_anew(self) -> None:
        """What is unsent here is in the log, and earlier. So all is read once more when the end is
        reached: as another device, because that one is told what this one sent, too."""
        if self._journal.state("rereading") != FOUND:
            self.fork()
            self._journal.set_state(rereading=FOUND)

    def begins_again(self) -> bool:
        """At the end of the log: whether all is to be read once more, from the beginning."""
        if self._journal.state("rereading") != FOUND:
            return False
        self._journal.set_state(rereading="yes", checkpoint=None)
        return True

    @property
    def rereads(self) -> bool:
        """Whether all is read once more, because a copy has dated entries otherwise."""
        return self._journal.state("rereading") is not None

    def has_reread(self) -> None:
        """All was read once more, and applied."""
        self._journal.set_state(rereading=None)

    def note_seen(self, *, complete: bool) -> None:
        """The checkpoint moved to the end of the log: so all that is sent lies before it, and what
        will be lies behind. On the way there it is not known where one's own entries lie."""
        seen = (self._journal.state("sent_until") or "0") if complete else None
        if seen != self._journal.state("seen_until"):
            self._journal.set_state(seen_until=seen)

    def catch_up(self) -> CaughtUp:
        """All there is was read. What was in doubt and not found is this device's from here on."""
        left, has_left = self.elsewhere(), False
        for author in self._authors_of_unsent():
            if left or author != self.device:
                self._versions.fold_local()
                which = f"status = {UNSENT} AND ifnull(reason, ?) = ?"
                entries = self._journal.each(which, self.device, author)
                has_left |= self._entries.hand_over(entries, of=author, to=self.device, left=left)
        lost = self._journal.run(
            f"UPDATE sharedlog_entry SET reason = ? WHERE status = {UNSENT} AND reason IS NOT NULL",
            (self.device,),
        )
        told = self._journal.state("behind") == AGAIN
        self._journal.set_state(behind=None, elsewhere=None)
        return CaughtUp(0 if told else int(lost.rowcount), not told or has_left)

    def find(self, entries: Sequence[LocalEntry], sender: str) -> None:
        """These entries are in the log as the sender's: this device, or a copy of it."""
        self._hand_over(entries, sender)
        ticks = [entry.ticks for entry in entries]
        if sender == self.device:
            self._journal.mark_sent(ticks)
        else:
            self._journal.run_many(
                f"UPDATE sharedlog_entry SET status = {SENT}, reason = ? WHERE ticks = ?",
                ((sender, t) for t in ticks),
            )

    def _hand_over(self, entries: Sequence[LocalEntry], device: str) -> None:
        authors = {entry.ticks: entry.author or self.device for entry in entries}
        for author in sorted(set(authors.values()) - {device}):
            self._versions.fold_local()
            some = [entry for entry in entries if authors[entry.ticks] == author]
            self._entries.hand_over([some], of=author, to=device)

    def _authors_of_unsent(self) -> list[str]:
        cursor = self._journal.run(
            f"SELECT DISTINCT ifnull(reason, ?) FROM sharedlog_entry WHERE status = {UNSENT} "
            "ORDER BY 1",
            (self.device,),
        )
        return [row[0] for row in cursor.fetchall()]

    def elsewhere(self) -> list[str]:
        """The ids that copies go on under, with other runs of counters than this device has."""
        found: list[str] = loads(self._journal.state("elsewhere") or "[]")
        return found

    def note_elsewhere(self, device: str) -> None:
        """A copy goes on under this id. What this device has of it and the log has not, is not
        that copy's; so the increments among it leave their runs, or they would get lost."""
        known = self.elsewhere()
        if device not in known:
            self._journal.set_state(elsewhere=dumps([*known, device]))

    def rivals(self) -> list[int]:
        """The timestamps of which a copy has another entry than this device had unsent."""
        found: list[int] = loads(self._journal.state("rivals") or "[]")
        return found

    def note_rival(self, ticks: int) -> None:
        known = self.rivals()
        if ticks not in known:
            self._journal.set_state(rivals=dumps([*known, ticks]))

    def doubt(self) -> None:
        """The log may have lost anything: look for all that was sent, and read all again. It may
        have forgotten what was not read yet, too (see `horizon`)."""
        if self._journal.state("checkpoint") is not None or self.rereads:
            self._journal.set_state(horizon=UNKNOWN)
        self._journal.unsend()
        self._versions.doubt_counts()
        Inbox(self._journal).doubt()
        self._journal.set_state(
            checkpoint=None, seen_until=None, lineage=None, behind="yes", elsewhere=None
        )

    def fork(self) -> str:
        """Take another id, and return it. Whatever is not known to be in the log will be sent
        under it."""
        journal, former = self._journal, self.device
        device = descendant(former, self._new_id())
        self._versions.fold_local()
        seen = journal.state("seen_until")
        if seen is None:
            self.doubt()
        else:
            journal.unsend("reason IS NULL AND ticks > ?", int(seen))
            self._versions.doubt_counts(former)
        self.note_elsewhere(former)
        journal.run(
            f"UPDATE sharedlog_entry SET reason = ? WHERE status = {SENT} AND reason IS NULL",
            (former,),
        )
        new = journal.each(f"(status = {UNSENT} AND reason IS NULL OR status = {REFUSED})")
        self._entries.hand_over(new, of=former, to=device, left=[former])
        former_ids = dumps([*self.former(), former])
        journal.set_state(device=device, former=former_ids, lineage=None, behind="yes")
        journal.set_state(sent_until=None, pruned_until=None, seen_until=seen and "0")
        return device


def random_id() -> str:
    return secrets.token_hex(12)


def descendant(device: str, word: str) -> str:
    """An id that stands where `device` does among all others, so that whoever had its entries
    under the one or the other id decides alike which of two equal timestamps is later."""
    if len(device) + 1 + WORD_CHARS > ID_CHARS_MAX:
        device = device.rpartition(".")[0] or device
    return f"{device}.{word[:WORD_CHARS]}"
