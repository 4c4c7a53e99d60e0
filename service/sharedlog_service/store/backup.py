"""A service's whole state in one SQLite file: written while the service runs, and put back.

A backup is compared with what was to be saved when it is made, and with what it says of itself when
it is put back. What is put back begins a new life: each log has another epoch, by which devices
notice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import apsw

from sharedlog_service.engines.database import check_place, is_missing, is_server, open_database
from sharedlog_service.engines.tables import STEPS
from sharedlog_service.entries import SEQ_BITS
from sharedlog_service.errors import ConfigurationError
from sharedlog_service.store.copying import copy
from sharedlog_service.store.digests import (
    changed_table,
    drop_digests,
    keep_digests,
    kept_digests,
    make_digests,
)
from sharedlog_service.store.store import Store

PAGES = 1_000
"""Of a file, copied between two reports of progress."""

BESIDE = ("", "-wal", "-shm", "-journal")
"""How the names of the files end that one database consists of."""

PLACES = f"""
    SELECT logs.head, logs.dropped, count(place.id), coalesce(max(place.seq), 0),
        coalesce(sum(gone), 0)
    FROM logs LEFT JOIN (
        SELECT id, id >> {SEQ_BITS} AS log, id & {(1 << SEQ_BITS) - 1} AS seq, 0 AS gone
        FROM entries
        UNION ALL
        SELECT id, id >> {SEQ_BITS}, id & {(1 << SEQ_BITS) - 1}, 1 FROM dropped
    ) AS place ON place.log = logs.id GROUP BY logs.id
"""
"""A log's numbers, and what there is: the places taken, the last one, and those dropped."""

Tell = Callable[[str], None]
"""Is told how far it is, in words."""


class Saved(NamedTuple):
    """What a backup holds."""

    logs: int
    entries: int
    compared: bool = True
    """Whether each row is what it was. Backups made before they had digests do not tell."""


def back_up(place: Path | str, file: Path, tell: Tell = lambda text: None) -> Saved:
    """Write the state of one moment into a new file. Others may read and write meanwhile.

    The file is there whole and checked, or not at all. Older tables stay as they are.
    """
    if is_missing(place):
        raise ConfigurationError(f"There is no database {place}.")
    check_free(file)
    with _making(file) as part:
        if is_server(place):
            with (
                closing(open_database(place, making=False)) as source,
                closing(open_database(part)) as target,
            ):
                copy(source, target, lambda table, rows: tell(f"{table}: {rows:,} rows"))
            with _moment(part) as saved:
                digests = make_digests(saved)
        else:
            with _moment(Path(place)) as saved:
                _copy_pages(saved, part, tell)
                digests = make_digests(saved)
        with _plainly(file), closing(_opened(part)) as db:
            keep_digests(db, digests)
        tell("checking")
        check_sound(part, named=file)
        check_digests(part, named=file)
        return check_whole(part, named=file)


def restore(
    file: Path,
    place: Path | str,
    tell: Tell = lambda text: None,
    *,
    revoke_tokens: bool = False,
) -> Saved:
    """Put a backup into a new file, or into an empty database of a server, and begin a new epoch
    of each log. What is there already is not touched; nor is the backup.

    With `revoke_tokens` none of the tokens in it works: some may have been revoked since."""
    if not file.is_file():
        raise ConfigurationError(f"There is no backup {file}.")
    if not is_server(place):
        check_free(Path(place))
        with _making(Path(place)) as part:
            return _prepare(file, part, tell, revoke_tokens)
    with TemporaryDirectory(prefix="sharedlog-") as folder:
        part = Path(folder, "part")
        saved = _prepare(file, part, tell, revoke_tokens)
        with (
            closing(open_database(part)) as source,
            closing(open_database(place)) as target,
        ):
            copy(source, target, lambda table, rows: tell(f"{table}: {rows:,} rows"))
        return saved


def _prepare(file: Path, part: Path, tell: Tell, revoke_tokens: bool) -> Saved:
    """Make a copy of a backup that is of this version, sound, and of a new life."""
    copy_file(file, part, tell)
    tell("checking")
    check_sound(part, named=file)
    compared = check_digests(part, named=file)
    with _plainly(file), closing(_opened(part)) as db:
        drop_digests(db)
    with closing(Store.open(part)) as store:
        store.renew_epochs()
        if revoke_tokens:
            store.revoke_tokens("")
    return check_whole(part, named=file)._replace(compared=compared)


