"""Tables that a program of the same file does not have, or not any more: what becomes of their rows
meanwhile comes to them with the next program that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Counter, Members, MemorySharedLog, Sync, SyncModel
from sharedlog.changes import dumps
from sharedlog.evolution.restating import aside_of
from sharedlog.remote.sharedlog import Outgoing
from tests.volume import times

from .conftest import OpenDevice


class Tag(SyncModel):
    code = peewee.CharField(primary_key=True)
    name = peewee.CharField(default="")
    marks: Any = peewee.JSONField(default=list)
    count = peewee.IntegerField(default=0)

    class Meta:
        merge: ClassVar = {"marks": Members(), "count": Counter()}


class Firm(SyncModel):
    code = peewee.CharField(primary_key=True)


class PlainTag(SyncModel):
    """The same, in a program from before the rules."""

    code = peewee.CharField(primary_key=True)
    name = peewee.CharField(default="")
    marks: Any = peewee.JSONField(default=list)
    count = peewee.IntegerField(default=0)

    class Meta:
        table_name = "tag"


Running = Callable[..., Any]


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


@pytest.fixture
def running(open_device: OpenDevice, recorder: str, log: MemorySharedLog) -> Running:
    """Runs a program with these models at the file of that name."""

    @contextmanager
    def run(name: str, *models: Any) -> Iterator[Sync]:
        with open_device(models, name, recorder=recorder, shared_log=log) as device:
            yield device.sync
        device.close()

    return run


def codes(model: Any) -> set[str]:
    return {row.code for row in model.select()}


def test_rows_that_were_deleted_meanwhile_are_gone(running: Running) -> None:
    with running("a", Tag, Firm) as sync:
        Tag.insert_many([("x",), ("y",), ("z",)], [Tag.code]).execute()
        sync.sync()
    with running("b", Tag, Firm) as sync:
        sync.sync()
        Tag.delete().where(Tag.code.in_(["x", "z"])).execute()
        Tag.create(code="z", name="again")
        Tag.update(name="new").where(Tag.code == "y").execute()
        sync.sync()
    with running("a", Firm) as sync:
        sync.sync()
    with running("a", Tag, Firm) as sync:
        sync.sync()
        assert {(tag.code, tag.name) for tag in Tag.select()} == {("y", "new"), ("z", "again")}
        assert sync.verify().equal
        assert sync.adopt().created == 0


def test_what_comes_meanwhile_is_told_and_can_be_discarded(running: Running) -> None:
    with running("a", PlainTag, Firm) as sync:
        sync.sync()
    with running("b", PlainTag, Firm) as sync:
        PlainTag.insert_many([("x",), ("y",)], [PlainTag.code]).execute()
        sync.sync()
    with running("a", Firm) as sync:
        sync.sync()
        told = sync.parked()
        assert [(row.code, row.collection, row.pk) for row in told] == [
            ("UNKNOWN_COLLECTION", "tag", "x"),
            ("UNKNOWN_COLLECTION", "tag", "y"),
        ]
        assert sync.status().parked == 2
        sync.discard(told[0])
        assert [row.pk for row in sync.parked()] == ["y"]
        sync.sync()
    for name in "ab":
        with running(name, PlainTag, Firm) as sync:
            sync.sync()
            assert codes(PlainTag) == {"y"}
            assert sync.parked() == []
            assert sync.verify().equal


def test_rules_stay_known(running: Running) -> None:
    """What had been written by them was not written without."""
    with running("c", Tag, Firm):
        Tag.create(code="x", marks=["c"])
    with running("a", Tag, Firm) as sync:
        Tag.create(code="x", marks=["a"])
        sync.sync()
    with running("a", Firm) as sync:
        sync.sync()
    for name in "cac":
        with running(name, Tag, Firm) as sync:
            sync.sync()
            assert sync.verify().equal
            marks = Tag.get().marks
    assert marks == ["a", "c"]


def test_what_comes_without_a_rule_is_merged_as_such(running: Running) -> None:
    with running("a", Tag, Firm) as sync:
        Tag.create(code="x", marks=["a"], count=3)
        sync.sync()
    with running("a", Firm) as sync:
        with running("old", PlainTag, Firm) as other:
            PlainTag.create(code="x", marks=["old"], count=5)
            PlainTag.update(marks=["older"]).execute()
            other.sync()
        sync.sync()
    found = []
    for name in ("a", "new", "a"):
        with running(name, Tag, Firm) as sync:
            sync.sync()
            assert sync.verify().equal
            found += list(Tag.select().dicts())
    assert found == [found[0]] * 3


@pytest.mark.parametrize("seed", range(times(3)))
def test_programs_with_and_without_a_table_end_equal(seed: int, running: Running) -> None:
    chance = Random(seed)
    for number in range(30):
        name = chance.choice("abc")
        models = (Firm,) if chance.random() < 0.3 else (Tag, Firm)
        with running(name, *models) as sync:
            if Tag in models:
                write(chance, number)
            if chance.random() < 0.7:
                sync.sync()
    found = {}
    for name in "abcabcd":
        with running(name, Tag, Firm) as sync:
            sync.sync()
            assert sync.parked() == []
            found[name] = sorted(Tag.select().tuples()), sync.verify().differences
    assert found == dict.fromkeys("abcd", (found["d"][0], []))


def write(chance: Random, number: int) -> None:
    code = chance.choice("xyz")
    this = Tag.code == code
    what = chance.random()
    if what < 0.25:
        Tag.delete().where(this).execute()
    elif what < 0.5:
        Tag.update(count=Tag.count + 1).where(this).execute()
    elif not Tag.update(name=str(number), marks=chance.sample("abc", 2)).where(this).execute():
        Tag.create(code=code, count=number)


def test_a_program_that_runs_meanwhile_gets_what_another_one_set_aside(running: Running) -> None:
    with running("b", PlainTag, Firm) as sync:
        PlainTag.insert_many([("x",), ("y",)], [PlainTag.code]).execute()
        sync.sync()
    with running("a", PlainTag, Firm) as whole:
        whole.sync()
        with running("b", PlainTag, Firm) as sync:
            PlainTag.delete_by_id("x")
            PlainTag.create(code="z")
            sync.sync()
        with running("a", Firm) as part:
            part.sync()
        with whole.database.bind_ctx([PlainTag, Firm]):
            whole.sync()
            assert codes(PlainTag) == {"y", "z"}
            assert whole.parked() == []
            assert whole.verify().equal


def test_what_no_rule_knows_is_set_aside_as_everywhere(running: Running) -> None:
    with running("a", Tag, Firm) as sync:
        sync.sync()
    with running("old", PlainTag, Firm) as sync:
        PlainTag.create(code="x", marks={"no": "list"})
        sync.sync()
    with running("a", Firm) as sync:
        sync.sync()
    told = []
    for name in ("a", "new"):
        with running(name, Tag, Firm) as sync:
            sync.sync()
            assert codes(Tag) == set()
            told.append([(row.code, row.reason, row.entry) for row in sync.parked()])
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "said", ["x", "[]", '["plaintag", "given up"]', '["firm","given up"]', "[1]"]
)
def test_no_entry_comes_by_the_names_of_what_is_set_aside(
    said: str, running: Running, log: MemorySharedLog
) -> None:
    device = log.register("foreign", "foreign")
    bad = {
        "operation": "create",
        "collection": aside_of("firm").partition("[")[0] + said,
        "pk": "x",
    }
    entry = Outgoing(1000, 0, dumps({**bad, "value": {}}))
    log.write(device, [entry], after=None, now_ms=1, limit=1, byte_limit=1)
    with running("a", Firm) as sync:
        for _ in range(2):
            sync.sync()
            assert [row.code for row in sync.parked()] == ["UNREADABLE"]
            assert codes(Firm) == set()
        assert sync.verify().equal
    with running("a", PlainTag, Firm) as sync:
        sync.sync()
        assert codes(PlainTag) == set()


class Slot(SyncModel):
    code = peewee.CharField(primary_key=True)
    number = peewee.IntegerField(unique=True)


def test_a_reset_by_a_program_without_a_table(running: Running) -> None:
    """What stands there is found when the table is known again: the older row has the number."""
    with running("a", Slot, Firm):
        Slot.create(code="older", number=1)
    with running("b", Slot, Firm) as sync:
        Slot.create(code="younger", number=1)
        sync.sync()
    with running("a", Slot, Firm) as sync:
        sync.sync()
    with running("b", Firm) as sync:
        sync.reset()
        sync.sync()
    for name in "bab":
        with running(name, Slot, Firm) as sync:
            sync.sync()
    for name in "abc":
        with running(name, Slot, Firm) as sync:
            sync.sync()
            assert codes(Slot) == {"older"}
            assert [(row.pk, row.code) for row in sync.parked()] == [("younger", "UNIQUE")]
            assert sync.verify().equal
