"""Merge rules against the dictionary model: any order and repetition gives the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sharedlog import Change, Counter, Custom, Maximum, Members, Minimum, Version
from sharedlog.changes import Wire
from sharedlog.merge.counter import alone, lost, restamped
from sharedlog.merge.extremes import by_moment, by_number, by_text
from sharedlog.merge.reconcile import RowState, merge
from sharedlog.merge.rules import (
    Writes,
    in_order,
    is_plain,
    misfit,
    stands_alone,
    with_write,
)

from ..rulemodel import Deed, Life, Stamp, life_of

DEVICES = ("a", "b", "c")
MEMBERS = ("u", "v", 1)


def three_latest(values: list[Any]) -> str:
    return "+".join(values[-3:])


RULES = {
    "number": Counter(),
    "set": Members(),
    "high": Maximum(by_number),
    "low": Minimum(by_text),
    "own": Custom("three latest", three_latest),
}
NAMES = {name: rule.name for name, rule in RULES.items()}
FIELDS = (*RULES, "free")


def change_of(deed: Deed, total: int, *, named: bool = True) -> Change:
    """The change that says what was done. `total` is what its run has added so far."""
    if deed.kind == "delete":
        return Change("delete", "t", "k", None)
    value = dict(deed.values)
    if deed.added and deed.began:
        value["number"] = {"add": deed.added, "total": total}
        if deed.began != deed.stamp:
            value["number"]["since"] = deed.began[0]
    if deed.joined or deed.left:
        value["set"] = {"add": list(deed.joined), "remove": list(deed.left)}
    rules = {name: NAMES[name] for name in value if name in NAMES}
    if not named:  # by a client without these rules
        rules = {name: rules[name] for name in rules if name not in deed.values}
    return Change(deed.kind, "t", "k", value, rules or None)


def changes_of(deeds: Iterable[Deed]) -> dict[Stamp, Change]:
    """The changes of a whole history, by their stamps."""
    totals: dict[Stamp, int] = {}
    changes = {}
    for deed in sorted(deeds, key=lambda deed: deed.stamp):
        total = 0
        if deed.began is not None:
            total = totals[deed.began] = totals.get(deed.began, 0) + deed.added
        changes[deed.stamp] = change_of(deed, total, named=deed.knew)
    return changes


class Replica:
    """One row on one device, used as `merge` asks for: a state, and values in a table."""

    def __init__(self, *, bury: bool = False) -> None:
        self.bury = bury
        self.state = RowState()
        self.table: dict[str, Any] | None = None

    def merge(self, changes: Iterable[tuple[Stamp, Change]]) -> dict[str, Any]:
        some = [(Version(*stamp), change) for stamp, change in changes]
        assert [reason for _, change in some if (reason := misfit(change, RULES))] == []
        state = self.state
        written = merge(state, some, known=self.table, bury=self.bury, rules=RULES)
        if not state.alive:
            self.table = None
            state.held.update(written)
        elif self.table is None:
            self.table = {**state.held, **written, **state.ruled(RULES)}
            state.held = {}
        else:
            self.table |= written
            for name in FIELDS:
                if state.version_of(name) is None:
                    self.table.pop(name, None)
        return written

    def values(self) -> dict[str, Any]:
        state = self.state
        values = {**state.held, **state.ruled(RULES), **(self.table or {})}
        return {name: values[name] for name in FIELDS if state.version_of(name) is not None}

    def row(self) -> tuple[bool, Any, dict[str, Any]]:
        return self.state.alive, self.state.died, self.values()


def expected(life: Life) -> tuple[bool, Any, dict[str, Any]]:
    """The same as the model has it."""
    values: dict[str, Any] = {name: life.latest(name) for name in FIELDS if life.plain(name)}
    if "number" in values or any(deed.added for deed in life.deeds):
        values["number"] = life.number("number")
    if "set" in values or any(deed.joined or deed.left for deed in life.deeds):
        values["set"] = life.members("set")
    if "high" in values:
        values["high"] = life.extreme("high", max)
    if "low" in values:
        values["low"] = life.extreme("low", min)
    if "own" in values:
        values["own"] = three_latest(life.counted("own"))
    return life.alive, life.died, values


# -- what devices do ---------------------------------------------------------------------

PLAIN: Mapping[str, st.SearchStrategy[Any]] = {
    "number": st.integers(-3, 3),
    "set": st.one_of(st.none(), st.lists(st.sampled_from(MEMBERS), max_size=3)),
    "high": st.one_of(st.none(), st.integers(0, 4)),
    "low": st.one_of(st.none(), st.sampled_from("abcd")),
    "own": st.sampled_from("xyz"),
    "free": st.integers(0, 9),
}


class Author:
    """A device that does things to the row, with what it knows of the deeds of others."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[Stamp, Deed] = {}

    def next_stamp(self, leap: int) -> Stamp:
        return max((ticks for ticks, _ in self.known), default=0) + 1 + leap, self.name

    def run(self, stamp: Stamp) -> Stamp:
        """Where its present run of additions began."""
        died = life_of(self.known.values()).died
        mine = [d.began for d in self.known.values() if d.began and d.stamp[1] == self.name]
        latest = max(mine, default=None)
        return latest if latest and (died is None or latest > died) else stamp


