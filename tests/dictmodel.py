"""What merging means, said once more and as simply as possible: DESIGN section 5 on dictionaries.

Slow, without state, and written without a look at the library: keep every change of a row, and
work out from the whole set what the row is. Tests compare the library with this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Stamp = tuple[int, str]
"""(ticks, device): later is larger."""


class Write(NamedTuple):
    """One change of one row: when and by whom, what, and with which values. Of some of these it
    names the merge rule."""

    stamp: Stamp
    operation: str
    value: Mapping[str, Any] | None = None
    ruled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """What a row is. `values` and `versions` are of the fields written since the deletion."""

    alive: bool
    died: Stamp | None
    values: Mapping[str, Any]
    versions: Mapping[str, Stamp]


def row_of(writes: Iterable[Write]) -> Row:
    """The row that a set of changes makes, in whatever order they are listed."""
    by_time = sorted(set_of(writes), key=lambda write: write.stamp)
    died = max((w.stamp for w in by_time if w.operation == "delete"), default=None)
    since = [w for w in by_time if w.operation != "delete" and (died is None or w.stamp > died)]
    values: dict[str, Any] = {}
    versions: dict[str, Stamp] = {}
    for write in since:
        for name, value in (write.value or {}).items():
            values[name] = value
            versions[name] = write.stamp
    return Row(any(w.operation == "create" for w in since), died, values, versions)


def set_of(writes: Iterable[Write]) -> list[Write]:
    """Each change once: its stamp is its identity."""
    return list({write.stamp: write for write in writes}.values())
