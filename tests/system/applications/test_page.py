"""docs/adoption.md shows what was really changed in the applications, and all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import pytest

from tests.meta.pages import read_page
from tests.meta.source import ROOT
from tests.system.applications.devices import FOLDER

PAGE = ROOT / "docs" / "adoption.md"


def changes(name: str) -> str:
    """The lines that differ, as a diff without line numbers; `...` stands for what is the same."""
    original, synced = (
        (FOLDER / name / f"{version}.py").read_text().splitlines()
        for version in ("original", "synced")
    )
    return "\n".join(_without_places(list(difflib.unified_diff(original, synced, n=0)))) + "\n"


def _without_places(lines: list[str]) -> Iterator[str]:
    for line in lines[3:]:
        yield "..." if line.startswith("@@") else line.rstrip()


@pytest.mark.parametrize("name", ["microblog", "blog"])
def test_the_page_shows_the_whole_difference(name: str) -> None:
    assert changes(name) in [block.text for block in read_page(PAGE).of("diff")]
