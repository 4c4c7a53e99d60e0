"""Reading everything again: what is forgotten, and what must not be."""

from __future__ import annotations

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel
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