@st.composite
def deeds(draw: st.DrawFn, size: int = 12) -> list[Deed]:
    """A history of one row: devices do things, and now and then hear of what others did."""
    authors = {name: Author(name) for name in DEVICES}
    history: list[Deed] = []
    kinds = ("create", "modify", "add", "add", "members", "delete", "hear", "hear")
    for _ in range(draw(st.integers(1, size))):
        author = authors[draw(st.sampled_from(DEVICES))]
        kind = draw(st.sampled_from(kinds))
        if kind == "hear":
            author.known |= authors[draw(st.sampled_from(DEVICES))].known
            continue
        deed = draw(deed_of(author, kind))
        author.known[deed.stamp] = deed
        history.append(deed)
    return history


@st.composite
def deed_of(draw: st.DrawFn, author: Author, kind: str) -> Deed:
    stamp = author.next_stamp(draw(st.integers(0, 2)))
    if kind == "add":
        added = draw(st.sampled_from((-2, 1, 5)))
        return Deed(stamp, "modify", added=added, began=author.run(stamp))
    if kind == "members":
        order = draw(st.permutations(MEMBERS))
        return Deed(stamp, "modify", joined=(order[0],), left=(order[1],))
    if kind == "delete":
        return Deed(stamp, "delete")
    names = draw(st.sets(st.sampled_from(FIELDS), max_size=len(FIELDS)))
    values = {name: draw(PLAIN[name]) for name in sorted(names)}
    return Deed(stamp, kind, values, knew=draw(st.booleans()))


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Deed], list[list[Stamp]]]:
    """A history; and the same in any order, with repetitions, in any batches."""
    history = draw(deeds())
    stamps = [deed.stamp for deed in history]
    again = draw(st.lists(st.sampled_from(stamps), max_size=5)) if stamps else []
    order = draw(st.permutations(stamps + again))
    cuts = draw(st.lists(st.integers(0, len(order)), max_size=6).map(sorted))
    return history, [list(order[i:j]) for i, j in pairwise([0, *cuts, len(order)])]


@settings(max_examples=300, deadline=None)
@given(deliveries())
def test_any_order_duplication_and_batching_gives_the_models_row(
    delivery: tuple[list[Deed], list[list[Stamp]]],
) -> None:
    history, batches = delivery
    changes = changes_of(history)
    replica = Replica()
    told: list[Deed] = []
    for batch in batches:
        replica.merge((stamp, changes[stamp]) for stamp in batch)
        told += [deed for deed in history if deed.stamp in batch]
        if all(d in told for d in history if d.added):  # a total tells of additions on their way
            assert replica.row() == expected(life_of(told))
    assert replica.row() == expected(life_of(history))


