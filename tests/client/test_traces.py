"""From traces to entries: their order, their time, their groups, and what cannot be carried."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar

import peewee
import pytest

from sharedlog import Counter, Custom, Maximum, Members, MemorySharedLog, Sync, SyncModel
from sharedlog.changes import loads
from sharedlog.clock import TICKS_PER_MS
from sharedlog.events import Event, Received, Refused
from sharedlog.limits import Limits
from sharedlog.triggers import harvest as harvesting

from .conftest import OpenDevice
from .devices import SHARED, Device

DAY_MS = 24 * 3_600_000


class Note(SyncModel):
    title = peewee.TextField()
    body = peewee.TextField(null=True)
    number = peewee.IntegerField(default=0)


class Photo(SyncModel):
    name = peewee.CharField(primary_key=True)
    pixels = peewee.BlobField(null=True)


@pytest.fixture
def device(open_device: OpenDevice) -> Iterator[Device]:
    with open_device([Note, Photo], recorder="triggers") as device:
        yield device


def another_program(device: Device, *statements: str) -> None:
    device.database.close()
    with closing(sqlite3.connect(device.database.database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def harvest(device: Device) -> list[Any]:
    """Bring the traces into the log, and return it."""
    device.sync.status()
    left = device.database.execute_sql("SELECT count(*) FROM sharedlog_trace WHERE shape > 0")
    assert left.fetchone() == (0,)
    return device.log()


def wait_ms(device: Device, *waits: int) -> None:
    """Put so much time between the traces that are there."""
    numbers = device.database.execute_sql(
        "SELECT number FROM sharedlog_trace WHERE shape > 0 ORDER BY number DESC"
    ).fetchall()
    for (number,), wait in zip(numbers, waits, strict=True):
        device.database.execute_sql(
            "UPDATE sharedlog_trace SET at = at - ? / 86400000.0 WHERE number = ?", (wait, number)
        )


def groups(device: Device) -> list[int]:
    found = [entry.group for entry in harvest(device)]
    return [found.count(group) for group in dict.fromkeys(found)]


def insert(title: str) -> str:
    return f"INSERT INTO note (id, title, number) VALUES ('{uuid.uuid4().hex}', '{title}', 0)"


# -- time --------------------------------------------------------------------------------


def test_a_change_is_dated_when_it_was_made(device: Device) -> None:
    Note.create(title="a")
    Note.create(title="b")
    wait_ms(device, 0, DAY_MS)
    now = time.time() * 1000
    first, second = (entry.ticks / TICKS_PER_MS for entry in harvest(device))
    assert abs(now - DAY_MS - first) < 10_000
    assert abs(now - second) < 10_000


def test_a_change_is_never_dated_later_than_now(device: Device) -> None:
    """The clock was wrong when it was made, and was put right since."""
    Note.create(title="a")
    wait_ms(device, -DAY_MS)
    [entry] = harvest(device)
    assert entry.ticks <= (time.time() * 1000 + 1) * TICKS_PER_MS


def test_what_a_clock_of_the_application_says_counts(open_device: OpenDevice) -> None:
    device = open_device([Note], recorder="triggers", now=lambda: 5_000_000)
    with device:
        Note.create(title="a")
        Note.create(title="b")
        first, second = harvest(device)
    assert (first.ticks, second.ticks) == (5_000_000 * TICKS_PER_MS, 5_000_000 * TICKS_PER_MS + 1)


def test_the_order_is_that_of_the_changes_whatever_the_clock_says(device: Device) -> None:
    for title in "abcde":
        Note.create(title=title)
    wait_ms(device, 0, DAY_MS, 0, 2 * DAY_MS, 0)
    entries = harvest(device)
    assert [entry.value["title"] for entry in entries] == list("abcde")
    assert [entry.ticks for entry in entries] == sorted({entry.ticks for entry in entries})


def test_a_change_is_later_than_what_was_given_out_and_seen(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, other = (open_device([Note], recorder="triggers", shared_log=log) for _ in range(2))
    with one:
        Note.create(id=uuid.UUID(int=1), title="first")
        one.sync.sync()
    with other:
        other.sync.sync()
        Note.update(title="second").execute()
        wait_ms(other, DAY_MS)  # its clock is slow: what it saw is later
        other.sync.sync()
        Note.update(title="third").execute()
        wait_ms(other, DAY_MS)
        other.sync.sync()
    with one:
        one.sync.sync()
        assert Note.get().title == "third"
    ticks = [entry.ticks for entry in log.entries]
    assert ticks == sorted(set(ticks))


def test_an_unsent_change_meets_what_others_did_meanwhile(open_device: OpenDevice) -> None:
    """The row that is overwritten was changed by another program, and nobody has seen that yet."""
    log = MemorySharedLog()
    one, other = (open_device([Note], recorder="triggers", shared_log=log) for _ in range(2))
    with one:
        Note.create(id=uuid.UUID(int=1), title="first")
        one.sync.sync()
    with other:
        other.sync.sync()
        Note.update(title="theirs", number=5).execute()
        other.sync.sync()
    another_program(one, "UPDATE note SET title = 'mine'")
    with one:
        [conflict] = one.sync.sync().conflicts
        assert (conflict.value, conflict.lost) == ("mine", "theirs")
    with other:
        other.sync.sync()
    assert one.stored() == other.stored()
    with one:
        assert (Note.get().title, Note.get().number) == ("mine", 5)


def test_what_is_written_just_before_a_page_is_applied_counts(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, other = (
        open_device([Note], recorder="triggers", shared_log=log, pragmas=SHARED) for _ in range(2)
    )
    with one:
        Note.create(id=uuid.UUID(int=1), title="first")
        one.sync.sync()
    with other:
        other.sync.sync()
        Note.update(title="theirs", number=5).execute()
        other.sync.sync()

    @one.sync.on_event
    def meanwhile(event: Event) -> None:
        if isinstance(event, Received) and event.entries:
            with closing(sqlite3.connect(one.database.database)) as stranger, stranger:
                stranger.execute("UPDATE note SET title = 'mine'")

    with one:
        one.sync.sync()
        one.sync.sync()
    with other:
        other.sync.sync()
        assert (Note.get().title, Note.get().number) == ("mine", 5)
    assert one.stored() == other.stored()


# -- groups ------------------------------------------------------------------------------


def test_a_transaction_of_ours_is_a_group_whatever_stands_beside_it(device: Device) -> None:
    another_program(device, insert("x"), insert("y"))
    with device.database.atomic():
        Note.create(title="a")
        Note.update(title="b").execute()
    Note.create(title="alone")
    another_program(device, insert("z"))
    with device.database.atomic():
        device.database.execute_sql(insert("raw"))
        device.database.execute_sql("  update note set number = 1 where title = 'raw'")
    assert groups(device) == [2, 4, 2, 2]


def test_transactions_without_a_tracked_write_leave_no_mark(device: Device) -> None:
    device.database.execute_sql("CREATE TABLE own (a)")
    for statement in ("INSERT INTO own VALUES (1)", "SELECT * FROM note", "DELETE FROM note"):
        with device.database.atomic():
            device.database.execute_sql(statement)
    assert device.database.execute_sql("SELECT * FROM sharedlog_trace").fetchall() == []


def test_a_mark_that_is_rolled_back_is_made_again(device: Device) -> None:
    another_program(device, insert("x"))
    with device.database.atomic():
        with pytest.raises(KeyError), device.database.atomic():
            Note.create(title="in vain")
            raise KeyError
        Note.create(title="a")
        with pytest.raises(KeyError), device.database.atomic():
            Note.create(title="in vain")
            raise KeyError
        Note.create(title="b")
    Note.create(title="c")
    assert groups(device) == [1, 2, 1]


def test_what_comes_without_a_pause_is_a_group(device: Device) -> None:
    another_program(device, *map(insert, "abcde"))
    wait_ms(device, 0, 1_000, 1_000 + harvesting.PAUSE_MS + 1, 7_001, 7_002)
    assert groups(device) == [3, 2]


def test_a_long_run_ends_where_a_statement_ends(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harvesting, "LONG_RUN", 3)
    for number in range(4):
        Note.insert_many([{"title": str(number)}] * 2).execute()
        time.sleep(0.002)  # SQLite's clock has milliseconds
    assert groups(device) == [4, 4]


def test_a_large_transaction_is_several_groups(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.sync.journal.limits = Limits(batch_entries=10)
    monkeypatch.setattr(harvesting, "LONG_RUN", 3)
    with device.database.atomic():
        for _ in range(5):
            Note.insert_many([{"title": "x"}] * 5).execute()
            time.sleep(0.002)
    assert groups(device) == [10, 10, 5]


def test_a_backlog_comes_in_portions_and_no_group_is_cut(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        with device.database.atomic():
            Note.insert_many([{"title": "x"}] * 4).execute()
    recorder = device.sync._recording.recorder
    sizes = []
    while recorder.waiting():
        with device.database.atomic("IMMEDIATE"):
            before = recorder.waiting()
            recorder.harvest(6)
            sizes.append(before - recorder.waiting())
    assert sizes == [8, 8, 8]
    assert groups(device) == [4] * 6


# -- what cannot be carried --------------------------------------------------------------


def refusals(device: Device) -> list[tuple[Any, ...]]:
    cursor = device.database.execute_sql(
        "SELECT collection, operation, value, reason FROM sharedlog_entry WHERE status = 2"
    )
    return list(cursor.fetchall())


def told(device: Device) -> list[Event]:
    events: list[Event] = []
    device.sync.on_event(events.append)
    return events


def test_text_that_is_no_unicode_is_told_and_stops_nothing(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, other = (open_device([Note, Photo], recorder="triggers", shared_log=log) for _ in range(2))
    events = told(one)
    another_program(
        one,
        insert("before"),
        f"INSERT INTO note VALUES ('{uuid.UUID(int=1).hex}', 'title', CAST(x'61ff' AS TEXT), 7)",
        insert("after"),
        "INSERT INTO photo VALUES (CAST(x'ff' AS TEXT), NULL)",
    )
    with one:
        one.sync.sync()
    [body, key] = refusals(one)
    assert body[:3] == ("note", 1, "{}") and body[3].startswith("Note.body: ")
    assert key[:3] == ("photo", 3, None) and key[3].startswith("Photo: ")
    refused = [event for event in events if isinstance(event, Refused)]
    assert [(e.code, e.reason) for e in refused] == [
        ("VALUE_REFUSED", body[3]),
        ("VALUE_REFUSED", key[3]),
    ]
    with other:
        other.sync.sync()
        assert sorted((n.title, n.body, n.number) for n in Note.select()) == [
            ("after", None, 0),
            ("before", None, 0),
            ("title", None, 7),
        ]
    with one:  # written again, it travels
        Note.update(body="text").where(Note.number == 7).execute()
        one.sync.sync()
    with other:
        other.sync.sync()
        assert Note.get(Note.number == 7).body == "text"


def test_what_is_too_large_is_left_out(open_device: OpenDevice) -> None:
    class Page(SyncModel):
        number = peewee.IntegerField()
        one = peewee.TextField(null=True)
        two = peewee.TextField(null=True)

    log = MemorySharedLog()
    devices = [open_device([Page], recorder="triggers", shared_log=log) for _ in range(2)]
    with devices[0] as device:
        Page.create(number=1, one="x" * 600_000, two="y" * 10)
        Page.create(number=2, one="x" * 300_000, two="y" * 400_000)
        Page.update(one="z", two="y" * 600_000).where(Page.number == 1).execute()
        device.sync.sync()
        reasons = [reason.partition(":")[0] for *_, reason in refusals(device)]
    assert reasons == ["Page.one", "Page.two", "Page.two"]
    with devices[1] as device:
        device.sync.sync()
        found = [(p.number, p.one and p.one[:1], p.two and p.two[:1]) for p in Page.select()]
    assert sorted(found) == [(1, "z", "y"), (2, "x", None)]


# -- what a deleted row was --------------------------------------------------------------


def test_a_deletion_notes_what_the_row_was_if_somebody_may_need_it(
    open_device: OpenDevice, recorder: str
) -> None:
    class Shop(SyncModel):
        code = peewee.CharField(primary_key=True)
        place = peewee.IntegerField(unique=True)
        photo = peewee.BlobField(null=True)

    class Order(SyncModel):
        shop = peewee.ForeignKeyField(Shop, null=True)  # keeps its shop

    device = open_device([Shop, Order], recorder=recorder)
    with device:
        for place, code in enumerate("abcd"):
            Shop.create(code=code, place=place, photo=b"x")
        Order.create(id=uuid.UUID(int=1))
        before = len(device.log())
        Shop.delete_by_id("a")
        Shop.update(code="z").where(Shop.code == "b").execute()
        Shop.replace(code="y", place=2).execute()
        Shop.replace(code="d", place=9).execute()
        Order.delete().execute()
        said = [(e.operation, e.pk, e.value) for e in device.log()[before:]]
    assert said == [
        ("delete", "a", {"place": 0, "photo": "eA=="}),
        ("delete", "b", {"place": 1, "photo": "eA=="}),
        ("create", "z", {"place": 1, "photo": "eA=="}),
        ("delete", "c", {"place": 2, "photo": "eA=="}),
        ("create", "y", {"place": 2, "photo": None}),
        ("modify", "d", {"place": 9, "photo": None}),
        ("delete", str(uuid.UUID(int=1)), None),
    ]


def test_what_a_deleted_row_was_is_noted_without_what_cannot_be_carried(
    open_device: OpenDevice,
) -> None:
    class Draft(SyncModel):
        title = peewee.TextField()
        text = peewee.TextField(null=True)

        class Meta:
            update_wins = True

    device = open_device([Draft], recorder="triggers")
    with device:
        Draft.create(title="a")
    another_program(device, "UPDATE draft SET text = CAST(x'ff' AS TEXT)", "DELETE FROM draft")
    with device:
        last = harvest(device)[-1]
        assert (last.operation, last.value) == ("delete", {"title": "a"})


# -- fields with a merge rule ------------------------------------------------------------


def joined(values: list[Any]) -> str:
    return "+".join(values)


class Part(SyncModel):
    code = peewee.CharField(primary_key=True)
    name = peewee.CharField(null=True)
    stock = peewee.IntegerField(default=0, column_name="number")
    best = peewee.IntegerField(null=True)
    labels: Any = peewee.JSONField(default=list)
    note = peewee.TextField(default="")

    class Meta:
        merge: ClassVar = {
            "stock": Counter(),
            "best": Maximum(),
            "labels": Members(),
            "note": Custom("joined", joined),
        }


@pytest.fixture
def counting(open_device: OpenDevice) -> tuple[Device, Device]:
    """Two devices with a part."""
    log = MemorySharedLog()
    one, two = (open_device([Part], recorder="triggers", shared_log=log) for _ in range(2))
    with one:
        Part.create(code="x", stock=10, best=7, labels=["a"], note="n")
    sync(one, two)
    return one, two


def sync(*devices: Device) -> None:
    for _ in range(2):
        for device in devices:
            with device:
                device.sync.sync()
    assert all(device.stored() == devices[0].stored() for device in devices)
    with devices[0]:
        assert devices[0].sync.verify().differences == []


def part(device: Device) -> tuple[Any, ...]:
    found: tuple[Any, ...] = device.database.execute_sql(
        "SELECT number, best, labels, note FROM part"
    ).fetchone()
    return found


def test_what_programs_do_to_fields_with_a_rule_adds_up(counting: tuple[Device, Device]) -> None:
    one, two = counting
    another_program(
        one,
        "UPDATE part SET number = number + 2, best = 5, name = 'one'",
        'UPDATE part SET number = number * 2, labels = \'["c", "a", "b"]\', note = \'o\'',
        "UPDATE part SET best = 9, number = number - 1",
        "UPDATE part SET best = 8",
    )
    another_program(
        two,
        "UPDATE part SET number = 0, labels = '[]', note = 'p'",
        "UPDATE part SET number = 100, best = 12, note = 'q'",
    )
    assert part(one) == (23, 8, '["c", "a", "b"]', "o")
    with one:
        assert one.sync.status().pending == 4
    assert part(one) == (23, 9, '["a","b","c"]', "n+o")
    sync(one, two)
    assert part(one) == (113, 12, '["b","c"]', "n+o+p+q")


def test_the_column_ends_with_what_the_rule_says(counting: tuple[Device, Device]) -> None:
    """Also where that is what stands there, and was not so in between."""
    one, two = counting
    another_program(one, "UPDATE part SET best = 5", "UPDATE part SET best = 9")
    with one:
        one.sync.status()
    assert part(one)[1] == 9
    sync(one, two)


def test_rows_that_come_and_go_between(counting: tuple[Device, Device]) -> None:
    one, two = counting
    another_program(
        one,
        "UPDATE part SET number = number + 2, best = 5",
        "DELETE FROM part",
        "INSERT INTO part (code, number, best, labels, note) VALUES ('x', 1, 2, '[]', 'new')",
        "UPDATE part SET number = number + 1, best = 1",
    )
    sync(one, two)
    assert part(one) == (2, 2, "[]", "new")
    another_program(
        one,
        "UPDATE part SET number = number + 5",
        "REPLACE INTO part (code, number, best, labels, note) VALUES ('x', 10, 1, '[7]', 'r')",
    )
    another_program(two, "UPDATE part SET number = number + 100")
    sync(one, two)
    assert part(one) == (110, 2, "[7]", "new+r")
    another_program(one, "UPDATE part SET number = 11, best = 3", "UPDATE part SET code = 'y'")
    sync(one, two)
    assert [row[0] for row in two.database.execute_sql("SELECT code FROM part")] == ["y"]
    assert part(two)[:2] == (11, 3)


def test_what_a_rule_cannot_merge_is_told(counting: tuple[Device, Device]) -> None:
    one, two = counting
    another_program(
        one, "UPDATE part SET best = 8, name = 'x', labels = '5'", "UPDATE part SET number = 11"
    )
    events = told(one)
    with one:
        one.sync.sync()
    assert {event.reason.partition(":")[0] for event in events if isinstance(event, Refused)} == {
        "Part.best",
        "Part.labels",
    }
    with two:
        two.sync.sync()
        found = Part.get()
        assert (found.name, found.stock, found.best, found.labels) == ("x", 11, 7, ["a"])


# -- other versions of the program -------------------------------------------------------


def test_a_rule_may_be_declared_while_changes_wait(open_device: OpenDevice) -> None:
    class Item(SyncModel):
        code = peewee.CharField(primary_key=True)
        text = peewee.CharField()

    class NewItem(SyncModel):
        code = peewee.CharField(primary_key=True)
        text = peewee.CharField()

        class Meta:
            table_name = "item"
            merge: ClassVar = {"text": Custom("joined", joined)}

    device = open_device([Item], "one", recorder="triggers")
    with device:
        Item.create(code="x", text="a")
        Item.update(text="b").execute()
    device.close()
    device = open_device([NewItem], "one", recorder="triggers", create=False)
    with device:
        NewItem.update(text="c").execute()
        device.sync.status()
        assert NewItem.get().text == "b+c"


def test_names_may_change_while_changes_wait(open_device: OpenDevice) -> None:
    class Memo(SyncModel):
        heading = peewee.TextField()
        number = peewee.IntegerField(default=0)

        class Meta:
            formerly_table = "note"
            formerly: ClassVar = {"heading": "title"}

    log = MemorySharedLog()
    device = open_device([Note], "one", recorder="triggers", shared_log=log)
    with device:
        Note.create(title="a", body="text")
        Note.update(title="b").execute()
    device.close()
    database = device.database
    with database.bind_ctx([Memo]):
        upgraded = Sync(database, [Memo], shared_log=log, capture="triggers", schema_version=3)
        with upgraded.migrating():
            database.execute_sql("ALTER TABLE note DROP COLUMN body")
            database.execute_sql("ALTER TABLE note RENAME TO memo")
            database.execute_sql("ALTER TABLE memo RENAME COLUMN title TO heading")
        with upgraded:
            Memo.update(number=5).execute()
            upgraded.sync()
            assert upgraded.verify().differences == []
    entries = [loads(entry.data) for entry in log.entries]
    assert [(e["collection"], e.get("schema"), e["value"]) for e in entries] == [
        ("note", None, {"title": "a", "body": {"raw": "text"}, "number": 0}),
        ("note", None, {"title": "b"}),
        ("memo", 3, {"number": 5}),
    ]
    other = open_device([Memo], "two", tracked=False)
    with other, Sync(other.database, [Memo], shared_log=log, schema_version=3) as sync:
        sync.sync()
        assert [(memo.heading, memo.number) for memo in Memo.select()] == [("b", 5)]


def at_the_file(device: Device, models: Sequence[type[peewee.Model]], log: Any) -> Sync:
    return Sync(device.database, models, shared_log=log, capture="triggers")


def test_what_was_noted_for_an_older_model_is_understood(open_device: OpenDevice) -> None:
    class NewNote(SyncModel):
        number = peewee.IntegerField(default=0)
        stars = peewee.IntegerField(null=True)
        title = peewee.TextField()

        class Meta:
            table_name = "note"

    log = MemorySharedLog()
    one, other = (open_device([Note], recorder="triggers", shared_log=log) for _ in range(2))
    with one:
        Note.create(title="a", body="text", number=3)
        Note.update(body="other").execute()
    one.sync.close()
    one.database.execute_sql("ALTER TABLE note ADD COLUMN stars INTEGER")
    with one.database.bind_ctx([NewNote]), at_the_file(one, [NewNote], log) as sync:
        NewNote.update(stars=5).execute()
        sync.sync()
    with other:
        other.sync.sync()
        note = Note.get()
        assert (note.title, note.body, note.number) == ("a", "other", 3)
    assert len(log.entries) == 3


def test_traces_of_tables_that_are_anothers_are_left_to_it(device: Device) -> None:
    log = MemorySharedLog()
    Note.create(title="a")
    Photo.create(name="p")
    device.sync.close()
    with at_the_file(device, [Note], log) as sync:
        assert sync.sync().sent == 1
        assert sync.status().pending == 1
    with at_the_file(device, [Note, Photo], log) as sync:
        assert sync.sync().sent == 1
        assert sync.status().pending == 0


def test_a_key_that_is_another_one_now_is_told(device: Device) -> None:
    class NumberedPhoto(SyncModel):
        number = peewee.CharField(primary_key=True)
        name = peewee.CharField(null=True)

        class Meta:
            table_name = "photo"

    Photo.create(name="p")
    Note.create(title="a")
    device.sync.close()
    device.database.execute_sql("DROP TABLE photo")
    with device.database.bind_ctx([NumberedPhoto]):
        device.database.create_tables([NumberedPhoto])
        with at_the_file(device, [Note, NumberedPhoto], MemorySharedLog()) as sync:
            assert sync.sync().sent == 1
    [(*_, reason)] = refusals(device)
    assert "key" in reason
