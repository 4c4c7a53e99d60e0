"""Reading everything again: what is forgotten, and what must not be."""

from __future__ import annotations

from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Counter, Custom, Maximum, Members, MemorySharedLog, Minimum, SyncModel
from sharedlog.exchange.relearning import forget

from .conftest import OpenDevice


class Note(SyncModel):
    text = peewee.TextField()


class Firm(SyncModel):
    code = peewee.CharField(primary_key=True)
    title = peewee.CharField(unique=True)
    size = peewee.IntegerField(default=0)


def test_no_timestamp_is_given_out_again_although_the_clock_was_set_back(
    open_device: OpenDevice,
) -> None:
    times = [2_000_000_000_000]
    device = open_device([Note], shared_log=MemorySharedLog(), now=lambda: times[-1])
    with device:
        Note.create(text="sent")
        device.sync.sync()
    [sent] = device.log()
    times.append(1_000_000_000_000)
    journal = device.sync.journal
    with journal.transaction():
        forget(journal, device.sync.identity, device.sync.versions)
        assert journal.next_ticks() > sent.ticks


@pytest.mark.parametrize("change", ["creation", "modification", "both"])
def test_a_parked_row_with_local_changes_stays_parked(change: str, open_device: OpenDevice) -> None:
    """It stands in no table, although a local change is usually of a row that does."""
    log = MemorySharedLog()
    one, two = (open_device([Firm], shared_log=log) for _ in range(2))
    with one:
        Firm.create(code="old", title="a")
        one.sync.sync()
    with two:
        Firm.create(code="new", title="a")
        if change == "modification":
            two.sync.send()
        if change != "creation":
            Firm.update(size=5).execute()
        two.sync.receive()
        two.sync.reconcile()
        assert [row.pk for row in two.sync.parked()] == ["new"]
        with two.sync._writing():
            forget(two.sync.journal, two.sync.identity, two.sync.versions)
        two.sync.sync()
    with one:
        one.sync.sync()
    for device in (one, two):
        with device:
            size = 0 if change == "creation" else 5
            assert [(r.pk, r.code, r.values) for r in device.sync.parked()] == [
                ("new", "UNIQUE", {"title": "a", "size": size})
            ]
            assert list(Firm.select().tuples()) == [("old", "a", 0)]
            assert device.sync.verify().equal
    with one:
        Firm.delete_by_id("old")
        one.sync.sync()
    with two:
        two.sync.sync()
    assert one.stored() == two.stored()
    with two:
        assert [firm.code for firm in Firm.select()] == ["new"]


class Score(SyncModel):
    code = peewee.CharField(primary_key=True)
    best = peewee.IntegerField(null=True)
    least = peewee.IntegerField(null=True)
    count = peewee.IntegerField(default=0)
    tags: Any = peewee.JSONField(default=list)
    text = peewee.CharField(default="")

    class Meta:
        merge: ClassVar = {
            "best": Maximum(),
            "least": Minimum(),
            "count": Counter(),
            "tags": Members(),
            "text": Custom("joined", "+".join),
        }


FIELDS = [Score.code, Score.best, Score.least, Score.count, Score.tags, Score.text]


@pytest.mark.parametrize("change", ["creation", "modification"])
def test_what_was_not_sent_of_fields_with_a_rule(
    change: str, recorder: str, open_device: OpenDevice
) -> None:
    """The table has what the rules made of it and of what others wrote, which is read again."""
    log = MemorySharedLog()
    one, two = (open_device([Score], shared_log=log, recorder=recorder) for _ in range(2))
    with one:
        Score.insert_many([("x", 6, 6, 10, ["a"], "one")], FIELDS).execute()
        one.sync.sync()
    with two:
        if change == "modification":
            two.sync.sync()
            changed = {"best": 1, "least": 9, "tags": ["a", "b"], "text": "two"}
            Score.update(count=Score.count + 5, **changed).execute()
        else:
            Score.insert_many([("x", 1, 9, 5, ["b"], "two")], FIELDS).execute()
            two.sync.receive()
            two.sync.reconcile()
        two.sync.status()
        before = list(Score.select().tuples())
        with two.sync._writing():
            forget(two.sync.journal, two.sync.identity, two.sync.versions)
        assert list(Score.select().tuples()) == before
        Score.update(text="three").execute()
        two.sync.status()
        two.sync.sync()
    count = 15 if change == "modification" else 5  # a creation says a whole number
    text = "one+two+three"
    for device in (one, two):
        with device:
            device.sync.sync()
            assert list(Score.select().tuples()) == [("x", 6, 6, count, ["a", "b"], text)]
            assert device.sync.verify().equal
