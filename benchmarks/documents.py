"""The most that one document costs the service: worst ones made by hand, and many by chance.

Whoever may ask anything may ask this, again and again, and everybody else waits meanwhile. What is
over a limit counts, too: it costs until it is refused. The log is one that makes this as dear as it
gets: each of its entries is of another device and of another collection, with the longest of names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from graphql import get_introspection_query
from tests.service.drawn import DrawnDocuments

from sharedlog_service.access.auth import issue_token
from sharedlog_service.api.schema import build_schema
from sharedlog_service.entries import NewEntry
from sharedlog_service.settings import Limits
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess

from .figures import Figure, cpu_seconds
from .records import as_change, records

TARGET_MS = 50.0

NAME_CHARS = 200

TICKS = 1_790_000_000_000 * 1024

Asked = tuple[str, Mapping[str, Any]]

ALL = "userId deviceId createdOn sharedOn data cursor position group operation collection pk"


def measure(folder: Path, documents: int, devices: int) -> Iterator[Figure]:
    service, device = _service(folder / "service.db", devices)
    drawn = DrawnDocuments(build_schema()._schema, random.Random(documents), size=120)
    yield _worst(service, "made by hand", list(worst(device)))
    yield _worst(service, "drawn by chance", [drawn.draw() for _ in range(documents)])


def _worst(service: InProcess, name: str, asked: list[Asked]) -> Figure:
    cost = {text: _milliseconds(service, text, values) for text, values in asked}
    text = max(cost, key=lambda text: cost[text])
    return Figure(
        "documents",
        f"the most that one costs, {name}",
        len(asked),
        cost[text],
        "ms",
        target=TARGET_MS,
        details={"document": text[:1000]},
    )


def _milliseconds(service: InProcess, text: str, values: Mapping[str, Any]) -> float:
    """Return what it costs at its first coming; the least of a few, since others work here, too."""
    fresh = (f"{text} #{turn}" for turn in range(3))
    return 1000 * min(cpu_seconds(partial(service.execute, found, values)) for found in fresh)


def _service(path: Path, devices: int) -> tuple[InProcess, str]:
    limits = Limits(log_devices=None, log_collections=devices)
    store = Store.open(path, limits=limits)
    issue_token(store, "ada", "benchmark")
    with store.transaction():
        for number, record in enumerate(records(devices)):
            _write(store, number, as_change(record))
        other = store.create_device("ada")
    return InProcess(store, "ada"), other


def _write(store: Store, number: int, change: str) -> None:
    """Let another device write an entry of another collection, and have everything up to there."""
    device = store.create_device("ada", name=_name(number), device_id=_name(number))
    data = change.replace('"record"', f'"{_name(number)}"', 1)
    receipt = store.write("ada", device, [NewEntry(TICKS + number, 0, data)])
    store.mark_seen("ada", device, receipt.head)


def _name(number: int) -> str:
    return f"{number:0{NAME_CHARS}d}"


def worst(device: str) -> Iterator[Asked]:
    """Documents just inside of the limits, each the worst of its kind that is known."""
    log = "sharedSyncLog"
    one = f'entries(userId: "ada", first: 295) {{ nodes {{ {ALL} }} }}'
    yield f"{{ {log} {{ {one} }} }}", {}
    yield f'{{ {log} {{ entries(userId: "ada", first: 1000) {{ nodes {{ data }} }} }} }}', {}
    pages = f'getUnsyncedEntries(userId: "ada", deviceId: "{device}", batchSize: 33) {{'
    calls = " ".join(f"a{n}: {pages} packed entries {{ {ALL} }} }}" for n in range(8))
    yield f"{{ {log} {{ {calls} }} }}", {}
    pages = f'getUnsyncedEntries(userId: "ada", deviceId: "{device}", batchSize: 515) {{'
    calls = " ".join(f"a{n}: {pages} packed }}" for n in range(8))
    yield f"{{ {log} {{ {calls} }} }}", {}
    typed = [{"createdOn": (TICKS + n) / 1024, "data": "x", "group": None} for n in range(525)]
    write = f"""mutation($d: ID!, $e: [SharedSyncLogEntryInput!]) {{ {log} {{
        writeEntries(userId: "ada", deviceId: $d, entries: $e) {{ accepted }} }} }}"""
    yield write, {"d": device, "e": typed}
    results = f"""mutation($d: ID!, $p: PackedEntries!) {{ {log} {{
        writeEntries(userId: "ada", deviceId: $d, packed: $p) {{
            results {{ createdOn status code reason }} rejected {{ index }} }} }} }}"""
    yield results, {"d": device, "p": [[1, 1, 1]] * 285}
    yield get_introspection_query(input_value_deprecation=True), {}
    inner = "kind name description fields { name description type { name kind ofType { name } }"
    inner += " args { name description type { name kind ofType { name } } } }"
    yield f"{{ a: __schema {{ types {{ {inner} }} }} b: __schema {{ types {{ {inner} }} }} }}", {}
    yield from _of_many(log)
    yield from _for_validation(log)


def _of_many(log: str) -> Iterator[Asked]:
    """What costs more the more devices and collections there are."""
    every = "id name createdAt lastSeen cursor sharedUntil revoked clockSkew"
    yield f'{{ {log} {{ devices(userId: "ada", first: 1000) {{ cursor }} }} }}', {}
    yield f'{{ {log} {{ devices(userId: "ada", first: 380) {{ {every} }} }} }}', {}
    calls = " ".join(f'a{n}: devices(userId: "ada", first: 130) {{ cursor }}' for n in range(8))
    yield f"{{ {log} {{ {calls} }} }}", {}
    one = "collection entries creates modifies deletes lastSharedOn"
    yield f'{{ {log} {{ stats(userId: "ada", first: 1000) {{ collections {{ entries }} }} }} }}', {}
    stats = f'stats(userId: "ada", first: 460) {{ devices collections {{ {one} }} }}'
    yield f"{{ {log} {{ {stats} }} }}", {}
    calls = " ".join(f'a{n}: stats(userId: "ada", first: 1000) {{ devices }}' for n in range(8))
    yield f"{{ {log} {{ {calls} }} }}", {}
    made = " ".join(f'a{n}: createDeviceId(userId: "ada", requestId: "{n}")' for n in range(8))
    yield f"mutation {{ {log} {{ {made} }} }}", {}
    own = f'deviceId: "{_name(1)}"'
    calls = " ".join(f'a{n}: revokeDevice(userId: "ada", {own}) {{ cursor }}' for n in range(8))
    yield f"mutation {{ {log} {{ {calls} }} }}", {}
    device = f'filter: {{ deviceId: "{_name(2)}", collection: "x" }}'
    calls = " ".join(
        f'a{n}: entries(userId: "ada", last: 130, {device}) {{ nodes {{ data }} }}'
        for n in range(8)
    )
    yield f"{{ {log} {{ {calls} }} }}", {}


def _for_validation(log: str) -> Iterator[Asked]:
    yield f"{{ {log} {{ limits {{" + " entryBytes" * 288 + " } } }", {}
    yield f"{{ {log} {{ limits {{" + " x" * 285 + " } } }", {}
    same = " ".join('stats(userId: "ada") { entries head }' for _ in range(8))
    yield f"{{ {log} {{ {same} }} {log} {{ {same} }} }}", {}
    clash = " ".join(f'stats(userId: "{n}") {{ entries }}' for n in range(8))
    yield f"{{ {log} {{ {clash} }} }}", {}
    yield "{" + "... {" * 140 + "__typename" + "}" * 140 + "}", {}
    chain = " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(7))
    yield f"{{ ...f0 }} {chain} fragment f7 on Query {{ __typename }}", {}
    crossing = " ".join(
        f"fragment g{n} on Query {{ {' '.join(f'...g{m}' for m in range(n + 1, 8))} __typename }}"
        for n in range(8)
    )
    yield f"{{ ...g0 }} {crossing}", {}
    cycle = " ".join(f"fragment c{n} on Query {{ ...c{(n + 1) % 28} a }}" for n in range(28))
    yield f"{{ ...c0 }} {cycle}", {}
    yield "query(" + " ".join(f"$v{n}: Int" for n in range(70)) + ") { __typename }", {}
    yield "{ __typename " + "@skip(if: false) " * 20 + "}", {}
    names = " ".join('"x"' for _ in range(270))
    pages = f'getUnsyncedEntries(userId: "ada", deviceId: "x", collections: [{names}]) {{ packed }}'
    yield f"{{ {log} {{ {pages} }} }}", {}
    deep = "[" * 120 + "]" * 120
    yield f'{{ {log} {{ history(userId: "ada", collection: "x", pk: {deep}) {{ pk }} }} }}', {}
    members = ", ".join(f"m{n}: {n}" for n in range(60))
    history = f'history(userId: "ada", collection: "x", pk: {{{members}}}) {{ pk }}'
    yield f"{{ {log} {{ {history} }} }}", {}
    yield "#" + "x" * 32_000 + "\n{ __typename }", {}
    yield '{ __type(name: "' + "\\u0041" * 5_000 + '") { name } }', {}
    yield '{ __type(name: """' + " \n" * 16_000 + '""") { name } }', {}
    operations = " ".join(f"query Q{n} {{ __typename }}" for n in range(55))
    yield operations, {}
