"""The client log: timestamps, groups, what is sent and what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import peewee
import pytest
from hypothesis import given, settings, strategies as st

from sharedlog.clock import Version
from sharedlog.exchange.restamping import restamp
from sharedlog.groups import ENVELOPE, series
from sharedlog.journal.journal import DROPPED, Journal, Record, RefusedEntry
from sharedlog.limits import Limits
from sharedlog.merge.reconcile import RowState
from sharedlog.tables.versions import Versions

MS = 1024


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    yield from opened(tmp_path / "app.db", clock)


def opened(path: Path, clock: Clock) -> Iterator[Journal]:
    database = peewee.SqliteDatabase(str(path), pragmas={"synchronous": 0})
    made = Journal(database, clock)
    made.create_tables()
    yield made
    database.close()


def records(count: int, size: int = 5) -> list[Record]:
    return [Record("note", f'"{n}"', 0, '"' + "x" * (size - 2) + '"') for n in range(count)]


def append(journal: Journal, *counts: int) -> list[int]:
    """Transactions of so many records each; their first timestamps."""
    first = []
    for count in counts:
        with journal.transaction():
            first.append(journal.append(records(count)))
    return first


def ticks(journal: Journal) -> list[int]:
    return [row[0] for row in journal.run("SELECT ticks FROM sharedlog_entry ORDER BY ticks")]


def offsets(journal: Journal) -> list[int]:
    cursor = journal.run("SELECT offset_ticks FROM sharedlog_entry ORDER BY ticks")
    return [row[0] for row in cursor.fetchall()]


# -- timestamps and groups ---------------------------------------------------------------


def test_timestamps_are_wall_time_or_later_than_the_last(journal: Journal, clock: Clock) -> None:
    assert append(journal, 1, 2, 1) == [clock.ms * MS + n for n in (0, 1, 3)]
    clock.ms += 1
    assert append(journal, 1) == [clock.ms * MS]
    clock.ms -= 500
    assert append(journal, 1) == [(clock.ms + 500) * MS + 1]
    assert ticks(journal) == sorted(set(ticks(journal)))


def test_timestamps_are_later_than_what_was_seen(journal: Journal, clock: Clock) -> None:
    with journal.transaction():
        journal.lift_clock(clock.ms * MS + 7)
        journal.lift_clock(5)
    assert journal.next_ticks() == clock.ms * MS + 8
    assert append(journal, 1) == [clock.ms * MS + 8]


def test_entries_of_a_transaction_are_a_group(journal: Journal, clock: Clock) -> None:
    with journal.transaction():
        journal.append(records(2))
        clock.ms += 3
        journal.append(records(1))
    append(journal, 2)
    assert offsets(journal) == [0, 1, 3 * MS, 0, 1]


def test_every_entry_of_a_transaction_has_its_own_time(journal: Journal, clock: Clock) -> None:
    with journal.transaction():
        restamp(journal, 0, 400)  # this clock is 400 ms ahead
        for _ in range(3):
            journal.append(records(1))
            clock.ms += 10
    start = (clock.ms - 430) * MS
    assert ticks(journal) == [start, start + 10 * MS, start + 20 * MS]
    assert offsets(journal) == [0, 10 * MS, 20 * MS]


def test_a_group_outlives_its_first_entry_and_a_clock_that_goes_back(
    journal: Journal, clock: Clock
) -> None:
    with journal.transaction():
        journal.lift_clock(clock.ms * MS + 3)
        with pytest.raises(KeyError), journal.savepoint():
            journal.append(records(2))
            raise KeyError
        clock.ms -= 100
        journal.append(records(1))
        journal.append(records(1))
    start = (clock.ms + 100) * MS + 4
    assert ticks(journal) == [start, start + 1]
    assert offsets(journal) == [0, 1]


def test_a_large_transaction_becomes_several_groups(journal: Journal) -> None:
    journal.limits = Limits(batch_entries=3)
    with journal.transaction():
        journal.append(records(2))
        journal.append(records(5))
    assert offsets(journal) == [0, 1, 2, 0, 1, 2, 0]
    journal.limits = Limits(batch_bytes=4 * ENVELOPE + 60)
    with journal.transaction():
        first = journal.append(records(4))
    assert offsets(journal)[7:] == [0, 1, 0, 1]
    assert first == ticks(journal)[7]
    assert Limits().group_entries == 5_000


def test_what_is_taken_back_fills_no_group(journal: Journal) -> None:
    journal.limits = Limits(batch_entries=3)
    with journal.transaction():
        journal.append(records(2))
        for _ in range(5):
            journal.take_back(journal.append(records(1)))
        journal.take_back(journal.append(records(4)))
        journal.append(records(1))
    assert offsets(journal) == [0, 1, 2]


def test_what_was_appended_can_be_taken_back(journal: Journal) -> None:
    append(journal, 2)
    with journal.transaction():
        journal.append(records(1))
        journal.take_back(journal.append(records(3)))
        journal.append(records(1))
    assert offsets(journal) == [0, 1, 0, 1]


def test_the_tables_are_made_once(journal: Journal) -> None:
    append(journal, 1)
    journal.create_tables()
    assert len(ticks(journal)) == 1


def test_state_is_kept(journal: Journal) -> None:
    journal.set_state(one="1", two="", three=None)
    assert [journal.state(name) for name in ("one", "two", "three", "four")] == [
        "1",
        "",
        None,
        None,
    ]
    assert journal.device_id() == ""
    journal.set_state(device="me")
    assert journal.device_id() == "me"


# -- what is sent ------------------------------------------------------------------------


def sizes(journal: Journal, limit: int, byte_limit: int = 10**9) -> list[int]:
    """The sizes of the batches in which all is sent."""
    found = []
    while batch := journal.unsent(limit, byte_limit):
        found.append(len(batch))
        with journal.transaction():
            journal.mark_sent([entry.ticks for entry in batch], [])
    return found


def test_a_batch_holds_whole_groups(journal: Journal) -> None:
    append(journal, 2, 2, 3, 1, 5, 1)
    assert sizes(journal, 4) == [4, 4, 5, 1]


def test_a_batch_is_bounded_by_bytes(journal: Journal) -> None:
    append(journal, 1, 1, 1, 1)
    assert sizes(journal, 100, byte_limit=150) == [2, 2]
    append(journal, 3)
    assert sizes(journal, 100, byte_limit=1) == [3]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=15), st.integers(1, 8), st.integers(1, 2_000))
def test_batches_hold_everything_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, counts: Sequence[int], limit: int, byte_limit: int
) -> None:
    for journal in opened(tmp_path_factory.mktemp("batches") / "app.db", Clock()):
        append(journal, *counts)
        sent: list[int] = []
        while batch := journal.unsent(limit, byte_limit):
            groups = {entry.ticks - entry.offset for entry in batch}
            assert len(groups) == 1 or len(batch) <= limit
            sent += [entry.ticks for entry in batch]
            with journal.transaction():
                journal.mark_sent([entry.ticks for entry in batch], [])
            assert journal.count_unsent() == sum(counts) - len(sent)
        assert sent == ticks(journal)
        assert journal.oldest_unsent() is None


def test_only_what_is_named_is_marked(journal: Journal) -> None:
    append(journal, 1, 1, 1, 1)
    one, two, three, four = ticks(journal)
    with journal.transaction():
        journal.mark_sent([three], [RefusedEntry(two, "no")])
    assert [entry.ticks for entry in journal.unsent(9, 999)] == [one, four]
    assert (journal.count_unsent(), journal.oldest_unsent()) == (2, one)
    with journal.transaction():
        journal.mark_sent([one], [])
    assert journal.oldest_unsent() == four
    assert journal.unshared_rows(0) == [("note", '"0"')]
    with journal.transaction():
        journal.unsend()
    assert [entry.ticks for entry in journal.unsent(9, 999)] == [one, three, four]


@given(st.lists(st.integers(1, 40), unique=True))
def test_a_series_has_no_gaps_and_leaves_none_out(given: list[int]) -> None:
    found = list(series(given))
    assert [tick for first, last in found for tick in range(first, last + 1)] == sorted(given)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(found))


def test_pruning_keeps_what_is_not_sent_not_folded_or_refused(
    journal: Journal, clock: Clock
) -> None:
    append(journal, 1, 1, 1, 1, 1)
    one, two, three, four, five = ticks(journal)
    with journal.transaction():
        journal.mark_sent([one, two, five], [RefusedEntry(three, "no")])
        journal.set_state(folded_until=str(four))
        assert journal.prune(two) == 2
        assert journal.prune(five) == 0
    assert ticks(journal) == [three, four, five]
    with journal.transaction():
        journal.set_state(folded_until=str(five))
        assert journal.prune(five) == 1
    clock.ms -= 999
    assert append(journal, 1)[0] > five


def test_pruning_takes_what_the_application_kept_back_if_its_time_is_settled(
    journal: Journal,
) -> None:
    """A timestamp that may be corrected yet must not be fixed by forgetting its entry."""
    append(journal, 1, 1, 1)
    one, two, three = ticks(journal)
    with journal.transaction():
        journal.mark_sent([two], [RefusedEntry(one, DROPPED), RefusedEntry(three, DROPPED)])
        journal.set_state(folded_until=str(three))
        assert journal.prune(three) == 2
    assert ticks(journal) == [three]
    with journal.transaction():
        journal.lift_clock(three)  # somebody else's entry was later
        assert journal.prune(three) == 1


def test_entries_say_what_they_are(journal: Journal) -> None:
    with journal.transaction():
        journal.append([Record('no"te', "[1]", 1, '{"a":2}'), Record("note", '"x"', 2, None)])
    one, two = journal.unsent(5, 999)
    assert one.data() == (
        '{"operation":"modify","collection":"no\\"te","pk":[1],"field":null,"value":{"a":2}}'
    )
    assert two.data() == (
        '{"operation":"delete","collection":"note","pk":"x","field":null,"value":null}'
    )
    assert [entry.ticks for entry in journal.unfolded(5)] == [one.ticks, two.ticks]
    assert journal.has_unfolded(1) and not journal.has_unfolded(2)


# -- new timestamps ----------------------------------------------------------------------


def test_entries_get_new_timestamps_in_order(journal: Journal, clock: Clock) -> None:
    append(journal, 1, 3, 2)
    old = ticks(journal)
    with journal.transaction():
        journal.mark_sent(old[:1], [])
        renamed = restamp(journal, old[1], 600)
    new = ticks(journal)
    assert renamed == dict(zip(old[1:], new[1:], strict=True))
    assert new[0] == old[0]
    assert new[1] == old[0] + 1  # later than what is sent, however slow the clock is
    assert offsets(journal) == [0, 0, 1, 2, 0, 1]
    clock.ms += 10_000
    assert append(journal, 1) == [(clock.ms - 600) * MS]


def test_a_corrected_clock_is_trusted_again(journal: Journal, clock: Clock) -> None:
    with journal.transaction():
        restamp(journal, 0, 900)
        journal.trust_clock(1_000)
    assert journal.next_ticks() == (clock.ms - 900) * MS
    with journal.transaction():
        journal.trust_clock(200)
    assert journal.next_ticks() == (clock.ms - 200) * MS


# -- what is read once in a transaction -----------------------------------------------------


def test_what_is_kept_follows_what_is_written_and_taken_back(journal: Journal) -> None:
    journal.set_state(one="1")
    with journal.transaction(), journal.keeping():
        assert journal.state("one") == "1"
        journal.set_state(one="2", other="x")
        assert (journal.state("one"), journal.state("other")) == ("2", "x")
        with pytest.raises(ZeroDivisionError), journal.savepoint():
            journal.set_state(one="3")
            assert journal.state("one") == "3"
            raise ZeroDivisionError
        assert journal.state("one") == "2"
        journal.forget_state(["other"])
        assert journal.state("other") is None
    assert journal.state("one") == "2"


def test_nothing_is_kept_outside_of_a_transaction_of_our_own(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError), journal.transaction(), journal.keeping():
        journal.set_state(one="2")
        raise ZeroDivisionError
    assert journal.state("one") is None
    with journal.transaction():
        assert journal.state("one") is None
        journal.database.execute_sql("INSERT INTO sharedlog_state VALUES ('one', '3')")
        assert journal.state("one") == "3"


def test_numbers_that_were_taken_back_are_given_anew(journal: Journal) -> None:
    """A cached number would be another list's by then."""
    shape = {name: frozenset(name) for name in ("ab", "cd")}
    written = {name: RowState(Version(7, "d"), shape[name]) for name in shape}
    with journal.transaction(), journal.keeping():
        versions = Versions(journal)
        with pytest.raises(ZeroDivisionError), journal.savepoint():
            versions.store("note", [("1", written["ab"])])
            assert versions.load("note", ["1"])["1"].shape == shape["ab"]
            raise ZeroDivisionError
        versions.forget_numbers()
        versions.store("note", [("2", written["cd"])])
        assert versions.load("note", ["2"])["2"].shape == shape["cd"]
