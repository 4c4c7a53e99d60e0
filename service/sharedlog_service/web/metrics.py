"""The service in numbers, as Prometheus reads them: counted since it started, of one process; and
those of the database at the moment.

Of nobody in particular: no number names a user, a device or a log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sharedlog_service.api.records import Record
from sharedlog_service.errors import Code
from sharedlog_service.store.accounts import Totals

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STRANGERS = frozenset(
    code.name
    for code in (
        Code.UNAUTHENTICATED,
        Code.FORBIDDEN,
        Code.SCOPE_MISSING,
        Code.DEVICE_FORBIDDEN,
        Code.DEVICE_REVOKED,
        Code.DOCUMENT_NOT_ALLOWED,
    )
)
"""What is answered to who may not do what they ask for."""

APPEND_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SKEW_S = (0.1, 1, 10, 60, 300, 3600, 86400)


class Family(NamedTuple):
    """One name, and what is counted under it."""

    name: str
    kind: str
    help: str
    label: str | None = None


REQUESTS = Family(
    "requests_total", "counter", "Requests by what came of them: OK, or an error's code.", "code"
)
APPENDED = Family("entries_appended_total", "counter", "Entries written to logs.")
DUPLICATE = Family("entries_duplicate_total", "counter", "Entries that a log had already.")
REFUSED = Family("entries_refused_total", "counter", "Entries refused one by one.", "code")
PAGES = Family("pull_pages_total", "counter", "Pages of others' entries that devices read.")
APPEND = Family("append_seconds", "histogram", "How long a batch took until it was durable.")
STRANGE = Family(
    "auth_failures_total", "counter", "Requests from who may not do what they ask for.", "reason"
)
FORKS = Family(
    "device_forks_total", "counter", "Devices met as copies: of a file, or from a backup."
)
SKEW = Family("clock_skew_seconds", "histogram", "How far devices' clocks are from this one.")
LIMITED = Family("rate_limited_total", "counter", "Requests refused because there were too many.")
SOCKETS = Family("sockets", "gauge", "WebSockets that are open.")
HEAD = Family("log_head", "gauge", "Where the logs of the database end, added up.")
HORIZON = Family("log_horizon", "gauge", "Up to where these have forgotten deletions, added up.")
LAG = Family(
    "device_lag_entries",
    "gauge",
    "How many entries the device is behind that is farthest behind, of those heard of in a day.",
)

FAMILIES: Sequence[Family] = (
    *(REQUESTS, APPENDED, DUPLICATE, REFUSED, PAGES, APPEND),
    *(STRANGE, FORKS, SKEW, LIMITED, SOCKETS),
)

STATE: Sequence[Family] = (HEAD, HORIZON, LAG)
"""What is not counted but looked up, in the order of `Totals`."""


class Histogram:
    """How many of the observed values are in each bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """All the numbers of one process. Of one thread: the event loop's."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._histograms = {APPEND.name: Histogram(APPEND_S), SKEW.name: Histogram(SKEW_S)}

    def add(self, record: Record) -> None:
        """Count a request that is over."""
        self._count(REQUESTS, label=record.code or "OK")
        self._count(APPENDED, record.written)
        self._count(DUPLICATE, record.duplicates)
        for code, count in record.rejected.items():
            self._count(REFUSED, count, code.name)
        self._count(PAGES, record.pages)
        if record.append_s is not None:
            self._histograms[APPEND.name].observe(record.append_s)
        if record.skew_s is not None:
            self._histograms[SKEW.name].observe(record.skew_s)
        if record.code in STRANGERS:
            self._count(STRANGE, label=record.code or "")
        if record.code == Code.LINEAGE_CHANGED.name or Code.DEVICE_CLONED in record.rejected:
            self._count(FORKS)
        if record.code == Code.RATE_LIMITED.name:
            self._count(LIMITED)

    def socket_opened(self) -> None:
        self._count(SOCKETS)

    def socket_closed(self) -> None:
        self._count(SOCKETS, -1)

    def text(self, totals: Totals | None) -> str:
        """Return all numbers, without those of the database if it did not tell any."""
        lines = [line for family in FAMILIES for line in self._lines(family)]
        for family, number in zip(STATE, totals or (), strict=False):
            lines += [*head_of(family), f"{name_of(family)} {number}"]
        return "\n".join(lines) + "\n"

    def _count(self, family: Family, count: int = 1, label: str = "") -> None:
        self._counts[family.name, label] += count

    def _lines(self, family: Family) -> Iterator[str]:
        name = name_of(family)
        yield from head_of(family)
        if family.kind == "histogram":
            yield from self._histograms[family.name].lines(name)
        elif family.label is None:
            yield f"{name} {self._counts[family.name, '']}"
        else:
            for (counted, label), count in sorted(self._counts.items()):
                if counted == family.name:
                    yield f'{name}{{{family.label}="{label}"}} {count}'


def name_of(family: Family) -> str:
    return f"sharedlog_{family.name}"


def head_of(family: Family) -> Sequence[str]:
    name = name_of(family)
    return f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"
