"""What changes go through on their way out and in: processors, the serializer, evolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from .. import changes
from ..changes import Change, Wire
from ..clock import Version
from ..errors import ConfigurationError, EntryUnreadable
from ..evolution.evolution import Evolution
from ..journal.journal import DROPPED, Beginnings, LocalEntry, RefusedEntry
from ..merge.counter import ADD, TOTAL, alone, is_alone, whole
from ..merge.runs import handed_over, increments
from ..remote.sharedlog import Outgoing

Processor = Callable[[Change], Change | None]
"""Sees a change on its way out or in; may answer another one, or None to drop it. Must be
pure: the same change always gives the same answer, because an exchange may be repeated."""


class Serializer(Protocol):
    """How changes become the opaque text that the service keeps (encryption goes here).

    Must be pure, too: an entry that is sent again must have the same text. And it must carry all
    members of a change, also those that later versions of this library add.
    """

    def encode(self, change: Change) -> str: ...

    def decode(self, data: str) -> Change: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """JSON and no processors, unless the application says otherwise."""

    serializer: Serializer | None = None
    pre_send: Processor | None = None
    post_receive: Processor | None = None
    evolution: Evolution = field(default_factory=Evolution)

    def __post_init__(self) -> None:
        self._check_callable()
        serializer, schema = self.serializer, self.evolution.schema
        if serializer is None or schema == changes.FIRST_SCHEMA:
            return
        probe = Change(changes.CREATE, "probe", "probe", {}, schema=schema)
        if getattr(serializer.decode(serializer.encode(probe)), "schema", None) != schema:
            raise ConfigurationError(
                "The serializer loses the schema version of a change.",
                hint="Let it carry every member of a change, or build it on the functions encode "
                "and decode of sharedlog.changes.",
            )

    def _check_callable(self) -> None:
        for name in ("pre_send", "post_receive"):
            processor = getattr(self, name)
            if processor is not None and not callable(processor):
                raise ConfigurationError(
                    f"{name} is {processor!r:.100}; it must be a function.",
                    hint="It is called with a Change and returns one, or None to drop it.",
                )
        for name in ("encode", "decode"):
            if self.serializer is not None and not callable(getattr(self.serializer, name, None)):
                raise ConfigurationError(
                    f"The serializer {self.serializer!r:.100} has no method {name}.",
                    hint="Give an object with encode(change) -> str and decode(text) -> Change.",
                )

    def outgoing(self, entries: Iterable[LocalEntry]) -> tuple[list[Outgoing], list[RefusedEntry]]:
        """Entries as they are sent, and those that `pre_send` dropped."""
        if self.pre_send is None and self.serializer is None:
            starts = Beginnings()
            return [Outgoing(e.ticks, e.offset, e.text(starts)) for e in entries], []
        batch, dropped = [], []
        for entry in entries:
            change: Change | None = changes.decode(entry.data())
            if change is not None and self.pre_send is not None:
                change = processed("pre_send", self.pre_send, change)
            if change is None:
                dropped.append(RefusedEntry(entry.ticks, DROPPED))
                continue
            data = self.encode(change._replace(schema=entry.schema, recorded=entry.recorded))
            batch.append(Outgoing(entry.ticks, entry.offset, data))
        return batch, dropped

    def encode(self, change: Change) -> str:
        """A change as the text that is sent."""
        if self.serializer is None:
            return changes.encode(change)
        data = self.serializer.encode(change)
        if not isinstance(data, str):
            raise ConfigurationError(
                f"The serializer's encode() returned {data!r:.100}, which is no text.",
                hint="Return a str; bytes as base64.b64encode(…).decode(), say.",
            )
        return data

    def same(self, entry: LocalEntry, data: str, mine: str, theirs: str) -> bool:
        """Whether `data` is what this entry is sent as, in whatever words. `mine` and `theirs` are
        the devices that the two are of."""
        in_plain = self.pre_send is None and self.serializer is None
        if in_plain and entry.data() == data and (entry.rules is None or mine == theirs):
            return True
        said, other = self._said(entry), self._heard(data)
        if said is None or other is None:
            return False
        return _restated(said, lambda value: handed_over(value, mine)) == _restated(
            other, lambda value: handed_over(value, theirs)
        )

    def told(self, entry: LocalEntry, data: str, mine: str, theirs: str) -> dict[str, Wire]:
        """The increments of `data`, where it is the same but for that they have left their runs
        (see `runs`) in the one and not in the other."""
        said, other = self._said(entry), self._heard(data)
        if entry.rules is None or said is None or other is None:
            return {}
        one, two = Version(entry.ticks, mine), Version(entry.ticks, theirs)
        alike = _restated(said, lambda value: alone(one, value)) == _restated(
            other, lambda value: alone(two, value)
        )
        return increments(other.value, other.rules) if alike else {}

    def same_but_for_dates(self, entry: LocalEntry, ticks: int, data: str) -> bool:
        """Whether `data` is what this entry would be sent as, had it these ticks. Runs of counters
        are named by timestamps; what was counted is the same."""
        said, other = self._said(entry), self._heard(data)
        if said is None or other is None:
            return False
        one, two = increments(said.value, said.rules), increments(other.value, other.rules)
        if any(
            not (is_alone(entry.ticks, one[name]) or is_alone(ticks, two[name]))
            and whole(one[name][TOTAL]) != whole(two[name][TOTAL])
            for name in one.keys() & two.keys()
        ):
            return False
        return _restated(said, _added) == _restated(other, _added)

    def recorded(self, ticks: int, data: str) -> int:
        """When an entry of the log was recorded."""
        other = self._heard(data)
        return ticks if other is None or other.recorded is None else other.recorded

    def increments(self, data: str) -> list[Wire]:
        """The increments that an entry of the log says."""
        other = self._heard(data)
        return [] if other is None else [*increments(other.value, other.rules).values()]

    def _said(self, entry: LocalEntry) -> Change | None:
        """What an entry is sent as."""
        change: Change | None = changes.decode(entry.data())
        if self.pre_send is not None and change is not None:
            change = processed("pre_send", self.pre_send, change)
        return change

    def _heard(self, data: str) -> Change | None:
        try:
            return self._deserialized(data)
        except EntryUnreadable:
            return None

    def decode(self, data: str) -> Change | None:
        """A received entry's change; None if an upgrader or `post_receive` drops it."""
        change = self._deserialized(data)
        if change.schema != self.evolution.schema or self.evolution.names:
            current = self.evolution.current(change)
            if current is None:
                return None
            change = current
        if self.post_receive is None:
            return change
        return processed("post_receive", self.post_receive, change)

    def _deserialized(self, data: str) -> Change:
        if self.serializer is None:
            return changes.decode(data)
        try:
            change = self.serializer.decode(data)
        except Exception as error:
            raise EntryUnreadable(f"The serializer failed: {error!r}.") from error
        if not isinstance(change, Change):
            raise EntryUnreadable(f"The serializer's decode() returned {change!r:.100}.")
        return change


def processed(name: str, processor: Processor, change: Change) -> Change | None:
    """What a processor makes of a change. Nothing is lost where it answers anything else: the
    exchange is undone, and repeated with a better one."""
    answer = processor(change)
    if answer is not None and not isinstance(answer, Change):
        raise ConfigurationError(
            f"{name} returned {answer!r:.100}, which is neither a Change nor None.",
            hint="Return the change, change._replace(value=…), or None to drop it.",
        )
    return answer


def _added(value: Wire) -> Wire:
    return whole(value[ADD])


def _restated(change: Change, restate: Callable[[Wire], Wire]) -> bytes:
    """The change as text, with its increments restated. Python takes 0 and False for equal, and 1
    and 1.0."""
    found = increments(change.value, change.rules)
    values = {**(change.value or {}), **{name: restate(found[name]) for name in found}}
    said = [*change._replace(value=values, rules=dict(change.rules or {}), recorded=None)]
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
