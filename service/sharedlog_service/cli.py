"""The service's commands: serve, token, schema. Imports nothing heavy until one of them runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sharedlog_service.serving import Announcement
    from sharedlog_service.store import Store

Handler = Callable[[argparse.Namespace], int]

SERVE_EXAMPLES = """\
examples:
  sharedlog serve                             sharedlog.db in this folder, port 8000
  sharedlog serve --db /srv/log.db --host 0.0.0.0 --port 9000
  sharedlog serve --no-auth                   no tokens; this machine only

The first start on an empty database makes a user and prints its token, once.
"""

TOKEN_EXAMPLES = """\
examples:
  sharedlog token create --user ada --name laptop
  sharedlog token list
  sharedlog token revoke 3f9ac01b22d4          the id that list shows
"""

SCHEMA_EXAMPLES = """\
examples:
  sharedlog schema                             print the GraphQL schema
  sharedlog schema --output schema.graphql     write it
  sharedlog schema --check schema.graphql      exit 1 when the file is out of date
"""


MIGRATE_TEXT = """\
Makes the tables of an empty database, and brings older ones to this version: all of
it, or nothing. It never goes back. The service does the same with an SQLite file
when it starts; with PostgreSQL, where several may run, it refuses to start instead.
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

RESTORED_TEXT = """\
Run this after putting back a backup of the database, before starting the service.

Devices have seen entries that the backup lacks. Each log gets a new epoch, which
tells them to start over and to offer their own entries again, so that what the
backup lacks comes back. Without it a device could miss entries for ever.
"""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands; each sets `handler`, to be called with the parsed arguments."""
    _add_serve(_parser(subparsers, "serve", "run the service", SERVE_EXAMPLES))
    _add_token(_parser(subparsers, "token", "make, list and revoke tokens", TOKEN_EXAMPLES))
    _add_schema(_parser(subparsers, "schema", "print the GraphQL schema", SCHEMA_EXAMPLES))
    _add_migrate(_parser(subparsers, "migrate", "bring a database to this version", MIGRATE_TEXT))
    _add_copy(_parser(subparsers, "copy", "move everything to another database", COPY_TEXT))
    _add_compact(
        _parser(subparsers, "compact", "drop entries that nobody needs any more", COMPACT_TEXT)
    )
    _add_restored(
        _parser(subparsers, "restored", "say that the database came from a backup", RESTORED_TEXT)
    )


def _parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    return subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        "--db",
        dest="db",
        type=_place,
        default=Path("sharedlog.db"),
        metavar="FILE_OR_URL",
        help="an SQLite file, or postgresql://user@host/name (default: sharedlog.db in this "
        "folder)",
    )


def _place(text: str) -> Path | str:
    from sharedlog_service.database import is_server

    if "://" in text and not is_server(text):
        raise argparse.ArgumentTypeError(
            "an address begins with postgresql://; anything else is the name of a file"
        )
    return text if is_server(text) else Path(text)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port, 0 for any free one (default: 8000)"
    )
    parser.add_argument("--user", help="the user made on an empty database (default: me)")
    parser.add_argument(
        "--no-auth", action="store_true", help="ask for no tokens; on loopback addresses only"
    )
    parser.add_argument(
        "--compact-every",
        type=float,
        metavar="HOURS",
        help="compact all logs so often, as `sharedlog compact` does (default: never)",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="write {url, graphiql, user, token} as JSON here once the service answers",
    )
    parser.set_defaults(handler=_handler(_serve))


def _add_token(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _parser(actions, "create", "make a token and print it, once")
    create.add_argument("--user", required=True, help="whose log it opens; made if new")
    create.add_argument("--name", default="", help="what to call it, for the list")
    create.set_defaults(handler=_handler(_token_create))
    listing = _parser(actions, "list", "show the tokens, but not their secrets")
    listing.set_defaults(handler=_handler(_token_list))
    revoke = _parser(actions, "revoke", "make a token stop working at once")
    revoke.add_argument("id", help="as `token list` shows it")
    revoke.set_defaults(handler=_handler(_token_revoke))
    for action in (create, listing, revoke):
        _add_database(action)


def _add_schema(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", type=Path, metavar="FILE", help="compare instead of printing")
    choice.add_argument("--output", type=Path, metavar="FILE", help="write instead of printing")
    parser.set_defaults(handler=_handler(_schema))


def _add_migrate(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.set_defaults(handler=_handler(_migrate))


def _add_copy(parser: argparse.ArgumentParser) -> None:
    for option, name in (("--from", "source"), ("--to", "target")):
        parser.add_argument(
            option,
            dest=name,
            type=_place,
            required=True,
            metavar="FILE_OR_URL",
            help=f"the {name}: an SQLite file, or postgresql://user@host/name",
        )
    parser.set_defaults(handler=_handler(_copy))


def _add_compact(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.add_argument("--user", help="only this user's log")
    parser.add_argument("--keep", type=_days, default=30, metavar="DAYS", help="default: 30")
    parser.add_argument("--expire", type=_days, default=180, metavar="DAYS", help="default: 180")
    parser.set_defaults(handler=_handler(_compact))


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise argparse.ArgumentTypeError("at least 1 day")
    return days


def _add_restored(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.set_defaults(handler=_handler(_restored))


def _handler(run: Handler) -> Handler:
    """Turn what the user can mend into a sentence and an exit code."""

    def handle(args: argparse.Namespace) -> int:
        try:
            from sharedlog_service.errors import ConfigurationError, Refused

            return run(args)
        except ModuleNotFoundError as error:
            print(
                f"The service needs {error.name}. Run: pip install 'sharedlog[service]'",
                file=sys.stderr,
            )
            return 1
        except (ConfigurationError, Refused) as error:
            print(error, file=sys.stderr)
            return 2

    return handle


def _serve(args: argparse.Namespace) -> int:
    from sharedlog_service.serving import serve
    from sharedlog_service.settings import HOUR_MS, Settings

    every = args.compact_every
    settings = Settings(
        db=args.db,
        host=args.host,
        no_auth=args.no_auth,
        compact_every_ms=None if every is None else int(every * HOUR_MS),
    )

    def announce(found: Announcement) -> None:
        print(found.for_people(), flush=True)
        if args.ready_file:
            _write_private(args.ready_file, json.dumps(found.for_machines()))

    def warn(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return serve(settings, port=args.port, user=args.user, announce=announce, warn=warn)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, and that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _open(args: argparse.Namespace, *, making: bool = True) -> Store:
    from sharedlog_service.store import Store

    return Store.open(args.db, making=making)


def _token_create(args: argparse.Namespace) -> int:
    from sharedlog_service.auth import check_user_name, issue_token
    from sharedlog_service.database import check_place, is_missing, shown

    # Before the file is there: a refused command must not leave one behind.
    check_user_name(args.user)
    check_place(args.db)
    new = is_missing(args.db)
    store = _open(args)
    try:
        token = issue_token(store, args.user, args.name)
    finally:
        store.close()
    if new:
        print(
            f"Made a new database {shown(args.db)}. "
            "(A service that runs elsewhere does not know this token.)",
            file=sys.stderr,
        )
    print(token)
    return 0


def _token_list(args: argparse.Namespace) -> int:
    from sharedlog_service.auth import TOKEN_ID_CHARS

    store = _open(args, making=False)
    try:
        tokens = store.tokens()
    finally:
        store.close()
    for token in tokens:
        state = "revoked" if token.revoked_at else "valid"
        print(f"{token.hash[:TOKEN_ID_CHARS]}  {state:7}  {token.user}  {token.name}")
    return 0


def _token_revoke(args: argparse.Namespace) -> int:
    from sharedlog_service.auth import revoke_token

    store = _open(args, making=False)
    try:
        revoke_token(store, args.id)
    finally:
        store.close()
    print(f"{args.id} is revoked.")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from sharedlog_service.schema import build_schema

    text = build_schema().as_str() + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    elif args.check:
        if not args.check.exists() or args.check.read_text(encoding="utf-8") != text:
            print(
                f"{args.check} is out of date. Run: sharedlog schema --output {args.check}",
                file=sys.stderr,
            )
            return 1
    else:
        sys.stdout.write(text)
    return 0


def _migrate(args: argparse.Namespace) -> int:
    from sharedlog_service.database import check_place, shown
    from sharedlog_service.store import Store

    check_place(args.db)
    Store.open(args.db, migrating=True).close()
    print(f"{shown(args.db)} is of this version.")
    return 0


def _copy(args: argparse.Namespace) -> int:
    from sharedlog_service.copying import copy
    from sharedlog_service.database import check_place, open_database, shown

    def tell(table: str, rows: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{table}: {rows:,} rows", end="\x1b[K", file=sys.stderr, flush=True)

    check_place(args.target)
    with (
        closing(open_database(args.source, making=False)) as source,
        closing(open_database(args.target)) as target,
    ):
        rows = copy(source, target, tell)
    tell("done", rows)
    print(f"Copied {rows:,} rows to {shown(args.target)}, and compared them.")
    return 0


def _compact(args: argparse.Namespace) -> int:
    from sharedlog_service.compacting import Compacted
    from sharedlog_service.settings import DAY_MS, Policy

    policy = Policy(args.keep * DAY_MS, args.expire * DAY_MS)
    with closing(_open(args, making=False)) as store:
        for user in [args.user] if args.user else store.users():

            def tell(done: Compacted, user: str = user) -> None:
                if sys.stderr.isatty():
                    print(
                        f"\r{user}: {done.entries:,} entries dropped",
                        end="\x1b[K",
                        file=sys.stderr,
                        flush=True,
                    )

            done = store.compact(user, policy, tell=tell)
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr)
            left = store.stats(user).entries
            print(f"{user}: dropped {done.entries:,} entries ({done.bytes:,} bytes); {left:,} left")
    return 0


def _restored(args: argparse.Namespace) -> int:
    store = _open(args, making=False)
    try:
        count = store.renew_epochs()
    finally:
        store.close()
    print(f"{count} logs begin a new epoch.")
    return 0
