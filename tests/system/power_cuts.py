"""A service whose power is cut, at every moment of its work: what it had acknowledged is there.

    python -m tests.system.power_cuts --turns 20 --draws 10

Records on a simulated disk what a store does, then makes the images that a power cut could leave
after each single call, opens each of them, and compares all that is in it with what was there after
each transaction of the recorded run.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from tests.memory import folder_in_memory
from tests.system.disk.disk import Call, Disk
from tests.system.disk.power import Files, images, moments
from tests.system.store_work import (
    NOTHING,
    Contents,
    Operation,
    World,
    batch,
    check_whole,
    contents,
    first_operations,
    operations,
)

OPENING = Operation("open", lambda store: None)

CHECKPOINT_PAGES = 30
"""Small, so that the log is often brought into the file and begun anew."""

OPENED_EVERY = 50
"""Each so manieth image is also opened by a store, which then goes on with it."""


@dataclass
class Recording:
    """What a disk was asked to do; after how many calls each transaction was acknowledged; what
    was in the database before and after each."""

    files: Files = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    states: list[Contents | None] = field(default_factory=list)


@dataclass
class Verdict:
    """What became of the images of a recording, by their kind."""

    images: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    first: str = ""

    def note(self, where: Counter[str], kind: str, what: str) -> None:
        where[kind] += 1
        self.first = self.first or f"{kind}, {what}"

    def __iadd__(self, other: Verdict) -> Verdict:
        self.images += other.images
        self.lost += other.lost
        self.broken += other.broken
        self.opened += other.opened
        self.first = self.first or other.first
        return self

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.images.items()))
        return (
            f"{self.images.total()} images ({kinds}; {self.opened} opened by a store): "
            f"{self.lost.total()} lost something acknowledged, {self.broken.total()} broken"
        )


@contextmanager
def connections() -> Iterator[list[Any]]:
    """The connections that are opened from here on, the writing one first."""
    opened: list[Any] = []

    def add(connection: Any) -> None:
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)
        opened.append(connection)

    apsw.connection_hooks.append(add)
    try:
        yield opened
    finally:
        apsw.connection_hooks.remove(add)


def record(folder: Path, turns: int, *pragmas: str) -> Recording:
    """Let a store work on a simulated disk, from an empty folder on. `pragmas` are set behind its
    back."""
    work = [first_operations(), *(list(operations(turn)) for turn in range(turns))]
    return recorded(folder, {}, work, *pragmas)


def recorded(
    folder: Path, files: Files, work: Iterable[Iterable[Operation]], *pragmas: str
) -> Recording:
    """Let a store work on a simulated disk. It is opened for each part of the work, and closed."""
    done, disk = Recording(files, states=[look(folder, files)]), Disk()
    lay_out(folder, files)
    world = World(folder / "log.db")
    with disk.mounted(), connections() as opened:
        for part in work:
            opened.clear()
            store = world.open()
            for pragma in pragmas:
                opened[0].execute(f"PRAGMA {pragma}")
            for operation in (OPENING, *part):
                world.perform(operation, store)
                done.acknowledged.append(len(disk.calls))
                after = contents(opened[0])
                check_whole(after)
                done.states.append(after)
            store.close()
    done.calls = disk.calls
    return done


def judge(done: Recording, folder: Path, *, draws: int = 1, seed: int = 0) -> Verdict:
    """Look at what a power cut could have left after each call."""
    verdict, chance = Verdict(), random.Random(seed)
    for moment in moments(done.calls, done.files):
        known = bisect_right(done.acknowledged, moment.number)
        for kind, files in images(moment, chance, draws):
            verdict.images[kind] += 1
            what = f"seed {seed}, after call {moment.number} of {len(done.calls)}"
            found = look(folder, files)
            if found in done.states[known : known + 2]:
                if verdict.images.total() % OPENED_EVERY == 0:
                    go_on(folder, files)
                    verdict.opened += 1
            elif found in done.states:
                verdict.note(verdict.lost, kind, what)
            else:
                verdict.note(verdict.broken, kind, what)
    return verdict


def judge_recoveries(done: Recording, folder: Path, *, every: int, seed: int = 0) -> Verdict:
    """Let each so manieth image be found by a store, whose power is cut again while it recovers
    and goes on."""
    verdict, chance = Verdict(), random.Random(seed)
    found = (files for moment in moments(done.calls) for _, files in images(moment, chance))
    for files in islice(found, 0, None, every):
        verdict += judge(recorded(folder, files, [late_work()]), folder, seed=seed)
    return verdict


def look(folder: Path, files: Files) -> Contents | None:
    """What is in the database; None if it is not sound."""
    if "log.db" not in files:
        return NOTHING
    lay_out(folder, files)
    connection = apsw.Connection(str(folder / "log.db"))
    try:
        connection.execute("PRAGMA locking_mode = exclusive")  # spares the shared memory
        sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return contents(connection) if sound else None
    except (apsw.Error, UnicodeDecodeError):
        return None
    finally:
        connection.close()


def late_work() -> list[Operation]:
    """What a store does that was opened after a power cut, whatever it finds."""
    return [
        Operation("make a late user", lambda store: store.create_user("late")),
        Operation("register a late device", lambda s: s.create_device("late", request_id="1")),
        Operation(
            "append late",
            lambda store: store.write("late", "register a late device/1", batch(99, 0, 3)),
        ),
    ]


def go_on(folder: Path, files: Files) -> None:
    """A store opens what is left, and works with it."""
    lay_out(folder, files)
    world = World(folder / "log.db")
    store = world.open()
    for operation in late_work():
        world.perform(operation, store)
    assert store.stats("late").head.seq == 3
    store.close()


def lay_out(folder: Path, files: Files) -> None:
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10, help="how much the store does")
    parser.add_argument("--draws", type=int, default=3, help="of each kind that is left to chance")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with folder_in_memory() as folder:
        began = time.monotonic()
        done = record(folder, options.turns)
        verdict = judge(done, folder, draws=options.draws, seed=options.seed)
        verdict += judge_recoveries(done, folder, every=100, seed=options.seed)
        print(verdict, verdict.first, f"{time.monotonic() - began:.0f} s")  # noqa: T201
    sys.exit(bool(verdict.lost or verdict.broken))


if __name__ == "__main__":
    main()
