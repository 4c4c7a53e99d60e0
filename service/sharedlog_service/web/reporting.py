"""What a running service says of itself, line by line: for people, or as JSON for machines.

A line never holds what an exception says, nor what another library puts into its sentences: both
may quote what somebody wrote.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, TextIO

import orjson

from sharedlog_service.api.faults import where

OURS = "sharedlog."

EVERY_S = 60

MORE = "more"
"""What a record has that stands for others, too: how many."""

BLANK = re.compile(r"%(?:\(\w+\))?[-#0 +.*\d]*([a-zA-Z%])")
"""Where a sentence has a place for something, or a percent sign."""

Seconds = Callable[[], float]
"""A clock that only counts."""


class TextLines(logging.Formatter):
    """A line for people: when, how bad, what."""

    def format(self, record: logging.LogRecord) -> str:
        words = [moment(record), record.levelname, sentence(record)]
        return " ".join([*words, *(f"{key}={value}" for key, value in facts(record).items())])


class JsonLines(logging.Formatter):
    """A line for machines: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": sentence(record),
            **getattr(record, "told", {}),
            **facts(record),
        }
        return orjson.dumps(found).decode()


def moment(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentence(record: logging.LogRecord) -> str:
    """What is said; of other libraries only the pattern, and of that the first line."""
    if record.name.startswith(OURS):
        return record.getMessage()
    first = (str(record.msg).splitlines() or [""])[0]
    if not record.args:
        return first
    return BLANK.sub(lambda blank: "%" if blank[1] == "%" else "…", first)


def facts(record: logging.LogRecord) -> dict[str, str | int]:
    """What an exception is and where it comes from, but not what it says; and how many more of
    these lines there would have been since the last one."""
    error = record.exc_info[1] if record.exc_info else None
    found: dict[str, str | int] = {}
    if error is not None:
        found = {"error": type(error).__name__, "at": where(error)}
    if more := getattr(record, MORE, 0):
        found[MORE] = more
    return found


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines; of what another library warns of, only one a minute from each place in its
    code. Strangers can make a server warn as often as they like: of requests that are none, say."""

    def __init__(self, stream: TextIO, seconds: Seconds) -> None:
        super().__init__(stream)
        self._seconds = seconds
        self._told: dict[tuple[str, int], Told] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(OURS) and record.levelno <= logging.WARNING:
            place, now = (record.pathname, record.lineno), self._seconds()
            told = self._told.get(place, Told(now - EVERY_S))
            if now < told.at + EVERY_S:
                self._told[place] = told._replace(more=told.more + 1)
                return
            self._told[place] = Told(now)
            setattr(record, MORE, told.more)
        super().emit(record)


class Told(NamedTuple):
    """When there was a line, and how many there would have been since."""

    at: float
    more: int = 0


@contextmanager
def reporting(stream: TextIO, format: str, seconds: Seconds = time.monotonic) -> Iterator[None]:
    """Meanwhile, write what this process logs: what goes wrong, and as JSON each request, too."""
    handler = Lines(stream, seconds)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root, requests = logging.getLogger(), logging.getLogger("sharedlog.requests")
    root.addHandler(handler)
    requests.setLevel(logging.INFO if format == "json" else logging.WARNING)
    try:
        yield
    finally:
        requests.setLevel(logging.NOTSET)
        root.removeHandler(handler)
