"""The benchmarks run and write what their page says. No speed is asserted: machines differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import NAMES

from tests.meta.source import ROOT

SMALL = ["--quick", "--rows", "200", "--history", "50", "100", "--rounds", "1", "--bulk", "20"]
SMALL += ["--seconds", "0.2"]


def test_every_benchmark_runs_and_is_written_down(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", *SMALL, "--json", str(file)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert run.returncode == 0, run.stderr
    assert "pull and apply, share of the bare route's rate" in run.stdout
    report = json.loads(file.read_text(encoding="utf-8"))
    assert set(report) == {"machine", "settings", "figures"}
    assert report["settings"]["rows"] == [200]
    measured = {figure["benchmark"] for figure in report["figures"]}
    assert measured == set(NAMES)
    for figure in report["figures"]:
        assert figure["value"] > 0, figure
        assert (figure["reached"] is None) == (figure["target"] is None), figure
