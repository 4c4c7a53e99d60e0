"""Verifying: whatever is not what the log comes to is found, and nothing else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import (
    Change,
    ConfigurationError,
    ConnectionFailed,
    EpochChanged,
    MemorySharedLog,
    Sync,
    SyncModel,
    Verified,
)
from sharedlog.remote.sharedlog import Outgoing, Page, Receipt, Rejection

from . import shop
from .conftest import OpenDevice
from .devices import Device
from .shop import Article, Comment, Note, Price, Tag


class Owner(SyncModel):
    name = peewee.CharField(primary_key=True)


class Item(SyncModel):
    owner = peewee.ForeignKeyField(Owner, null=True, on_delete="CASCADE")
    place = peewee.IntegerField()
    weight = peewee.FloatField(null=True)
    label = peewee.CharField(null=True, unique=True)

    class Meta:
        primary_key = peewee.CompositeKey("owner", "place")


MODELS = (Owner, Item)


@pytest.fixture
def log() -> MemorySharedLog:
    return MemorySharedLog()


@pytest.fixture
def device(open_device: OpenDevice, log: MemorySharedLog) -> Device:
    """A device with 1,200 items, of which another one wrote some."""
    other = open_device(MODELS, shared_log=log)
    with other:
        Owner.create(name="bob")
        Item.insert_many([{"owner": "bob", "place": place} for place in range(200)]).execute()
        other.sync.sync()
    device = open_device(MODELS, shared_log=log)
    with device:
        Owner.create(name="ann")
        Item.insert_many([{"owner": "ann", "place": place} for place in range(1_000)]).execute()
        device.sync.sync()
        Item.update(weight=2.5).where(Item.place == 7).execute()
    device.sync.sync()
    return device


def found(verified: Verified) -> list[tuple[str, Any, str]]:
    assert verified.count == len(verified.differences)
    return [(d.collection, d.pk, d.kind) for d in verified.differences]


def test_a_device_that_only_ever_synced_is_what_the_log_comes_to(device: Device) -> None:
    verified = device.sync.verify()
    assert verified.equal
    assert verified == Verified(entries=1_204, rows=1_202)


def test_what_is_not_sent_yet_is_no_difference(device: Device) -> None:
    with device:
        Item.delete().where(Item.place > 900).execute()
        Item.update(weight=1).where(Item.place < 5).execute()
        Owner.create(name="eve")
    assert device.sync.status().pending == 110
    assert device.sync.verify().equal


def test_a_device_that_never_met_the_service_is_verified_too(open_device: OpenDevice) -> None:
    device = open_device(MODELS)
    with device:
        Owner.create(name="ann")
        assert device.sync.verify() == Verified(rows=1)
        device.database.execute_sql("INSERT INTO owner VALUES ('eve')")
        assert found(device.sync.verify()) == [("owner", "eve", "extra")]


def test_what_was_sent_under_a_former_id_is_no_difference(open_device: OpenDevice) -> None:
    device = open_device(MODELS)
    with device:
        Owner.create(name="ann")
        device.sync.send()
        with device.sync._writing():
            device.sync.identity.fork()
        Owner.create(name="bob")
    assert device.sync.verify() == Verified(rows=2)


def test_a_device_that_begins_anew_meanwhile_is_not_judged(open_device: OpenDevice) -> None:
    log = Busy()
    device = open_device(MODELS, name="a", shared_log=log)
    with device:
        Owner.create(name="ann")
        device.sync.sync()
    again = open_device(MODELS, name="a", shared_log=log, create=False)

    def meanwhile() -> Iterator[None]:
        again.sync.reset()
        yield

    log.meanwhile = meanwhile()
    with pytest.raises(EpochChanged, match="check it again"):
        device.sync.verify()


def test_raw_sql_behind_the_recorders_back_is_found(device: Device) -> None:
    run: Callable[[str], object] = device.database.execute_sql
    run("UPDATE item SET weight = 3.5, label = 'x' WHERE owner_id = 'bob' AND place = 150")
    run("DELETE FROM item WHERE owner_id = 'ann' AND place = 600")
    run("INSERT INTO item VALUES ('ann', 5000, 0.25, 'new')")
    run("INSERT INTO owner VALUES ('eve')")
    verified = device.sync.verify()
    assert found(verified) == [
        ("owner", "eve", "extra"),
        ("item", ["ann", 5000], "extra"),
        ("item", ["bob", 150], "differs"),
        ("item", ["ann", 600], "missing"),
    ]
    differs = verified.differences[2]
    assert (differs.here, differs.there) == (
        {"label": "x", "weight": 3.5},
        {"label": None, "weight": None},
    )
    assert str(differs) == (
        'item ["bob",150] differs: label "x" here, null there, weight 3.5 here, null there'
    )
    missing = verified.differences[3]
    assert (missing.here, missing.there) == (None, {"weight": None, "label": None})
    assert str(missing) == 'item ["ann",600] missing'


def test_differences_are_counted_beyond_those_that_are_listed(device: Device) -> None:
    device.database.execute_sql("UPDATE item SET weight = 9")
    verified = device.sync.verify(limit=3)
    assert (verified.count, len(verified.differences)) == (1_200, 3)


def test_a_change_that_the_service_refused_is_a_difference(open_device: OpenDevice) -> None:
    class Strict(MemorySharedLog):
        def write(self, device: str, entries: Any, **options: Any) -> Receipt:
            good = [entry for entry in entries if "nobody" not in entry.data]
            bad = [index for index, entry in enumerate(entries) if entry not in good]
            rejected = [Rejection(index, "ENTRY_INVALID", "no") for index in bad]
            return replace(super().write(device, good, **options), rejected=rejected)

    device = open_device(MODELS, shared_log=Strict())
    with device:
        Owner.create(name="yes")
        Owner.create(name="nobody")
        device.sync.sync()
    assert found(device.sync.verify()) == [("owner", "nobody", "extra")]


def test_pruned_entries_are_read_from_the_log(device: Device) -> None:
    assert device.sync.prune(keep_ms=0) > 1_000
    assert device.sync.verify() == Verified(entries=1_204, rows=1_202)
    device.database.execute_sql("UPDATE item SET weight = 1 WHERE owner_id = 'ann' AND place = 1")
    assert found(device.sync.verify()) == [("item", ["ann", 1], "differs")]


def test_what_others_wrote_since_the_last_sync_is_no_difference(
    device: Device, open_device: OpenDevice, log: MemorySharedLog
) -> None:
    third = open_device(MODELS, shared_log=log)
    third.sync.sync()
    with third:
        Item.update(weight=8).execute()
        Owner.create(name="eve")
        third.sync.sync()
    assert device.sync.verify().equal
    device.sync.sync()
    assert device.sync.verify() == Verified(entries=1_204 + 1_201, rows=1_203)


def test_rows_that_are_parked_on_both_sides_are_equal_if_their_values_are(
    device: Device, log: MemorySharedLog
) -> None:
    write(
        log,
        '{"operation":"create","collection":"item","pk":["zoe",1],"value":{"weight":1.5}}',
        '{"operation":"create","collection":"unknown","pk":1,"value":{"a":1}}',
        '{"operation":"create","collection":"unknown","pk":2,"value":{"a":1}}',
    )
    device.sync.sync()
    assert device.sync.status().parked == 3
    verified = device.sync.verify()
    assert (verified.equal, verified.parked) == (True, 3)

    run: Callable[[str], object] = device.database.execute_sql
    run("UPDATE sharedlog_row SET held = '{\"a\":2}' WHERE collection = 'unknown' AND pk = '1'")
    run("DELETE FROM sharedlog_row WHERE collection = 'unknown' AND pk = '2'")
    run("UPDATE sharedlog_row SET pk = '3' WHERE collection = 'unknown' AND pk = '1'")
    assert found(device.sync.verify()) == [
        ("unknown", 1, "missing"),
        ("unknown", 2, "missing"),
        ("unknown", 3, "extra"),
    ]


def test_a_row_that_is_parked_on_one_side_only(device: Device, log: MemorySharedLog) -> None:
    run: Callable[[str], object] = device.database.execute_sql
    run("PRAGMA foreign_keys = 0")
    run("DELETE FROM owner WHERE name = 'bob'")
    run("PRAGMA foreign_keys = 1")
    write(
        log,
        '{"operation":"create","collection":"item","pk":["bob",900],"value":{"weight":1.5}}',
        '{"operation":"create","collection":"item","pk":["zoe",1],"value":{"weight":1.5}}',
    )
    device.sync.sync()
    run("INSERT INTO owner VALUES ('zoe')")
    run("INSERT INTO item VALUES ('zoe', 1, 1.5, NULL)")
    assert found(device.sync.verify()) == [
        ("owner", "zoe", "extra"),
        ("item", ["zoe", 1], "parked there"),
        ("owner", "bob", "missing"),
        ("item", ["bob", 900], "parked here"),
    ]


def write(log: MemorySharedLog, *data: str) -> None:
    """Entries of a device that speaks for itself."""
    device = log.register(None, "by hand")
    ticks = 1 + max((e.ticks for e in log.entries if e.device == device), default=0)
    batch = [Outgoing(ticks + i, 0, text) for i, text in enumerate(data)]
    log.write(device, batch, after=None, now_ms=0, limit=9, byte_limit=9_999)


# -- while others work -------------------------------------------------------------------


class Busy(MemorySharedLog):
    """A log that lets something happen while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Iterator[object] = iter(())

    def read_all(self, device: str, **options: Any) -> Page:
        next(self.meanwhile, None)
        return super().read_all(device, **options)


