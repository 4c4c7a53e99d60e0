"""Forked children that are killed: anything, or the real service on a socket.

A process that forks must have neither threads nor open SQLite connections.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sharedlog_service.commands.serving import AnnouncingServer, listen, server_config
from sharedlog_service.settings import Clock, Settings
from tests.system.crash_steps import Steps, count_service

Acknowledge = Callable[[bytes], None]
"""Tells the parent, one byte a piece of work, what has returned."""


@dataclass(frozen=True)
class End:
    """How a child ended, and what it had acknowledged."""

    killed: bool
    acknowledged: bytes


def in_child(run: Callable[[Acknowledge], object], kill_after: int | None = None) -> End:
    """Run something in a child and wait for its end; after `kill_after` acknowledgements it is
    killed from outside."""
    child, reading = _fork(lambda writing: run(lambda mark: _write(writing, mark)))
    acknowledged = b""
    while mark := os.read(reading, 1):
        acknowledged += mark
        if len(acknowledged) == kill_after:
            os.kill(child, signal.SIGKILL)
    os.close(reading)
    return End(_killed(child), acknowledged)


def dies(run: Callable[[], object]) -> bool:
    """Run something in a child; return whether it was killed."""
    return in_child(lambda _: run()).killed


@dataclass
class ServiceChild:
    """The service in a forked child: up in a few milliseconds, and mortal at any statement."""

    pid: int
    url: str
    reading: int

    def stop(self) -> list[str]:
        """End it by SIGTERM, if it is not dead yet; return the points that it went by."""
        os.kill(self.pid, signal.SIGTERM)
        told = b""
        while part := os.read(self.reading, 65536):
            told += part
        return told.decode().splitlines()

    def died(self) -> bool:
        """Wait for its end; return whether it was killed."""
        return _killed(self.pid, also=signal.SIGTERM)


class ServiceChildren:
    """One child after the other that serves the same file, which has its user already."""

    def __init__(self, db: Path, now: Clock) -> None:
        # Made once: the schema takes longer than everything else.
        self._config = server_config(Settings(db=db, now=now))

    @contextmanager
    def started(self, die_at: int | None = None, *, tell: bool = False) -> Iterator[ServiceChild]:
        """Start one; its death is counted from when it is ready. It may `tell` where it goes by,
        if somebody will stop it soon: a pipe does not hold much."""
        pid, reading = _fork(lambda writing: self._serve(writing, die_at, tell))
        url = b""
        while not url.endswith(b"\n"):
            url += os.read(reading, 1) or b"\n"
        try:
            yield ServiceChild(pid, url.decode().strip(), reading)
        finally:
            os.close(reading)

    def _serve(self, writing: int, die_at: int | None, tell: bool) -> None:
        steps = Steps()
        count_service(steps)

        def tell_point(_: str) -> None:
            _write(writing, f"{steps.points[-1]}\n".encode())

        with listen("127.0.0.1", 0) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/graphql"

            def ready() -> None:
                _write(writing, url.encode() + b"\n")
                steps.arm(die_at, tell=tell_point if tell else None)

            AnnouncingServer(self._config, ready).run(sockets=[listener])


def _fork(run: Callable[[int], object]) -> tuple[int, int]:
    """Run something in a child, given the writing end of a pipe; return the child's id and the
    reading end, which ends when the child does."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        os.close(reading)
        run(writing)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the parent's is to be cleaned up here


def _write(pipe: int, text: bytes) -> None:
    os.write(pipe, text)


def _killed(child: int, also: int | None = None) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        assert number in (signal.SIGKILL, also), f"the child ended by signal {number}"
        return number == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0, "the child failed; see its traceback"
    return False
