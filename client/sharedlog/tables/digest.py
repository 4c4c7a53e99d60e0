"""Digests of what stands in the tables, small enough to be compared with another device's.

The digest of a collection is the sum of the hashes of its rows: it does not depend on their
order, and a single other value makes another sum. A row is hashed as it would travel, its key
and its values by field name as JSON, so devices agree whatever their tables look like inside.
Rows that are parked stand in no table and are counted apart.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

import peewee

from ..changes import Wire, canonical, dumps, loads
from ..journal.journal import CHUNK, Journal
from ..merge.reconcile import NO_RULES
from ..models.registry import Registry
from ..models.tracked import Tracked
from .rows import as_wires, rows_after, standing_rows
from .statements import Values
from .versions import Versions

MISSING = "missing"
EXTRA = "extra"
DIFFERS = "differs"
PARKED_HERE = "parked here"
PARKED_THERE = "parked there"

HASH_BYTES = 16
MODULUS = 1 << (8 * HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same on both sides.

    Attributes:
        pk: The row's key; None if only the collection as a whole was compared.
        kind: `missing` here, `extra` here, `differs`, or `parked here` or `parked there`, while
            it stands in the table on the other side.
        here, there: The values on each side, as far as they differ and are known.
    """

    collection: str
    pk: Wire
    kind: str
    here: Values | None = None
    there: Values | None = None

    def __str__(self) -> str:
        row = self.collection if self.pk is None else f"{self.collection} {text_of(self.pk)}"
        if self.kind != DIFFERS or self.here is None or self.there is None:
            return f"{row} {self.kind}"
        fields = ", ".join(
            f"{name} {text_of(self.here.get(name))} here, {text_of(self.there.get(name))} there"
            for name in sorted(self.here.keys() | self.there.keys())
        )
        return f"{row} differs: {fields}"


@dataclass(frozen=True, slots=True)
class CollectionDigest:
    """One collection: its rows and their digest, its parked rows and theirs.

    `hashes` and `parked_hashes` tell the rows apart, by their keys as JSON text; they are None
    where only the sums were asked for.
    """

    rows: int
    digest: str
    parked: int
    parked_digest: str
    hashes: Mapping[str, str] | None = None
    parked_hashes: Mapping[str, str] | None = None

    def _summary(self) -> tuple[object, ...]:
        return self.rows, self.digest, self.parked, self.parked_digest


