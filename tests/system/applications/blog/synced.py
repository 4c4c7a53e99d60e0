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
    SqliteDatabase,
    TextField,
)
from playhouse.sqlite_ext import FTS5Model, SearchField

from sharedlog import Sync, SyncModel

database = SqliteDatabase(os.environ["BLOG"], pragmas={"journal_mode": "wal"}, timeout=5)


class Base(SyncModel):
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
        return super().save(*args, **kwargs)

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
            .join(EntryIndex, on=(EntryIndex.entry == cls.id))
            .where(EntryIndex.match(EntryIndex.web_query(words)))
            .order_by(SQL("score"))
        )


class EntryIndex(FTS5Model):
    entry = SearchField(unindexed=True)
    content = SearchField()

    class Meta:
        database = database


KEEP_INDEX = """
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entry BEGIN
    INSERT INTO entryindex VALUES (new.id, new.title || char(10) || new.content);
END;
CREATE TRIGGER IF NOT EXISTS entry_edited AFTER UPDATE ON entry BEGIN
    UPDATE entryindex SET content = new.title || char(10) || new.content WHERE entry = old.id;
END;
CREATE TRIGGER IF NOT EXISTS entry_removed AFTER DELETE ON entry BEGIN
    DELETE FROM entryindex WHERE entry = old.id;
END;
INSERT INTO entryindex SELECT id, title || char(10) || content FROM entry
    WHERE id NOT IN (SELECT entry FROM entryindex);
"""


def create_tables():
    database.create_tables([Entry, EntryIndex])
    database.connection().executescript(KEEP_INDEX)


def start_sync(url, token):
    return Sync(database, [Entry], url=url, token=token).setup()


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
