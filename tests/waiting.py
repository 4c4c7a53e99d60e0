"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 20.0

LOOK_S = 0.005


def until(true: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Return as soon as it is true; fail if it does not come about."""
    deadline = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(LOOK_S)
