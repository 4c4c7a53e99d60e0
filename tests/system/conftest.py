"""What the system tests share."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engines import Postgres
from tests.system.service_process import ServiceProcess, service as service


@pytest.fixture
def services(tmp_path: Path, postgres: Postgres) -> Iterator[list[ServiceProcess]]:
    """Two services at one database."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                ServiceProcess(tmp_path / f"service-{number}.db", place=str(postgres.place))
            )
            for number in (1, 2)
        ]
