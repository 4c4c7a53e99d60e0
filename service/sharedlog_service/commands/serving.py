"""Running the application on a socket, and saying where it can be found."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shlex
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn

from sharedlog_service.access.auth import check_user_name, issue_token
from sharedlog_service.commands.processes import FAILED, Processes, is_orphan_of
from sharedlog_service.engines.database import check_place, shown
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.grants import EVERYTHING
from sharedlog_service.settings import Patience, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from sharedlog_service.web.graphiql import ready_address
from sharedlog_service.web.patience import PatientProtocol, Reaper
from sharedlog_service.web.sockets import FRAME_BYTES_MAX
from sharedlog_service.web.textframes import TextSocketProtocol

FIRST_USER = "me"

PORT_MAX = 65535

SHUTDOWN_S = 5
"""How long requests that have begun may take to end, once no others are taken. uvicorn's own
default waits for ever for a client that keeps a stream open."""

CONNECTIONS_MAX = 500
"""Those on which a request is worked on: see `patience`."""

OPEN_FILES = 10_000

TICKS_A_SECOND = 10
"""How often uvicorn's main loop comes round."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where the service answers. `token` is there only when it was made just now."""

    settings: Settings
    url: str
    user: str | None
    token: str | None

    @property
    def graphiql(self) -> str | None:
        if not self.settings.explores:
            return None
        if self.token is None or self.user is None:
            return self.url
        return ready_address(self.url, token=self.token, user=self.user)

    def for_machines(self) -> dict[str, str | None]:
        return {
            "url": self.url,
            "graphiql": self.graphiql,
            "user": self.user,
            "token": self.token,
        }

    def for_people(self) -> str:
        lines = [
            f"sharedlog answers at {self.url}",
            f"  database  {shown(self.settings.db)}",
        ]
        another = f"another: {token_command(self.settings, 'NAME')}"
        if self.token is not None:
            lines += [
                f"  user      {self.user}",
                f"  token     {self.token}",
                f"            shown only now; {another}",
            ]
        elif not self.settings.no_auth:
            lines.append(f"  token     as printed at the first start; {another}")
        if self.settings.no_auth:
            lines.append("  access    anybody on this machine, to every log (--no-auth)")
        off = "off, as all documents but the library's own: --explore"
        lines += [f"  GraphiQL  {self.graphiql or off}", "Stop it with Ctrl-C."]
        return "\n".join(lines)


def token_command(settings: Settings, user: str) -> str:
    """What to type for another token of this database."""
    words = ["sharedlog", "token", "create", "--user", user]
    if settings.db != Settings().db:
        words += ["--database", str(settings.db)]
    return shlex.join(words)


def serve(
    settings: Settings,
    *,
    port: int,
    user: str | None = None,
    announce: Callable[[Announcement], None],
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve until stopped; `announce` is called once requests are answered."""
    check_place(settings.db)
    # Before the first token: one that nobody gets to see must not be made.
    with listen(settings.host, port) as listener:
        token = prepare(settings, user, warn=warn)
        url = f"http://{bracketed(settings.host)}:{listener.getsockname()[1]}/graphql"
        known = (FIRST_USER if user is None else user) if token or settings.no_auth else None
        found = Announcement(settings, url, known, token)
        config = server_config(settings)
        allow_open_files()
        # The schema and its libraries are here to stay: no collection needs to look at them again.
        gc.freeze()
        if settings.workers == 1:
            return _run(config, settings, listener, lambda: announce(found))
        is_orphan = is_orphan_of(os.getpid())
        return Processes(
            settings.workers,
            lambda ready: _run(config, settings, listener, ready, is_orphan),
            lambda: announce(found),
        ).run()


def _run(
    config: uvicorn.Config,
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[], None],
    is_orphan: Callable[[], bool] = lambda: False,
) -> int:
    leave = config.app.state.service.leave  # type: ignore[union-attr]
    server = AnnouncingServer(
        config, ready, settings.patience, leave, settings.grace_s, is_orphan=is_orphan
    )
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        # uvicorn has shut down in order and only passes the signal on.
        return 0
    return 0 if server.started else FAILED


def server_config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings),
        http=PatientProtocol,
        ws=TextSocketProtocol,
        log_level="warning",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=CONNECTIONS_MAX,
        ws_max_size=FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
    )


def prepare(
    settings: Settings, user: str | None = None, *, warn: Callable[[str], None] = lambda _: None
) -> str | None:
    """Make the first user of an empty database; returns a token if one was made.

    `warn` is told of a user who was asked for by name, is not there and is not made.
    """
    first = FIRST_USER if user is None else user
    check_user_name(first)
    store = Store.open(settings.db, now=settings.now, new_id=settings.new_id)
    try:
        if users := store.users():
            if user is not None and user not in users:
                warn(
                    f"--user {user} is ignored: the database has users already. "
                    f"To add one: {token_command(settings, user)}"
                )
            return None
        if settings.no_auth:
            store.create_user(first)
            return None
        return issue_token(store, first, "first", scopes=EVERYTHING)
    finally:
        store.close()


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket here: its port is known before the server runs, also for port 0."""
    if not 0 <= port <= PORT_MAX:
        raise ConfigurationError(f"A port is a number from 0 to {PORT_MAX}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio knows it for TCP and switches Nagle's delay off:
    # with proto 0 each small answer took 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        text = f"Cannot listen on {host}:{port}: {error.strerror}."
        if error.errno == errno.EADDRINUSE:  # who has it now may end
            raise Refused(Code.UNAVAILABLE, text) from error
        raise ConfigurationError(text) from error
    return listener


def allow_open_files() -> None:
    """Let the process have as many open files as it may: each connection is one, and many systems
    allow a thousand to who does not ask for more."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


class AnnouncingServer(uvicorn.Server):
    """Says when it is ready, and waits for no client for ever.

    SIGTERM begins with a time of grace: `leave` is called, and requests are taken as before, so
    that whoever sends them has time to hear of it. Another signal, or Ctrl-C, ends it at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        patience: Patience | None = None,
        leave: Callable[[], None] = lambda: None,
        grace_s: float = 0,
        *,
        is_orphan: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._patience = patience or Patience()
        self._leave = leave
        self._grace_s = grace_s
        self._is_orphan = is_orphan
        self._leaving = False
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._reaper = Reaper(self.server_state, self._patience)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            self._reaper.look()
            if self._is_orphan():
                super().handle_exit(signal.SIGTERM, None)
        if self._leaving and not self.should_exit:
            now = asyncio.get_running_loop().time()
            self._until = now + self._grace_s if self._until is None else self._until
            if now >= self._until:
                super().handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._leave()
        if sig == signal.SIGTERM and not self._leaving:
            self._leaving = True
        else:
            super().handle_exit(sig, frame)
