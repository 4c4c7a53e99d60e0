"""Comparing a device's tables with what the shared log comes to, row by row.

A few hundred rows at a time, each time in a transaction in which the replay has read just what
the device has: so it is exact while the application writes and syncs, and nobody waits long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from ..changes import loads
from ..errors import ConfigurationError
from ..journal.inbox import Inbox
from ..journal.journal import CHUNK, Journal, chunks
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.digest import (
    DIFFERS,
    Difference,
    kind_of,
    parked_rows,
    row_text,
    text_of,
)
from ..tables.rows import as_wires, rows_after, standing_rows
from ..tables.statements import Values
from ..tables.versions import Versions
from .replay import Replay

LISTED = 1_000
"""How many differences are listed, unless `verify()` is told otherwise; all are counted."""


@dataclass(slots=True)
class Verified:
    """What `verify()` found.

    Attributes:
        entries: Entries of the shared log that were replayed.
        rows: Rows of this device's tables that were compared.
        parked: Parked rows of this device that were compared.
        count: How many rows are not what the log comes to.
        differences: These rows, the first ones of them.
    """

    entries: int = 0
    rows: int = 0
    parked: int = 0
    count: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return self.count == 0


class Verification:
    """One pass over everything. `transaction` opens one of the device's database: in it, the
    consumer of `differences` or `changed` may act on what it gets."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        versions: Versions,
        replay: Replay,
        transaction: Callable[[], AbstractContextManager[None]],
        progress: Callable[[Verified], None],
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._versions = versions
        self._replay = replay
        self._transaction = transaction
        self._progress = progress
        self.verified = Verified()

    def run(self, limit: int) -> Verified:
        for some in self.differences():
            verified = self.verified
            verified.count += len(some)
            verified.differences += some[: max(0, limit - len(verified.differences))]
        return self.verified

    def differences(self) -> Iterator[list[Difference]]:
        """What differs, a chunk at a time, inside the transaction of the chunk."""
        yield from self.standing_here()
        for tracked in self._registry:
            yield from self._standing_there(tracked)
        parked = self._versions.waiting_collections() | self._replay.versions.waiting_collections()
        for collection in sorted(parked):
            with self._caught_up():
                yield list(self._parked(collection))

    def standing_here(self) -> Iterator[list[Difference]]:
        """The rows of this device's tables that the log says something else of."""
        for tracked in self._registry.in_order:
            last = None
            while True:
                with self._caught_up():
                    chunk = rows_after(self._journal.database, tracked, last, CHUNK)
                    if chunk:
                        yield list(self._compared(tracked, dict(as_wires(tracked, chunk))))
                if not chunk:
                    break
                last = chunk[-1]
                self.verified.rows += len(chunk)
                self._tell()

    # -- where the replay must be --------------------------------------------------------

    @contextmanager
    def _caught_up(self) -> Iterator[None]:
        """A transaction in which the replay is where the device is."""
        self._replay.follow()  # most of it before anybody has to wait
        while True:
            self._replay.read_until(self._journal.state("checkpoint"), self._tell)
            with self._transaction():
                if self._journal.state("checkpoint") == self._replay.checkpoint:
                    if Inbox(self._journal).waiting(1):
                        raise ConfigurationError(
                            "Received entries wait to be applied, so the tables are behind.",
                            hint="Call reconcile() first, or sync().",
                        )
                    self._replay.follow()
                    yield
                    return

    def _tell(self) -> None:
        self.verified.entries = self._replay.entries
        self._progress(self.verified)

    # -- comparing -----------------------------------------------------------------------

    def _compared(self, tracked: Tracked, here: dict[str, Values]) -> Iterator[Difference]:
        there = standing_rows(self._replay.database, tracked, here)
        absent = [pk for pk in here if pk not in there]
        parked = self._replay.versions.load(tracked.collection, absent)
        for pk, values in here.items():
            state = parked.get(pk)
            held = None
            if state is not None and state.parked is not None:
                held = state.values_parked(tracked.rules)
            yield from _difference(
                tracked.collection,
                pk,
                values,
                there.get(pk, held),
                parked_there=pk not in there and held is not None,
            )

    def _standing_there(self, tracked: Tracked) -> Iterator[list[Difference]]:
        """The rows that this device's table lacks."""
        last = None
        database = self._journal.database
        while True:
            with self._caught_up():
                chunk = rows_after(self._replay.database, tracked, last, CHUNK)
                there = as_wires(tracked, chunk)
                here = standing_rows(database, tracked, there)
                absent = {pk: values for pk, values in there.items() if pk not in here}
                states = self._versions.load(tracked.collection, list(absent))
                parked = {
                    pk: state.values_parked(tracked.rules)
                    for pk, state in states.items()
                    if state.parked is not None
                }
                yield [
                    difference
                    for pk, values in absent.items()
                    for difference in _difference(
                        tracked.collection, pk, parked.get(pk), values, parked_here=pk in parked
                    )
                ]
            if not chunk:
                return
            last = chunk[-1]

    def _parked(self, collection: str) -> Iterator[Difference]:
        """The rows that are parked on both sides, or on one and nowhere on the other."""
        tracked = self._registry.collection(collection)
        database, replay = self._journal.database, self._replay
        here = parked_rows(database, self._versions, collection, tracked)
        there = parked_rows(replay.database, replay.versions, collection, tracked)
        self.verified.parked += len(here)
        for some in chunks(sorted(here.keys() | there.keys())):
            standing = {
                pk
                for side in (database, replay.database)
                for pk in (standing_rows(side, tracked, some) if tracked else ())
            }
            for pk in some:
                if pk not in standing:
                    yield from _difference(collection, pk, here.get(pk), there.get(pk))


def _difference(
    collection: str,
    pk: str,
    here: Values | None,
    there: Values | None,
    *,
    parked_here: bool = False,
    parked_there: bool = False,
) -> Iterator[Difference]:
    texts = [None if values is None else row_text(values) for values in (here, there)]
    kind = kind_of(*texts, parked_here=parked_here, parked_there=parked_there)
    if kind is None:
        return
    if kind == DIFFERS and here is not None and there is not None:
        here, there = only_differing(here, there), only_differing(there, here)
    yield Difference(collection, loads(pk), kind, here, there)


def only_differing(values: Values, others: Values) -> Values:
    """The values of a row that the other side lacks, or has others of."""
    return {
        name: value
        for name, value in sorted(values.items())
        if name not in others or text_of(value) != text_of(others[name])
    }
