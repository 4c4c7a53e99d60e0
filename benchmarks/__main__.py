"""`python -m benchmarks`: run them, print the table, write the JSON."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from . import (
    capture,
    compaction,
    documents,
    exchange,
    incremental,
    load,
    memory,
    neighbours,
    pokes,
    size,
)
from .figures import Figure
from .table import quantity, show

RESULTS = Path(__file__).parent / "results"

NAMES = (
    *("capture", "exchange", "incremental", "size", "memory"),
    *("compaction", "load", "documents", "pokes", "neighbours"),
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    RESULTS.mkdir(exist_ok=True)
    figures = []
    gc.freeze()  # what is imported, more than an application has, is not to be collected each time
    # On the disk that the project is on: elsewhere "durable" may mean memory.
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        for figure in _measure(Path(folder), options):
            figures.append(figure)
            value = quantity(figure.value, figure.unit)
            print(
                f"{figure.benchmark}: {figure.name}, {figure.rows:,} rows: {value}",
                file=sys.stderr,
                flush=True,
            )
    show(figures)
    options.json.write_bytes(orjson.dumps(_report(options, figures), option=orjson.OPT_INDENT_2))
    print(f"Written to {options.json}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure sharedlog against limits that are measured in the same run.",
    )
    parser.add_argument("--rows", type=int, nargs="+", help="default: 1000 10000 100000")
    parser.add_argument("--history", type=int, nargs="+", help="default: 1000 100000 1000000")
    parser.add_argument("--bulk", type=int, default=5_000, help="new rows after a history")
    parser.add_argument("--seconds", type=float, help="of each load and turn (default: 5)")
    parser.add_argument("--rounds", type=int, help="repetitions (default: 7 to 3, by rows)")
    parser.add_argument("--quick", action="store_true", help="small numbers, a minute at most")
    parser.add_argument("--only", choices=NAMES, action="append", help="may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    options = parser.parse_args(arguments)
    options.rows = options.rows or ([1_000] if options.quick else [1_000, 10_000, 100_000])
    options.history = options.history or (
        [1_000, 10_000] if options.quick else [1_000, 100_000, 1_000_000]
    )
    options.only = options.only or list(NAMES)
    return options


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    for name in options.only:
        own = folder / name
        own.mkdir()
        if name == "incremental":
            changes = 3 if options.quick else 200
            yield from incremental.measure(own, options.history, changes, options.bulk)
        elif name == "memory":
            yield from memory.measure(own, options.rows)
        elif name == "compaction":
            rows, rounds = (200, 1) if options.quick else (5_000, 3)
            yield from compaction.measure(own, rows, rounds)
        elif name == "load":
            yield from load.measure(own, options.seconds or 5, *([(1, 8)] if options.quick else []))
        elif name == "documents":
            yield from documents.measure(own, *((5, 100) if options.quick else (300, 3_000)))
        elif name == "pokes":
            yield from pokes.measure(own, *((20, 10, 0.3) if options.quick else (1_000, 200, 5)))
        elif name == "neighbours":
            yield from neighbours.measure(own, options.seconds or 5, 1 if options.quick else 4)
        else:
            for rows in options.rows:
                yield from _for_rows(name, own, rows, _rounds(options, rows))


def _for_rows(name: str, folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    if name == "capture":
        yield from capture.measure(folder, rows, rounds)
    elif name == "exchange":
        yield from exchange.measure(folder, rows, rounds)
    else:
        yield from size.measure(folder, rows)


def _rounds(options: argparse.Namespace, rows: int) -> int:
    if options.rounds:
        return int(options.rounds)
    if options.quick:
        return 2
    return 7 if rows <= 1_000 else 5 if rows <= 10_000 else 3


def _report(options: argparse.Namespace, figures: list[Figure]) -> dict[str, Any]:
    return {
        "machine": {
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
            "sqlite": sqlite3.sqlite_version,
        },
        "settings": {"rows": options.rows, "history": options.history, "only": options.only},
        "figures": [figure.as_json() for figure in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
