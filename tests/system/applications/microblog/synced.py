# mypy: ignore-errors
"""A place for short messages: people join, follow each other, and write."""

import datetime
import hashlib
import os

from peewee import (
    CharField,
    DateTimeField,
    ForeignKeyField,
    IntegrityError,
    SqliteDatabase,
    TextField,
)

from sharedlog import Sync, SyncModel

database = SqliteDatabase(
    os.environ["MICROBLOG"], pragmas={"journal_mode": "wal", "foreign_keys": 1}, timeout=5
)


class Base(SyncModel):
    class Meta:
        database = database


class User(Base):
    username = CharField(unique=True)
    password = CharField()
    email = CharField()
    join_date = DateTimeField()

    def following(self):
        followed = Relationship.to_user == User.id
        return self._along(followed).where(Relationship.from_user == self)

    def followers(self):
        follows = Relationship.from_user == User.id
        return self._along(follows).where(Relationship.to_user == self)

    def _along(self, condition):
        return User.select().join(Relationship, on=condition).order_by(User.username)

    def is_following(self, other):
        return self.relationships.where(Relationship.to_user == other).exists()


class Relationship(Base):
    from_user = ForeignKeyField(User, backref="relationships")
    to_user = ForeignKeyField(User, backref="related_to")

    class Meta:
        indexes = ((("from_user", "to_user"), True),)


class Message(Base):
    user = ForeignKeyField(User, backref="messages")
    content = TextField()
    pub_date = DateTimeField()


MODELS = [User, Relationship, Message]


def create_tables():
    with database:
        database.create_tables(MODELS)


def start_sync(url, token):
    return Sync(database, MODELS, url=url, token=token).setup()


def digest(password):
    return hashlib.md5(password.encode()).hexdigest()


def join(username, password, email):
    """A new user, or None if the name is taken."""
    try:
        with database.atomic():
            return User.create(
                username=username,
                password=digest(password),
                email=email,
                join_date=datetime.datetime.now(),
            )
    except IntegrityError:
        return None


def log_in(username, password):
    return User.get_or_none(username=username, password=digest(password))


def follow(user, other):
    """Following somebody twice is following once."""
    try:
        with database.atomic():
            Relationship.create(from_user=user, to_user=other)
    except IntegrityError:
        pass


def unfollow(user, other):
    pair = (Relationship.from_user == user) & (Relationship.to_user == other)
    Relationship.delete().where(pair).execute()


def write(user, content):
    return Message.create(user=user, content=content, pub_date=datetime.datetime.now())


def public_timeline():
    return Message.select().order_by(Message.pub_date.desc())


def private_timeline(user):
    return public_timeline().where(Message.user.in_(user.following()))


def messages_of(user):
    return user.messages.order_by(Message.pub_date.desc())
