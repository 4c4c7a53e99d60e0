"""Devices that wait: what an idle one costs the service, and how long after a write it is poked.

Every device has a user and a log of its own, as most have, and waits on a socket of its own at one
service process. Some of them are poked, one at a time: another device of the log writes one
entry, durable when it is answered. The limit is that write alone, from the request to the answer;
the poke is timed from the same moment. At last, as many devices of one log as may wait are poked
by one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sharedlog import GraphQLSharedLog, HttpTransport
from sharedlog.remote.documents import POKED
from sharedlog.remote.sharedlog import Outgoing
from sharedlog_service.access.auth import issue_token
from sharedlog_service.access.watch import USER_SOCKETS_MAX
from sharedlog_service.store.store import Store

from .figures import Figure, percentile
from .service import Service

AT_A_TIME = 50
WAIT_S = 30.0


class Waiting(NamedTuple):
    """A device that is to wait."""

    user: str
    token: str
    device: str


def measure(folder: Path, devices: int, writes: int, idle_s: float) -> Iterator[Figure]:
    place = folder / "pokes.db"
    crowd = min(devices, USER_SOCKETS_MAX)
    with contextlib.closing(Store.open(place)) as store, store.transaction():
        alone = [_prepare(store, f"user-{number}", "waiting") for number in range(devices)]
        together = [_prepare(store, "crowd", f"waiting-{number}") for number in range(crowd)]
    with Service(place) as service:
        yield from asyncio.run(_alone(service, alone, writes, idle_s))
        yield from asyncio.run(_together(service, together, max(writes // 20, 1)))


def _prepare(store: Store, user: str, device: str) -> Waiting:
    token = issue_token(store, user, "pokes")
    return Waiting(user, token, store.create_device(user, device_id=f"{device}-of-{user}"))


async def _alone(
    service: Service, devices: list[Waiting], writes: int, idle_s: float
) -> list[Figure]:
    count = len(devices)
    before = _memory_kb(service.pid)
    figures: list[Figure] = []
    async with _all(service, devices) as sockets:
        if before is not None:  # else the system does not tell
            memory = ((_memory_kb(service.pid) or 0) - before) / count
            spent = _processor_s(service.pid)
            await asyncio.sleep(idle_s)
            idle = (_processor_s(service.pid) - spent) / idle_s
            name = f"memory of the service for each that waits ({idle:.1%} of a processor for all)"
            details = {"idle_processor_share": idle}
            figures.append(Figure("pokes", name, count, memory, "kB", details=details))
        waits, answers = [], []
        for number in range(writes):
            at = number * count // writes
            poked, answered = await _write(service, devices[at], [sockets[at]])
            waits.append(poked)
            answers.append(answered)
    details = {f"p{p}_ms": percentile(waits, p / 100) for p in (50, 99)}
    figures.append(
        Figure(
            "pokes",
            f"from a write to its poke, p50 (p99 {details['p99_ms']:.1f} ms)",
            count,
            details["p50_ms"],
            "ms",
            limit=percentile(answers, 0.5),
            details=details,
        )
    )
    return figures


async def _together(service: Service, devices: list[Waiting], writes: int) -> list[Figure]:
    async with _all(service, devices) as sockets:
        waits, answers = [], []
        for _ in range(writes):
            poked, answered = await _write(service, devices[0], sockets)
            waits.append(poked)
            answers.append(answered)
    name = "from a write to the last poke of one log's devices"
    value, limit = percentile(waits, 0.5), percentile(answers, 0.5)
    return [Figure("pokes", name, len(devices), value, "ms", limit=limit)]


async def _write(
    service: Service, log: Waiting, sockets: list[ClientConnection]
) -> tuple[float, float]:
    """Milliseconds from the request until all sockets had their poke, and until the answer."""
    writer = GraphQLSharedLog(HttpTransport(service.announced["url"], log.token), log.user)
    with contextlib.closing(writer):
        device = await asyncio.to_thread(writer.register, None, f"writer-of-{log.user}")
        entry = Outgoing(time.time_ns() // 1_000_000 * 1024, 0, "something")
        bounds = {"after": None, "now_ms": 0, "limit": 1, "byte_limit": 1}

        def write() -> float:
            writer.write(device, [entry], **bounds)  # type: ignore[arg-type]
            return time.perf_counter()

        began = time.perf_counter()
        writing = asyncio.create_task(asyncio.to_thread(write))
        await asyncio.gather(*(_frame(socket, "next") for socket in sockets))
        poked = time.perf_counter()
        return 1_000 * (poked - began), 1_000 * (await writing - began)


@asynccontextmanager
async def _all(service: Service, devices: list[Waiting]) -> AsyncIterator[list[ClientConnection]]:
    """Let all wait, each past its first poke."""
    async with AsyncExitStack() as stack:
        sockets: list[ClientConnection] = []
        for start in range(0, len(devices), AT_A_TIME):
            some = devices[start : start + AT_A_TIME]
            opened = [stack.enter_async_context(_socket(service, device)) for device in some]
            sockets += await asyncio.gather(*opened)
        yield sockets


@asynccontextmanager
async def _socket(service: Service, device: Waiting) -> AsyncIterator[ClientConnection]:
    url = service.announced["url"].replace("http", "ws", 1)
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(url, subprotocols=[protocol], compression=None, proxy=None) as socket:
        payload = {"authorization": f"Bearer {device.token}"}
        await socket.send(_text(type="connection_init", payload=payload))
        await _frame(socket, "connection_ack")
        variables = {"userId": device.user, "deviceId": device.device}
        asked = {"query": POKED, "variables": variables}
        await socket.send(_text(type="subscribe", id="1", payload=asked))
        await _frame(socket, "next")
        yield socket


async def _frame(socket: ClientConnection, kind: str) -> None:
    frame = orjson.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
    if frame["type"] != kind:
        raise RuntimeError(f"The service sent {frame}.")


def _text(**frame: Any) -> str:
    return orjson.dumps(frame).decode()


def _memory_kb(pid: int) -> float | None:
    """What the process has in memory now, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return float(line.split()[1])


def _processor_s(pid: int) -> float:
    """Processor time that the process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
