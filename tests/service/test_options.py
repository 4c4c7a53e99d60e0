"""What an operator may choose, and where: by file, by environment, by flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharedlog_service.access.auth import issue_token
from sharedlog_service.commands.choosing import FILE, FILE_VARIABLE
from sharedlog_service.commands.options import HOURS, OPTIONS, PORT, SWITCH
from sharedlog_service.store.store import Store
from tests.service.conftest import Run

SECRET = "canary-5d1f"

WRITTEN: dict[str, tuple[Any, Any, Any]] = {
    "database": ("file.db", "variable.db", "flag.db"),
    "host": ("127.0.0.2", "127.0.0.3", "127.0.0.4"),
    "port": (1, 2, 3),
    "workers": (2, 3, 4),
    "user": ("ada", "bob", "cy"),
    "auth": (False, True, False),
    "explore": (False, True, False),
    **{
        name: (0, 1, 2)
        for name in (
            *("requests_per_minute", "entries_per_minute", "bytes_per_minute"),
            *("quota_entries", "quota_bytes", "quota_devices", "answers_bytes"),
        )
    },
    **{
        name: ("one", "two", "three")
        for name in (
            *("jwt_issuer", "jwt_audience", "jwt_jwks", "jwt_user_claim", "jwt_scope_claim"),
        )
    },
    "jwt_scope": ("log:read", "log:append", "explore"),
    "jwt_device_claim": ("one", "two", "three"),
    "compact_every": (1, 0.5, 24),
    "keep": (1, 2, 3),
    "expire": (1, 2, 3),
    "grace": (1, 0.5, 3),
    "log_format": ("json", "text", "json"),
    "ready_file": ("file.json", "variable.json", "flag.json"),
}
"""A value of each setting for the file, for the environment and for a flag."""


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read(run: Run, *words: str) -> dict[str, Any]:
    code, printed, complaint = run("settings", "--json", *words)
    assert (code, complaint) == (0, "")
    found: dict[str, Any] = json.loads(printed)
    return found


def test_each_setting_has_a_case_here() -> None:
    assert list(WRITTEN) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_flag_counts_more_than_the_environment_and_that_more_than_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, option: Any
) -> None:
    in_file, in_environment, by_flag = WRITTEN[option.name]
    assert read(run)[option.name]["source"] == "default"
    Path(FILE).write_text(f"{option.name} = {json.dumps(in_file)}\n")
    assert read(run)[option.name] == {
        "value": in_file,
        "source": f"{option.name} in sharedlog.toml",
    }
    monkeypatch.setenv(option.variable, text(in_environment))
    assert read(run)[option.name] == {"value": in_environment, "source": option.variable}
    flag = option.flags[0] if by_flag is not False else option.flags[1]
    words = [flag] if option.kind is SWITCH else [flag, text(by_flag)]
    assert read(run, *words)[option.name] == {"value": by_flag, "source": flag}


def test_people_are_shown_each_setting_and_who_says_so(run: Run) -> None:
    code, printed, _ = run("settings", "--no-explore")
    lines = [line.split("  ") for line in printed.splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == [option.name for option in OPTIONS]
    assert [line[-1].strip() for line in lines if line[0] == "explore"] == ["--no-explore"]
    assert "never" in printed


def test_a_password_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, shown in (
        (f"postgresql://ada:{SECRET}@db/log", "postgresql://ada@db/log"),
        (f"postgresql://ada:{SECRET}/{SECRET}@db/log", "postgresql://ada@db/log"),
        (f"postgresql://db/log?password={SECRET}&a=b", "postgresql://db/log?a=b"),
    ):
        monkeypatch.setenv("SHAREDLOG_DATABASE", address)
        for words in ((), ("--json",)):
            code, printed, _ = run("settings", *words)
            assert (code, shown in printed, SECRET in printed) == (0, True, False)


def test_unknown_names_are_refused_with_the_nearest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(FILE).write_text("no-explore = true\n")
    code, _, complaint = run("token", "list")
    assert (code, "no-explore in sharedlog.toml" in complaint) == (2, True)
    assert "the nearest one is explore." in complaint
    Path(FILE).write_text("[database]\nurl = 'x'\n[serve]\n")
    assert "serve in sharedlog.toml is no setting; the nearest one is user." in run("settings")[2]
    Path(FILE).unlink()
    monkeypatch.setenv("SHAREDLOG_PROT", "1")
    code, _, complaint = run("serve")
    assert code == 2
    assert "SHAREDLOG_PROT in the environment" in complaint
    assert "the nearest one is SHAREDLOG_PORT." in complaint


def test_names_of_others_are_left_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLOG_TOKEN", "slog_x")
    monkeypatch.setenv("SHAREDLOG_TEST_FUZZ", "1")
    monkeypatch.setenv("SHAREDLOGS", "1")
    assert read(run)["port"]["source"] == "default"


WRONG = {
    "database": ("", f"mysql://ada:{SECRET}@db/log"),
    "host": ("",),
    "port": (SECRET, "-1", "65536", "80.5", ""),
    "workers": (SECRET, "0", "65", "1.5", ""),
    "user": ("",),
    "auth": (SECRET, "no", "1", ""),
    "explore": (SECRET, "yes"),
    **{
        name: (SECRET, "-1", "1.5", "")
        for name in (
            *("requests_per_minute", "entries_per_minute", "bytes_per_minute"),
            *("quota_entries", "quota_bytes", "quota_devices", "answers_bytes"),
        )
    },
    **{
        name: ("",)
        for name in (
            *("jwt_issuer", "jwt_audience", "jwt_jwks", "jwt_user_claim", "jwt_scope_claim"),
        )
    },
    "jwt_scope": (SECRET, "log:read,explore", "admin"),
    "jwt_device_claim": ("",),
    "compact_every": (SECRET, "0", "-1", "nan", "inf"),
    "keep": (SECRET, "0", "1.5"),
    "expire": (SECRET, "0", "100001"),
    "grace": (SECRET, "-1", "61", "nan"),
    "log_format": (SECRET, "JSON", ""),
    "ready_file": ("",),
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_wrong_values_are_refused_by_name_and_not_quoted(
    run: Run, monkeypatch: pytest.MonkeyPatch, option: Any
) -> None:
    for wrong in WRONG[option.name]:
        monkeypatch.setenv(option.variable, wrong)
        code, printed, complaint = run("settings")
        assert (code, printed) == (2, "")
        assert complaint == f"{option.variable}: {option.kind.says}\n"
        if option.kind is not SWITCH:
            flag = option.flags[0]
            assert run("settings", f"{flag}={wrong}")[2] == f"{flag}: {option.kind.says}\n"
    monkeypatch.delenv(option.variable)
    Path(FILE).write_text(f"{option.name} = [1]\n")
    said = f"{option.name} in sharedlog.toml: {option.kind.says}\n"
    assert run("settings")[::2] == (2, said)


@pytest.mark.parametrize(
    ("line", "kind"), [("port = true", PORT), ('compact_every = "1"', HOURS), ("auth = 1", SWITCH)]
)
def test_a_file_has_values_of_the_right_types(run: Run, line: str, kind: Any) -> None:
    Path(FILE).write_text(line)
    name = line.partition(" ")[0]
    assert run("settings")[2] == f"{name} in sharedlog.toml: {kind.says}\n"


def test_the_file_can_be_another_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path(FILE).write_text("port = 1\n")
    second, third = tmp_path / "second.toml", tmp_path / "third.toml"
    second.write_text("port = 2\n")
    third.write_text("port = 3\n")
    assert read(run)["port"]["value"] == 1
    monkeypatch.setenv(FILE_VARIABLE, str(second))
    assert read(run)["port"]["value"] == 2
    assert read(run, "--settings", str(third))["port"]["value"] == 3


def test_a_file_that_cannot_be_read_is_refused(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    for content, said in ((b"port 1", "is not TOML"), (b"\xff", "is not a text in UTF-8")):
        broken.write_bytes(content)
        code, _, complaint = run("settings", "--settings", str(broken))
        assert (code, said in complaint) == (2, True)
    for path, said in ((tmp_path / "none", "There is no settings file"), (tmp_path, "Cannot read")):
        code, _, complaint = run("settings", "--settings", str(path))
        assert (code, said in complaint) == (2, True)


def test_every_command_at_a_database_reads_the_settings(run: Run, tmp_path: Path) -> None:
    Path(FILE).write_text('database = "chosen.db"\nuser = "bob"\n')
    store = Store.open(tmp_path / "chosen.db")
    issue_token(store, "ada", "laptop")
    store.close()
    assert "laptop" in run("token", "list")[1]
    # A service's first user is not whose log is compacted.
    assert "ada: dropped 0 entries" in run("compact")[1]
    assert run("restored")[1] == "1 logs begin a new epoch.\n"


def test_a_command_without_settings_does_not_look_for_them(run: Run) -> None:
    Path(FILE).write_text("nonsense")
    assert run("schema")[0] == 0


def test_every_setting_is_in_the_operations_page() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
    table = page.read_text(encoding="utf-8").partition("| setting |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    names = [name for cell in cells for name in cell.split(", ")]

    assert sorted(names) == sorted(f"`{option.name}`" for option in OPTIONS)