def copy_file(source: Path, target: Path, tell: Tell = lambda text: None) -> None:
    """Copy the state that a file has now, whatever is written to it meanwhile."""
    with _moment(source) as old:
        _copy_pages(old, target, tell)


@contextmanager
def _moment(file: Path) -> Iterator[apsw.Connection]:
    """Hold on to one state of a file. Otherwise each commit of another process would let SQLite
    begin a copy anew, and under load it would never end."""
    with _plainly(file), closing(_opened(file)) as db:
        db.execute("BEGIN")
        _check_ours(db, file)
        yield db


def _copy_pages(old: apsw.Connection, target: Path, tell: Tell) -> None:
    with (
        closing(_opened(target, apsw.SQLITE_OPEN_CREATE)) as new,
        new.backup("main", old, "main") as backup,
    ):
        while not backup.done:
            backup.step(PAGES)
            copied = backup.page_count - backup.remaining
            tell(f"{copied:,} of {backup.page_count:,} pages")


def check_sound(part: Path, *, named: Path) -> None:
    """Make sure that nothing is damaged, and leave all of it in one file."""
    with _plainly(named), closing(_opened(part)) as db:
        db.execute("PRAGMA journal_mode = delete")
        found = [str(text) for (text,) in db.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"] or db.execute("PRAGMA foreign_key_check").fetchall():
            raise ConfigurationError(f"{named} is damaged: {found[0]}")


def check_digests(part: Path, *, named: Path) -> bool:
    """Make sure that each row is what it was; False if no digests tell."""
    with _plainly(named), closing(_opened(part)) as db:
        kept = kept_digests(db)
        if kept is None:
            return False
        changed = changed_table(kept, make_digests(db))
        if changed is not None:
            raise ConfigurationError(
                f"{named} is damaged: the rows of {changed} are not those that were saved. (If a "
                "service has used the file since, it is a backup no more: sharedlog backup makes "
                "one of it.)"
            )
        return True


def check_whole(part: Path, *, named: Path) -> Saved:
    """Make sure that each log has all that it says it has."""
    with _plainly(named), closing(_opened(part)) as db:
        if db.execute("SELECT schema_version FROM meta").get < len(STEPS):
            return Saved(*db.execute("SELECT count(*), coalesce(sum(head), 0) FROM logs").get)
        entries = logs = 0
        for head, dropped, count, last, gone in db.execute(PLACES):
            if not head == count == last or dropped != gone:
                raise ConfigurationError(
                    f"{named} is not whole: a log of {head} entries has {count} of them."
                )
            logs, entries = logs + 1, entries + head - dropped
        return Saved(logs, entries)


def check_free(file: Path) -> None:
    """Refuse to write over anything; what is left of another database would become part of it."""
    check_place(file)
    for suffix in BESIDE:
        if file.with_name(file.name + suffix).exists():
            raise ConfigurationError(
                f"{file}{suffix} exists, and is not written over. Choose another name, or move it "
                "away."
            )


def _check_ours(db: apsw.Connection, file: Path) -> None:
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "logs"} <= names:
        raise ConfigurationError(f"{file} is not a database of this service.")


def _opened(file: Path, flags: int = 0) -> apsw.Connection:
    # Not only for reading: who can only read leaves files behind where nobody else is.
    db = apsw.Connection(str(file), flags=flags | apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(5_000)
    return db


@contextmanager
def _making(file: Path) -> Iterator[Path]:
    """Where to make a file, for its owner only, that gets its name when all is well, and on the
    disk with it."""
    with TemporaryDirectory(prefix=f".{file.name}.", dir=file.absolute().parent) as folder:
        part = Path(folder, "part")
        yield part
        part.chmod(0o600)
        check_free(file)
        part.rename(file)
    with suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(file.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _plainly(file: Path) -> Iterator[None]:
    """Say which file it was that SQLite had trouble with."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is damaged: a text in it is none.") from error
    except apsw.Error as error:
        raise ConfigurationError(f"{file} cannot be copied: {error}") from error
