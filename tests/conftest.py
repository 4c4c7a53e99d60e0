"""What all tests share: PostgreSQL, where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import Postgres, drop_schema, new_schema, unreachable


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
