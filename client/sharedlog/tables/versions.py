"""What is known of each row beside its table: versions, tombstones, held values.

One record a row in `sharedlog_row`; device ids and lists of field names are numbers there.
The records outlive the entries they came from, so the log can be pruned without changing
who wins later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..changes import CREATE, MODIFY, Change, Wire, dumps, loads
from ..clock import BEFORE_TRACKING, Version
from ..errors import ValueRefused
from ..evolution.evolution import Evolution
from ..evolution.restating import ASIDE, said_of
from ..journal.journal import CHUNK, OPERATION_NAMES, Journal, LocalEntry, chunks
from ..journal.reset import is_relearning
from ..merge.counter import Counter, lost, restamped, run_of
from ..merge.custom import FAILED, failure
from ..merge.reconcile import NO_FIELDS, NO_RULES, Listed, RowState
from ..merge.rules import misfit
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import carried
from .folding import Values, fold, fold_listing, note_due
from .numbers import ME, Devices, Shapes
from .rows import UNFIT, UNTAKEN, read_rows, refusal

FOLD_LIMIT = 5_000
"""Local entries folded at a time: bounds memory, not the transaction."""

# Most rows need few columns, and sqlite3 binds a NULL slower than anything else.
_STORE_BIRTH = """INSERT OR REPLACE INTO sharedlog_row (collection, pk, born, born_device, shape)
    VALUES (?, ?, ?, ?, ?)"""

_COLUMNS = (
    "pk, born, born_device, shape, died, died_device, fields, held, parked, buried, kept, cleared, "
    "writes"
)

_STORE = f"INSERT OR REPLACE INTO sharedlog_row VALUES ({', '.join('?' * 14)})"

KEPT = 1
"""What the column `kept` says."""

Known = Mapping[str, Mapping[str, Values]]
"""Rows by collection and pk as JSON text."""


class Versions:
    """The states of rows. Everything that writes needs an open transaction.

    `registry` tells the merge rules of fields, and what the names mean that local entries were
    recorded under: they keep these. It is an error if a table refuses what rules make of local
    entries, unless this `holds` such rows: then they are parked with the next exchange.
    """

    def __init__(
        self, journal: Journal, registry: Registry | None = None, *, holds: bool = False
    ) -> None:
        self._journal = journal
        self._holds = holds
        self._tracked = registry.collection if registry else lambda name: None
        self._evolution = registry.evolution if registry else Evolution()
        self.names = self._evolution.names
        self._run = journal.run
        self.devices, self.shapes = Devices(journal), Shapes(journal)

    def fold_local(self, known: Known | None = None) -> None:
        """Merge local entries that are not in the row states yet.

        Their values stand in the tables already, so only versions are kept. Local timestamps
        are later than everything received, so this can wait until somebody looks. (Where fields
        have a rule, the tables get what it makes of the entries; `known` is what stood in the
        rows before them.)
        """
        while self.fold_some(known):
            pass

    def fold_some(self, known: Known | None = None) -> bool:
        """Fold the next few thousand local entries; return whether there may be more."""
        entries = self._journal.unfolded(FOLD_LIMIT)
        by_collection: dict[str, list[LocalEntry]] = defaultdict(list)
        for entry in entries:
            by_collection[entry.collection].append(entry)
        for recorded, some in by_collection.items():
            collection = self.names.table(recorded)
            self._fold(collection, some, (known or {}).get(collection, {}))
        if entries:
            self._journal.set_state(folded_until=str(entries[-1].ticks))
        return len(entries) == FOLD_LIMIT

    def _fold(
        self, collection: str, entries: list[LocalEntry], known: Mapping[str, Values]
    ) -> None:
        me, tracked = self._journal.device_id(), self._tracked(collection)
        rules = tracked.rules if tracked else NO_RULES
        relearns = bool(rules) and is_relearning(self._journal)
        past = self._evolution.has_past
        due: dict[str, dict[str, Wire]] = defaultdict(dict)
        states = self.load(collection, list({entry.pk for entry in entries}))
        for entry in entries:
            operation = OPERATION_NAMES[entry.operation]
            state = states.get(entry.pk)
            if state is None:
                existed = operation != CREATE
                state = states[entry.pk] = RowState(BEFORE_TRACKING if existed else None)
            value = loads(entry.value) if entry.value is not None else None
            named = loads(entry.rules) if entry.rules else None
            readable = True
            if value and past:
                what, key = CREATE if operation == CREATE else MODIFY, loads(entry.pk)
                said = Change(what, entry.collection, key, value, named, entry.schema)
                said, readable = self._evolution.local(said)
                value, named = said.value, said.rules
            change = Change(operation, collection, None, value, named)
            version = Version(entry.ticks, me)
            if rules and readable and misfit(change, rules) is None:
                stood = known.get(entry.pk)
                if relearns:
                    fold_listing(state, version, change, tracked, stood, rules)
                else:
                    written = fold(state, version, change, tracked, stood, rules)
                    note_due(due[entry.pk], state, change, written, rules)
            else:
                fold(state, version, change, tracked)
        if tracked and self._holds:
            for pk, values in due.items():
                if values:
                    self._correct_or_hold(tracked, pk, values, states[pk])
        elif tracked:
            self._correct(tracked, due)
        self.store(collection, states.items())

    def _correct_or_hold(self, tracked: Tracked, pk: str, values: Values, state: RowState) -> None:
        try:
            with self._journal.attempt():
                self._correct(tracked, {pk: values})
        except UNTAKEN as error:
            keys = [tracked.key_parameters(loads(pk))]
            found = read_rows(self._journal.database, tracked, keys)
            state.held.update({**carried(found.get(pk, {})), **values})
            state.parked, state.kept = refusal(error), True

    def _correct(self, tracked: Tracked, due: Mapping[str, Values]) -> None:
        """Write what rules made of local writes, where something else stands."""
        rows: dict[str, list[list[Any]]] = defaultdict(list)
        for pk, values in due.items():
            for name, value in values.items():
                try:
                    parameter = tracked.by_name[name].to_parameter(value)
                except UNFIT as error:
                    why = failure(value)
                    raise ValueRefused(
                        f"{tracked.by_name[name]}: {why or error}", hint=FAILED if why else None
                    ) from None
                rows[name].append([parameter, *tracked.key_parameters(loads(pk)), parameter])
        if rows:
            with self._journal.unrecorded():
                for name, some in rows.items():
                    self._journal.run_many(tracked.correct_sql(name), some)

    def rename_local(self, renamed: dict[int, int], keys: Iterable[tuple[str, str]]) -> None:
        """Replace timestamps of this device in the states of these (collection, pk)."""
        me = self._journal.device_id()
        by_collection: dict[str, set[str]] = defaultdict(set)
        for recorded, pk in keys:
            by_collection[self.names.table(recorded)].add(pk)

        def new(version: Version) -> Version:
            if version.device != me:
                return version
            return Version(renamed.get(version.ticks, version.ticks), me)

        def said(version: Version, operand: Wire) -> Wire:
            return restamped(operand, renamed) if version.device == me else operand

        for collection, pks in by_collection.items():
            states = self.load(collection, list(pks))
            for state in states.values():
                for name, (rule, writes) in state.writes.items():
                    if rule == Counter.name:
                        state.writes[name] = Listed(rule, [(v, said(v, o)) for v, o in writes])
                state.rename(new)
            self.store(collection, states.items())

    def doubt_counts(self, device: str | None = None) -> None:
        """The log may have lost what this device knows of counters (see `Counter`), or have other
        runs of this device."""

        def doubted(version: Version, operand: Wire) -> Wire:
            return lost(operand) if device in (None, run_of(version, operand).device) else operand

        for collection in self.collections("writes IS NOT NULL"):
            for states in self.each(collection, "writes IS NOT NULL"):
                for state in states.values():
                    for name, (rule, writes) in state.writes.items():
                        if rule == Counter.name:
                            said = [(v, doubted(v, o)) for v, o in writes]
                            state.writes[name] = Listed(rule, said)
                self.store(collection, states.items())

    def forget_numbers(self) -> None:
        """After a rollback."""
        self.devices.forget()
        self.shapes.forget()

    # -- rows ----------------------------------------------------------------------------

    def load(self, collection: str, pks: Sequence[str]) -> dict[str, RowState]:
        """The states of these rows, as far as there are any. One query a chunk."""
        return self._of_these(collection, pks)

    def dead(self, collection: str, pks: Sequence[str]) -> dict[str, RowState]:
        """Of these rows the deleted ones."""
        return self._of_these(collection, pks, "AND died IS NOT NULL AND born IS NULL")

    def dead_keys(self, collection: str) -> Iterator[list[str]]:
        """The pks of all deleted rows of a collection, a few hundred at a time."""
        sql = (
            "SELECT pk FROM sharedlog_row WHERE collection = ? AND pk > ? "
            f"AND died IS NOT NULL AND born IS NULL ORDER BY pk LIMIT {CHUNK}"
        )
        last = ""
        while pks := [pk for (pk,) in self._run(sql, (collection, last)).fetchall()]:
            yield pks
            last = pks[-1]

    def parked(self, collection: str) -> dict[str, RowState]:
        """The rows of a collection that should be in its table, and cannot."""
        return self._all(collection, "parked IS NOT NULL")

    def holding(self, collection: str) -> dict[str, RowState]:
        """The rows of a table that hold values the table has no column for."""
        return self._all(collection, "born IS NOT NULL AND held IS NOT NULL AND parked IS NULL")

    def apart(self, collection: str) -> dict[str, RowState]:
        """The rows that are kept, and those with references that were cleared."""
        return self._all(collection, "(kept IS NOT NULL OR cleared IS NOT NULL) AND parked IS NULL")

    def waiting_collections(self) -> set[str]:
        """The collections with rows that may change with any page: parked, kept or cleared."""
        cursor = self._run(
            "SELECT DISTINCT collection FROM sharedlog_row WHERE parked IS NOT NULL "
            "UNION SELECT DISTINCT collection FROM sharedlog_row "
            "WHERE kept IS NOT NULL OR cleared IS NOT NULL"
        )
        return {row[0] for row in cursor.fetchall() if not row[0].startswith(ASIDE)}

    def collections(self, condition: str) -> list[str]:
        """The collections with such rows."""
        sql = f"SELECT DISTINCT collection FROM sharedlog_row WHERE {condition}"
        return [row[0] for row in self._run(sql).fetchall()]

    def asides(self) -> list[str]:
        """The collections that are none (see `ASIDE`)."""
        found = self.collections(f"collection > '{ASIDE}' AND collection < '{ASIDE}~'")
        return [name for name in found if said_of(name)]

    def each(self, collection: str, condition: str = "1 = 1") -> Iterator[dict[str, RowState]]:
        """The states of a collection's rows, a few hundred at a time."""
        last = ""
        chunk = f"pk > ? AND ({condition}) ORDER BY pk LIMIT {CHUNK}"
        while found := self._rows(collection, chunk, (last,)):
            yield self._read(collection, found)
            last = found[-1][0]

    def _of_these(
        self, collection: str, pks: Sequence[str], condition: str = ""
    ) -> dict[str, RowState]:
        found: list[tuple[Any, ...]] = []
        for chunk in chunks(pks):
            marks = ",".join("?" * len(chunk))
            found += self._rows(collection, f"pk IN ({marks}) {condition}", chunk)
        return self._read(collection, found)

    def _all(self, collection: str, condition: str) -> dict[str, RowState]:
        return self._read(collection, self._rows(collection, f"{condition} ORDER BY pk"))

    def _rows(
        self, collection: str, condition: str, parameters: Sequence[str] = ()
    ) -> list[tuple[Any, ...]]:
        cursor = self._run(
            f"SELECT {_COLUMNS} FROM sharedlog_row WHERE collection = ? AND {condition}",
            (collection, *parameters),
        )
        return list(cursor.fetchall())

    def _read(self, collection: str, found: list[tuple[Any, ...]]) -> dict[str, RowState]:
        if not found:
            return {}
        devices, shapes = self.devices.values(), self.shapes.values()
        states = {}
        for pk, born, born_by, shape, died, died_by, fields, held, *rest in found:
            parked, buried, kept, cleared, writes = rest
            states[pk] = RowState(
                None if born is None else Version(born, devices[born_by] if born else ""),
                shapes.get(shape, NO_FIELDS),
                None if died is None else Version(died, devices[died_by]),
                {n: Version(t, devices[d]) for n, (t, d) in loads(fields).items()}
                if fields
                else {},
                loads(held) if held else {},
                parked,
                {
                    n: (Version(t, devices[d]) if t else BEFORE_TRACKING, value)
                    for n, (t, d, value) in loads(buried).items()
                }
                if buried
                else {},
                kept == KEPT,
                loads(cleared) if cleared else {},
                self._read_writes(collection, devices, loads(writes)) if writes else {},
            )
        return states

    def _read_writes(
        self, collection: str, devices: Mapping[int, str], stored: Values
    ) -> dict[str, Listed]:
        """Listed writes. Those that were listed for another rule than the model has now say
        nothing; of a table that is not known (any more) they stay as they are."""
        tracked = self._tracked(collection)
        found = {}
        for name, (of, writes) in stored.items():
            rule = tracked.rules.get(self.names.field(collection, name)) if tracked else None
            if tracked is None or (rule is not None and rule.name == of):
                some = [(_version(t, devices[d]), operand) for t, d, operand in writes]
                found[name] = Listed(of, some)
        return found

    def store(self, collection: str, states: Iterable[tuple[str, RowState]]) -> None:
        """Write the states of these rows."""
        usual, others = [], []
        for pk, state in states:
            if state.is_birth:
                usual.append((collection, pk, *self._birth(state)))
            else:
                others.append((collection, pk, *self._record(state)))
        self._journal.run_many(_STORE_BIRTH, usual)
        self._journal.run_many(_STORE, others)

    def forget(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget what is known of these (collection, pk)."""
        self._journal.run_many("DELETE FROM sharedlog_row WHERE collection = ? AND pk = ?", keys)

    def store_births(
        self, collection: str, births: Iterable[tuple[str, Version]], shape: frozenset[str]
    ) -> None:
        """Write the states of rows of which only their creation is known."""
        number = self.shapes.of(shape) if shape else None
        device = self.devices.of
        self._journal.run_many(
            _STORE_BIRTH,
            [(collection, pk, ticks, device(by), number) for pk, (ticks, by) in births],
        )

    def _birth(self, state: RowState) -> tuple[int | None, int | None, int | None]:
        born = state.born
        return (
            None if born is None else born.ticks,
            None if born is None else self.devices.of(born.device) if born.ticks else ME,
            self.shapes.of(state.shape) if state.shape else None,
        )

    def _record(self, state: RowState) -> tuple[Any, ...]:
        died, number = state.died, self.devices.of
        fields = {name: [v.ticks, number(v.device)] for name, v in state.fields.items()}
        return (
            *self._birth(state),
            None if died is None else died.ticks,
            None if died is None else number(died.device),
            dumps(fields) if fields else None,
            dumps(state.held) if state.held else None,
            state.parked,
            dumps(self._buried(state)) if state.buried else None,
            KEPT if state.kept else None,
            dumps(state.cleared) if state.cleared else None,
            dumps(self._writes(state)) if state.writes else None,
        )

    def _writes(self, state: RowState) -> dict[str, list[Any]]:
        number = self.devices.of
        return {
            name: [of, [[v.ticks, number(v.device) if v.ticks else ME, o] for v, o in writes]]
            for name, (of, writes) in state.writes.items()
        }

    def _buried(self, state: RowState) -> dict[str, list[Any]]:
        number = self.devices.of
        return {
            name: [version.ticks, number(version.device) if version.ticks else ME, value]
            for name, (version, value) in state.buried.items()
        }


def _version(ticks: int, device: str) -> Version:
    return Version(ticks, device) if ticks else BEFORE_TRACKING
