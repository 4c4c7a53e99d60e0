"""What differs between databases, as one interface.

Our own SQL is written in SQLite's words. Where another database has other ones, `text` puts them
in place, once for each statement.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import peewee

TEXTS_AND_NAMES = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
"""What is left as it is: a `?` within a name is no mark."""

PLAIN = "BINARY"
"""The collation that takes no two texts for equal, or whatever one a database has for that."""


class UniqueIndex(NamedTuple):
    """Parts are columns (None for an expression), each with the collation it is compared by.

    Of an index over expressions, or among some rows only, `said` are its parts as SQL, and
    `where` says which rows, as far as the database tells. `takes_nulls`: NULL is a value there
    like any other.
    """

    parts: Sequence[tuple[str | None, str]]
    partial: bool = False
    said: Sequence[str] = ()
    where: str | None = None
    takes_nulls: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is over columns, and among all rows."""
        return not self.partial and all(column is not None for column, _ in self.parts)


class ForeignKey(NamedTuple):
    """A foreign key as the database has it. `acts` is what it does to children, in capitals, on
    deletions and on updates."""

    table: str
    columns: Sequence[str]
    parent: str
    acts: tuple[str, str]


def quote(name: str) -> str:
    """A name as our own SQL has it."""
    return '"' + name.replace('"', '""') + '"'


class Trigger(NamedTuple):
    """One of ours: its name and its table's, what made it, and the table as SQL names it."""

    name: str
    table: str
    sql: str
    quoted: str


