"""What is built and installed: both packages, the small client, the message about the rest."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.meta.source import PACKAGES, ROOT, committed, imported, modules, pyproject

CLIENT_MB_MAX = 25
"""The whole of an installed client, compiled files included; 19 when this was written."""

IMPORT_CPU_S_MAX = 0.5
"""Processor time, so that a busy machine changes little; 0.07 when this was written."""

SERVICE_ONLY = {"strawberry-graphql", "starlette", "uvicorn", "apsw", "rich", "pycountry"}


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that only the built wheel was installed into."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *map(str, command[1:])],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    check([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install sharedlog`, without extras."""
    folder = tmp_path_factory.mktemp("client")
    venv.create(folder, with_pip=False, symlinks=True)
    environment = Environment(folder)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "-q"]
    probe = subprocess.run([*pip, *constraints, "peewee"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no packages can be had here: {probe.stderr.strip().splitlines()[-1]}")
    check([*pip, *constraints, str(wheel)], cwd=folder)
    return environment


def check(command: Sequence[str], cwd: Path) -> None:
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# -- what is in the archives -------------------------------------------------------------


def test_the_wheel_has_every_file_of_both_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(folder.parent))
        for folder in PACKAGES.values()
        for path in committed()
        if folder in path.parents
    }

    assert wanted - names == set()
    assert {"sharedlog/py.typed", "sharedlog_service/py.typed"} <= names
    assert any(name.startswith("sharedlog_service/assets/graphiql/") for name in names)


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    (information,) = tops - set(PACKAGES)
    assert information == f"sharedlog-{pyproject()['project']['version']}.dist-info"


def test_the_wheel_has_entry_points_and_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    text = archive.read(entry_points).decode()

    assert "sharedlog = sharedlog.cli:main" in text
    assert "service = sharedlog_service.cli:add_commands" in text
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_the_sdist_can_be_built_and_tested(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {str(path.relative_to(ROOT)) for path in committed()}

    # What is for the repository alone.
    assert {name for name in needed - names if not name.startswith(".")} == set()


# -- the client, installed alone ---------------------------------------------------------


def test_the_client_alone_imports_what_it_promises(client: Environment) -> None:
    run = client.run("python", "-c", "from sharedlog import *; print(Sync.__name__)")

    assert (run.returncode, run.stdout) == (0, "Sync\n"), run.stderr


def test_the_client_alone_brings_little(client: Environment) -> None:
    installed = {
        canonicalize_name(distribution.metadata["Name"])
        for distribution in metadata.distributions(path=[str(client.site_packages)])
    }
    size = sum(path.stat().st_size for path in client.site_packages.rglob("*") if path.is_file())

    assert installed & SERVICE_ONLY == set()
    assert {"sharedlog", "peewee", "gql", "orjson"} <= installed
    assert size / 1e6 < CLIENT_MB_MAX


def test_importing_the_client_is_cheap(client: Environment) -> None:
    code = "import sys, time, sharedlog; print(time.process_time(), *sys.modules)"

    cpu_s, *loaded = client.run("python", "-c", code).stdout.split()

    assert float(cpu_s) < IMPORT_CPU_S_MAX
    # An application that is offline never needs these.
    assert {"gql", "graphql", "httpx2", "asyncio", "strawberry"} & set(loaded) == set()


def test_the_command_says_what_to_install(client: Environment) -> None:
    helped = client.run("sharedlog", "--help")
    serve = client.run("sharedlog", "serve")
    demo = client.run("sharedlog", "demo", "--once")

    assert (helped.returncode, serve.returncode > 0, demo.returncode > 0) == (0, True, True)
    assert "pip install 'sharedlog[service]'" in serve.stderr
    assert "pip install 'sharedlog[demo]'" in demo.stderr
    assert "Traceback" not in serve.stderr + demo.stderr


# -- what is declared --------------------------------------------------------------------


def requirements(*extras: str) -> list[Requirement]:
    project = pyproject()["project"]
    texts = [*project["dependencies"]]
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("sharedlog", ["demo", "service", "live"]),
        ("sharedlog_service", ["service", "postgres", "telemetry", "jwt"]),
    ],
)
def test_what_is_imported_is_declared(package: str, extras: list[str]) -> None:
    """A package that comes along by chance may leave by chance."""
    allowed: set[str] = {canonicalize_name(each.name) for each in requirements(*extras)}
    allowed |= {extra for each in requirements(*extras) for extra in each.extras}
    distributions = metadata.packages_distributions()

    undeclared = {
        top
        for name, path in modules(package).items()
        for module, _ in imported(package, path)
        if (top := module.split(".")[0]) not in {*PACKAGES, *sys.stdlib_module_names}
        and not allowed & {canonicalize_name(found) for found in distributions.get(top, [top])}
    }

    assert undeclared == set()


def test_the_client_itself_needs_the_small_set_only() -> None:
    allowed = {"peewee", "playhouse", "orjson", "gql", "httpx2"}
    used = {
        (name, top)
        for name, path in modules("sharedlog").items()
        if not name.startswith("demo")
        for module, _ in imported("sharedlog", path)
        if (top := module.split(".")[0]) not in {"sharedlog", *sys.stdlib_module_names}
    }

    assert {top for _, top in used - {("remote.subscriptions", "websockets")}} <= allowed


def test_everything_that_is_installed_is_pinned() -> None:
    """`make constraints` writes the file from the environment that the tests run in."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}

    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.!+]+", line)] == []
    assert lines == sorted(lines, key=str.lower)
    assert needed_by("sharedlog", {"dev"}) - {"sharedlog"} <= pinned


def needed_by(name: str, extras: set[str]) -> set[str]:
    """Everything that a distribution and these extras of it bring along, itself included."""
    found: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        name, extras = waiting.pop()
        if name in found and extras <= found[name]:
            continue
        found[name] = found.get(name, set()) | extras
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in {"", *extras}
            ):
                waiting.append((canonicalize_name(need.name), set(need.extras)))
    return set(found)


def test_the_changelog_knows_the_version() -> None:
    version = pyproject()["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert metadata.version("sharedlog") == version
    assert re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE)


def test_no_package_lies_directly_in_client_or_service() -> None:
    """An `__init__.py` there would make `client` itself a package in editable installs."""
    assert not (ROOT / "client" / "__init__.py").exists()
    assert not (ROOT / "service" / "__init__.py").exists()
