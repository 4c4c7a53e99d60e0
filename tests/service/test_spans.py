"""A span for each request where OpenTelemetry is set up, none where it is not, or not installed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from sharedlog.remote.documents import ABOUT, CREATE_DEVICE_ID
from sharedlog_service.settings import Settings
from sharedlog_service.web.app import create_app
from sharedlog_service.web.spans import spans

CANARY = "canary-5d1f"

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
answer = ask(sys.argv[1])
spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
print(json.dumps([answer, spans]))
"""

NOTHING = """
sys.modules["opentelemetry"] = None
print(json.dumps([ask(sys.argv[1]), []]))
"""

START = "import json, sys\nfrom tests.service.test_spans import ask\n"


def ask(folder: str) -> list[int]:
    """Ask for this and that; return the statuses."""
    db = Path(folder) / "log.db"
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": f"x={CANARY}"}
    with TestClient(create_app(Settings(db=db, no_auth=True)), base_url="http://127.0.0.1") as http:
        about = http.post("/graphql", json={"query": ABOUT}, headers=headers)
        variables = {"userId": CANARY, "name": CANARY}
        with closing(sqlite3.connect(db)) as other:
            fault = f"SELECT RAISE(ABORT, '{CANARY}')"
            other.execute(f"CREATE TRIGGER f BEFORE INSERT ON devices BEGIN {fault}; END")
        body = {"query": CREATE_DEVICE_ID, "variables": variables}
        fails = http.post("/graphql", json=body)
        nothing = http.get(f"/{CANARY}?{CANARY}")
    assert fails.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    return [about.status_code, fails.status_code, nothing.status_code]


def run(program: str, folder: Path) -> tuple[list[int], list[dict[str, Any]]]:
    command = [sys.executable, "-c", START + program, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    answer, spans = json.loads(found.stdout)
    return answer, spans


def test_each_request_has_a_span_with_nothing_that_somebody_wrote(tmp_path: Path) -> None:
    answer, spans = run(OPENTELEMETRY, tmp_path)
    assert answer == [200, 200, 404]
    assert CANARY not in json.dumps(spans)
    assert [span["name"] for span in spans] == ["About", "CreateDeviceId", "request"]
    about, fails, _ = spans
    assert about["context"]["trace_id"] == f"0x{TRACE}"
    assert (about["parent_id"], fails["parent_id"]) == (f"0x{PARENT}", None)
    assert about["kind"] == "SpanKind.SERVER"
    assert about["status"]["status_code"] == "UNSET"
    assert about["attributes"]["sharedlog.status"] == 200
    assert about["attributes"]["sharedlog.operation"] == "About"
    assert fails["status"]["status_code"] == "ERROR"
    assert fails["attributes"]["sharedlog.code"] == "INTERNAL"
    assert [span["events"] for span in spans] == [[], [], []]


def test_without_opentelemetry_everything_is_as_before(tmp_path: Path) -> None:
    assert run(NOTHING, tmp_path) == ([200, 200, 404], [])


class Name(bytes):
    """A header's name that tells how often it was compared with another one."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return super().__eq__(other)

    __hash__ = bytes.__hash__


def test_many_headers_are_not_looked_through_for_each_of_them() -> None:
    names = [Name(b"x-%d" % number) for number in range(1000)]
    with spans()({"type": "http", "headers": [(name, b"") for name in names]}):
        pass
    assert Name.compared <= 10 * len(names)
