"""The application: tables with every sort of key and reference that the library takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


COLUMNS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "folder": (("id",), ("name", "parent")),
    "tag": (("word",), ("colour",)),
    "note": (("id",), ("title", "count", "done", "body", "folder")),
    "note_tag": (("note", "tag"), ()),
    "cover": (("note",), ("picture", "width")),
    "line": (("place", "day"), ("amount", "note")),
    "setting": (("key",), ("value",)),
}
"""The key and the other fields of each table."""

PARENTS: Mapping[str, Mapping[str, str]] = {
    "folder": {"parent": "folder"},
    "note": {"folder": "folder"},
    "note_tag": {"note": "note", "tag": "tag"},
    "cover": {"note": "note"},
    "line": {"note": "note"},
}
"""Which fields of a table refer to which table."""


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
