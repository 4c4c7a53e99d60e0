"""The power is cut at every moment of the service's work: what it had acknowledged is there.

The disk is simulated: `tests.system.disk` says what it takes into account, and what it does not.
What the service does, and how the images are judged, is in `tests.system.power_cuts`; run by hand
it makes as many images as one likes. That the same judgement finds something where there is
something to be found is shown here, too.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from tests.system.disk.disk import Call, Disk
from tests.system.disk.power import Files, images, moments
from tests.system.power_cuts import Verdict, connections, judge, judge_recoveries, record
from tests.system.store_work import World, first_operations, operations


def judged(folder: Path, turns: int, *pragmas: str, draws: int = 1) -> Verdict:
    verdict = judge(record(folder, turns, *pragmas), folder, draws=draws)
    print(", ".join(pragmas) or "as the service sets it", verdict, sep=": ")  # noqa: T201
    return verdict


def test_what_was_acknowledged_survives_a_power_cut(memory: Path) -> None:
    verdict = judged(memory, 5, draws=2)
    assert (verdict.lost.total(), verdict.broken.total()) == (0, 0), verdict.first
    assert verdict.images.total() > 5_000
    assert verdict.opened > 100


def test_it_survives_a_second_cut_while_it_recovers(memory: Path) -> None:
    verdict = judge_recoveries(record(memory, 2), memory, every=100)
    print("cut again:", verdict)  # noqa: T201
    assert (verdict.lost.total(), verdict.broken.total()) == (0, 0), verdict.first
    assert verdict.images.total() > 2_000


def test_the_same_check_fails_with_synchronous_normal(memory: Path) -> None:
    """Sound files, but not all that was acknowledged is in them."""
    verdict = judged(memory, 2, "synchronous = normal")
    assert verdict.lost.total() > 0
    assert verdict.broken.total() == 0, verdict.first


def test_the_same_check_sees_files_that_are_not_sound(memory: Path) -> None:
    assert judged(memory, 1, "synchronous = off").broken.total() > 0


def test_the_same_check_sees_a_folder_that_was_not_synced(memory: Path) -> None:
    """With a rollback journal a transaction ends with the journal's deletion, which only
    `synchronous=EXTRA` makes certain."""
    assert judged(memory, 1, "journal_mode = delete").lost.total() > 0
    verdict = judged(memory, 1, "journal_mode = delete", "synchronous = extra")
    assert (verdict.lost.total(), verdict.broken.total()) == (0, 0), verdict.first


# -- the disk itself ---------------------------------------------------------------------


def left(calls: list[Call], files: Files | None = None) -> set[tuple[tuple[str, bytes], ...]]:
    """Whatever may be found after the last of these calls, in 500 draws."""
    *_, last = moments(calls, files)
    found = images(last, random.Random(1), draws=500)
    return {tuple(sorted(files.items())) for kind, files in found if kind != "noise"}


def test_a_write_is_certain_after_a_sync_of_its_file() -> None:
    one, two = Call("write", "a", 0, b"one"), Call("write", "a", 1, b"two")
    before = {"a": b"...."}
    assert left([one, two], before) == {
        (("a", content),) for content in (b"....", b"one.", b".two", b"otwo")
    }
    synced = [one, Call("sync", "a"), two]
    assert left(synced, before) == {(("a", b"one."),), (("a", b"otwo"),)}
    another = [one, Call("write", "b", 0, b"b"), Call("sync", "b")]
    assert left(another, {**before, "b": b"."}) == {
        (("a", b"...."), ("b", b"b")),
        (("a", b"one."), ("b", b"b")),
    }


def test_a_write_may_be_there_in_some_of_its_sectors() -> None:
    found = left([Call("write", "a", 256, b"x" * 1024)], {"a": bytes(1536)})
    parts = {content[at] for ((_, content),) in found for at in (256, 512, 1024)}
    assert parts == {0, ord("x")}
    ends = {(content[511:513], content[1023:1025]) for ((_, content),) in found}
    assert (b"x\0", b"\0x") in ends
    assert all(content[:256] == bytes(256) == content[1280:] for ((_, content),) in found)


def test_a_new_size_is_certain_after_a_sync() -> None:
    cut = Call("truncate", "a", 2)
    assert left([cut], {"a": b"1234"}) == {(("a", b"1234"),), (("a", b"12"),)}
    assert left([cut, Call("sync", "a")], {"a": b"1234"}) == {(("a", b"12"),)}


def test_a_name_is_certain_after_a_sync_of_the_folder() -> None:
    made = [Call("create", "a"), Call("write", "a", 0, b"new"), Call("sync", "a")]
    assert left(made) == {(), (("a", b"new"),)}
    assert left([*made, Call("sync-folder", "a")]) == {(("a", b"new"),)}
    deleted = [Call("delete", "a")]
    assert left(deleted, {"a": b"old"}) == {(), (("a", b"old"),)}
    assert left([*deleted, *made], {"a": b"old"}) == {(), (("a", b"old"),), (("a", b"new"),)}
    assert left([*deleted, Call("sync-folder", "a")], {"a": b"old"}) == {()}


def test_noise_is_only_where_something_was_being_written() -> None:
    *_, last = moments([Call("write", "a", 512, b"x" * 512)], {"a": bytes(2048)})
    noisy = [files["a"] for kind, files in images(last, random.Random(1), 50) if kind == "noise"]
    assert all(content[:512] + content[1024:] == bytes(1536) for content in noisy)
    assert {content[512:1024] for content in noisy} - {bytes(512), b"x" * 512}


@contextmanager
def folder_syncs() -> Iterator[list[str]]:
    """The folders that SQLite's own code opens to sync them."""
    opened: list[str] = []
    base = apsw.VFS("folder-syncs", "")
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
    address = base.xGetSystemCall("openDirectory")
    assert address is not None
    original = kind(address)

    def open_directory(path: bytes, descriptor: object) -> int:
        opened.append(path.decode())
        return int(original(path, descriptor))

    replacement = kind(open_directory)
    base.xSetSystemCall("openDirectory", ctypes.cast(replacement, ctypes.c_void_p).value or 0)
    try:
        yield opened
    finally:
        base.xSetSystemCall("openDirectory", address)
        base.unregister()


@pytest.mark.parametrize("pragma", ["user_version", "journal_mode = delete"])
def test_the_folder_is_synced_when_sqlite_does_it(memory: Path, pragma: str) -> None:
    disk, world = Disk(), World(memory / "log.db")
    with folder_syncs() as opened, disk.mounted(), connections() as connected:
        for part in (first_operations(), operations(0)):
            connected.clear()
            store = world.open()
            connected[0].execute(f"PRAGMA {pragma}")
            connected[0].execute("PRAGMA synchronous = extra")
            for operation in part:
                world.perform(operation, store)
                noted = [call.file for call in disk.calls if call.what == "sync-folder"]
                assert len(opened) == len(noted)
            store.close()
    assert len(opened) >= 3
