"""Making keys for rows that had numbers: as 32 hexadecimal digits, in the order of the numbers.

`OrderedKeys` makes UUIDs of version 7, which are new each time. `DerivedKeys` makes UUIDs of
version 8 out of a name, the table and the number: the same on every copy of a file, and still in
the order of the numbers, before any key that is made later by the clock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..clock import Now, system_now
from ..errors import MigrationRefused

PER_MS = 2**12
"""Keys within one millisecond: the twelve bits after the version count them."""

NUMBER_LIMIT = 2**40
"""Below this, a number in place of the milliseconds sorts before every key made since 2004."""

_VARIANT = 0b10 << 62
_RANDOM_BITS = 2**62 - 1


class Keys(Protocol):
    """Makes the keys of one table after the other."""

    def make(self, table: str, numbers: Iterable[int], count: int) -> Iterator[tuple[int, str]]:
        """Each number with its key. The numbers come in ascending order, `count` of them."""
        ...


class OrderedKeys:
    """Keys by the clock, and random. The newest row of a table gets the time of now."""

    def __init__(
        self, now: Now = system_now, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._now = now
        self._random_bytes = random_bytes

    def make(self, table: str, numbers: Iterable[int], count: int) -> Iterator[tuple[int, str]]:
        first = self._now() * PER_MS - count
        for ticks, number in enumerate(numbers, first):
            milliseconds, counter = divmod(ticks, PER_MS)
            random = int.from_bytes(self._random_bytes(8), "big") & _RANDOM_BITS
            yield number, _hex(milliseconds, 7, counter, random)


class DerivedKeys:
    """Keys by what was there: the same for the same number on every copy of the file."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def make(self, table: str, numbers: Iterable[int], count: int) -> Iterator[tuple[int, str]]:
        for number in numbers:
            if not 0 <= number < NUMBER_LIMIT:
                raise MigrationRefused(
                    f"{table} has the number {number} as a key; keys are derived from numbers "
                    f"from 0 to {NUMBER_LIMIT - 1}.",
                    hint="Migrate one copy without --namespace, and start the others from it.",
                )
            text = "\0".join((self._namespace, table, str(number)))
            digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
            yield number, _hex(number, 8, digest >> 68, digest & _RANDOM_BITS)


def _hex(first: int, version: int, second: int, last: int) -> str:
    """A UUID in the layout of RFC 9562, as Peewee's UUIDField stores it."""
    return f"{first << 16 | version << 12 | second:016x}{_VARIANT | last:016x}"
