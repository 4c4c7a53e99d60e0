"""Applying others' changes: entries merged by row, and what comes of it brought into the tables.

Nothing here is recorded: the statements go to the driver and do not pass `Database.execute`, and
triggers are told not to (`Journal.unrecorded`).
`rows` are what is carried over, `parents` and `placement` know how it gets into the tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

from ..changes import CREATE, Change, Entry, Wire, dumps, loads
from ..clock import BEFORE_TRACKING, Version
from ..errors import EntryUnreadable
from ..evolution.restating import given_up
from ..journal.inbox import Inbox, Waiting
from ..journal.journal import Journal
from ..journal.reset import is_read_anew
from ..layout import OURS
from ..merge.reconcile import RowState, merge
from ..merge.rules import Rules, misfit, stands_alone
from ..merge.runs import doubted
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.collations import Collations
from ..tables.rows import KEPT, Work, standing_rows
from ..tables.versions import Versions
from .arrivals import Arrivals, Changes
from .collector import collected_later
from .conflicts import Conflict, Conflicts
from .parents import Relations
from .parking import Parked, parked_row
from .placement import Placement
from .preparing import before_of, needs_table, prepared, to_insert, tried_again


@dataclass(frozen=True, slots=True)
class Returned:
    """A row that stands in its table again."""

    collection: str
    pk: Wire


@dataclass(slots=True)
class Applied:
    """What became of some entries."""

    entries: int = 0
    created: int = 0
    modified: int = 0
    deleted: int = 0
    unreadable: int = 0
    parked: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    newly_parked: list[Parked] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)
    kept: list[Returned] = field(default_factory=list)


class Applier:
    """Merges entries and brings the result into the tables."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        decode: Callable[[str], Change | None],
    ) -> None:
        self._database = journal.database
        self._registry = registry
        self._journal = journal
        self._inbox = Inbox(journal)
        self._versions = versions
        self._decode_data = decode
        self._arrivals = Arrivals(journal, versions)
        self._shapes: dict[tuple[str, ...], frozenset[str]] = {}
        self.given_up: frozenset[str] = frozenset()
        self._rules: dict[str, Rules] = {t.collection: t.rules for t in registry if t.rules}

    @cached_property
    def _relations(self) -> Relations:
        """Known once the tables were looked at."""
        return Relations(self._registry, Collations(self._database))

    def give_up(self, collections: Iterable[str]) -> None:
        """These tables were tracked in this file, by a program that had them. Their rows are there,
        and what becomes of them waits until they are known again."""
        self.given_up = frozenset(collections)

    def look_again(self) -> None:
        """The tables may have been altered."""
        self.__dict__.pop("_relations", None)

    @property
    def rules_since(self) -> int:
        """Up to this timestamp there is a rule that this device did not know."""
        known = (rule.since for rules in self._rules.values() for rule in rules.values())
        return max(known, default=0)

    def apply(
        self,
        entries: Sequence[Entry],
        local_since: int | None = None,
        doubtful: Container[tuple[str, int]] = (),
    ) -> Applied:
        """Apply entries inside the open transaction; parked rows are tried again, too.

        Any order, any repetition. `local_since` is the timestamp of the oldest local change
        that the authors of these entries may not have seen: what meets it is a conflict.
        `doubtful` are those (device, ticks) that the log may have lost since.
        """
        applied = Applied(entries=len(entries))
        waiting = self._versions.waiting_collections()
        if not entries and not waiting:
            return applied
        with collected_later():
            self._versions.fold_local()
            return self._merged(
                self._decode(entries, applied, doubtful), waiting, local_since, applied
            )

    def apply_received(self, received: Sequence[Waiting]) -> Applied:
        """The same for entries that waited in the inbox, also while the log lost its end."""
        doubtful = {waiting.entry[:2] for waiting in received if waiting.doubtful}
        return self.apply([waiting.entry for waiting in received], doubtful=doubtful)

    def merge(self, collection: str, rows: Changes) -> None:
        """Apply changes of a table's rows that come from no entry; see `carryover`. The table may
        hold rows of which nothing is known yet."""
        waiting = self._versions.waiting_collections()
        self._merged({collection: rows}, waiting, None, Applied(), anew=True)

    def _merged(
        self,
        changes: dict[str, Changes],
        waiting: set[str],
        local_since: int | None,
        applied: Applied,
        anew: bool = False,
    ) -> Applied:
        works: dict[str, list[Work]] = {}
        anew = anew or is_read_anew(self._journal)
        with self._journal.unrecorded():
            for name in [*changes, *(n for n in waiting if n not in changes)]:
                tracked = self._registry.collection(name)
                rows = changes.get(name, {})
                if tracked is None:
                    self._hold(name, rows)
                else:
                    some = self._merge(
                        tracked, rows, local_since, applied, not (anew or name in waiting)
                    )
                    if name in waiting:
                        some += self._waiting(tracked, rows)
                    if anew:
                        self._find(tracked, some)
                    if some:
                        works[name] = some
            if works:
                self._place(works, applied)
        return applied

    def release_held(self, learned: Iterable[tuple[Tracked, Set[str]]]) -> None:
        """Bring values that were kept for fields the application did not know into their
        columns: of these tables, the fields that are known now."""
        works = {t.collection: self._with_held(t, names) for t, names in learned}
        with self._journal.unrecorded():
            self._place({name: some for name, some in works.items() if some}, Applied())

    def _with_held(self, tracked: Tracked, names: Set[str]) -> list[Work]:
        works = []
        for pk, state in self._versions.holding(tracked.collection).items():
            known = state.held.keys() & names
            if known:
                written = {name: state.held.pop(name) for name in known}
                works.append(Work(tracked, pk, loads(pk), state, written, True))
        return works

    def _place(self, works: dict[str, list[Work]], applied: Applied) -> None:
        placement = Placement(self._registry, self._relations, self._journal, self._versions)
        placement.place(works)
        self._store(works)
        if placement.refused:
            again = self._waiting_again(works)
            placement.place(again)
            self._store(again)
            works = _together(works, again)
        for some in works.values():
            for work in some:
                _tell(work, applied)
        applied.created += placement.created
        applied.modified += placement.modified
        applied.deleted += placement.deleted

    def _store(self, works: dict[str, list[Work]]) -> None:
        for name, some in works.items():
            self._versions.store(name, ((work.pk, work.state) for work in some))

    def _waiting_again(self, works: dict[str, list[Work]]) -> dict[str, list[Work]]:
        """All that waits once more: what the database refused may only have been refused because
        of rows that had not left, or changed, yet."""
        before = {(name, work.pk): work.before for name, some in works.items() for work in some}
        again = {}
        for name in self._versions.waiting_collections():
            if (tracked := self._registry.collection(name)) is not None:
                again[name] = self._waiting(tracked, ())
                for work in again[name]:
                    work.before = before.get((name, work.pk), work.before)
        return again

    def _decode(
        self, entries: Sequence[Entry], applied: Applied, doubtful: Container[tuple[str, int]]
    ) -> dict[str, Changes]:
        """Changes by collection and row. What is not a change is kept aside, with the reason."""
        changes: dict[str, Changes] = defaultdict(dict)
        newest, longest, me = 0, self._journal.dialect.key_chars, self._journal.device_id()
        for entry in entries:
            device, ticks, _, data = entry
            try:
                change = self._decode_data(data)
                if change is not None and change.collection.startswith(OURS):
                    raise EntryUnreadable("The collection has a name that is not for tables.")
                if change is not None and (change.rules or change.collection in self._rules):
                    self._check_rules(change)
            except EntryUnreadable as error:
                self._inbox.keep([entry], error.message)
                applied.unreadable += 1
                continue
            if ticks > newest and device != me:  # one's own may be ahead yet, and come back
                newest = ticks
            if change is None:
                continue
            if doubtful and (device, ticks) in doubtful:
                change = doubted(change)
            rows, pk = changes[change.collection], dumps(change.pk)
            if longest is not None and len(pk) > longest:
                self._inbox.keep([entry], f"The key has more than {longest} characters.")
                applied.unreadable += 1
                continue
            versioned = (tuple.__new__(Version, (ticks, device)), change)  # a fast Version(…)
            if pk in rows:
                rows[pk].append(versioned)
            else:
                rows[pk] = [versioned]
        self._journal.lift_clock(newest)
        return changes

    def _check_rules(self, change: Change) -> None:
        """Refuse what only guessing could merge: it is set aside until the rule is known."""
        reason = misfit(change, self._rules.get(change.collection, {}))
        if reason is not None:
            raise EntryUnreadable(reason)

    def _hold(self, collection: str, rows: Changes) -> None:
        """Merge rows of a table that this application does not know (yet, or any more)."""
        place = given_up(collection) if collection in self.given_up else collection
        states = self._versions.load(place, list(rows))
        for pk, changes in rows.items():
            state = states.setdefault(pk, RowState())
            in_table = state.stands
            state.held.update(merge(state, changes, bury=True))
            unknown = f"UNKNOWN_COLLECTION: there is no tracked table {collection}"
            state.parked = unknown if state.alive and not in_table else None
        self._versions.store(place, states.items())

    def _waiting(self, tracked: Tracked, rows: Iterable[str]) -> list[Work]:
        """The rows that are parked, kept or cleared: what they wait for may have come."""
        name, changed = tracked.collection, set(rows)
        waiting = self._versions.parked(name) | self._versions.apart(name)
        return [
            tried_again(tracked, pk, state) for pk, state in waiting.items() if pk not in changed
        ]

    def _merge(
        self,
        tracked: Tracked,
        rows: Changes,
        local_since: int | None,
        applied: Applied,
        may_arrive: bool,
    ) -> list[Work]:
        states = self._versions.load(tracked.collection, list(rows)) if rows else {}
        if tracked.rules:
            states |= _to_be_merged(tracked, rows, states)
        arrived = self._arrivals.insert(tracked, rows, states) if may_arrive else set()
        applied.created += len(arrived)
        rows = {pk: changes for pk, changes in rows.items() if pk not in arrived}
        unknown = [
            pk
            for pk, changes in rows.items()
            if pk not in states and any(change.operation != CREATE for _, change in changes)
        ]
        for pk in standing_rows(self._database, tracked, unknown):
            states[pk] = RowState(BEFORE_TRACKING)
        tables = standing_rows(
            self._database,
            tracked,
            [
                pk
                for pk, state in states.items()
                if needs_table(state, rows[pk], local_since, tracked)
            ],
        )
        works = []
        for pk, changes in rows.items():
            state = states.get(pk)
            if state is None and len(changes) == 1 and changes[0][1].operation == CREATE:
                works.append(self._new_row(tracked, pk, *changes[0]))
                continue
            state = state or RowState()
            key, before = changes[0][1].pk, before_of(state)
            work = Work(tracked, pk, key, state, {}, state.stands, before=before)
            died, kept, known = state.died, state.kept and state.dead, tables.get(pk)
            conflicts = Conflicts(work, changes, known, local_since)
            work.written = merge(
                state, changes, known=known, bury=tracked.buries, rules=tracked.rules
            )
            applied.conflicts += conflicts.decided()
            works.append(prepared(work, recreated=kept or state.died != died))
        return works

    def _find(self, tracked: Tracked, works: Iterable[Work]) -> None:
        """See which rows are in their table although nothing is known of it: they are written anew
        there, or leave it."""
        lacking = {work.pk: work for work in works if not work.in_table}
        for pk in standing_rows(self._database, tracked, lacking):
            lacking[pk].is_found()

    def _new_row(self, tracked: Tracked, pk: str, version: Version, change: Change) -> Work:
        """The usual case, made fast: the first that is heard of a row is its creation."""
        values = dict(change.value or {})
        names = tuple(values)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shapes[names] = frozenset(names)
        state = RowState(version, shape)
        if shape == tracked.names:
            return Work(tracked, pk, change.pk, state, values, False, values)
        return to_insert(Work(tracked, pk, change.pk, state, values, False))


