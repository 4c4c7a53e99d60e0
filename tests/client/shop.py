"""An application with every kind of key, default and reference, for the tests of recording.

Keys and callable defaults count, so that two devices that do the same get the same rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any

import peewee
from peewee import CharField, ForeignKeyField, IntegerField, JSONField, TextField

from sharedlog import SyncModel


class Numbers:
    """What the defaults of the models count; each device starts it again."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._keys: Iterator[int] = count(1)
        self._turns: Iterator[int] = count(100)

    def key(self) -> uuid.UUID:
        return uuid.UUID(int=next(self._keys))

    def turn(self) -> int:
        return next(self._turns)


NUMBERS = Numbers()


def next_key() -> uuid.UUID:
    return NUMBERS.key()


def next_turn() -> int:
    return NUMBERS.turn()


class Row(SyncModel):
    id = peewee.UUIDField(primary_key=True, default=next_key)


class Tag(Row):
    name = CharField(unique=True)
    count = IntegerField(default=0)


class Note(Row):
    """A column name of its own, static and callable defaults, references of both rules."""

    title = TextField()
    rank = IntegerField(default=0, column_name="number")
    turn = IntegerField(default=next_turn)
    parent = ForeignKeyField("self", null=True, backref="children", on_delete="CASCADE")
    tag = ForeignKeyField(Tag, null=True, column_name="label", on_delete="SET NULL")
    data = JSONField(null=True)
    tags = peewee.ManyToManyField(Tag, on_delete="CASCADE")


class Comment(Row):
    note = ForeignKeyField(Note, on_delete="CASCADE")
    text = TextField(default="")


class Reply(Row):
    comment = ForeignKeyField(Comment, on_delete="CASCADE")
    mood = CharField(constraints=[peewee.SQL("DEFAULT 'calm'")])


class Article(SyncModel):
    """A natural key, and two ways to clash beside it."""

    code = CharField(primary_key=True)
    shelf = IntegerField()
    place = IntegerField()
    barcode = CharField(null=True, unique=True)
    tags = peewee.ManyToManyField(Tag, on_delete="CASCADE")

    class Meta:
        indexes = ((("shelf", "place"), True),)


class Price(SyncModel):
    """A key of two parts, one of which follows its parent's key."""

    article = ForeignKeyField(Article, on_delete="CASCADE", on_update="CASCADE")
    currency = CharField()
    cents = IntegerField(default=0)

    class Meta:
        primary_key = peewee.CompositeKey("article", "currency")


class Shelf(SyncModel):
    """A reference to a field that is no key, followed when it changes."""

    number = IntegerField(primary_key=True)
    best = ForeignKeyField(
        Article, field=Article.barcode, null=True, on_delete="SET NULL", on_update="CASCADE"
    )


MODELS = (Tag, Note, Comment, Reply, Article, Price, Shelf)
NoteTag: Any = Note.tags.get_through_model()
ArticleTag: Any = Article.tags.get_through_model()


def key(number: int) -> str:
    """The n-th counted key, as it travels."""
    return str(uuid.UUID(int=number))


def note(title: str, turn: int, **values: Any) -> dict[str, Any]:
    """All values of a note, as they travel."""
    blank = {"rank": 0, "parent": None, "tag": None, "data": None}
    return {"title": title, "turn": turn, **blank, **values}
