"""A process that writes to a shared file, for the tests of several writers at once."""

from __future__ import annotations

from pathlib import Path

import peewee

from sharedlog import SyncModel

from .devices import SHARED, Device

FROZEN_MS = 1_700_000_000_000
"""All writers have the same time, which stands still: only the log keeps them apart."""


class Entry(SyncModel):
    writer = peewee.TextField()
    turn = peewee.IntegerField()
    change = peewee.IntegerField(default=0)


def frozen() -> int:
    return FROZEN_MS


def open_shared(path: Path, recorder: str, *, create: bool) -> Device:
    return Device(
        path, [Entry], recorder=recorder, create=create, now=frozen, pragmas=SHARED, timeout=60
    )


def write_turns(database: peewee.Database, writer: str, turns: int) -> None:
    """Rows in ones and twos, by value and by reading back; every fourth is rolled back."""
    for turn in range(turns):
        with database.atomic() as transaction:
            entry = Entry.create(writer=writer, turn=turn)
            Entry.update(change=Entry.change + 1).where(Entry.id == entry.id).execute()
            if turn % 2:
                Entry.insert_many([{"writer": writer, "turn": turn}] * 2).execute()
            if turn % 4 == 3:
                transaction.rollback()
        Entry.update(change=Entry.turn).where(Entry.writer == writer, Entry.turn == turn).execute()


def write_in_a_process(path: Path, recorder: str, writer: str, turns: int) -> None:
    device = open_shared(path, recorder, create=False)
    with device:
        write_turns(device.database, writer, turns)
    device.close()
