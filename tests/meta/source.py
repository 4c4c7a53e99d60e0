"""The project's own files and syntax trees, as the meta tests look at them."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = {
    "sharedlog": ROOT / "client" / "sharedlog",
    "sharedlog_service": ROOT / "service" / "sharedlog_service",
}

NOT_OURS = {".git", ".venv", ".hypothesis", "__pycache__", "build", "dist"}


@cache
def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their dotted names; the package itself is `__init__`."""
    folder = PACKAGES[package]
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(folder.rglob("*.py"))
    }


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(package: str, path: Path) -> Iterator[tuple[str, int]]:
    """Every import in a file, in functions too, as (absolute dotted name, line).

    `from . import changes` is an import of `sharedlog.changes`; `from .changes import Change` is
    one of `sharedlog.changes`, because the module is what is imported.
    """
    parts = path.relative_to(PACKAGES[package].parent).with_suffix("").parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level] if node.level else ()
            origin = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield (inner if is_module(inner) else origin), node.lineno


def is_module(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, and not something in one."""
    package, _, name = dotted.partition(".")
    return package in PACKAGES and name in modules(package)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def committed() -> list[Path]:
    """The files that are, or would be, committed; in an unpacked sdist, all of them."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        found = (p for p in ROOT.rglob("*") if not NOT_OURS & set(p.relative_to(ROOT).parts))
        return sorted(path for path in found if path.is_file())
    return sorted(path for name in listing.split("\0") if (path := ROOT / name).is_file())


def text_of(path: Path) -> str | None:
    """The file's text, or None if it is not text."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        return None


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))
