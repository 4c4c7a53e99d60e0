"""Where what an operator chooses comes from: a file, the environment, the command line.

    port = 9000             in sharedlog.toml, or in the file that --settings names
    SHAREDLOG_PORT=9000     in the environment, which counts more than the file
    --port 9000             as a flag, which counts most

A name that is no option's is refused, and so is a value that does not fit.
"""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sharedlog_service.commands.options import OPTIONS, PREFIX, SWITCH, Option
from sharedlog_service.errors import ConfigurationError

FILE = "sharedlog.toml"
"""Read if it is there and no other file is named."""

FILE_VARIABLE = PREFIX + "SETTINGS"

OTHERS = (FILE_VARIABLE, PREFIX + "TOKEN")
"""Names that are no settings: the file's, and that of a device's token."""

TESTS = PREFIX + "TEST_"
"""How the names begin that the project's own tests read."""


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
