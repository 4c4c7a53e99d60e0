"""A service under load is saved, lost and put back, by the commands: nothing that somebody holds is
lost, and devices notice by themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sharedlog import SyncModel
from sharedlog_service.entries import EntryFilter
from sharedlog_service.store.store import Store
from tests.engines import Postgres, run
from tests.system.copies import remove
from tests.system.crash_world import Note, Tag, device, read_client
from tests.system.service_process import ServiceProcess
from tests.system.writers import BATCH, Writer

WRITERS = 3


@pytest.fixture(params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceProcess]:
    place = None
    if request.param == "postgres":
        found: Postgres = request.getfixturevalue("postgres")
        place = str(found.place)
    with ServiceProcess(tmp_path / "service.db", place=place) as running:
        yield running


def lose(service: ServiceProcess, request: pytest.FixtureRequest) -> None:
    if service.place == service.db:
        remove(service.db)
    else:
        schema = request.getfixturevalue("postgres").schema
        quiet = "SET client_min_messages = warning"
        run(quiet, f"DROP SCHEMA {schema} CASCADE", f"CREATE SCHEMA {schema}")


def command(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sharedlog.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sync(service: ServiceProcess, folder: Path, names: str, *created: SyncModel) -> None:
    """Let devices sync one after the other, the first one with some more rows."""
    rows = list(created)
    for name in names:
        with device(folder / f"{name}.db", url=service.url, token=service.token) as syncing:
            while rows:
                rows.pop().save(force_insert=True)
            syncing.sync()


def taken(writers: list[Writer]) -> int:
    return sum(len(writer.kept) for writer in writers)


def wait_for_more(writers: list[Writer]) -> None:
    goal = taken(writers) + 5 * BATCH
    for _ in range(3_000):
        if taken(writers) >= goal:
            return
        writers[0].join(0.01)
    raise AssertionError("nobody writes any more")


def test_what_was_lost_after_the_backup_comes_back_from_who_holds_it(
    service: ServiceProcess, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    writers = [Writer(n, [service.url], service.make_token("load")) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    sync(service, tmp_path, "ab", Tag(key="t", text="before"))
    wait_for_more(writers)

    before = taken(writers)
    backup = tmp_path / "monday.db"
    assert "Logs: 2" in command("backup", str(backup), "--database", str(service.place))
    assert taken(writers) > before
    wait_for_more(writers)

    sync(service, tmp_path, "ba", Tag(key="u", text="after, by b"))
    sync(service, tmp_path, "ab", Note(key="n", title="after, by a"))
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()
    service.kill()
    # Of what is left of a killed service, too: nothing that was acknowledged is missing.
    tuesday = tmp_path / "tuesday.db"
    command("backup", str(tuesday), "--database", str(service.place))
    assert len(written(tuesday, "load")) == taken(writers)
    lose(service, request)
    printed = command("restore", str(backup), "--database", str(service.place))
    assert "each of a new epoch" in printed

    saved = written(service.place, "load")
    assert before <= len(saved) < taken(writers)
    for writer in writers:  # of one moment: of each the first ones, without a hole
        mine = [ticks for name, ticks in saved if name == writer.device]
        assert mine == writer.acknowledged[: len(mine)]

    service.start()
    sync(service, tmp_path, "bcabc", Tag(key="v", text="later"))
    for writer in writers:
        writer.offer_again()
    service.stop()
    wanted = {(writer.device, ticks) for writer in writers for ticks in writer.acknowledged}
    saved = written(service.place, "load")
    assert len(saved) == len(wanted)
    assert set(saved) == wanted
    files = [read_client(tmp_path / f"{name}.db") for name in "abc"]
    assert files[0].tables == files[1].tables == files[2].tables
    assert files[0].tables["tag"].keys() == {"t", "u", "v"}
    assert files[0].tables["note"].keys() == {"n"}
    assert len(written(service.place, "me")) == 4


def written(place: Path | str, user: str) -> list[tuple[str, int]]:
    with closing(Store.open(place)) as store:
        page = store.find(user, EntryFilter(), count=10**6)
    return [(entry.device, entry.created_on) for entry in page.entries]