class Dialect(ABC):
    """What differs. One object for each database object."""

    name: ClassVar[str]
    typed: ClassVar[bool] = True
    """Whether a column takes values of its own type only, and may make something else of them."""
    returning: ClassVar[bool] = True
    """Whether a statement can say which rows it wrote."""
    tokens: ClassVar[re.Pattern[str]] = re.compile(rf"{TEXTS_AND_NAMES}|\?|%")
    greatest: ClassVar[str] = "greatest"
    key_chars: ClassVar[int | None] = 512
    """How many characters a key may have as JSON text, so that an index takes it."""
    write_lock: ClassVar[str] = "UPDATE sharedlog_clock SET floor = floor WHERE one = 1"
    """What lets nobody else write to tracked tables until the transaction ends."""
    writing: ClassVar[str | None] = None
    """How a transaction begins that is going to write."""
    reading: ClassVar[str | None] = "REPEATABLE READ"
    """How one begins in which everything is of one moment."""
    usual: ClassVar[str | None] = None
    """How one begins where the application does not say."""

    in_transaction: Callable[[Any], bool]
    """Whether a driver's connection has an open transaction, also one begun by raw SQL."""

    def has_failed(self, connection: Any) -> bool:
        """Whether an error spoiled the open transaction."""
        return False

    # -- statements ----------------------------------------------------------------------

    def __init__(self) -> None:
        self.text: Callable[[str], str] = lru_cache(maxsize=2_000)(self._text)
        """A statement of ours as this database takes it."""

    def run(self, database: peewee.Database, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return database.execute_sql(self.text(sql), parameters)

    def rows(self, cursor: Any, ours: int | None = None) -> list[Any]:
        """What a statement found in tables of the application, whatever stands there. If `ours` is
        given, only so many columns at the end are for us, and the rest are for the application."""
        return list(cursor.fetchall())

    def run_one(self, cursor: Any, sql: str, row: Sequence[Any]) -> None:
        """Run a statement for one row that is run for many at other times."""
        cursor.execute(sql, row)

    def _text(self, sql: str) -> str:
        return self.tokens.sub(self._token, self.words(sql))

    def _token(self, match: re.Match[str]) -> str:
        token = match[0]
        if token == "?":
            return "%s"
        return (
            self.quoted(token).replace("%", "%%") if token[0] == '"' else token.replace("%", "%%")
        )

    def words(self, sql: str) -> str:
        """The statement in this database's words; marks and names are still SQLite's."""
        return sql

    def quoted(self, name: str) -> str:
        """A name that is quoted as SQLite does."""
        return name

    @abstractmethod
    def layout(self, statement: str) -> str | None:
        """A statement of `layout` as this database takes it; None if it does without."""

    @abstractmethod
    def differs(self, column: str) -> str:
        """The condition that a column is not what the parameter says, NULL included."""

    def errors(self) -> AbstractContextManager[Any]:
        """Turns what the driver raises for a value that does not fit into what others raise."""
        return nullcontext()

    def storable(self, text: str) -> str:
        """A text that was not made here, as it can be kept."""
        return text

    # -- transactions --------------------------------------------------------------------

    def savepoint(self, depth: int) -> str:
        return "sharedlog"

    @contextmanager
    def making_tables(self, database: peewee.Database) -> Iterator[None]:
        """Inside, nobody else makes our tables."""
        yield

    # -- the application's tables --------------------------------------------------------

    def column_names(
        self, database: peewee.Database, table: str, schema: str | None = None
    ) -> set[str]:
        """None, if there is no such table."""
        return {column.name for column in database.get_columns(table, schema)}

    @abstractmethod
    def unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        """All unique indexes of a table."""

    def committed_unique_indexes(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[UniqueIndex]:
        """The same in a transaction that has not altered the table."""
        return self.unique_indexes(database, table, schema)

    def collation(
        self, database: peewee.Database, schema: str | None, table: str, column: str
    ) -> str:
        """What the texts of a column are compared by, as far as `tables.collations` knows it."""
        return PLAIN

    def weights(
        self, database: peewee.Database, collation: str, texts: Sequence[str]
    ) -> Sequence[str]:
        """Of each text something that is the same for all that are equal by a collation, where only
        the database knows it."""
        return texts

    @abstractmethod
    def foreign_keys(self, database: peewee.Database, schema: str | None) -> list[ForeignKey]:
        """The foreign keys of all tables of a schema."""

    def ending_triggers(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[str]:
        """The triggers of a table that may end a whole transaction."""
        return []

    def deferred_keys(
        self, database: peewee.Database, table: str, schema: str | None, key: Sequence[str]
    ) -> list[str]:
        """The constraints by which the key (names of columns) is unique only in the end."""
        return []

    def conflict_clauses(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> list[str]:
        """How a table settles conflicts by itself, where it does not only refuse them."""
        return []

    def triggers(self, database: peewee.Database) -> list[Trigger]:
        """Our triggers, as far as there can be any."""
        return []

    def prepare_foreign_keys(
        self, database: peewee.Database, table: str, schema: str | None
    ) -> Sequence[str]:
        """Make it possible that rows are written before those that they refer to. Returns the
        names of the constraints that were changed for it."""
        return ()

    def deleting(self, database: peewee.Database) -> AbstractContextManager[None]:
        """Inside that, foreign keys act on children of what is deleted."""
        return nullcontext()

    def defer_foreign_keys(self, database: peewee.Database) -> AbstractContextManager[None]:
        """In the open transaction, rows may be written before those that they refer to."""
        return nullcontext()

    def check_at_once(self, database: peewee.Database, referring: Sequence[str] = ()) -> None:
        """What the application's constraints have against what is written in the open transaction,
        they say now, and with each statement from here on: when it commits, it is too late to do
        without the row. But for the foreign keys of the tables `referring`, as our SQL names
        them."""
        return


def as_unique_indexes(
    rows: Iterable[tuple[Any, Any, str | None, str]],
) -> dict[Any, UniqueIndex]:
    """Unique indexes of which each row tells a part: index, whether it is partial, column or None,
    collation."""
    found: dict[Any, UniqueIndex] = {}
    for index, partial, column, collation in rows:
        known = found.setdefault(index, UniqueIndex((), bool(partial)))
        found[index] = known._replace(parts=(*known.parts, (column, collation)))
    return found


def as_foreign_keys(rows: Iterable[Sequence[Any]]) -> list[ForeignKey]:
    """Foreign keys of which each row tells a column: table, constraint, column, parent, what is
    done on deletions and on updates."""
    found: dict[tuple[str, Any], ForeignKey] = {}
    for table, constraint, column, parent, on_delete, on_update in rows:
        key = ForeignKey(table, (), parent, (on_delete, on_update))
        known = found.setdefault((table, constraint), key)
        found[table, constraint] = known._replace(columns=(*known.columns, column))
    return list(found.values())
