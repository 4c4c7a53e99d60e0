"""How long a well-behaved device waits while others misbehave, beside how long without them.

Eight devices, each with a log of its own, push ten entries and pull a hundred by turns, eight times
a second. They take turns alone and with one of two disturbances, which are processes of their own:

- *half open*: a hundred connections at a time that do not go on: heads that come byte by byte, and
  sockets without a greeting. Those that the service closes are opened anew.
- *noisy*: a user who sends fifty times as many requests as this service allows, once the minute's
  worth that may be used at once is used.

All in one run, so the ratio is what counts.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from sharedlog_service.access.auth import issue_token
from sharedlog_service.store.store import Store

from .asking import PAGE, PUSH, Device
from .figures import Figure, percentile
from .records import as_change, records
from .service import RATE, BoundedService

NEIGHBOURS = 8
TIMES_A_SECOND = 8
HALF_OPEN = 100
NOISY = 8
"""Connections of the noisy user."""

TIMES = 50
TARGET = 2.0

HEAD = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


def measure(folder: Path, seconds: float, rounds: int) -> Iterator[Figure]:
    place = folder / "neighbours.db"
    with BoundedService(place) as service:
        url = service.announced["url"]
        with contextlib.closing(Store.open(place)) as store:
            names = [f"user-{number}" for number in range(NEIGHBOURS)]
            tokens = {name: issue_token(store, name, "neighbours") for name in (*names, "noisy")}
            store.create_device("noisy", device_id="device-of-noisy")
        data = [as_change(record) for record in records(PUSH)]
        devices = [_Neighbour(url, name, tokens[name], data) for name in names]
        _waits(devices, 1)  # what happens once is not measured
        waits: dict[str, list[float]] = {"alone": [], "half open": [], "noisy": []}
        told: dict[str, Counter[str]] = {"half open": Counter(), "noisy": Counter()}
        for _ in range(rounds):
            for kind in ("half open", "noisy"):
                waits["alone"] += _waits(devices, seconds / 2)
                with _disturbance(kind, url, tokens["noisy"], told[kind]):
                    waits[kind] += _waits(devices, seconds)
    for kind, count in (("half open", HALF_OPEN), ("noisy", TIMES)):
        yield _figure(kind, count, waits["alone"], waits[kind], told[kind])


def _figure(
    kind: str, count: int, alone: list[float], beside: list[float], told: Counter[str]
) -> Figure:
    details = {
        f"{when}_p{p}_ms": 1_000 * percentile(waits, p / 100)
        for when, waits in (("alone", alone), ("beside", beside))
        for p in (50, 99)
    }
    parts = [
        f"p{p} {details[f'alone_p{p}_ms']:.1f} to {details[f'beside_p{p}_ms']:.1f} ms"
        for p in (50, 99)
    ]
    what = f"{count} half open" if kind == "half open" else f"one at {count} times the rate"
    details |= {"asked": len(beside), **told}
    value = details["beside_p99_ms"] / details["alone_p99_ms"]
    name = f"p99 beside {what}, {', '.join(parts)}"
    return Figure("neighbours", name, count, value, "x", limit=1, target=TARGET, details=details)


class _Neighbour:
    """A device that pushes and pulls by turns. What it reads, another one of its log wrote."""

    def __init__(self, url: str, user: str, token: str, data: list[str]) -> None:
        self._writer, self._reader = (Device(url, user, token, data) for _ in range(2))
        for number in range(1, PAGE // PUSH + 1):
            self._writer.push(number)
        self._reader.pull(0)
        self._number = number

    def ask(self) -> None:
        self._number += 1
        if self._number % 2:
            self._writer.push(self._number)
        else:
            self._reader.pull(self._number)


def _waits(devices: Sequence[_Neighbour], seconds: float) -> list[float]:
    """How long each request took; each device begins a little after the one before."""
    waits: list[float] = []
    begin = time.perf_counter()

    def run(device: _Neighbour, offset: float) -> None:
        for number in range(max(1, int(seconds * TIMES_A_SECOND))):
            due = begin + offset + number / TIMES_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            device.ask()
            waits.append(time.perf_counter() - started)

    threads = [
        threading.Thread(target=run, args=(device, place / TIMES_A_SECOND / len(devices)))
        for place, device in enumerate(devices)
    ]
    _together(threads)
    return waits


@contextmanager
def _disturbance(kind: str, url: str, token: str, told: Counter[str]) -> Iterator[None]:
    """Let a process of its own disturb the service meanwhile, and add what it was answered."""
    command = [sys.executable, "-m", __name__, kind, url, token]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"There is no disturbance of the kind {kind}.")
        try:
            yield
        finally:
            process.stdin.close()
            told.update(orjson.loads(process.stdout.readline() or b"{}"))


class Told(NamedTuple):
    """What a disturbance and the process that it runs in tell each other."""

    ready: threading.Event
    end: threading.Event
    counted: Counter[str]


def _stay_half_open(url: str, token: str, told: Told) -> None:
    """Keep connections that do not go on; each second those that send a head send a byte more."""
    address = urlsplit(url)
    opened: dict[socket.socket, bool] = {}
    while not told.end.is_set():
        while len(opened) < HALF_OPEN:
            sends = len(opened) % 2 == 0
            connection = socket.create_connection((address.hostname or "", address.port or 80))
            connection.sendall(HEAD if sends else UPGRADE)
            opened[connection] = sends
        told.ready.set()
        told.end.wait(1)
        for connection, sends in [*opened.items()]:
            if _is_closed(connection, sends):
                connection.close()
                del opened[connection]
                told.counted["closed"] += 1


def _is_closed(connection: socket.socket, sends: bool) -> bool:
    try:
        if sends:
            connection.send(b"x")
        while connection.recv(4096, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _make_noise(url: str, token: str, told: Told) -> None:
    """Send fifty times as many requests as are allowed, and go on whatever is answered."""
    data = [as_change(record) for record in records(PUSH)]
    every = NOISY / (TIMES * RATE / 60)
    begin = time.perf_counter()

    def run(place: int) -> None:
        device = Device(url, "noisy", token, data, registered="device-of-noisy")
        number = place
        while not told.end.is_set():
            number += NOISY
            time.sleep(max(0.0, begin + number / NOISY * every - time.perf_counter()))
            status = device.status_of_push(number)
            if status == 429:
                told.ready.set()
            if told.ready.is_set():
                told.counted[f"answered {status}"] += 1

    _together([threading.Thread(target=run, args=(place,)) for place in range(NOISY)])


def _together(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _run(kind: str, url: str, token: str) -> None:
    """Be a disturbance, from when this says so until the standard input ends."""
    told = Told(threading.Event(), threading.Event(), Counter())
    disturb = {"half open": _stay_half_open, "noisy": _make_noise}[kind]
    thread = threading.Thread(target=disturb, args=(url, token, told))
    thread.start()
    told.ready.wait()
    print(flush=True)
    sys.stdin.read()
    told.end.set()
    thread.join()
    sys.stdout.buffer.write(orjson.dumps(told.counted) + b"\n")


if __name__ == "__main__":
    _run(*sys.argv[1:])
