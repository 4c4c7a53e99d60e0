"""Transactions of the application's database, and which entries are of one transaction.

The application opens transactions as it likes: with `atomic()`, inside `manual_commit()`, with
a raw BEGIN, or not at all. What is written for it must stand or fall with what it writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import peewee

from ..dialects import dialect_of
from ..errors import ConfigurationError

T = TypeVar("T")

ABORT = (
    "Write RAISE(ABORT, …) in place of RAISE(ROLLBACK, …): that refuses one statement, and leaves "
    "the transaction to whoever began it."
)


class Transactions:
    """The open transaction of this thread's connection, or one of our own."""

    def __init__(self, database: peewee.Database) -> None:
        self.database = database
        self.dialect = dialect_of(database)
        self._text = self.dialect.text if self.dialect.typed else None
        self._is_open = self.dialect.in_transaction
        self.locks: list[str] = [self.dialect.write_lock]
        """What is run to take the write lock."""
        self._local = threading.local()
        self._begin: Any = database.begin
        self._execute_sql: Any = database.execute_sql
        self.unrecorded: Callable[[], AbstractContextManager[None]] = nullcontext
        """What is written to tracked tables inside, in the open transaction, is not recorded."""

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        if self._text is not None:
            sql = self._text(sql)
        return self.database.execute_sql(sql, parameters)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        if self._text is not None:
            self._run_many_typed(self._text(sql), list(rows))
            return
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            self.database.cursor().executemany(sql, rows)

    def _run_many_typed(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.dialect.errors(), peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            if len(rows) == 1:  # psycopg complains aloud of an error among many
                self.dialect.run_one(self.database.cursor(), sql, rows[0])
            elif rows:
                self.database.cursor().executemany(sql, rows)

    def in_transaction(self) -> bool:
        """Whether a transaction is open, by Peewee or by hand. The driver knows; Peewee does
        not: inside `manual_commit()` there may be none, after a raw BEGIN there is one."""
        return bool(self._is_open(self.database.connection()))

    def has_failed(self) -> bool:
        """Whether the open transaction takes no statement any more, but the end of it."""
        return self.dialect.has_failed(self.database.connection())

    def transaction(self) -> AbstractContextManager[Any]:
        """The application's transaction, or one of our own that takes the write lock at once."""
        if self.dialect.typed and not self.in_transaction():
            return self._locked()
        return self._transaction(self.dialect.writing)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._transaction(self.dialect.writing):
            self.take_write_lock()
            yield

    @contextmanager
    def making_tables(self) -> Iterator[None]:
        """The application's transaction, or one of our own, for making the tables that have the
        lock."""
        with self._transaction(self.dialect.writing), self.dialect.making_tables(self.database):
            yield

    def reading(self) -> AbstractContextManager[Any]:
        """The application's transaction, or one of our own in which everything that is read is
        of one moment."""
        return self._transaction(self.dialect.reading)

    def _transaction(self, how: str | None) -> AbstractContextManager[Any]:
        if self.in_transaction():
            return nullcontext()
        if self.database.transaction_depth() > 0:
            return self._transaction_by_hand(how)
        self.new_group()
        return self._own_transaction(how)

    @contextmanager
    def _own_transaction(self, how: str | None) -> Iterator[None]:
        with self.database.atomic(how):
            try:
                yield
            except BaseException:
                if not self.dialect.typed and not self.in_transaction():  # a full disk ended it
                    self.database.begin()  # for Peewee, which ends it once more
                raise

    @contextmanager
    def _transaction_by_hand(self, how: str | None) -> Iterator[None]:
        """For autocommit inside `manual_commit()`, where Peewee refuses to open one."""
        self.database.begin(how)  # type: ignore[call-arg]
        try:
            yield
        except BaseException:
            self.database.rollback()
            raise
        self.database.commit()

    def take_write_lock(self) -> None:
        """Take the write lock, waiting for it: before anything is read that a later write of
        this transaction depends on."""
        for statement in self.locks:
            self.run(statement)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """All or nothing inside an open transaction. With SQLite, its name is fixed, so that the
        prepared statement can be used again; savepoints of one name nest there."""
        depth = self._local.depth = getattr(self._local, "depth", 0) + 1
        name = self.dialect.savepoint(depth)
        try:
            self.run(f"SAVEPOINT {name}")
            try:
                yield
            except BaseException:
                self.read_anew()
                if self.in_transaction():  # a full disk ends it, for example
                    self.run(f"ROLLBACK TO SAVEPOINT {name}")
                    self.run(f"RELEASE SAVEPOINT {name}")
                raise
            self.run(f"RELEASE SAVEPOINT {name}")
        finally:
            self._local.depth = depth - 1

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A savepoint, for what the application's tables may refuse. Where one of its triggers
        ends the whole transaction, that is no refusal: nothing is left to go on with."""
        try:
            with self.savepoint():
                yield
        except peewee.IntegrityError as error:
            if not self.in_transaction():
                said = f"A trigger of the application ended the transaction: {error}."
                raise ConfigurationError(said, hint=ABORT) from error
            raise

    # -- what is read once ---------------------------------------------------------------

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Inside a transaction of our own that has the write lock: nobody else changes what is
        kept in our tables, so it need not be read again and again."""
        self._local.kept = {}
        try:
            yield
        finally:
            self._local.kept = None

    @property
    def is_keeping(self) -> bool:
        return getattr(self._local, "kept", None) is not None

    def kept(self, name: str, read: Callable[[], T]) -> T:
        """What `read` reads; inside `keeping()`, it does so once."""
        if not self.is_keeping:
            return read()
        if name not in self._local.kept:
            self._local.kept[name] = read()
        found: T = self._local.kept[name]
        return found

    def read_anew(self, *names: str) -> None:
        """These were changed; without names, all may have been."""
        if self.is_keeping:
            for name in names or list(self._local.kept):
                self._local.kept.pop(name, None)

    # -- groups: which entries are of one transaction ------------------------------------

    def watch_transactions(self) -> None:
        """From here on, notice each beginning of a transaction on this database object."""
        self._begin, self._execute_sql = self.database.begin, self.database.execute_sql
        self.database.begin = self._watched_begin  # type: ignore[method-assign]
        self.database.execute_sql = self._watched_execute_sql  # type: ignore[method-assign]

    def unwatch_transactions(self) -> None:
        self.database.begin = self._begin  # type: ignore[method-assign]
        self.database.execute_sql = self._execute_sql  # type: ignore[method-assign]

    def _watched_begin(self, *args: Any, **options: Any) -> Any:
        self.new_group()
        if self.dialect.usual and not args and not options:
            args = (self.dialect.usual,)
        return self._begin(*args, **options)

    def _watched_execute_sql(self, sql: str, params: Any = None) -> Any:
        connection = self.database._state.conn  # type: ignore[attr-defined]
        if connection is None or not self._is_open(connection):
            self.new_group()  # whatever begins a transaction begins outside of one
        return self._execute_sql(sql, params)

    def new_group(self) -> None:
        """The next entry begins a group."""
        self._local.group = None
