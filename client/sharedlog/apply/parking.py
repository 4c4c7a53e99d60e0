"""What is parked, and what the application decides about it.

A decision is an ordinary change: it is recorded, sent, and merged on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from ..changes import DELETE, MODIFY, Entry, Wire, dumps, loads
from ..errors import ConfigurationError, NotParked
from ..evolution.restating import given_up, said_of
from ..journal.inbox import Inbox
from ..journal.journal import OPERATION_CODES, Journal, Record
from ..merge.reconcile import NO_RULES
from ..merge.rules import Rules
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..raw import NotCanonical
from ..tables.ruled import RuledWrites
from ..tables.statements import record
from ..tables.versions import Versions


@dataclass(frozen=True, slots=True)
class Parked:
    """A row that cannot stand in its table, or an entry that cannot be read.

    Attributes:
        code: Why, for programs: PARENT_MISSING, PARENT_DELETED, UNIQUE, VALUE_UNFIT, CONSTRAINT,
            UNKNOWN_COLLECTION; UNREADABLE for an entry.
        reason: Why, for people.
        collection, pk: Which row (`pk` as it travels); None for an entry.
        values: What is known of the row, by field, as it travels.
        entry: The entry that cannot be read; None for a row.
    """

    code: str
    reason: str
    collection: str | None = None
    pk: Wire = None
    values: Mapping[str, Wire] = field(default_factory=dict)
    entry: Entry | None = None


def parked_row(collection: str, pk: str, why: str, values: Mapping[str, Wire]) -> Parked:
    """A row by its pk as JSON text; `why` is as it is stored: the code and the reason."""
    code, _, reason = why.partition(": ")
    return Parked(code, reason, collection, loads(pk), values)


class Parking:
    """Lists what is parked; records decisions inside the open transaction."""

    def __init__(
        self, registry: Registry, journal: Journal, versions: Versions, inbox: Inbox
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._versions = versions
        self._inbox = inbox

    def all(self) -> list[Parked]:
        """Rows by collection and pk, then entries in order of arrival."""
        names = {name: name for name in self._versions.waiting_collections()}
        for aside in self._versions.asides():
            if aside == given_up(name := said_of(aside)[0]):
                names[aside] = name
        rows = [
            parked_row(name, pk, state.parked or "", state.values_parked(self._rules(name)))
            for place, name in sorted(names.items(), key=itemgetter(1))
            for pk, state in self._versions.parked(place).items()
        ]
        return rows + [
            Parked("UNREADABLE", reason, entry=entry) for entry, reason in self._inbox.unreadable()
        ]

    def change(self, parked: Parked, values: Mapping[str, Any]) -> None:
        """Give fields of a parked row new values."""
        _check(parked)
        tracked = self._tracked(parked)
        wires = {name: self._wire(tracked, name, value) for name, value in values.items()}
        pk, held = self._held(parked)
        if tracked.rules:
            wires = RuledWrites(self._journal, self._registry).said(tracked, pk, held, wires)
        self._journal.append([record(tracked, MODIFY, pk, wires)])
        self._versions.fold_local()

    def discard(self, parked: Parked) -> None:
        """Delete a parked row on all devices; forget an entry that cannot be read on this one."""
        _check(parked)
        if parked.entry is not None:
            self._inbox.forget(parked.entry)
            return
        pk, held = self._held(parked)
        tracked = self._registry.collection(parked.collection or "")
        if tracked is None:
            deletion = Record(parked.collection or "", pk, OPERATION_CODES[DELETE], None)
        else:
            deletion = record(tracked, DELETE, pk, held)
        self._journal.append([deletion])
        self._versions.fold_local()
        self._versions.forget([(given_up(deletion.collection), pk)])

    def _held(self, parked: Parked) -> tuple[str, Mapping[str, Wire]]:
        """The row's pk as JSON text and its values, if it is still parked."""
        self._versions.fold_local()
        pk, name = dumps(parked.pk), parked.collection or ""
        for place in (name, given_up(name)):
            state = self._versions.load(place, [pk]).get(pk)
            if state is not None and state.parked is not None:
                return pk, state.values_parked(self._rules(name))
        raise NotParked(
            f"The row {pk} of {name} is not parked any more.",
            hint="Ask for sync.parked() again; the row may stand in its table now.",
        )

    def _rules(self, collection: str) -> Rules:
        tracked = self._registry.collection(collection)
        return tracked.rules if tracked else NO_RULES

    def _tracked(self, parked: Parked) -> Tracked:
        tracked = self._registry.collection(parked.collection or "")
        if tracked is None:
            raise ConfigurationError(
                "Only rows of tracked tables can be given new values.",
                hint="discard() forgets an entry that cannot be read.",
            )
        return tracked

    def _wire(self, tracked: Tracked, name: str, value: Any) -> Wire:
        column = tracked.by_name.get(name)
        if column is None:
            raise ConfigurationError(
                f"{tracked.model.__name__} has no field {name!r} beside its key.",
                hint=f"Its fields are {', '.join(tracked.by_name)}.",
            )
        try:
            converted = column.converted(value) if column.codec.own else value
            return column.exact_wire(converted)
        except NotCanonical:
            raise ConfigurationError(
                f"{value!r} is not a value that {column} gives back.",
                hint="Give a plain value of the field's own type.",
            ) from None


def _check(parked: Any) -> None:
    if not isinstance(parked, Parked):
        raise ConfigurationError(
            f"{parked!r:.100} is not what parked() lists.",
            hint="Give one of sync.parked(): sync.resolve(sync.parked()[0], field=value).",
        )
