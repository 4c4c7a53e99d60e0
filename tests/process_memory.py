"""How much memory a process has, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

NOW, EVER = "VmRSS", "VmHWM"
"""What it has, and the most that it ever had."""


def memory_kib(which: str, pid: int | str = "self") -> int:
    """In KiB; fails where the system does not tell."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == which:
            return int(rest.split()[0])
    raise AssertionError("the system does not tell")
