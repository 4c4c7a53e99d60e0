"""The way to the service and back: requests get lost, are late, come twice; replies get lost.

A reply never comes late: whoever asked has gone away by then, as over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from sharedlog import ConnectionFailed, Entry, SharedLog, SharedLogError
from sharedlog.remote.sharedlog import About, Outgoing, OwnPage, Page, Receipt

from .clocks import HOUR, MINUTE, SECOND
from .faults import Crash, Faults
from .memory_service import MemoryService
from .service import Logged, Service
from .trace import Trace

T = TypeVar("T")

Identity = tuple[str, int]
"""What an entry is known by: device and ticks."""


class Carried(NamedTuple):
    """What a request brings: entries, and how far their sender had read."""

    entries: Sequence[Identity]
    read: int


NOTHING = Carried((), 0)

EXCHANGES_MAX = 2_000
"""In one sync. More means that it goes round in circles."""


class Stuck(AssertionError):
    """A device exchanges without end, or cannot finish although nothing is in its way."""


class Torn(AssertionError):
    """A page ends in the middle of a transaction."""


class World(Protocol):
    """What the network needs of the world."""

    @property
    def now(self) -> int: ...

    def pass_time(self, ms: int) -> None: ...

    def later(self, delay_ms: int, event: Callable[[], object]) -> None: ...


class Network:
    """Between all devices and the service."""

    def __init__(
        self,
        world: World,
        service: Service | MemoryService,
        faults: Faults,
        chance: Random,
        trace: Trace,
    ) -> None:
        self._world = world
        self._service = service
        self._faults = faults
        self._chance = chance
        self._trace = trace
        self._refused_ahead: set[Identity] = set()
        self.acknowledged: dict[Identity, str] = {}
        self.read: dict[Identity, int] = {}
        """How far the senders of what is in the log had read by then."""
        self.lost: set[Identity] = set()
        """What it ever lost, whether or not it was sent again."""

    def gone(self, log: Sequence[Logged]) -> set[Identity]:
        """What the log had, and has no more as that."""
        return self.lost - {(entry.device, entry.ticks) for entry in log}

    def exchange(
        self,
        link: Link,
        what: str,
        request: Callable[[SharedLog], T],
        carried: Carried = NOTHING,
    ) -> T:
        """Carry a request to the service and its reply back, or fail on the way. `carried` is
        what is in it."""
        self._world.pass_time(self._chance.randint(1, 300))
        if self._world.now < link.cut_until or self._faults.strike("partition"):
            if self._world.now >= link.cut_until:
                link.cut_until = self._world.now + self._chance.randint(MINUTE, 40 * HOUR)
            raise self._failed(link, what, "partition")
        if self._faults.strike("request lost"):
            raise self._failed(link, what, "request lost")
        if self._faults.strike("request late"):
            self._deliver_late(link, what, request, carried)
            raise self._failed(link, what, "request late")
        self._happen_to_service()
        if self._faults.strike("request doubled"):
            self._deliver(link, f"{what} (first of two)", request, carried)
        reply = self._deliver(link, what, request, carried)
        if self._faults.strike("copy late"):
            self._deliver_late(link, what, request, carried)
        if self._faults.strike("service dies before its reply"):
            self._service.restart()
            raise self._failed(link, what, "service died")
        if self._faults.strike("reply lost"):
            raise self._failed(link, what, "reply lost")
        self._world.pass_time(self._chance.randint(1, 300))
        return reply

    def _deliver(
        self,
        link: Link,
        what: str,
        request: Callable[[SharedLog], T],
        carried: Carried,
    ) -> T:
        dies = self._faults.threaten("service dies at a statement")
        try:
            reply = self._service.answer(request, dies=dies)
        except Crash as crash:
            self._faults.struck("service dies at a statement")
            raise self._failed(link, what, f"service died {crash}") from None
        if isinstance(reply, Receipt):
            rejected = {r.index for r in reply.rejected}
            for index, identity in enumerate(carried.entries):
                if index not in rejected:
                    self.read.setdefault(identity, carried.read)
            ahead = [r.index for r in reply.rejected if r.code == "CLOCK_AHEAD"]
            self._refused_ahead.update(carried.entries[index] for index in ahead)
        self._trace.add(self._world.now, link.name, what, _said(reply))
        return reply

    def _deliver_late(
        self,
        link: Link,
        what: str,
        request: Callable[[SharedLog], T],
        carried: Carried,
    ) -> None:
        def event() -> None:
            if self._refused_ahead.intersection(carried.entries):
                # A known hole: the device has given these entries new identities since, and
                # the service would take the old ones, too, once its time has come so far.
                self._trace.add(self._world.now, link.name, what, "late, and dropped")
                return
            try:
                self._deliver(link, f"{what} (late)", request, carried)
            except SharedLogError as error:
                self._trace.add(self._world.now, link.name, what, "late", error.code)

        self._world.later(self._chance.randint(SECOND, 5 * MINUTE), event)

    def _happen_to_service(self) -> None:
        """What strikes the service between two requests."""
        if self._faults.strike("log begins a new life"):
            self._service.begin_new_life()
        if self._service.has_backup and self._faults.strike("service restored from a backup"):
            renew = self._chance.random() < 0.5
            self._lose(lambda: self._service.restore(renew=renew))
        if self._service.has_backup and self._faults.strike("service wiped"):
            self._lose(self._service.wipe)

    def _lose(self, happen: Callable[[], None]) -> None:
        """Let the log lose entries, and note which."""
        before = self._identities()
        happen()
        lost = before - self._identities()
        self.lost |= lost
        for identity in lost:
            self.read.pop(identity, None)

    def _identities(self) -> set[Identity]:
        return {(entry.device, entry.ticks) for entry in self._service.entries()}

    def _failed(self, link: Link, what: str, why: str) -> ConnectionFailed:
        self._trace.add(self._world.now, link.name, what, "failed:", why)
        return ConnectionFailed(why)


class Link:
    """One device's way to the service: a `SharedLog` whose calls go through the network.

    `meanwhile` is called while a request is on its way and while its reply is: other things
    happen on the device then.
    """

    def __init__(self, name: str, network: Network, meanwhile: Callable[[], None]) -> None:
        self.name = name
        self.cut_until = 0
        self.exchanges = 0
        self._network = network
        self._meanwhile = meanwhile
        self._ends: dict[str, Entry] = {}

    def about(self) -> About:
        return self._call("asks", lambda log: log.about())

    def register(self, name: str | None, device: str) -> str:
        return self._call("registers", lambda log: log.register(name, device))

    def write(
        self,
        device: str,
        entries: Sequence[Outgoing],
        *,
        after: str | None,
        now_ms: int,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Receipt:
        def request(log: SharedLog) -> Receipt:
            return log.write(
                device,
                entries,
                after=after,
                now_ms=now_ms,
                limit=limit,
                byte_limit=byte_limit,
                lineage=lineage,
            )

        read = int((after or ".0").rpartition(".")[2])
        carried = Carried([(device, entry.ticks) for entry in entries], read)
        receipt = self._call(f"writes {len(entries)} after {after}", request, carried)
        rejected = {rejection.index for rejection in receipt.rejected}
        for index, entry in enumerate(entries):
            if index not in rejected:
                self._network.acknowledged[device, entry.ticks] = entry.data
        if receipt.page is not None:
            self._check_groups(receipt.page, after)
        return receipt

    def read(
        self,
        device: str,
        *,
        after: str | None,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Page:
        def request(log: SharedLog) -> Page:
            return log.read(
                device, after=after, limit=limit, byte_limit=byte_limit, lineage=lineage
            )

        page = self._call(f"reads after {after}", request)
        self._check_groups(page, after)
        return page

    def read_all(
        self, device: str, *, after: str | None, until: str, limit: int, byte_limit: int
    ) -> Page:
        def request(log: SharedLog) -> Page:
            return log.read_all(
                device, after=after, until=until, limit=limit, byte_limit=byte_limit
            )

        return self._call(f"reads everything after {after} until {until}", request)

    def read_own(self, device: str, *, since: int, limit: int, byte_limit: int) -> OwnPage:
        def request(log: SharedLog) -> OwnPage:
            return log.read_own(device, since=since, limit=limit, byte_limit=byte_limit)

        return self._call(f"reads its own since {since}", request)

    @property
    def entries(self) -> int:
        """About how many there are in the log."""
        return len(self._network.acknowledged)

    def _check_groups(self, page: Page, after: str | None) -> None:
        """A page must not go on with the transaction that the one before it ended with."""
        last = self._ends.get(after or "")
        if last is not None and page.entries and last.group == page.entries[0].group:
            raise Torn(f"{self.name}: the page at {after} begins inside a transaction")
        if page.entries and page.has_more:
            self._ends[page.cursor] = page.entries[-1]

    def close(self) -> None:
        pass

    def _call(self, what: str, request: Callable[[SharedLog], T], carried: Carried = NOTHING) -> T:
        self.exchanges += 1
        if self.exchanges > EXCHANGES_MAX:
            raise Stuck(f"{self.name} made {EXCHANGES_MAX} exchanges in one sync")
        self._meanwhile()
        reply = self._network.exchange(self, what, request, carried)
        self._meanwhile()
        return reply


def _said(reply: object) -> str:
    """A reply in few words."""
    if isinstance(reply, Receipt):
        codes = [rejection.code for rejection in reply.rejected]
        page = "" if reply.page is None else _said(reply.page)
        return f"+{reply.accepted} ={reply.duplicates} -{codes} {page}"
    if isinstance(reply, Page):
        more = " and more" if reply.has_more else ""
        return f"{len(reply.entries)} to {reply.cursor}{more}"
    if isinstance(reply, OwnPage):
        ends = [reply.entries[at].ticks for at in (0, -1)] if reply.entries else []
        more = " and more" if reply.has_more else ""
        return f"{len(reply.entries)} {ends} of {reply.lineage}{more}"
    return str(reply)
