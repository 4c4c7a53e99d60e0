"""Reading everything again: what is forgotten, and what must not be."""

from __future__ import annotations

import peewee

from sharedlog import MemorySharedLog, SyncModel
from sharedlog.exchange.relearning import forget

from .conftest import OpenDevice


class Note(SyncModel):
    text = peewee.TextField()


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
        forget(journal, device.sync.identity)
        assert journal.next_ticks() > sent.ticks
