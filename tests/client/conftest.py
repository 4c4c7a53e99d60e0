"""What the client's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .devices import RECORDERS, Device, Models
from .servers import Server, serving

OpenDevice = Callable[..., Device]


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """In memory: nothing here is about disks."""
    return memory


@pytest.fixture(params=RECORDERS)
def recorder(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenDevice]:
    """Opens a database file in `tmp_path`, a new one or the one of that name; or, `where` says,
    a new database on a server."""
    opened: list[Device] = []

    def opening(
        models: Models, name: str | None = None, where: str = "sqlite", **options: Any
    ) -> Device:
        path = tmp_path / f"{name or len(opened)}.db"
        if where != "sqlite":
            server: Server = request.getfixturevalue(where)
            options["database"] = server.database(server.place())
        opened.append(Device(path, models, **options))
        return opened[-1]

    yield opening
    for device in opened:
        device.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with serving("postgres") as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    with serving("mysql") as server:
        yield server
