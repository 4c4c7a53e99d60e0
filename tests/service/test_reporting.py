"""The lines that a service writes about itself: what is in them, and what never is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from sharedlog_service.api.faults import log_fault
from sharedlog_service.web.reporting import reporting

CANARY = "canary-5d1f"


def failing() -> Exception:
    try:
        raise LookupError(CANARY) from ValueError(CANARY)
    except LookupError as error:
        return error


def by_us() -> None:
    log_fault(failing(), "r-1")


def by_us_with_a_trace() -> None:
    logging.getLogger("sharedlog.service").error("it failed", exc_info=failing())


def by_another_library() -> None:
    logging.getLogger("other").error("%s does not work\n%s", CANARY, CANARY, exc_info=failing())


def written(format: str, *does: Callable[[], None]) -> list[str]:
    stream = io.StringIO()
    with reporting(stream, format):
        for do in does:
            do()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_line_tells_where_it_failed_but_not_what_about(format: str) -> None:
    lines = written(format, by_us, by_us_with_a_trace, by_another_library)
    assert len(lines) == 3
    for line in lines:
        assert "LookupError" in line
        assert "test_reporting.py" in line
        assert CANARY not in line
    assert "r-1" in lines[0]
    assert "it failed" in lines[1]
    assert "%s does not work" in lines[2]


def test_json_is_for_machines() -> None:
    first, second = (json.loads(line) for line in written("json", by_us, by_another_library))
    at = first.pop("time")
    assert (at[10], at[-5], at[-1]) == ("T", ".", "Z")
    assert first.pop("at").startswith(f"{__file__}:")
    assert first.pop("message").startswith("request r-1 failed: LookupError at ")
    assert first == {
        "level": "error",
        "logger": "sharedlog.service",
        "request": "r-1",
        "error": "LookupError",
    }
    assert (second["logger"], second["message"]) == ("other", "%s does not work")


@pytest.mark.parametrize(("format", "count"), [("text", 0), ("json", 1)])
def test_only_as_json_each_request_has_a_line(format: str, count: int) -> None:
    def request() -> None:
        told: dict[str, Any] = {"request": "r-1", "ms": 1.5}
        logging.getLogger("sharedlog.requests").info("request", extra={"told": told})

    lines = written(format, request)
    assert len(lines) == count
    assert all(json.loads(line)["ms"] == 1.5 for line in lines)


def test_nothing_of_it_stays() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    written("json", by_us)
    assert root.handlers == before
    assert logging.getLogger("sharedlog.requests").level == logging.NOTSET
