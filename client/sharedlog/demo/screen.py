"""How the demonstration looks: in a terminal with bars and colours, elsewhere as plain lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

WIDTH = 80
INDENT = 3

STYLES: Mapping[str, str] = {"laptop": "cyan", "phone": "magenta"}

Advance = Callable[[int], None]


class Screen:
    """Prints the story. `console` decides what the output can do (terminal, NO_COLOR)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._console.width = min(WIDTH, console.width)

    def title(self, name: str, text: str) -> None:
        self._console.print()
        self._console.print(Text(name, style="bold"))
        self.say(text)
        self._console.print()

    def section(self, number: int, title: str, text: str = "") -> None:
        """Begin a section with what is to be seen in it."""
        self._console.print()
        self._console.rule(Text(f"{number}  {title}", style="bold"), align="left", style="dim")
        if text:
            self.say(text)
        self._console.print()

    def say(self, text: str) -> None:
        """A paragraph; where its lines break is the screen's business."""
        self._indented(Text(" ".join(text.split())))

    def done(self, text: str, *, good: bool = True) -> None:
        """One line that says what came out."""
        mark = ("✓ ", "bold green") if good else ("✗ ", "bold red")
        self._indented(Text.assemble(mark, text))

    def code(self, text: str) -> None:
        self._indented(_python(text))
        self._console.print()

    def address(self, url: str) -> None:
        """An address on a line of its own, never broken, so that it can be clicked."""
        link = Text(url, style=Style(bold=True, color="blue", link=url))
        self._console.print(Text(" " * INDENT) + link, soft_wrap=True)

    def table(self, table: Table) -> None:
        self._indented(table)

    def gap(self) -> None:
        self._console.print()

    @contextmanager
    def working(self, text: str, total: int) -> Iterator[Advance]:
        """A bar while the block runs; in a log, nothing."""
        if not self._console.is_terminal:
            yield lambda completed: None
            return
        columns = (TextColumn(" " * INDENT + "{task.description}"), BarColumn(24))
        bar = Progress(*columns, MofNCompleteColumn(), console=self._console, transient=True)
        with bar:
            task = bar.add_task(text, total=total)
            yield lambda completed: bar.update(task, completed=completed)

    def _indented(self, content: Text | Table) -> None:
        padded = Padding(content, (0, 0, 0, INDENT))
        if self._console.is_terminal:
            self._console.print(padded)
            return
        with self._console.capture() as captured:  # logs want no spaces at the ends of lines
            self._console.print(padded)
        for line in captured.get().splitlines():
            self._console.out(line.rstrip())


def open_screen() -> Screen:
    """The screen on standard output; what its encoding cannot say is replaced, not fatal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Screen(Console(highlight=False))


def device(name: str) -> Text:
    """A device's name in its colour."""
    return Text(name, style=STYLES.get(name, ""))


def steps(rows: list[tuple[str, str]]) -> Table:
    """What devices do: name and code."""
    table = Table.grid(padding=(0, 2))
    for name, code in rows:
        table.add_row(device(name), _python(code))
    return table


def _python(code: str) -> Text:
    painter = Syntax("", "python", theme="ansi_dark", background_color="default")
    text = painter.highlight(code)
    text.rstrip()
    text.no_wrap, text.overflow = False, "fold"
    return text