@settings(max_examples=300, deadline=None)
@given(deliveries())
def test_a_dead_row_is_remembered_as_if_nobody_had_deleted_it(
    delivery: tuple[list[Deed], list[list[Stamp]]],
) -> None:
    history, batches = delivery
    changes = changes_of(history)
    replica = Replica(bury=True)
    for batch in batches:
        replica.merge((stamp, changes[stamp]) for stamp in batch)
    assert replica.row() == expected(life_of(history))
    if replica.state.dead:
        kept = {**replica.state.values_kept(), **replica.state.ruled(RULES, kept=True)}
        undeleted = life_of(deed for deed in history if deed.kind != "delete")
        assert kept == expected(undeleted)[2]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_comes_late_is_added_to_what_a_deletion_buried(last: int) -> None:
    history = [
        Deed((1, "a"), "create", {"number": 10, "set": None}),
        Deed((3, "b"), "modify", added=1, began=(3, "b"), joined=("u",)),
        Deed((5, "a"), "delete"),
    ]
    changes = list(changes_of(history).items())
    replica = Replica(bury=True)
    for change in (*changes[:last], *changes[last + 1 :], changes[last]):
        replica.merge([change])
    kept = {**replica.state.values_kept(), **replica.state.ruled(RULES, kept=True)}
    assert kept == {"number": 11, "set": ["u"]}


def test_an_empty_set_is_remembered_as_one() -> None:
    replica = Replica(bury=True)
    history = [Deed((2, "b"), "delete"), Deed((1, "a"), "create", {"set": None})]
    replica.merge(changes_of(history).items())
    assert {**replica.state.values_kept(), **replica.state.ruled(RULES, kept=True)} == {"set": []}


@settings(max_examples=150, deadline=None)
@given(deeds(), st.randoms())
def test_merging_again_what_is_merged_changes_nothing(history: list[Deed], random: Any) -> None:
    changes = list(changes_of(history).items())
    replica = Replica()
    replica.merge(changes)
    before = deepcopy((replica.state, replica.table))
    random.shuffle(changes)
    assert replica.merge(changes) == {}
    assert (replica.state, replica.table) == before


@settings(max_examples=150, deadline=None)
@given(deeds(), st.data())
def test_additions_in_the_middle_of_a_run_need_not_arrive(
    history: list[Deed], data: st.DataObject
) -> None:
    ends = {deed.began: deed.stamp for deed in sorted(history, key=lambda d: d.stamp) if deed.began}
    middle = [d.stamp for d in history if d.began and ends[d.began] != d.stamp]
    lost = data.draw(st.sets(st.sampled_from(middle))) if middle else set()
    replica = Replica()
    replica.merge((s, c) for s, c in changes_of(history).items() if s not in lost)
    assert replica.values().get("number") == expected(life_of(history))[2].get("number")


@settings(max_examples=100, deadline=None)
@given(deeds())
def test_only_what_can_matter_again_is_kept(history: list[Deed]) -> None:
    """No list is longer than what it could be asked for, and none says what the table says."""
    replica = Replica()
    replica.merge(changes_of(history).items())
    life, lists = life_of(history), replica.state.writes
    runs = {d.began for d in life.deeds if d.began}
    assert len(lists["number"].writes if "number" in lists else ()) <= 1 + len(runs)
    mentioned = [m for _, o in (lists["set"].writes if "set" in lists else ()) for m in _members(o)]
    assert len(mentioned) == len(set(mentioned))
    for name in lists.keys() & {"high", "low"}:
        assert len(lists[name].writes) > 1 or is_plain(lists[name].writes[0][1])


def _members(operand: Any) -> list[Any]:
    if isinstance(operand, list) or is_plain(operand):
        return []  # which may have them once more
    return [*operand["add"], *operand["remove"]]


# -- rule by rule, in every order ----------------------------------------------------------


def row_of(history: Sequence[Deed]) -> dict[str, Any]:
    """The values that a history gives in every order, once and twice."""
    changes = changes_of(history)
    answers = []
    for order in permutations(changes.items()):
        for batches in ([order], [[one] for one in order], [order, order]):
            replica = Replica()
            for batch in batches:
                replica.merge(batch)
            answers.append(replica.values())
    assert [answer for answer in answers if answer != answers[0]] == []
    return answers[0]


def added(stamp: Stamp, number: int, began: Stamp | None = None) -> Deed:
    return Deed(stamp, "modify", added=number, began=began or stamp)


