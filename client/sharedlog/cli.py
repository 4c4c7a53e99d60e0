"""The `sharedlog` command: finds the commands, runs one, tells errors in one sentence.

The client brings `demo`, `migrate-keys` and the commands for a device's file (`commands`). Every
other one comes from the entry points in the group `sharedlog.commands`, each a function that adds
its parsers to argparse's `subparsers`; so the client never imports the service.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .commands import add_commands as add_file_commands
from .errors import SharedLogError
from .keys import command as migrate_keys

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

GROUP = "sharedlog.commands"
"""The entry-point group. An entry point is named as the extra that brings what it needs."""

USAGE_ERROR = 2
INTERRUPTED = 130

DESCRIPTION = """\
Offline-first, multi-device sync for Peewee applications.

Each device keeps its own database and records what it changes, online or not.
A small GraphQL service keeps the shared log of these changes. Devices that have
seen the same log hold the same rows.
"""

EXAMPLES = """\
three ways to use it:
  1. watch it          sharedlog demo
  2. run the service   sharedlog serve --database log.db
                       sharedlog token create --user ada
  3. in a program      from sharedlog import Sync, SyncModel

                       class Note(SyncModel):
                           text = TextField()

                       sync = Sync(database, [Note], url=..., token=...)
                       sync.setup()      once, before the first write
                       sync.sync()       now and then, when online

`sharedlog COMMAND --help` tells more about a command.
"""

DEMO = """\
Start the service, give two devices the countries, regions and languages of the
world, let both edit the same rows while offline, sync them, and prove that they
end equal. It takes some seconds, stays on this machine, and leaves the service
running so that you can look at the log in a browser.
"""

DEMO_EXAMPLES = """\
examples:
  sharedlog demo                   watch it, then look around; stop it with Ctrl-C
  sharedlog demo --once            exit when done: 0 if both devices ended equal
  sharedlog demo --dir ./demo      keep the three database files
"""


class UsageError(SharedLogError):
    """The command line asks for something that is not there."""

    code = "USAGE"


class MissingExtra(SharedLogError):
    """A part of sharedlog is not installed."""

    code = "MISSING_EXTRA"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 used wrongly."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except SystemExit as stop:  # argparse, after --help or a wrong option
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as of `| head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"sharedlog: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    except Exception as error:
        if not (hasattr(error, "code") and hasattr(error, "hint")):
            raise
        _tell(error)
        return USAGE_ERROR if isinstance(error, UsageError) else 1


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    commands: Subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    add_file_commands(commands)
    migrate_keys.add_commands(commands)
    missing = _add_entry_points(commands)
    if not argv:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    _check_command(argv[0], list(commands.choices), missing)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # told by the command: it shows its own options
        commands.choices.get(argv[0], parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    handler: Callable[[argparse.Namespace], int] = arguments.handler
    return handler(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sharedlog",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"sharedlog {metadata.version('sharedlog')}"
    parser.add_argument("--version", action="version", version=version)
    return parser


def _add_demo(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "demo",
        help="watch two devices edit the same rows offline and end equal",
        description=DEMO,
        epilog=DEMO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="exit after the proof")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="a new or empty folder for the files, kept after"
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="the service's port (default: any free one)"
    )
    parser.set_defaults(handler=_demo)


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port number")


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from . import demo
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The demonstration needs {error.name}, which is not installed.",
            hint="pip install 'sharedlog[demo]'",
        ) from error
    return demo.run(folder=arguments.dir, port=arguments.port, once=arguments.once)


def _add_entry_points(commands: Subparsers) -> dict[str, str]:
    """Add the commands of what is installed; return why others are not there, by extra."""
    missing = {}
    for entry in metadata.entry_points(group=GROUP):
        try:
            add_commands = entry.load()
        except ImportError as error:
            missing[entry.name] = str(error)
        else:
            add_commands(commands)
    return missing


def _check_command(name: str, known: Sequence[str], missing: dict[str, str]) -> None:
    """Refuse an unknown command with what may help; options are left to argparse."""
    if name.startswith("-") or name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        raise UsageError(f"There is no command {name!r}.", hint=f"Did you mean `{close[0]}`?")
    if missing:
        extra, reason = next(iter(missing.items()))
        raise MissingExtra(
            f"There is no command {name!r} here: the {extra} is not installed ({reason}).",
            hint=f"pip install 'sharedlog[{extra}]'",
        )
    raise UsageError(
        f"There is no command {name!r}.", hint=f"There are: {', '.join(known)}. See --help."
    )


def _tell(error: Exception) -> None:
    message = getattr(error, "message", None) or str(error)
    print(f"sharedlog: {message}", file=sys.stderr)
    hint = getattr(error, "hint", None)
    if hint:
        print(f"  {hint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
