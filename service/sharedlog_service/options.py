"""What an operator may choose: in a file, in the environment, on the command line.

    port = 9000             in sharedlog.toml, or in the file that --settings names
    SHAREDLOG_PORT=9000     in the environment, which counts more than the file
    --port 9000             as a flag, which counts most

One list names them all. A name that is not in it is refused, and so is a value that does not fit.
"""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sharedlog_service.errors import ConfigurationError

PREFIX = "SHAREDLOG_"

FILE = "sharedlog.toml"
"""Read if it is there and no other file is named."""

FILE_VARIABLE = PREFIX + "SETTINGS"

OTHERS = (FILE_VARIABLE, PREFIX + "TOKEN")
"""Names that are no settings: the file's, and that of a device's token."""

TESTS = PREFIX + "TEST_"
"""How the names begin that the project's own tests read."""

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


class Given(NamedTuple):
    """What a flag said."""

    option: Option
    text: str
    flag: str


class Choice(NamedTuple):
    """What counts for an option, and who said so."""

    option: Option
    value: Any
    source: str

    @property
    def shown(self) -> str:
        """The value as it may be seen: without a password."""
        return self.option.unset if self.value is None else self.option.kind.show(self.value)

    def for_machines(self) -> dict[str, Any]:
        plain = self.value is None or isinstance(self.value, bool | int | float)
        return {"value": self.value if plain else self.shown, "source": self.source}


def _place(text: str) -> Path | str:
    from sharedlog_service.database import is_server

    if not text or ("://" in text and not is_server(text)):
        raise ValueError
    return text if is_server(text) else Path(text)


def _shown_place(place: Path | str) -> str:
    from sharedlog_service.database import is_server, shown

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


class Flag(argparse.Action):
    """Keeps what a flag said, to be read together with the file and the environment."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        flag = option_string or ""
        text = values if isinstance(values, str) else str(not flag.startswith("--no-")).lower()
        before = getattr(namespace, self.dest)
        if isinstance(before, Given) and before.option.kind.repeats:
            text = f"{before.text} {text}"
        setattr(namespace, self.dest, Given(self.default, text, flag))


def add_settings_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help=f"a TOML file with settings (default: ${FILE_VARIABLE}, or {FILE} in this folder)",
    )


def add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    """Let a command take an option; `choose` tells later what counts."""
    parser.add_argument(
        *option.flags,
        dest=option.dest,
        action=Flag,
        nargs=0 if option.kind is SWITCH else None,
        default=option,
        metavar=option.kind.metavar,
        help=option.help,
    )


def choose(args: argparse.Namespace, environment: Mapping[str, str]) -> list[Choice]:
    """Put what counts in the place of each option among the arguments, and tell what that is.

    A command that takes no option reads neither the file nor the environment.
    """
    takes = {dest: value for dest, value in vars(args).items() if isinstance(value, Option | Given)}
    if not takes:
        return []
    variables, path, entries = _variables(environment), *_file(args.settings, environment)
    found = {dest: _choice(value, variables, path, entries) for dest, value in takes.items()}
    for dest, choice in found.items():
        setattr(args, dest, choice.value)
    return list(found.values())


def _choice(
    taken: Option | Given, variables: Mapping[str, str], path: Path, entries: Mapping[str, Any]
) -> Choice:
    option = taken.option if isinstance(taken, Given) else taken
    if isinstance(taken, Given):
        return _read(option, taken.text, taken.flag)
    if option.variable in variables:
        return _read(option, variables[option.variable], option.variable)
    if option.name not in entries:
        default = option.default
        if isinstance(default, str):
            default = option.kind.read(default)
        return Choice(option, default, "default")
    return _read(option, _as_text(option, entries[option.name]), f"{option.name} in {path}")


def _read(option: Option, text: str | None, source: str) -> Choice:
    """The value is never quoted: it may hold a password."""
    try:
        if text is None:
            raise ValueError
        return Choice(option, option.kind.read(text), source)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{source}: {option.kind.says}") from error


def _as_text(option: Option, value: object) -> str | None:
    """Return what a file says as the environment would; None if it is of another type."""
    if option.kind.in_files:
        return str(value) if type(value) in option.kind.in_files else None
    return value if isinstance(value, str) else None


def _variables(environment: Mapping[str, str]) -> Mapping[str, str]:
    found = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
    known = [option.variable for option in OPTIONS]
    for name in found:
        if name not in OTHERS and not name.startswith(TESTS):
            _check_name(name, known, "in the environment")
    return found


def _file(named: Path | None, environment: Mapping[str, str]) -> tuple[Path, Mapping[str, Any]]:
    """Return the file and what is in it; nothing if none is named and there is none."""
    text = environment.get(FILE_VARIABLE)
    path = named or Path(text or FILE)
    try:
        content = path.read_text(encoding="utf-8")
        entries = tomllib.loads(content)
    except FileNotFoundError as error:
        if not named and not text:
            return path, {}
        raise ConfigurationError(f"There is no settings file {path}.") from error
    except OSError as error:
        raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a text in UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from error
    for name in entries:
        _check_name(name, [option.name for option in OPTIONS], f"in {path}")
    return path, entries


def _check_name(name: str, known: Sequence[str], where: str) -> None:
    if name in known:
        return
    (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0)
    raise ConfigurationError(
        f"{name} {where} is no setting; the nearest one is {nearest}. "
        "All are listed by: sharedlog settings --help"
    )