def _tell(work: Work, applied: Applied) -> None:
    """Note what became of a row that cannot just stand in its table."""
    state, collection = work.state, work.tracked.collection
    if state.parked is not None:
        applied.parked += 1
        if state.parked != work.before:
            values = state.values_parked(work.tracked.rules)
            applied.newly_parked.append(parked_row(collection, work.pk, state.parked, values))
    elif state.kept and work.before != KEPT:
        applied.kept.append(Returned(collection, work.key))
    elif state.alive and work.before is not None:
        applied.returned.append(Returned(collection, work.key))


def _together(works: dict[str, list[Work]], again: dict[str, list[Work]]) -> dict[str, list[Work]]:
    """The rows of both, each as it is by now."""
    found = {(name, w.pk): w for some in (works, again) for name, ws in some.items() for w in ws}
    together: dict[str, list[Work]] = defaultdict(list)
    for (name, _), work in found.items():
        together[name].append(work)
    return together


def _to_be_merged(
    tracked: Tracked, rows: dict[str, list[tuple[Version, Change]]], known: Iterable[str]
) -> dict[str, RowState]:
    """Empty states of new rows that get other values than their creations say."""
    return {
        pk: RowState()
        for pk, [(version, change), *others] in rows.items()
        if change.operation == CREATE
        and not others
        and pk not in known
        and not stands_alone(version, change.value or {}, change.rules or {}, tracked.rules)
    }
