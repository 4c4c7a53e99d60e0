"""Timestamps: a hybrid logical clock packed into one integer. No database, no network.

A timestamp is `milliseconds * 1024 + counter`, in *ticks* of 1/1024 millisecond. As ticks it
is an integer below 2**53 until the year 2248; as `createdOn` on the wire it is a float of
milliseconds, exact because the divisor is a power of two. It orders changes. It is never a
position in the shared log.

The idea is that of hybrid logical clocks (Kulkarni et al. 2014): wall time where it moves
forward, a counter where it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

TICKS_PER_MS = 1024

Now = Callable[[], int]
"""Wall time in whole milliseconds since 1970."""


class Version(NamedTuple):
    """Which write made something what it is. Totally ordered: ticks first, then device id."""

    ticks: int
    device: str


BEFORE_TRACKING = Version(0, "")
"""The version of what stood in a table before it was tracked: older than every change."""


def system_now() -> int:
    """Wall time in milliseconds."""
    return time.time_ns() // 1_000_000


def next_ticks(now_ms: int, last: int) -> int:
    """The timestamp of the next local change: wall time, but always later than `last`."""
    return max(now_ms * TICKS_PER_MS, last + 1)


def to_created_on(ticks: int) -> float:
    """Ticks as the wire's milliseconds (exact)."""
    return ticks / TICKS_PER_MS


def from_created_on(created_on: float) -> int:
    """The wire's milliseconds as ticks (exact for values made by `to_created_on`)."""
    return round(created_on * TICKS_PER_MS)
