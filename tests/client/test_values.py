"""What one device has in its table, to the bit, the others will have; or it is never written.

Rows are written on one device, travel as text, and are compared on another: as Python values,
and as stored, with the storage class.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sharedlog import MemorySharedLog, SyncModel, ValueRefused

from .conftest import OpenDevice
from .devices import Device
from .kinds import KINDS, STORED, Kind

Model = Any
Write = Callable[[Model, Any], Any]


class Pair:
    """Two devices with one log."""

    def __init__(self, open_device: OpenDevice, recorder: str, *models: Model) -> None:
        log = MemorySharedLog()
        self.one = open_device(models, recorder=recorder, shared_log=log)
        self.other = open_device(models, recorder=recorder, shared_log=log)

    def sync(self) -> None:
        for device in (self.one, self.other):
            with device:
                device.sync.sync()

    def check(self) -> None:
        """Bring both in step, and compare them."""
        self.sync()
        with self.other:
            assert self.other.sync.status().parked == 0
            assert self.other.sync.status().unreadable == 0
        assert bits(self.other) == bits(self.one)
        assert values(self.other) == values(self.one)


def bits(device: Device) -> str:
    """All that is stored. As text, since 0.0 and -0.0 are equal."""
    return repr(device.stored())


def values(device: Device) -> list[Any]:
    """All rows as Python values; where a field cannot read what stands there, the error."""
    found: list[Any] = []
    with device:
        for model in device.models:
            keys = model._meta.get_primary_keys()
            for row in device.database.execute(model.select().order_by(*keys)).fetchall():
                for field, stored in zip(model._meta.sorted_fields, row, strict=True):
                    try:
                        value = field.python_value(stored)
                        found.append((type(value), repr(value)))
                    except Exception as error:
                        found.append((type(error), str(error)))
    return found


def model_of(kind: Kind) -> Model:
    class Thing(SyncModel):
        label = peewee.TextField(default="")
        value = kind.field(null=True, default=None, column_name="the value")

    return Thing


def create(model: Model, value: Any) -> Any:
    return model.create(value=value)


def insert_many(model: Model, value: Any) -> Any:
    return model.insert_many([(value,)], fields=[model.value]).execute()


def insert_beside_an_expression(model: Model, value: Any) -> Any:
    return model.insert(value=value, label=peewee.fn.lower("X")).execute()


def update_one(model: Model, value: Any) -> Any:
    row = model.create()
    return model.update(value=value).where(model.id == row.id).execute()


def update_by_condition(model: Model, value: Any) -> Any:
    row = model.create()
    return model.update(value=value).where(model.id == row.id, model.label == "").execute()


def save(model: Model, value: Any) -> Any:
    row: Any = model.create()
    row.value = value
    return row.save()


def bulk_update(model: Model, value: Any) -> Any:
    row: Any = model.create()
    row.value = value
    return model.bulk_update([row], [model.value])


def replace(model: Model, value: Any) -> Any:
    return model.replace(value=value).execute()


def upsert(model: Model, value: Any) -> Any:
    row: Any = model.create()
    query = model.insert(id=row.id)
    return query.on_conflict(
        conflict_target=[model.id],
        update={model.value: value},
    ).execute()


WRITES: list[Write] = [
    create,
    insert_many,
    insert_beside_an_expression,
    update_one,
    update_by_condition,
    save,
    bulk_update,
    replace,
    upsert,
]


def may_fail(write: Write, model: Model, value: Any) -> None:
    """Write, if Peewee and SQLite take it: what they refuse is refused."""
    with suppressed():
        write(model, value)


class suppressed:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        errors = (ValueError, TypeError, OverflowError, OSError, AttributeError, RecursionError)
        return isinstance(error, (*errors, peewee.PeeweeException, ValueRefused))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_values_arrive_to_the_bit(kind: Kind, open_device: OpenDevice, recorder: str) -> None:
    model = model_of(kind)
    pair = Pair(open_device, recorder, model)
    with pair.one:
        for value in [None, *kind.values]:
            for write in WRITES:
                write(model, value)
        read = [row["value"] for row in model.select().dicts()]
    # Peewee makes no bits of no value as soon as it is looked at.
    for value in [*([] if kind.name == "BigBit" else [None]), *kind.values]:
        assert sum(_same(value, other) for other in read) >= len(WRITES), value
    pair.check()


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, tuple) and isinstance(other, list):
        return list(value) == other
    return bool(value == other) and (type(value) is type(other) or value is None)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_values_of_other_types_arrive_as_what_became_of_them(
    kind: Kind, open_device: OpenDevice, recorder: str
) -> None:
    model = model_of(kind)
    pair = Pair(open_device, recorder, model)
    with pair.one:
        for value in kind.odd:
            for write in WRITES:
                may_fail(write, model, value)
    pair.check()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_expressions_store_arrives_to_the_bit(
    kind: Kind, open_device: OpenDevice, recorder: str
) -> None:
    model: Any = model_of(kind)
    pair = Pair(open_device, recorder, model)
    with pair.one:
        for text in STORED:
            with suppressed():  # lone surrogates in JSON, for example
                row = model.create()
                model.update(value=peewee.SQL(text)).where(model.id == row.id).execute()
                model.insert(value=peewee.SQL(text)).execute()
    pair.check()
    with pair.one:
        # Written again, whole, as a row with a new key: what stands in the table is read.
        turned = peewee.fn.substr(model.id, 17).concat(peewee.fn.substr(model.id, 1, 16))
        model.update(id=turned).execute()
    pair.check()


REFUSED = [
    pytest.param(kind, write, id=f"{kind}-{write.__name__}")
    for kind in KINDS
    for write in WRITES
    if kind.refused and not (kind.name == "JSON" and write is bulk_update)
]


@pytest.mark.parametrize(("kind", "write"), REFUSED)
def test_what_cannot_be_carried_is_refused_when_it_is_written(
    kind: Kind, write: Write, open_device: OpenDevice
) -> None:
    model = model_of(kind)
    device = open_device([model])
    with device:
        for value in kind.refused:
            with device.database.atomic() as transaction:
                with pytest.raises(ValueRefused, match=r"Thing\.value") as caught:
                    write(model, value)
                assert caught.value.code == "VALUE_REFUSED"
                assert caught.value.hint
                assert [e.operation for e in device.log()] in ([], ["create"])  # of no value yet
                transaction.rollback()
        assert device.log() == []


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_only_the_table_sees_arrives_or_is_refused(
    kind: Kind, open_device: OpenDevice
) -> None:
    """`bulk_update` turns JSON into an expression before anybody sees it."""
    model = model_of(kind)
    pair = Pair(open_device, "signals", model)
    with pair.one:
        for value in kind.refused:
            may_fail(bulk_update, model, value)
    pair.check()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.more is not None], ids=str)
def test_any_value_arrives_to_the_bit(kind: Kind, open_device: OpenDevice, recorder: str) -> None:
    assert kind.more is not None
    model: Any = model_of(kind)
    pair = Pair(open_device, recorder, model)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(kind.more, min_size=1, max_size=5))
    def check(some: list[Any]) -> None:
        with pair.one:
            model.delete().execute()
            for value in some:
                with suppressed():
                    model.create(value=value)
                    model.insert(value=value, label=peewee.fn.lower("X")).execute()
        pair.check()

    check()


def test_however_a_value_is_written_the_log_says_the_same(open_device: OpenDevice) -> None:
    for kind in KINDS:
        if kind.name in ("Sealed",):
            continue
        model = model_of(kind)
        device = open_device([model])
        with device:
            for value in kind.values:
                before = len(device.log())
                for write in (create, update_by_condition, replace):
                    write(model, value)
                said = [e.value["value"] for e in device.log()[before:] if e.value.get("value")]
                assert all(each == said[0] for each in said), (kind, said)
        device.close()


# -- keys and references -----------------------------------------------------------------

KEYS = [kind for kind in KINDS if kind.as_key]


def keys_of(kind: Kind) -> list[Any]:
    """Values that may be keys. A number that is not of its column's type, as which SQLite keeps
    also the last two, has no certain form, and is refused."""
    odd = [value for value in kind.odd if isinstance(value, str | bytes)]
    return [value for value in [*short(kind), *odd] if value not in (Decimal("1E+20"), "2024")]


def short(kind: Kind) -> list[Any]:
    """Those that are not too long for a key."""
    return [v for v in kind.values if not isinstance(v, str | bytes) or len(v) < 10_000]


@pytest.mark.parametrize("kind", KEYS, ids=str)
def test_every_kind_can_be_a_key_and_be_referred_to(
    kind: Kind, open_device: OpenDevice, recorder: str
) -> None:
    class Parent(SyncModel):
        code: Any = kind.field(primary_key=True)
        note = peewee.TextField(default="")

    class Child(SyncModel):
        parent: Any = peewee.ForeignKeyField(Parent, null=True)

    class Part(SyncModel):
        parent: Any = peewee.ForeignKeyField(Parent)
        number = peewee.IntegerField()

        class Meta:
            primary_key = peewee.CompositeKey("parent", "number")

    pair = Pair(open_device, recorder, Parent, Child, Part)
    with pair.one:
        for number, value in enumerate(keys_of(kind)):
            with suppressed(), pair.one.database.atomic():
                parent = Parent.create(code=value)
                Child.create(parent=parent)
                Child.insert(parent=value).execute()
                Part.create(parent=value, number=number)
                Part.update(number=number + 1000).where(Part.number == number).execute()
    pair.check()
    with pair.one:
        assert Parent.select().count() >= 1
        Parent.update(note="all").execute()
        for value in keys_of(kind):
            Parent.update(note="one").where(Parent.code == value).execute()
            Child.update(parent=None).where(Child.parent == value).execute()
    pair.check()
    with pair.one:
        Part.delete().execute()
        for value in keys_of(kind):
            Parent.delete_by_id(value)
        assert Parent.select().count() == 0
    pair.check()


@pytest.mark.parametrize("kind", KEYS, ids=str)
def test_every_kind_can_be_referred_to_beside_the_key(
    kind: Kind, open_device: OpenDevice, recorder: str
) -> None:
    class Parent(SyncModel):
        code: Any = kind.field(unique=True)

    class Child(SyncModel):
        parent: Any = peewee.ForeignKeyField(Parent, field=Parent.code)

    pair = Pair(open_device, recorder, Parent, Child)
    with pair.one:
        for value in kind.values:
            with suppressed():  # 0.0 and -0.0 are the same
                parent = Parent.create(code=value)
                Child.create(parent=parent)
                Child.insert(parent=value).execute()
                Child.update(parent=parent).execute()
    pair.check()


def test_one_row_has_one_key_in_the_log_however_it_is_written(open_device: OpenDevice) -> None:
    for kind in KEYS:

        class Thing(SyncModel):
            code: Any = kind.field(primary_key=True)
            note = peewee.TextField(default="")

        device = open_device([Thing])
        with device:
            distinct = [v for v in dict.fromkeys(short(kind)) if v != Decimal("1E+20")]
            for value in distinct:
                Thing.create(code=value)
            Thing.update(note="x").execute()
            for value in distinct:
                Thing.update(note="y").where(Thing.code == value).execute()
            Thing.delete().execute()
        keys = [repr(entry.pk) for entry in device.log()]
        assert len(keys) == 4 * len(distinct), kind
        assert all(keys.count(k) == 4 for k in keys), kind
        device.close()


# -- more of what may go wrong -----------------------------------------------------------


def test_zero_false_and_nothing_are_told_apart(open_device: OpenDevice, recorder: str) -> None:
    class Thing(SyncModel):
        text = peewee.TextField(null=True)
        number = peewee.IntegerField(null=True)
        flag = peewee.BooleanField(null=True)
        blob = peewee.BlobField(null=True)
        data: Any = peewee.JSONField(null=True)

    pair = Pair(open_device, recorder, Thing)
    with pair.one:
        Thing.create(text="", number=0, flag=False, blob=b"", data={})
        Thing.create(text=None, number=None, flag=None, blob=None, data=None)
        Thing.create()
    pair.check()
    said = [entry.value for entry in pair.one.log()]
    assert said[0] == {"text": "", "number": 0, "flag": False, "blob": "", "data": {}}
    assert said[1] == said[2] == dict.fromkeys(said[0])


def test_integers_beside_floats_are_read_back_exactly(
    open_device: OpenDevice, recorder: str
) -> None:
    """SQLite 3.40 returns the integers of bare columns as floats in such a table."""

    class Thing(SyncModel):
        ratio = peewee.FloatField()
        number = peewee.BigIntegerField()
        small = peewee.IntegerField()

    pair = Pair(open_device, recorder, Thing)
    with pair.one:
        Thing.insert(ratio=peewee.Value(1) + 0.5, number=2**53 + 1, small=7).execute()
        Thing.update(number=Thing.number + 2**61).where(Thing.small == 7).execute()
        Thing.update(ratio=Thing.ratio + 0.5).where(Thing.small == 7).execute()
    assert [entry.value for entry in pair.one.log()] == [
        {"ratio": 1.5, "number": str(2**53 + 1), "small": 7},
        {"number": str(2**61 + 2**53 + 1)},
        {"ratio": 2.0},
    ]
    pair.check()


def test_timestamps_are_instants_in_every_time_zone(
    open_device: OpenDevice, recorder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thing(SyncModel):
        at: Any = peewee.TimestampField()

    pair = Pair(open_device, recorder, Thing)
    try:
        with pair.one:
            monkeypatch.setenv("TZ", "UTC")
            time.tzset()
            for hour in range(24):
                Thing.create(at=1_730_000_000 + 3600 * hour)
                Thing.insert(at=1_730_000_000 + 3600 * hour).execute()
            pair.one.sync.sync()
            monkeypatch.setenv("TZ", "Europe/Berlin")  # summer time ends on this day
            time.tzset()
        pair.check()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_text_that_is_no_unicode_is_not_recorded_and_not_written(open_device: OpenDevice) -> None:
    class Thing(SyncModel):
        text = peewee.TextField(null=True)

    device = open_device([Thing])
    with device:
        Thing.create()
        before = device.log()
        with pytest.raises(peewee.OperationalError):
            Thing.update(text=peewee.SQL("cast(x'ff' as text)")).execute()
        assert device.log() == before
        assert Thing.get().text is None


def test_a_static_default_fills_what_a_recreated_row_lacks(
    open_device: OpenDevice, recorder: str
) -> None:
    class Thing(SyncModel):
        price: Any = peewee.DecimalField(default=5)
        half: Any = peewee.DecimalField(default=0.5)
        flag: Any = peewee.BooleanField(default=1)
        kept = peewee.TextField(default="kept")

    pair = Pair(open_device, recorder, Thing)
    with pair.one:
        Thing.create(id=uuid.UUID(int=1))
    pair.check()


def test_the_tests_know_every_field_of_peewee() -> None:
    known = {type(kind.field(null=True)) for kind in KINDS}
    other = {
        peewee.AutoField, peewee.BigAutoField, peewee.IdentityField, peewee.PrimaryKeyField,
        peewee.ForeignKeyField, peewee.DeferredForeignKey, peewee.ManyToManyField,
        peewee.CompositeKey, peewee.MetaField, peewee.VirtualField, peewee.FieldAlias,
        peewee.BareField, peewee._StringField, peewee._BaseFormattedField, peewee.Field,
    }  # fmt: skip
    fields = {
        value
        for value in vars(peewee).values()
        if isinstance(value, type) and issubclass(value, peewee.Field)
    }
    assert fields - known - other == set()


def test_bare_fields_hold_anything(open_device: OpenDevice, recorder: str) -> None:
    class Thing(SyncModel):
        value: Any = peewee.BareField(null=True)
        number: Any = peewee.BareField(adapt=int, null=True)

    pair = Pair(open_device, recorder, Thing)
    with pair.one:
        for value in ("", "x", 5, 1.5, -0.0, b"\0", None, 2**63 - 1):
            Thing.create(value=value)
        Thing.create(number="7")
        Thing.update(number=peewee.fn.abs(-3)).where(Thing.number.is_null()).execute()
    pair.check()
