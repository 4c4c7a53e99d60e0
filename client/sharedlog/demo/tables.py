"""The tables of the demonstration: conflicts, outcomes, the proof, the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..apply.conflicts import Conflict
from ..changes import Wire
from ..clock import Version, to_created_on
from .proof import Comparison
from .screen import device

GOOD = "bold green"
DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One step in numbers; `bytes` is None where nothing went over the network."""

    step: str
    changes: int
    seconds: float
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an edit, as each device shows it."""

    rule: str
    laptop: str
    phone: str


def conflicts(found: Iterable[Conflict], names: Mapping[str, str]) -> Table:
    """Who wrote what when, what stands, and why: two lines for each field that met."""
    table = _table("what", "", "who", "when", "wrote", "why it stands")
    for conflict in sorted(found, key=lambda c: min(c.winner, c.loser)):
        table.add_section()
        sides = [(conflict.winner, _won(conflict), True), (conflict.loser, _lost(conflict), False)]
        labels = [f"{conflict.collection} {conflict.pk}", f"  {conflict.field or 'whole row'}"]
        for label, (version, wrote, won) in zip(labels, sorted(sides), strict=True):
            table.add_row(
                label,
                Text("✓", style=GOOD) if won else "",
                device(names.get(version.device, version.device)),
                _time(version),
                Text(wrote, style="bold" if won else "dim"),
                _why(conflict) if won else "",
            )
    return table


def _won(conflict: Conflict) -> str:
    if conflict.field is not None:
        return _shown(conflict.value)
    return "deleted it" if conflict.value is None else "created it again"


def _lost(conflict: Conflict) -> str:
    if conflict.field is not None:
        return _shown(conflict.lost)
    return "edited it" if conflict.value is None else "deleted it"


def _why(conflict: Conflict) -> str:
    if conflict.winner > conflict.loser:
        return "the later write wins" if conflict.field else "the later one wins"
    return "deleted stays deleted"


def _shown(value: Wire) -> str:
    return "nothing" if value is None else str(value)


def _time(version: Version) -> str:
    moment = datetime.fromtimestamp(to_created_on(version.ticks) / 1000)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"


def outcomes(found: Iterable[Outcome]) -> Table:
    table = _table(">", "rule", "on both devices now")
    for number, outcome in enumerate(found, 1):
        seen = Text(outcome.laptop)
        if outcome.laptop != outcome.phone:
            seen = Text(f"laptop: {outcome.laptop}; phone: {outcome.phone}", style="bold red")
        table.add_row(str(number), outcome.rule, seen)
    return table


def proof(found: Iterable[Comparison]) -> Table:
    table = _table("table", ">rows", "sha256 laptop", "sha256 phone", "")
    for comparison in found:
        table.add_row(
            comparison.table,
            _rows(comparison),
            comparison.left.sha256[:DIGEST_CHARS] + "…",
            comparison.right.sha256[:DIGEST_CHARS] + "…",
            Text("equal", style=GOOD) if comparison.equal else Text("DIFFERENT", style="bold red"),
        )
    return table


def _rows(comparison: Comparison) -> str:
    left, right = comparison.left.rows, comparison.right.rows
    return f"{left:,}" if left == right else f"{left:,} / {right:,}"


def figures(found: Iterable[Figure]) -> Table:
    table = _table("step", ">changes", ">seconds", ">changes/s", ">JSON")
    for figure in found:
        table.add_row(
            figure.step,
            f"{figure.changes:,}",
            f"{figure.seconds:.2f}",
            f"{figure.changes / figure.seconds:,.0f}",
            "" if figure.bytes is None else size(figure.bytes),
        )
    return table


def size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _table(*columns: str) -> Table:
    """An open table; a column whose name begins with `>` holds numbers."""
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim"
    )
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", no_wrap=True)
        else:
            table.add_column(column)
    return table
