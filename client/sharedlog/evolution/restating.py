"""Row states in other words: under other names, or as the changes they come from. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias, TypeVar

from ..changes import CREATE, DELETE, MODIFY, Change, Wire, dumps, loads
from ..clock import BEFORE_TRACKING, Version
from ..merge.reconcile import BIRTH, Listed, RowState
from ..merge.rules import PLAIN, is_plain, marked, value_in
from .evolution import Evolution
from .formerly import Fields

T = TypeVar("T")
Values: TypeAlias = Mapping[str, Wire]

ASIDE = "sharedlog_aside "
"""Begins the name of a collection that is none: of states that are to be merged with the rows of
another one, as soon as these are known under its names."""


def aside_of(collection: str, *what: str) -> str:
    """The collection of what is set aside until it can be merged with the rows of this one."""
    return ASIDE + dumps((collection, *what))


def said_of(aside: str) -> list[str]:
    """What such a name says: the collection, and why. Nothing, if it came with an entry."""
    with suppress(ValueError):
        said: Wire = loads(aside.removeprefix(ASIDE))
        if type(said) is list and all(type(part) is str for part in said):
            return said
    return []


def given_up(collection: str) -> str:
    """Where the changes of a table are that a former program of this file tracked."""
    return aside_of(collection, "given up")


def rename_fields(state: RowState, fields: Fields) -> RowState | None:
    """Give the fields of a state the names of today.

    Of two that become one, that which stands in the table stays (or any, if none does). The other
    one was held; it is returned as a state of its own, to be merged again.
    """
    versions = {name: state.version_of(name) for name in state.written_fields()}
    aside = RowState()
    sources: dict[str, str] = {}
    for new, formers in _by_name_of_today(fields).items():
        present = [n for n in (new, *formers) if n in versions or n in state.held]
        present.sort(key=state.held.__contains__)
        if present:
            sources[new] = present[0]
        for name in present[1:]:
            version = versions.get(name) if name in state.held else None
            if version is not None and version > aside.fields.get(new, BEFORE_TRACKING):
                aside.fields[new], aside.held[new] = version, state.held[name]
    if state.born in aside.fields.values():
        aside.born, aside.parked = state.born, "set aside"

    def renamed(values: Mapping[str, T]) -> dict[str, T]:
        result = {n: v for n, v in values.items() if n not in fields and n not in sources}
        return result | {new: values[old] for new, old in sources.items() if old in values}

    versions = renamed(versions)
    state.shape = frozenset(n for n, v in versions.items() if v == state.born)
    state.fields = {n: v for n, v in versions.items() if v and v != state.born}
    state.held, state.cleared = renamed(state.held), renamed(state.cleared)
    former = state.writes
    state.writes = renamed(former)
    for old in (name for name in fields if name in former):  # of dead rows, nothing else is told
        for new in fields[old]:
            if new not in sources:
                state.writes.setdefault(new, former[old])
    state.buried = _renamed_buried(state, fields)
    return aside if aside.held else None


def _by_name_of_today(fields: Fields) -> dict[str, list[str]]:
    formers: dict[str, list[str]] = defaultdict(list)
    for old, names in fields.items():
        for new in names:
            formers[new].append(old)
    return formers


def _renamed_buried(state: RowState, fields: Fields) -> dict[str, tuple[Version, Wire]]:
    """The latest of those that become one; of several of one change, that of the newest name."""
    result = {name: buried for name, buried in state.buried.items() if name not in fields}
    for former in (name for name in fields if name in state.buried):
        buried = state.buried[former]
        for new in fields[former]:
            result[new] = max(result.get(new, buried), buried, key=_version)
    written = state.written_fields()
    return {name: buried for name, buried in result.items() if name not in written}


def _version(buried: tuple[Version, Wire]) -> Version:
    return buried[0]


def upgrade(
    state: RowState, collection: str, key: Wire, schema: int, evolution: Evolution
) -> RowState:
    """A state whose values beside the tables passed the upgraders from this schema version on.
    Raises EntryUnreadable."""
    dropped = False

    def upgraded(values: Mapping[str, Wire], rules: Mapping[str, str] | None = None) -> Values:
        nonlocal dropped
        if not values:
            return values
        change = evolution.current(Change(MODIFY, collection, key, values, rules, schema))
        dropped = dropped or change is None
        return values if change is None else change.value or {}

    def of(name: str, listed: Listed) -> Listed:
        return Listed(listed.rule, [(v, said(name, listed.rule, o)) for v, o in listed.writes])

    def said(name: str, rule: str, operand: Wire) -> Wire:
        if is_plain(operand):
            return {PLAIN: upgraded({name: value_in(operand)})[name]}
        return marked(upgraded({name: value_in(operand)}, {name: rule})[name])

    values = upgraded({name: value for name, (_, value) in state.buried.items() if name != BIRTH})
    result = replace(
        state,
        held=dict(upgraded(state.held)),
        cleared=dict(upgraded(state.cleared)),
        buried={n: (v, values.get(n)) for n, (v, _) in state.buried.items()},
        writes={name: of(name, listed) for name, listed in state.writes.items()},
    )
    return forget(state) if dropped else result


def changes_of(collection: str, key: Wire, state: RowState) -> list[tuple[Version, Change]]:
    """The changes that the values beside the tables come from: as good as their entries."""
    written: dict[Version, dict[str, Wire]] = defaultdict(dict)
    births = {state.buried[BIRTH][0]} if BIRTH in state.buried else set()
    if state.born is not None and state.parked is not None:
        births.add(state.born)
    for birth in births:
        written[birth] = {}
    for name, value in state.held.items():
        if (latest := state.version_of(name)) is not None:
            written[latest][name] = value
    for name, (version, value) in state.buried.items():
        if name != BIRTH:
            written[version][name] = value
    changes = [
        (version, Change(CREATE if version in births else MODIFY, collection, key, values))
        for version, values in written.items()
        if version.ticks  # else it stood in the table before there were entries
    ]
    if state.died is not None:
        changes.append((state.died, Change(DELETE, collection, key, None)))
    return changes


def forget(state: RowState) -> RowState:
    """The state without the changes that the values beside the tables come from; a deletion is
    never forgotten."""
    if not state.alive or state.parked is not None:
        return RowState(died=state.died)
    state.fields = {n: v for n, v in state.fields.items() if n not in state.held}
    state.shape, state.held = state.shape.difference(state.held), {}
    return state
