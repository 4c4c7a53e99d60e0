"""The database behind the store: an SQLite file, or PostgreSQL by its address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sharedlog_service.engines.session import Session
from sharedlog_service.engines.sqlite import SqliteFile, check_unused, check_writable
from sharedlog_service.errors import ConfigurationError
from sharedlog_service.settings import IdSource

if TYPE_CHECKING:
    from sharedlog_service.engines.notices import Heard, Notices

SERVERS = ("postgresql://", "postgres://")
"""How the address of a server begins; anything else is the name of a file."""


class Database(Protocol):
    """Hands out sessions inside transactions, and nothing else."""

    @property
    def writers(self) -> int:
        """How many transactions can write at a time."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Write: all or nothing, durable on return. Inside another one, a savepoint of it."""

    def snapshot(self) -> AbstractContextManager[Session]:
        """Read: everything inside sees one and the same committed state."""

    def close(self) -> None:
        """Release the connections."""


def is_server(place: Path | str) -> bool:
    return str(place).startswith(SERVERS)


def open_database(place: Path | str, *, making: bool = True, migrating: bool = False) -> Database:
    """Open the database, and make its tables if it is empty and `making` allows that.

    Older tables of a file are brought to this version; those of a server only if `migrating`, since
    other processes may be at work on them.
    """
    if not is_server(place):
        if not making and is_missing(place):
            raise ConfigurationError(f"There is no database {place}.")
        return SqliteFile(place)
    try:
        from sharedlog_service.engines.postgres import PostgresServer
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"PostgreSQL needs {error.name}. Run: pip install 'sharedlog[service,postgres]'"
        ) from error
    return PostgresServer(str(place), making=making, migrating=migrating)


def open_notices(
    place: Path | str, new_id: IdSource, heard: Heard, missed: Callable[[], None]
) -> Notices | None:
    """Return what passes news between the processes at a server's database (see notices.py). On a
    file there is one service."""
    if not is_server(place):
        return None
    from sharedlog_service.engines.notices import Notices

    return Notices(str(place), new_id(), heard, missed)


def is_missing(place: Path | str) -> bool:
    """Whether this is a file that opening would make."""
    return not is_server(place) and not Path(place).exists()


def check_place(place: Path | str) -> None:
    """Refuse a file that cannot be read, written or made; makes nothing."""
    if not is_server(place):
        check_writable(Path(place))


def check_stopped(place: Path | str) -> None:
    """Refuse a file that a service, or anybody else, has open."""
    if not is_server(place) and not is_missing(place):
        check_unused(Path(place))


def shown(place: Path | str) -> str:
    """The database as it may be shown: without a password."""
    if not is_server(place):
        return str(Path(place).absolute())
    scheme, _, rest = str(place).partition("://")
    address, mark, query = rest.partition("?")
    account, at, server = address.rpartition("@")
    parameters = "&".join(p for p in query.split("&") if "password" not in p.lower())
    return f"{scheme}://{account.partition(':')[0]}{at}{server}{mark}{parameters}"