@dataclass(frozen=True, slots=True)
class Digest:
    """What a device has, in one moment.

    Two digests are worth comparing when both devices have the same `checkpoint` and nothing
    `pending`, which is so when both have just synced.
    """

    device: str | None
    checkpoint: str | None
    pending: int
    collections: Mapping[str, CollectionDigest] = field(default_factory=dict)

    def compare(self, other: Digest) -> list[Difference]:
        """What is not the same there: rows, if both know their rows' hashes, else collections."""
        differences: list[Difference] = []
        for name in sorted(self.collections.keys() | other.collections.keys()):
            here, there = self.collections.get(name, NOTHING), other.collections.get(name, NOTHING)
            if here._summary() != there._summary():
                differences += _rows_that_differ(name, here, there)
        return differences

    def to_json(self) -> dict[str, Any]:
        """The digest as what JSON can hold, for `from_json` on another device."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Digest:
        collections = {
            name: CollectionDigest(**digest) for name, digest in said["collections"].items()
        }
        return cls(said["device"], said["checkpoint"], said["pending"], collections)


class _Sum:
    """The digest of rows so far."""

    def __init__(self, *, rows: bool) -> None:
        self.count = 0
        self.hashes: dict[str, str] | None = {} if rows else None
        self._sum = 0

    def add(self, pk: str, values: Values) -> None:
        text = f"[{pk},{row_text(values)}]"
        found = blake2b(text.encode(errors="surrogatepass"), digest_size=HASH_BYTES).digest()
        self.count += 1
        self._sum = (self._sum + int.from_bytes(found)) % MODULUS
        if self.hashes is not None:
            self.hashes[pk] = found.hex()

    def __str__(self) -> str:
        return f"{self._sum:0{2 * HASH_BYTES}x}"


NOTHING = CollectionDigest(0, "0" * 2 * HASH_BYTES, 0, "0" * 2 * HASH_BYTES, {}, {})


def take_digest(
    registry: Registry, journal: Journal, versions: Versions, *, rows: bool | Container[str] = False
) -> Digest:
    """The digest of all collections, in one transaction; the hashes of rows come along, for all
    collections or for these."""
    database = journal.database
    with journal.reading():
        names = dict.fromkeys(tracked.collection for tracked in registry)
        collections = {}
        for name in sorted(names.keys() | versions.waiting_collections()):
            with_rows = rows if isinstance(rows, bool) else name in rows
            standing, parked = _Sum(rows=with_rows), _Sum(rows=with_rows)
            if tracked := registry.collection(name):
                for pk, values in _standing(database, tracked):
                    standing.add(pk, values)
            for pk, values in parked_rows(database, versions, name, tracked).items():
                parked.add(pk, values)
            collections[name] = CollectionDigest(
                standing.count,
                str(standing),
                parked.count,
                str(parked),
                standing.hashes,
                parked.hashes,
            )
        return Digest(
            journal.state("registered"),
            journal.state("checkpoint"),
            journal.count_unsent(),
            collections,
        )


def _standing(database: peewee.Database, tracked: Tracked) -> Iterator[tuple[str, Values]]:
    last = None
    while chunk := rows_after(database, tracked, last, CHUNK):
        yield from as_wires(tracked, chunk).items()
        last = chunk[-1]


def parked_rows(
    database: peewee.Database, versions: Versions, collection: str, tracked: Tracked | None
) -> dict[str, Values]:
    """The rows of a collection that stand in no table, with the values they would have."""
    rules = tracked.rules if tracked else NO_RULES
    parked: dict[str, Values] = {
        pk: state.values_parked(rules) for pk, state in versions.parked(collection).items()
    }
    if tracked is None or not parked:
        return parked
    defaults = {name: tracked.default_wire(name) for name in tracked.by_name}
    # A row that was made anew here stands, even if its state is not up to date yet.
    standing = standing_rows(database, tracked, parked)
    return {pk: {**defaults, **held} for pk, held in parked.items() if pk not in standing}


def kind_of(
    here: str | None, there: str | None, *, parked_here: bool = False, parked_there: bool = False
) -> str | None:
    """How a row differs, None if it does not; `here` and `there` stand for its values, and are
    None where it is not."""
    if here is None or there is None:
        return None if here is there else EXTRA if there is None else MISSING
    if parked_here != parked_there:
        return PARKED_HERE if parked_here else PARKED_THERE
    return None if here == there else DIFFERS


def text_of(wire: Wire) -> str:
    """A wire value as JSON text; what JSON cannot hold becomes a text that is equal to no JSON."""
    try:
        return dumps(wire)
    except TypeError:
        return repr(wire)


def row_text(values: Values) -> str:
    """The values of a row as text: the same text only if they are the same to the bit. Of JSON,
    if they mean the same: databases may keep its keys in another order, and 100 for 1e2."""
    return text_of({name: canonical(values[name]) for name in sorted(values)})


def _rows_that_differ(
    name: str, here: CollectionDigest, there: CollectionDigest
) -> Iterator[Difference]:
    mine, theirs = _by_row(here), _by_row(there)
    if mine is None or theirs is None:
        yield Difference(name, None, DIFFERS)
        return
    for pk in sorted(mine.keys() | theirs.keys()):
        parked, content = mine.get(pk, (False, None))
        parked_there, other = theirs.get(pk, (False, None))
        if kind := kind_of(content, other, parked_here=parked, parked_there=parked_there):
            yield Difference(name, loads(pk), kind)


def _by_row(digest: CollectionDigest) -> dict[str, tuple[bool, str]] | None:
    if digest.hashes is None or digest.parked_hashes is None:
        return None
    parked = {pk: (True, found) for pk, found in digest.parked_hashes.items()}
    return parked | {pk: (False, found) for pk, found in digest.hashes.items()}
