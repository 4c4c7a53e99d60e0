"""`sharedlog migrate-keys`: its options, its help, and what it tells."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import peewee

    from .migration import MigratedKeys, MigratedTable

    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Replace auto-increment keys in an SQLite file, once, before it is synced.

The database numbers rows 1, 2, 3, so two devices would give one number to
different rows. This gives every row of the named tables a UUID that sorts as its
number did, and puts it wherever another row refers to it: foreign keys, also to the
same table, composite and one-to-one keys, many-to-many tables. Columns, indexes,
unique constraints, checks, defaults, triggers and views stay as they are.

All in one transaction. Before it is committed, every value and every reference is
compared with what was there; if anything stands in the way, it is told, and the file
stays as it was. Run again, it has nothing to do. Stop the application first.
"""

EPILOG = """\
examples:
  sharedlog migrate-keys app.db                       which tables have numbered keys?
  sharedlog migrate-keys app.db --tables user,message --dry-run
  sharedlog migrate-keys app.db --tables user,message --backup before.db
  sharedlog migrate-keys app.db --models myapp.models
  sharedlog migrate-keys app.db --tables track --reference book.current=track

references:
  Foreign keys that the file declares are found, in all tables. A column that only
  holds a number of another table has to be named: --reference book.current=track.
  --models finds those that are ForeignKeyFields. A column that looks like one
  (user_id) and is none: --number post.user_id.

several devices:
  Migrate on one device only, and start the others from an empty file: done twice,
  the same row gets two keys, and is two rows. Where every device holds an identical
  copy of the file and must keep it, give all of them one --namespace: the keys are
  then made from that name, the table and the number, and so are the same everywhere.
  The digest that is printed must be the same on all of them; compare it with --dry-run
  first. Rows that were made on the copies since do not belong to this: where two
  devices gave one number to different rows, they would become one row.

afterwards:
  Peewee's UUIDField finds its keys in these columns: give the models SyncModel as
  base class, in place of an AutoField. docs/adoption.md shows it all.
"""


def add_commands(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "migrate-keys",
        help="replace the auto-increment keys of a file by keys that devices can make",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the application's SQLite file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--tables", type=_names, default=[], metavar="A,B", help="the tables that get new keys"
    )
    which.add_argument(
        "--models", metavar="MODULE", help="the module with the models of these tables"
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything, and undo it")
    parser.add_argument("--backup", type=Path, metavar="PATH", help="first copy the file here")
    parser.add_argument(
        "--namespace", metavar="NAME", help="the same keys on every copy (see below)"
    )
    parser.add_argument(
        "--mapping", metavar="TABLE", help="keep the old numbers and their keys in a table"
    )
    parser.add_argument(
        "--reference",
        type=_reference,
        action="append",
        default=[],
        metavar="T.C=PARENT",
        help="column C of table T refers to PARENT, which the file does not say; repeatable",
    )
    parser.add_argument(
        "--number",
        action="append",
        default=[],
        metavar="T.C",
        help="column C of table T is a number, and refers to nothing; repeatable",
    )
    parser.set_defaults(handler=_run)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _reference(text: str) -> tuple[str, str]:
    column, sign, parent = text.partition("=")
    if not sign or "." not in column:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as table.column=parent")
    return column, parent


def _run(arguments: argparse.Namespace) -> int:
    from .migration import migrate_keys

    progress = _Line(sys.stderr)
    try:
        migrated = migrate_keys(
            arguments.file,
            tables=arguments.tables,
            models=_models_in(arguments.models) if arguments.models else (),
            references=dict(arguments.reference),
            numbers=arguments.number,
            namespace=arguments.namespace,
            mapping=arguments.mapping,
            backup=arguments.backup,
            dry_run=arguments.dry_run,
            progress=progress.show,
        )
    finally:
        progress.clear()
    sys.stdout.writelines(f"{line}\n" for line in _report(arguments, migrated))
    return 0


def _models_in(name: str) -> list[type[peewee.Model]]:
    """The Peewee models that a module has, imported as from the current folder."""
    import peewee

    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"The module {name} cannot be imported: {error}.",
            hint="Run this in the folder from which the application starts.",
        ) from error
    except (Exception, SystemExit) as error:  # whatever the application's code does
        raise ConfigurationError(
            f"The module {name} cannot be imported: it raised {error!r}.",
            hint="Name a module that only has the models, and starts nothing.",
        ) from error
    found = [value for value in vars(module).values() if isinstance(value, type)]
    models = [cls for cls in found if issubclass(cls, peewee.Model) and cls is not peewee.Model]
    if not models:
        raise ConfigurationError(f"The module {name} has no Peewee models.")
    return models


# -- what is told ------------------------------------------------------------------------


class _Line:
    """One line that is written over and over, where somebody looks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_watched = stream.isatty()

    def show(self, what: str, done: int, total: int) -> None:
        if self._is_watched:
            self._stream.write(f"\r\x1b[K{what}: {done:,} of {total:,} rows")
            self._stream.flush()

    def clear(self) -> None:
        if self._is_watched:
            self._stream.write("\r\x1b[K")


def _report(arguments: argparse.Namespace, migrated: MigratedKeys) -> Iterator[str]:
    if not migrated.tables:
        names = f" No numbered keys: {', '.join(migrated.done)}." if migrated.done else ""
        yield f"{arguments.file}: nothing to do.{names}"
        return
    rows = sum(table.rows for table in migrated.tables)
    yield f"{arguments.file}: new keys in {len(migrated.tables)} tables, {rows:,} rows"
    width = max(len(table.name) for table in migrated.tables)
    for table in migrated.tables:
        columns = ", ".join(_columns(table))
        yield f"  {table.name:{width}}  {table.rows:>11,} rows  {columns}"
    yield "Compared: every value, every reference, the schema, foreign keys, views, integrity."
    if migrated.virtual:
        yield f"Make anew what knows rows by number: maybe {', '.join(migrated.virtual)}"
    if migrated.digest:
        yield f"Digest, the same on every copy: {migrated.digest}"
    if arguments.dry_run:
        yield "This was a dry run: the file is as it was."
    elif arguments.backup:
        yield f"The file as it was: {arguments.backup}"


def _columns(table: MigratedTable) -> Iterator[str]:
    if table.key:
        yield table.key
    for column, parent in table.references.items():
        yield f"{column} -> {parent}"
