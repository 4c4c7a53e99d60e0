"""How much is waiting to be taken by who asked for it, counted in this process alone; and no for
what there is no room for.

An answer stays in memory until its reader has taken it. Its size is known once it is made, so what
does not fit is refused then, and what is read for the next one becomes shorter before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from sharedlog_service.errors import Code, Refused

SHORT_BYTES = 64 * 1024
"""What is not longer is not counted: as much as a connection may hold anyway."""

ROOM_MIN = SHORT_BYTES // 2
"""So much data a page may have however little room there is: its answer is short, as a rule."""

USER_SHARE = 0.25
"""How much of all one user may have waiting."""

RETRY_MS = 1_000
"""When to ask again. What waits is taken soon, as a rule, or given up."""


class Answers:
    """How many bytes of answers wait, of each user and in all. Of one thread, the event loop's;
    only `room` may be asked from others."""

    def __init__(self, bytes_max: int | None) -> None:
        self._bytes_max = bytes_max
        self._held: Counter[str | None] = Counter()
        self._total = 0

    def room(self, user: str | None, page: int) -> int | None:
        """Return how many bytes of data this user's next page may have, None if any number. `page`
        counts those of one request: each may have half of what the one before could."""
        if self._bytes_max is None:
            return None
        own = int(self._bytes_max * USER_SHARE) - self._held[user]
        return max(ROOM_MIN, min(own, self._bytes_max - self._total) >> page)

    @contextmanager
    def hold(self, user: str | None, size: int) -> Iterator[None]:
        """Hold an answer while it waits; ANSWERS_WAITING if others leave no room. A user's first
        one may be larger than their share, and the first of all than there is room."""
        self._check(self._held[user], size, USER_SHARE)
        self._check(self._total, size)
        self._add(user, size)
        try:
            yield
        finally:
            self._add(user, -size)

    def __len__(self) -> int:
        """Of how many users something waits."""
        return len(self._held)

    def _check(self, others: int, size: int, share: float = 1) -> None:
        if self._bytes_max is not None and others and others + size > self._bytes_max * share:
            raise Refused(
                Code.ANSWERS_WAITING,
                f"{Code.ANSWERS_WAITING.value} Ask again in {ceil(RETRY_MS / 1000)} s.",
                retryAfterMs=RETRY_MS,
            )

    def _add(self, user: str | None, size: int) -> None:
        self._total += size
        self._held[user] += size
        if not self._held[user]:
            del self._held[user]