def test_increments_of_all_devices_add_up() -> None:
    history = [
        Deed((2, "a"), "create", {"number": 10}),
        added((4, "a"), 1),
        added((4, "b"), 5),
        added((6, "a"), 2, began=(4, "a")),
        added((6, "c"), -3),
    ]
    assert row_of(history) == {"number": 15}


def test_of_two_creations_the_later_base_counts_and_all_increments() -> None:
    history = [
        Deed((2, "a"), "create", {"number": 10}),
        added((4, "a"), 1),
        Deed((5, "b"), "create", {"number": 20}),
        added((6, "b"), 2),
    ]
    assert row_of(history) == {"number": 23}


def test_increments_that_began_before_the_deletion_belong_to_an_earlier_life() -> None:
    history = [
        Deed((1, "a"), "create", {"number": 10}),
        added((2, "b"), 1),
        Deed((3, "a"), "delete"),
        Deed((4, "a"), "create", {"number": 100}),
        added((5, "b"), 7, began=(2, "b")),  # b has not heard of the deletion
        added((6, "c"), 2),
    ]
    assert row_of(history) == {"number": 102}


def test_increments_without_a_base_begin_at_the_default() -> None:
    change = Change("modify", "t", "k", {"n": {"add": 2, "total": 2}}, {"n": "counter"})
    state = RowState()
    create = Change("create", "t", "k", {}, None)
    written = merge(
        state, [(Version(1, "a"), create), (Version(2, "a"), change)], rules={"n": Counter(40)}
    )
    assert written == {"n": 42}


def test_large_counts_are_exact() -> None:
    counter = Counter()
    base: Writes = [(Version(1, "a"), "9007199254740993")]
    more = counter.written("9007199254740993", "9007199254740995", base, "b")
    assert more == {"add": 2, "total": 2}
    assert counter.value(with_write(base, Version(2, "b"), more)) == "9007199254740995"
    assert counter.written(2**53, str(-(2**53) - 2), [], "b")["add"] == str(-(2**54) - 2)


def test_a_new_device_id_begins_its_totals_anew() -> None:
    counter = Counter()
    writes: Writes = [
        (Version(1, "old"), 5),
        (Version(2, "old"), counter.written(5, 8, [], "old")),
    ]
    change = counter.written(8, 9, writes, "new")
    assert change == {"add": 1, "total": 1}
    assert counter.value(with_write(writes, Version(3, "new"), change)) == 9


def test_a_counters_words_follow_a_restamp() -> None:
    assert restamped({"add": 1, "total": 3, "since": 70}, {70: 7}) == {
        "add": 1,
        "total": 3,
        "since": 7,
    }
    assert restamped({"add": 1, "total": 1}, {70: 7}) == {"add": 1, "total": 1}
    assert restamped(70, {70: 7}) == 70


def increment(ticks: int, device: str, add: int, total: int, since: int) -> tuple[Version, Wire]:
    """An increment of a run, as its device says it."""
    first = {} if since == ticks else {"since": since}
    return Version(ticks, device), {"add": add, "total": total, **first}


def left(write: tuple[Version, Wire], device: str) -> tuple[Version, Wire]:
    """The same, as a copy of that device sends it alone."""
    return Version(write[0].ticks, device), alone(*write)


def test_an_increment_that_stands_alone_is_the_same_whoever_sends_it() -> None:
    first, second = increment(1, "a", 2, 2, 1), increment(5, "a", 3, 5, 1)
    assert left(second, "a.1")[1] == left(second, "a.2")[1]
    assert left(first, "a.1")[1] == left(left(first, "a.1"), "a.1.2")[1]
    counter = Counter()
    assert counter.value([first, left(second, "a.1"), left(second, "a.2")]) == 5
    at_one_tick = increment(5, "a", 4, 6, 1)
    assert counter.value([first, at_one_tick, left(second, "a.1")]) == 9


