"""The commands for a device's file: what they tell, and that they leave it alone."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import peewee
import pytest

from sharedlog import ConfigurationError, ConnectionFailed, MemorySharedLog, SyncModel
from sharedlog.care.inspection import opened
from sharedlog.cli import main
from sharedlog.remote.sharedlog import Outgoing, Page, Receipt, Rejection

from . import shop
from .conftest import OpenDevice
from .devices import SHARED, Device


class Supplier(SyncModel):
    code = peewee.CharField(primary_key=True, max_length=20)
    name = peewee.TextField(default="", column_name="full name")


class Product(SyncModel):
    supplier = peewee.ForeignKeyField(Supplier, null=True, on_delete="CASCADE")
    number = peewee.IntegerField()
    price = peewee.DecimalField(null=True, max_digits=10, decimal_places=2)

    class Meta:
        primary_key = peewee.CompositeKey("supplier", "number")


MODELS = (Supplier, Product)


class Line(MemorySharedLog):
    """A log that can be cut off, and that refuses entries with a certain word in them."""

    cut = False

    def write(self, device: str, entries: Any, **options: Any) -> Receipt:
        good = [entry for entry in entries if "unwanted" not in entry.data]
        bad = [i for i, entry in enumerate(entries) if entry not in good]
        rejected = [Rejection(index, "ENTRY_INVALID", "nobody wants it") for index in bad]
        return replace(super().write(device, good, **options), rejected=rejected)

    def read(self, device: str, **options: Any) -> Page:
        if self.cut:
            raise ConnectionFailed("The line is cut.")
        return super().read(device, **options)


@pytest.fixture
def log() -> Line:
    return Line()


@pytest.fixture
def files(open_device: OpenDevice, log: Line) -> tuple[Device, Device]:
    """Two devices with the same rows: desk.db and tablet.db."""
    desk = open_device(MODELS, name="desk", shared_log=log)
    tablet = open_device(MODELS, name="tablet", shared_log=log)
    with desk:
        Supplier.create(code="acme", name="Acme & Co")
        Product.insert_many(
            [{"supplier": "acme", "number": n, "price": n / 4} for n in range(30)]
        ).execute()
        desk.sync.sync()
    tablet.sync.sync()
    return desk, tablet


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    """Runs the command in the folder of the files; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def running(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return running


# -- status ------------------------------------------------------------------------------


def test_status_tells_what_the_application_would(files: Any, run: Run, log: Line) -> None:
    desk, _ = files
    with desk:
        Supplier.create(code="bolt")
    log.cut = True
    with pytest.raises(ConnectionFailed):
        desk.sync.receive()
    code, text = run("status", "desk.db")
    assert (code, text) == (0, f"{desk.sync.status()}\n")
    assert "to send       1 entry" in text
    code, text = run("status", "desk.db", "--json")
    assert (code, json.loads(text)) == (0, desk.sync.status().to_json())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.db", None, "There is no file none.db."),
        (".", None, ". is a folder; the file of a device is needed."),
        ("text.db", b"hello", "text.db is not an SQLite database."),
        ("torn.db", b"SQLite format 3\0" + b"x" * 500, "torn.db: "),
    ],
)
def test_what_is_no_file_of_a_device(
    run: Run, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for command in ("status", "verify", "parked", "prune"):
        code, text = run(command, name)
        assert code == 1
        assert message in text
        assert "Traceback" not in text
    assert (tmp_path / name).is_file() == (content is not None)


@pytest.mark.parametrize(
    "words", [("status",), ("verify",), ("parked",), ("prune",), ("migrate-keys", "--tables", "x")]
)
def test_what_cannot_be_read_is_said_in_a_sentence(run: Run, words: tuple[str, ...]) -> None:
    unreadable = "/proc/sys/vm/drop_caches"  # for root, too
    code, text = run(words[0], unreadable, *words[1:])
    assert code == 1
    assert text.startswith(f"sharedlog: {unreadable}")
    assert "Traceback" not in text


def test_a_schema_whose_names_are_no_text(files: Any, run: Run, tmp_path: Path) -> None:
    """As after a fault of the disk: what SQLite says of it cannot be decoded."""
    for device in files:
        device.database.close()
    with closing(sqlite3.connect(tmp_path / "desk.db")) as damaged:
        damaged.execute("PRAGMA writable_schema = 1")
        damaged.execute(
            "UPDATE sqlite_master SET name = CAST(x'cc28' AS TEXT), sql = 'CREATE TABLE (' "
            "WHERE name = 'supplier'"
        )
        damaged.commit()
    for words in (["status"], ["verify"], ["parked"], ["prune"], ["verify", "tablet.db"]):
        code, text = run(*words, "desk.db")
        assert code == 1
        assert "desk.db is damaged: its schema has names that are no text." in text
        assert ".recover" in text


def test_a_database_without_a_client_log(run: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE note (x)")
        other.commit()
    code, text = run("status", "other.db")
    assert code == 1
    assert "other.db has no client log" in text
    assert "not the service's" in text


def test_a_file_of_another_version(files: Any, run: Run) -> None:
    desk, _ = files
    desk.database.execute_sql("UPDATE sharedlog_state SET value = '999' WHERE key = 'layout'")
    code, text = run("status", "desk.db")
    assert code == 1
    assert "layout 999" in text


def test_a_file_whose_name_is_no_address(open_device: OpenDevice, run: Run) -> None:
    open_device(MODELS, name="a b#c?d%20é")
    assert run("status", "a b#c?d%20é.db")[0] == 0


@pytest.fixture
def nobody() -> Iterator[None]:
    """Somebody who may not write where they may only read: root may."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(open_device: OpenDevice) -> Iterator[Path]:
    """A folder that nobody may write to, with the file of a device, and that file and its
    write-ahead log as they were at work."""
    device = open_device(MODELS, name="at work", pragmas=SHARED)
    with device:
        Supplier.create(code="acme")
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        file = device.database.database
        copy(file, folder / "work.db")
        copy(f"{file}-wal", folder / "work.db-wal")
        device.close()
        copy(file, folder / "desk.db")
        copy(file, folder / "torn.db")
        (folder / "torn.db-journal").write_bytes(b"what a commit that did not end would undo")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_read(locked: Path, run: Run, nobody: None) -> None:
    desk = locked / "desk.db"
    for command in ("status", "parked", "verify"):
        assert run(command, str(desk))[0] == 0
    for name, beside in (("work.db", "work.db-wal"), ("torn.db", "torn.db-journal")):
        code, text = run("status", str(locked / name))
        assert (code, f"a part of it is in {beside}" in text) == (1, True)
    assert "1 entry" in run("status", str(desk))[1]
    assert run("prune", str(desk))[0] == 1
    assert len(list(locked.iterdir())) == 5


def test_what_is_written_meanwhile_is_not_told(locked: Path, nobody: None) -> None:
    desk = locked / "desk.db"
    with pytest.raises(ConfigurationError, match="Try again"), opened(desk) as file:
        assert file.status().pending == 1
        os.seteuid(os.getuid())
        os.utime(desk, (1, 1))


# -- verify ------------------------------------------------------------------------------


def test_equal_files(files: Any, run: Run) -> None:
    files[0].sync.sync()
    code, text = run("verify", "desk.db", "tablet.db")
    assert (code, text.splitlines()) == (
        0,
        [
            "desk.db: 31 rows, up to memory~31.31, 0 to send",
            "tablet.db: 31 rows, up to memory~31.31, 0 to send",
            "Equal.",
        ],
    )


def test_differences_of_two_files(files: Any, run: Run) -> None:
    desk, tablet = files
    desk.sync.sync()
    tablet.database.execute_sql("UPDATE product SET price = 99 WHERE number = 5")
    tablet.database.execute_sql("DELETE FROM product WHERE number = 6")
    desk.database.execute_sql("DELETE FROM product WHERE number = 7")
    code, text = run("verify", "desk.db", "tablet.db")
    assert (code, text.splitlines()[2:]) == (
        3,
        [
            '  product ["acme",5] differs: price "1.25" here, "99" there',
            '  product ["acme",6] extra',
            '  product ["acme",7] missing',
            "3 differences.",
        ],
    )
    code, text = run("verify", "desk.db", "tablet.db", "--limit", "1")
    assert (code, text.splitlines()[3:]) == (
        3,
        ["  and 2 more; --limit lists them", "3 differences."],
    )
    code, text = run("verify", "desk.db", "tablet.db", "--json")
    found = json.loads(text)
    assert (code, found["equal"], found["count"]) == (3, False, 3)
    assert found["differences"][1] == {
        "collection": "product",
        "pk": ["acme", 6],
        "kind": "extra",
        "here": {"price": "1.5"},
        "there": None,
    }


def test_what_is_on_its_way_is_told(files: Any, run: Run) -> None:
    desk, _ = files
    with desk:
        Supplier.create(code="bolt")
    code, text = run("verify", "desk.db", "tablet.db")
    assert code == 3
    assert '  supplier "bolt" extra' in text
    assert "not at the same place of the log" in text


def test_a_digest_that_was_saved_elsewhere(files: Any, run: Run, tmp_path: Path) -> None:
    desk, tablet = files
    (tmp_path / "tablet.json").write_text(run("verify", "tablet.db", "--json")[1])
    (tmp_path / "rows.json").write_text(run("verify", "tablet.db", "--json", "--rows")[1])
    desk.sync.sync()
    assert run("verify", "desk.db", "tablet.json")[0] == 0
    desk.database.execute_sql("UPDATE product SET price = 99 WHERE number = 5")
    code, text = run("verify", "desk.db", "tablet.json")
    assert (code, text.splitlines()[2:]) == (3, ["  product differs", "1 difference."])
    code, text = run("verify", "desk.db", "rows.json")
    assert (code, text.splitlines()[2:]) == (3, ['  product ["acme",5] differs', "1 difference."])
    assert len((tmp_path / "tablet.json").read_text()) < 1_000
    assert tablet.sync.digest().to_json() == json.loads((tmp_path / "tablet.json").read_text())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"collections":{"a":{}}}', "\x00", "[" * 99_999]
)
def test_what_is_no_digest(files: Any, run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "no.json").write_text(content)
    code, text = run("verify", "desk.db", "no.json")
    assert code == 1
    assert "no.json is neither a device's file nor a digest" in text


def test_a_file_alone_shows_its_digest(files: Any, run: Run) -> None:
    desk, _ = files
    digest = desk.sync.digest()
    code, text = run("verify", "desk.db")
    assert code == 0
    assert digest.collections["product"].digest in text
    assert "30 rows" in text
    assert "Nothing was compared" in text


def test_parked_rows_are_compared(files: Any, run: Run, log: Line) -> None:
    _, tablet = files
    by_hand(
        log, '{"operation":"create","collection":"product","pk":["zoe",1],"value":{"price":"1.5"}}'
    )
    for device in files:
        device.sync.sync()
    assert run("verify", "desk.db", "tablet.db")[0] == 0
    tablet.database.execute_sql("UPDATE sharedlog_row SET held = '{}' WHERE parked IS NOT NULL")
    code, text = run("verify", "desk.db", "tablet.db")
    assert code == 3
    assert 'product ["zoe",1] differs: price "1.5" here, null there' in text


def test_every_kind_of_model_is_read(open_device: OpenDevice, run: Run, log: Line) -> None:
    one = open_device(shop.MODELS, name="one", shared_log=log)
    two = open_device(shop.MODELS, name="two", shared_log=log)
    shop.NUMBERS.restart()
    with one:
        tag = shop.Tag.create(name="red")
        note = shop.Note.create(title="a", tag=tag, data={"b": [1.5, None]})
        note.tags.add(tag)
        shop.Article.create(code="x", shelf=1, place=1, barcode="777")
        one.sync.sync()
    two.sync.sync()
    two.database.execute_sql("DELETE FROM sqlite_sequence")  # numbers of a through model differ
    one.sync.sync()
    assert run("verify", "one.db", "two.db")[0] == 0


@pytest.mark.parametrize(
    "migration", ['RENAME COLUMN "full name" TO label', 'DROP COLUMN "full name"']
)
def test_a_column_that_is_gone_is_not_read_as_a_text(
    files: Any, run: Run, tmp_path: Path, migration: str
) -> None:
    for device in files:
        device.database.close()
    for name in ("desk.db", "tablet.db"):
        with closing(sqlite3.connect(tmp_path / name)) as migrated:
            migrated.execute(f"ALTER TABLE supplier {migration}")
            if "RENAME" in migration and name == "desk.db":
                migrated.execute("UPDATE supplier SET label = 'another'")
            migrated.commit()
    for command in (
        ["verify", "desk.db", "tablet.db"],
        ["verify", "desk.db"],
        ["parked", "desk.db"],
    ):
        code, text = run(*command)
        assert code == 1
        assert "the table 'supplier' has no column 'full name' any more" in text
        assert "Run the application once" in text


def test_tables_that_are_gone_are_named(files: Any, run: Run, tmp_path: Path) -> None:
    for device in files:
        device.database.close()
    gone = "has no table product any more: nothing of that is compared."
    rename(tmp_path / "desk.db", "product")
    rename(tmp_path / "tablet.db", "product")
    code, text = run("verify", "desk.db", "tablet.db")
    assert code == 0
    assert f"sharedlog: desk.db {gone}" in text
    assert f"sharedlog: tablet.db {gone}" in text
    rename(tmp_path / "desk.db", "supplier")
    for command in ("verify", "parked"):
        code, text = run(command, "desk.db")
        assert code == 1
        assert "gone from it: product, supplier." in text
        assert "run the application once" in text


def rename(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"ALTER TABLE {table} RENAME TO {table}_of_today")
        file.commit()


def test_usage_errors(files: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHAREDLOG_TOKEN", raising=False)
    assert run("verify", "desk.db", "tablet.db", "--url", "http://x/graphql")[0] == 2
    assert run("verify", "desk.db", "none.db")[0] == 2
    code, text = run("verify", "desk.db", ".")
    assert code == 2
    assert ". is a folder" in text
    code, text = run("verify", "desk.db", "--url", "http://x/graphql")
    assert code == 2
    assert "SHAREDLOG_TOKEN" in text
    code, text = run("verify", "desk.db", "--url", "http://[::1", "--token", "slog_x")
    assert (code, "'http://[::1' has a host that is none." in text) == (1, True)
    code, text = run("verify", "desk.db", "--token", "slog_x")
    assert (code, "--url, which is missing" in text) == (2, True)
    assert run("verify")[0] == 2
    assert run("prune", "desk.db", "--keep-days", "-1")[0] == 2


def by_hand(log: Line, *data: str) -> None:
    """Entries of a device that speaks for itself."""
    device = log.register(None, "by hand")
    batch = [Outgoing(1 + i, 0, text) for i, text in enumerate(data)]
    log.write(device, batch, after=None, now_ms=0, limit=9, byte_limit=9_999)


# -- parked ------------------------------------------------------------------------------


def test_everything_that_waits_is_listed_with_its_reason(files: Any, run: Run, log: Line) -> None:
    desk, _ = files
    by_hand(
        log,
        '{"operation":"create","collection":"product","pk":["zoe",1],"value":{"price":"1.5"}}',
        "gibberish",
    )
    with desk:
        Supplier.create(code="unwanted")
    desk.sync.sync()
    found = [each for each in desk.sync.parked() if each.entry is not None]
    code, text = run("parked", "desk.db")
    assert (code, text.splitlines()) == (
        0,
        [
            "1 parked row:",
            '  product ["zoe",1]',
            '      PARENT_MISSING: supplier "zoe" is not in supplier',
            "1 unreadable entry:",
            "  by hand at 2",
            f"      {found[0].reason}",
            "1 refused change:",
            '  create supplier "unwanted"',
            "      ENTRY_INVALID: nobody wants it",
        ],
    )
    code, text = run("parked", "desk.db", "--json")
    listed = json.loads(text)
    assert code == 0
    assert listed["parked"][0]["values"] == {"price": "1.5"}
    assert listed["parked"][0]["code"] == "PARENT_MISSING"
    assert listed["unreadable"][0]["data"] == "gibberish"
    assert listed["refused"][0]["pk"] == "unwanted"


def test_nothing_waits(files: Any, run: Run) -> None:
    assert run("parked", "desk.db") == (0, "Nothing is parked, unreadable or refused.\n")
    found = json.loads(run("parked", "desk.db", "--json")[1])
    assert found == {"parked": [], "unreadable": [], "refused": []}


# -- prune -------------------------------------------------------------------------------


def test_pruning_a_file(files: Any, run: Run, log: Line) -> None:
    desk, tablet = files
    with tablet:
        Supplier.create(code="bolt")
        tablet.sync.sync()
    desk.sync.sync()  # something is received, so what was written is merged
    with desk:
        Supplier.create(code="unwanted")
        desk.sync.sync()
        Supplier.create(code="unsent")
    assert run("prune", "desk.db") == (0, "0 entries deleted, 33 kept.\n")
    assert run("prune", "desk.db", "--keep-days", "0") == (0, "31 entries deleted, 2 kept.\n")
    assert (desk.sync.status().pending, desk.sync.status().refused) == (1, 1)
    assert run("prune", "desk.db", "--keep-days", "0", "--json") == (
        0,
        '{\n  "deleted": 0,\n  "kept": 2,\n  "unmerged": 0\n}\n',
    )
    desk.sync.sync()
    assert desk.sync.verify().count == 1  # what was refused


def test_what_is_kept_for_longer_than_there_was_time_stays(files: Any, run: Run) -> None:
    desk, _ = files
    assert desk.sync.prune(keep_ms=10**30) == 0
    assert run("prune", "desk.db", "--keep-days", "9" * 20) == (0, "0 entries deleted, 31 kept.\n")


def test_what_the_application_has_not_merged_stays(files: Any, run: Run) -> None:
    """The command does not know the models' rules; the application does."""
    desk, _ = files
    code, text = run("prune", "desk.db", "--keep-days", "0")
    assert (code, text.splitlines()[0]) == (0, "0 entries deleted, 31 kept.")
    assert "31 of these can go" in text
    assert desk.sync.prune(keep_ms=0) == 31


def test_a_file_that_somebody_else_writes_now(
    files: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedlog.care.inspection.BUSY_S", 0)
    desk, _ = files
    desk.database.execute_sql("BEGIN IMMEDIATE")
    code, text = run("prune", "desk.db")
    desk.database.execute_sql("ROLLBACK")
    assert code == 1
    assert "desk.db: database is locked" in text


@pytest.mark.parametrize(
    "command",
    [["status"], ["verify"], ["verify", "tablet.db"], ["parked"], ["verify", "--json", "--rows"]],
)
def test_looking_changes_nothing(files: Any, run: Run, tmp_path: Path, command: list[str]) -> None:
    before = (tmp_path / "desk.db").read_bytes()
    name, *rest = command
    assert run(name, "desk.db", *rest)[0] in (0, 3)
    assert (tmp_path / "desk.db").read_bytes() == before
    with opened(tmp_path / "desk.db") as file, pytest.raises(peewee.OperationalError):
        file.database.execute_sql("DELETE FROM product")
