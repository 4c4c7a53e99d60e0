"""What a recorder is: whoever notices local changes and brings them into the client log.

There are two, and an application chooses: `capture` records the statements that pass the
database object, at once; `tracing` has the database itself note every change, and brings the
notes into the client log later.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import peewee

from ..errors import ConfigurationError
from .journal import RefusedEntry

Capture = Literal["signals", "triggers"]
"""How local changes are noticed."""


class Recorder(Protocol):
    """Records what is written to the tracked tables of one database."""

    def install(self) -> Sequence[str]:
        """Start recording; answers as `check` does."""

    def uninstall(self) -> None:
        """Stop watching the database object."""

    def check(self) -> Sequence[str]:
        """Make sure that changes are recorded; return the collections where they were not."""

    def waiting(self) -> int:
        """How many changes are noted, but not in the client log yet."""

    def harvest(self, limit: int | None = None) -> Sequence[RefusedEntry]:
        """Bring them into the client log, inside the open transaction: about so many, or all.
        Returns what cannot be carried."""

    def unrecorded(self) -> AbstractContextManager[None]:
        """What is written inside, in the open transaction, is not recorded: others' changes."""

    def migrating(self) -> AbstractContextManager[None]:
        """Tables may be altered inside."""


def claim(database: peewee.Database, recorder: Recorder) -> None:
    """Make this the recorder of a database object: there can be only one."""
    if getattr(database, "_sharedlog_recorder", None) is not None:
        raise ConfigurationError(
            "This database object is being recorded already.",
            hint="Keep one Sync for a database, or close() the other one first.",
        )
    database._sharedlog_recorder = recorder  # type: ignore[attr-defined]


def release(database: peewee.Database, recorder: Recorder) -> bool:
    """Give it up again; return whether it was this one."""
    claimed = getattr(database, "_sharedlog_recorder", None) is recorder
    if claimed:
        database._sharedlog_recorder = None  # type: ignore[attr-defined]
    return claimed
