"""Databases that are copied, put back and wiped: at random moments, and over real HTTP."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from sharedlog import DeviceRefused, Sync, SyncModel
from sharedlog.events import Event, Forked, LogShrunk
from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from tests.system.copies import (
    NOON_MS,
    Home,
    MemoryHome,
    StoreHome,
    World,
    copy_by_backup,
    copy_by_files,
    remove,
)
from tests.system.crash_world import (
    UNSENT,
    Folder,
    Note,
    Tag,
    device,
    differing,
    read_client,
    read_log,
    tables_of,
)
from tests.system.service_process import ServiceProcess

SEEDS = {"memory": range(1, 21), "service": range(1, 6)}
"""Worlds of each kind; a failure names its seed."""

Open = Callable[[str], AbstractContextManager[Sync]]

# -- at random ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> ServiceSchema:
    return build_schema()


def run_world(seed: int, folder: Path, where: str, schema: ServiceSchema, losing: bool) -> World:
    time: list[World] = []

    def now() -> int:
        return time[0].ms if time else NOON_MS

    home: Home = MemoryHome(now) if where == "memory" else StoreHome(folder, now, schema)
    world = World(seed, folder, home, losing=losing)
    time.append(world)
    try:
        world.run()
    except BaseException as error:
        error.add_note(f"where={where!r} losing={losing} seed={seed}")
        raise
    finally:
        world.close()
        home.close()
    return world


@pytest.mark.parametrize("where", SEEDS)
@pytest.mark.parametrize("losing", [False, True], ids=["copied files", "lost logs"])
def test_whatever_is_copied_and_put_back_ends_equal(
    where: str, losing: bool, memory: Path, schema: ServiceSchema, pytestconfig: pytest.Config
) -> None:
    """Every change that somebody holds is in the log once, all hold the same, nobody is answered
    in spite of what its file does not know."""
    counts: Counter[str] = Counter()
    for seed in SEEDS[where]:
        here = memory / str(seed)
        here.mkdir()
        counts += run_world(seed, here, where, schema, losing).counts
        shutil.rmtree(here)
    assert counts["forks"] > len(SEEDS[where])
    assert not losing or counts["log shrunk"] > len(SEEDS[where]) // 2
    assert not losing or counts["meanwhile"] > len(SEEDS[where]) // 2
    _say(pytestconfig, f"{where}, seeds {SEEDS[where]}: {dict(counts)}")


def _say(config: pytest.Config, text: str) -> None:
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        sys.stdout.write(f"\n{text}\n")


# -- over real HTTP -----------------------------------------------------------------------


@pytest.fixture
def opened(service: ServiceProcess, tmp_path: Path) -> Open:
    """Opens a device by its name: `with opened("a") as sync`."""
    return lambda name: device(
        tmp_path / f"{name}.db", url=service.url, token=service.token, batch_size=5
    )


def watched(sync: Sync) -> list[Event]:
    events: list[Event] = []

    @sync.on_event
    def note(event: Event) -> None:
        if isinstance(event, Forked | LogShrunk):
            events.append(event)

    return events


def settle(opened: Open, service: ServiceProcess, folder: Path, names: str) -> None:
    for name in [*names, *names]:
        with opened(name) as sync:
            sync.sync()
    log = read_log(service.db)
    wanted = tables_of([(entry.ticks, entry.device, entry.change) for entry in log])
    for name in names:
        client = read_client(folder / f"{name}.db")
        assert client.tables == wanted, differing(client.tables, wanted)
        assert UNSENT not in [entry.status for entry in client.entries]


def put(model: type[SyncModel], key: str, **values: object) -> None:
    model.create(key=key, **values)


@pytest.mark.parametrize("copy", [copy_by_backup, copy_by_files])
def test_a_copied_file(
    service: ServiceProcess,
    opened: Open,
    tmp_path: Path,
    copy: Callable[[Path, Path], None],
) -> None:
    with opened("a") as a:
        put(Folder, "f", name="common")
        a.sync()
        put(Note, "n", title="unsent in common", folder="f")
        copy(tmp_path / "a.db", tmp_path / "b.db")
        put(Note, "m", title="by the first")
        a.sync()
    with opened("b") as b:
        events = watched(b)
        put(Tag, "t", text="by the copy")
        result = b.sync()
        assert (result.sent, result.duplicates) == (2, 1)
        [fork] = events
        assert isinstance(fork, Forked) and b.status().former == (fork.former,)
    settle(opened, service, tmp_path, "abc")
    assert len(read_log(service.db)) == 4


def test_a_restored_backup_of_a_device(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        put(Tag, "t", text="before")
        a.sync()
        copy_by_backup(tmp_path / "a.db", tmp_path / "backup.db")
        put(Tag, "u", text="after")
        a.sync()
    copy_by_files(tmp_path / "backup.db", tmp_path / "a.db")
    with opened("a") as a:
        assert [tag.key for tag in Tag.select()] == ["t"]
        put(Tag, "v", text="later")
        events = watched(a)
        assert a.sync().sent == 1
        assert len(events) == 1
        assert sorted(tag.key for tag in Tag.select()) == ["t", "u", "v"]
    settle(opened, service, tmp_path, "ab")
    assert len(read_log(service.db)) == 3


@pytest.mark.parametrize("renewed", [True, False])
def test_a_restored_backup_of_the_service(
    service: ServiceProcess, opened: Open, tmp_path: Path, renewed: bool
) -> None:
    with opened("a") as a:
        put(Tag, "t", text="before")
        a.sync()
    service.stop()
    copy_by_files(service.db, tmp_path / "backup.db")
    service.start()
    for name in "ab":
        with opened(name) as sync:
            put(Tag, f"u{name}", text="after")
            sync.sync()
    service.stop()
    copy_by_files(tmp_path / "backup.db", service.db)
    if renewed:
        from sharedlog.cli import main

        assert main(["restored", "--db", str(service.db)]) == 0
    service.start()
    with opened("a") as a:
        events = watched(a)
        a.sync()
        assert events == [LogShrunk(1)]
    settle(opened, service, tmp_path, "abc")
    assert sorted(entry.change["pk"] for entry in read_log(service.db)) == ["t", "ua", "ub"]


def test_a_wiped_service(service: ServiceProcess, opened: Open, tmp_path: Path) -> None:
    for name in "ab":
        with opened(name) as sync:
            put(Tag, name, text="before")
            sync.sync()
    settle(opened, service, tmp_path, "ab")
    service.stop()
    remove(service.db)
    service.start()
    ids = {entry.device for entry in read_log(service.db)}
    assert ids == set()
    settle(opened, service, tmp_path, "abc")
    assert len(read_log(service.db)) == 2


def test_nobody_registers_again_who_was_revoked(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    from sharedlog_service.store.store import Store

    with opened("a") as a:
        put(Tag, "t", text="before")
        a.sync()
        mine = a.status().device or ""
    copy_by_backup(tmp_path / "a.db", tmp_path / "b.db")
    store = Store.open(service.db)
    store.revoke_device(service.user, mine)
    store.close()
    for name in "ab":
        with opened(name) as sync:
            put(Tag, name, text="kept here")
            with pytest.raises(DeviceRefused) as refused:
                sync.sync()
            assert refused.value.code == "DEVICE_REFUSED"
            assert (sync.status().device, sync.status().pending) == (mine, 1)


def test_a_file_with_the_token_of_somebody_else(
    service: ServiceProcess, opened: Open, tmp_path: Path
) -> None:
    with opened("a") as a:
        put(Tag, "t", text="mine")
        a.sync()
    other = service.make_token("somebody else")
    with device(tmp_path / "a.db", url=service.url, token=other) as a:
        put(Tag, "u", text="not theirs")
        with pytest.raises(DeviceRefused, match="belongs to the log of 'me'"):
            a.sync()
    settle(opened, service, tmp_path, "ab")
    assert len(read_log(service.db)) == 2