def test_what_a_log_lost_counts_until_it_is_there_again() -> None:
    counter = Counter()
    first, gone = increment(1, "a", 2, 2, 1), increment(9, "a", 3, 5, 1)
    known = [first, (gone[0], lost(gone[1]))]
    assert counter.value(known) == 5
    assert counter.value(with_write(known, *gone)) == 5
    assert counter.value(with_write(known, *left(gone, "a.1"))) == 5
    handed_over = {**dict(gone[1]), "of": "a"}
    assert counter.value(with_write(known, Version(9, "a.1"), handed_over)) == 5
    # The run went on elsewhere, from where the log ended.
    assert counter.value(with_write(known, *increment(5, "a", 7, 9, 1))) == 5
    assert counter.value(with_write(known, *increment(12, "a", 7, 9, 1))) == 9
    both = with_write(with_write(known, *left(gone, "a.1")), *increment(5, "a", 7, 9, 1))
    assert counter.value(both) == 12


RUN = [increment(t, "a", t, t * (t + 1) // 2, 1) for t in range(1, 5)]
ALONE = [left(write, f"a.{n}") for n, write in enumerate(RUN)]
BASE: tuple[Version, Wire] = (Version(2, "b"), 100)


@given(
    st.sampled_from(RUN),
    st.lists(st.sampled_from([*RUN, *ALONE, BASE]), unique_by=lambda write: write[0]),
    st.data(),
)
def test_what_is_lost_may_be_there_again_in_any_order(
    gone: tuple[Version, Wire], some: list[tuple[Version, Wire]], data: st.DataObject
) -> None:
    counter = Counter()
    known: Writes = [(gone[0], lost(gone[1]))]
    at_once = [write for write in known if write[0] not in dict(some)]
    for write in data.draw(st.permutations(some)):
        known = counter.keep(with_write(known, *write))
    assert known == counter.keep(in_order([*at_once, *some]))


def test_of_each_member_the_latest_word_counts() -> None:
    history = [
        Deed((2, "a"), "create", {"set": ["u", "v"]}),
        Deed((4, "a"), "modify", left=("u",)),
        Deed((5, "b"), "modify", joined=("u",), left=("v",)),
        Deed((6, "c"), "modify", joined=(1,)),
    ]
    assert row_of(history) == {"set": ["u", 1]}


def test_two_creations_give_the_members_of_both() -> None:
    history = [
        Deed((2, "a"), "create", {"set": ["u"]}),
        Deed((3, "b"), "create", {"set": ["v"]}),
        Deed((4, "c"), "create", {"free": 1}),
    ]
    assert row_of(history) == {"set": ["u", "v"], "free": 1}


def test_a_list_from_a_client_without_the_rule_replaces_what_was_there() -> None:
    history = [
        Deed((2, "a"), "create", {"set": ["u"]}),
        Deed((3, "a"), "modify", joined=("v",)),
        Deed((5, "b"), "modify", {"set": ["w"]}),
        Deed((6, "a"), "modify", joined=(1,)),
    ]
    assert row_of(history) == {"set": ["w", 1]}


def test_a_deletion_takes_the_largest_and_leaves_what_was_written_after_it() -> None:
    history = [
        Deed((1, "a"), "create", {"high": 9, "low": "a"}),
        Deed((3, "b"), "modify", {"high": 5, "low": "c"}),
        Deed((4, "b"), "modify", {"high": 3, "low": "b"}),
        Deed((2, "c"), "delete"),
        Deed((5, "c"), "create", {}),
    ]
    assert row_of(history) == {"high": 5, "low": "b"}


def test_what_is_replaced_takes_nothing_else_along() -> None:
    """Written without the rule, and later replaced: what it outdid for a while counts again."""
    history = [
        Deed((1, "a"), "create", {"high": 0, "low": "c"}, knew=False),
        Deed((2, "b"), "modify", {"high": 3, "low": "b"}),
        Deed((3, "a"), "modify", {"high": 9, "low": "a"}, knew=False),
        Deed((4, "a"), "modify", {"high": 1, "low": "d"}, knew=False),
    ]
    assert row_of(history) == {"high": 3, "low": "b"}


def test_null_is_no_largest_and_no_smallest() -> None:
    history = [
        Deed((1, "a"), "create", {"high": None, "low": None}),
        Deed((2, "a"), "modify", {"high": 0, "low": "z"}),
        Deed((3, "b"), "modify", {"high": None, "low": None}),
    ]
    assert row_of(history) == {"high": 0, "low": "z"}


def test_an_own_rule_gets_all_values_in_the_order_of_their_versions() -> None:
    history = [
        Deed((1, "b"), "create", {"own": "b"}),
        Deed((1, "a"), "create", {"own": "a"}),
        Deed((3, "a"), "modify", {"own": "c"}),
    ]
    assert row_of(history) == {"own": "a+b+c"}


def test_a_row_from_before_tracking_is_the_base_of_what_follows() -> None:
    state = RowState(Version(0, ""))
    table = {"number": 5, "set": ["u"], "high": 7, "low": "b", "own": "o", "free": 1}
    deed = Deed((2, "a"), "modify", {"high": 3, "low": "c", "own": "p"}, 1, (2, "a"), ("v",))
    [(stamp, change)] = changes_of([deed]).items()
    written = merge(state, [(Version(*stamp), change)], known=table, rules=RULES)
    assert written == {"number": 6, "set": ["u", "v"], "high": 7, "low": "b", "own": "o+p"}


# -- what fits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("number", 1.5, True),
        ("number", True, True),
        ("number", None, True),
        ("number", "x", True),
        ("number", {"add": 1, "total": 1}, True),
        ("number", {"add": 1}, False),
        ("number", {"add": 1, "total": 1, "since": "x"}, False),
        ("set", "u", True),
        ("set", {"add": [], "remove": []}, True),
        ("set", {"add": []}, False),
        ("set", {"raw": "no json"}, True),
        ("high", "x", True),
        ("high", "NaN", True),
        ("low", 5, True),
        ("low", {"raw": 5}, True),
    ],
)
def test_what_does_not_fit_a_rule(name: str, value: Any, plain: bool) -> None:
    assert not RULES[name].fits(value, plain=plain)
    operation = "create" if plain else "modify"
    change = Change(operation, "t", "k", {name: value}, {name: NAMES[name]})
    assert name in (misfit(change, RULES) or "")


