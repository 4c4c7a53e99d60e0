"""The console script: finding commands, telling errors, helping where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sharedlog import cli

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from sharedlog.cli import main
sys.exit(main(sys.argv[2:]))
"""

COMMANDS = """
from sharedlog import ConnectionFailed

def add_commands(subparsers):
    for name in ("refuse", "explode", "interrupt", "seven", "forget", "talk"):
        subparsers.add_parser(name).set_defaults(handler=globals()[name])

def refuse(arguments):
    raise ConnectionFailed("The line is cut.", hint="Mend it.")

def explode(arguments):
    raise RuntimeError("a mistake in the program")

def interrupt(arguments):
    raise KeyboardInterrupt

def seven(arguments):
    return 7

def forget(arguments):
    open("nowhere/at.all")

def talk(arguments):
    for _ in range(100_000):
        print("more")
"""


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if folder is not None:
        environment["PYTHONPATH"] = str(folder)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        timeout=60,
    )


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module cannot be imported."""
    return run("-c", BLOCKED, module, *arguments)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with an installed distribution that brings commands of its own."""
    (tmp_path / "plugin_commands.py").write_text(COMMANDS, encoding="utf-8")
    information = tmp_path / "plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[sharedlog.commands]\nplugin = plugin_commands:add_commands\n"
    )
    return tmp_path


def test_help_teaches_three_ways_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for part in ("sharedlog demo", "sharedlog serve", "sharedlog token create", "Sync(database"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_help_lists_the_commands_of_client_and_service(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["--help"])
    text = capsys.readouterr().out
    commands = text.partition("commands:")[2].partition("three ways")[0]
    for name in ("demo", "status", "verify", "parked", "prune", "serve", "token", "schema"):
        assert f"\n    {name} " in commands


@pytest.mark.parametrize(
    "command", ["demo", "status", "verify", "parked", "prune", "serve", "token", "schema"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"usage: sharedlog {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sharedlog {metadata.version('sharedlog')}\n"


def test_no_command_shows_the_help_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "three ways to use it" in captured.err


def test_a_misspelled_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["srve", "--db", "x"]) == 2
    assert capsys.readouterr().err == (
        "sharedlog: There is no command 'srve'.\n  Did you mean `serve`?\n"
    )


def test_an_unknown_command_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["frobnicate"]) == 2
    text = capsys.readouterr().err
    assert "There is no command 'frobnicate'." in text
    for name in ("demo", "migrate-keys", "status", "verify", "parked", "prune", "serve", "token"):
        assert name in text


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--port", "70000"]) == 2
    assert "'70000' is not a port number" in capsys.readouterr().err


def test_an_unknown_option_shows_those_that_the_command_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", "--prot", "8000"]) == 2
    told = capsys.readouterr().err
    assert "usage: sharedlog demo " in told
    assert "unrecognized arguments: --prot 8000" in told


def test_the_client_alone_says_how_to_get_the_service() -> None:
    done = run_without("sharedlog_service", "serve", "--db", "x.db")
    assert done.returncode == 1
    assert "There is no command 'serve' here" in done.stderr
    assert "pip install 'sharedlog[service]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_alone_still_helps() -> None:
    done = run_without("sharedlog_service", "--help")
    assert done.returncode == 0
    assert "three ways to use it" in done.stdout


def test_a_service_without_its_libraries_says_how_to_get_them(tmp_path: Path) -> None:
    done = run_without("strawberry", "serve", "--db", str(tmp_path / "x.db"))
    assert done.returncode == 1
    assert "pip install 'sharedlog[service]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["rich", "pycountry"])
def test_the_demonstration_says_how_to_get_what_it_needs(module: str) -> None:
    done = run_without(module, "demo", "--once")
    assert done.returncode == 1
    assert done.stderr == (
        f"sharedlog: The demonstration needs {module}, which is not installed.\n"
        "  pip install 'sharedlog[demo]'\n"
    )


def test_commands_of_other_distributions_are_found(plugin: Path) -> None:
    assert run("-m", "sharedlog.cli", "seven", folder=plugin).returncode == 7


def test_an_error_of_ours_is_one_message_without_a_traceback(plugin: Path) -> None:
    done = run("-m", "sharedlog.cli", "refuse", folder=plugin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sharedlog: The line is cut.\n  Mend it.\n"


def test_a_file_that_the_system_refuses_is_named(plugin: Path) -> None:
    done = run("-m", "sharedlog.cli", "forget", folder=plugin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sharedlog: nowhere/at.all: No such file or directory.\n"


def test_whoever_reads_the_output_may_have_enough(plugin: Path) -> None:
    command = [sys.executable, "-m", "sharedlog.cli", "talk"]
    environment = {**os.environ, "PYTHONPATH": str(plugin)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as talking:
        assert talking.stdout is not None
        assert talking.stderr is not None
        assert talking.stdout.readline() == b"more\n"
        talking.stdout.close()
        assert talking.stderr.read() == b""
        assert talking.wait(20) == 0


def test_a_mistake_in_the_program_keeps_its_traceback(plugin: Path) -> None:
    done = run("-m", "sharedlog.cli", "explode", folder=plugin)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a mistake in the program" in done.stderr


def test_an_interruption_is_quiet(plugin: Path) -> None:
    done = run("-m", "sharedlog.cli", "interrupt", folder=plugin)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = {"sharedlog_service.api.schema", "strawberry", "rich", "pycountry", "uvicorn", "httpx2"}
    code = "import sys; from sharedlog.cli import main; main(['--help']); print(*sys.modules)"
    loaded = set(run("-c", code).stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert not heavy & loaded
