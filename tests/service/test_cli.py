"""The commands, called as the dispatcher calls them."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sharedlog_service.access.auth import token_digest
from sharedlog_service.cli import _write_private
from sharedlog_service.commands.serving import Announcement, bracketed, listen, prepare
from sharedlog_service.engines.sqlite import check_writable
from sharedlog_service.entries import NewEntry
from sharedlog_service.errors import ConfigurationError
from sharedlog_service.grants import EVERYTHING, USUAL, Grant
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from tests.service.conftest import Run
from tests.service.support import NOON, change

ROOT = Path(__file__).parents[2]


def test_a_token_is_made_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    code, printed, _ = run("token", "create", "--user", "ada", "--name", "laptop")
    token = printed.strip()
    assert (code, token.startswith("slog_")) == (0, True)
    digest = token_digest(token)
    code, printed, _ = run("token", "list")
    assert (code, printed.split()) == (
        0,
        [digest[:12], "valid", "ada", "laptop", *sorted(s.value for s in USUAL)],
    )
    assert token not in printed
    (found,) = json.loads(run("token", "list", "--json")[1])
    assert (found["id"], found["state"], found["user"]) == (digest[:12], "valid", "ada")
    assert run("token", "revoke", digest[:12])[0] == 0
    assert "revoked" in run("token", "list")[1]
    store = Store.open(tmp_path / "sharedlog.db")
    assert store.grant(digest) is None
    store.close()
    code, _, complaint = run("token", "revoke", digest[:12])
    assert (code, "token list" in complaint) == (2, True)


def test_programs_are_told_which_token_was_made(run: Run) -> None:
    words = ("--user", "ada", "--name", "till", "--device", "till-3", "--scope", "log:read")
    made = json.loads(run("token", "create", *words, "--days", "2", "--json")[1])
    secret = made.pop("token")
    (listed,) = json.loads(run("token", "list", "--json")[1])
    assert made == listed
    assert (made["id"], made["scopes"]) == (token_digest(secret)[:12], "log:read")
    another = json.loads(run("token", "rotate", made["id"], "--json")[1])
    assert token_digest(another.pop("token"))[:12] == another["id"] != made["id"]
    assert another.pop("replaces") == made["id"]
    assert another in json.loads(run("token", "list", "--json")[1])
    assert another == {**made, "id": another["id"]}
    revoked = json.loads(run("token", "revoke", another["id"], "--json")[1])
    assert revoked == {"id": another["id"], "revoked": True}


def test_programs_are_told_the_figures_of_what_was_done(run: Run, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "sharedlog.db")
    for user in ("ada", "bob"):
        store.create_user(user)
    device = store.create_device("ada")
    texts = [change("pk", "modify", value={"title": str(n)}) for n in range(3)]
    store.write(
        "ada", device, [NewEntry(NOON - 2**50 + n, 0, text) for n, text in enumerate(texts)]
    )
    store.close()

    def told(*words: str) -> Any:
        code, printed, complaint = run(*words, "--json")
        assert (code, complaint) == (0, "")
        return json.loads(printed)

    dropped = {"dropped_entries": 2, "dropped_bytes": len(texts[0]) * 2, "entries": 1}
    nothing = {"dropped_entries": 0, "dropped_bytes": 0, "entries": 0}
    assert told("compact") == [{"user": "ada", **dropped}, {"user": "bob", **nothing}]
    saved = {"logs": 2, "entries": 1, "compared": True}
    assert told("backup", "monday.db") == {"file": "monday.db", **saved}
    place = str(tmp_path / "new.db")
    restored = {"database": place, **saved, "tokens_revoked": True}
    assert told("restore", "monday.db", "--db", "new.db", "--revoke-tokens") == restored
    copied = told("copy", "--from", "new.db", "--to", "copy.db")
    assert (copied.pop("database"), copied.pop("rows") > 5) == (str(tmp_path / "copy.db"), True)
    assert copied == {}
    assert told("restored") == {"logs": 2}


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--user", "ada", "--days", "0"),
        ("create", "--user", "ada", "--days", "9" * 20),
        ("rotate", "3f9ac01b22d4", "--grace=-1"),
    ],
)
def test_a_token_that_is_never_good_is_not_made(
    run: Run, tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("token", *words)
    assert "is not a whole number from" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("stats",), ("serve", "--port", "0")])
def test_a_server_that_is_away_is_no_wrong_setting(run: Run, command: tuple[str, ...]) -> None:
    """Supervisors do not start again what ended with 2."""
    code, _, said = run(*command, "--database", "postgresql://nobody@127.0.0.1:1/nothing")
    assert (code, "The database cannot be used: " in said) == (1, True)


def test_another_database_can_be_named(run: Run, tmp_path: Path) -> None:
    assert run("token", "create", "--user", "ada", "--db", "other.db")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


def test_a_token_for_a_new_database_comes_with_a_warning(run: Run, tmp_path: Path) -> None:
    _, printed, said = run("token", "create", "--user", "ada")
    assert printed.startswith("slog_")
    assert said == (
        f"Made a new database {tmp_path / 'sharedlog.db'}. "
        "(A service that runs elsewhere does not know this token.)\n"
    )
    assert run("token", "create", "--user", "ada")[2] == ""


def test_the_schema_is_printed_written_and_checked(run: Run, tmp_path: Path) -> None:
    code, printed, _ = run("schema")
    assert (code, printed) == (0, (ROOT / "schema.graphql").read_text())
    file = tmp_path / "schema.graphql"
    assert run("schema", "--check", str(file))[0] == 1
    assert run("schema", "--output", str(file)) == (0, "", "")
    assert file.read_text() == printed
    assert run("schema", "--check", str(file)) == (0, "", "")
    for other in (printed.encode() + b"#", b"\xff\0\xfe"):
        file.write_bytes(other)
        code, _, complaint = run("schema", "--check", str(file))
        assert (code, "--output" in complaint) == (1, True)


def test_after_a_restore_every_log_begins_a_new_epoch(run: Run, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "sharedlog.db")
    for user in ("ada", "bob"):
        store.create_user(user)
    before = [store.stats(user).head.epoch for user in ("ada", "bob")]
    store.close()
    assert run("restored") == (0, "2 logs begin a new epoch.\n", "")
    store = Store.open(tmp_path / "sharedlog.db")
    after = [store.stats(user).head.epoch for user in ("ada", "bob")]
    store.close()
    assert len({*before, *after}) == 4


def test_no_new_epoch_begins_under_a_service_that_runs(run: Run, tmp_path: Path) -> None:
    """It might have another file open than the one that was put back."""
    file = tmp_path / "sharedlog.db"
    with closing(Store.open(file)) as store:
        store.create_user("ada")
        epoch = store.stats("ada").head.epoch
        code, _, complaint = run("restored")
        assert (code, complaint) == (
            1,
            "sharedlog.db is in use: stop the service, and whatever else has it open, first.\n",
        )
        assert store.stats("ada").head.epoch == epoch
    assert run("restored")[0] == 0


@pytest.mark.parametrize("command", ["stats", "users", "migrate", "restored"])
def test_a_damaged_database_is_told(run: Run, tmp_path: Path, command: str) -> None:
    assert run("token", "create", "--user", "ada")[0] == 0
    file = tmp_path / "sharedlog.db"
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))
    code, _, complaint = run(command)
    assert (code, "sharedlog.db is damaged: " in complaint) == (1, True)


def test_a_backup_is_made_and_put_back(run: Run, tmp_path: Path) -> None:
    assert run("token", "create", "--user", "ada")[0] == 0
    assert run("backup", "monday.db") == (0, "monday.db is whole. Logs: 1, entries: 0.\n", "")
    code, _, complaint = run("restore", "monday.db")
    assert (code, "sharedlog.db exists" in complaint) == (2, True)
    code, printed, _ = run("restore", "monday.db", "--db", "new.db")
    assert (code, printed.splitlines()[0]) == (
        0,
        f"{tmp_path / 'new.db'} is ready. Logs, each of a new epoch: 1, entries: 0.",
    )
    assert "Tokens" in printed.splitlines()[1]
    assert "valid" in run("token", "list", "--db", "new.db")[1]
    code, printed, _ = run("restore", "monday.db", "--db", "other.db", "--revoke-tokens")
    assert (code, "All tokens are revoked" in printed) == (0, True)
    [line] = [
        text for text in run("token", "list", "--db", "other.db")[1].splitlines() if "ada" in text
    ]
    assert "revoked" in line


def test_a_backup_that_cannot_be_compared_is_put_back_with_a_word(run: Run, tmp_path: Path) -> None:
    assert run("token", "create", "--user", "ada")[0] == 0
    assert run("backup", "monday.db")[0] == 0
    assert "no digests" not in run("restore", "monday.db", "--db", "new.db")[1]
    with closing(sqlite3.connect(tmp_path / "monday.db")) as db:
        db.execute("DROP TABLE digests")
    code, printed, _ = run("restore", "monday.db", "--db", "other.db")
    assert (code, "The backup has no digests" in printed) == (0, True)


UNREADABLE = "/proc/sys/vm/drop_caches"
"""A file that nobody can read, root neither."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "--no-auth", "--host", "0.0.0.0"), "loopback"),
        (("serve", "--port", "0", "--db", "nowhere/log.db"), "does not exist"),
        (("serve", "--ready-file", "nowhere/ready"), "folder of nowhere/ready does not exist"),
        (("serve", "--host", "256.1.1.1"), "Cannot listen"),
        (("serve", "--port", "99999"), "A port is a number from 0 to 65535."),
        (("serve", "--port", "-1"), "A port is a number from 0 to 65535."),
        (("serve", "--workers", "2"), "--workers needs PostgreSQL"),
        (("serve", "--workers", "0"), "A whole number from 1 to 64 is needed."),
        (("serve", "--db", "/proc/x.db"), "Cannot read and write /proc/x.db: "),
        (
            ("token", "create", "--user", "ada", "--db", "/proc/x.db"),
            "Cannot read and write /proc/x.db: ",
        ),
        (("stats", "--db", UNREADABLE), f"Cannot read and write {UNREADABLE}: Permission denied."),
        (("copy", "--from", UNREADABLE, "--to", "new.db"), f"Cannot read and write {UNREADABLE}: "),
        (("token", "create", "--user", ""), "user name"),
        (("token", "create", "--user", "a\nb"), "A user name has no control characters in it."),
        (("token", "list", "--db", "."), "is a folder"),
        (("token", "list"), "There is no database sharedlog.db."),
        (("token", "revoke", "3f9ac01b22d4", "--db", "none.db"), "There is no database none.db."),
        (("restored", "--db", "none.db"), "There is no database none.db."),
        (("backup", "monday.db"), "There is no database sharedlog.db."),
        (("migrate", "--db", "none.db"), "There is no database none.db."),
        (("token", "create", "--user", "ada", "--name", "\udcff"), "name: A text in UTF-8 is"),
        (("token", "create", "--user", "a", "--device", "\udcff"), "device: A text in UTF-8 is"),
        (("token", "create", "--user", "a", "--db", "\udcff"), "db: A text in UTF-8 is needed."),
        (("backup", "\udcff"), "file: A text in UTF-8 is needed."),
        (("token", "revoke", "\udcff"), "id: A text in UTF-8 is"),
        (("serve", "--user", "\udcff"), "user: A text in UTF-8 is"),
        (("restore", "monday.db"), "There is no backup monday.db."),
    ],
)
def test_what_the_user_can_mend_is_said_in_a_sentence(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, _, complaint = run(*words)
    assert code == 2
    assert said in complaint
    assert len(complaint.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_makes_no_token(run: Run, tmp_path: Path) -> None:
    """Whoever never gets to see the first token would never get another one by itself.

    It is no wrong setting: supervisors start again what ended with 1, and not with 2."""
    taken = listen("127.0.0.1", 0)
    taken.listen()
    port = str(taken.getsockname()[1])
    code, printed, complaint = run("serve", "--port", port)
    taken.close()
    assert (code, printed) == (1, "")
    assert complaint == f"Cannot listen on 127.0.0.1:{port}: Address already in use.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_database_is_checked_before_the_port(run: Run) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        for file, said in (
            ("/proc/x.db", "Cannot read and write"),
            ("none/x.db", "does not exist"),
        ):
            code, _, complaint = run("serve", "--port", port, "--db", file)
            assert (code, said in complaint) == (2, True)


def test_a_database_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.db"
    Store.open(file).close()
    check_writable(file)
    # The superuser may write everything, whatever the file's mode says.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(
        ConfigurationError, match=r"Cannot read and write .*log\.db: Permission denied\."
    ):
        check_writable(file)


