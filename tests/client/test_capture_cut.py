"""Updates and deletions of only so many rows (LIMIT), where the database knows them: SQLite, if it
was built so, and MySQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import peewee
import pytest

from sharedlog import Counter, MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import Device

pytestmark = pytest.mark.skipif(
    sqlite3.connect(":memory:")
    .execute("SELECT sqlite_compileoption_used('ENABLE_UPDATE_DELETE_LIMIT')")
    .fetchone()
    == (0,),
    reason="this SQLite knows no LIMIT of an update or a deletion",
)


class Shelf(SyncModel):
    code = peewee.CharField(primary_key=True)
    place = peewee.IntegerField(default=0)


class Book(SyncModel):
    code = peewee.CharField(primary_key=True)
    shelf = peewee.ForeignKeyField(Shelf, null=True, on_delete="CASCADE")
    sold = peewee.IntegerField(default=0)

    class Meta:
        merge = {"sold": Counter()}  # noqa: RUF012


WRITES: dict[str, Callable[[], Any]] = {
    "a deletion": lambda: Shelf.delete().order_by(Shelf.place.desc()).limit(2),
    "a deletion of any": lambda: Shelf.delete().limit(2),
    "a deletion of some": lambda: Shelf.delete().where(Shelf.place > 1).limit(1),
    "a deletion of none": lambda: Shelf.delete().limit(0),
    "a deletion of later ones": lambda: Shelf.delete().order_by(Shelf.place).limit(2).offset(1),
    "an update": lambda: Shelf.update(place=9).order_by(Shelf.place).limit(2),
    "an update of a key": lambda: Shelf.update(code="z").order_by(Shelf.place).limit(1),
    "an update by an expression": lambda: Shelf.update(place=Shelf.place + 1).limit(3),
    "an update of a counter": lambda: Book.update(sold=Book.sold + 1).limit(2),
}


NOT_ON_MYSQL = {"a deletion of later ones", "an update of a key"}
"""It knows no OFFSET there, and books refer to the key."""

CASES = [(what, "sqlite", recorder) for what in WRITES for recorder in ("signals", "triggers")]
CASES += [(what, "mysql", "signals") for what in WRITES if what not in NOT_ON_MYSQL]


@pytest.mark.parametrize(("what", "where", "recorder"), CASES)
def test_what_was_written_is_recorded(
    what: str, where: str, recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    device = open_device([Shelf, Book], where=where, recorder=recorder, shared_log=log)
    other = open_device([Shelf, Book], shared_log=log)
    with device:
        Shelf.insert_many([{"code": code, "place": n} for n, code in enumerate("abcd")]).execute()
        Book.insert_many([{"code": f"{code}1", "shelf": code} for code in "bcd"]).execute()
        if what == "an update of a key":
            Book.delete().execute()
        device.sync.sync()
        before = contents(device)
        WRITES[what]().execute()
        assert what == "a deletion of none" or contents(device) != before
        device.sync.sync()
    with other:
        other.sync.sync()
    assert contents(other) == contents(device)


def contents(device: Device) -> list[list[Any]]:
    with device:
        return [sorted(model.select().tuples()) for model in (Shelf, Book)]
