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
entry comes after all that are known. (But that they did the same at the same time: then it comes
after something that is unsent here.)

What copies have unsent in common, each of them recognizes in what another one has sent: by its
timestamp, or by the one that it was recorded with, if one of them had to date it anew. Then it may
be earlier in the log than it was here, and what others wrote in between was not applied: the rows
are read anew, from the beginning of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..changes import Entry, Wire
from ..clock import Version
from ..events import Event, Forked
from ..journal.journal import SENT, UNSENT, LocalEntry, chunks
from ..merge.counter import is_alone, is_increment, run_of
from ..merge.runs import counts_of
from ..remote.sharedlog import OwnPage, akin
from .replica import Replica
from .restamping import lift, recorded_at, take_back

UNSETTLED = "-"
"""The lineage of a device that has compared some of the log's entries, and not all: no log's."""


class Lineage:
    """Finds out what became of this device's entries. `apply` as in `Exchange`."""

    def __init__(self, replica: Replica, *, apply: bool | None) -> None:
        self._replica = replica
        self._journal = replica.journal
        self._identity = replica.identity
        self._apply = apply
        self.found = 0
        """Entries that were in the log although nobody had told."""
        self.lost = 0
        """Entries that are not in the log any more."""
        self.forked: list[Forked] = []
        """What has not been told yet."""

    def trace(self) -> None:
        """Settle with the log what is unsent. Afterwards the device may go on, if need be as
        another one; the next request tells whether there is more to find out. What another
        process of this device finds out meanwhile stands."""
        newest = self._journal.state("sent_until")
        page = self._compare(int(newest or 0), expected=newest is not None)
        while page is not None and page.has_more:
            page = self._compare(page.entries[-1].ticks + 1, lineage=page.lineage)

    def _compare(
        self, since: int, *, expected: bool = False, lineage: str | None = None
    ) -> OwnPage | None:
        """Compare a page of the log's entries of this device with its own, and return it if the
        next one is to be compared. `expected` says that there must be an entry at `since`;
        `lineage` is that of the page before, which has to be of the same log."""
        replica = self._replica
        event: Event | None = None
        before = self._identity.device, self._identity.lineage
        page = replica.shared_log.read_own(
            before[0], since=since, limit=replica.entries_max, byte_limit=replica.bytes_max
        )
        with replica.writing():
            if before != (self._identity.device, self._identity.lineage):
                return None
            changed = lineage not in (None, page.lineage)
            if changed or (expected and not self._begins_with(since, page.entries)):
                self._identity.doubt()
                return None
            if self._settle(page.entries):
                self._journal.set_state(lineage=UNSETTLED if page.has_more else page.lineage)
                if not page.has_more:  # a copy may have sent what is unsent here
                    self._identity.look_again()
            else:
                event = Forked(before[0], self._identity.fork())
        self._tell(event)
        return page if event is None else None

    def fork(self) -> None:
        """The log refuses an entry because another one has its timestamp: a copy, of which there
        was no other sign. Nothing is known of what was passed over, so read all again."""
        former = self._identity.device
        with self._replica.writing():
            if former != self._identity.device:
                return
            self._identity.doubt()
            self._identity.fork()
        self._tell(Forked(former, self._identity.device))

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._replica.emit(event)

    def _begins_with(self, ticks: int, entries: Sequence[Entry]) -> bool:
        if not entries or entries[0].ticks != ticks:
            return False
        mine = self._journal.entries_at([ticks]).get(ticks)
        return mine is None or self._is_there(mine, entries[0].data, self._identity.device)

    def _settle(self, entries: Sequence[Entry]) -> bool:
        """Mark as sent what is in the log; return whether all of it is this file's."""
        local = self._journal.entries_at([entry.ticks for entry in entries])
        acknowledged = int(self._journal.state("sent_until") or -1)
        pruned = int(self._journal.state("pruned_until") or -1)
        device = self._identity.device
        known: list[LocalEntry] = []
        forgotten: list[Entry] = []
        foreign = False
        for entry in entries:
            mine = local.get(entry.ticks)
            if mine is not None and self._is_there(mine, entry.data, device):
                known.append(mine)
            elif mine is None and entry.ticks <= pruned:
                forgotten.append(entry)
            else:
                foreign = True
                break
        self._identity.find(known, device)
        self.found += sum(e.author is None and e.ticks > acknowledged for e in known)
        if forgotten:  # pruned here, or never here: nobody can tell
            self._take(forgotten)
        if known and known[-1].ticks > acknowledged:
            # What is sent is sent in order: with something unsent before it, it is not from here.
            oldest = self._journal.oldest_unsent("reason IS NULL")
            foreign = foreign or (oldest is not None and oldest < known[-1].ticks)
        return not foreign

    def _take(self, entries: Sequence[Entry]) -> None:
        """Entries that may be known: to apply them once more changes nothing."""
        if self._apply:
            self._replica.applier.apply(entries)
        else:
            self._replica.inbox.keep(entries)

    def recognize(self, entries: Sequence[Entry]) -> bool:
        """What is unsent here may be among what comes from a copy of this file: both had it when
        they parted. Return whether this device is still what it was."""
        if self._journal.oldest_unsent() is None:
            return True
        device = self._identity.device
        dated: list[LocalEntry] = []
        earlier: list[LocalEntry] = []
        for other in sorted({entry.device for entry in entries}):
            if akin(device, other):
                theirs = {e.ticks: e.data for e in entries if e.device == other}
                earlier += self._recognize(theirs, other)
                dated += self._dated_otherwise(theirs)
        if dated or earlier:
            self._read_anew(dated, earlier)
        elif device in self._identity.elsewhere():
            self._identity.fork()
        if device == self._identity.device:
            return True
        self.forked.append(Forked(device, self._identity.device))
        return False

    def _dated_otherwise(self, theirs: Mapping[int, str]) -> list[LocalEntry]:
        """What was never sent, and a copy of this device has sent with other timestamps, because
        one of them dated it anew."""
        same = self._replica.pipeline.same_but_for_dates
        recorded = {self._replica.pipeline.recorded(t, data): t for t, data in theirs.items()}
        mine = recorded_at(self._journal, list(recorded))
        return [
            entry
            for when, entry in mine.items()
            if (ticks := recorded[when]) != entry.ticks and same(entry, ticks, theirs[ticks])
        ]

    def _read_anew(self, dated: Sequence[LocalEntry], earlier: Sequence[LocalEntry]) -> None:
        """Let the log say what it has with other timestamps, and what is earlier there than it was
        here: others may have written in between. So what is known of these rows is forgotten, but
        for what else is unsent, and is read again."""
        versions = self._replica.versions
        versions.fold_local()
        self._identity.read_anew()
        take_back(self._journal, dated)
        rows = {(versions.names.table(e.collection), e.pk) for e in (*dated, *earlier)}
        versions.forget(rows)
        for chunk in chunks(sorted({pk for _, pk in rows})):
            marks = ",".join("?" * len(chunk))
            for left in self._journal.each(f"status = {UNSENT} AND pk IN ({marks})", *chunk):
                self._replica.merge_own(
                    [e for e in left if (versions.names.table(e.collection), e.pk) in rows]
                )

    def _recognize(self, theirs: Mapping[int, str], other: str) -> list[LocalEntry]:
        """Settle what a copy has sent. Return what is there under the copy's id, after another
        entry was read that has the same timestamp: the ids decide which one is later."""
        oldest = self._journal.oldest()
        local = self._journal.entries_at(list(theirs))
        unsent = self._journal.entries_at(list(theirs), f"AND status = {UNSENT}")
        found: list[LocalEntry] = []
        for ticks, data in theirs.items():
            mine = local.get(ticks)
            if mine is not None and self._is_there(mine, data, other):
                found += [mine] if ticks in unsent else []
                continue
            if mine is not None and ticks in unsent and (told := self._told(mine, data, other)):
                if is_alone(ticks, next(iter(told.values()))):
                    self._leave_runs(mine)
                else:
                    self._journal.restate(mine, told)
                    found.append(mine)
                continue
            if ticks in unsent:
                self._identity.note_rival(ticks)
            if ticks >= oldest:  # what is older may have been pruned here
                self._note_unknown(Version(ticks, other), data)
        if not found:
            return []
        self._identity.find(found, other)
        rivals = self._identity.rivals()
        return [entry for entry in found if entry.ticks in rivals]

    def _note_unknown(self, version: Version, data: str) -> None:
        """What a copy wrote: under an id that this device gave up, or in that id's runs, or even
        in this device's."""
        said = self._replica.pipeline.increments(data)
        runs = {run_of(version, v).device for v in said if not is_alone(version.ticks, v)}
        if self._identity.behind:
            for device in sorted({version.device, *runs}):
                self._identity.note_elsewhere(device)
        elif self._identity.device in runs:
            self._identity.note_elsewhere(self._identity.device)

    def _leave_runs(self, entry: LocalEntry) -> None:
        """A copy has taken this entry's increments out of the runs that they are in here."""
        version = Version(entry.ticks, entry.author or self._identity.device)
        for value in counts_of(entry.value, entry.rules).values():
            if is_increment(value):
                self._identity.note_elsewhere(run_of(version, value).device)
        self._identity.look_again()

    def catch_up(self) -> None:
        """All there is was read. What the log lost is merged once more: under its new id it may be
        later than what a copy wrote at the same tick. So is all that this device counted: what
        was read says again how runs began that were left for others."""
        if self._identity.behind and not self._identity.begins_again():
            caught_up = self._identity.catch_up()
            self.lost += caught_up.lost
            rivals = ",".join(map(str, [-1, *self._identity.rivals()]))
            which = f"status = {UNSENT} AND (reason IS NOT NULL OR ticks IN ({rivals}))"
            if caught_up.recounts:
                which = f"({which} OR reason IS NULL AND rules IS NOT NULL)"
            for entries in self._journal.each(which):
                self._replica.merge_own(entries)

    def lift(self, ticks: Sequence[int], horizon: int) -> list[int]:
        """Date entries anew that are too old for the log, inside the open transaction. What was
        overwritten meanwhile, or was in the log before, is done with: it must not count again.
        Return the timestamps of that."""
        versions = self._replica.versions
        versions.fold_local()
        old = self._journal.entries_at(ticks)
        left = [e for e in old.values() if e.author is None and self._counts(e)]
        renamed = lift(self._journal, [entry.ticks for entry in left], horizon)
        done = sorted(old.keys() - renamed.keys())
        self._journal.mark_sent(done)
        versions.rename_local(renamed, {(entry.collection, entry.pk) for entry in left})
        # Those that were overwritten in part win over what is older than they are now.
        self._replica.merge_own(list(self._journal.entries_at(list(renamed.values())).values()))
        return done

    def list_named(self, first: int) -> None:
        """What was dated anew, to this timestamp or a later one, may lie before this device knew
        the rules that it names: then the rows have to say that it does name them."""
        which = f"status <> {SENT} AND rules IS NOT NULL AND ticks BETWEEN ? AND ?"
        for entries in self._journal.each(which, first, self._replica.applier.rules_since):
            self._replica.merge_own(entries)

    def _counts(self, entry: LocalEntry) -> bool:
        versions = self._replica.versions
        states = versions.load(versions.names.table(entry.collection), [entry.pk])
        state, version = states.get(entry.pk), Version(entry.ticks, self._identity.device)
        if state is None or (state.alive and state.died == version):
            return False  # a later creation ended the deletion: it must not end that one now
        return state.has(version)

    def _told(self, entry: LocalEntry, data: str, sender: str) -> Mapping[str, Wire]:
        """The increments of this entry, as the log has it as the sender's, in other runs."""
        author = entry.author or self._identity.device
        return self._replica.pipeline.told(entry, data, author, sender)

    def _is_there(self, entry: LocalEntry, data: str, sender: str) -> bool:
        """Whether this is the entry that the log has as the sender's."""
        author = entry.author or self._identity.device
        return self._replica.pipeline.same(entry, data, author, sender)
