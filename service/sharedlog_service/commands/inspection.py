"""The commands of those who want to see what a service holds: users, devices, log, stats."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sharedlog_service.commands.common import (
    add_database,
    add_json,
    handler,
    open_store,
    parser_of,
    print_json,
)
from sharedlog_service.commands.listing import Since, harmless, moment, table
from sharedlog_service.entries import NUMBERS, OPERATIONS, EntryFilter, read_change, to_ms
from sharedlog_service.errors import Code, ConfigurationError, Refused

if TYPE_CHECKING:
    from sharedlog_service.entries import Device, Page, StoredEntry
    from sharedlog_service.store.store import Store

PORTION = 1_000
NEWEST = 10
FOLLOW_S = 1.0

USERS_TEXT = """\
examples:
  sharedlog users
  sharedlog users --json | jq -r '.[].user'
"""

DEVICES_TEXT = """\
examples:
  sharedlog devices list                       of all users
  sharedlog devices list --user ada --json
  sharedlog devices revoke 8f3e0c6d2b9a4f7e11d0c2a5

A revoked device may neither read nor write any more. What it wrote stays.
"""

LOG_TEXT = """\
examples:
  sharedlog log tail                           the newest entries of the only user
  sharedlog log tail --user ada -f             and what comes, until Ctrl-C
  sharedlog log show --user ada --collection note --since 2h
  sharedlog log show --user ada --collection note --pk '"3f9a"' --json

Times are in UTC, and those at which the service received the entries. With --json, each
entry is a line of JSON.
"""

STATS_TEXT = """\
examples:
  sharedlog stats                              the whole service
  sharedlog stats --user ada                   one log, by collections
