"""The results for people: a table, in colour where `rich` is installed."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Figure

HEAD = ("benchmark", "what", "rows", "measured", "limit", "target", "reached")


def show(figures: Sequence[Figure]) -> None:
    lines = [_line(figure) for figure in figures]
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        _show_plain(lines)
        return
    table = Table(box=None)
    for place, title in enumerate(HEAD):
        table.add_column(title, justify="right" if 2 <= place <= 5 else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line, style="red" if line[-1] == "no" else None)
    # Never cut: a figure that cannot be read is none.
    Console(width=max(Console().width, sum(max(map(len, c)) + 2 for c in _columns(lines)))).print(
        table
    )


def _columns(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(zip(HEAD, *lines, strict=True))


def _show_plain(lines: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in _columns(lines)]
    for line in (HEAD, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _line(figure: Figure) -> tuple[str, ...]:
    sign = ">=" if figure.at_least else "<="
    reached = {True: "yes", False: "no", None: ""}[figure.reached]
    return (
        figure.benchmark,
        figure.name,
        f"{figure.rows:,}",
        quantity(figure.value, figure.unit),
        "" if figure.limit is None else quantity(figure.limit, figure.unit),
        "" if figure.target is None else f"{sign} {quantity(figure.target, figure.unit)}",
        reached,
    )


def quantity(value: float, unit: str) -> str:
    if unit in ("x", "share"):
        return f"{value:.2f}"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
