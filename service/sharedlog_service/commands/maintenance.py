"""The commands of those who look after a database: migrate, copy, backup, restore, compact."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sharedlog_service.commands.choosing import add_option
from sharedlog_service.commands.common import (
    add_database,
    add_json,
    handler,
    open_store,
    parser_of,
    place,
    print_json,
    show_progress,
)
from sharedlog_service.commands.options import EXPIRE, KEEP

if TYPE_CHECKING:
    from sharedlog_service.store.compacting import Compacted

MIGRATE_TEXT = """\
Makes the tables of an empty database, and brings older ones to this version: all of
it, or nothing. It never goes back. The service does the same with an SQLite file
when it starts; with PostgreSQL, where several may run, it refuses to start instead.
A file that is not there is not made.
"""

COPY_TEXT = """\
examples:
  sharedlog copy --from sharedlog.db --to postgresql://sharedlog@db.example/sharedlog
  sharedlog copy --from postgresql://sharedlog@db.example/sharedlog --to sharedlog.db

Copies users, tokens, devices and logs, reads them back and compares. The target must
be empty. Stop the service first: what it takes after the copy began is not in it. (Devices
would notice, and send again what they have of it.)
"""

COMPACT_TEXT = """\
examples:
  sharedlog compact                                 all logs of sharedlog.db
  sharedlog compact --user ada --keep 90            deletions are remembered for 90 days

Drops entries that can change no device's outcome any more: writes that newer ones
overwrote, and what is older than a deletion that nobody needs. Deletions themselves go
when they are older than --keep days and every device has read them that was heard of in
the last --expire days. A device that was away for longer than that begins anew by
itself; what it had not sent yet is kept.

The service may run meanwhile. A run may be ended at any time; the next one goes on.
"""

BACKUP_TEXT = """\
examples:
  sharedlog backup monday.db
  sharedlog backup monday.db --database postgresql://sharedlog@db.example/sharedlog

Writes the state of one moment into a new SQLite file, reads it back and compares: users, tokens
(not their secrets), devices and logs. The service may run meanwhile, and so may its writers.
Nothing is written over. Put it back with: sharedlog restore
"""

RESTORE_TEXT = """\
examples:
  sharedlog restore monday.db
  sharedlog restore monday.db --database postgresql://sharedlog@db.example/sharedlog
  sharedlog restore monday.db --revoke-tokens       then: sharedlog token create --user NAME

Compares a backup with what was saved, and puts it into a new SQLite file or an empty
PostgreSQL database; nothing is written over. Then start the service.

Devices have seen entries that the backup lacks. Each log gets a new epoch, which
tells them to start over and to offer their own entries again, so that what the
backup lacks comes back.
"""

RESTORED_TEXT = """\
Run this after putting back a backup that `sharedlog backup` did not make, before
starting the service.

