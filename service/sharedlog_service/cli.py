"""The service's commands: serve, settings, token, schema. Imports nothing heavy until one runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharedlog_service.commands.choosing import add_option, add_settings_file
from sharedlog_service.commands.common import (
    add_database,
    add_json,
    handler,
    open_store,
    parser_of,
    print_json,
)
from sharedlog_service.commands.inspection import add_inspection
from sharedlog_service.commands.maintenance import add_maintenance
from sharedlog_service.commands.options import DAYS_MAX, OPTIONS
from sharedlog_service.grants import USUAL, Scope, scopes_of

if TYPE_CHECKING:
    from sharedlog_service.commands.serving import Announcement
    from sharedlog_service.engines.tables import Token
    from sharedlog_service.settings import Issuer
    from sharedlog_service.store.store import Store

SERVE_EXAMPLES = """\
examples:
  sharedlog serve                             sharedlog.db in this folder, port 8000
  sharedlog serve --database /srv/log.db --port 9000
  sharedlog serve --host 0.0.0.0              for other machines, too
  sharedlog serve --no-auth                   no tokens; this machine only
  sharedlog serve --no-explore                behind a proxy that others reach

The first start on an empty database makes a user and prints its token, once.
"""

SETTINGS_TEXT = """\
examples:
  sharedlog settings                          each setting, and who says so
  sharedlog settings --json --port 9000       as it would be with this flag

Each of these options may also stand in a file, sharedlog.toml, or in the environment:
  port = 9000
  SHAREDLOG_PORT=9000
A flag counts more than the environment, and that more than the file. The flags
--no-auth and --no-explore are there auth = false and SHAREDLOG_EXPLORE=false.
Passwords are not shown.
"""

TOKEN_EXAMPLES = """\
examples:
  sharedlog token create --user ada --name laptop
  sharedlog token create --user ada --scope log:read --days 90
  sharedlog token list
  sharedlog token rotate 3f9ac01b22d4          another one; the old one works for a day
  sharedlog token revoke 3f9ac01b22d4          the id that list shows
"""

SCHEMA_EXAMPLES = """\
examples:
  sharedlog schema                             print the GraphQL schema
  sharedlog schema --output schema.graphql     write it
  sharedlog schema --check schema.graphql      exit 1 when the file is out of date
"""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands; each sets `handler`, to be called with the parsed arguments."""
    _add_serve(parser_of(subparsers, "serve", "run the service", SERVE_EXAMPLES))
    _add_settings(parser_of(subparsers, "settings", "show what `serve` would do", SETTINGS_TEXT))
    _add_token(parser_of(subparsers, "token", "make, list and revoke tokens", TOKEN_EXAMPLES))
    _add_schema(parser_of(subparsers, "schema", "print the GraphQL schema", SCHEMA_EXAMPLES))
    add_inspection(subparsers)
    add_maintenance(subparsers)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for option in OPTIONS:
        add_option(parser, option)
    add_settings_file(parser)
    parser.set_defaults(handler=handler(_serve))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    _add_serve(parser)
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(handler=handler(_settings))


def _issuer(args: argparse.Namespace) -> Issuer | None:
    from sharedlog_service.errors import ConfigurationError
    from sharedlog_service.settings import Issuer

    needed = (args.jwt_issuer, args.jwt_audience, args.jwt_jwks)
    if not any(needed):
        return None
    if not all(needed):
        raise ConfigurationError("--jwt-issuer, --jwt-audience and --jwt-jwks go together.")
    if "://" not in args.jwt_jwks and not Path(args.jwt_jwks).is_file():
        raise ConfigurationError(f"--jwt-jwks: There is no file {args.jwt_jwks}.")
    return Issuer(
        issuer=args.jwt_issuer,
        audience=args.jwt_audience,
        jwks=args.jwt_jwks,
        user_claim=args.jwt_user_claim,
        scope_claim=args.jwt_scope_claim,
        scopes=args.jwt_scope,
        device_claim=args.jwt_device_claim,
    )


