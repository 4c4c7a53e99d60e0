"""The base class of tracked models."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import peewee
from playhouse import signals

from .changes import dumps
from .clock import Now, system_now


def uuid7(now: Now = system_now, random_bytes: Callable[[int], bytes] = os.urandom) -> uuid.UUID:
    """A time-ordered random key (RFC 9562, version 7): new rows land at the end of the index."""
    milliseconds = now() & (2**48 - 1)
    random = int.from_bytes(random_bytes(10), "big")
    high = (milliseconds << 16) | 0x7000 | (random >> 68)
    low = (0b10 << 62) | (random & (2**62 - 1))
    return uuid.UUID(int=(high << 64) | low)


class SyncModel(signals.Model):  # type: ignore[misc]
    """A Peewee model whose rows are shared between devices.

    What differs from `peewee.Model`:

    - where no primary key is named, `id` is a UUIDv7 made by the client, so that devices
      that never met do not collide;
    - `save()` of an instance that was not loaded from the database is an INSERT, whatever
      its key (Peewee would UPDATE no row and say nothing);
    - `save()` writes only the fields that changed, so that a stale object does not take back
      what another device wrote. JSON values changed in place count as changed.
    """

    id = peewee.UUIDField(primary_key=True, default=uuid7)

    class Meta:
        only_save_dirty = True

    _in_place: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def validate_model(cls) -> None:
        super().validate_model()
        cls._in_place = tuple(
            field.name for field in cls._meta.sorted_fields if isinstance(field, peewee.JSONField)
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unsaved = "__no_default__" not in kwargs
        super().__init__(*args, **kwargs)
        self._seen = {} if self._unsaved or not self._in_place else self._dump_in_place()

    def _dump_in_place(self) -> dict[str, str]:
        return {
            name: dumps(self.__data__[name]) for name in self._in_place if name in self.__data__
        }

    def mark_changed_in_place(self) -> None:
        """Mark JSON fields dirty whose value was changed without assigning it."""
        if self._in_place:
            seen = self._seen
            for name, dump in self._dump_in_place().items():
                if seen.get(name) != dump:
                    self._dirty.add(name)

    def save(self, force_insert: bool = False, only: Any = None) -> Any:
        """Insert a new instance, or update the changed fields of a loaded one.

        Returns the number of rows written; False if nothing had changed.
        """
        self.mark_changed_in_place()
        result = super().save(force_insert or self._unsaved, only)
        self._unsaved = False
        if self._in_place:
            self._seen = self._dump_in_place()
        return result

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> Any:
        """Delete the row; with `recursive`, its dependants in the same transaction."""
        if recursive:
            with self._meta.database.atomic():
                result = super().delete_instance(recursive, delete_nullable)
        else:
            result = super().delete_instance(recursive, delete_nullable)
        self._unsaved = True
        return result
