"""Servers in processes of their own: the real service, and the bare route that is its limit.

The bare route is what a web service in Python can do at best with these bytes: one Starlette
route, orjson, `executemany` into a durable SQLite file, one commit a request; no GraphQL, no
access control, no duplicates, no index beside the position. Same server, same settings.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson

from sharedlog import GraphQLSharedLog, HttpTransport

RATE = 600
"""Requests a minute that a bounded service allows each user."""


class Served:
    """A server in its own process, for as long as the `with` block lasts."""

    kind = ""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None
        self.announced: dict[str, Any] = {}

    def __enter__(self) -> Any:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self.kind, str(self.path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"The {self.kind} server did not start.")
        self.announced = orjson.loads(line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class Service(Served):
    """`sharedlog serve` on a file."""

    kind = "service"

    def shared_log(self) -> GraphQLSharedLog:
        """A way to the log as an application has it: GraphQL over real HTTP."""
        return GraphQLSharedLog(HttpTransport(self.announced["url"], self.announced["token"]))


class BoundedService(Service):
    """The same, which allows each user so many requests a minute."""

    kind = "bounded"


class BareRoute(Served):
    """The limit."""

    kind = "bare"

    def __enter__(self) -> BareRoute:
        super().__enter__()
        address = urlsplit(self.announced["url"])
        self._connection = HTTPConnection(address.hostname or "", address.port)
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.close()
        super().__exit__(*error)

    def push(self, entries: list[tuple[int, int, str]]) -> None:
        self._post("/push", {"entries": entries})

    def pull(self, after: int, limit: int) -> list[tuple[int, int, int, str]]:
        found: list[tuple[int, int, int, str]] = self._post(
            "/pull", {"after": after, "limit": limit}
        )["entries"]
        return found

    def _post(self, path: str, content: object) -> Any:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", path, orjson.dumps(content), headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"The bare route answers {response.status}.")
        return orjson.loads(body)


def bare_app(path: str) -> Any:
    """The bare route as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.execute(
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY, created_on INTEGER, origin INTEGER, "
        "data TEXT)"
    )
    connection.commit()

    async def push(request: Request) -> Response:
        entries = orjson.loads(await request.body())["entries"]
        connection.executemany(
            "INSERT INTO entries (created_on, origin, data) VALUES (?, ?, ?)", entries
        )
        connection.commit()
        return Response(orjson.dumps({"accepted": len(entries)}))

    async def pull(request: Request) -> Response:
        asked = orjson.loads(await request.body())
        entries = connection.execute(
            "SELECT seq, created_on, origin, data FROM entries WHERE seq > ? ORDER BY seq LIMIT ?",
            (asked["after"], asked["limit"]),
        ).fetchall()
        return Response(orjson.dumps({"entries": entries}))

    methods = ["POST"]
    return Starlette(
        routes=[Route("/push", push, methods=methods), Route("/pull", pull, methods=methods)]
    )


def _serve_bare(path: str, announce: Callable[[dict[str, Any]], None]) -> None:
    import uvicorn

    from sharedlog_service.commands.serving import AnnouncingServer, listen

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        bare_app(path),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=600,  # what comes between two stages may take longer than the usual 5 s
    )
    AnnouncingServer(config, lambda: announce({"url": url})).run(sockets=[listener])


def _serve_real(
    path: str, announce: Callable[[dict[str, Any]], None], rate: int | None = None
) -> None:
    from sharedlog_service.commands.serving import serve
    from sharedlog_service.engines.database import is_server
    from sharedlog_service.settings import Rates, Settings

    db = path if is_server(path) else Path(path)
    serve(
        Settings(db=db, grace_s=0, rates=Rates(requests=rate)),
        port=0,
        user="bench",
        announce=lambda found: announce(dict(found.for_machines())),
    )


def _announce(found: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(found) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    kinds: dict[str, Callable[..., None]] = {
        "bare": _serve_bare,
        "service": _serve_real,
        "bounded": partial(_serve_real, rate=RATE),
    }
    kinds[sys.argv[1]](sys.argv[2], _announce)
