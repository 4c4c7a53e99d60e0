"""Looking after devices, with a real service: verify, adopt, reset, and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Change, Counter, Custom, Sync, SyncModel
from sharedlog.changes import decode, encode
from sharedlog.cli import main
from tests.system.crash_world import Folder, Note, device
from tests.system.service_process import ServiceProcess


@pytest.fixture
def options(service: ServiceProcess) -> dict[str, Any]:
    return {"url": service.url, "token": service.token, "batch_size": 50}


def fill(path: Path, options: dict[str, Any]) -> None:
    with device(path, **options) as sync:
        Folder.create(key="f", name="of " + path.stem)
        Note.insert_many(
            [{"key": f"{path.stem} {n}", "title": "x", "folder": "f"} for n in range(120)]
        ).execute()
        sync.sync()


def test_a_device_is_verified_repaired_and_begun_anew(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    fill(one, options)
    fill(two, options)
    with device(one, **options) as sync:
        sync.sync()
        assert sync.verify().equal
        sync.prune(keep_ms=0)
        sync.database.execute_sql("UPDATE note SET title = 'raw' WHERE key = 'two 7'")
        sync.database.execute_sql("DELETE FROM note WHERE key = 'one 7'")
        verified = sync.verify()
        assert (verified.entries, verified.rows, verified.count) == (242, 240, 2)
        assert {(d.pk, d.kind) for d in verified.differences} == {
            ("two 7", "differs"),
            ("one 7", "missing"),
        }
        before = sync.status().device
        sync.reset()
        sync.sync()
        assert sync.status().device != before
        assert sync.verify().equal
        sync.database.execute_sql("UPDATE note SET title = 'meant so' WHERE key = 'two 7'")
        assert sync.adopt(values=True).modified == 1
        sync.sync()
        digest = sync.digest()
    with device(two, **options) as sync:
        sync.sync()
        assert Note.get_by_id("two 7").title == "meant so"
        assert sync.digest().collections == digest.collections


def test_verifying_does_not_tell_the_service_that_a_device_has_more_than_it_has(
    tmp_path: Path, options: dict[str, Any], service: ServiceProcess
) -> None:
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    fill(one, options)
    with device(one, **options) as sync:
        place = sync.status().checkpoint
    fill(two, options)
    with device(one, **options) as sync:
        assert sync.verify().equal
        assert sync.status().checkpoint == place
        assert sync.sync().received == 121


def test_a_file_is_verified_on_the_command_line(
    tmp_path: Path,
    options: dict[str, Any],
    service: ServiceProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    fill(two, options)
    fill(one, options)
    with device(one, **options) as sync:
        Note.create(key="unsent", title="x")
    command = ["verify", str(one), "--url", service.url]
    assert main([*command, "--token", service.token or ""]) == 0
    text = capsys.readouterr().out
    assert "242 rows compared with 242 entries of the log, 0 parked" in text
    assert text.endswith("Equal.\n")

    monkeypatch.setenv("SHAREDLOG_TOKEN", service.token or "")
    with device(one, **options) as sync:
        sync.database.execute_sql("UPDATE note SET title = 'raw' WHERE key = 'two 7'")
    assert main([*command, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == [
        {
            "collection": "note",
            "pk": "two 7",
            "kind": "differs",
            "here": {"title": "raw"},
            "there": {"title": "x"},
        }
    ]
    assert main([*command, "--token", "slog_wrong"]) == 1
    service.stop()
    assert main(command) == 1
    assert "Cannot reach the service" in capsys.readouterr().err


class Stock(SyncModel):
    name = peewee.CharField(primary_key=True)
    count = peewee.IntegerField(default=7)

    class Meta:
        merge: ClassVar = {"count": Counter()}


class Flag(SyncModel):
    name = peewee.CharField(primary_key=True)
    colours = peewee.TextField(default="")

    class Meta:
        merge: ClassVar = {"colours": Custom("longest", lambda values: max(values, key=len))}


def test_merge_rules_on_the_command_line(
    tmp_path: Path,
    options: dict[str, Any],
    service: ServiceProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the library are known to it; an application's own ones are not guessed."""
    monkeypatch.setenv("SHAREDLOG_TOKEN", service.token or "")
    for name in ("one", "two", "one", "two"):
        with own_device(tmp_path / f"{name}.db", options, models=[Stock]) as sync:
            sync.sync()
            Stock.insert(name="bolt").on_conflict_ignore().execute()
            Stock.update(count=Stock.count + 1).execute()
            sync.sync()
    for name in ("one", "two"):
        with own_device(tmp_path / f"{name}.db", options, models=[Stock]) as sync:
            sync.sync()
            assert Stock.get().count == 11
    command = ["verify", str(tmp_path / "one.db")]
    assert main([*command, str(tmp_path / "two.db")]) == 0
    assert main([*command, "--url", service.url]) == 0

    with own_device(tmp_path / "one.db", options, models=[Flag]) as sync:
        Flag.create(name="at", colours="red white red")
        sync.sync()
        assert sync.verify().equal
    capsys.readouterr()
    assert main([*command, "--url", service.url]) == 1
    assert "merges by rules of its own" in capsys.readouterr().err


class Seal:
    def encode(self, change: Change) -> str:
        return encode(change)[::-1]

    def decode(self, data: str) -> Change:
        return decode(data[::-1])


def test_what_only_the_application_knows_is_said(
    tmp_path: Path,
    options: dict[str, Any],
    service: ServiceProcess,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["verify", str(tmp_path / "one.db"), "--url", service.url]
    command += ["--token", service.token or ""]
    with own_device(tmp_path / "one.db", options, serializer=Seal()) as sync:
        Folder.create(key="f", name="sealed")
        sync.sync()
        assert sync.verify().equal
    assert main(command) == 1
    assert "seals its entries" in capsys.readouterr().err

    with own_device(tmp_path / "one.db", options, pre_send=lambda change: change):
        pass
    main(command)
    assert "processors are not known here" in capsys.readouterr().err


@contextmanager
def own_device(
    path: Path, options: dict[str, Any], *, models: Any = (Folder, Note), **more: Any
) -> Iterator[Sync]:
    """A device whose Sync is given more than a service."""
    database = peewee.SqliteDatabase(str(path), pragmas={"foreign_keys": 1})
    with database.bind_ctx(models):
        database.create_tables(models)
        with Sync(database, models, **options, **more) as sync:
            yield sync
    database.close()
