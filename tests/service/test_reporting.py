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
    assert "… does not work" in lines[2]


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
    assert (second["logger"], second["message"]) == ("other", "… does not work")


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


class Clock:
    """Tells what the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def warn(by: str = "other", level: int = logging.WARNING) -> None:
    logging.getLogger(by).log(level, "from %r to %-5s, at 50%%", CANARY, CANARY)


def warn_elsewhere() -> None:
    logging.getLogger("other").warning("something else: 100%")


def test_others_warn_once_a_minute_each_and_of_how_many() -> None:
    """Strangers can make a server warn as often as they like."""
    clock, stream = Clock(), io.StringIO()
    with reporting(stream, "json", clock):
        for clock.now in (0.0, 10.0, 59.0, 59.5, 60.0, 119.0):
            warn()
            if clock.now == 10:
                warn_elsewhere()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["message"], line.get("more")) for line in lines]
    pattern = "from … to …, at 50%"
    assert told == [
        (pattern, None),
        ("something else: 100%", None),
        (pattern, 3),
    ]
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize(("by", "level"), [("sharedlog.x", 30), ("other", logging.ERROR)])
def test_our_own_lines_and_errors_are_all_told(by: str, level: int) -> None:
    lines = written("text", *[lambda: warn(by, level)] * 5)
    assert len(lines) == 5


def test_a_line_for_people_has_the_number_too() -> None:
    clock, stream = Clock(), io.StringIO()
    with reporting(stream, "text", clock):
        for clock.now in (0.0, 1.0, 2.0, 70.0):
            warn()
    assert [line.partition("50%")[2] for line in stream.getvalue().splitlines()] == ["", " more=2"]
