"""The harvest: traces become entries of the client log, in order.

What cannot be carried is left out of a change and kept as refused, with the reason, so that it
stops nothing else. Traces of one transaction become one group. Where a transaction began and
ended is known of what this program wrote (see `marks`). Of the rest, what was written without a
pause is one group, and a large one ends where a statement does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from ..changes import CREATE, DELETE, MODIFY, Change, Wire, dumps, loads
from ..clock import TICKS_PER_MS, system_now
from ..errors import ValueRefused
from ..groups import ENVELOPE
from ..journal.journal import (
    OPERATION_CODES,
    OPERATION_NAMES,
    REFUSED,
    UNSENT,
    Journal,
    Record,
    RefusedEntry,
)
from ..limits import Limits
from ..merge.rules import NOTHING_DONE
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.rows import UNTAKEN
from ..tables.ruled import RuledWrites
from ..tables.statements import code_of
from .ddl import DELETED, DISPLACED
from .marks import BEGIN, END
from .traces import Shape, Trace, Traces

PAUSE_MS = 5_000
"""What was written after such a pause is of another transaction, for all that can be told."""

LONG_RUN = 1_000
"""So many changes without a pause are enough for one group, once a statement ends."""

REFUSAL = "VALUE_REFUSED"

_ADD = """INSERT INTO sharedlog_entry
    (ticks, offset_ticks, collection, pk, operation, value, rules, status, reason, schema, recorded)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Group:
    """Changes that travel together, as they come together."""

    def __init__(self, limits: Limits, before: Group | None = None) -> None:
        self._limits = limits
        self._count = self._size = self._at = 0
        self._marked: bool = before is not None and before._marked and not before._ended
        self._ended: bool = False

    def ends_before(self, trace: Trace) -> bool:
        if self._ended or trace.operation == BEGIN:
            return True
        if self._count >= self._limits.group_entries or self._size > self._limits.group_bytes:
            return True
        if self._marked or not self._count or trace.operation == END:
            return False
        pause = abs(trace.at - self._at) > PAUSE_MS
        return pause or (self._count >= LONG_RUN and trace.at != self._at)

    def mark(self, operation: int) -> None:
        self._marked = self._marked or operation == BEGIN
        self._ended = operation == END

    def add(self, at: int, size: int) -> None:
        self._at = at
        self._count += 1
        self._size += size + ENVELOPE


