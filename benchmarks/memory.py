"""Memory high-water marks: of a client that sends or receives many rows, and of the service.

Each client is a process of its own. What counts is how far the mark rises while it syncs,
and that it rises no further for a longer backlog.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from sharedlog import GraphQLSharedLog, HttpTransport

from .devices import Device
from .figures import Figure
from .records import records
from .service import Service

STEADY_ROWS = 10_000
"""From here on all buffers have been filled once."""

GROWTH_TARGET = 1.5
"""A backlog that is ten times as long may need so many times the memory, noise included."""


def measure(folder: Path, sizes: list[int]) -> Iterator[Figure]:
    if not Path("/proc/self/status").exists():
        return  # only Linux tells
    before: dict[str, tuple[int, float]] = {}
    for rows in sorted(sizes):
        for who, (base, peak) in _marks(folder, rows).items():
            yield Figure(
                "memory",
                f"{who}, peak",
                rows,
                peak,
                "MB",
                details={"before_mb": base, "rise_mb": peak - base},
            )
            if who in before:
                shorter, mark = before[who]
                name = f"{who}, peak to that of {shorter:,} rows"
                target = GROWTH_TARGET if shorter >= STEADY_ROWS else None
                yield Figure("memory", name, rows, peak / mark, "x", target=target)
            before[who] = rows, peak


def _marks(folder: Path, rows: int) -> dict[str, tuple[float, float]]:
    """The marks in MB before and after, by who."""
    sender, receiver = folder / f"sender-{rows}.db", folder / f"receiver-{rows}.db"
    device = Device(sender)
    device.insert(records(rows))
    device.close()
    with Service(folder / f"service-{rows}.db") as service:
        base = high_water_mark(service.pid)
        marks = {
            "sending a backlog": _in_a_process(service, sender),
            "a first sync": _in_a_process(service, receiver),
            "the service": (base, high_water_mark(service.pid)),
        }
    for path in folder.iterdir():
        path.unlink()
    return marks


def _in_a_process(service: Service, path: Path) -> tuple[float, float]:
    announced = service.announced
    command = [sys.executable, "-m", __name__, str(path), announced["url"], announced["token"]]
    folder = Path(__file__).parent.parent
    answer = orjson.loads(subprocess.check_output(command, cwd=folder))
    return answer["before"], answer["after"]


def high_water_mark(pid: int | str = "self") -> float:
    """The most memory that a process ever had, in MB. (`ru_maxrss` would count its parent's.)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("This system does not tell a process's high-water mark.")


def _sync(path: str, url: str, token: str) -> None:
    log = GraphQLSharedLog(HttpTransport(url, token))
    log.register("warm up", "warm-up")
    device = Device(Path(path), log)
    before = high_water_mark()
    device.sync.sync()
    after = high_water_mark()
    device.close()
    sys.stdout.buffer.write(orjson.dumps({"before": before, "after": after}))


if __name__ == "__main__":
    _sync(*sys.argv[1:])
