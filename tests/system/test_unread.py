"""All is read again by a program that has not all tables: the others follow with the next one that
has them."""

from __future__ import annotations

from functools import partial

import pytest

from sharedlog.events import BegunAnew, Event
from sharedlog.journal.reset import KNOWN
from tests.client.devices import Device
from tests.system.test_compaction import MODELS, Shelf, Tag, World, done, world
from tests.system.test_horizon import Score, assert_settled, forget, labels

__all__ = ["world"]

PART = (Shelf,)


def run_by_part(world: World, late: Device, *, reset: bool = False) -> list[Event]:
    """A program with fewer models syncs in the place of `late`."""
    late.close()
    part = world.device("late", PART)
    told: list[Event] = []
    with part:
        part.sync.on_event(told.append)
        if reset:
            part.sync.reset()
    done(part, lambda: None)
    part.close()
    return told


def test_a_device_that_begins_anew(world: World) -> None:
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    done(one, lambda: Tag.create(label="stays"))
    done(late, lambda: None)
    with late:
        Tag.create(label="not sent")
    done(one, partial(Tag.delete_by_id, gone.id))
    forget(world, one)
    told = run_by_part(world, late)
    assert [type(event) for event in told if isinstance(event, BegunAnew)] == [BegunAnew]
    late = world.device("late", MODELS)
    done(late, lambda: None)
    assert labels(late) == {"stays", "not sent", "later", "later still"}
    assert_settled(world, late, one)
    done(late, lambda: Tag.create(label="new"))
    assert_settled(world, late, one)


def test_a_reset(world: World) -> None:
    one, late = world.device("one"), world.device("late")
    done(one, lambda: Tag.create(label="stays"))
    done(late, lambda: None)
    late.database.execute_sql("DROP TRIGGER IF EXISTS sharedlog_tag_created")
    late.database.execute_sql("INSERT INTO tag (id, label) VALUES (?, 'unseen')", ["0" * 32])
    run_by_part(world, late, reset=True)
    late = world.device("late", MODELS)
    done(late, lambda: None)
    assert labels(late) == {"stays", "unseen"}
    done(one, lambda: None)
    assert_settled(world, late, one)


@pytest.mark.parametrize("by_whom", ["part", "whole"])
def test_a_reset_brings_nothing_back(world: World, by_whom: str) -> None:
    one, late = world.device("one"), world.device("late")
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: None)
    done(one, partial(Tag.delete_by_id, gone.id))
    forget(world, one)
    if by_whom == "whole":
        with late:
            late.sync.reset()
    run_by_part(world, late, reset=by_whom == "part")
    late = world.device("late", MODELS)
    done(late, lambda: None)
    assert labels(late) == {"later", "later still"}
    assert_settled(world, late, one)
    assert late.sync.versions.collections(f"collection LIKE '{KNOWN}%'") == []


def test_increments_that_a_program_without_the_table_sends_too_late(world: World) -> None:
    """They are dated anew, and count once."""
    models = (*MODELS, Score)
    one, late = world.device("one", models), world.device("late", models)
    gone = done(one, lambda: Tag.create(label="gone"))
    done(late, lambda: None)
    with late:
        Score.create(name="ada", points=10)
        Score.update(points=Score.points + 1).execute()
        late.sync.status()
    done(one, partial(Tag.delete_by_id, gone.id))
    forget(world, one)
    run_by_part(world, late)
    late = world.device("late", models)
    for device in (late, one, late):
        done(device, lambda: None)
    for device in (late, one):
        with device:
            assert Score.get().points == 11
            assert device.sync.verify().equal
