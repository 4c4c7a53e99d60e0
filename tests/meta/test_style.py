"""The house rules that a linter does not know: sizes, leftovers, addresses, characters."""

from __future__ import annotations

import ast
import re
import unicodedata
from pathlib import Path

import pytest

from tests.meta.source import PACKAGES, ROOT, committed, shown, text_of, tree

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

SOURCES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
TEXTS = {path: text for path in committed() if (text := text_of(path)) is not None}

VENDORED = ROOT / "service" / "sharedlog_service" / "assets"

LEFTOVERS = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")

ADDRESSES = re.compile(
    r"fi" r"le://|//[\w.-]*(py" r"pi|python" r"hosted|npm" r"js|yarn" r"pkg|deb" r"ian)\.org"
)
"""Where packages come from is the business of the machine's own configuration."""


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_files_are_small(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")

    assert lines <= FILE_LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_functions_are_small(path: Path) -> None:
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path))


def test_nothing_is_left_to_be_done() -> None:
    assert lines_with(LEFTOVERS) == []


def test_no_file_names_an_address_of_packages() -> None:
    assert lines_with(ADDRESSES) == []


def test_no_file_has_invisible_characters() -> None:
    found = [
        f"{shown(path)}: U+{ord(character):04X}"
        for path, text in TEXTS.items()
        for character in set(text)
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn")
    ]

    assert found == []


def test_text_files_end_with_one_newline() -> None:
    found = [
        shown(path)
        for path, text in TEXTS.items()
        if VENDORED not in path.parents
        and text
        and (not text.endswith("\n") or text.endswith("\n\n"))
    ]

    assert found == []


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{shown(path)}:{number}: {line.strip()[:80]}"
        for path, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
