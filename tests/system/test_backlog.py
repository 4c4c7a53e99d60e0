"""A long backlog takes no more memory than a short one, in either direction, and is gone on with
where it was left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process_memory import EVER, memory_kib
from tests.system.service_process import ServiceProcess

ROOT = Path(__file__).parents[2]

ROWS = int(os.environ.get("SHAREDLOG_TEST_BACKLOG") or 100_000)
"""Entries of about 320 bytes each, a kilobyte as objects of Python. `make backlog` sends a
million."""

RISE_MB = {"sending": 24, "receiving": 24, "the service": 64}
"""How far the memory of each process may rise above what it is at rest."""

PAGES = 3
"""The one that receives is killed after so many."""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells how much memory it took"
)


def ran(
    service: ServiceProcess, task: str, path: Path, count: int = 0, code: int = 0
) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.system.backlog_device", task, str(path)]
    command += [service.url, str(service.token), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout or "{}")
    return told


def test_memory_is_bounded_by_the_batch_and_not_by_the_backlog(
    service: ServiceProcess, tmp_path: Path
) -> None:
    sender, receiver = tmp_path / "sender.db", tmp_path / "receiver.db"
    at_rest = memory_kib(EVER, service.pid)
    ran(service, "fill", sender, ROWS)
    sent = ran(service, "sync", sender)
    ran(service, "sync", receiver, PAGES, code=-9)
    received = ran(service, "sync", receiver)
    rises = {
        "sending": sent["rise_mb"],
        "receiving": received["rise_mb"],
        "the service": (memory_kib(EVER, service.pid) - at_rest) / 1024,
    }
    sys.stdout.write(f"{ROWS:,} entries, MB above rest: {rises}\n")
    assert sent["sent"] == ROWS
    assert 0 < received["received"] < ROWS  # not from the beginning again
    assert {who: rise for who, rise in rises.items() if rise > RISE_MB[who]} == {}
    assert ran(service, "sync", receiver)["received"] == 0
