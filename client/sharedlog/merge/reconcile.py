"""Merging: the state of a row is a function of the *set* of its changes. Pure.

The rules (docs/protocol.md states them for other languages):

- a row is alive iff it has a creation later than its latest deletion;
- a field has the value of its latest write after the latest deletion;
- a modification never revives a row; a later creation does;
- two creations of one row merge field by field;
- a field with a merge rule (see `rules`) has the value that its rule makes of all its writes
  after the latest deletion.

Later means a larger `Version`: ticks, then device id. Merging is therefore commutative,
associative and idempotent, and any order, duplication or batching gives the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from ..changes import CREATE, DELETE, Change, Wire
from ..clock import BEFORE_TRACKING, Version
from .rules import MergeRule, Rules, Writes, in_order, with_write

NO_FIELDS: frozenset[str] = frozenset()

NO_RULES: Rules = MappingProxyType({})

BIRTH = ""
"""The name of no field: under it, a creation is buried."""


class Listed(NamedTuple):
    """The writes of a field that may count, and the name of the rule for which they are kept."""

    rule: str
    writes: Writes


@dataclass(slots=True)
class RowState:
    """What is remembered of a row beside the application's own table.

    Attributes:
        born: The latest creation after `died`; None while the row is not alive.
        shape: The fields that have the version `born`, unless `fields` says otherwise.
        died: The latest deletion.
        fields: Versions of fields that differ from `born`: exceptions, so usually empty.
        held: Values that stand in no table: of rows that are not alive or parked, and of
            fields that the application does not know (yet).
        parked: Why an alive row is not in its table, or a dead one that would be kept by a change
            which wins over its deletion; or None.
        buried: What the fields were before the latest deletion, with the versions of these
            writes; only where somebody may need it (see `merge`), and only of fields that
            nobody wrote since. `BIRTH` stands for the latest creation.
        kept: The row is in its table all the same: it is dead, and a child keeps it; or it is dead
            or parked, and a trigger of the application does not let it go.
        cleared: References to deleted rows that were taken out of their columns (SET NULL).
        writes: Of fields with a merge rule, where the version and the value do not say it all.
    """

    born: Version | None = None
    shape: frozenset[str] = NO_FIELDS
    died: Version | None = None
    fields: dict[str, Version] = field(default_factory=dict)
    held: dict[str, Wire] = field(default_factory=dict)
    parked: str | None = None
    buried: dict[str, tuple[Version, Wire]] = field(default_factory=dict)
    kept: bool = False
    cleared: dict[str, Wire] = field(default_factory=dict)
    writes: dict[str, Listed] = field(default_factory=dict)

    @property
    def stands(self) -> bool:
        """Whether it is in its table."""
        return self.kept or (self.born is not None and self.parked is None)

    @property
    def is_birth(self) -> bool:
        """Whether a creation is all there is to remember, as of most rows."""
        rest = self.died or self.fields or self.held or self.parked or self.buried or self.cleared
        return self.born is not None and not (rest or self.writes)

    @property
    def alive(self) -> bool:
        return self.born is not None

    @property
    def dead(self) -> bool:
        return self.born is None and self.died is not None

    def version_of(self, name: str) -> Version | None:
        """The latest write of the field after the latest deletion, or None."""
        explicit = self.fields.get(name)
        if explicit is None and name in self.shape:
            return self.born
        return explicit

    def has(self, version: Version) -> bool:
        """Whether anything of the row is what this write made it."""
        listed = (write for _, writes in self.writes.values() for write, _ in writes)
        return version in (self.born, self.died, *self.fields.values(), *listed)

    def rename(self, new: Callable[[Version], Version]) -> None:
        """Put other versions in the place of these, wherever they stand."""
        self.born = self.born and new(self.born)
        self.died = self.died and new(self.died)
        self.fields = {name: new(version) for name, version in self.fields.items()}
        self.buried = {name: (new(v), value) for name, (v, value) in self.buried.items()}
        for name, (rule, writes) in self.writes.items():
            renamed = [(new(version), operand) for version, operand in writes]
            self.writes[name] = Listed(rule, in_order(renamed))

    def written_fields(self) -> list[str]:
        """Every field that has a version, in no particular order."""
        return list(self.shape | self.fields.keys())

    def values_kept(self) -> dict[str, Wire]:
        """The values of a dead row as if it had never been deleted."""
        values = {name: value for name, (_, value) in self.buried.items() if name != BIRTH}
        return {**values, **self.held}

    def values_parked(self, rules: Rules) -> dict[str, Wire]:
        """The values of a parked row, as far as they are known."""
        if self.alive:
            return self.held
        return {**self.values_kept(), **self.ruled(rules, kept=True)}

    def ruled(self, rules: Rules, *, kept: bool = False) -> dict[str, Wire]:
        """What rules make of the writes that are listed; `kept`: as if the row had never been
        deleted."""
        died = None if kept else self.died
        return {
            name: rules[name].value(rules[name].live(writes, died))
            for name, (_, writes) in self.writes.items()
            if name in rules and (kept or self.version_of(name) is not None)
        }

    @property
    def age(self) -> Version:
        """The version of the latest creation, also of a dead row."""
        return self.born or self.buried.get(BIRTH, (BEFORE_TRACKING, None))[0]


def merge(
    state: RowState,
    changes: Iterable[tuple[Version, Change]],
    *,
    known: Mapping[str, Wire] | None = None,
    bury: bool = False,
    rules: Rules = NO_RULES,
) -> dict[str, Wire]:
    """Merge changes into `state`, in place; return the values that the merge wrote.

    The returned values are those that the application's table lacks: every field whose
    current version came with these changes, and every field with a rule that has another
    value now. `known` are the values in the table now; it is needed only where a deletion may
    be older than a field's version, because those values must be held (a later creation would
    bring them back), and where a field has a rule. With `bury`, the values that a deletion ends
    are remembered; every deletion then needs `known`. The changes must fit the rules (`misfit`).
    """
    written: dict[str, Wire] = {}
    rescued: set[str] = set()
    known = {**(known or {}), **state.cleared} if state.cleared else known or {}
    ruled = _Ruled(state, known, rules, bury) if rules or state.writes else None
    for version, change in changes:
        if change.operation == DELETE:
            if bury:
                if ruled:
                    ruled.list_all()
                _bury_all(state, version, {**known, **state.held, **written})
            rescued |= _delete(state, version, written, known)
        elif state.died is None or version > state.died:
            values = change.value or {}
            if ruled:
                ruled.add(version, change)
            if change.operation == CREATE:
                _create(state, version, values, written)
            else:
                _modify(state, version, values, written)
        elif bury:
            if ruled:
                ruled.add(version, change)
            birth = {BIRTH: None} if change.operation == CREATE else {}
            _bury(state, version, {**(change.value or {}), **birth})
    if ruled:
        ruled.decide(written)
    if state.buried:
        for name in (*state.written_fields(), *((BIRTH,) if state.alive else ())):
            state.buried.pop(name, None)
    if state.alive:
        for name in rescued:  # it died and came back at once: the table has them still
            state.held.pop(name, None)
    return written


def _bury(state: RowState, version: Version, values: Mapping[str, Wire]) -> None:
    """Remember writes from before the latest deletion."""
    for name, value in values.items():
        if name not in state.buried or version > state.buried[name][0]:
            state.buried[name] = version, value


def _bury_all(state: RowState, version: Version, values: Mapping[str, Wire]) -> None:
    """Remember what a deletion of this version ends. `values` are those that stand now."""
    if state.born is not None and state.born < version:
        state.buried[BIRTH] = state.born, None
    if state.born == BEFORE_TRACKING:
        state.buried = {n: (BEFORE_TRACKING, v) for n, v in values.items()} | state.buried
    for name in state.written_fields():
        current = state.version_of(name)
        if current is not None and current < version and name in values:
            state.buried[name] = current, values[name]


def _modify(
    state: RowState, version: Version, values: Mapping[str, Wire], written: dict[str, Wire]
) -> None:
    for name, value in values.items():
        current = state.version_of(name)
        if current is None or version > current:
            state.fields[name] = version
            written[name] = value


def _create(
    state: RowState, version: Version, values: Mapping[str, Wire], written: dict[str, Wire]
) -> None:
    if state.born is not None and version <= state.born:
        _modify(state, version, values, written)  # an older creation: its fields compete
        return
    newer = {name: v for name, v in state.fields.items() if v > version}
    for name in state.shape.union(state.fields).difference(values):
        current = state.version_of(name)
        if current is not None:
            newer[name] = current
    for name, value in values.items():
        if name not in newer:
            written[name] = value
    state.born, state.shape, state.fields = version, frozenset(values), newer


def _delete(
    state: RowState, version: Version, written: dict[str, Wire], known: Mapping[str, Wire]
) -> set[str]:
    """Returns the fields whose values were taken from the table to be held."""
    rescued: set[str] = set()
    if state.died is not None and version <= state.died:
        return rescued
    state.died = version
    if state.born is not None and version > state.born:
        # What survives the deletion is held: the row is about to leave its table.
        for name, written_at in state.fields.items():
            if written_at > version and name not in written and name in known:
                state.held[name] = known[name]
                rescued.add(name)
        state.born, state.shape = None, NO_FIELDS
    state.fields = {name: v for name, v in state.fields.items() if v > version}
    for values in (state.held, written):
        for name in [n for n in values if not (state.version_of(n) or version) > version]:
            del values[name]
    return rescued


class _Ruled:
    """The fields with a rule, while changes are merged into a row.

    A field that was written once needs no list: its version and its value say the same. So the
    list is made where a second write comes, and given up where it says no more. Where deletions
    are buried, it has also the writes from before them.
    """

    def __init__(
        self, state: RowState, known: Mapping[str, Wire], rules: Rules, bury: bool
    ) -> None:
        self._state = state
        self._known = known
        self._rules = rules
        self._bury = bury
        self._before = {
            name: rules[name].live(writes, state.died)
            for name, (_, writes) in state.writes.items()
            if name in rules
        }

    def add(self, version: Version, change: Change) -> None:
        """Note the writes of a change, before the versions of the fields tell of it."""
        state, created = self._state, change.operation == CREATE
        for name, rule in self._rules.items():
            if change.value and name in change.value:
                named = change.rules is not None and name in change.rules
                operand = rule.operand(change.value[name], created=created, named=named)
                writes = with_write(self._writes(name, rule), version, operand)
                if created:  # it says anew what stood there before there was a log
                    writes = [write for write in writes if write[0] != BEFORE_TRACKING]
                state.writes[name] = Listed(rule.name, writes)
            elif created and name in state.shape:
                self._writes(name, rule)  # soon nothing will tell that it came with a creation

    def list_all(self) -> None:
        """Make lists of everything, before a deletion ends it."""
        for name, rule in self._rules.items():
            self._writes(name, rule)

    def decide(self, written: dict[str, Wire]) -> None:
        """Say what the fields are now, where that is not what it was."""
        state = self._state
        for name, (of, writes) in list(state.writes.items()):
            rule = self._rules.get(name)
            if rule is None:
                continue  # of a table that is not known (any more)
            writes = rule.keep(writes)
            live = rule.live(writes, state.died)
            state.writes[name] = Listed(of, writes := writes if self._bury else live)
            if state.version_of(name) is None:
                if not writes:
                    del state.writes[name]
                continue
            value = rule.value(live)
            stale = self._known.get(name, value) != value  # the writes were restated
            if live != self._before[name] or name in written or stale:
                written[name] = value
            if writes == self._said(name, rule, value):
                del state.writes[name]

    def _writes(self, name: str, rule: MergeRule) -> Writes:
        """The writes so far. From here on they are listed."""
        listed = self._state.writes.get(name)
        if listed is None:
            writes: Writes = []
            for values in (self._state.held, self._known):
                if name in values and rule.fits(values[name], plain=True):
                    writes = self._said(name, rule, values[name])
            if self._bury and name in self._state.buried:
                writes = self._with_buried(name, rule, writes)
            listed = self._state.writes[name] = Listed(rule.name, writes)
            self._before[name] = rule.live(writes, self._state.died)
        return listed.writes

    def _with_buried(self, name: str, rule: MergeRule, writes: Writes) -> Writes:
        """The writes, and the one from before the latest deletion."""
        version, value = self._state.buried[name]
        if not rule.fits(value, plain=True) or any(version == known for known, _ in writes):
            return writes
        birth, _ = self._state.buried.get(BIRTH, (None, None))
        named = rule.was_known(version)
        operand = rule.operand(value, created=version == birth, named=named)
        return with_write(writes, version, operand)

    def _said(self, name: str, rule: MergeRule, value: Wire) -> Writes:
        """The writes that the field's version and this value say there are."""
        state = self._state
        version = state.version_of(name)
        if version is None:
            if state.born != BEFORE_TRACKING:
                return []
            version = BEFORE_TRACKING
        named = rule.was_known(version)
        operand = rule.operand(value, created=name not in state.fields, named=named)
        return rule.keep([(version, operand)])
