"""An application on a device: its file, and a module of its own, so that several devices can
run in one process, each with its own models and its own database."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.service_process import ServiceProcess

FOLDER = Path(__file__).parent

Contents = dict[str, list[tuple[Any, ...]]]


def load(name: str, version: str, file: Path) -> Any:
    """Import an application (`microblog`, `synced`) that works on this file."""
    source = FOLDER / name / f"{version}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_{version}_{file.stem}", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), str(file))
        spec.loader.exec_module(module)
    return module


@contextmanager
def running(name: str, version: str, file: Path) -> Iterator[Any]:
    """The application, started: its tables are there."""
    application = load(name, version, file)
    application.create_tables()
    try:
        yield application
    finally:
        application.database.close()


@contextmanager
def syncing(name: str, file: Path, service: ServiceProcess) -> Iterator[Any]:
    """The application as a device; `application.sync` is its Sync."""
    assert service.token is not None
    with running(name, "synced", file) as application:
        application.sync = application.start_sync(service.url, service.token)
        try:
            yield application
        finally:
            application.sync.close()


def contents(file: Path, *tables: str) -> Contents:
    """The rows of these tables as they are stored, read by plain SQL."""
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        return {table: sorted(db.execute(f'SELECT * FROM "{table}"')) for table in tables}


def sync_all(*devices: Any) -> None:
    """Everybody sends what it has, then everybody gets what the others had."""
    for _ in range(2):
        for device in devices:
            device.sync.sync()
    for device in devices:
        assert device.sync.status().pending == 0
        assert device.sync.verify().differences == []