def test_a_rule_that_is_not_declared_is_never_guessed() -> None:
    for named in ({"free": "counter"}, {"number": "maximum"}, {"new": "counter"}):
        [name] = named
        change = Change("modify", "t", "k", {name: 1}, named)
        assert (
            misfit(change, RULES)
            == f"The field {name} has not the merge rule {named[name]!r} here."
        )
    assert misfit(Change("modify", "t", "k", {"free": {"add": 1}}, None), RULES) is None


def test_orders() -> None:
    assert sorted(["10", 9.5, "-Infinity", 2**60, False, {"raw": 0.5}], key=by_number) == [
        "-Infinity",
        False,
        {"raw": 0.5},
        9.5,
        "10",
        2**60,
    ]
    moments = ["2024-01-01T12:00:00+02:00", "2024-01-01T10:30:00", "2024-01-01T11:00:00+00:00"]
    assert sorted(moments, key=by_moment) == moments


def test_the_only_creation_of_a_row_may_say_another_value_than_it_gets() -> None:
    values = {"number": 5, "set": ["u", "v"], "own": "x", "free": [2, 1]}
    assert stands_alone(Version(1, "a"), values, RULES, RULES)
    assert not stands_alone(Version(1, "a"), {"set": ["v", "u"]}, RULES, RULES)
    assert not stands_alone(Version(1, "a"), {"set": None}, RULES, RULES)
    twice = {"x": Custom("twice", lambda values: 2 * values[-1])}
    assert not stands_alone(Version(1, "a"), {"x": 1}, twice, twice)


def test_a_creation_needs_a_list_where_it_was_written_without_the_rule() -> None:
    assert not stands_alone(Version(1, "a"), {"high": 5}, {}, RULES)
    known = {"high": RULES["high"].known_since(7)}
    assert not stands_alone(Version(7, "a"), {"high": 5}, RULES, known)
    assert stands_alone(Version(8, "a"), {"high": 5}, RULES, known)


def test_an_own_rule_that_fails_gives_what_no_column_takes() -> None:
    value = Custom("bad", lambda values: 1 // 0).value([(Version(1, "a"), 1)])
    assert value == {
        "raw": {
            "the rule 'bad' failed: ZeroDivisionError('integer division or modulo by zero')": None
        }
    }
