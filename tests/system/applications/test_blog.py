"""A blog with a full-text search adopts sharedlog: its index knew the entries by number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from sharedlog import cli, migrate_keys
from tests.system.applications.devices import contents, load, running, sync_all, syncing
from tests.system.service_process import ServiceProcess


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The file of the application as it was, after some use."""
    file = tmp_path / "a.db"
    with running("blog", "original", file) as app:
        assert app.write("Of Cats", "They sleep all day.", published=True) == ""
        assert app.write("Of Dogs", "They bark at cats.", published=True) == ""
        assert app.write("Of Fish", "They say nothing, not even to cats.") == ""
        assert app.write("of cats!", "Again?") == "There is an entry with this title."
        assert app.write("", "no title") != ""
        assert app.edit(app.page("of-dogs"), "Of Dogs", "They bark at the moon.", True) == ""
        assert titles(app.Entry.search("cats")) == ["Of Cats"]
    return file


@pytest.fixture
def migrated(grown: Path) -> Path:
    with closing(sqlite3.connect(grown)) as db:
        db.execute("DROP TABLE entryindex")  # made anew by the application
    assert cli.main(["migrate-keys", str(grown), "--tables", "entry"]) == 0
    return grown


@pytest.fixture
def devices(migrated: Path, tmp_path: Path, service: ServiceProcess) -> Iterator[tuple[Any, Any]]:
    with ExitStack() as stack:
        a = stack.enter_context(syncing("blog", migrated, service))
        b = stack.enter_context(syncing("blog", tmp_path / "b.db", service))
        assert a.sync.adopt().created == 3
        sync_all(a, b)
        yield a, b


def titles(entries: Any) -> list[str]:
    return [entry.title for entry in entries]


def shown(app: Any) -> dict[str, list[str]]:
    pages = {"front": titles(app.front_page()), "drafts": titles(app.Entry.drafts())}
    for words in ("cats", "they", '"all day"', "moon OR sun", "they -cats", "nothing", "c?ts !"):
        pages[f"search {words}"] = titles(app.Entry.search(words))
    return pages


def test_everything_is_shown_as_before(grown: Path) -> None:
    with running("blog", "original", grown) as app:
        before = shown(app)
    with closing(sqlite3.connect(grown)) as db:
        db.execute("DROP TABLE entryindex")

    assert cli.main(["migrate-keys", str(grown), "--tables", "entry"]) == 0

    with running("blog", "synced", grown) as app:
        assert shown(app) == before


def test_models_of_the_original_say_which_tables(grown: Path) -> None:
    app = load("blog", "original", grown)
    models = [value for value in vars(app).values() if isinstance(value, type)]

    migrated = migrate_keys(grown, models=[m for m in models if hasattr(m, "_meta")], dry_run=True)

    assert [table.name for table in migrated.tables] == ["entry"]


def test_both_write_offline_and_find_what_the_other_wrote(
    devices: tuple[Any, Any], tmp_path: Path, service: ServiceProcess
) -> None:
    a, b = devices
    assert shown(a) == shown(b)

    service.stop()
    assert a.write("Of Birds", "They sing in the sun.", published=True) == ""
    assert a.edit(a.page("of-cats"), "Of Cats", "They purr in the sun.", True) == ""
    assert b.edit(b.page("of-fish"), "Of Fish", "They say a lot, to other fish.", True) == ""
    assert b.edit(b.page("of-fish"), "Of Dogs", "x", True) == ""  # the slug stays
    assert b.write("of cats", "no") == "There is an entry with this title."
    b.page("of-dogs").delete_instance()
    b.Entry.update(title="Of Cats, Again").where(b.Entry.slug == "of-cats").execute()
    b.Entry.insert_many(
        [
            {"title": f"Draft {n}", "slug": f"d{n}", "content": "soon", "published": n > 1}
            for n in range(4)
        ]
    ).execute()

    service.start()
    sync_all(a, b)

    assert contents(tmp_path / "a.db", "entry") == contents(tmp_path / "b.db", "entry")
    assert shown(a) == shown(b)
    assert titles(a.Entry.search("purr")) == ["Of Cats, Again"]
    assert titles(b.Entry.search("sun")) == titles(a.Entry.search("sun")) != []
    assert sorted(titles(a.Entry.search("soon"))) == ["Draft 2", "Draft 3"]
    assert titles(a.Entry.search("moon")) == []


def test_the_index_is_of_the_device(devices: tuple[Any, Any], tmp_path: Path) -> None:
    """It is not shared; each device keeps its own, also of what it did not write itself."""
    a, b = devices
    with b.database.atomic() as transaction:
        b.write("Of Ghosts", "boo", published=True)
        transaction.rollback()
    sync_all(a, b)

    for name in "ab":
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as db:
            assert db.execute("SELECT count(*) FROM entry").fetchone() == (3,)
            orphans = "SELECT * FROM entryindex WHERE entry NOT IN (SELECT id FROM entry)"
            assert db.execute(orphans).fetchall() == []
            collections = db.execute("SELECT DISTINCT collection FROM sharedlog_row").fetchall()
            assert collections == [("entry",)]


def test_one_title_on_two_devices_is_one_entry_until_somebody_decides(
    devices: tuple[Any, Any], tmp_path: Path
) -> None:
    a, b = devices
    assert a.write("Of Mice", "from a", published=True) == ""
    assert b.write("Of Mice", "from b", published=True) == ""
    sync_all(a, b)

    assert shown(a) == shown(b)
    assert [entry.content for entry in a.Entry.search("from")] == ["from a"]
    [parked] = b.sync.parked()
    b.sync.resolve(parked, slug="of-mice-2")
    sync_all(a, b)

    assert contents(tmp_path / "a.db", "entry") == contents(tmp_path / "b.db", "entry")
    assert a.page("of-mice-2").content == "from b"
    assert len(titles(a.Entry.search("from"))) == 2
