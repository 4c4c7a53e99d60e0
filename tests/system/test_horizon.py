"""A log that was compacted begins a new life, or a device does: what was forgotten stays gone.

The deletions that the log has forgotten, `late` has not read; and it begins at the beginning.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Change, Counter, SyncModel
from sharedlog_service.grants import Grant, Scope
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.client.devices import Device
from tests.system.test_compaction import Tag, World, done, fresh, rows, world

__all__ = ["world"]


class Score(SyncModel):
    name = peewee.TextField()
    points = peewee.IntegerField(default=0)

    class Meta:
        merge: ClassVar = {"points": Counter()}


def labels(device: Device) -> set[str]:
    with device:
        return {tag.label for tag in Tag.select()}


def forget(world: World, one: Device) -> None:
    """Let the log forget what was deleted so far."""
    world.pass_days(100)
    for label in ("later", "later still"):  # the newest writes of a device stay in any case
        done(one, partial(Tag.create, label=label))
        world.pass_days(40)
    done(one, lambda: None)
    assert world.compact() > 0


def assert_settled(world: World, *devices: Device) -> None:
    for device in devices * 2:
        done(device, lambda: None)
    for device in devices:
        assert rows(device) == rows(devices[0]) == rows(fresh(world))
        with device:
            assert device.sync.verify().equal
            assert device.sync.status().pending == 0
            assert device.sync.sync().exchanges == 1


@pytest.mark.parametrize("author", ["one", "late"])
def test_a_new_life_of_the_log_brings_nothing_back(world: World, author: str) -> None:
    devices = one, late = world.device("one"), world.device("late")
    writer = devices[author == "late"]
    gone = done(writer, lambda: Tag.create(label="gone"))
    done(writer, lambda: Tag.create(label="stays"))
    done(writer, lambda: Tag.create(label="stays, too"))
    for device in devices:
        done(device, lambda: None)
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.renew_epochs()
    with late:
        Tag.update(label="in vain").where(Tag.id == gone.id).execute()
        Tag.update(colour="red").where(Tag.label == "stays").execute()
    done(late, lambda: None)
    assert labels(late) == {"stays", "stays, too", "later", "later still"}
    assert_settled(world, late, one)


def test_what_a_row_was_before_it_was_made_again_is_forgotten(world: World) -> None:
    one, late = world.device("one"), world.device("late")
    tag = done(one, lambda: Tag.create(label="old", colour="blue"))
    done(late, lambda: None)

    def again() -> None:
        Tag.delete_by_id(tag.id)
        Tag.create(id=tag.id, label="new")  # without a colour

    done(one, again)
    forget(world, one)
    world.store.renew_epochs()
    done(late, lambda: None)
    with late:
        assert Tag.get_by_id(tag.id).colour is None
    assert_settled(world, late, one)


def test_what_is_later_than_the_horizon_waits_for_its_author(world: World, tmp_path: Path) -> None:
    """The backup that was put back has not got it, and its author has not come by."""
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    done(one, lambda: Tag.delete_by_id(gone.id))
    done(late, lambda: None)
    forget(world, one)
    with restoring(world, tmp_path / "backup.db"):
        done(one, lambda: Tag.create(label="after the backup"))
        done(late, lambda: None)
    done(late, lambda: None)
    assert labels(late) == {"after the backup", "later", "later still"}
    assert_settled(world, late, one)


def test_what_had_replaced_an_entry_of_its_own_is_lost_and_the_entry_counts_again(
    world: World, tmp_path: Path
) -> None:
    one, other, late = (world.device(name) for name in ("one", "other", "late"))
    mine = done(late, lambda: Tag.create(label="mine"))
    with restoring(world, tmp_path / "backup.db"):
        done(one, lambda: [Tag.create(id=mine.id, label="newer"), Tag.create(label="lost")])
        done(late, lambda: None)
        assert labels(late) == {"newer", "lost"}
    done(other, lambda: Tag.create(label="gone").delete_instance())
    forget(world, other)
    done(late, lambda: None)
    assert labels(late) == {"mine", "later", "later still"}
    assert_settled(world, late, other)


def test_a_row_that_came_again_after_a_deletion_which_was_never_sent_is_forgotten(
    world: World,
) -> None:
    one, late = world.device("one"), world.device("late")
    tag = done(one, lambda: Tag.create(label="first"))
    done(late, lambda: None)
    done(one, lambda: Tag.delete_by_id(tag.id))
    with late:
        Tag.delete_by_id(tag.id)
        assert late.sync.status().pending == 1
    done(one, lambda: Tag.create(id=tag.id, label="again"))
    with late:
        late.sync.receive()
        late.sync.reconcile()
        assert labels(late) == {"again"}
    done(one, lambda: Tag.delete_by_id(tag.id))
    forget(world, one)
    world.store.renew_epochs()
    done(late, lambda: None)
    assert labels(late) == {"later", "later still"}
    assert_settled(world, late, one)


@contextmanager
def restoring(world: World, saved: Path) -> Iterator[None]:
    """What happens meanwhile, the service has lost."""
    world.store.close()
    shutil.copyfile(world.path, saved)
    world.store = Store.open(world.path, now=lambda: world.ms)
    yield
    world.store.close()
    for file in world.path.parent.glob("service.db*"):
        file.unlink()
    shutil.copyfile(saved, world.path)
    world.store = Store.open(world.path, now=lambda: world.ms)
    world.store.renew_epochs()


def test_counters_count_what_they_did(world: World) -> None:
    """Also what this device has pruned, and what it has not sent yet."""
    one, late = (world.device(name, [Score, Tag]) for name in ("one", "late"))

    def add(device: Device, name: str, points: int) -> None:
        mine = Score.name == name
        done(device, lambda: Score.update(points=Score.points + points).where(mine).execute())

    done(one, lambda: [Score.create(name="kept"), Score.create(name="gone"), Tag.create()])
    done(late, lambda: None)
    for device in (late, one, late, one):
        add(device, "kept", 10)
        add(device, "gone", 10)
    done(late, lambda: None)
    with late:
        late.sync.prune(keep_ms=0)
        Score.update(points=Score.points + 1).where(Score.name == "kept").execute()
    done(one, lambda: Score.delete().where(Score.name == "gone").execute())
    forget(world, one)
    world.store.renew_epochs()
    for device in (late, one, late):
        done(device, lambda: None)
        with device:
            found = [(score.name, score.points) for score in Score.select()]
            assert found == [("kept", 41)] or device is one
            assert device.sync.verify().equal or device is one
    assert one.stored() == late.stored()


def test_a_row_that_was_kept_back_stays(world: World) -> None:
    """Only this device has it, and nothing of it in the client log any more."""
    one, late = world.device("one"), world.device("late")
    pipeline = late.sync._replica.pipeline
    keep: Callable[[Change], Change | None] = lambda change: None  # noqa: E731
    object.__setattr__(pipeline, "pre_send", keep)
    done(late, lambda: Tag.create(label="private"))
    object.__setattr__(pipeline, "pre_send", lambda change: change)
    done(late, lambda: Tag.create(label="sent"))
    with late:
        late.sync.prune(keep_ms=0)
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: None)
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.renew_epochs()
    done(late, lambda: None)
    assert labels(late) == {"private", "sent", "later", "later still"}


def test_what_was_received_in_an_earlier_life_and_not_applied_brings_nothing_back(
    world: World,
) -> None:
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    with late:
        late.sync.receive()
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.renew_epochs()
    with late:
        late.sync.receive()
        late.sync.reconcile()
    assert_settled(world, late, one)


def test_a_service_that_does_not_tell_where_to_begin_makes_another_device_of_it(
    world: World,
) -> None:
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: Tag.create(label="stays"))
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.renew_epochs()
    execute = world.lines[late].execute

    def silent(document: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = execute(document, variables)
        for error in answer.get("errors", ()):
            error["extensions"].pop("beginning", None)
        return answer

    world.lines[late].execute = silent
    before = late.sync.identity.device
    done(late, lambda: None)
    assert late.sync.identity.device != before
    assert labels(late) == {"stays", "later", "later still"}
    assert_settled(world, late, one)


def test_a_token_that_may_only_read_goes_on_reading(world: World) -> None:
    one, late = world.device("one"), world.device("late")
    done(one, lambda: Tag.create(label="old"))
    done(late, lambda: None)
    reader = Grant("ada", frozenset((Scope.READ, Scope.DEVICES)))
    world.lines[late].execute = InProcess(world.store, reader).execute
    world.store.renew_epochs()
    done(one, lambda: Tag.create(label="new"))
    done(late, lambda: None)
    assert labels(late) == {"old", "new"}


# -- a device that was reset -----------------------------------------------------------------


@pytest.mark.parametrize("author", ["one", "late"])
def test_a_reset_brings_nothing_back_that_the_log_has_forgotten(world: World, author: str) -> None:
    devices = one, late = world.device("one"), world.device("late")
    writer = devices[author == "late"]
    gone, again = done(writer, lambda: [Tag.create(label="gone"), Tag.create(colour="blue")])
    done(writer, lambda: Tag.create(label="stays"))
    for device in devices:
        done(device, lambda: None)

    def meanwhile() -> None:
        for tag in (gone, again):
            Tag.delete_by_id(tag.id)
        Tag.create(id=again.id, label="again")

    done(one, meanwhile)
    forget(world, one)
    expected = {"again", "stays", "since then", "later", "later still"}
    if late.recorder == "signals":
        late.database.execute_sql("INSERT INTO tag VALUES (?, 'raw', NULL)", ("0" * 32,))
        late.database.execute_sql("UPDATE tag SET label = 'behind its back' WHERE label = 'stays'")
        expected.add("raw")
    with late:
        late.sync.reset()
        Tag.create(label="since then")
    done(late, lambda: None)
    assert labels(late) == expected
    assert_settled(world, late, one)
    with one:
        assert Tag.get_by_id(again.id).colour is None


@pytest.mark.parametrize("recorded", ["changed", "deleted", "created"])
def test_what_is_written_between_a_reset_and_the_next_exchange_counts(
    world: World, recorded: str
) -> None:
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: None)
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    with late:
        late.sync.reset()
        if recorded == "changed":
            Tag.update(colour="red").where(Tag.id == gone.id).execute()
        else:
            Tag.delete_by_id(gone.id)
        if recorded == "created":
            Tag.create(id=gone.id, label="mine")
    done(late, lambda: None)
    expected = {"later", "later still"}
    assert labels(late) == (expected | {"mine"} if recorded == "created" else expected)
    assert_settled(world, late, one)


def test_after_a_reset_all_rows_go_to_another_log(world: World) -> None:
    one, late = world.device("one"), world.device("late")
    done(one, lambda: Tag.create(label="old"))
    done(late, lambda: None)
    gone = done(one, lambda: Tag.create(label="gone"))
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.create_user("bob")
    world.lines[late].execute = lambda asked, given: InProcess(world.store, "bob").execute(
        asked, {**given, "userId": "bob"}
    )
    with late:
        late.sync.reset()
    done(late, lambda: None)
    assert labels(late) == {"old"}
    with late:
        assert late.sync.verify().equal
    assert world.store.stats("bob").entries == 1


def test_an_increment_of_a_former_life_of_a_row_is_forgotten(world: World) -> None:
    models = (Tag, Score)
    one, late = world.device("one", models), world.device("late", models)
    score = done(one, lambda: Score.create(name="ada", points=10))
    done(late, lambda: None)
    done(late, lambda: Score.update(points=Score.points + 1).execute())

    def again() -> None:
        Score.delete().execute()
        Score.create(id=score.id, name="ada", points=10)

    done(one, lambda: None)
    done(one, again)
    forget(world, one)
    world.store.renew_epochs()
    for device in (late, one, late):
        done(device, lambda: None)
    for device in (late, one):
        with device:
            assert Score.get().points == 10
            assert device.sync.verify().equal


def test_what_a_copy_offers_again_in_vain_is_forgotten(world: World, tmp_path: Path) -> None:
    """It offers it as another device, which the log never heard of."""
    one, late = world.device("one"), world.device("late")
    done(one, lambda: Tag.create(label="stays"))
    done(late, lambda: None)
    gone = done(late, lambda: Tag.create(label="gone"))
    with late:
        late.database.execute_sql("VACUUM INTO ?", [str(tmp_path / "copy.db")])
    copy = world.device("copy")
    done(one, lambda: None)
    done(one, lambda: Tag.delete_by_id(gone.id))
    forget(world, one)
    world.store.renew_epochs()
    done(copy, lambda: None)
    done(copy, lambda: Tag.update(colour="red").where(Tag.label == "stays").execute())
    done(late, lambda: None)
    assert labels(late) == labels(copy) == {"stays", "later", "later still"}
    assert_settled(world, late, one, copy)
