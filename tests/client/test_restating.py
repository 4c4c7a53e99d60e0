"""Row states in other words say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sharedlog.changes import Change
from sharedlog.clock import Version
from sharedlog.evolution.formerly import Fields, renamed
from sharedlog.evolution.restating import changes_of, forget, rename_fields
from sharedlog.merge.reconcile import Listed, RowState, merge
from tests.dictmodel import Write

NAMES = ("title", "name", "heading", "body")
VALUES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 99), max_size=3)
WRITES = st.one_of(
    st.tuples(st.sampled_from(("create", "modify")), VALUES),
    st.tuples(st.just("delete"), st.none()),
)
LIVES = st.permutations(range(1, 8)).flatmap(
    lambda times: st.lists(WRITES, max_size=7).map(
        lambda writes: [
            Write((ticks, "d"), operation, value)
            for ticks, (operation, value) in zip(times, writes, strict=False)
        ]
    )
)


def held(changes: Sequence[tuple[Version, Change]]) -> RowState:
    """The state of a row of a table that is not known: all of its values are held."""
    return also(RowState(), changes)


def also(state: RowState, changes: Sequence[tuple[Version, Change]]) -> RowState:
    for change in changes:
        state.held.update(merge(state, [change], known=dict(state.held), bury=True))
        state.parked = "UNKNOWN_COLLECTION" if state.alive else None
    return state


def said(life: Sequence[Write]) -> list[tuple[Version, Change]]:
    return [(Version(*w.stamp), Change(w.operation, "t", "k", w.value)) for w in life]


def known(state: RowState) -> tuple[object, ...]:
    versions = {name: state.version_of(name) for name in state.written_fields()}
    return state.born, state.died, versions, state.held, state.buried


@given(LIVES)
def test_a_state_is_as_good_as_its_entries(life: Sequence[Write]) -> None:
    state = held(said(life))
    assert known(held(changes_of("t", "k", state))) == known(state)


@given(LIVES)
def test_what_is_forgotten_can_be_said_again(life: Sequence[Write]) -> None:
    state = held(said(life))
    before, changes = known(state), changes_of("t", "k", state)
    rest = forget(state)
    assert (rest.held, rest.fields, rest.born) == ({}, {}, None)
    assert known(also(rest, changes)) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"title": ("heading",)},
        {"title": ("heading",), "name": ("heading",)},
        {"name": ("first", "last")},
        {"title": ("new",), "name": ("new", "heading")},
        {"unheard": ("of",)},
    ],
)
@given(LIVES)
def test_to_rename_a_state_is_to_rename_its_entries(fields: Fields, life: Sequence[Write]) -> None:
    state = held(said(life))
    aside = rename_fields(state, fields)
    if aside is not None:
        also(state, changes_of("t", "k", aside))
    expected = held(said([w._replace(value=w.value and renamed(w.value, fields)) for w in life]))
    assert known(state) == known(expected)


def test_what_stands_in_the_table_keeps_its_name_and_what_was_held_is_set_aside() -> None:
    born, later = Version(1, "a"), Version(2, "b")
    state = RowState(born, frozenset(("title", "body")), fields={"heading": later})
    state.held, state.cleared = {"heading": "new"}, {"title": "parent"}
    aside = rename_fields(state, {"title": ("heading",)})
    assert state == RowState(born, frozenset(("heading", "body")), cleared={"heading": "parent"})
    assert aside == RowState(fields={"heading": later}, held={"heading": "new"})


def test_what_a_creation_said_is_set_aside_as_a_creation() -> None:
    """Where a field has a rule, a creation may mean something else than a modification."""
    born = Version(2, "b")
    state = RowState(born, frozenset(("heading",)), fields={"title": Version(1, "a")})
    state.held = {"heading": "new"}
    aside = rename_fields(state, {"title": ("heading",)})
    assert aside is not None
    assert [
        (version, change.operation, change.value) for version, change in changes_of("t", "k", aside)
    ] == [(born, "create", {"heading": "new"})]


def test_of_a_row_that_stands_only_what_is_held_is_forgotten() -> None:
    born, later = Version(1, "a"), Version(2, "b")
    state = RowState(born, frozenset(("x", "new")), None, {"y": later, "newer": later})
    state.held = {"new": 1, "newer": 2}
    assert {
        (v, c.operation, *c.value.items()) for v, c in changes_of("t", "k", state) if c.value
    } == {
        (born, "modify", ("new", 1)),
        (later, "modify", ("newer", 2)),
    }
    assert forget(state) == RowState(born, frozenset(("x",)), None, {"y": later})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"title": 1, "body": 2}, {"heading": 1, "body": 2}),
        ({"title": 1, "heading": 2}, {"heading": 2}),
        ({"heading": 2, "title": 1}, {"heading": 2}),
        ({"name": 1, "body": 3, "title": 2}, {"body": 3, "heading": 2}),
    ],
)
def test_a_change_that_has_several_names_of_one_field_means_the_newest(
    value: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    result = renamed(value, {"title": ("heading",), "name": ("heading",)})
    assert list(result.items()) == list(expected.items())


def test_what_is_listed_of_a_dead_row_is_renamed() -> None:
    """Of its fields nothing else is told."""
    listed = Listed("counter", [(Version(1, "d"), 5)])
    state = RowState(died=Version(2, "d"), writes={"name": listed})
    rename_fields(state, {"name": ("heading",)})
    assert state.writes == {"heading": listed}
