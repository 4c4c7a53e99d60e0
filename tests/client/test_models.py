"""SyncModel: keys, saving, stale objects, values changed in place, the application's signals."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import peewee
import pytest
from hypothesis import given, strategies as st
from playhouse import signals
from playhouse.fields import PickleField

from sharedlog import SyncModel, uuid7

from .conftest import OpenDevice
from .devices import Device
from .kinds import ListField
from .shop import MODELS, NUMBERS, Article, Comment, Note, Price, Tag, key


@pytest.fixture
def device(open_device: OpenDevice) -> Iterator[Device]:
    opened = open_device(MODELS)
    NUMBERS.restart()
    with opened:
        yield opened


@pytest.fixture
def handlers() -> Iterator[None]:
    """The receivers of signals are the process's: they go when the test ends."""
    yield
    for signal in (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete):
        signal._flush()
    signals.pre_init._flush()


def changes(device: Device) -> list[tuple[str, Any]]:
    return [(entry.operation, entry.value) for entry in device.log()]


# -- keys --------------------------------------------------------------------------------


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_is_one_and_holds_time_and_chance(now: int, chance: bytes) -> None:
    made = uuid7(lambda: now, lambda size: chance[:size])
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now
    assert uuid.UUID(made.hex) == made
    assert uuid7(lambda: now, lambda size: chance) == made


@given(st.sets(st.binary(min_size=10, max_size=10), min_size=2, max_size=20))
def test_chance_makes_different_keys(chances: set[bytes]) -> None:
    made = {uuid7(lambda: 5, lambda size, c=chance: c) for chance in chances}  # type: ignore[misc]
    # 74 of the 80 random bits find room.
    kept = {int.from_bytes(c, "big") & ~(0b111111 << 62) for c in chances}
    assert len(made) == len(kept)


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, unique=True))
def test_later_keys_are_larger_in_every_form(times: list[int]) -> None:
    keys = [uuid7(lambda t=time: t) for time in sorted(times)]  # type: ignore[misc]
    for earlier, later in pairwise(keys):
        assert earlier < later
        assert earlier.hex < later.hex
        assert earlier.bytes < later.bytes


def test_keys_made_at_once_differ() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_a_model_that_names_no_key_has_a_uuid() -> None:
    class Thing(SyncModel):
        pass

    assert isinstance(Thing._meta.primary_key, peewee.UUIDField)
    assert Thing().id.version == 7
    assert Thing().id != Thing().id


def test_a_model_may_name_its_own_key() -> None:
    class Thing(SyncModel):
        code = peewee.CharField(primary_key=True)

    assert list(Thing._meta.fields) == ["code"]
    assert list(Price._meta.fields) == ["article", "currency", "cents"]


def test_a_base_class_may_name_the_key_for_all() -> None:
    class Base(SyncModel):
        code = peewee.CharField(primary_key=True)

    class Thing(Base):
        name = peewee.TextField()

    assert list(Thing._meta.fields) == ["code", "name"]
    assert Thing._meta.only_save_dirty


# -- saving ------------------------------------------------------------------------------


def test_saving_a_new_instance_inserts_whatever_its_key(device: Device) -> None:
    assert Note(id=uuid.UUID(int=7), title="a").save() == 1
    assert Article(code="", shelf=0, place=0).save() == 1
    assert Price(article="", currency="EUR").save() == 1
    assert [entry.pk for entry in device.log()] == [key(7), "", ["", "EUR"]]
    assert Note.get().title == "a"


def test_saving_a_new_instance_over_a_row_is_an_error(device: Device) -> None:
    Note(id=uuid.UUID(int=7), title="a").save()
    twin = Note(id=uuid.UUID(int=7), title="b")
    for _ in range(2):
        with pytest.raises(peewee.IntegrityError):
            twin.save()
    assert changes(device)[1:] == []
    twin.id = uuid.UUID(int=8)
    assert twin.save() == 1


def test_saving_again_updates(device: Device) -> None:
    note = Note(title="a")
    note.save()
    assert note.save() is False
    note.title = "b"
    assert note.save() == 1
    assert changes(device)[1:] == [("modify", {"title": "b"})]


def test_saving_only_some_fields_of_a_new_instance_keeps_its_key(device: Device) -> None:
    note = Note(title="a", rank=5)
    note.save(only=[Note.title, Note.turn])
    assert Note.get().id == note.id
    assert note.dirty_field_names == ["rank"]
    note.save()
    assert changes(device)[1:] == [("modify", {"rank": 5})]
    Price(article=Article.create(code="a", shelf=1, place=1), currency="EUR").save(only=["cents"])
    assert device.log()[-1].pk == ["a", "EUR"]


