"""What commands print for people: lines of columns, times, and nothing that a terminal obeys."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

UNITS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

AGO = re.compile(r"(\d{1,6})([smhd])")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lay out rows under their heads; numbers stand at the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(v, int) for v in column) for column in zip(*rows, strict=True)
    ]
    for line in (list(heads), *cells):
        laid = [
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(
                line, widths, right or [False] * len(line), strict=True
            )
        ]
        yield "  ".join(laid).rstrip()


def cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else harmless(str(value))


def harmless(text: str) -> str:
    """A text of others as it may be shown on a terminal: on one line, and without commands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def moment(ms: int | None) -> str | None:
    """A time of the service, in UTC."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


class Since:
    """A point in time as it is given on the command line."""

    def __init__(self, text: str) -> None:
        self._ago: int | None = None
        if found := AGO.fullmatch(text):
            self._ago = int(found[1]) * UNITS[found[2]] * 1000
            return
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a time, such as 2026-11-27 or 2026-11-27T10:00 (in UTC), nor "
                "how long ago, such as 30m, 2h or 7d"
            ) from error
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        self._ms = int(time.timestamp() * 1000)

    def ms(self, now: int) -> int:
        return self._ms if self._ago is None else now - self._ago
