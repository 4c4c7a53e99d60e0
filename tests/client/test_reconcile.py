"""Merging against the dictionary model: any order, duplication and batching gives one answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise, permutations, product
from math import factorial
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sharedlog.changes import Change
from sharedlog.clock import Version
from sharedlog.merge.reconcile import RowState, merge

from ..dictmodel import Row, Write, row_of, set_of

FIELDS = ("x", "y", "z")
DEVICES = ("a", "b", "c")


class Replica:
    """One row on one device, used as `merge` asks for: a state, and values in a table.

    The table knows the columns x and y; z is a field that this application does not know.
    """

    columns = frozenset(("x", "y"))

    def __init__(self) -> None:
        self.state = RowState()
        self.table: dict[str, Any] | None = None

    def merge(self, writes: Iterable[Write]) -> None:
        changes = [(Version(*w.stamp), Change(w.operation, "t", "k", w.value)) for w in writes]
        state = self.state
        written = merge(state, changes, known=self.table)
        if not state.alive:
            self.table = None
        elif self.table is None:
            values, self.table, state.held = {**state.held, **written}, {}, {}
            self._put(values)
        else:
            self._put(written)
            for name in self.columns:
                if state.version_of(name) is None:
                    self.table.pop(name, None)
        if self.table is None:
            state.held.update(written)

    def copy(self) -> Replica:
        other, state = Replica(), self.state
        other.state = replace(state, fields=dict(state.fields), held=dict(state.held))
        other.table = None if self.table is None else dict(self.table)
        return other

    def _put(self, values: Mapping[str, Any]) -> None:
        assert self.table is not None
        for name, value in values.items():
            (self.table if name in self.columns else self.state.held)[name] = value

    def row(self) -> Row:
        """What the replica believes the row to be. Everything must be in exactly one place."""
        state = self.state
        versions = {name: state.version_of(name) for name in state.written_fields()}
        values = {**state.held, **(self.table or {})}
        assert not set(state.held) & set(self.table or ())
        return Row(state.alive, state.died, values, {n: v for n, v in versions.items() if v})


def replica_of(*batches: Iterable[Write]) -> Replica:
    replica = Replica()
    for batch in batches:
        replica.merge(batch)
    return replica


def values_of(names: Iterable[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(
        st.sampled_from(sorted(names)),
        st.sampled_from((None, 0, "", False, 1, "a", [], {"k": 1})),
        max_size=3,
    )


@st.composite
def histories(draw: st.DrawFn, size: int = 9) -> list[Write]:
    """Changes of one row with few timestamps, so that devices often tie."""
    stamps = draw(
        st.lists(st.tuples(st.integers(1, 6), st.sampled_from(DEVICES)), max_size=size, unique=True)
    )
    writes = []
    for stamp in stamps:
        operation = draw(st.sampled_from(("create", "modify", "modify", "delete")))
        value = None if operation == "delete" else draw(values_of(FIELDS))
        writes.append(Write(stamp, operation, value))
    return writes


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Write], list[list[Write]]]:
    """A history; and the same in any order, with repetitions, in any batches."""
    history = draw(histories())
    again = draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    order = draw(st.permutations(history + again))
    cuts = draw(st.lists(st.integers(0, len(order)), max_size=5).map(sorted))
    bounds = [0, *cuts, len(order)]
    return history, [list(order[i:j]) for i, j in pairwise(bounds)]


@settings(max_examples=400, deadline=None)
@given(deliveries())
def test_any_order_duplication_and_batching_gives_the_models_row(
    delivery: tuple[list[Write], list[list[Write]]],
) -> None:
    history, batches = delivery
    assert replica_of(*batches).row() == row_of(history)


@settings(max_examples=200, deadline=None)
@given(histories(), histories())
def test_merging_again_what_is_merged_changes_nothing(
    history: list[Write], more: list[Write]
) -> None:
    replica = replica_of(history)
    before = deepcopy((replica.state, replica.table))
    known = {write.stamp for write in history}
    replica.merge([write for write in reversed(history) if write.stamp in known])
    assert (replica.state, replica.table) == before
    fresh = [write for write in more if write.stamp not in known]
    replica.merge(fresh)
    assert replica.row() == row_of([*history, *fresh])


@settings(max_examples=200, deadline=None)
@given(histories(size=12))
def test_what_merge_returns_is_exactly_what_the_table_lacks(history: list[Write]) -> None:
    state = RowState()
    written = merge(
        state, [(Version(*w.stamp), Change(w.operation, "t", "k", w.value)) for w in history]
    )
    assert written == row_of(history).values


# -- exhaustively ------------------------------------------------------------------------

KINDS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("create", {"x": 1, "y": 1}),
    ("create", {"x": 2}),
    ("modify", {"x": 3}),
    ("modify", {"y": 4}),
    ("delete", None),
)


def timelines(length: int, kinds_of: Sequence[Any] = KINDS) -> Iterator[list[Write]]:
    """Every sequence of operations; values tell which operation wrote them."""
    for kinds in product(kinds_of, repeat=length):
        yield [
            Write((tick, "a"), operation, value and {n: tick * 10 + v for n, v in value.items()})
            for tick, (operation, value) in enumerate(kinds, 1)
        ]


def arrivals(replica: Replica, rest: Sequence[Write]) -> Iterator[Replica]:
    """The replicas after `rest` arrived one by one, in every order."""
    if not rest:
        yield replica
    for index, write in enumerate(rest):
        next_replica = replica.copy() if len(rest) > 1 else replica
        next_replica.merge([write])
        yield from arrivals(next_replica, [*rest[:index], *rest[index + 1 :]])


@pytest.mark.parametrize(("length", "kinds"), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 4)])
def test_every_order_of_arrival_of_every_short_history(length: int, kinds: int) -> None:
    cases = 0
    for timeline in timelines(length, KINDS[-kinds:]):
        expected = row_of(timeline)
        for replica in arrivals(Replica(), timeline):
            assert replica.row() == expected, timeline
            cases += 1
    assert cases == kinds**length * factorial(length)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_every_split_into_applied_and_new(length: int) -> None:
    """Any part of a history may be known already when the rest arrives, in any order, at once."""
    for timeline in timelines(length):
        expected = row_of(timeline)
        for order in permutations(timeline):
            for cut in range(1, length):
                assert replica_of(order[:cut], order[cut:]).row() == expected, (order, cut)


def test_every_order_of_six_operations_of_the_whole_life_of_a_row() -> None:
    """Created, modified, deleted, created again with fewer fields, modified, deleted again; and
    the same with one more creation at the end of each of three devices at one tick."""
    life = [
        Write((1, "a"), "create", {"x": 1, "y": 1, "z": 1}),
        Write((2, "b"), "modify", {"x": 2}),
        Write((3, "a"), "delete"),
        Write((4, "c"), "create", {"y": 4}),
        Write((5, "b"), "modify", {"x": 5, "z": 5}),
        Write((6, "a"), "delete"),
    ]
    ties = [
        Write((7, "b"), "create", {"x": 71}),
        Write((7, "a"), "create", {"x": 72, "y": 72}),
        Write((7, "c"), "delete"),
    ]
    for history in (life, [*life[:3], *ties], [*life[3:], *ties], [*life[2:5], *ties]):
        expected = row_of(history)
        for order in permutations(history):
            assert replica_of(order).row() == expected
            assert replica_of(order[:3], order[3:]).row() == expected
            assert replica_of(*[[write] for write in order]).row() == expected


# -- the rules, one by one ----------------------------------------------------------------


@pytest.mark.parametrize("devices", list(permutations(DEVICES)))
def test_equal_ticks_are_decided_by_the_device_and_not_by_arrival(devices: Sequence[str]) -> None:
    batches = [[Write((5, device), "create", {"x": device})] for device in devices]
    assert replica_of(*batches).row().values == {"x": "c"}


def test_a_modification_never_revives_and_a_later_creation_does() -> None:
    history = [Write((1, "a"), "create", {"x": 1, "y": 1}), Write((2, "a"), "delete")]
    replica = replica_of(history, [Write((3, "b"), "modify", {"x": 3})])
    assert not replica.state.alive and replica.table is None
    replica.merge([Write((2, "b"), "create", {"x": 2, "y": 2})])
    assert replica.table == {"x": 3, "y": 2}  # what was modified in between is not lost


def test_two_creations_merge_field_by_field() -> None:
    replica = replica_of(
        [Write((2, "b"), "create", {"x": 2})], [Write((1, "a"), "create", {"x": 1, "y": 1})]
    )
    assert replica.table == {"x": 2, "y": 1}


def test_the_model_counts_a_repeated_change_once() -> None:
    write = Write((1, "a"), "create", {"x": 1})
    assert set_of([write, write]) == [write]