def test_a_stale_object_does_not_take_back_what_others_wrote(device: Device) -> None:
    Note.create(title="a")
    stale = Note.get()
    Note.update(title="b", rank=1).execute()
    stale.rank = 2
    stale.save()
    assert (Note.get().title, Note.get().rank) == ("b", 2)
    assert changes(device)[-1] == ("modify", {"rank": 2})


@pytest.mark.parametrize("how", ["select", "join", "prefetch", "backref", "raw", "objects"])
def test_loaded_instances_are_saved_with_an_update(device: Device, how: str) -> None:
    note = Note.create(title="a", tag=Tag.create(name="red"), data={"n": 1})
    Comment.create(note=note)
    loaded: Any = {
        "select": lambda: Note.select(Note.id, Note.data).get(),
        "join": lambda: Comment.select(Comment, Note).join(Note).get().note,
        "prefetch": lambda: peewee.prefetch(Note.select(), Comment.select())[0],
        "backref": lambda: Tag.get().note_set.get(),
        "raw": lambda: next(iter(Note.raw('SELECT * FROM "note"'))),
        "objects": lambda: Note.select().objects().get(),
    }[how]()
    before = len(device.log())
    assert loaded.save() is False
    assert loaded.data == {"n": 1}
    assert loaded.save() is False
    loaded.data["n"] = 2
    assert loaded.save() == 1
    loaded.rank = 3
    assert loaded.save() == 1
    assert changes(device)[before:] == [("modify", {"data": {"n": 2}}), ("modify", {"rank": 3})]


def test_a_joined_parent_and_its_child_are_both_loaded(device: Device) -> None:
    Comment.create(note=Note.create(title="a"))
    child = Comment.select(Comment, Note).join(Note).get()
    child.text = child.note.title = "b"
    assert (child.note.save(), child.save()) == (1, 1)
    assert changes(device)[2:] == [("modify", {"title": "b"}), ("modify", {"text": "b"})]


def test_bulk_created_instances_are_saved_with_an_update(device: Device) -> None:
    notes = [Note(title=title, data={}) for title in "ab"]
    Note.bulk_create(note for note in notes)
    assert notes[0].save() is False
    notes[0].data["n"] = 1
    notes[0].save()
    assert changes(device)[2:] == [("modify", {"data": {"n": 1}})]


def test_bulk_updated_fields_are_not_saved_again(device: Device) -> None:
    notes = [Note.create(title=title, data={}) for title in "ab"]
    for note in notes:
        note.title, note.rank = note.title + "!", 1
        note.data["n"] = 1
    assert Note.bulk_update(notes, ["title", Note.data]) == 2
    Note.update(title="other").execute()
    notes[0].save()
    assert changes(device)[-1] == ("modify", {"rank": 1})
    assert Note.get_by_id(notes[0].id).title == "other"


def test_a_deleted_instance_can_be_saved_again_whole(device: Device) -> None:
    note = Note.create(title="a", rank=3)
    note.delete_instance()
    assert Note.select().count() == 0
    note.save()
    assert Note.get().rank == 3
    assert [entry.operation for entry in device.log()] == ["create", "delete", "create"]
    assert note.save() is False


def test_an_instance_whose_deletion_failed_is_still_there(open_device: OpenDevice) -> None:
    class Parent(SyncModel):
        name = peewee.TextField()

    class Strict(SyncModel):
        parent = peewee.ForeignKeyField(Parent, on_delete="RESTRICT")

    with open_device([Parent, Strict]):
        parent = Parent.create(name="a")
        Strict.create(parent=parent)
        with pytest.raises(peewee.IntegrityError):
            parent.delete_instance()
        parent.name = "b"
        assert parent.save() == 1


def test_recursive_deletion_is_one_transaction(device: Device) -> None:
    note = Note.create(title="a")
    Comment.create(note=note)
    device.database.execute_sql(
        "CREATE TRIGGER no BEFORE DELETE ON note BEGIN SELECT raise(ABORT, 'no'); END"
    )
    before = device.log(), device.stored()
    with pytest.raises(peewee.IntegrityError):
        note.delete_instance(recursive=True)
    assert (device.log(), device.stored()) == before


def test_a_rollback_is_the_applications_to_handle(device: Device) -> None:
    """As with Peewee: an instance does not know that its row is gone; force_insert helps."""
    note = Note(title="a")
    with device.database.atomic() as transaction:
        note.save()
        transaction.rollback()
    note.save(force_insert=True)
    assert Note.get().title == "a"


# -- values changed in place -------------------------------------------------------------


class Thing(SyncModel):
    data: Any = peewee.JSONField(null=True)
    names: Any = ListField(null=True)
    what: Any = PickleField(null=True)
    bits: Any = peewee.BigBitField(default=None, null=True)  # type: ignore[call-arg]
    blob: Any = peewee.BlobField(null=True)
    n = peewee.IntegerField(default=0)


