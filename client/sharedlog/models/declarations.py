"""The merge rules that a model declares, checked and made to fit its fields.

    class Product(SyncModel):
        ...
        class Meta:
            merge = {"stock": Counter(), "labels": Members()}

A model inherits the rules of its bases and may add to them; None takes one back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import peewee

from ..changes import Wire
from ..errors import ConfigurationError
from ..merge.counter import Counter
from ..merge.custom import Custom
from ..merge.extremes import Maximum, Minimum, by_moment, by_number, by_text
from ..merge.members import Members
from ..merge.rules import MergeRule
from ..raw import NotCanonical
from .columns import TrackedColumn
from .tracked import Tracked

_WHOLE = (peewee.IntegerField,)
_NO_COUNT = (peewee.ForeignKeyField, peewee.BitField, peewee.TimestampField, peewee.IPField)
_NUMBERS = (peewee.IntegerField, peewee.FloatField, peewee.DecimalField, peewee.BooleanField)
_NO_NUMBERS = (peewee.ForeignKeyField, peewee.BitField, peewee.IPField)
_TEXTS = (peewee.CharField, peewee.TextField, peewee.DateField, peewee.TimeField, peewee.UUIDField)

BUILT_IN: Mapping[str, Callable[[], MergeRule]] = {
    rule.name: rule for rule in (Maximum, Minimum, Counter, Members)
}
"""What makes the rules of these names."""

RULES = "Maximum(), Minimum(), Counter(), Members() or Custom(name, function)"


def declared_rules(tracked: Tracked) -> dict[str, MergeRule]:
    """The rules of a tracked model by field name. An error says what to write instead."""
    rules = {}
    for name, rule in _declared(tracked.model).items():
        column = _column(tracked, name)
        if not isinstance(rule, MergeRule):
            raise ConfigurationError(
                f"{column} has the merge rule {rule!r}, which is none.", hint=f"Write {RULES}."
            )
        if isinstance(column.field, peewee.ForeignKeyField):
            raise ConfigurationError(
                f"{column} is a foreign key; of references the latest one counts.",
                hint=f"Remove {name!r} from `merge`.",
            )
        rules[name] = _fitted(tracked, column, rule)
    return rules


def _declared(model: type[peewee.Model]) -> dict[str, Any]:
    """What the Metas of a model and its bases say, the nearest last."""
    found: dict[str, Any] = {}
    for owner, merge in _merges(model):
        if not isinstance(merge, Mapping):
            raise ConfigurationError(
                f"`merge` in the Meta of {owner.__name__} is no dict.",
                hint='Write merge = {"stock": Counter()}.',
            )
        for name, rule in merge.items():
            dropped = name in owner._meta.fields and name not in model._meta.fields
            if not dropped:
                found[name] = rule
    return {name: rule for name, rule in found.items() if rule is not None}


def _merges(model: type[peewee.Model]) -> Iterator[tuple[type[peewee.Model], Any]]:
    """The models that say `merge` themselves: Peewee gives what a Meta says to subclasses, too."""
    before: list[Any] = []
    for owner in reversed(model.__mro__):
        merge = getattr(getattr(owner, "_meta", None), "merge", None)
        if merge is not None and not any(merge is other for other in before):
            before.append(merge)
            yield owner, merge


def _column(tracked: Tracked, name: Any) -> TrackedColumn:
    column = tracked.by_name.get(name) if isinstance(name, str) else None
    if column is not None:
        return column
    model = tracked.model.__name__
    if any(key.name == name for key in tracked.key):
        raise ConfigurationError(
            f"{model}.{name} is a part of the key, which is not merged.",
            hint=f"Remove {name!r} from `merge` in the Meta of {model}.",
        )
    raise ConfigurationError(
        f"`merge` in the Meta of {model} names {name!r}, which is no field of it.",
        hint=f"The fields are: {', '.join(tracked.by_name)}.",
    )


def _fitted(tracked: Tracked, column: TrackedColumn, rule: MergeRule) -> MergeRule:
    """The rule as this field needs it."""
    if isinstance(rule, Maximum):
        return type(rule)(_order(column, rule))
    if isinstance(rule, Counter):
        return _counter(column, tracked.default_wire(column.name))
    if isinstance(rule, Members):
        return _members(column)
    assert isinstance(rule, Custom)
    return _custom(column, rule)


def _order(column: TrackedColumn, rule: Maximum) -> Any:
    field = column.field
    if not column.codec.own:
        if isinstance(field, _NUMBERS) and not isinstance(field, _NO_NUMBERS):
            return by_number
        if isinstance(field, peewee.DateTimeField):
            return by_moment
        if isinstance(field, _TEXTS):
            return by_text
    raise ConfigurationError(
        f"{column} has no order in which there is a {rule.name}.",
        hint="Use it for numbers, texts, dates and times; else write Custom(name, function).",
    )


def _counter(column: TrackedColumn, default: Wire) -> Counter:
    field = column.field
    if column.codec.own or not isinstance(field, _WHOLE) or isinstance(field, _NO_COUNT):
        raise ConfigurationError(
            f"{column} cannot be counted: it is no field of whole numbers.",
            hint="Use an IntegerField or a BigIntegerField; count money in cents.",
        )
    if field.null:
        raise ConfigurationError(
            f"{column} cannot be counted: it may be NULL.",
            hint=f"Write {column.name} = {type(field).__name__}(default=0).",
        )
    return Counter(default if type(default) is int else 0)


def _members(column: TrackedColumn) -> Members:
    usual = getattr(column.field, "_dumps", None) is json.dumps
    if not (isinstance(column.field, peewee.JSONField) and usual) or column.codec.own:
        raise ConfigurationError(
            f"{column} has no members: it is no JSONField.",
            hint=f"Write {column.name} = JSONField(default=list).",
        )
    return Members()


def _custom(column: TrackedColumn, rule: Custom) -> Custom:
    if type(rule.name) is not str or not rule.name or rule.name in BUILT_IN:
        raise ConfigurationError(
            f"{rule.name!r} cannot be the name of {column}'s own merge rule.",
            hint=f"Give it a name of its own, other than {', '.join(sorted(BUILT_IN))}.",
        )
    if not callable(rule.function):
        raise ConfigurationError(
            f"The merge rule {rule.name!r} of {column} has no function.",
            hint="Write Custom(name, function): it gets a list of values and returns one.",
        )

    def decode(wire: Any) -> Any:
        return column.field.python_value(column.to_parameter(wire))

    def encode(value: Any) -> Any:
        try:
            return column.exact_wire(value)
        except NotCanonical:  # an integer for a decimal, say
            return column.wire_of_stored(column.field.db_value(value))

    return Custom(rule.name, rule.function, decode=decode, encode=encode)
