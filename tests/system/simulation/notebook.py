"""An application: tables with every sort of key and reference that the library takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import peewee

from sharedlog import SyncModel

from .kinds import BLOB, BOOLEAN, CHAR, FLOAT, INTEGER, JSON_, TEXT, UUID
from .shapes import Column, Shape


@dataclass(frozen=True)
class Notebook:
    """The model classes. Each device has its own, bound to its own database."""

    folder: Any
    tag: Any
    note: Any
    note_tag: Any
    cover: Any
    line: Any
    setting: Any

    @property
    def given(self) -> list[Any]:
        """What the application passes to `Sync`; the through model comes along by itself."""
        return [self.folder, self.tag, self.note, self.cover, self.line, self.setting]

    @property
    def all(self) -> list[Any]:
        return [*self.given, self.note_tag]


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "folder",
            ("id",),
            (
                Column("id", UUID),
                Column("name", CHAR, default=""),
                Column("parent", UUID, True, parent="folder", on_delete="CASCADE"),
            ),
        ),
        Shape("tag", ("word",), (Column("word", CHAR), Column("colour", CHAR, True))),
        Shape(
            "note",
            ("id",),
            (
                Column("id", UUID),
                Column("title", TEXT, default=""),
                Column("count", INTEGER, default=0),
                Column("done", BOOLEAN, default=False),
                Column("body", TEXT, True),
                Column("folder", UUID, True, parent="folder", on_delete="SET NULL"),
            ),
        ),
        Shape(
            "note_tag",
            ("note", "tag"),
            (
                Column("note", UUID, parent="note"),
                Column("tag", CHAR, parent="tag"),
            ),
        ),
        Shape(
            "cover",
            ("note",),
            (
                Column("note", UUID, parent="note", on_delete="CASCADE"),
                Column("picture", BLOB, True),
                Column("width", FLOAT, default=0.0),
            ),
        ),
        Shape(
            "line",
            ("place", "day"),
            (
                Column("place", CHAR),
                Column("day", INTEGER),
                Column("amount", INTEGER, default=0),
                Column("note", UUID, True, parent="note", on_delete="RESTRICT"),
            ),
        ),
        Shape("setting", ("key",), (Column("key", CHAR), Column("value", JSON_, True))),
    )
}

STRANGERS = (
    "",
    "not json",
    "null",
    "[]",
    '{"operation":"explode","collection":"note","pk":1,"value":{}}',
    '{"operation":"create","collection":"note","pk":null,"value":{}}',
    '{"operation":"modify","collection":"","pk":"x","value":{}}',
    '{"operation":"create","collection":"note","pk":"x","value":5}',
    '{"operation":"create","collection":"note","pk":"no uuid","field":null,"value":{"title":"?"}}',
    '{"operation":"create","collection":"planet","pk":1,"field":null,"value":{"x":null}}',
    '{"operation":"modify","collection":"planet","pk":1,"field":null,"value":{"y":0}}',
    '{"operation":"create","collection":"tag","pk":"partial","field":null,"value":{}}',
    '{"operation":"create","collection":"tag","pk":"red","field":null,"value":{"shade":0}}',
    '{"operation":"modify","collection":"tag","pk":"blue","field":null,"value":{"shade":""}}',
    '{"operation":"delete","collection":"tag","pk":"green","field":null,"value":null}',
    '{"operation":"delete","collection":"nowhere","pk":[1,"x"],"field":null,"value":null}',
)
"""What no device of ours would write: no changes, and changes of other applications' versions."""


def define() -> Notebook:
    """The model classes, bound to nothing."""

    class Folder(SyncModel):
        name = peewee.CharField(default="")
        parent = peewee.ForeignKeyField("self", null=True, on_delete="CASCADE")

        class Meta:
            table_name = "folder"

    class Tag(SyncModel):
        word = peewee.CharField(primary_key=True)
        colour = peewee.CharField(null=True)

        class Meta:
            table_name = "tag"

    class Note(SyncModel):
        title = peewee.TextField(default="")
        count = peewee.IntegerField(default=0)
        done = peewee.BooleanField(default=False)
        body = peewee.TextField(null=True)
        folder = peewee.ForeignKeyField(Folder, null=True, on_delete="SET NULL")
        tags = peewee.ManyToManyField(Tag)

        class Meta:
            table_name = "note"

    class Cover(SyncModel):
        note = peewee.ForeignKeyField(Note, primary_key=True, on_delete="CASCADE")
        picture = peewee.BlobField(null=True)
        width = peewee.FloatField(default=0.0)

        class Meta:
            table_name = "cover"

    class Line(SyncModel):
        place = peewee.CharField()
        day = peewee.IntegerField()
        amount = peewee.IntegerField(default=0)
        note = peewee.ForeignKeyField(Note, null=True, on_delete="RESTRICT")

        class Meta:
            table_name = "line"
            primary_key = peewee.CompositeKey("place", "day")

    class Setting(SyncModel):
        key = peewee.CharField(primary_key=True)
        value = peewee.JSONField(null=True)

        class Meta:
            table_name = "setting"

    through = Note.tags.get_through_model()
    through._meta.set_table_name("note_tag")
    return Notebook(Folder, Tag, Note, through, Cover, Line, Setting)
