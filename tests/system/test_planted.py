"""The harness finds bugs: each one planted in our code is caught, by the simulation or by name.

Without the bug the same checks pass: that is what the other test modules are. Here each check
is also run once without any bug, in the same way, so that what catches is the bug alone.

A run plants a sixth of the bugs, another one for each commit; `make plants` plants all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from sharedlog_service.api.schema import build_schema
from tests.client import test_apply, test_clock, test_lineage, test_placement_found

from . import plants, plants_of_tables, test_copies, test_faults
from .copies import MemoryHome, files
from .plants import PLANTS, Plant
from .simulation.world import Failed, run_world

PARTS = 6


def chosen() -> list[Plant]:
    """The bugs that are planted in this run: PLANTS says all, or which part of them."""
    part = os.environ.get("PLANTS") or _part_of_this_commit()
    return PLANTS if part == "all" else PLANTS[int(part) % PARTS :: PARTS]


def _part_of_this_commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "0"  # not in a repository
    return str(int(done.stdout, 16) % PARTS)


SEEDS = range(1, 25)
"""Worlds in which a bug may show; small ones in which more than usual goes wrong."""

FEW = 4
"""Enough of them where a test has the bug's name on it, and for no bug at all."""

Check = Callable[[Path], None]
"""A named test, run in a folder of its own."""


def in_fleet(test: Callable[[test_faults.Fleet], None]) -> Check:
    def check(folder: Path) -> None:
        fleet = test_faults.Fleet(folder)
        try:
            test(fleet)
        finally:
            fleet.close()

    check.__name__ = test.__name__
    return check


def in_replicas(test: Callable[[test_apply.Opener], None]) -> Check:
    def check(folder: Path) -> None:
        opener = test_apply.openers(folder)
        try:
            test(next(opener))
        finally:
            opener.close()

    check.__name__ = test.__name__
    return check


def on_devices(test: Callable[[test_clock.NewDevice, test_clock.Service], None]) -> Check:
    def check(folder: Path) -> None:
        service = test_clock.Service()
        devices = test_clock.devices_of(folder, service)
        try:
            test(next(devices), service)
        finally:
            devices.close()

    check.__name__ = test.__name__
    return check


def alone(test: Callable[[], None]) -> Check:
    def check(folder: Path) -> None:
        test()

    check.__name__ = test.__name__
    return check


def f7(fleet: test_faults.Fleet) -> None:
    test_faults.test_f7_a_large_entry_goes_although_it_exceeds_the_batch(fleet, 100)


def f9(fleet: test_faults.Fleet) -> None:
    test_faults.test_f9_dying_at_any_statement_of_a_pull_changes_nothing(fleet, True)


def far_ahead(new_device: test_clock.NewDevice, service: test_clock.Service) -> None:
    test_clock.test_a_clock_that_is_far_ahead_blocks_nobody_and_does_not_win(
        new_device, service, test_clock.HOUR
    )


def in_world(where: str, *, losing: bool) -> Check:
    """Some of the worlds of copies."""

    def check(folder: Path) -> None:
        for seed in range(1, 41):
            here = folder / str(seed)
            here.mkdir()
            test_copies.run_world(seed, here, where, build_schema(), losing)

    check.__name__ = f"copies in {where}{', losing' if losing else ''}"
    return check


def put_back_to_where_a_file_was(
    new_file: test_lineage.NewFile, home: MemoryHome, folder: Path
) -> None:
    test_lineage.test_a_file_that_was_where_the_log_was_put_back_to_looks_before_it_sends(
        new_file, home, folder, "copy"
    )


def put_back_while_finding_out(
    new_file: test_lineage.NewFile, home: MemoryHome, folder: Path
) -> None:
    test_lineage.test_a_log_that_is_put_back_while_a_device_is_finding_out(new_file, home, True)


def dated_anew(new_file: test_lineage.NewFile, home: MemoryHome, folder: Path) -> None:
    test_lineage.test_what_copies_have_in_common_counts_once_also_where_it_is_dated_anew(
        new_file, home, folder, test_lineage.Time(), "both", True
    )


def between_dates(new_file: test_lineage.NewFile, home: MemoryHome, folder: Path) -> None:
    test_lineage.test_what_others_did_between_the_two_dates_stands(
        new_file, home, folder, test_lineage.Time(), False, True
    )


def on_files(test: Callable[[test_lineage.NewFile, MemoryHome, Path], None]) -> Check:
    def check(folder: Path) -> None:
        time = test_lineage.Time()
        home = MemoryHome(time)
        with files(folder, home, time) as new_file:
            test(new_file, home, folder)

    check.__name__ = test.__name__
    return check


