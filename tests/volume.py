"""How much tests do that draw by chance: SHAREDLOG_TEST_TIMES=30 lets them draw more."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("SHAREDLOG_TEST_TIMES") or 1)


def times(count: int) -> int:
    """What a run draws for each commit, times what was asked for."""
    return count * TIMES
