"""The former names of tables and fields: what older programs call them. Pure.

    class Note(SyncModel):
        heading = TextField()

        class Meta:
            formerly_table = "memo"
            formerly = {"heading": "title"}

A field may have had several names, one after the other (`{"heading": ("title", "name")}`), and
two fields may both come from one that was split; a value written under the old name is then
written to both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ..changes import Change

T = TypeVar("T")

Fields = dict[str, tuple[str, ...]]
"""Of one collection: a former name -> the fields that have taken its place."""


@dataclass(frozen=True, slots=True)
class FormerNames:
    """What changes of older programs mean today.

    Attributes:
        tables: A collection's former name -> its name.
        fields: A collection's name -> the former names of its fields.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Fields] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables or self.fields)

    def table(self, name: str) -> str:
        return self.tables.get(name, name)

    def field(self, collection: str, name: str) -> str:
        """The field's name of today; of one that was split, the first of its parts."""
        return self.fields.get(self.table(collection), {}).get(name, (name,))[0]

    def of_table(self, name: str) -> list[str]:
        """The former names of a collection."""
        return [former for former, current in self.tables.items() if current == name]

    def current(self, change: Change) -> Change:
        """The change under the names of today."""
        collection = self.table(change.collection)
        fields, value, rules = self.fields.get(collection), change.value, change.rules
        if fields and value:
            rules = rules and renamed(rules, fields, among=value)
            value = renamed(value, fields)
        return change._replace(collection=collection, value=value, rules=rules)


def renamed(
    values: Mapping[str, T], fields: Fields, *, among: Collection[str] | None = None
) -> dict[str, T]:
    """Values under the names of today, in the same order. Of several that become one, the new
    name's stays, or that of the former name which is declared first; `among` are all that are
    there, if not just these."""
    among = values if among is None else among
    sources = {new: old for old in reversed(fields) if old in among for new in fields[old]}
    sources.update({new: new for new in sources if new in among})
    return {
        new: wire
        for name, wire in values.items()
        for new in fields.get(name, (name,))
        if sources.get(new, name) == name
    }
