"""Reading a page of the documentation: its fenced blocks, its marks, its links.

<!-- service -->         at the top: the page's program gets URL and TOKEN of a real service
<!-- skip: reason -->    before a block: it is not run, and the reason is told
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)\s*$")
SKIP = re.compile(r"^<!-- skip: (?P<reason>.+?) -->$")
SERVICE = "<!-- service -->"
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+?)\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first line of content, counted from 1."""

    language: str
    line: int
    text: str
    skip: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    path: Path
    service: bool
    blocks: tuple[Block, ...]
    prose: str

    def of(self, language: str) -> list[Block]:
        return [block for block in self.blocks if block.language == language]

    def links(self) -> list[str]:
        return [match["target"] for match in LINK.finditer(self.prose)]

    def anchors(self) -> set[str]:
        """The names that a link's `#…` can mean."""
        titles = (m["title"] for line in self.prose.splitlines() if (m := HEADING.match(line)))
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def read_page(path: Path) -> Page:
    lines = path.read_text(encoding="utf-8").splitlines()
    inside: set[int] = set()
    blocks: list[Block] = []
    for block, start, end in _fenced(lines):
        inside.update(range(start, end + 1))
        if block.language != "output":
            blocks.append(block)
        elif blocks and blocks[-1].language == "python" and blocks[-1].output is None:
            last = blocks[-1]
            blocks[-1] = Block(last.language, last.line, last.text, last.skip, block.text)
        else:
            raise ValueError(f"{path}:{start + 1}: an output block without a python block")
    prose = "\n".join(line for number, line in enumerate(lines) if number not in inside)
    return Page(path, SERVICE in lines[:3], tuple(blocks), prose)


def _fenced(lines: list[str]) -> Iterator[tuple[Block, int, int]]:
    """Each block with the indexes of its opening and closing fence."""
    start, opening = 0, None
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if opening is None and match:
            start, opening = number, match
        elif opening is not None and line.rstrip() == opening["fence"]:
            text = "\n".join(lines[start + 1 : number]) + "\n"
            reason = _skipped(lines, start)
            yield Block(opening["language"], start + 2, text, reason), start, number
            opening = None
    if opening is not None:
        raise ValueError(f"line {start + 1}: the block is not closed")


def _skipped(lines: list[str], fence: int) -> str | None:
    before = next((line for line in reversed(lines[:fence]) if line.strip()), "")
    match = SKIP.match(before)
    return match["reason"] if match else None
