"""An SQLite VFS on real files that records what it is asked to do, and fails when it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw

NAME = "simulated-disk"

WITH_FOLDER_SYNC = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
)
"""For files of these kinds SQLite syncs the folder with the first sync after opening them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing that was done to the files, in order. `what` is write, truncate, sync, create,
    delete or sync-folder."""

    what: str
    file: str
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """The n-th call from now on fails, or all from the n-th on; because the disk is `full`, writes
    alone, or because it is broken."""

    at: int
    lasting: bool = False
    full: bool = False

    def strikes(self, number: int, what: str) -> bool:
        its_turn = number == self.at or (self.lasting and number > self.at)
        return its_turn and (what == "xWrite" or not self.full)


@dataclass
class Disk:
    """What was done, and what is to fail. Used by all connections that are opened while it is
    `mounted`."""

    calls: list[Call] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    failure: Failure | None = None

    def fail(self, failure: Failure | None) -> None:
        """Count anew what is asked, and fail; None lets all be well."""
        self.asked.clear()
        self.failure = failure

    def ask(self, what: str, code: int) -> None:
        """Count a call that can fail, and let it fail if it is its turn."""
        self.asked.append(what)
        failure = self.failure
        if failure is not None and failure.strikes(len(self.asked), what):
            raise apsw.exception_for(apsw.SQLITE_FULL if failure.full else code)

    def note(self, what: str, file: str, offset: int = 0, data: bytes = b"") -> None:
        self.calls.append(Call(what, file, offset, data))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        vfs = _VFS(self)
        try:
            yield
        finally:
            vfs.unregister()


class _VFS(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._base = apsw.vfs_names()[0]  # the default one, until now
        super().__init__(NAME, self._base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if name is None:
            return super().xOpen(name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk.ask("xOpen", apsw.SQLITE_CANTOPEN)
        fresh = not os.path.exists(path)
        file = _File(self._disk, self._base, name, path, flags)
        if fresh:
            self._disk.note("create", os.path.basename(path))
        return file

    def xAccess(self, path: str, flags: int) -> bool:
        self._disk.ask("xAccess", apsw.SQLITE_IOERR_ACCESS)
        return super().xAccess(path, flags)

    def xDelete(self, path: str, sync_folder: bool) -> None:
        self._disk.ask("xDelete", apsw.SQLITE_IOERR_DELETE)
        super().xDelete(path, sync_folder)
        self._disk.note("delete", os.path.basename(path))
        if sync_folder:
            self._disk.note("sync-folder", os.path.basename(path))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, base: str, name: Any, path: str, flags: list[int]) -> None:
        self._disk = disk
        self._file = os.path.basename(path)
        self._sync_folder = bool(flags[0] & WITH_FOLDER_SYNC)
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__(base, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.ask("xRead", apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.ask("xWrite", apsw.SQLITE_IOERR_WRITE)
        super().xWrite(data, offset)
        self._disk.note("write", self._file, offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.ask("xTruncate", apsw.SQLITE_IOERR_TRUNCATE)
        super().xTruncate(size)
        self._disk.note("truncate", self._file, size)

    def xSync(self, flags: int) -> None:
        self._disk.ask("xSync", apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)
        self._disk.note("sync", self._file)
        if self._sync_folder:
            self._sync_folder = False
            self._disk.note("sync-folder", self._file)

    def xFileSize(self) -> int:
        # Of the log it is also asked after a commit, where SQLite ignores what goes wrong. An
        # exception of Python's would come through nevertheless.
        if not self._is_log:
            self._disk.ask("xFileSize", apsw.SQLITE_IOERR_FSTAT)
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._disk.ask("xLock", apsw.SQLITE_IOERR_LOCK)
        super().xLock(level)
