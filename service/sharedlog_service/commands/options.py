"""What an operator may choose, all of it in one list, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "SHAREDLOG_"

PORT_MAX = 65535

DAYS_MAX = 100_000


class Kind(NamedTuple):
    """What a value may be."""

    says: str
    """What to tell whose value is not of it."""

    read: Callable[[str], Any]
    """Makes the value of a text; any ValueError is a refusal."""

    in_files: tuple[type, ...]
    """What TOML may have instead of a text."""

    metavar: str | None = None

    repeats: bool = False
    """Whether a flag may be given several times: then it means all of that."""

    show: Callable[[Any], str] = str


class Option(NamedTuple):
    """One thing to choose. As a value among arguments: nothing was chosen by a flag."""

    name: str
    kind: Kind
    default: Any
    help: str
    unset: str = "none"
    """What to show where the value is None."""

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flags(self) -> list[str]:
        flag = self.name.replace("_", "-")
        if self.kind is SWITCH:
            return [f"--{flag}", f"--no-{flag}"]
        return ["--database", "--db"] if self is DATABASE else [f"--{flag}"]

    @property
    def dest(self) -> str:
        """Its name among the parsed arguments."""
        return "db" if self is DATABASE else self.name


def _place(text: str) -> Path | str:
    from sharedlog_service.engines.database import is_server

    if not text or ("://" in text and not is_server(text)):
        raise ValueError
    return text if is_server(text) else Path(text)


def _shown_place(place: Path | str) -> str:
    from sharedlog_service.engines.database import is_server, shown

    return shown(place) if is_server(place) else str(place)


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _switch(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _format(text: str) -> str:
    return {name: name for name in ("text", "json")}[text]


def _scopes(text: str) -> tuple[str, ...]:
    from sharedlog_service.grants import Scope, scopes_of

    names = tuple(text.split())
    if Scope.ADMIN in scopes_of(names):
        raise ValueError
    return names


@dataclass(frozen=True, slots=True)
class Number:
    """Reads a number within bounds."""

    least: float
    most: float
    read: type[int] | type[float]

    def __call__(self, text: str) -> float:
        number = self.read(text)
        if not self.least <= number <= self.most:  # which a NaN is not either
            raise ValueError
        return number


PLACE = Kind(
    "An address begins with postgresql://; anything else is the name of a file.",
    _place,
    (),
    "FILE_OR_URL",
    show=_shown_place,
)
TEXT = Kind("A text is needed.", _text, (), "TEXT")
FILE_NAME = Kind("The name of a file is needed.", lambda text: Path(_text(text)), (), "FILE")
SWITCH = Kind(
    "It is true or false.", _switch, (bool,), show=lambda value: "true" if value else "false"
)
FORMAT = Kind("It is text or json.", _format, (), "FORMAT")
PORT = Kind(f"A port is a number from 0 to {PORT_MAX}.", Number(0, PORT_MAX, int), (int,), "PORT")
HOURS = Kind(
    "A number of hours is needed, above 0 and at most 10000.",
    Number(0.0001, 10_000, float),
    (int, float),
    "HOURS",
)
WORKERS = Kind("A whole number from 1 to 64 is needed.", Number(1, 64, int), (int,), "N")
COUNT = Kind("A whole number is needed, 0 for no bound.", Number(0, 2**53, int), (int,), "N")
SCOPES = Kind(
    "Scopes are log:read, log:append, device:manage and explore, with spaces between them.",
    _scopes,
    (),
    "SCOPE",
    repeats=True,
    show=" ".join,
)
SECONDS = Kind(
    "A number of seconds is needed, from 0 to 60.",
    Number(0, 60, float),
    (int, float),
    "SECONDS",
)
DAYS = Kind(
    f"A whole number of days is needed, from 1 to {DAYS_MAX}.",
    Number(1, DAYS_MAX, int),
    (int,),
    "DAYS",
)

DATABASE = Option(
    "database",
    PLACE,
    "sharedlog.db",
    "an SQLite file, or postgresql://user@host/name (default: sharedlog.db in this folder)",
)
HOST = Option("host", TEXT, "127.0.0.1", "address (default: 127.0.0.1)")
KEEP = Option("keep", DAYS, 30, "compaction remembers deletions for so long at least (default: 30)")
EXPIRE = Option(
    "expire", DAYS, 180, "compaction waits so long for a device that is away (default: 180)"
)

OPTIONS: Sequence[Option] = (
    DATABASE,
    HOST,
    Option("port", PORT, 8000, "port, 0 for any free one (default: 8000)"),
    Option(
        "workers",
        WORKERS,
        1,
        "how many processes serve, each on a processor; PostgreSQL only (default: 1)",
    ),
    Option("user", TEXT, None, "the user made on an empty database (default: me)", "me"),
    Option("auth", SWITCH, True, "ask for tokens; --no-auth works on loopback addresses only"),
    Option(
        "explore",
        SWITCH,
        None,
        "answer other GraphQL than the library's own, and show GraphiQL "
        "(default: on loopback addresses only)",
        "on loopback addresses only",
    ),
    Option(
        "requests_per_minute",
        COUNT,
        None,
        "how many requests one user may make in a minute, a device half of it; 0 for no bound "
        "(default: 3000; on loopback addresses no bound)",
        "3000, on loopback addresses no bound",
    ),
    Option(
        "entries_per_minute",
        COUNT,
        None,
        "the same for entries (default: 600000; on loopback addresses no bound)",
        "600000, on loopback addresses no bound",
    ),
    Option(
        "bytes_per_minute",
        COUNT,
        None,
        "the same for their bytes (default: 268435456; on loopback addresses no bound)",
        "268435456, on loopback addresses no bound",
    ),
    Option(
        "quota_entries",
        COUNT,
        None,
        "how many entries one user's log may hold (default: no bound)",
        "no bound",
    ),
    Option(
        "quota_bytes",
        COUNT,
        None,
        "how many bytes of data one user's log may hold (default: no bound)",
        "no bound",
    ),
    Option(
        "quota_devices",
        COUNT,
        1000,
        "how many devices one user may have that are not revoked; 0 for no bound (default: 1000)",
    ),
    Option(
        "answers_bytes",
        COUNT,
        256 * 1024 * 1024,
        "how many bytes of answers may wait to be taken in one process, of one user a quarter; "
        "0 for no bound (default: 268435456)",
    ),
    Option("jwt_issuer", TEXT, None, "take JWTs, whose iss must be this, beside own tokens"),
    Option("jwt_audience", TEXT, None, "what their aud must be, or have in it"),
    Option("jwt_jwks", TEXT, None, "the issuer's public keys: an https address, or a file"),
    Option("jwt_user_claim", TEXT, "sub", "the claim that says whose log it is (default: sub)"),
    Option("jwt_scope_claim", TEXT, "scope", "the claim that says what it may (default: scope)"),
    Option(
        "jwt_scope",
        SCOPES,
        "",
        "what a JWT may do that has no such claim, may be repeated (default: nothing)",
    ),
    Option("jwt_device_claim", TEXT, None, "the claim of the only device it may act as", "any"),
    Option(
        "compact_every",
        HOURS,
        None,
        "compact all logs so often, as `sharedlog compact` does (default: never)",
        "never",
    ),
    KEEP,
    EXPIRE,
    Option(
        "grace",
        SECONDS,
        2,
        "after SIGTERM, go on so long while /readyz says no (default: 2)",
    ),
    Option(
        "log_format",
        FORMAT,
        "text",
        "text: what goes wrong; json: that, and each request, one object a line (default: text)",
    ),
    Option(
        "ready_file",
        FILE_NAME,
        None,
        "write {url, graphiql, user, token} as JSON here once the service answers",
    ),
)