class Entries:
    """Adds entries to the client log, each with the time when its change was made.

    Not later than now, which an application may tell by a clock of its own: then that is all
    there is, since SQLite has none but the system's. And always later than every timestamp
    that this device gave out or saw.

    A change that was made later than now, by a clock that was wrong, says so in `recorded`: copies
    of the file date it when they come to it, and know it again by that.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._latest = journal.now()
        self._dated = journal.now is system_now
        self._last, self._lead_ms = journal.run(
            f"SELECT {journal.newest_sql}, lead_ms FROM sharedlog_clock"
        ).fetchone()
        self._start: int | None = None
        self._recorded = 0
        self.waiting: list[Sequence[Any]] = []
        self.count = 0
        self.refused: list[RefusedEntry] = []

    def begin_group(self) -> None:
        self.flush()
        self._start = None

    def add(self, at: int, record: Record, schema: int, refused: str | None = None) -> None:
        wall = min(at, self._latest) if self._dated else self._latest
        self._last = max((wall - self._lead_ms) * TICKS_PER_MS, self._last + 1)
        if self._start is None:
            self._start = self._last
        status = UNSENT if refused is None else REFUSED
        offset, recorded = self._last - self._start, None
        if self._dated and wall < at:
            recorded = self._recorded = max(at * TICKS_PER_MS, self._recorded + 1)
        self.waiting.append((self._last, offset, *record, status, refused, schema, recorded))
        self.count += 1

    def flush(self) -> None:
        if self.waiting:
            self._journal.run_many(_ADD, self.waiting)
            self.refused += [RefusedEntry(row[0], row[-3]) for row in self.waiting if row[-3]]
            self.waiting = []


class Harvest:
    """One harvest, inside the open transaction."""

    def __init__(self, registry: Registry, journal: Journal, traces: Traces) -> None:
        self._journal = journal
        self._traces = traces
        self._ruled = RuledWrites(journal, registry, holds=True)
        self._evolution = registry.evolution
        self._entries = Entries(journal)
        self._group = Group(journal.limits)
        self._displaced: dict[str, tuple[Trace, Shape]] = {}
        """The rows that an insert is about to displace, perhaps by themselves."""

    def run(self, limit: int | None = None) -> list[RefusedEntry]:
        """Make entries of about so many traces, or all; return what cannot be carried."""
        shapes = self._traces.shapes()
        last = None
        for trace in self._traces.read(list(shapes)):
            if not self._displaced and self._group.ends_before(trace):
                self._entries.begin_group()
                if limit is not None and self._entries.count >= limit:
                    break
                self._group = Group(self._journal.limits, self._group)
            if trace.shape is None:
                self._delete_displaced()
                self._group.mark(trace.operation)
            else:
                self._take(trace, shapes[trace.shape])
            last = trace.number
        self._delete_displaced()
        self._entries.flush()
        if last is not None:
            self._traces.drop(list(shapes), last)
        return self._entries.refused

    def _take(self, trace: Trace, shape: Shape) -> None:
        try:
            pk = shape.pk(trace)
        except ValueRefused as error:
            self._refuse_row(trace, shape, error.message)
            return
        if trace.operation == DISPLACED:
            self._displaced[pk] = trace, shape
            return
        by_itself = None  # then it stood, and stands
        if self._displaced:
            by_itself = self._displaced.pop(pk, None) if trace.operation != DELETED else None
            self._delete_displaced()
        if by_itself is not None:
            self._change(trace, shape, MODIFY, pk, shape.wires(by_itself[0]))
        elif trace.operation == DELETED:
            self._put(trace, shape, DELETE, pk, _was(shape, trace))
        else:
            operation = OPERATION_NAMES[trace.operation]
            before = shape.before(trace) if shape.tracked.rules else {}
            self._change(trace, shape, operation, pk, before)

    def _delete_displaced(self) -> None:
        for pk, (trace, shape) in self._displaced.items():
            self._put(trace, shape, DELETE, pk, _was(shape, trace))
        self._displaced.clear()

    def _change(
        self, trace: Trace, shape: Shape, operation: str, pk: str, before: Mapping[str, Wire]
    ) -> None:
        tracked, wires = shape.tracked, shape.wires(trace)
        refused: Mapping[str, str] = {}
        try:
            text = tracked.value_json(wires)
        except ValueRefused:
            wires, refused = _carried(tracked, wires)
            text = tracked.value_json(wires)
        if shape.ruled and _ruled(shape, operation, before, wires):
            refused = {**refused, **self._change_ruled(trace, shape, operation, pk, before, wires)}
        elif wires or operation == CREATE:
            self._put(trace, shape, operation, pk, text)
        for name, reason in refused.items():
            told = f"{tracked.model.__name__}.{name}: {reason}"
            self._put(trace, shape, MODIFY, pk, "{}", refused=told)

    def _refuse_row(self, trace: Trace, shape: Shape, reason: str) -> None:
        """A row that no other device can have. As a deletion, since that claims nothing."""
        pk = dumps([repr(value) for value in trace.values[: len(shape.tracked.key)]])
        told = f"{shape.tracked.model.__name__}: {reason}"
        self._put(trace, shape, DELETE, pk, None, refused=told)

    def _put(
        self,
        trace: Trace,
        shape: Shape,
        operation: str,
        pk: str,
        text: str | None,
        rules: str | None = None,
        refused: str | None = None,
    ) -> None:
        code = code_of(shape.tracked, operation)
        record = Record(shape.collection, pk, code, text, rules)
        self._entries.add(trace.at, record, shape.schema, refused)
        self._group.add(trace.at, len(pk) + len(text or ""))

    # -- fields with a merge rule --------------------------------------------------------

    def _change_ruled(
        self,
        trace: Trace,
        shape: Shape,
        operation: str,
        pk: str,
        before: Mapping[str, Wire],
        wires: Mapping[str, Wire],
    ) -> dict[str, str]:
        """A change of fields with a rule is told by what this device wrote before, and what comes
        of it goes into the table. So what it wrote stands there first, whatever happened since,
        and what was before is merged. Returns what cannot be merged, and why: that stays."""
        if shape.schema != self._evolution.schema:  # then the table has been migrated since
            shape, before, wires = self._upgraded(shape, operation, pk, before, wires)
        tracked, today = shape.tracked, shape.today
        ruled = _ruled(shape, operation, before, wires)
        self._entries.flush()
        known = {today[name]: before[name] for name in ruled if name in before}
        with self._journal.unrecorded():
            try:
                with self._journal.savepoint():
                    self._say(trace, shape, operation, pk, known, wires, ruled.keys())
                return {}
            except ValueRefused as error:
                reason = error.message
            self._stand(tracked, pk, {today[name]: wire for name, wire in ruled.items()})
        rest = {name: wire for name, wire in wires.items() if name not in ruled}
        if rest or operation == CREATE:
            self._put(trace, shape, operation, pk, tracked.value_json(rest))
        return dict.fromkeys(ruled, reason)

    def _upgraded(
        self,
        shape: Shape,
        operation: str,
        pk: str,
        before: Mapping[str, Wire],
        wires: Mapping[str, Wire],
    ) -> tuple[Shape, Mapping[str, Wire], Mapping[str, Wire]]:
        """The same as a program of today would have noted it, if that can be said."""
        key, schema = loads(pk), shape.schema
        before = {n: before[n] for n in wires if n in before and operation == MODIFY}
        was, readable = self._evolution.local(
            Change(MODIFY, shape.collection, key, before, schema=schema)
        )
        change, is_readable = self._evolution.local(
            Change(operation, shape.collection, key, wires, schema=schema)
        )
        if not (readable and is_readable):
            return shape, before, wires
        old, new = was.value or {}, change.value or {}
        return shape.of_today(self._evolution.schema, {**old, **new}), old, new

    def _say(
        self,
        trace: Trace,
        shape: Shape,
        operation: str,
        pk: str,
        known: Mapping[str, Wire],
        wires: Mapping[str, Wire],
        ruled: Set[str],
    ) -> None:
        tracked, today = shape.tracked, shape.today
        said = dict(wires)
        if operation == MODIFY:
            after = {today[name]: wire for name, wire in wires.items() if today[name] in known}
            done = self._ruled.operands(tracked, {pk: dict(known)}, {pk: after})[pk]
            said = {name: done.get(today[name], wire) for name, wire in wires.items()}
            said = {name: wire for name, wire in said.items() if wire is not NOTHING_DONE}
        if not said and operation == MODIFY:
            return
        # Nothing else: a field to which nothing was done keeps what its rule says.
        self._stand(tracked, pk, {today[name]: wires[name] for name in said.keys() & ruled})
        named = tracked.rules_json(
            {today[name]: said[name] for name in said.keys() & ruled}, created=operation == CREATE
        )
        rules = None if named is None else _under(named, {today[name]: name for name in said})
        text = tracked.value_json(said)
        self._put(trace, shape, operation, pk, text, rules)
        self._entries.flush()
        record = Record(tracked.collection, pk, OPERATION_CODES[operation], text, rules)
        if operation == CREATE:
            self._ruled.settle_new(tracked, [record])
        else:
            self._ruled.settle({tracked.collection: {pk: dict(known)}})

    def _stand(self, tracked: Tracked, pk: str, values: Mapping[str, Wire]) -> None:
        """Let fields of a row have these values, if it stands, and if the table takes them."""
        key = tracked.key_parameters(loads(pk))
        for name, wire in values.items():
            parameter = tracked.by_name[name].to_parameter(wire)
            with suppress(*UNTAKEN), self._journal.attempt():
                self._journal.run(tracked.correct_sql(name), [parameter, *key, parameter])


def _ruled(
    shape: Shape, operation: str, before: Mapping[str, Wire], wires: Mapping[str, Wire]
) -> dict[str, Wire]:
    """Of the values of a change, those that a merge rule is for. A field that had none when this
    was noted was given a value, as entries of that time say; what it was before nobody knows."""
    return {
        name: wire
        for name, wire in wires.items()
        if name in shape.ruled
        and shape.today[name] in shape.tracked.rules
        and (operation == CREATE or name in before)
    }


def _under(named: str, names: Mapping[str, str]) -> str:
    """The rules of fields under other names, as JSON text."""
    return dumps({names[name]: rule for name, rule in loads(named).items()})


def _carried(tracked: Tracked, wires: Mapping[str, Wire]) -> tuple[dict[str, Wire], dict[str, str]]:
    """The values that can be carried, and why the others cannot."""
    refused: dict[str, str] = {}
    carried: dict[str, Wire] = {}
    for name, wire in wires.items():
        try:
            tracked.value_json({name: wire})
            carried[name] = wire
        except ValueRefused as error:
            refused[name] = error.message
    while True:
        try:
            tracked.value_json(carried)
            return carried, refused
        except ValueRefused as error:  # together they are too large
            largest = max(carried, key=lambda name: len(dumps(carried[name])))
            refused[largest] = error.message
            del carried[largest]


def _was(shape: Shape, trace: Trace) -> str | None:
    """What a deleted row was, as far as JSON can hold it, where that may be needed. Not sent."""
    if trace.changed is None or not shape.tracked.buries:
        return None
    wires = shape.wires(trace)
    try:
        return dumps(wires)
    except TypeError:
        return dumps(_carried(shape.tracked, wires)[0])
