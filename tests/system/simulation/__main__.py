"""Replay one seed, or run worlds for a while:

python -m tests.system.simulation --seed 42 --show
python -m tests.system.simulation --seconds 600
"""

from __future__ import annotations

import argparse
import sys

from .fleet import PROCESSES, run_fleet
from .world import run_world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this world only, and print its digest")
    parser.add_argument("--days", type=float, help="how long each world lives")
    parser.add_argument("--faults", type=float, help="how much goes wrong: 0 to 3")
    parser.add_argument("--storms", type=float, help="how many days are stormy: 0 to 1")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, help="MemorySharedLog for the service"
    )
    parser.add_argument("--show", action="store_true", help="print everything that happens")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--first", type=int, default=1, help="the first seed of many")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    given = parser.parse_args()
    asked = {
        name: getattr(given, name)
        for name in ("days", "faults", "storms", "memory")
        if getattr(given, name) is not None
    }
    if given.seed is not None:
        report = run_world(given.seed, show=given.show, **asked)
        sys.stdout.write(f"seed {given.seed}: digest {report.digest}\n")
        return
    totals = run_fleet(first=given.first, seconds=given.seconds, processes=given.processes, **asked)
    sys.stdout.write(f"{totals}\n")


if __name__ == "__main__":
    main()
