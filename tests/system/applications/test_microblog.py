"""A messaging application with data in it adopts sharedlog: two lines, and its numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sharedlog import AutoIncrementKey, cli, migrate_keys
from tests.system.applications.devices import contents, running, sync_all, syncing
from tests.system.service_process import ServiceProcess

TABLES = ("user", "relationship", "message")


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The file of the application as it was, after some use."""
    file = tmp_path / "a.db"
    with running("microblog", "original", file) as app:
        ann, bob, cyd = (
            app.join(name, name * 2, f"{name}@example.org") for name in ("ann", "bob", "cyd")
        )
        assert app.join("bob", "x", "y") is None
        for user, other in ((ann, bob), (bob, ann), (cyd, ann), (ann, cyd), (ann, cyd)):
            app.follow(user, other)
        app.unfollow(ann, cyd)
        for number in range(4):
            for user in (ann, bob):
                app.write(user, f"{user.username} says {number}")
    return file


@pytest.fixture
def migrated(grown: Path) -> Path:
    assert cli.main(["migrate-keys", str(grown), "--tables", ",".join(TABLES)]) == 0
    return grown


@pytest.fixture
def devices(migrated: Path, tmp_path: Path, service: ServiceProcess) -> Iterator[tuple[Any, Any]]:
    """The first device with what it had, and a second one that began empty, in step."""
    with ExitStack() as stack:
        a = stack.enter_context(syncing("microblog", migrated, service))
        b = stack.enter_context(syncing("microblog", tmp_path / "b.db", service))
        assert a.sync.adopt().created == 14
        sync_all(a, b)
        yield a, b


def shown(app: Any) -> dict[str, list[str]]:
    """What a user sees of the application, page by page."""
    pages = {"public": [message.content for message in app.public_timeline()]}
    for user in app.User.select().order_by(app.User.username):
        name = user.username
        pages[f"{name} follows"] = [other.username for other in user.following()]
        pages[f"followers of {name}"] = [other.username for other in user.followers()]
        pages[f"for {name}"] = [message.content for message in app.private_timeline(user)]
        pages[f"by {name}"] = [message.content for message in app.messages_of(user)]
    return pages


def test_the_numbers_are_noticed_before_anything_is_recorded(
    grown: Path, service: ServiceProcess
) -> None:
    with pytest.raises(AutoIncrementKey) as refused, syncing("microblog", grown, service):
        pass

    assert "sharedlog migrate-keys FILE --tables user" in (refused.value.hint or "")


def test_everything_is_shown_as_before(grown: Path) -> None:
    with running("microblog", "original", grown) as app:
        before = shown(app)

    assert cli.main(["migrate-keys", str(grown), "--tables", ",".join(TABLES)]) == 0

    with running("microblog", "synced", grown) as app:
        assert shown(app) == before
        assert [user.username for user in app.User.select().order_by(app.User.id)] == [
            "ann",
            "bob",
            "cyd",
        ]


def test_both_work_offline_and_end_equal(
    devices: tuple[Any, Any], tmp_path: Path, service: ServiceProcess
) -> None:
    a, b = devices
    assert shown(b) == shown(a)

    service.stop()
    dora = a.join("dora", "d", "dora@example.org")
    a.follow(dora, a.log_in("ann", "annann"))
    a.write(dora, "hello from a")
    a.unfollow(a.User.get(username="cyd"), a.User.get(username="ann"))
    assert a.join("dora", "again", "") is None

    bob = b.log_in("bob", "bobbob")
    assert b.log_in("bob", "wrong") is None
    bob.email = "bob@example.com"
    bob.save()
    b.User.update(password=b.digest("new")).where(b.User.username == "cyd").execute()
    b.Message.delete().where(b.Message.user == bob, b.Message.content.contains("0")).execute()
    relationship, is_new = b.Relationship.get_or_create(
        from_user=b.User.get(username="cyd"), to_user=bob
    )
    assert is_new
    assert not b.Relationship.get_or_create(from_user=relationship.from_user, to_user=bob)[1]
    with b.database.atomic() as transaction:
        b.write(bob, "thought better of it")
        transaction.rollback()
    b.write(bob, "hello from b")

    service.start()
    sync_all(a, b)

    assert shown(a) == shown(b)
    assert contents(tmp_path / "a.db", *TABLES) == contents(tmp_path / "b.db", *TABLES)
    assert shown(a)["public"][:2] == ["hello from b", "hello from a"]
    assert shown(a)["for dora"] == ["ann says 3", "ann says 2", "ann says 1", "ann says 0"]
    assert a.log_in("cyd", "new").is_following(a.log_in("bob", "bobbob"))
    assert not a.User.get(username="cyd").is_following(a.User.get(username="ann"))


def test_a_third_device_comes_late_and_one_is_gone_for_long(
    devices: tuple[Any, Any], tmp_path: Path, service: ServiceProcess
) -> None:
    a, b = devices
    ann = a.User.get(username="ann")
    with a.database.atomic():
        for number in range(3_000):
            a.write(ann, f"one of many, {number}")
    a.sync.sync()
    a.write(ann, "and one that is not shared yet")
    b.User.get(username="ann").delete_instance(recursive=True)
    a.sync.sync()
    with syncing("microblog", tmp_path / "c.db", service) as c:
        c.write(c.join("eve", "e", "e@example.org"), "first")
        sync_all(a, b, c)
        files = [contents(tmp_path / f"{name}.db", *TABLES) for name in "abc"]
    assert files[0] == files[1] == files[2]
    # What b knew of ann is gone. She stays, because a's messages refer to her.
    assert b.User.get(username="ann").messages.count() == 3_001
    assert "ann says 0" not in shown(b)["by ann"]
    assert shown(b)["by eve"] == ["first"]