"""


def add_inspection(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    users = parser_of(subparsers, "users", "list the users and what they have", USERS_TEXT)
    _finish(users, _users)
    _add_devices(parser_of(subparsers, "devices", "list and revoke devices", DEVICES_TEXT))
    _add_log(parser_of(subparsers, "log", "show the entries of a log", LOG_TEXT))
    stats = parser_of(subparsers, "stats", "tell how much there is", STATS_TEXT)
    stats.add_argument("--user", help="one user's log, by collections")
    _finish(stats, _stats)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = parser_of(actions, "list", "show devices, and how far behind they are")
    listing.add_argument("--user", help="only this user's")
    _finish(listing, _devices)
    revoke = parser_of(actions, "revoke", "lock a device out, at once")
    revoke.add_argument("id", help="as `devices list` shows it")
    _finish(revoke, _revoke)


def _add_log(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    tail = parser_of(actions, "tail", "show the newest entries")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    tail.add_argument("-n", "--count", type=_count, default=NEWEST, help=f"default: {NEWEST}")
    show = parser_of(actions, "show", "show entries from the oldest on")
    show.add_argument("--since", type=Since, metavar="TIME", help="2026-11-27T10:00, or 2h ago: 2h")
    show.add_argument("-n", "--count", type=_count, help="so many at most (default: all)")
    for action in (tail, show):
        action.add_argument("--user", help="whose log; may be left out where there is one user")
        action.add_argument("--collection", help="only of this collection")
        action.add_argument(
            "--pk",
            type=_pk,
            metavar="JSON",
            help="only of the row with this key: 7, '\"a\"', [1,2]",
        )
        action.add_argument("--device", metavar="ID", help="only what this device wrote")
        action.add_argument("--operation", choices=OPERATIONS, help="only what did this")
    _finish(tail, _tail)
    _finish(show, _show)


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    add_database(parser)
    add_json(parser)

    def running(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except Refused as refused:
            if refused.code is not Code.USER_UNKNOWN:
                raise
            message = f"There is no user {args.user}. See: sharedlog users"
            raise ConfigurationError(message) from refused

    parser.set_defaults(handler=handler(running))


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 10**9:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")


def _pk(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a text that is no JSON can mean itself only


# -- what there is -----------------------------------------------------------------------


def _users(args: argparse.Namespace) -> int:
    with closing(open_store(args, making=False)) as store:
        found = store.summaries()
    if args.json:
        return print_json([user._asdict() for user in found])
    heads = ("user", "entries", "bytes", "devices", "made", "last write")
    rows = [
        (u.user, u.entries, u.bytes, u.devices, moment(u.created_at), moment(u.last_shared_on))
        for u in found
    ]
    return _print_lines(table(heads, rows))


def _stats(args: argparse.Namespace) -> int:
    with closing(open_store(args, making=False)) as store:
        if args.user is None:
            users = store.summaries()
            totals = {
                "users": len(users),
                "devices": sum(user.devices for user in users),
                "entries": sum(user.entries for user in users),
                "bytes": sum(user.bytes for user in users),
            }
            return print_json(totals) if args.json else _print_pairs(totals)
        stats = store.stats(args.user)
    found = {**asdict(stats), "head": stats.head.seq, "epoch": stats.head.epoch}
    if args.json:
        return print_json(found)
    collections = found.pop("collections")
    found["first_shared_on"] = moment(stats.first_shared_on)
    found["last_shared_on"] = moment(stats.last_shared_on)
    _print_pairs(found)
    if not collections:
        return 0
    heads = ("collection", "creates", "modifies", "deletes", "last write")
    rows = [(*list(c.values())[:4], moment(c["last_shared_on"])) for c in collections]
    return _print_lines(("", *table(heads, rows)))


def _devices(args: argparse.Namespace) -> int:
    with closing(open_store(args, making=False)) as store:
        found = [
            (user, device, head - device.cursor.seq)
            for user in ([args.user] if args.user else store.users())
            # The log's end after the devices, so that none is ahead of it.
            for devices, head in [(store.devices(user), store.last_seq(user))]
            for device in devices
        ]
    if args.json:
        return print_json([_device_json(*each) for each in found])
    heads = ("user", "id", "name", "state", "behind", "last seen", "clock ahead")
    return _print_lines(table(heads, [_device_row(*each) for each in found]))


def _device_json(user: str, device: Device, behind: int) -> dict[str, Any]:
    return {
        "user": user,
        "id": device.id,
        "name": device.name,
        "revoked": device.revoked_at is not None,
        "behind": behind,
        "last_seen": device.last_seen,
        "clock_ahead_ms": device.clock_skew,
    }


def _device_row(user: str, device: Device, behind: int) -> Sequence[object]:
    skew = device.clock_skew
    ahead = None if skew is None else f"{skew / 1000:z.1f} s"
    state = "valid" if device.revoked_at is None else "revoked"
    return user, device.id, device.name, state, behind, moment(device.last_seen), ahead


def _revoke(args: argparse.Namespace) -> int:
    with closing(open_store(args, making=False)) as store:
        user = store.owner_of(args.id)
        if user is None:
            raise ConfigurationError(f"There is no device {args.id}. See: sharedlog devices list")
        store.revoke_device(user, args.id)
    if args.json:
        return print_json({"user": user, "id": args.id, "revoked": True})
    return _print_lines([f"{args.id} of {user} is revoked."])


# -- a log -------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    with closing(open_store(args, making=False)) as store:
        user, wanted = _wanted(store, args)
        left, after = args.count, None
        while left is None or left > 0:
            count = PORTION if left is None else min(PORTION, left)
            page = store.find(user, wanted, after=after, count=count)
            _print_page(page, as_json=args.json)
            if not page.has_more:
                break
            after, left = page.cursor, None if left is None else left - count
    return 0


def _tail(args: argparse.Namespace) -> int:
    args.since = None
    with closing(open_store(args, making=False)) as store:
        user, wanted = _wanted(store, args)
        page = store.find(user, wanted, count=args.count, newest=True)
        _print_page(page, as_json=args.json)
        after = page.head
        try:
            while args.follow:
                time.sleep(FOLLOW_S)
                page = store.find(user, wanted, after=after, count=PORTION)
                _print_page(page, as_json=args.json)
                after = page.cursor
        except KeyboardInterrupt:
            pass
    return 0


def _wanted(store: Store, args: argparse.Namespace) -> tuple[str, EntryFilter]:
    """Whose log, and what of it; what is not there is said."""
    user = args.user or _only_user(store)
    if args.pk is not None and args.collection is None:
        raise ConfigurationError("--pk needs --collection beside it.")
    if args.device is not None and store.device(user, args.device) is None:
        raise ConfigurationError(f"{user} has no device {args.device}. See: sharedlog devices list")
    return user, EntryFilter(
        collection=args.collection,
        pk=args.pk,
        operation=None if args.operation is None else NUMBERS[args.operation],
        device=args.device,
        shared_from=None if args.since is None else args.since.ms(store.now()),
    )


def _only_user(store: Store) -> str:
    match store.users():
        case [user]:
            return user
        case []:
            raise ConfigurationError("There are no users yet.")
        case users:
            raise ConfigurationError(f"There are {len(users):,} users: say whose log, with --user.")


def _print_page(page: Page, *, as_json: bool) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for entry in page.entries:
        _print_lines([_entry_json(entry) if as_json else _entry_text(entry)[:width]])
    sys.stdout.flush()


def _entry_text(entry: StoredEntry) -> str:
    words = [str(moment(entry.shared_on)), f"{entry.seq:>6}", entry.device]
    if change := read_change(entry.data):
        operation, collection, pk = change
        value = json.loads(entry.data).get("value")
        words += [f"{OPERATIONS[operation]:6}", collection, _shown(pk)]
        words += [] if value is None else [_shown(value)]
    else:
        words += ["sealed", f"{len(entry.data):,} characters"]
    return harmless("  ".join(words))


def _entry_json(entry: StoredEntry) -> str:
    operation, collection, pk = read_change(entry.data) or (None, None, None)
    return json.dumps(
        {
            "seq": entry.seq,
            "device": entry.device,
            "created_on": to_ms(entry.created_on),
            "shared_on": entry.shared_on,
            "operation": None if operation is None else OPERATIONS[operation],
            "collection": collection,
            "pk": pk,
            "data": entry.data,
        }
    )


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- printing ----------------------------------------------------------------------------


def _print_pairs(found: dict[str, Any]) -> int:
    width = max(map(len, found))
    lines = [f"{name.replace('_', ' '):{width}}  {_pair(value)}" for name, value in found.items()]
    return _print_lines(lines)


def _pair(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def _print_lines(lines: Sequence[str] | Iterator[str]) -> int:
    for line in lines:
        print(line)
    return 0