def test_writing_and_syncing_meanwhile_are_no_difference(
    open_device: OpenDevice, tmp_path: Path
) -> None:
    log = Busy()
    wal = {"foreign_keys": 1, "journal_mode": "wal"}
    device = open_device(MODELS, name="a", shared_log=log, pragmas=wal)
    other = open_device(MODELS, shared_log=log)
    with other:
        Owner.create(name="bob")
        other.sync.sync()
    with device:
        Owner.create(name="ann")
        Item.insert_many([{"owner": "ann", "place": place} for place in range(1_200)]).execute()
        device.sync.sync()
    again = open_device(MODELS, name="a", shared_log=log, pragmas=wal, create=False)

    some = [3, 403, 803]

    def meanwhile() -> Iterator[object]:
        for turn in range(8):
            with other:
                other.sync.sync()
                Item.update(weight=100 + turn).where(Item.place << some).execute()
                other.sync.sync()
            with again:
                again.sync.sync()  # the device moves on, and writes behind that
                Item.update(weight=turn).where(Item.place << [4, 404, 804]).execute()
                Item.delete().where(Item.place == 7 * turn).execute()
                yield Item.create(owner="ann", place=2_000 + turn)

    log.meanwhile = meanwhile()
    reports: list[Verified] = []

    def progress(so_far: Verified) -> None:
        reports.append(replace(so_far))
        next(log.meanwhile, None)

    verified = device.sync.verify(progress=progress)
    assert verified.equal, verified.differences
    assert len(reports) > 6
    assert next(log.meanwhile, "all of it happened") == "all of it happened"
    device.database.execute_sql("UPDATE item SET weight = 7777 WHERE place = 1000")
    assert found(device.sync.verify()) == [("item", ["ann", 1000], "differs")]


