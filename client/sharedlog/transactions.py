"""Transactions of the application's database, and which entries are of one transaction.

The application opens transactions as it likes: with `atomic()`, inside `manual_commit()`, with
a raw BEGIN, or not at all. What is written for it must stand or fall with what it writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import peewee


class Transactions:
    """The open transaction of this thread's connection, or one of our own."""

    def __init__(self, database: peewee.Database) -> None:
        self.database = database
        self._local = threading.local()
        self._begin: Any = database.begin
        self._execute_sql: Any = database.execute_sql
        self.unrecorded: Callable[[], AbstractContextManager[None]] = nullcontext
        """What is written to tracked tables inside, in the open transaction, is not recorded."""

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self.database.execute_sql(sql, parameters)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            self.database.cursor().executemany(sql, rows)

    def in_transaction(self) -> bool:
        """Whether a transaction is open, by Peewee or by hand. The driver knows; Peewee does
        not: inside `manual_commit()` there may be none, after a raw BEGIN there is one."""
        connection = self.database.connection()
        return bool(getattr(connection, "in_transaction", self.database.transaction_depth() > 0))

    def transaction(self) -> AbstractContextManager[Any]:
        """The application's transaction, or one of our own that takes the write lock at once.

        IMMEDIATE, because a transaction that reads first and writes later fails at once,
        whatever the busy timeout, when another connection wrote in between.
        """
        return self._transaction("IMMEDIATE")

    def reading(self) -> AbstractContextManager[Any]:
        """The application's transaction, or one of our own in which everything that is read is
        of one moment. With a write-ahead log no writer has to wait for it."""
        return self._transaction("DEFERRED")

    def _transaction(self, lock: str) -> AbstractContextManager[Any]:
        if self.in_transaction():
            return nullcontext()
        if self.database.transaction_depth() > 0:
            return self._transaction_by_hand(lock)
        self.new_group()
        return self.database.atomic(lock)

    @contextmanager
    def _transaction_by_hand(self, lock: str) -> Iterator[None]:
        """For autocommit inside `manual_commit()`, where Peewee refuses to open one."""
        self.database.begin(lock)  # type: ignore[call-arg]
        try:
            yield
        except BaseException:
            self.database.rollback()
            raise
        self.database.commit()

    def take_write_lock(self) -> None:
        """Take the write lock, waiting for it: before anything is read that a later write of
        this transaction depends on."""
        self.run("UPDATE sharedlog_clock SET floor = floor WHERE one = 0")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """All or nothing inside an open transaction. Its name is fixed, so SQLite can reuse
        the prepared statement; savepoints of one name nest."""
        self.run("SAVEPOINT sharedlog")
        try:
            yield
        except BaseException:
            if self.in_transaction():  # a full disk ends it, for example
                self.run("ROLLBACK TO SAVEPOINT sharedlog")
                self.run("RELEASE SAVEPOINT sharedlog")
            raise
        self.run("RELEASE SAVEPOINT sharedlog")

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
        return self._begin(*args, **options)

    def _watched_execute_sql(self, sql: str, params: Any = None) -> Any:
        connection = self.database._state.conn  # type: ignore[attr-defined]
        if connection is None or not connection.in_transaction:
            self.new_group()  # whatever begins a transaction begins outside of one
        return self._execute_sql(sql, params)

    def new_group(self) -> None:
        """The next entry begins a group."""
        self._local.group = None
