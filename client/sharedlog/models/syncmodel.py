"""The base class of tracked models."""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import uuid
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, ClassVar

import peewee
from playhouse import signals

from ..clock import Now, system_now
from ..values.fields import codec_for


def uuid7(now: Now = system_now, random_bytes: Callable[[int], bytes] = os.urandom) -> uuid.UUID:
    """A time-ordered random key (RFC 9562, version 7): new rows land at the end of the index."""
    milliseconds = now() & (2**48 - 1)
    random = int.from_bytes(random_bytes(10), "big")
    high = (milliseconds << 16) | 0x7000 | (random >> 68)
    low = (0b10 << 62) | (random & (2**62 - 1))
    return uuid.UUID(int=(high << 64) | low)


def _changes_in_place(field: peewee.Field) -> bool:
    """Whether the field may hand out values that can change: JSON, bytes, own classes."""
    if isinstance(field, peewee.ForeignKeyField | peewee.MetaField):
        return False
    return isinstance(field, peewee.JSONField | peewee.BlobField) or codec_for(field).own


_IMMUTABLE = (str, int, float, bytes, decimal.Decimal, datetime.date, enum.Enum)


def _fingerprint(field: peewee.Field, value: Any) -> Any:
    """Something that differs when the value was changed in place."""
    if isinstance(field, peewee.BigBitField):
        return bytes(value or b"")
    if value is None or (isinstance(value, _IMMUTABLE) and not isinstance(field, peewee.JSONField)):
        return None
    if isinstance(value, peewee.Node):
        return id(value)
    if isinstance(value, bytearray):
        return bytes(value)
    try:
        if isinstance(field, peewee.JSONField):
            return field._dumps(value)  # type: ignore[attr-defined]
        stored = field.db_value(value)
        return repr(value) if isinstance(stored, peewee.Node) else stored
    except Exception:
        return id(value)  # not a value that can be saved, which save() will tell


class _Watched(peewee.FieldAccessor):
    """The attribute of a field whose values can be changed in place: notes what a value was
    when it was handed out, so that `save()` sees what became of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner.model, inner.field, inner.name)
        self._inner = inner

    def __get__(self, instance: Any, instance_type: Any = None) -> Any:
        if instance is not None and self.name not in instance._seen:
            instance._note(self.field)
        return self._inner.__get__(instance, instance_type)

    def __set__(self, instance: Any, value: Any) -> None:
        self._inner.__set__(instance, value)


class SyncModel(signals.Model):  # type: ignore[misc]
    """A Peewee model whose rows are shared between devices.

    What differs from `peewee.Model`:

    - where no primary key is named, `id` is a UUIDv7 made by the client, so that devices
      that never met do not collide;
    - `save()` of an instance that was not loaded from the database is an INSERT, whatever
      its key (Peewee would UPDATE no row and say nothing);
    - `save()` writes only the fields that changed, so that a stale object does not take back
      what another device wrote. Values changed in place (JSON, big bit fields, an
      application's own classes) count as changed.
    """

    id = peewee.UUIDField(primary_key=True, default=uuid7)

    class Meta:
        only_save_dirty = True

    _in_place: ClassVar[tuple[peewee.Field, ...]] = ()

    @classmethod
    def validate_model(cls) -> None:
        super().validate_model()
        cls._in_place = tuple(f for f in cls._meta.sorted_fields if _changes_in_place(f))
        for field in cls._in_place:
            accessor = cls.__dict__[field.name]
            if not isinstance(accessor, _Watched):
                setattr(cls, field.name, _Watched(accessor))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unsaved = "__no_default__" not in kwargs
        self._seen: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def _note(self, field: peewee.Field) -> None:
        if field.name in self.__data__:
            self._seen[field.name] = _fingerprint(field, self.__data__[field.name])

    def _mark_changed_in_place(self) -> None:
        """Mark fields dirty whose value was changed without assigning it."""
        for field in self._in_place:
            name = field.name
            if name not in self._seen or name in self._dirty:
                continue
            if self._seen[name] != _fingerprint(field, self.__data__.get(name)):
                self._dirty.add(name)

    def _is_saved(self) -> None:
        self._unsaved = False
        for field in self._in_place:
            self._note(field)

    def save(self, force_insert: bool = False, only: Any = None) -> Any:
        """Insert a new instance, or update the changed fields of a loaded one.

        Returns the number of rows written; False if nothing had changed.
        """
        self._mark_changed_in_place()
        unsaved = self._unsaved
        inserting = force_insert or unsaved
        if inserting and only is not None:
            only = [*only, *self._meta.get_primary_keys()]
        # Handlers of post_save see a saved instance: one that saves it again must not insert.
        self._unsaved = False
        try:
            result = super().save(inserting, only)
        except BaseException:
            # A handler may have failed after the row was written: then its key is clean.
            self._unsaved = unsaved and any(
                field.name in self._dirty for field in self._meta.get_primary_keys()
            )
            raise
        self._is_saved()
        return result

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> Any:
        """Delete the row; with `recursive`, its dependants in the same transaction."""
        database = self._meta.database
        together = recursive and not isinstance(database.top_transaction(), peewee._manual)
        with database.atomic() if together else nullcontext():
            result = super().delete_instance(recursive, delete_nullable)
        self._unsaved = True
        self._dirty.update(self.__data__)
        return result

    @classmethod
    def bulk_create(cls, model_list: Iterable[Any], batch_size: int | None = None) -> None:
        """Insert many new instances, a statement for each batch."""
        instances = list(model_list)
        super().bulk_create(instances, batch_size)
        for instance in instances:
            instance._dirty.clear()
            instance._is_saved()

    @classmethod
    def bulk_update(
        cls, model_list: Iterable[Any], fields: Iterable[Any], batch_size: int | None = None
    ) -> int:
        """Update these fields of many loaded instances, a statement for each batch."""
        instances, some = list(model_list), list(fields)
        count: int = super().bulk_update(instances, some, batch_size)
        names = {field if isinstance(field, str) else field.name for field in some}
        for instance in instances:
            instance._dirty -= names
            for field in instance._in_place:
                if field.name in names:
                    instance._note(field)
        return count

    @classmethod
    def truncate_table(cls, **options: Any) -> None:
        """Delete all rows: with a DELETE, since a TRUNCATE would leave nothing to record."""
        cls.delete().execute()