def test_what_is_written_while_the_log_is_read_is_no_difference(open_device: OpenDevice) -> None:
    log = Busy()
    device = open_device(MODELS, shared_log=log)
    with device:
        Owner.create(name="ann")
        device.sync.sync()
        log.meanwhile = (Owner.create(name=name) for name in ("bob", "eve"))
        assert device.sync.verify() == Verified(entries=1, rows=2)
        assert device.sync.verify() == Verified(entries=1, rows=3)


def test_nobody_waits_for_a_verification_that_waits_for_the_service(
    open_device: OpenDevice, tmp_path: Path
) -> None:
    log = Busy()
    device = open_device(MODELS, name="a", shared_log=log, pragmas={"journal_mode": "delete"})
    with device:
        Owner.create(name="ann")
        device.sync.sync()
    written: list[int] = []

    def meanwhile() -> Iterator[None]:
        with closing(sqlite3.connect(tmp_path / "a.db", timeout=0)) as other:
            other.execute("CREATE TABLE mine (x)")
            other.execute("INSERT INTO mine VALUES (1)")
            other.commit()
        written.append(1)
        yield

    log.meanwhile = meanwhile()
    assert device.sync.verify().equal
    assert written == [1]


def test_received_entries_that_are_not_applied_must_be(device: Device, log: Any) -> None:
    write(log, '{"operation":"create","collection":"owner","pk":"zoe","value":{}}')
    device.sync.receive()
    with pytest.raises(ConfigurationError, match="wait to be applied"):
        device.sync.verify()
    device.sync.reconcile()
    assert device.sync.verify().equal


def test_a_service_that_was_restored_is_told(device: Device, log: MemorySharedLog) -> None:
    log.begin_new_life("second", log.entries[:5])
    with pytest.raises(EpochChanged):
        device.sync.verify()
    device.sync.sync()
    device.sync.sync()
    assert device.sync.verify().rows > 900


def test_without_the_service_there_is_no_verification(open_device: OpenDevice) -> None:
    class Cut(MemorySharedLog):
        def read_all(self, device: str, **options: Any) -> Page:
            raise ConnectionFailed

    device = open_device(MODELS, shared_log=Cut())
    with device:
        Owner.create(name="ann")
        device.sync.sync()
    with pytest.raises(ConnectionFailed):
        device.sync.verify()
    assert device.sync.sync().sent == 0


