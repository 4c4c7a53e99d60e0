"""Which faults strike, how often, and what a crash is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

RATES: Mapping[str, float] = {
    # On the way, for each exchange.
    "request lost": 0.04,
    "request late": 0.03,
    "request doubled": 0.05,
    "copy late": 0.03,
    "reply lost": 0.05,
    "partition": 0.01,
    # In the service, for each exchange.
    "service dies at a statement": 0.02,
    "service dies before its reply": 0.02,
    "service clock jumps": 0.02,
    "log begins a new life": 0.006,
    "service restored from a backup": 0.02,
    "service wiped": 0.005,
    "foreign entry": 0.01,
    # In a device, for each thing it does.
    "device dies at a statement": 0.1,
    "device dies": 0.01,
    "clock jumps": 0.03,
    "clock freezes": 0.02,
    "device copied": 0.004,
    "device put back": 0.01,
    # At each start of a device.
    "clock begins anew": 0.1,
    # In the application, for each transaction.
    "transaction rolled back": 0.05,
    "savepoint rolled back": 0.05,
}


class Crash(BaseException):
    """The process is gone. Not an Exception, so that no code can treat it as a failure."""


class Faults:
    """Decides by chance, and counts. `scale` says how much goes wrong; `heal()` ends it all."""

    def __init__(self, chance: random.Random, *, scale: float = 1.0) -> None:
        self.counts: Counter[str] = Counter()
        self._chance = chance
        self.scale = scale

    def strike(self, kind: str) -> bool:
        """Whether this fault happens here and now."""
        struck = self._chance.random() < RATES[kind] * self.scale
        if struck:
            self.counts[kind] += 1
        return struck

    def threaten(self, kind: str) -> bool:
        """Whether this fault may happen; it counts when somebody says `struck`."""
        return self._chance.random() < RATES[kind] * self.scale

    def struck(self, kind: str) -> None:
        self.counts[kind] += 1

    def heal(self) -> None:
        self.scale = 0.0
