"""What the service notes of a request while it works on it, for its log and its metrics.

Nothing of it was written by who asks: operations are the library's own, codes are the service's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sharedlog_service.entries import Receipt
from sharedlog_service.errors import Code

RECORD_KEY = "sharedlog.record"
"""Where the scope of a request has its record."""

Seconds = Callable[[], float]
"""A clock that only counts."""


@dataclass(slots=True)
class Record:
    """One request, or one socket with all that was asked by it."""

    id: str
    seconds: Seconds = time.perf_counter
    operation: str | None = None
    """The name of the library's own document."""

    code: str | None = None
    """The code of the first error."""

    pages: int = 0
    written: int = 0
    duplicates: int = 0
    rejected: Counter[Code] = field(default_factory=Counter)
    append_s: float | None = None
    """How long it took until a batch was durable."""

    skew_s: float | None = None
    """How far the device's clock is from the service's."""

    def failed(self, code: object) -> None:
        if self.code is None:
            self.code = str(code)

    def appended(self, receipt: Receipt, since: float, device_now: float | None) -> None:
        """Note a batch that is durable now; `since` is when its writing was asked for."""
        self.append_s = self.seconds() - since
        self.written += receipt.accepted
        self.duplicates += len(receipt.duplicates)
        self.rejected.update(rejection.code for rejection in receipt.rejections)
        if device_now is not None:
            self.skew_s = abs(device_now - receipt.server_time) / 1000
