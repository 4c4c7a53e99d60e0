"""What the log has forgotten, for a device that was here before and has to read it all again.

Such a device names no cursor, so the log cannot tell that it has missed deletions which are
forgotten (`HorizonPassed`). It asks where the log's horizon is, before it reads anything. What is
from before the horizon and not in the log was ended there; or the log lost it, and it is later
than the horizon when its author offers it again. So what this device knows from before fades: it
becomes older than all that was ever written. What is read, and what the client log still has,
stands in its place. What is faded still when all was read and offered again leaves the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from ..changes import DELETE, Change, loads
from ..clock import BEFORE_TRACKING, Version
from ..errors import EpochChanged, HorizonPassed, ServiceFailed
from ..journal.journal import REFUSED, SENT
from ..journal.reset import KNOWN
from ..merge.reconcile import Listed, RowState
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.rows import standing_rows
from .identity import UNKNOWN
from .replica import Replica

FADED = 1
"""The ticks of what has faded: later than what is from before tracking."""

END = Version(2, "")
"""Later than what has faded, and earlier than all that was ever recorded."""


class Horizon:
    """The horizon that a device which reads all again has to reckon with."""

    def __init__(self, replica: Replica, registry: Registry) -> None:
        self._replica = replica
        self._journal = replica.journal
        self._identity = replica.identity
        self._versions = replica.versions
        self._registry = registry

    @property
    def is_unknown(self) -> bool:
        return self._journal.state("horizon") == UNKNOWN or self._came_from is not None

    @property
    def _came_from(self) -> str | None:
        """Where a device that was reset had been in the log, until it asked for what it missed."""
        return self._journal.state("came_from")

    @property
    def _ticks(self) -> int:
        """Up to where this device's knowledge has faded; 0 if it has not."""
        known = self._journal.state("horizon")
        return 0 if known in (None, UNKNOWN) else int(known or 0)

    def ask(self) -> None:
        """Ask the log what it has forgotten, and let what this device knows of that fade."""
        if (came_from := self._came_from) is not None:
            self._ask_after_reset(came_from)
        else:
            self._ask_where_it_is()

    def _ask_where_it_is(self) -> None:
        """By writing nothing to the log."""
        device, beginning = self._identity.device, None
        try:
            ticks = self._asked(None)
        except HorizonPassed as passed:
            beginning = passed.beginning
            if beginning is None:
                raise
            ticks = self._asked(beginning)
        except ServiceFailed as error:
            if error.service_code != "SCOPE_MISSING":
                raise
            ticks = 0  # the token may only read
        with self._replica.writing():
            if self._journal.state("horizon") == UNKNOWN and device == self._identity.device:
                if ticks:
                    self._fade(ticks)
                known = str(ticks) if ticks else None
                self._journal.set_state(horizon=known, checkpoint=beginning)

    def remember(self) -> None:
        """Before a reset, inside the open transaction: which rows had been in the log, by the
        fields that were. Where it has forgotten their deletions, it cannot tell."""
        checkpoint = self._journal.state("checkpoint")
        if checkpoint is None:
            return
        self._versions.fold_local()
        unsent = self._journal.each(f"status <> {SENT}")
        only_here = {(e.ticks, e.pk) for entries in unsent for e in entries}
        names = [tracked.collection for tracked in self._forgettable()]
        for name in (*names, *sorted(self._replica.applier.given_up)):
            for states in self._versions.each(name, "born > 0 AND parked IS NULL"):
                known = (
                    (pk, RowState(state.born, frozenset(state.written_fields())))
                    for pk, state in states.items()
                    if state.born and (state.born.ticks, pk) not in only_here
                )
                self._versions.store(KNOWN + name, known)
        self._journal.set_state(came_from=checkpoint)

    def _ask_after_reset(self, came_from: str) -> None:
        """By reading nothing from where this device was. What it remembers is of no use in another
        log or another life of this one, nor if it had missed nothing."""
        device, replica = self._identity.device, self._replica
        passed = False
        try:
            replica.shared_log.read_all(
                device, after=came_from, until=came_from, limit=1, byte_limit=replica.byte_limit
            )
        except HorizonPassed:
            passed = True
        except EpochChanged:
            pass
        except ServiceFailed as error:
            if error.service_code != "CURSOR_INVALID":  # of another service
                raise
        with replica.writing():
            if self._came_from == came_from:
                if passed:
                    self._recall()
                    self._journal.set_state(horizon=str(FADED))
                waiting = self._replica.applier.given_up if passed else ()
                for name in self._versions.collections(f"collection LIKE '{KNOWN}%'"):
                    if name.removeprefix(KNOWN) not in waiting:
                        self._forget_known(name)
                self._journal.set_state(came_from=None)

    def end_known(self, former: str, collection: str) -> None:
        """Of a table that was not known then, by the name that it had, of which all that there is
        was merged: take out what had been in the log before the reset, and is not any more."""
        for known in self._versions.each(KNOWN + former):
            there = self._versions.load(collection, list(known))
            ended = {pk: [_ending(collection, pk)] for pk in known.keys() - there.keys()}
            self._replica.applier.merge(collection, ended)
        self._forget_known(KNOWN + former)

    def _forget_known(self, name: str) -> None:
        self._journal.run("DELETE FROM sharedlog_row WHERE collection = ?", (name,))

    def _recall(self) -> None:
        """What had been in the log and is in its table has faded, until the log says it again."""
        self._versions.fold_local()
        for tracked in self._forgettable():
            for known in self._versions.each(KNOWN + tracked.collection):
                standing = standing_rows(self._journal.database, tracked, list(known))
                written = self._versions.load(tracked.collection, list(known))
                for pk in standing:
                    state = known[pk]
                    _fade(state, tracked, lambda version: Version(FADED, version.device))
                    if (since := written.get(pk)) is None:
                        written[pk] = state
                    elif since.born == BEFORE_TRACKING:  # it was changed since the reset
                        since.born = state.born
                        since.shape = state.shape.difference(since.fields)
                self._versions.store(tracked.collection, written.items())

    def _asked(self, after: str | None) -> int:
        replica = self._replica
        receipt = replica.shared_log.write(
            self._identity.device,
            [],
            after=after,
            now_ms=self._journal.now(),
            limit=1,
            byte_limit=replica.byte_limit,
        )
        return receipt.horizon_ticks

    def has_moved(self) -> bool:
        """The log forgot more while it was read, inside the open transaction: then it has to be
        asked again. False if it is not read because of an earlier life or a copy."""
        if not self._ticks:
            return False
        self._journal.set_state(horizon=UNKNOWN, checkpoint=None)
        return True

    def settle(self, ticks: Iterable[int], horizon: int) -> None:
        """The log takes these entries, inside the open transaction. Those from before the horizon
        it has had, and has ended or overwritten since: it would refuse what it did not know."""
        until = min(self._ticks, horizon)
        if not until:  # as usual
            return
        if old := [each for each in ticks if each <= until]:
            self._versions.fold_local()
            rows = {(e.collection, e.pk) for e in self._journal.entries_at(old).values()}
            self._versions.rename_local(dict.fromkeys(old, FADED), rows)

    def clear(self) -> bool:
        """Once all was read and offered, take out what is faded still; return whether there was
        anything to do."""
        until = self._ticks
        if not until or self._identity.behind or self._replica.inbox.waiting(1):
            return False
        oldest = self._journal.oldest_unsent()
        if oldest is not None and oldest <= until:
            return False
        for tracked in reversed(self._forgettable()):
            with self._replica.writing():
                self._clear(tracked)
        with self._replica.writing():
            self._journal.set_state(horizon=None)
        return True

    def _clear(self, tracked: Tracked) -> None:
        self._versions.fold_local()
        name = tracked.collection
        for states in self._versions.each(name, "born IS NOT NULL"):
            left = {pk: state for pk, state in states.items() if _is_faded(state)}
            for state in left.values():
                state.died = None  # nothing that is older can come any more
            self._versions.store(name, left.items())
            if left:
                self._replica.applier.merge(name, {pk: [_ending(name, pk)] for pk in left})

    def _fade(self, until: int) -> None:
        self._versions.fold_local()
        self._replica.inbox.forget_doubtful(until)
        kept = self._own(until)
        mine = self._mine()

        def faded(version: Version) -> Version:
            stays = version in kept or version.device in mine
            return (
                version
                if stays or not 0 < version.ticks <= until
                else version._replace(ticks=FADED)
            )

        for tracked in self._forgettable():
            for states in self._versions.each(tracked.collection, "born IS NOT NULL"):
                for state in states.values():
                    _fade(state, tracked, faded)
                self._versions.store(tracked.collection, states.items())
        for entries in self._journal.each(f"ticks <= ? AND status <> {REFUSED}", until):
            self._replica.merge_own(entries)  # what had replaced them may have faded

    def _forgettable(self) -> list[Tracked]:
        """The tables whose deletions a log may forget."""
        return [tracked for tracked in self._registry.in_order if tracked.final]

    def _own(self, until: int) -> Set[Version]:
        """The versions of what is in the client log."""
        me = self._identity.device
        batches = self._journal.each("ticks <= ?", until)
        return {Version(e.ticks, e.author or me) for entries in batches for e in entries}

    def _mine(self) -> Set[str]:
        """This device's ids, where the application may have kept back what it wrote: only this
        device has that."""
        if self._replica.pipeline.pre_send is None:
            return set()
        return {self._identity.device, *self._identity.former()}


def _ending(collection: str, pk: str) -> tuple[Version, Change]:
    return END, Change(DELETE, collection, loads(pk), None)


def _is_faded(state: RowState) -> bool:
    listed = (version for _, writes in state.writes.values() for version, _ in writes)
    return any(v.ticks == FADED for v in (state.born, *state.fields.values(), *listed) if v)


def _fade(state: RowState, tracked: Tracked, faded: Callable[[Version], Version]) -> None:
    for name, rule in tracked.rules.items():
        version, listed = state.version_of(name), state.writes.get(name)
        if listed is not None:
            left = [(v, operand) for v, operand in listed.writes if faded(v) == v]
            state.writes[name] = Listed(listed.rule, left)
        elif version is not None and faded(version) != version:
            state.writes[name] = Listed(rule.name, [])
    state.rename(faded)