def _add_token(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = parser_of(actions, "create", "make a token and print it, once")
    create.add_argument("--user", required=True, help="whose log it opens; made if new")
    create.add_argument("--name", default="", help="what to call it, for the list")
    create.set_defaults(handler=handler(_token_create))
    scopes = [scope.value for scope in Scope]
    usual = [scope.value for scope in Scope if scope in USUAL]
    create.add_argument(
        "--scope",
        action="append",
        choices=scopes,
        metavar="SCOPE",
        help=f"what it may do, may be repeated: {', '.join(sorted(scopes))} "
        f"(default: {', '.join(usual)})",
    )
    create.add_argument("--device", help="the only device it may act as")
    create.add_argument(
        "--days", type=_whole(1, DAYS_MAX), help="how long it is good (default: for ever)"
    )
    rotate = parser_of(actions, "rotate", "make a token that replaces another one")
    rotate.add_argument("id", help="as `token list` shows it")
    rotate.add_argument(
        "--grace",
        type=_whole(0, 24 * DAYS_MAX),
        default=24,
        metavar="HOURS",
        help="how long both work (default: 24)",
    )
    rotate.set_defaults(handler=handler(_token_rotate))
    listing = parser_of(actions, "list", "show the tokens, but not their secrets")
    listing.set_defaults(handler=handler(_token_list))
    revoke = parser_of(actions, "revoke", "make a token stop working at once")
    revoke.add_argument("id", help="as `token list` shows it")
    revoke.set_defaults(handler=handler(_token_revoke))
    for action in (create, rotate, listing, revoke):
        add_database(action)
        add_json(action)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return read


def _add_schema(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", type=Path, metavar="FILE", help="compare instead of printing")
    choice.add_argument("--output", type=Path, metavar="FILE", help="write instead of printing")
    parser.set_defaults(handler=handler(_schema))


def _serve(args: argparse.Namespace) -> int:
    from sharedlog_service.commands.serving import serve
    from sharedlog_service.errors import ConfigurationError
    from sharedlog_service.settings import DAY_MS, HOUR_MS, Limits, Policy, Settings
    from sharedlog_service.web.reporting import reporting

    if args.ready_file and not args.ready_file.absolute().parent.is_dir():
        raise ConfigurationError(f"The folder of {args.ready_file} does not exist.")
    every = args.compact_every
    settings = Settings(
        db=args.db,
        host=args.host,
        no_auth=not args.auth,
        explore=args.explore,
        compact_every_ms=None if every is None else int(every * HOUR_MS),
        compaction=Policy(args.keep * DAY_MS, args.expire * DAY_MS),
        grace_s=args.grace,
        workers=args.workers,
        issuer=_issuer(args),
        limits=Limits(
            log_entries=args.quota_entries or None,
            log_bytes=args.quota_bytes or None,
            log_devices=args.quota_devices or None,
            answers_bytes=args.answers_bytes or None,
        ),
    )
    named = {
        "requests": args.requests_per_minute,
        "entries": args.entries_per_minute,
        "bytes": args.bytes_per_minute,
    }
    chosen = {measure: rate or None for measure, rate in named.items() if rate is not None}
    settings = replace(settings, rates=settings.metered._replace(**chosen))

    def announce(found: Announcement) -> None:
        print(found.for_people(), flush=True)
        if args.ready_file:
            _write_private(args.ready_file, json.dumps(found.for_machines()))

    def warn(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with reporting(sys.stderr, args.log_format):
        return serve(settings, port=args.port, user=args.user, announce=announce, warn=warn)


def _settings(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps({c.option.name: c.for_machines() for c in args.choices}, indent=2))
        return 0
    rows = [(c.option.name, c.shown, c.source) for c in args.choices]
    name_width, value_width = (max(len(row[n]) for row in rows) for n in (0, 1))
    for name, value, source in rows:
        print(f"{name:{name_width}}  {value:{value_width}}  {source}")
    return 0


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, and that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _token_create(args: argparse.Namespace) -> int:
    from sharedlog_service.access.auth import check_user_name, issue_token
    from sharedlog_service.engines.database import is_missing, shown
    from sharedlog_service.settings import DAY_MS

    # Before the file is there: a refused command must not leave one behind.
    check_user_name(args.user)
    new = is_missing(args.db)
    store = open_store(args)
    try:
        token = issue_token(
            store,
            args.user,
            args.name,
            scopes=scopes_of(args.scope) if args.scope else USUAL,
            device=args.device,
            expires_at=None if args.days is None else store.now() + args.days * DAY_MS,
        )
        _print_token(args, store, token)
    finally:
        store.close()
    if new:
        print(
            f"Made a new database {shown(args.db)}. "
            "(A service that runs elsewhere does not know this token.)",
            file=sys.stderr,
        )
    return 0


def _token_rotate(args: argparse.Namespace) -> int:
    from sharedlog_service.access.auth import rotate_token
    from sharedlog_service.settings import HOUR_MS

    store = open_store(args, making=False)
    try:
        token = rotate_token(store, args.id, args.grace * HOUR_MS)
        _print_token(args, store, token, replaces=args.id)
    finally:
        store.close()
    return 0


def _print_token(args: argparse.Namespace, store: Store, token: str, **more: str) -> None:
    """Print the secret, once; for programs with what the list tells of it."""
    from sharedlog_service.access.auth import token_digest

    if not args.json:
        print(token)
        return
    digest, now = token_digest(token), store.now()
    (found,) = (_as_json(row, now) for row in store.tokens() if row.hash == digest)
    print_json({"token": token, **found, **more})


def _as_json(token: Token, now: int) -> dict[str, Any]:
    from sharedlog_service.access.auth import TOKEN_ID_CHARS

    expired = token.expires_at is not None and token.expires_at <= now
    return {
        "id": token.hash[:TOKEN_ID_CHARS],
        "state": "revoked" if token.revoked_at else "expired" if expired else "valid",
        "user": token.user,
        "name": token.name,
        "device": token.device,
        "scopes": token.scopes,
        "expires_at": token.expires_at,
    }


def _token_list(args: argparse.Namespace) -> int:
    store = open_store(args, making=False)
    try:
        now = store.now()
        found = [_as_json(token, now) for token in store.tokens()]
    finally:
        store.close()
    if args.json:
        return print_json(found)
    for each in found:
        words = [each["id"], f"{each['state']:7}", each["user"], each["name"]]
        words += [f"device={each['device']}"] if each["device"] else []
        words += [] if each["scopes"] is None else [each["scopes"]]
        print("  ".join(words))
    return 0


def _token_revoke(args: argparse.Namespace) -> int:
    from sharedlog_service.access.auth import revoke_token

    store = open_store(args, making=False)
    try:
        revoke_token(store, args.id)
    finally:
        store.close()
    if args.json:
        return print_json({"id": args.id, "revoked": True})
    print(f"{args.id} is revoked.")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from sharedlog_service.api.schema import build_schema

    text = build_schema().as_str() + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    elif args.check:
        # With errors replaced: what is no text is no schema, either.
        if not args.check.exists() or args.check.read_text("utf-8", errors="replace") != text:
            print(
                f"{args.check} is out of date. Run: sharedlog schema --output {args.check}",
                file=sys.stderr,
            )
            return 1
    else:
        sys.stdout.write(text)
    return 0
