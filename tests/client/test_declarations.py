"""Rules as a model declares them: what is refused and how, what is inherited."""

from __future__ import annotations

from typing import Any

import peewee
import pytest

from sharedlog import (
    ConfigurationError,
    Counter,
    Custom,
    Maximum,
    Members,
    MemorySharedLog,
    Minimum,
    Sync,
    SyncModel,
)


class Kind(SyncModel):
    pass


class Bits(peewee.IntegerField):
    def db_value(self, value: Any) -> Any:
        return value


FIELDS: dict[str, Any] = {
    "code": peewee.CharField(primary_key=True),
    "number": peewee.IntegerField(default=3),
    "maybe": peewee.IntegerField(null=True),
    "flags": peewee.BitField(default=0),
    "own": Bits(default=0),
    "fraction": peewee.FloatField(null=True),
    "price": peewee.DecimalField(null=True),
    "done": peewee.BooleanField(default=False),
    "text": peewee.TextField(default=""),
    "blob": peewee.BlobField(null=True),
    "day": peewee.DateField(null=True),
    "instant": peewee.DateTimeField(null=True),
    "stamp": peewee.TimestampField(),
    "ip": peewee.IPField(null=True),
    "data": peewee.JSONField(null=True),
    "other_json": peewee.JSONField(null=True, dumps=lambda value: str(value)),
    "kind": peewee.ForeignKeyField(Kind, null=True),
}


def model_with(merge: Any) -> type[SyncModel]:
    fields = {name: field.clone() for name, field in FIELDS.items()}
    return type("Item", (SyncModel,), {**fields, "Meta": type("Meta", (), {"merge": merge})})


def rules_of(model: type[SyncModel]) -> dict[str, str]:
    database = peewee.SqliteDatabase(":memory:")
    sync = Sync(database, [Kind, model], shared_log=MemorySharedLog())
    tracked = sync.registry.model(model)
    assert tracked is not None
    return {name: rule.name for name, rule in tracked.rules.items()}


ANYTHING = Custom("anything", lambda values: values[-1])


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (
            {"nothing": Counter()},
            "names 'nothing', which is no field of it.\n  The fields are: num",
        ),
        ({5: Counter()}, "names 5, which is no field of it"),
        ({"code": Maximum()}, "Item.code is a part of the key, which is not merged."),
        ({"kind": ANYTHING}, "Item.kind is a foreign key; of references the latest one counts."),
        ({"number": Counter}, "which is none.\n  Write Maximum(), Minimum(), Counter(), Members()"),
        ({"number": "counter"}, "Item.number has the merge rule 'counter', which is none."),
        ([Counter()], '`merge` in the Meta of Item is no dict.\n  Write merge = {"stock": Counter'),
        ({"text": Counter()}, "Item.text cannot be counted: it is no field of whole numbers."),
        ({"fraction": Counter()}, "count money in cents"),
        ({"flags": Counter()}, "cannot be counted"),
        ({"own": Counter()}, "cannot be counted"),
        ({"stamp": Counter()}, "cannot be counted"),
        ({"maybe": Counter()}, "may be NULL.\n  Write maybe = IntegerField(default=0)."),
        ({"text": Members()}, "Item.text has no members: it is no JSONField."),
        ({"other_json": Members()}, "Item.other_json has no members"),
        ({"data": Maximum()}, "Item.data has no order in which there is a maximum."),
        ({"blob": Minimum()}, "Item.blob has no order in which there is a minimum."),
        ({"ip": Minimum()}, "Item.ip has no order"),
        ({"own": Minimum()}, "Item.own has no order"),
        ({"text": Custom("counter", len)}, "'counter' cannot be the name of Item.text's own"),
        ({"text": Custom("", len)}, "'' cannot be the name"),
        ({"text": Custom("mine", "no function")}, "The merge rule 'mine' of Item.text has no f"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_merged_is_refused_with_what_to_write(merge: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        rules_of(model_with(merge))
    assert message in str(refused.value)


@pytest.mark.parametrize("act", ["CASCADE", "set null", "SET DEFAULT"])
def test_a_rule_for_a_field_that_references_follow_is_refused(act: str) -> None:
    """What comes of a rule is written on each device, and what followed it would be no entry."""

    class Plan(SyncModel):
        level = peewee.IntegerField(unique=True, null=True)

        class Meta:
            merge = {"level": Maximum()}  # noqa: RUF012

    class Seat(SyncModel):
        level = peewee.ForeignKeyField(Plan, field="level", null=True, on_update=act)

    class Fixed(SyncModel):
        level = peewee.ForeignKeyField(Plan, field="level", null=True, on_delete="SET NULL")

    database = peewee.SqliteDatabase(":memory:")
    Sync(database, [Plan, Fixed], shared_log=MemorySharedLog())
    with pytest.raises(ConfigurationError) as refused:
        Sync(database, [Plan, Fixed, Seat], shared_log=MemorySharedLog())
    assert str(refused.value) == (
        "Plan.level has a merge rule, and Seat.level follows it by ON UPDATE "
        f"{act.upper()}: what comes of the rule would change rows of Seat that nobody changed.\n"
        "  Remove 'level' from `merge` in the Meta of Plan, let Seat.level refer to another field, "
        "or leave out its on_update."
    )


def test_every_kind_of_field_that_a_rule_is_for() -> None:
    merge = {
        "number": Counter(),
        "maybe": Maximum(),
        "fraction": Minimum(),
        "price": Maximum(),
        "done": Maximum(),
        "text": Minimum(),
        "day": Maximum(),
        "instant": Minimum(),
        "stamp": Maximum(),
        "data": Members(),
        "blob": ANYTHING,
        "own": ANYTHING,
    }
    assert rules_of(model_with(merge)) == {name: rule.name for name, rule in merge.items()}


def test_rules_are_inherited_added_to_and_taken_back() -> None:
    base = model_with({"number": Counter(), "maybe": Maximum(), "text": Minimum()})

    class Plain(base):  # type: ignore[valid-type, misc]
        class Meta:
            table_name = "plain"

    class More(Plain):
        extra = peewee.JSONField(null=True)
        text = None

        class Meta:
            table_name = "more"
            merge = {"extra": Members(), "maybe": None, "number": Maximum()}  # noqa: RUF012

    assert rules_of(Plain) == {"number": "counter", "maybe": "maximum", "text": "minimum"}
    assert rules_of(More) == {"number": "maximum", "extra": "members"}


def test_a_base_that_names_no_field_is_told_too() -> None:
    class Base(SyncModel):
        class Meta:
            merge = {"typo": Counter()}  # noqa: RUF012

    class Item(Base):
        number = peewee.IntegerField(default=0)

    with pytest.raises(ConfigurationError, match="'typo', which is no field"):
        rules_of(Item)
