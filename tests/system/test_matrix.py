"""Real devices and a real service while networks break, processes stop, pause and die: a cell of
each kind. `make matrix` runs all of them, and for longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from sharedlog_service.entries import StoredEntry
from tests.engines import Postgres
from tests.system.matrix.cell import FAULTS, Cell, check, run
from tests.system.matrix.client import Ending
from tests.system.service_process import ServiceProcess

SECONDS = 3.0


@pytest.mark.parametrize("fault", FAULTS)
def test_all_devices_are_equal_once_all_is_well_again(
    tmp_path: Path, postgres: Postgres, fault: str
) -> None:
    with ServiceProcess(tmp_path / "service.db", place=str(postgres.place)) as service:
        outcome = run(Cell(5, 20, SECONDS, fault), tmp_path, service)
    assert outcome.transactions > 0
    assert (outcome.faults > 0) == (fault != "none")


# -- that the checks see what is wrong ----------------------------------------------------------


def stored(seq: int, value: str, key: str) -> StoredEntry:
    change = {"operation": "create", "collection": "cell", "pk": key, "value": {"value": value}}
    return StoredEntry(seq, "device", seq, seq, 0, orjson.dumps(change).decode())


KEYS = "abcd"
LOG = [stored(seq, "c0 1", key) for seq, key in enumerate(KEYS, 1)]
END = Ending(dict.fromkeys(KEYS, "c0 1"), {1: " ".join(KEYS)}, 0, 0, None, 1, 0)

WRONG: dict[str, Callable[[], tuple[Ending, list[StoredEntry]]]] = {
    "a change is lost": lambda: (END, LOG[:3]),
    "a change is there twice": lambda: (END, [*LOG, stored(5, "c0 1", "a")]),
    "a transaction is lost": lambda: (replace(END, done={**END.done, 2: "a b c d"}), LOG),
    "a device has something else": lambda: (replace(END, cells={**END.cells, "a": "x"}), LOG),
    "something is unsent": lambda: (replace(END, pending=1), LOG),
    "an error is left": lambda: (replace(END, last_error="failed"), LOG),
    "the log has what nobody wrote": lambda: (replace(END, done={}), LOG),
}


def test_nothing_wrong_passes() -> None:
    check([END], LOG)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_seen(wrong: str) -> None:
    ending, log = WRONG[wrong]()
    with pytest.raises(AssertionError):
        check([ending], log)


def test_a_torn_transaction_is_seen() -> None:
    cells = {**dict.fromkeys("abcd", "c0 1"), **dict.fromkeys("efgh", "c1 1")}
    ends = [replace(END, cells=cells, done={1: " ".join(keys)}) for keys in ("abcd", "efgh")]
    check(ends, [stored(seq, cells[key], key) for seq, key in enumerate("abcdefgh", 1)])
    with pytest.raises(AssertionError):
        check(ends, [stored(seq, cells[key], key) for seq, key in enumerate("abefghcd", 1)])
