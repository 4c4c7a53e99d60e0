"""What the service's commands have in common: where the database is, and how trouble is told."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sharedlog_service.commands.choosing import add_option, add_settings_file, choose
from sharedlog_service.commands.options import DATABASE

if TYPE_CHECKING:
    from sharedlog_service.store.store import Store

Handler = Callable[[argparse.Namespace], int]


def parser_of(
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


def add_database(parser: argparse.ArgumentParser) -> None:
    """Let a command take the database, as the settings say it if no flag does."""
    add_option(parser, DATABASE)
    add_settings_file(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def print_json(value: object) -> int:
    print(json.dumps(value, indent=2))
    return 0


def show_progress(text: str) -> None:
    """Say how far it is, on a terminal, in place of what was said before."""
    if sys.stderr.isatty():
        print(f"\r{text}", end="\x1b[K", file=sys.stderr, flush=True)


def place(text: str) -> Path | str:
    from sharedlog_service.engines.database import is_server

    if "://" in text and not is_server(text):
        raise argparse.ArgumentTypeError(
            "an address begins with postgresql://; anything else is the name of a file"
        )
    return text if is_server(text) else Path(text)


def handler(run: Handler) -> Handler:
    """Call `run` with the options as they were chosen (see `choose`), and turn what the user can
    mend into a sentence and an exit code."""

    def handle(args: argparse.Namespace) -> int:
        try:
            from sharedlog_service.errors import Code, ConfigurationError, Refused

            args.choices = choose(args, os.environ)
            _check_texts(args)
            return run(args)
        except ModuleNotFoundError as error:
            print(
                f"The service needs {error.name}. Run: pip install 'sharedlog[service]'",
                file=sys.stderr,
            )
            return 1
        except ConfigurationError as error:
            print(error, file=sys.stderr)
            return 2
        except Refused as refused:  # what is away may come back: no mistake of who calls
            print(refused, file=sys.stderr)
            return 1 if refused.code is Code.UNAVAILABLE else 2
        except Exception as error:
            from sharedlog_service.engines.sqlite import is_damage

            if not is_damage(error):
                raise
            help = "Put back a backup: see `sharedlog restore --help`."
            print(f"{args.db} is damaged: {error}. {help}", file=sys.stderr)
            return 1

    return handle


def _check_texts(args: argparse.Namespace) -> None:
    """Refuse bytes that are no UTF-8, of which Python makes halves of characters: no database
    takes these, nor does SQLite in the name of a file."""
    from sharedlog_service.errors import ConfigurationError

    for name, value in vars(args).items():
        try:
            _ = isinstance(value, str | Path) and str(value).encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"{name}: A text in UTF-8 is needed.") from error


def open_store(args: argparse.Namespace, *, making: bool = True) -> Store:
    from sharedlog_service.engines.database import check_place
    from sharedlog_service.store.store import Store

    check_place(args.db)
    return Store.open(args.db, making=making)
