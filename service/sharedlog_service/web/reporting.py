"""What a running service says of itself, line by line: for people, or as JSON for machines.

A line never holds what an exception says, nor what another library puts into its sentences: both
may quote what somebody wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

import orjson

from sharedlog_service.api.faults import where

OURS = "sharedlog."


class TextLines(logging.Formatter):
    """A line for people: when, how bad, what."""

    def format(self, record: logging.LogRecord) -> str:
        words = [moment(record), record.levelname, sentence(record)]
        return " ".join([*words, *(f"{key}={value}" for key, value in fault(record).items())])


class JsonLines(logging.Formatter):
    """A line for machines: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": sentence(record),
            **getattr(record, "told", {}),
            **fault(record),
        }
        return orjson.dumps(found).decode()


def moment(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentence(record: logging.LogRecord) -> str:
    """What is said; of other libraries only the pattern, and of that the first line."""
    if record.name.startswith(OURS):
        return record.getMessage()
    return (str(record.msg).splitlines() or [""])[0]


def fault(record: logging.LogRecord) -> dict[str, str]:
    """What an exception is and where it comes from, but not what it says."""
    error = record.exc_info[1] if record.exc_info else None
    return {} if error is None else {"error": type(error).__name__, "at": where(error)}


@contextmanager
def reporting(stream: TextIO, format: str) -> Iterator[None]:
    """Meanwhile, write what this process logs: what goes wrong, and as JSON each request, too."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root, requests = logging.getLogger(), logging.getLogger("sharedlog.requests")
    root.addHandler(handler)
    requests.setLevel(logging.INFO if format == "json" else logging.WARNING)
    try:
        yield
    finally:
        requests.setLevel(logging.NOTSET)
        root.removeHandler(handler)
