"""No dependency is declared, pinned or installed in a version with a known security hole.

The floors come from published advisories (the reason stands beside each). They are checked here
without a network; `pip-audit` is for where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata

import apsw
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.meta.source import ROOT, pyproject

FLOORS: Mapping[str, tuple[str, str]] = {
    "strawberry-graphql": ("0.327.2", "CVE-2026-107727: slots never freed on the legacy socket"),
    "graphql-core": ("3.3.0rc1", "CVE-2026-75507, CVE-2026-75508: quadratic checks, token limit"),
    "starlette": ("1.5.1", "PYSEC-2026-249, CVE-2026-48710, CVE-2025-62727; ranges are capped"),
    "pyjwt": ("2.15.0", "CVE-2026-102275"),
    "h11": ("0.16.0", "CVE-2025-43859: chunk smuggling"),
    "python-multipart": ("0.0.31", "CVE-2026-40347, CVE-2026-53540; better not installed"),
    "uvicorn": ("0.52.1", "data cut off when the service closes a socket"),
    "websockets": ("5.0", "CVE-2018-1000518"),
}

SQLITE_FLOOR = (3, 51, 3)
"""Earlier ones can corrupt a database in WAL mode with several connections (WAL reset)."""

FACING_THE_NET = ("strawberry-graphql", "graphql-core", "starlette", "uvicorn", "h11", "websockets")


def declared() -> list[Requirement]:
    project = pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def lowest(requirement: Requirement) -> Version | None:
    """The lowest version that a requirement lets in, if it names one."""
    bounds = [
        Version(each.version)
        for each in requirement.specifier
        if each.operator in (">=", "==", "~=")
    ]
    return max(bounds, default=None)


def pins() -> Iterator[tuple[str, Version]]:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), Version(version)


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_declared_is_above_the_floor(name: str) -> None:
    floor, why = FLOORS[name]

    for requirement in declared():
        if canonicalize_name(requirement.name) == name:
            bound = lowest(requirement)
            assert bound is not None and bound >= Version(floor), f"{requirement}: {why}"


def test_what_faces_the_net_is_declared_with_a_floor() -> None:
    """Also what comes along anyway: a floor holds only where it is written."""
    service = pyproject()["project"]["optional-dependencies"]["service"]

    assert {Requirement(text).name for text in service} >= set(FACING_THE_NET)


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_pinned_is_above_the_floor(name: str) -> None:
    floor, why = FLOORS[name]
    pinned = dict(pins()).get(canonicalize_name(name))

    assert pinned is None or pinned >= Version(floor), why


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_above_the_floor(name: str) -> None:
    floor, why = FLOORS[name]
    try:
        installed = Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return  # what is not here needs no floor

    assert installed >= Version(floor), why


def test_the_service_brings_a_sound_sqlite() -> None:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))

    assert version >= SQLITE_FLOOR


def test_nothing_parses_forms() -> None:
    """The service takes no forms and no uploads; what parses them stays out."""
    assert "python-multipart" not in dict(pins())