@pytest.mark.parametrize("command", ["serve", "token", "schema"])
def test_help_has_examples(run: Run, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(command, "--help")
    printed = capsys.readouterr().out
    assert f"sharedlog {command}" in printed.partition("examples:")[2]


def test_registering_the_commands_imports_nothing_heavy() -> None:
    script = """
import argparse, sys
from sharedlog_service.cli import add_commands
add_commands(argparse.ArgumentParser().add_subparsers())
print([m for m in ("strawberry", "graphql", "starlette", "uvicorn", "peewee", "apsw")
       if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0)


def test_missing_packages_are_named_with_the_remedy() -> None:
    script = """
import argparse, sys
sys.modules["strawberry"] = None
from sharedlog_service.cli import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers())
args = parser.parse_args(["schema"])
sys.exit(args.handler(args))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 1
    assert "pip install 'sharedlog[service]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_first_start_makes_a_user_and_a_token_and_the_second_nothing(tmp_path: Path) -> None:
    settings = Settings(db=tmp_path / "log.db")
    token = prepare(settings, "me")
    assert token is not None
    assert prepare(settings, "me") is None
    assert prepare(settings, "another") is None
    store = Store.open(settings.db)
    assert (store.users(), store.grant(token_digest(token))) == (["me"], Grant("me", EVERYTHING))
    store.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ""),
        (("--user", "ada"), ""),
        (
            ("--user", "bob"),
            "--user bob is ignored: the database has users already. "
            "To add one: sharedlog token create --user bob\n",
        ),
    ],
)
def test_a_user_who_is_not_made_is_mentioned(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    run("token", "create", "--user", "ada")
    monkeypatch.setattr("gc.freeze", lambda: None)
    # As if stopped as soon as it would begin to answer.
    monkeypatch.setattr("sharedlog_service.commands.serving.AnnouncingServer.run", interrupted)
    assert run("serve", "--port", "0", *words) == (0, "", said)


def interrupted(*args: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_without_tokens_the_first_start_makes_a_user_only(tmp_path: Path) -> None:
    settings = Settings(db=tmp_path / "log.db", no_auth=True)
    assert prepare(settings, "me") is None
    store = Store.open(settings.db)
    assert (store.users(), store.tokens()) == (["me"], [])
    store.close()


def test_the_announcement_shows_a_token_only_when_it_is_new(tmp_path: Path) -> None:
    settings = Settings(db=tmp_path / "log.db")
    url = "http://127.0.0.1:8000/graphql"
    new = Announcement(settings, url, "me", "slog_x")
    assert "slog_x" in new.for_people()
    assert new.graphiql is not None
    assert new.graphiql.startswith(url + "#token=slog_x")
    old = Announcement(settings, url, None, None)
    assert "slog_" not in old.for_people()
    assert old.graphiql == url
    assert set(old.for_machines()) == {"url", "graphiql", "user", "token"}


def test_the_announcement_says_how_to_get_another_token() -> None:
    url = "http://127.0.0.1:8000/graphql"
    for db, command in (
        ("sharedlog.db", "sharedlog token create --user NAME"),
        ("a.db", "sharedlog token create --user NAME --database a.db"),
        ("my log.db", "sharedlog token create --user NAME --database 'my log.db'"),
    ):
        settings = Settings(db=Path(db))
        first = Announcement(settings, url, "me", "slog_x").for_people().splitlines()
        assert f"            shown only now; another: {command}" in first
        later = Announcement(settings, url, None, None).for_people().splitlines()
        assert f"  token     as printed at the first start; another: {command}" in later
    open_to_all = Announcement(Settings(no_auth=True), url, "me", None)
    assert "token " not in open_to_all.for_people()


def test_the_ready_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    for text in ({"a": 1}, {"b": 2}):
        _write_private(file, json.dumps(text))
        assert json.loads(file.read_text()) == text
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


def test_addresses_of_version_6_have_brackets() -> None:
    assert bracketed("::1") == "[::1]"
    assert bracketed("127.0.0.1") == "127.0.0.1"
    with pytest.raises(ConfigurationError):
        listen("::ffff:ffff:ffff:ffff:ffff:ffff", 0)
