"""Tables with every odd sort of key and reference that the library takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from random import Random
from typing import Any, ClassVar
from uuid import UUID

import peewee

from sharedlog import Counter, Custom, Maximum, Members, SyncModel

Acts = Mapping[str, Any]
"""What a foreign key says of deletions and of updates, as Peewee takes it: names, or None."""

NEVER_NULL = (None, "RESTRICT", "CASCADE")
ANYTHING = (*NEVER_NULL, "SET NULL")

REFERENCES: Mapping[str, Sequence[str | None]] = {
    "firm.boss": ANYTHING,
    "person.firm": NEVER_NULL,
    "person.parent": ANYTHING,
    "profile.person": NEVER_NULL,
    "footnote.profile": ANYTHING,
    "node.above": ANYTHING,
    "link.person": NEVER_NULL,
    "link.node": NEVER_NULL,
    "mention.title": ANYTHING,
}
"""What each of them may say."""

TABLES = ("firm", "person", "profile", "footnote", "node", "link", "mention")


@dataclass(frozen=True)
class Rules:
    """What the tables of a fleet say.

    Attributes:
        acts: By reference.
        wins: The tables with `update_wins`.
    """

    acts: Mapping[str, Acts]
    wins: frozenset[str]

    @property
    def without_case(self) -> Rules:
        """For keys without case: who refers to one that is written anew in other letters goes."""
        return replace(self, acts={**self.acts, "person.firm": {"on_delete": "CASCADE"}})


def any_rules(chance: Random) -> Rules:
    acts = {
        name: {"on_delete": chance.choice(some), "on_update": chance.choice((None, *some))}
        for name, some in REFERENCES.items()
    }
    return Rules(acts, frozenset(table for table in TABLES if chance.random() < 0.3))


@dataclass(frozen=True)
class Models:
    """The model classes. Each device has its own, bound to its own database."""

    firm: Any
    person: Any
    profile: Any
    footnote: Any
    node: Any
    link: Any
    mention: Any

    @property
    def all(self) -> list[Any]:
        return list(astuple(self))

    def of(self, table: str) -> Any:
        return next(model for model in self.all if model._meta.table_name == table)


def define(new_key: Callable[[], UUID], rules: Rules, *, kind: str, nocase: bool) -> Models:
    """The model classes, bound to nothing, for a kind of database. `nocase`: whether firms' codes
    compare without case."""
    acts = rules.acts

    class Firm(SyncModel):
        """Refers to a person, who refers to a firm: a circle."""

        code: Any = peewee.CharField(primary_key=True, collation="NOCASE" if nocase else None)
        boss: Any = peewee.DeferredForeignKey(
            "Person",
            null=True,
            deferrable="INITIALLY DEFERRED" if kind == "postgres" else None,
            # Others than SQLite can be told when both tables are there.
            constraints=[_boss(acts["firm.boss"])] if kind == "sqlite" else [],
            **acts["firm.boss"],
        )
        title = peewee.CharField(unique=True, null=True)

        class Meta:
            table_name = "firm"
            update_wins = "firm" in rules.wins

    class Person(SyncModel):
        """Names that have to be quoted, a reference that is part of a unique constraint, rules."""

        id: Any = peewee.UUIDField(primary_key=True, default=new_key)
        firm = peewee.ForeignKeyField(Firm, **acts["person.firm"])
        nick = peewee.CharField(null=True, column_name="Nick Name")
        parent = peewee.ForeignKeyField("self", null=True, **acts["person.parent"])
        count = peewee.IntegerField(default=0)
        tags = peewee.JSONField(default=list)

        class Meta:
            table_name = "per son"
            indexes = ((("firm", "nick"), True),)
            merge: ClassVar = {"count": Counter(), "tags": Members()}
            update_wins = "person" in rules.wins

    class Profile(SyncModel):
        """The key is a reference."""

        person: Any = peewee.ForeignKeyField(Person, primary_key=True, **acts["profile.person"])
        text = peewee.TextField(default="")

        class Meta:
            table_name = "profile"
            merge: ClassVar = {"text": Custom("longest", longest)}
            update_wins = "profile" in rules.wins

    class Footnote(SyncModel):
        """Refers to a key that is a reference."""

        id: Any = peewee.UUIDField(primary_key=True, default=new_key)
        profile = peewee.ForeignKeyField(Profile, null=True, **acts["footnote.profile"])
        mark = peewee.CharField(null=True, unique=True)

        class Meta:
            table_name = "footnote"
            update_wins = "footnote" in rules.wins

    class Node(SyncModel):
        """A tree."""

        name: Any = peewee.CharField(primary_key=True)
        above = peewee.ForeignKeyField("self", null=True, **acts["node.above"])
        best = peewee.IntegerField(null=True)

        class Meta:
            table_name = "node"
            merge: ClassVar = {"best": Maximum()}
            update_wins = "node" in rules.wins

    class Link(SyncModel):
        """The key is made of two references."""

        person = peewee.ForeignKeyField(Person, **acts["link.person"])
        node = peewee.ForeignKeyField(Node, **acts["link.node"])
        weight = peewee.DecimalField(null=True, max_digits=8, decimal_places=2)
        slot = peewee.IntegerField(null=True, unique=True)

        class Meta:
            table_name = "link"
            primary_key = peewee.CompositeKey("person", "node")
            update_wins = "link" in rules.wins

    class Mention(SyncModel):
        """Refers to what is unique, changes, and is not the key."""

        id: Any = peewee.UUIDField(primary_key=True, default=new_key)
        title = peewee.ForeignKeyField(Firm, field="title", null=True, **acts["mention.title"])
        picture = peewee.BlobField(null=True)
        moment = peewee.DateTimeField(null=True)

        class Meta:
            table_name = "mention"
            update_wins = "mention" in rules.wins

    return Models(Firm, Person, Profile, Footnote, Node, Link, Mention)


def _boss(acts: Acts) -> peewee.SQL:
    said = "".join(f" {what.replace('_', ' ').upper()} {act}" for what, act in acts.items() if act)
    return peewee.SQL(f'REFERENCES "per son" ("id"){said} DEFERRABLE INITIALLY DEFERRED')


def longest(texts: Sequence[Any]) -> Any:
    known = [text for text in texts if text is not None]
    return max(known, key=lambda text: (len(text), text), default="")
