"""No more room on the disk, in real processes: told as what can be tried again, and then it can.

A limit on the size of files stands for the full disk; the running process does not know of it
until it writes. What happens in each single call is in `test_disk_errors`.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import Change, ConnectionFailed, MemorySharedLog
from sharedlog.changes import encode
from sharedlog.remote.sharedlog import Outgoing
from tests.system.crash_steps import Steps, counted_connection
from tests.system.crash_world import (
    Note,
    Tag,
    check_client,
    check_equal,
    device,
    read_client,
    read_log,
)
from tests.system.service_process import ServiceProcess

UNLIMITED = resource.RLIM_INFINITY


needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")


@contextmanager
def full_disk(pid: int, *files: Path) -> Iterator[None]:
    """No file of this process may become larger than the largest of these."""
    room = max(file.stat().st_size for file in files)
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, UNLIMITED))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


NOTHING_READ: dict[str, Any] = {"after": None, "now_ms": 0, "limit": 1, "byte_limit": 1}


@needs_prlimit
def test_a_service_without_room_says_so_and_goes_on_when_there_is_some(
    service: ServiceProcess, tmp_path: Path
) -> None:
    log_file = service.db.with_name(service.db.name + "-wal")
    with device(tmp_path / "a.db", url=service.url, token=service.token) as a:
        Note.create(key="n1", title="there is room")
        a.sync()
        with full_disk(service.pid, service.db, log_file):
            for number in range(20):
                Note.create(key=f"large{number}", title="large " * 10_000)
            for _ in range(3):
                with pytest.raises(ConnectionFailed, match="nothing was written") as caught:
                    a.sync()
                assert caught.value.retryable
            check_client(read_client(tmp_path / "a.db"), read_log(service.db))
            assert a.status().pending == 20
            Note.create(key="n2", title="local work goes on")
        assert a.sync().sent == 21
    check_equal([read_client(tmp_path / "a.db")], read_log(service.db))


@needs_prlimit
def test_a_device_without_room_writes_whole_or_not_at_all(
    service: ServiceProcess, tmp_path: Path
) -> None:
    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        for number in range(20):
            Note.create(key=f"large{number}", title="large " * 10_000)
        b.sync()
    failed = 0
    with device(tmp_path / "a.db", url=service.url, token=service.token, batch_size=5) as a:
        Note.create(key="n1", title="there is room")
        wal = tmp_path / "a.db-wal"
        with full_disk(0, tmp_path / "a.db", wal):
            for number in range(100):
                try:
                    Note.create(key=f"more{number}", title="large " * 1000)
                except peewee.OperationalError:
                    failed += 1
                assert not a.database.connection().in_transaction
            with pytest.raises(peewee.OperationalError):
                a.sync()
            log = read_log(service.db)
            check_client(read_client(tmp_path / "a.db"), log)
        assert failed == 100
        Note.create(key="n2", title="there is room again")
        assert a.sync().received == 20
    with device(tmp_path / "b.db", url=service.url, token=service.token) as b:
        b.sync()
    check_equal((read_client(tmp_path / f"{name}.db") for name in "ab"), read_log(service.db))


def test_no_statement_of_a_sync_that_fails_leaves_a_transaction_open(tmp_path: Path) -> None:
    """What the application wrote next would be in it, and never be committed."""
    log, steps = MemorySharedLog(), Steps()
    other, counted = log.register("other", "other"), counted_connection(steps)
    with device(tmp_path / "a.db", shared_log=log, factory=counted) as a:
        number = 0
        while number == 0 or len(steps.fallible) >= number:
            number += 1
            Tag.create(key=f"a{number}", text="from here")
            change = Change("create", "tag", f"b{number}", {"text": "from elsewhere"})
            log.write(other, [Outgoing(number, 0, encode(change))], **NOTHING_READ)
            steps.arm(fail_at=number)
            with suppress(peewee.OperationalError):
                a.sync()
            assert not a.database.connection().in_transaction, steps.names[-3:]
            failed = steps.fallible
            steps.arm()
            a.sync()
            steps.fallible = failed
        assert number > 30
        assert Tag.select().count() == 2 * number
