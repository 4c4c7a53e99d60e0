"""Who this database file is in the log, and what becomes of that when it turns out to be a copy.

A copy goes on under another id. What was sent before stays its former id's, in the client log
and in the versions of rows; what was not is the new one's. Nothing is sent a second time, not even
by two copies that have the same unsent entries: the id follows from the first of these, so it is
the same, and the second one finds there what the first one sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

from .changes import dumps, loads
from .journal import FORMER, REFUSED, SELECT, SENT, UNSENT, Journal, LocalEntry
from .reattribution import Reattribution
from .versions import FOLD_LIMIT, ME, Versions

ID_CHARS_MAX = 200
"""What the service takes for an id."""

WORD_CHARS = 8
"""What tells apart the descendants of one device."""


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

    def catch_up(self) -> None:
        if self.behind:
            self._journal.set_state(behind=None)

    def recognize(self, entries: Sequence[LocalEntry], device: str) -> None:
        """These entries, unsent here, are in the log: a copy sent them, as `device`."""
        self._versions.fold_local()
        self._journal.run_many(
            f"UPDATE sharedlog_entry SET status = {FORMER}, reason = ? WHERE ticks = ?",
            ((device, entry.ticks) for entry in entries),
        )
        self._entries.hand_over(entries, of=self.device, to=device)

    def doubt(self) -> None:
        """The log may have lost what it had. What was sent under other ids is this device's from
        here on, unless it is found in the log when that is read again."""
        former = f"FROM sharedlog_entry WHERE status = {FORMER}"
        senders = self._journal.run(f"SELECT DISTINCT reason {former} ORDER BY 1").fetchall()
        for (device,) in senders:
            for entries in self._by_chunks("status = ? AND reason = ?", FORMER, device):
                self._entries.hand_over(entries, of=device, to=self.device)
        if senders:
            self._journal.run(
                f"UPDATE sharedlog_entry SET status = {UNSENT} WHERE status = {FORMER}"
            )
            self._journal.set_state(checkpoint=None, all_sent_until="0")
        self._journal.set_state(behind="yes")

    def fork(self) -> str:
        """Take another id, and return it. Whatever is not marked as sent will be sent under it."""
        journal, former = self._journal, self.device
        device = descendant(former, self._word(former, journal.oldest_unsent()))
        self._versions.fold_local()
        journal.run(
            f"UPDATE sharedlog_entry SET status = {FORMER}, reason = ? WHERE status = {SENT}",
            (former,),
        )
        # What was sent once is known to others.
        for entries in self._by_chunks("status = ? AND reason IS NOT NULL", UNSENT):
            self._entries.hand_over(entries, of=former, to=device)
        new = self._by_chunks("(status = ? AND reason IS NULL OR status = ?)", UNSENT, REFUSED)
        self._entries.begin_anew(new, of=former, to=device)
        former_ids = dumps([*self.former(), former])
        journal.set_state(device=device, former=former_ids, lineage=None, behind="yes")
        journal.set_state(sent_until=None, pruned_until=None)
        return device

    def _by_chunks(self, condition: str, *parameters: object) -> Iterator[list[LocalEntry]]:
        """Local entries, so many at a time."""
        last = -1
        while True:
            cursor = self._journal.run(
                f"{SELECT} WHERE ticks > ? AND {condition} ORDER BY ticks LIMIT {FOLD_LIMIT}",
                (last, *parameters),
            )
            entries = [LocalEntry(*row) for row in cursor.fetchall()]
            if not entries:
                return
            yield entries
            last = entries[-1].ticks

    def _word(self, former: str, unsent: int | None) -> str:
        """What tells the new id from the former one."""
        if unsent is None:
            return self._new_id()
        return blake2b(f"{former} {unsent}".encode(), digest_size=WORD_CHARS // 2).hexdigest()


def random_id() -> str:
    return secrets.token_hex(12)


def akin(device: str, other: str) -> bool:
    """Whether two ids are of copies of one file."""
    return device.partition(".")[0] == other.partition(".")[0]


def descendant(device: str, word: str) -> str:
    """An id that stands where `device` does among all others, so that whoever had its entries
    under the one or the other id decides alike which of two equal timestamps is later."""
    if len(device) + 1 + WORD_CHARS > ID_CHARS_MAX:
        device = device.rpartition(".")[0] or device
    return f"{device}.{word[:WORD_CHARS]}"