def late_copy(fleet: test_faults.Fleet) -> None:
    test_faults.test_a_copy_of_a_refused_request_that_comes_minutes_late_changes_nothing(
        fleet, False
    )


def every_life(open_replica: test_apply.Opener) -> None:
    test_apply.test_every_life_with_every_split_into_applied_and_new(open_replica, 3, False)


NAMED: dict[Plant, list[Check]] = {
    plants.cursor_is_a_time: [
        in_fleet(test_faults.test_f1_a_slow_clock_does_not_hide_what_it_writes),
        in_fleet(test_faults.test_f1_equal_timestamps_are_not_skipped),
    ],
    plants.cursor_jumps: [
        in_fleet(test_faults.test_f4_the_checkpoint_follows_the_log_page_by_page)
    ],
    plants.cursor_is_the_readers_now: [
        in_fleet(test_faults.test_f2_reading_nothing_does_not_move_past_what_comes)
    ],
    plants.sent_by_watermark: [in_fleet(test_faults.test_f3_only_what_was_sent_is_marked_as_sent)],
    plants.refusals_by_watermark: [
        in_fleet(test_faults.test_f3_a_refused_entry_is_not_taken_for_sent)
    ],
    plants.unordered_pages: [
        in_fleet(test_faults.test_f4_the_checkpoint_follows_the_log_page_by_page)
    ],
    plants.checkpoint_goes_back: [
        in_fleet(test_faults.test_f4_a_slower_process_does_not_move_the_checkpoint_back)
    ],
    plants.or_none: [in_fleet(test_faults.test_f5_falsy_values_arrive_as_they_are)],
    plants.ties_by_arrival: [in_fleet(test_faults.test_f6_ties_are_settled_alike_everywhere)],
    plants.batch_throws: [in_fleet(f7)],
    plants.bad_entry_throws: [
        in_fleet(test_faults.test_f8_an_entry_that_is_no_change_blocks_nobody)
    ],
    plants.checkpoint_first: [in_fleet(f9)],
    plants.repeated_timestamps: [
        in_fleet(test_faults.test_f10_a_clock_that_repeats_makes_no_identity_twice)
    ],
    plants.double_create_throws: [in_fleet(test_faults.test_f11_two_creations_of_one_key_merge)],
    plants.modification_revives: [in_replicas(every_life)],
    plants.deletion_takes_all: [in_replicas(every_life)],
    plants.no_tombstones: [in_replicas(every_life)],
    plants.parked_for_ever: [
        in_replicas(test_apply.test_a_child_waits_for_its_parent_and_the_cycle_arrives_at_once)
    ],
    plants.children_stay: [
        in_replicas(test_apply.test_a_row_whose_new_parent_is_missing_takes_its_children_along)
    ],
    plants.misfit_throws: [
        in_replicas(
            test_apply.test_a_row_with_a_value_that_does_not_fit_is_parked_with_its_children
        )
    ],
    plants.cycles_wait: [
        in_replicas(test_apply.test_a_child_waits_for_its_parent_and_the_cycle_arrives_at_once)
    ],
    plants.cascade_first: [
        in_replicas(
            test_apply.test_a_child_that_moves_to_another_parent_survives_the_first_ones_deletion
        )
    ],
    plants.parked_values_lost: [
        in_replicas(test_apply.test_a_row_whose_new_parent_is_missing_takes_its_children_along)
    ],
    plants.nothing_offered_again: [
        on_devices(test_clock.test_a_new_life_is_noticed_without_a_cursor_of_the_old_one)
    ],
    plants.copies_unnoticed: [in_world("memory", losing=False), in_world("service", losing=False)],
    plants.copies_unread: [on_files(put_back_to_where_a_file_was)],
    plants.copies_believed: [in_world("memory", losing=False)],
    plants.lost_answers_fork: [
        on_files(test_lineage.test_an_answer_lost_to_a_larger_batch_than_the_next)
    ],
    plants.copies_send_all: [in_world("memory", losing=False)],
    plants.copies_keep_versions: [
        on_files(test_lineage.test_what_copies_have_unsent_in_common_is_sent_once)
    ],
    plants.dates_unsaid: [in_world("memory", losing=False), on_files(dated_anew)],
    plants.dates_unread: [on_files(between_dates)],
    plants.lost_end_unnoticed: [in_world("memory", losing=True)],
    plants.newest_unchecked: [
        on_files(put_back_while_finding_out),
    ],
    plants.refused_may_come_again: [in_fleet(late_copy)],
    plants.pruning_fixes_the_clock: [
        on_devices(test_clock.test_pruning_does_not_make_a_wrong_clock_final)
    ],
    plants.refused_counts_as_sent: [on_devices(far_ahead)],
    plants.versions_not_renamed: [on_devices(far_ahead)],
    plants.clock_not_lifted: [on_devices(test_clock.test_local_changes_follow_what_was_seen)],
    plants.lead_for_ever: [on_devices(test_clock.test_a_clock_that_was_set_right_is_trusted_again)],
    plants_of_tables.dead_keep_each_other: [
        alone(test_placement_found.test_dead_rows_do_not_keep_each_other)
    ],
    plants_of_tables.chains_break: [
        alone(test_placement_found.test_a_cascade_keeps_the_row_above_for_the_one_below)
    ],
    plants_of_tables.cleared_is_written: [
        alone(test_placement_found.test_a_cleared_reference_is_not_lost_with_its_row)
    ],
    plants_of_tables.revived_holds: [
        alone(test_placement_found.test_a_kept_row_that_is_created_again_forgets_what_it_held)
    ],
    plants_of_tables.no_passing_on: [
        alone(test_placement_found.test_unique_values_are_passed_on_in_a_circle)
    ],
    plants_of_tables.circles_stay: [
        alone(test_placement_found.test_rows_in_a_circle_leave_beside_one_that_does_not_fit)
    ],
    plants_of_tables.strange_keys_throw: [
        alone(test_placement_found.test_a_key_of_another_number_of_parts_blocks_nobody)
    ],
}
"""The tests that have a bug's name on them. The others are the simulation's alone."""


