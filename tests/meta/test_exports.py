"""The public names: sorted, complete, documented. The errors: drawn as a tree, documented."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest

import sharedlog
from sharedlog import cli, errors, events
from sharedlog_service.errors import Code
from tests.meta.source import ROOT, modules

ERRORS_PAGE = ROOT / "docs" / "errors.md"


def text_of_docs() -> str:
    pages = sorted((ROOT / "docs").rglob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def undocumented(names: Iterable[str], text: str) -> list[str]:
    return [name for name in names if not re.search(rf"\b{name}\b", text)]


def error_classes() -> list[type[errors.SharedLogError]]:
    """Every error class of the library; the command line's and the demonstration's are theirs."""
    for name in library_modules():
        importlib.import_module(f"sharedlog.{name}".removesuffix(".__init__"))
    found = [errors.SharedLogError]
    for each in found:
        found += each.__subclasses__()
    homes = {f"sharedlog.{name}" for name in library_modules()}
    return [each for each in found if each.__module__ in homes]


def library_modules() -> list[str]:
    return [name for name in modules("sharedlog") if name != "cli" and not name.startswith("demo")]


def test_all_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(sharedlog).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }

    assert sharedlog.__all__ == sorted(sharedlog.__all__)
    assert set(sharedlog.__all__) == public


def test_every_public_name_is_documented() -> None:
    assert undocumented(sharedlog.__all__, text_of_docs()) == []


def test_every_public_thing_has_a_docstring() -> None:
    bare = [name for name in sharedlog.__all__ if not inspect.getdoc(getattr(sharedlog, name))]

    assert bare == []


def test_every_error_is_public_and_defined_where_errors_are() -> None:
    names = {each.__name__ for each in error_classes()}

    assert names <= set(sharedlog.__all__)
    assert {each.__module__ for each in error_classes()} == {"sharedlog.errors"}


def drawn_tree(lines: Iterable[str]) -> dict[str, str]:
    """Each error of a drawing, and the one above it."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in lines:
        match = re.match(r"([│ ]*)([├└]─ )?(\w*Error|\w+)(?:  .*)?$", line)
        if match and (match[2] or match[3] == "SharedLogError"):
            depth = (len(match[1]) + len(match[2] or "")) // 3
            path[depth:] = [match[3]]
            drawn[match[3]] = path[depth - 1] if depth else "Exception"
    return drawn


def test_the_trees_that_are_drawn_are_the_tree_of_classes() -> None:
    classes = {each.__name__: each.__mro__[1].__name__ for each in error_classes()}

    docstring = (errors.__doc__ or "").splitlines()
    assert drawn_tree(line.removeprefix("    ") for line in docstring) == classes
    assert drawn_tree(page_of_errors().splitlines()) == classes


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    assert undocumented(sharedlog.__all__, reference) == []


@pytest.mark.parametrize("page", ["guide.md", "reference.md"])
def test_every_event_is_listed(page: str) -> None:
    names = [event.__name__ for event in get_args(events.Event)]

    assert undocumented(names, (ROOT / "docs" / page).read_text(encoding="utf-8")) == []


def test_every_command_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    table = reference.partition("## The command line")[2]

    assert undocumented(commands(capsys, []), table) == []


def commands(capsys: pytest.CaptureFixture[str], above: list[str]) -> list[str]:
    """The names of all commands, and of the commands below them, as their help lists them."""
    assert cli.main([*above, "--help"]) == 0
    told = re.split(r"^(?:commands|positional arguments):$", capsys.readouterr().out, flags=re.M)
    names = re.findall(r"^    ([a-z-]+)", told[-1].partition("\n\n")[0], re.M) if told[1:] else []
    return [each for name in names for each in (name, *commands(capsys, [*above, name]))]


def test_codes_tell_errors_apart() -> None:
    codes = [each.code for each in error_classes()]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("each", error_classes(), ids=lambda each: each.__name__)
def test_every_error_is_in_the_errors_page(each: type[errors.SharedLogError]) -> None:
    page = page_of_errors()

    assert undocumented([each.__name__, each.code], page) == []


def test_every_service_code_is_in_the_errors_page() -> None:
    assert undocumented([code.name for code in Code], page_of_errors()) == []


def page_of_errors(path: Path = ERRORS_PAGE) -> str:
    assert path.exists(), "docs/errors.md is missing"
    return path.read_text(encoding="utf-8")
