"""What the system tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.memory import folder_in_memory
from tests.system.service_process import service as service


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory."""
    with folder_in_memory() as folder:
        yield folder
