"""The application: tables with every sort of key and reference that the library takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import peewee

from sharedlog import SyncModel


@dataclass(frozen=True)
class Models:
    """One device's model classes. Each device has its own, bound to its own database."""

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


class Table(NamedTuple):
    """What the oracle has to know of a table: fields by name with their defaults, and which of
    its fields refer to which table."""

    key: tuple[str, ...]
    fields: Mapping[str, Any]
    parents: Mapping[str, str] = {}


TABLES: Mapping[str, Table] = {
    "folder": Table(("id",), {"name": "", "parent": None}, {"parent": "folder"}),
    "tag": Table(("word",), {"colour": None}),
    "note": Table(
        ("id",),
        {"title": "", "count": 0, "done": False, "body": None, "folder": None},
        {"folder": "folder"},
    ),
    "note_tag": Table(("note", "tag"), {}, {"note": "note", "tag": "tag"}),
    "cover": Table(("note",), {"picture": None, "width": 0.0}, {"note": "note"}),
    "line": Table(("place", "day"), {"amount": 0, "note": None}, {"note": "note"}),
    "setting": Table(("key",), {"value": None}),
}


def define() -> Models:
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
    return Models(Folder, Tag, Note, through, Cover, Line, Setting)
