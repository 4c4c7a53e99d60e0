"""The demonstration's application: four Peewee models, written as for any application."""

from __future__ import annotations

from collections.abc import Sequence

import peewee

from ..models.syncmodel import SyncModel


class Country(SyncModel):
    code = peewee.CharField(max_length=2, primary_key=True)
    name = peewee.TextField()
    official_name = peewee.TextField(null=True)
    flag = peewee.TextField(null=True)
    capital = peewee.TextField(null=True)


class Region(SyncModel):
    code = peewee.CharField(max_length=6, primary_key=True)
    country = peewee.ForeignKeyField(Country, backref="regions", on_delete="CASCADE")
    parent = peewee.ForeignKeyField("self", null=True, backref="parts", on_delete="CASCADE")
    kind = peewee.TextField()
    name = peewee.TextField()


class Language(SyncModel):
    code = peewee.CharField(max_length=3, primary_key=True)
    name = peewee.TextField()
    kind = peewee.TextField()


class Note(SyncModel):
    """What the traveller writes. Names no primary key: SyncModel makes a UUID."""

    country = peewee.ForeignKeyField(Country, backref="notes", on_delete="CASCADE")
    text = peewee.TextField()


MODELS: Sequence[type[SyncModel]] = [Country, Region, Language, Note]
