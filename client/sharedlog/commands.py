"""The commands for a device's database file: status, verify, parked, prune.

They need no models and not the application: the file tells what it tracks. Nothing is written
but by `prune`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .apply.parking import Parked
from .care.care import PRUNE_KEEP_MS
from .care.described import application
from .care.inspection import (
    DeviceFile,
    compare_files,
    in_detail,
    is_database,
    opened,
    saved_digest,
)
from .care.verify import Verified
from .remote.sharedlog import GraphQLSharedLog
from .remote.transports import HttpTransport
from .tables.digest import Difference, Digest, text_of

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Handler = Callable[[argparse.Namespace], int]

DIFFERENT = 3
"""The exit code of `verify` where something differs."""

DAY_MS = 24 * 3600 * 1000
SHOWN = 20

STATUS = """\
Tell where a device stands, from its database file alone: what it has to send,
what is parked or set aside, when it last met the service and how that ended.
"""

STATUS_EXAMPLES = """\
examples:
  sharedlog status shop.db
  sharedlog status shop.db --json | jq .pending

exit codes: 0 done, 1 the file cannot be read, 2 used wrongly
"""

VERIFY = """\
Check that a device has what it should have.

FILE alone           prints a digest of each table. Equal digests, equal rows.
FILE OTHER           compares two devices; OTHER is a second file, or a digest of
                     one that was saved with --json on another machine.
FILE --url --token   reads the whole log from the service and compares the file
                     with what it comes to. Finds what was changed behind the
                     recorder's back: by raw SQL, by other programs.

Nothing is changed, here or there. In the differences, "here" is FILE.
"""

VERIFY_EXAMPLES = """\
examples:
  sharedlog verify desk.db tablet.db
  sharedlog verify tablet.db --json > tablet.json      on the tablet, then
  sharedlog verify desk.db tablet.json                 on the desk
  sharedlog verify desk.db --url https://example.org/graphql --token slog_...

The token may stand in the environment, as SHAREDLOG_TOKEN. Sync before you
compare two devices: what is on its way differs. Processors, upgraders, merge rules
and serializers that the application wrote are known to its sync.verify() only.

exit codes: 0 equal, 3 something differs, 1 it could not be checked, 2 used wrongly
"""

PARKED = """\
List what could not be applied, with the reason: rows that cannot stand in their
tables yet, received entries that cannot be read, and changes of this device that
the service refused. The first two are tried again by every sync.
"""

PARKED_EXAMPLES = """\
examples:
  sharedlog parked shop.db
  sharedlog parked shop.db --json

exit codes: 0 done, whether something is listed or not, 1 the file cannot be
read, 2 used wrongly
"""

PRUNE = """\
Delete sent entries from a device's client log. No later outcome changes: who wrote
what last is kept apart, and so are the marks of deletions. What only this device
has stays, whatever its age: entries that are not sent or were refused, received
entries that cannot be read, and the values of parked rows. The file does not
shrink by it; SQLite uses the space again.
"""

PRUNE_EXAMPLES = """\
examples:
  sharedlog prune shop.db                    what is older than 30 days
  sharedlog prune shop.db --keep-days 7

