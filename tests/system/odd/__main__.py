"""Replay one seed, or run fleets for a while:

python -m tests.system.odd --seed 42 --show
python -m tests.system.odd --seed 42 --shrink
python -m tests.system.odd --seconds 600
python -m tests.system.odd --databases sqlite,postgres,mysql --seconds 600
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import count

from .fleet import Failed, replay, run_fleet
from .places import Places, places
from .shrinking import shrunk


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.odd", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this fleet only, and print its digest")
    parser.add_argument("--only", help="run only these of its steps: 1,2,30")
    parser.add_argument("--show", action="store_true", help="print everything that happens")
    parser.add_argument(
        "--shrink", action="store_true", help="find out which steps it takes to fail"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--first", type=int, default=1, help="the first seed of many")
    parser.add_argument(
        "--databases",
        default="sqlite",
        help="what each device has, in turn: sqlite,postgres,mysql",
    )
    given = parser.parse_args()
    kinds = given.databases.split(",")
    with places(kinds) as found:
        run(given, kinds, found)


def run(given: argparse.Namespace, kinds: Sequence[str], found: Places) -> None:
    only = [int(step) for step in given.only.split(",")] if given.only else None
    if given.shrink:
        sys.stdout.write(f"{replay(given.seed, shrunk(given.seed, kinds, found), kinds)}\n")
    elif given.seed is not None:
        digest = run_fleet(given.seed, only=only, show=given.show, kinds=kinds, places=found)
        sys.stdout.write(f"seed {given.seed}: digest {digest}\n")
    else:
        sys.exit(run_many(given.first, given.seconds, kinds, found))


def run_many(first: int, seconds: float, kinds: Sequence[str], found: Places) -> bool:
    """Run on, in spite of failures, until the time is over; tell whether there were any."""
    end, failed = time.monotonic() + seconds, 0
    for seed in count(first):
        try:
            run_fleet(seed, kinds=kinds, places=found)
        except Failed as error:
            failed += 1
            sys.stdout.write(f"{error}\n\n")
            sys.stdout.flush()
        if time.monotonic() >= end:
            break
    sys.stdout.write(f"{seed - first + 1} fleets, {failed} failed\n")
    return failed > 0


if __name__ == "__main__":
    main()
