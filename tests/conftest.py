"""What all tests share: PostgreSQL, where there is one, their order, and their figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.engines import Postgres, drop_schema, new_schema, unreachable
from tests.memory import folder_in_memory

LONG = (
    "test_crash",
    "test_simulation",
    "test_planted",
    "test_copies",
    "test_power_loss",
    "test_benchmarks",
    "test_demo",
    "test_capture_sequences",
    "test_backup",
    "test_packaging",
    "test_fuzz",
)
"""Files of tests that take long: first, so that no process is left alone with one at the end."""


def pytest_configure() -> None:
    # How long an example takes says how busy the machine is.
    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        if item.path.stem in LONG:
            return LONG.index(item.path.stem)
        return len(LONG) + ("system" not in item.path.parts)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted (`record_property`), each and together."""
    figures: dict[str, list[float]] = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in report.user_properties:
            figures.setdefault(name, []).append(float(str(value)))
    if figures:
        terminalreporter.section("figures")
    for name, values in figures.items():
        parts = " + ".join(f"{value:,.0f}" for value in values)
        terminalreporter.write_line(f"{name}: {sum(values):,.0f} = {parts}")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="session")
def schema() -> Iterator[str]:
    if reason := unreachable():
        pytest.skip(reason)
    found = new_schema()
    yield found
    drop_schema(found)


@pytest.fixture
def postgres(schema: str) -> Iterator[Postgres]:
    found = Postgres(schema)
    yield found
    found.close()
