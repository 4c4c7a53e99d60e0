"""What the service takes: kept in mind when a change is recorded, not only when it is sent."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

TOO_LARGE = frozenset(("BATCH_TOO_LARGE", "BODY_TOO_LARGE", "HTTP_413"))
"""What the service says when a whole request is over its limits."""

GROUP_ENTRIES = 5_000
GROUP_BYTES = 4_000_000
"""Bounds of a group, however much the service takes: it is sent and applied as a whole."""

DEVICE_NAME_CHARS = 200
"""The most that a service takes as the name of a device."""


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text that can travel: lone surrogates are in no encoding."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


class Limits(NamedTuple):
    """Bounds of one request, as the service publishes them. The defaults are the usual ones, for
    devices that have never met it."""

    entry_bytes: int = 512 * 1024
    batch_entries: int = 10_000
    batch_bytes: int = 8 * 1024 * 1024

    @property
    def value_bytes(self) -> int:
        """The most that the values of one change may have as JSON; the rest is for its key."""
        return self.entry_bytes * 500_000 // 524_288

    @property
    def group_entries(self) -> int:
        return min(GROUP_ENTRIES, self.batch_entries)

    @property
    def group_bytes(self) -> int:
        """Half of a request: what is around the values counts, too."""
        return min(GROUP_BYTES, self.batch_bytes // 2)