@pytest.fixture
def things(open_device: OpenDevice) -> Iterator[Device]:
    opened = open_device([Thing])
    with opened:
        yield opened


def change_data(thing: Any) -> None:
    thing.data["a"].append(2)


def change_names(thing: Any) -> None:
    thing.names.append("z")


def change_what(thing: Any) -> None:
    thing.what["deep"][len(thing.what["deep"])] = 1


def change_bits(thing: Any) -> None:
    thing.bits.set_bit(len(thing.bits) * 8)


def joined() -> Any:
    """An instance of the kind that joins make, which get their values one by one."""
    other = Thing.alias()
    return Thing.select(Thing, other.id).join(other, on=(Thing.id == other.id)).get()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (change_data, "data"),
        (change_names, "names"),
        (change_what, "what"),
        (change_bits, "bits"),
    ],
)
def test_values_changed_in_place_are_saved(things: Device, change: Any, field: str) -> None:
    made = Thing.create(data={"a": [1]}, names=["a"], what={"deep": {}}, bits=b"\1")
    for thing in (made, Thing.get(), joined()):
        before = len(things.log())
        change(thing)
        assert thing.save() == 1
        assert thing.save() is False
        assert [set(entry.value) for entry in things.log()[before:]] == [{field}]
    for thing in (made, Thing.get(), joined()):
        before = len(things.log())
        assert thing.save() is False
        change(thing)
        assert thing.save() == 1
        assert thing.save() is False
        assert [set(entry.value) for entry in things.log()[before:]] == [{field}]


def test_looking_at_values_does_not_change_them(things: Device) -> None:
    Thing.create(data={"a": [1]}, names=["a"], what={"deep": {}}, bits=b"\1", blob=b"x")
    Thing.create()
    for thing in Thing.select():
        for field in Thing._meta.sorted_field_names:
            getattr(thing, field)
        assert thing.save() is False
        assert not thing.is_dirty()
    assert len(things.log()) == 2


def test_a_stale_value_that_was_only_looked_at_takes_nothing_back(things: Device) -> None:
    Thing.create(data={"a": 1})
    stale = Thing.get()
    assert stale.data == {"a": 1}
    Thing.update(data={"a": 2}).execute()
    stale.n = 5
    stale.save()
    assert Thing.get().data == {"a": 2}
    assert changes(things)[-1] == ("modify", {"n": 5})


def test_a_value_kept_outside_and_changed_after_saving_is_seen(things: Device) -> None:
    data = {"a": 1}
    thing = Thing.create(data=data)
    data["a"] = 2
    thing.save()
    assert Thing.get().data == {"a": 2}
    blob = bytearray(b"a")
    thing.blob = blob
    thing.save()
    blob[0] = 98
    thing.save()
    assert Thing.get().blob == b"b"


def test_an_expression_may_stand_in_for_a_value(things: Device) -> None:
    thing = Thing.create(data={"a": 1})
    thing.data = Thing.data.update({"b": 2})
    thing.save()
    assert thing.save() is False
    assert Thing.get().data == {"a": 1, "b": 2}
    assert changes(things)[-1] == ("modify", {"data": {"a": 1, "b": 2}})


def test_what_was_not_saved_is_still_to_be_saved(things: Device) -> None:
    thing = Thing.create(data={"a": 1})
    thing.data["a"] = 2
    thing.n = 7
    thing.save(only=[Thing.n])
    assert Thing.get().data == {"a": 1}
    thing.save()
    assert Thing.get().data == {"a": 2}


def test_json_that_no_json_library_likes_can_be_read(things: Device) -> None:
    thing = Thing.create(data={"a": 1})
    things.database.execute_sql("UPDATE thing SET data = ?", ('["\\ud800", 1e999, 99e99]',))
    found = Thing.get()
    assert found.data[0] == "\ud800"
    found.n = 1
    assert found.save() == 1
    assert thing.data == {"a": 1}


# -- the application's signals -----------------------------------------------------------

Told = list[tuple[str, Any, Any]]


@pytest.fixture
def told(handlers: None) -> Told:
    events: Told = []
    for name in ("pre_save", "post_save"):

        def saved(sender: Any, instance: Any, created: bool, name: str = name) -> None:
            events.append((name, instance._pk, created))

        getattr(signals, name).connect(saved, name=name, sender=Note)
    for name in ("pre_delete", "post_delete"):

        def deleted(sender: Any, instance: Any, name: str = name) -> None:
            events.append((name, instance._pk, None))

        getattr(signals, name).connect(deleted, name=name, sender=Note)
    return events