Devices have seen entries that the backup lacks. Each log gets a new epoch, which
tells them to start over and to offer their own entries again, so that what the
backup lacks comes back. Without it a device could miss entries for ever.
"""


def add_maintenance(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_migrate(parser_of(subparsers, "migrate", "bring a database to this version", MIGRATE_TEXT))
    _add_copy(parser_of(subparsers, "copy", "move everything to another database", COPY_TEXT))
    _add_backup(
        parser_of(subparsers, "backup", "save everything, while the service runs", BACKUP_TEXT)
    )
    _add_restore(parser_of(subparsers, "restore", "put a backup back", RESTORE_TEXT))
    _add_compact(
        parser_of(subparsers, "compact", "drop entries that nobody needs any more", COMPACT_TEXT)
    )
    _add_restored(
        parser_of(subparsers, "restored", "say that the database came from a backup", RESTORED_TEXT)
    )


def _add_migrate(parser: argparse.ArgumentParser) -> None:
    add_database(parser)
    parser.set_defaults(handler=handler(_migrate))


def _add_copy(parser: argparse.ArgumentParser) -> None:
    for option, name in (("--from", "source"), ("--to", "target")):
        parser.add_argument(
            option,
            dest=name,
            type=place,
            required=True,
            metavar="FILE_OR_URL",
            help=f"the {name}: an SQLite file, or postgresql://user@host/name",
        )
    add_json(parser)
    parser.set_defaults(handler=handler(_copy))


def _add_backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the backup, a new file")
    add_database(parser)
    add_json(parser)
    parser.set_defaults(handler=handler(_backup))


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="what `sharedlog backup` wrote")
    add_database(parser)
    parser.add_argument(
        "--revoke-tokens",
        action="store_true",
        help="let no token work that is in the backup: it knows of none that was revoked since",
    )
    add_json(parser)
    parser.set_defaults(handler=handler(_restore))


def _add_compact(parser: argparse.ArgumentParser) -> None:
    add_database(parser)
    parser.add_argument("--user", help="only this user's log")
    add_option(parser, KEEP)
    add_option(parser, EXPIRE)
    add_json(parser)
    parser.set_defaults(handler=handler(_compact))


def _add_restored(parser: argparse.ArgumentParser) -> None:
    add_database(parser)
    add_json(parser)
    parser.set_defaults(handler=handler(_restored))


def _migrate(args: argparse.Namespace) -> int:
    from sharedlog_service.engines.database import check_place, is_missing, shown
    from sharedlog_service.errors import ConfigurationError
    from sharedlog_service.store.store import Store

    if is_missing(args.db):
        raise ConfigurationError(
            f"There is no database {args.db}. (The service makes a new file when it starts.)"
        )
    check_place(args.db)
    Store.open(args.db, migrating=True).close()
    print(f"{shown(args.db)} is of this version.")
    return 0


def _copy(args: argparse.Namespace) -> int:
    from sharedlog_service.engines.database import check_place, open_database, shown
    from sharedlog_service.store.copying import copy

    def tell(table: str, rows: int) -> None:
        show_progress(f"{table}: {rows:,} rows")

    check_place(args.source)
    check_place(args.target)
    with (
        closing(open_database(args.source, making=False)) as source,
        closing(open_database(args.target)) as target,
    ):
        rows = copy(source, target, tell)
    tell("done", rows)
    if args.json:
        return print_json({"database": shown(args.target), "rows": rows})
    print(f"Copied {rows:,} rows to {shown(args.target)}, and compared them.")
    return 0


def _backup(args: argparse.Namespace) -> int:
    from sharedlog_service.store.backup import back_up

    saved = back_up(args.db, args.file, show_progress)
    show_progress("")
    if args.json:
        return print_json({"file": str(args.file), **saved._asdict()})
    print(f"{args.file} is whole. Logs: {saved.logs:,}, entries: {saved.entries:,}.")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from sharedlog_service.engines.database import shown
    from sharedlog_service.store.backup import restore

    saved = restore(args.file, args.db, show_progress, revoke_tokens=args.revoke_tokens)
    show_progress("")
    if args.json:
        told = {"database": shown(args.db), **saved._asdict()}
        return print_json({**told, "tokens_revoked": args.revoke_tokens})
    if args.revoke_tokens:
        left = "All tokens are revoked: sharedlog token create --user NAME makes new ones. Devices"
    else:
        left = "Tokens and devices"
    print(
        f"{shown(args.db)} is ready. Logs, each of a new epoch: {saved.logs:,}, entries: "
        f"{saved.entries:,}.\n"
        f"{left} that were revoked since the backup are to be revoked again."
    )
    if not saved.compared:
        print(
            "The backup has no digests, as older versions made none: its pages and its counts are "
            "checked, its rows could not be compared with what was saved."
        )
    return 0


def _compact(args: argparse.Namespace) -> int:
    from sharedlog_service.settings import DAY_MS, Policy

    policy = Policy(args.keep * DAY_MS, args.expire * DAY_MS)
    told: list[dict[str, str | int]] = []
    with closing(open_store(args, making=False)) as store:
        for user in [args.user] if args.user else store.users():

            def tell(done: Compacted, user: str = user) -> None:
                show_progress(f"{user}: {done.entries:,} entries dropped")

            done = store.compact(user, policy, tell=tell)
            show_progress("")
            left = store.stats(user).entries
            if args.json:
                dropped = {"dropped_entries": done.entries, "dropped_bytes": done.bytes}
                told.append({"user": user, **dropped, "entries": left})
                continue
            print(f"{user}: dropped {done.entries:,} entries ({done.bytes:,} bytes); {left:,} left")
    return print_json(told) if args.json else 0


def _restored(args: argparse.Namespace) -> int:
    from sharedlog_service.engines.database import check_place, check_stopped

    check_place(args.db)
    check_stopped(args.db)
    store = open_store(args, making=False)
    try:
        count = store.renew_epochs()
    finally:
        store.close()
    if args.json:
        return print_json({"logs": count})
    print(f"{count} logs begin a new epoch.")
    return 0