def test_verifying_leaves_no_trace(device: Device, log: MemorySharedLog) -> None:
    before = (device.stored(), device.log(), device.sync.status(), dict(log._devices))
    device.sync.verify()
    after = (device.stored(), device.log(), device.sync.status(), dict(log._devices))
    assert after == before


# -- tables of all kinds -----------------------------------------------------------------


def test_tables_of_every_kind_are_replayed(open_device: OpenDevice, log: MemorySharedLog) -> None:
    one = open_device(shop.MODELS, shared_log=log)
    two = open_device(shop.MODELS, shared_log=log)
    shop.NUMBERS.restart()
    with one:
        tag = Tag.create(name="red")
        note = Note.create(title="a", tag=tag, data={"b": [1.5, None]})
        child = Note.create(title="b", parent=note)
        child.tags.add(tag)
        Comment.create(note=child, text="c")
        Article.create(code="x", shelf=1, place=1, barcode="777")
        Price.create(article="x", currency="EUR", cents=5)
        one.sync.sync()
    with two:
        two.sync.sync()
        Article.update(code="y").where(Article.code == "x").execute()
        Note.delete().where(Note.title == "a").execute()
        two.sync.sync()
    one.sync.sync()
    for device in (one, two):
        verified = device.sync.verify()
        assert verified.equal, verified.differences
        assert verified.rows > 2
    two.database.execute_sql("DELETE FROM price")
    assert found(two.sync.verify()) == [("price", ["y", "EUR"], "missing")]


def test_constraints_that_need_the_applications_functions(
    tmp_path: Path, log: MemorySharedLog
) -> None:
    class Word(SyncModel):
        text = peewee.TextField(collation="backwards", unique=True)

        class Meta:
            constraints = (peewee.Check("is_word(text)"),)

    database = peewee.SqliteDatabase(str(tmp_path / "a.db"))
    database.register_function(lambda text: " " not in text, "is_word", 1)
    database.register_collation(lambda a, b: (b > a) - (b < a), "backwards")
    with database.bind_ctx([Word]):
        database.create_tables([Word])
        with Sync(database, [Word], shared_log=log) as sync:
            Word.create(text="hello")
            sync.sync()
            assert sync.verify() == Verified(entries=1, rows=1)
    database.close()


def test_parents_in_tables_that_are_not_tracked(tmp_path: Path, log: MemorySharedLog) -> None:
    class Country(peewee.Model):
        code = peewee.CharField(primary_key=True)

    class City(SyncModel):
        country = peewee.ForeignKeyField(Country)

    database = peewee.SqliteDatabase(str(tmp_path / "a.db"), pragmas={"foreign_keys": 1})
    with database.bind_ctx([Country, City]):
        database.create_tables([Country, City])
        with Sync(database, [City], shared_log=log) as sync:
            Country.create(code="AT")
            City.create(country="AT")
            sync.sync()
            assert sync.verify() == Verified(entries=1, rows=1)
    database.close()


def test_tables_of_an_attached_database(tmp_path: Path, log: MemorySharedLog) -> None:
    class Far(SyncModel):
        text = peewee.TextField(unique=True)

        class Meta:
            schema = "far"

    database = peewee.SqliteDatabase(str(tmp_path / "a.db"))
    database.attach(str(tmp_path / "far.db"), "far")
    with database.bind_ctx([Far]):
        database.create_tables([Far])
        with Sync(database, [Far], shared_log=log) as sync:
            Far.create(text="x")
            sync.sync()
            assert sync.verify() == Verified(entries=1, rows=1)
            database.execute_sql("UPDATE far.far SET text = 'y'")
            assert [d.kind for d in sync.verify().differences] == ["differs"]
    database.close()


def test_processors_and_serializers_are_those_of_the_device(
    open_device: OpenDevice, tmp_path: Path, log: MemorySharedLog
) -> None:
    """What post_receive makes of others' changes is right here; own ones never passed it."""

    def louder(change: Change) -> Change | None:
        return change._replace(pk=str(change.pk).upper())

    other = open_device(MODELS[:1], shared_log=log)
    with other:
        Owner.create(name="bob")
        other.sync.sync()
    database = peewee.SqliteDatabase(str(tmp_path / "a.db"))
    with database.bind_ctx([Owner]):
        database.create_tables([Owner])
        with Sync(database, [Owner], shared_log=log, post_receive=louder) as sync:
            Owner.create(name="ann")
            sync.sync()
            sync.prune(keep_ms=0)
            assert sorted(o.name for o in Owner.select()) == ["BOB", "ann"]
            assert sync.verify() == Verified(entries=2, rows=2)
    database.close()
