"""What the client's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .devices import RECORDERS, Device, Models

OpenDevice = Callable[..., Device]


@pytest.fixture(params=RECORDERS)
def recorder(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_device(tmp_path: Path) -> Iterator[OpenDevice]:
    """Opens a database file in `tmp_path`: a new one, or the one of that name."""
    opened: list[Device] = []

    def opening(models: Models, name: str | None = None, **options: Any) -> Device:
        path = tmp_path / f"{name or len(opened)}.db"
        opened.append(Device(path, models, **options))
        return opened[-1]

    yield opening
    for device in opened:
        device.close()