@dataclass(frozen=True)
class Caught:
    """By what, and how long it took."""

    by: str
    seconds: float


def by_simulation(worlds: int, first: int = 1) -> Caught | None:
    began = time.monotonic()
    for seed in [first, *(seed for seed in SEEDS if seed != first)][:worlds]:
        try:
            run_world(seed, days=2.0, faults=1.5, storms=1.0)
        except Failed:
            return Caught(f"simulation, seed {seed}", time.monotonic() - began)
    return None


def by_name(checks: list[Check], folder: Path) -> Caught | None:
    for check in checks:
        began = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            check(folder)
        except Exception:
            name = check.__name__.removeprefix("test_")
            return Caught(name, time.monotonic() - began)
    return None


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Iterator[list[tuple[str, str, float]]]:
    """What was caught by what, printed at the end."""
    lines: list[tuple[str, str, float]] = []
    yield lines
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        bugs, total = len({name for name, _, _ in lines}), sum(seconds for _, _, seconds in lines)
        sys.stdout.write(f"\n{bugs} planted bugs caught in {total:.0f} s\n")
        for name, by, seconds in lines:
            sys.stdout.write(f"  {name:<62.62} {by:<54.54} {seconds:6.2f} s\n")


@pytest.mark.parametrize("plant", chosen(), ids=lambda plant: plant.name)
def test_a_planted_bug_is_caught(
    plant: Plant, tmp_path: Path, table: list[tuple[str, str, float]]
) -> None:
    checks = NAMED.get(plant, [])
    with plant.planted():
        found = [by_name(checks, tmp_path / "planted")] if checks else []
        assert None not in found, "the test that has the bug's name on it passes"
        if not plant.out_of_reach:
            found.append(by_simulation(FEW if checks else len(SEEDS), plant.seed))
    caught = [one for one in found if one is not None]
    table += [(plant.name, one.by, one.seconds) for one in caught]
    assert caught, "nobody noticed"


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_every_bug_finds_the_code_that_it_is_planted_in(plant: Plant) -> None:
    """Also those that are not planted in this run."""
    with plant.planted():
        pass


def test_without_a_bug_the_simulation_finds_nothing() -> None:
    assert by_simulation(FEW) is None


@pytest.mark.parametrize(
    "check",
    {
        check.__name__: check
        for plant in chosen()
        for check in NAMED.get(plant, [])
        if not check.__name__.startswith("copies")  # which test_copies runs
    }.values(),
    ids=lambda check: check.__name__,
)
def test_without_a_bug_the_named_tests_find_nothing(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_all_eleven_faults_of_the_reference_are_planted() -> None:
    assert len(PLANTS) >= 60
    names = {plant.name.split()[0] for plant in PLANTS}
    assert {f"F{number}" for number in range(1, 12)} <= names
