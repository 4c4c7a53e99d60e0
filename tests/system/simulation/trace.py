"""What happened, line by line, and the digest of it."""

from __future__ import annotations

import hashlib
import sys
from collections import deque

KEPT = 60


class Trace:
    """A run's history. Two runs are the same if their digests are."""

    def __init__(self, *, show: bool = False) -> None:
        self.lines = 0
        self._digest = hashlib.sha256()
        self._last: deque[str] = deque(maxlen=KEPT)
        self._show = show

    def add(self, time_ms: int, who: str, *what: object) -> None:
        line = f"{time_ms} {who} {' '.join(map(str, what))}"
        self.lines += 1
        self._digest.update(line.encode())
        self._last.append(line)
        if self._show:
            sys.stdout.write(line + "\n")

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def tail(self) -> str:
        """The last lines, for a failure's message."""
        return "\n".join(self._last)
