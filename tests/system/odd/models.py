"""Tables with every odd sort of key and reference that the library takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, ClassVar
from uuid import UUID

import peewee

from sharedlog import Counter, Custom, Maximum, Members, SyncModel


BOSS = 'REFERENCES "per son" ("id") ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED'


@dataclass(frozen=True)
class Models:
    """The model classes. Each device has its own, bound to its own database."""

    firm: Any
    person: Any
    profile: Any
    node: Any
    link: Any
    mention: Any

    @property
    def all(self) -> list[Any]:
        return list(astuple(self))


def define(new_key: Callable[[], UUID], *, kind: str, nocase: bool) -> Models:
    """The model classes, bound to nothing, for a kind of database. `nocase`: whether firms' codes
    compare without case."""

    class Firm(SyncModel):
        """Refers to a person, who refers to a firm: a circle."""

        code: Any = peewee.CharField(primary_key=True, collation="NOCASE" if nocase else None)
        boss: Any = peewee.DeferredForeignKey(
            "Person",
            null=True,
            on_delete="SET NULL",
            deferrable="INITIALLY DEFERRED" if kind == "postgres" else None,
            # Others than SQLite can be told when both tables are there.
            constraints=[peewee.SQL(BOSS)] if kind == "sqlite" else [],
        )
        title = peewee.CharField(unique=True, null=True)

        class Meta:
            table_name = "firm"

    class Person(SyncModel):
        """Names that have to be quoted, a reference that is part of a unique constraint, rules."""

        id: Any = peewee.UUIDField(primary_key=True, default=new_key)
        firm = peewee.ForeignKeyField(Firm, on_delete="CASCADE")
        nick = peewee.CharField(null=True, column_name="Nick Name")
        parent = peewee.ForeignKeyField("self", null=True, on_delete="SET NULL")
        count = peewee.IntegerField(default=0)
        tags = peewee.JSONField(default=list)

        class Meta:
            table_name = "per son"
            indexes = ((("firm", "nick"), True),)
            merge: ClassVar = {"count": Counter(), "tags": Members()}

    class Profile(SyncModel):
        """The key is a reference."""

        person: Any = peewee.ForeignKeyField(Person, primary_key=True, on_delete="CASCADE")
        text = peewee.TextField(default="")

        class Meta:
            table_name = "profile"
            merge: ClassVar = {"text": Custom("longest", longest)}

    class Node(SyncModel):
        """A tree whose nodes stay as long as others are below them."""

        name: Any = peewee.CharField(primary_key=True)
        above = peewee.ForeignKeyField("self", null=True, on_delete="RESTRICT")
        best = peewee.IntegerField(null=True)

        class Meta:
            table_name = "node"
            merge: ClassVar = {"best": Maximum()}
            update_wins = True

    class Link(SyncModel):
        """The key is made of two references."""

        person = peewee.ForeignKeyField(Person, on_delete="CASCADE")
        node = peewee.ForeignKeyField(Node)
        weight = peewee.DecimalField(null=True, max_digits=8, decimal_places=2)
        slot = peewee.IntegerField(null=True, unique=True)

        class Meta:
            table_name = "link"
            primary_key = peewee.CompositeKey("person", "node")

    class Mention(SyncModel):
        """Refers to what is unique, changes, and is not the key."""

        id: Any = peewee.UUIDField(primary_key=True, default=new_key)
        title = peewee.ForeignKeyField(
            Firm, field="title", null=True, on_update="CASCADE", on_delete="SET NULL"
        )
        picture = peewee.BlobField(null=True)
        moment = peewee.DateTimeField(null=True)

        class Meta:
            table_name = "mention"

    return Models(Firm, Person, Profile, Node, Link, Mention)


def longest(texts: Sequence[Any]) -> Any:
    known = [text for text in texts if text is not None]
    return max(known, key=lambda text: (len(text), text), default="")
