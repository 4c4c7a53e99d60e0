"""How changes of older programs are read: under former names, by upgraders of their values.

Names come first, so an upgrader, like everything else in a program, speaks of tables and fields
by the names of today. It changes values and nothing else: which fields a change writes decides
who wins, and that must not depend on who read it, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..changes import FIRST_SCHEMA, Change
from ..errors import ConfigurationError, EntryUnreadable
from .formerly import FormerNames

Upgrader = Callable[[Change], Change | None]
"""Turns the values of a change of one schema version into those of the next; None drops it.
Must be pure. Never sees a deletion, which has no values."""


@dataclass(frozen=True, slots=True)
class Evolution:
    """What a program says of its past.

    Attributes:
        names: The former names of its tables and fields.
        schema: Its schema version.
        upgraders: By the schema version that they upgrade from.
    """

    names: FormerNames = field(default_factory=FormerNames)
    schema: int = FIRST_SCHEMA
    upgraders: Mapping[int, Upgrader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.schema) is not int or self.schema < FIRST_SCHEMA:
            raise ConfigurationError(
                f"schema_version is {self.schema!r}; it must be a whole number from 1."
            )
        for version, upgrader in self.upgraders.items():
            if version not in range(FIRST_SCHEMA, self.schema) or not callable(upgrader):
                raise ConfigurationError(
                    f"The upgrader {version!r}: {upgrader!r} does not fit schema_version="
                    f"{self.schema}.",
                    hint="Write schema_version=3, upgraders={2: function}: it turns the values "
                    "of a change of version 2 into those of version 3.",
                )

    @property
    def has_past(self) -> bool:
        """Whether there may be changes that mean something else today."""
        return bool(self.names) or self.schema > FIRST_SCHEMA

    def local(self, change: Change) -> tuple[Change, bool]:
        """What this device recorded once, as a program of today writes it; and whether that can
        be said of its values. If not, at least its names are those of today."""
        try:
            current = self.current(change)
        except EntryUnreadable:
            current = None
        return (self.names.current(change), False) if current is None else (current, True)

    def current(self, change: Change) -> Change | None:
        """The change as a program of today writes it; None if an upgrader drops it.

        Raises EntryUnreadable for a change that this program cannot read.
        """
        if change.schema > self.schema:
            raise EntryUnreadable(
                f"Written under schema version {change.schema}; this program has {self.schema}."
            )
        upgraded: Change | None = self.names.current(change)
        for version in range(change.schema, self.schema):
            upgrade = self.upgraders.get(version)
            if upgrade is not None and upgraded is not None and upgraded.value is not None:
                upgraded = _upgraded(upgraded, upgrade, version)
        return None if upgraded is None else upgraded._replace(schema=self.schema)


def _upgraded(change: Change, upgrade: Upgrader, version: int) -> Change | None:
    before = _written(change)
    try:
        after = upgrade(change)
        kept = after is None or _written(after) == before
    except Exception as error:
        raise EntryUnreadable(
            f"The upgrader of schema version {version} failed: {error!r}."
        ) from error
    if not kept:
        raise EntryUnreadable(
            f"The upgrader of schema version {version} changed more than values: {after!r:.200}."
        )
    return after


def _written(change: Change) -> tuple[object, ...]:
    """What a change writes, without the values."""
    return change.operation, change.collection, change.pk, set(change.value or ()), change.rules