def test_handlers_are_told_what_is_created(device: Device, told: Told) -> None:
    note = Note(id=uuid.UUID(int=5), title="a")
    note.save()
    note.title = "b"
    note.save()
    note.delete_instance()
    note.save()
    assert [(name, created) for name, _, created in told] == [
        ("pre_save", True),
        ("post_save", True),
        ("pre_save", False),
        ("post_save", False),
        ("pre_delete", None),
        ("post_delete", None),
        ("pre_save", True),
        ("post_save", True),
    ]


def test_handlers_see_what_changed_in_place(things: Device, handlers: None) -> None:
    seen: list[Any] = []
    signals.pre_save.connect(
        lambda sender, instance, created: seen.append(list(instance.dirty_field_names)),
        name="look",
        sender=Thing,
    )
    thing = Thing.create(data={"a": 1})
    thing.data["a"] = 2
    thing.save()
    assert seen[1:] == [["data"]]


def test_what_a_handler_changes_before_saving_is_recorded(device: Device, handlers: None) -> None:
    def upper(sender: Any, instance: Any, created: bool) -> None:
        instance.title = instance.title.upper()

    signals.pre_save.connect(upper, sender=Note)
    note = Note.create(title="a")
    note.title = "b"
    note.save()
    assert [value["title"] for _, value in changes(device)] == ["A", "B"]


def test_a_handler_that_saves_the_same_instance_again(device: Device, handlers: None) -> None:
    def again(sender: Any, instance: Any, created: bool) -> None:
        if instance.rank < 3:
            instance.rank += 1
            instance.save()

    signals.post_save.connect(again, sender=Note)
    note = Note(title="a")
    note.save()
    assert [value["rank"] for _, value in changes(device)] == [0, 1, 2, 3]
    assert [operation for operation, _ in changes(device)] == ["create"] + ["modify"] * 3
    assert Note.get().rank == note.rank == 3


def test_a_handler_that_writes_the_same_row_another_way(device: Device, handlers: None) -> None:
    def rank(sender: Any, instance: Any, created: bool) -> None:
        Note.update(rank=Note.rank + 1, title="handled").where(Note.id == instance.id).execute()

    signals.post_save.connect(rank, sender=Note)
    note = Note.create(title="a")
    note.title = "b"
    note.save()
    assert [value["title"] for _, value in changes(device)] == ["a", "handled", "b", "handled"]
    assert (Note.get().title, Note.get().rank) == ("handled", 2)


def test_a_handler_that_writes_other_rows(device: Device, handlers: None) -> None:
    signals.post_save.connect(
        lambda sender, instance, created: Comment.create(note=instance), name="c", sender=Note
    )
    signals.pre_delete.connect(
        lambda sender, instance: Comment.delete().execute(), name="d", sender=Note
    )
    note = Note.create(title="a")
    note.delete_instance()
    assert [(entry.operation, entry.collection) for entry in device.log()] == [
        ("create", "note"),
        ("create", "comment"),
        ("delete", "comment"),
        ("delete", "note"),
    ]


@pytest.mark.parametrize("signal", [signals.pre_save, signals.post_save])
def test_a_handler_that_raises_in_a_transaction(
    device: Device, handlers: None, signal: Any
) -> None:
    def refuse(sender: Any, instance: Any, created: bool) -> None:
        if instance.title == "bad":
            raise KeyError

    signal.connect(refuse, sender=Note)
    note = Note(title="bad")
    with pytest.raises(KeyError), device.database.atomic():
        note.save()
    assert device.log() == []
    assert Note.select().count() == 0


def test_a_handler_that_raises_before_saving_leaves_the_instance_unsaved(
    device: Device, handlers: None
) -> None:
    def refuse(sender: Any, instance: Any, created: bool) -> None:
        if instance.title == "bad":
            raise KeyError

    signals.pre_save.connect(refuse, sender=Note)
    note = Note(title="bad")
    with pytest.raises(KeyError):
        note.save()
    note.title = "good"
    assert note.save() == 1
    assert [operation for operation, _ in changes(device)] == ["create"]


def test_a_handler_that_raises_after_saving_leaves_the_row_and_its_entry(
    device: Device, handlers: None
) -> None:
    """As with Peewee: in autocommit the row is written when the handler is called."""

    def refuse(sender: Any, instance: Any, created: bool) -> None:
        if instance.title == "bad":
            raise KeyError

    signals.post_save.connect(refuse, sender=Note)
    note = Note(title="bad")
    with pytest.raises(KeyError):
        note.save()
    assert Note.get().title == "bad"
    note.title = "good"
    assert note.save() == 1
    assert [operation for operation, _ in changes(device)] == ["create", "modify"]


def test_instances_can_be_looked_at_before_they_are_complete(handlers: None) -> None:
    signals.pre_init.connect(
        lambda sender, instance: [getattr(instance, name) for name in Thing._meta.fields],
        name="look",
        sender=Thing,
    )
    assert Thing(data=[]).data == []
    assert Thing(__no_default__=1).data is None