def test_a_copy_syncs_first_and_adopts_what_it_alone_has(
    migrated: Path, tmp_path: Path, service: ServiceProcess
) -> None:
    shutil.copy(migrated, tmp_path / "copy.db")
    with running("microblog", "synced", tmp_path / "copy.db") as copy:
        copy.write(copy.User.get(username="bob"), "before it syncs")
    with syncing("microblog", migrated, service) as a:
        a.sync.adopt()
        a.User.update(email="new").where(a.User.username == "ann").execute()
        a.Message.delete().where(a.Message.content == "ann says 0").execute()
        a.sync.sync()
        with syncing("microblog", tmp_path / "copy.db", service) as copy:
            copy.sync.sync()
            assert copy.sync.adopt().created == 1
            sync_all(a, copy)
            files = [contents(tmp_path / f"{name}.db", *TABLES) for name in ("a", "copy")]
            assert files[0] == files[1]
            assert copy.User.get(username="ann").email == "new"
            assert shown(a)["by bob"][0] == "before it syncs"
            assert shown(a)["by ann"] == ["ann says 3", "ann says 2", "ann says 1"]


def test_a_copy_of_a_device_becomes_a_device(
    migrated: Path, tmp_path: Path, service: ServiceProcess
) -> None:
    with syncing("microblog", migrated, service) as a:
        a.sync.adopt()
        a.sync.sync()
    shutil.copy(migrated, tmp_path / "copy.db")
    with (
        syncing("microblog", migrated, service) as a,
        syncing("microblog", tmp_path / "copy.db", service) as copy,
    ):
        for app, name in ((a, "ann"), (copy, "bob")):
            app.write(app.User.get(username=name), f"{name} writes")
            app.User.update(email="changed").where(app.User.username == name).execute()
        sync_all(a, copy)
        files = [contents(tmp_path / f"{name}.db", *TABLES) for name in ("a", "copy")]
        assert files[0] == files[1]
        assert a.sync.status().device != copy.sync.status().device
        assert shown(a)["public"][:2] == ["bob writes", "ann writes"]
        assert [user.email for user in a.User.select().order_by(a.User.username)][:2] == [
            "changed",
            "changed",
        ]


def test_identical_copies_agree_on_their_keys(
    grown: Path, tmp_path: Path, service: ServiceProcess
) -> None:
    shutil.copy(grown, tmp_path / "copy.db")
    for file in (grown, tmp_path / "copy.db"):
        migrate_keys(file, tables=TABLES, namespace="microblog")
    with syncing("microblog", grown, service) as a:
        a.sync.adopt()
        a.write(a.User.get(username="ann"), "from a")
        a.sync.sync()
        with syncing("microblog", tmp_path / "copy.db", service) as copy:
            copy.sync.sync()
            copy.write(copy.User.get(username="ann"), "from the copy")
            assert copy.sync.adopt().created == 0
            sync_all(a, copy)
            files = [contents(tmp_path / f"{name}.db", *TABLES) for name in ("a", "copy")]
            assert files[0] == files[1]
            assert len(files[0]["user"]) == 3
            assert [m.content for m in a.Message.select().order_by(a.Message.id)][-2:] == [
                "from a",
                "from the copy",
            ]


def test_an_object_that_is_stale_takes_nothing_back(devices: tuple[Any, Any]) -> None:
    a, b = devices
    stale = a.User.get(username="ann")
    b.User.update(email="ann@b").where(b.User.username == "ann").execute()
    sync_all(a, b)
    stale.password = a.digest("changed")
    stale.save()
    sync_all(a, b)

    assert b.log_in("ann", "changed").email == "ann@b"


def test_a_name_that_two_devices_gave_offline_belongs_to_one_user_everywhere(
    devices: tuple[Any, Any], tmp_path: Path
) -> None:
    a, b = devices
    for app in devices:
        eve = app.join("eve", "e", "eve@example.org")
        app.write(eve, "am I the only one?")
        app.follow(eve, app.User.get(username="bob"))
        app.follow(app.User.get(username="bob"), app.User.get(username="cyd"))

    sync_all(a, b)
    sync_all(b, a)

    assert contents(tmp_path / "a.db", *TABLES) == contents(tmp_path / "b.db", *TABLES)
    assert shown(a) == shown(b)
    assert shown(a)["bob follows"] == ["ann", "cyd"]
    assert shown(a)["by eve"] == ["am I the only one?"]
    parked = {row.collection: row for row in a.sync.parked()}
    assert parked.keys() == {"user", "message", "relationship"}

    a.sync.resolve(parked["user"], username="another eve")
    sync_all(a, b)

    assert contents(tmp_path / "a.db", *TABLES) == contents(tmp_path / "b.db", *TABLES)
    assert shown(b)["by another eve"] == ["am I the only one?"]
    assert shown(b)["followers of bob"] == ["ann", "another eve", "eve"]
    assert {row.values["to_user"] for row in b.sync.parked()} == {
        str(b.User.get(username="cyd").id)  # bob follows cyd once, as it should be
    }
