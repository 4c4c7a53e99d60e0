"""The whole matrix, or a part of it: python -m tests.system.matrix --seconds 100"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

from tests.engines import Postgres, new_schema
from tests.system.service_process import ServiceProcess

from .cell import FAULTS, Cell, run

CLIENTS = (5, 10)
RATES = (10, 20, 30, 40)
SECONDS = (100.0, 200.0, 300.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.matrix", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="transactions/s")
    parser.add_argument("--seconds", type=float, nargs="+", default=SECONDS)
    parser.add_argument("--faults", choices=FAULTS, nargs="+", default=FAULTS)
    parser.add_argument("--sqlite", action="store_true", help="not PostgreSQL behind the service")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cells = product(given.clients, given.rates, given.seconds, given.faults)
    for clients, rate, seconds, fault in cells:
        cell = Cell(clients, rate, seconds, fault, given.seed)
        with tempfile.TemporaryDirectory() as folder:
            database = None if given.sqlite else Postgres(new_schema())
            place = None if database is None else str(database.place)
            with ServiceProcess(Path(folder) / "service.db", place=place) as service:
                outcome = run(cell, Path(folder), service)
            if database is not None:
                database.close()
        sys.stdout.write(f"{cell}\n    {outcome}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
