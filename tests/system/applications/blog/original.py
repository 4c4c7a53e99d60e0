# mypy: ignore-errors
"""A blog: entries that are drafts until they are published, and a full-text search of them."""

import datetime
import os
import re

from peewee import (
    SQL,
    BooleanField,
    CharField,
    DateTimeField,
    IntegrityError,
    Model,
    SqliteDatabase,
    TextField,
)
from playhouse.sqlite_ext import FTS5Model, SearchField

database = SqliteDatabase(os.environ["BLOG"])


class Base(Model):
    class Meta:
        database = database


class Entry(Base):
    title = CharField()
    slug = CharField(unique=True)
    content = TextField()
    published = BooleanField(index=True)
    timestamp = DateTimeField(default=datetime.datetime.now, index=True)

    def save(self, *args, **kwargs):
        if not self.slug:
            self.slug = re.sub(r"\W+", "-", self.title.lower()).strip("-")
        result = super().save(*args, **kwargs)
        text = f"{self.title}\n{self.content}"
        EntryIndex.replace(rowid=self.id, content=text).execute()
        return result

    @classmethod
    def public(cls):
        return cls.select().where(cls.published == True)  # noqa: E712

    @classmethod
    def drafts(cls):
        return cls.select().where(cls.published == False)  # noqa: E712

    @classmethod
    def search(cls, words):
        """The published entries with these words, the best first."""
        return (
            cls.public()
            .select(cls, EntryIndex.rank().alias("score"))
            .join(EntryIndex, on=(EntryIndex.rowid == cls.id))
            .where(EntryIndex.match(EntryIndex.web_query(words)))
            .order_by(SQL("score"))
        )


class EntryIndex(FTS5Model):
    content = SearchField()

    class Meta:
        database = database


def create_tables():
    database.create_tables([Entry, EntryIndex])


def edit(entry, title, content, published):
    """Save an entry; what is told is empty if that went well."""
    entry.title, entry.content, entry.published = title, content, published
    if not (title and content):
        return "An entry has a title and a content."
    try:
        with database.atomic():
            entry.save()
    except IntegrityError:
        return "There is an entry with this title."
    return ""


def write(title, content, published=False):
    return edit(Entry(title="", content=""), title, content, published)


def front_page():
    return Entry.public().order_by(Entry.timestamp.desc())


def page(slug):
    return Entry.get_or_none(Entry.slug == slug)