exit codes: 0 done, 1 the file cannot be read or written, 2 used wrongly
"""


def add_commands(subparsers: Subparsers) -> None:
    """Register the commands; each sets `handler`, to be called with the parsed arguments."""
    _add(subparsers, "status", "tell where a device stands", STATUS, STATUS_EXAMPLES, _status)
    verify = _add(subparsers, "verify", "check what a device has", VERIFY, VERIFY_EXAMPLES, _verify)
    verify.add_argument(
        "other", type=Path, nargs="?", metavar="OTHER", help="another file, or a saved digest"
    )
    verify.add_argument("--url", help="the service's GraphQL address")
    verify.add_argument("--token", help="this user's token (default: $SHAREDLOG_TOKEN)")
    verify.add_argument("--user", help="whose log, for a service without tokens")
    verify.add_argument(
        "--rows", action="store_true", help="FILE alone: a hash of each row, too, with --json"
    )
    verify.add_argument(
        "--limit", type=_count, default=SHOWN, help=f"list so many differences (default: {SHOWN})"
    )
    verify.set_defaults(parser=verify)
    _add(subparsers, "parked", "list what could not be applied", PARKED, PARKED_EXAMPLES, _parked)
    prune = _add(subparsers, "prune", "delete old sent entries", PRUNE, PRUNE_EXAMPLES, _prune)
    days = PRUNE_KEEP_MS // DAY_MS
    prune.add_argument(
        "--keep-days", type=_count, default=days, help=f"keep so many (default: {days})"
    )


def _add(
    subparsers: Subparsers,
    name: str,
    help: str,
    description: str,
    epilog: str,
    handler: Handler,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the application's database file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=handler)
    return parser


def _count(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


# -- status, parked, prune ---------------------------------------------------------------


def _status(arguments: argparse.Namespace) -> int:
    with opened(arguments.file) as file:
        status = file.status()
    if arguments.json:
        _print_json(status.to_json())
    else:
        _print(status)
    return 0


def _parked(arguments: argparse.Namespace) -> int:
    with opened(arguments.file) as file:
        parked, refused = file.parked(), file.refused()
    rows = [found for found in parked if found.entry is None]
    unreadable = [found for found in parked if found.entry is not None]
    if arguments.json:
        _print_json(
            {
                "parked": [_row_json(found) for found in rows],
                "unreadable": [_entry_json(found) for found in unreadable],
                "refused": [asdict(found) for found in refused],
            }
        )
        return 0
    _print_list(
        "parked", "row", rows, lambda p: (_name(p.collection, p.pk), f"{p.code}: {p.reason}")
    )
    _print_list("unreadable", "entry", unreadable, lambda p: (_source(p), p.reason))
    _print_list(
        "refused",
        "change",
        refused,
        lambda r: (f"{r.operation} {_name(r.collection, r.pk)}", r.reason),
    )
    if not (rows or unreadable or refused):
        _print("Nothing is parked, unreadable or refused.")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    with opened(arguments.file, write=True) as file:
        pruned = file.prune(arguments.keep_days * DAY_MS)
    if arguments.json:
        _print_json(asdict(pruned))
        return 0
    _print(f"{_counted(pruned.deleted, 'entry')} deleted, {pruned.kept:,} kept.")
    if pruned.unmerged:
        _print(
            f"{pruned.unmerged:,} of these can go once the application has merged its own "
            "changes: sync.prune() does that."
        )
    return 0


# -- verify ------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.other is not None and arguments.url is not None:
        arguments.parser.error("compare with OTHER or with --url, not with both")
    if arguments.url is None and (arguments.token or arguments.user):
        arguments.parser.error("--token and --user are for the service at --url, which is missing")
    with opened(arguments.file) as file:
        _warn_of_gone_tables(file)
        if arguments.url is not None:
            return _verify_log(arguments, file)
        if arguments.other is None:
            return _show_digest(arguments, file)
        if not is_database(_existing(arguments)):
            there = saved_digest(arguments.other)
            here = file.digest(rows=True)
            found = here.compare(there)
            return _tell(arguments, [here, there], len(found), found[: arguments.limit])
        with opened(arguments.other) as other:
            _warn_of_gone_tables(other)
            here, there, found = compare_files(file, other)
            listed = [in_detail(one, file, other) for one in found[: arguments.limit]]
    return _tell(arguments, [here, there], len(found), listed)


def _warn_of_gone_tables(file: DeviceFile) -> None:
    if gone := file.gone_tables():
        _warn(f"{file.path} has no table {', '.join(gone)} any more: nothing of that is compared.")


def _existing(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.other
    if path.is_dir():
        arguments.parser.error(f"{path} is a folder; a device's file or a digest is needed")
    if not path.is_file():
        arguments.parser.error(f"there is no file {path}")
    return path


def _verify_log(arguments: argparse.Namespace, file: DeviceFile) -> int:
    token = arguments.token or os.environ.get("SHAREDLOG_TOKEN")
    if not token and arguments.user is None:
        arguments.parser.error("give --token (or SHAREDLOG_TOKEN), or --user without tokens")
    if application(file.journal).get("processors"):
        _warn("The application's processors are not known here; what they change differs.")
    shared_log = GraphQLSharedLog(HttpTransport(arguments.url, token), arguments.user)
    try:
        verified = file.verify(shared_log, arguments.limit, _ignore)
    finally:
        shared_log.close()
    if not arguments.json:
        _print(
            f"{arguments.file}: {_counted(verified.rows, 'row')} compared with "
            f"{_counted(verified.entries, 'entry')} of the log, {verified.parked:,} parked"
        )
    return _tell(arguments, [], verified.count, verified.differences)


def _ignore(_: Verified) -> None:
    """Progress goes nowhere: output is for reading, or for a program."""


def _show_digest(arguments: argparse.Namespace, file: DeviceFile) -> int:
    digest = file.digest(rows=arguments.rows)
    if arguments.json:
        _print_json(digest.to_json())
        return 0
    _print(_place(arguments.file, digest))
    for name, found in digest.collections.items():
        parked = f", {found.parked:,} parked  {found.parked_digest}" if found.parked else ""
        _print(f"  {name:<20} {_counted(found.rows, 'row'):>14}  {found.digest}{parked}")
    _print("Nothing was compared: give another file, a saved digest, or --url. See --help.")
    return 0


def _tell(
    arguments: argparse.Namespace,
    digests: list[Digest],
    count: int,
    listed: list[Difference],
) -> int:
    if arguments.json:
        _print_json(
            {
                "equal": count == 0,
                "count": count,
                "differences": [asdict(difference) for difference in listed],
                "places": [
                    {"device": d.device, "checkpoint": d.checkpoint, "pending": d.pending}
                    for d in digests
                ],
            }
        )
        return DIFFERENT if count else 0
    for path, digest in zip((arguments.file, arguments.other), digests, strict=False):
        _print(_place(path, digest))
    for difference in listed:
        _print(f"  {difference}")
    if count > len(listed):
        _print(f"  and {count - len(listed):,} more; --limit lists them")
    _print("Equal." if not count else f"{_counted(count, 'difference')}.")
    if count and len({(digest.checkpoint, digest.pending) for digest in digests}) > 1:
        _print("They are not at the same place of the log: sync both, and compare again.")
    return DIFFERENT if count else 0


def _place(path: Path, digest: Digest) -> str:
    rows = sum(found.rows for found in digest.collections.values())
    place = f"up to {digest.checkpoint}" if digest.checkpoint else "nothing received"
    return f"{path}: {_counted(rows, 'row')}, {place}, {digest.pending:,} to send"


# -- text --------------------------------------------------------------------------------


def _print(text: object) -> None:
    sys.stdout.write(f"{text}\n")


def _warn(text: str) -> None:
    sys.stderr.write(f"sharedlog: {text}\n")


def _print_json(value: Any) -> None:
    _print(json.dumps(value, indent=2, default=str))


def _print_list(
    what: str, one: str, found: Iterable[Any], lines: Callable[[Any], tuple[str, str]]
) -> None:
    pairs = [lines(each) for each in found]
    if pairs:
        _print(f"{_counted(len(pairs), f'{what} {one}')}:")
    for name, reason in pairs:
        _print(f"  {name}\n      {reason}")


def _counted(count: int, one: str) -> str:
    many = f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"
    return f"{count:,} {one if count == 1 else many}"


def _name(collection: str | None, pk: Any) -> str:
    return f"{collection} {text_of(pk)}"


def _source(parked: Parked) -> str:
    entry = parked.entry
    return f"{entry.device} at {entry.ticks}" if entry is not None else ""


def _row_json(parked: Parked) -> dict[str, Any]:
    return {
        "collection": parked.collection,
        "pk": parked.pk,
        "code": parked.code,
        "reason": parked.reason,
        "values": dict(parked.values),
    }


def _entry_json(parked: Parked) -> dict[str, Any]:
    entry = parked.entry
    return {
        "device": entry and entry.device,
        "ticks": entry and entry.ticks,
        "reason": parked.reason,
        "data": entry and entry.data,
    }
