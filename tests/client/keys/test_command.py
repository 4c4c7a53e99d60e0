"""`sharedlog migrate-keys`: what it prints, what it refuses, and that it teaches."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sharedlog.cli import USAGE_ERROR, main
from sharedlog.keys.command import _Line
from tests.client.keys.files import FORUM, dump, is_key, make, rows

MODELS = """
import peewee
from peewee import Model  # as with *: no model of the application
from sharedlog import SyncModel

class User(SyncModel):
    label = peewee.TextField()

class Note(SyncModel):
    owner = peewee.ForeignKeyField(User)
"""


@pytest.fixture
def forum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return make(Path("forum.db"), FORUM)


def test_what_was_done_is_told(forum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["migrate-keys", "forum.db", "--tables", "user, message"]

    assert main([*arguments, "--dry-run"]) == 0
    rehearsed = capsys.readouterr().out
    assert main([*arguments, "--backup", "before.db", "--mapping", "numbers"]) == 0
    done = capsys.readouterr().out
    assert main(arguments) == 0
    again = capsys.readouterr().out

    said = (
        "forum.db: new keys in 4 tables, 12 rows\n"
        "  user               3 rows  id\n"
        "  profile            2 rows  user_id -> user\n"
        "  Message            4 rows  id, answers -> message, author_id -> user, "
        "thread_id -> message\n"
        "  likes              3 rows  message_id -> message, user_id -> user\n"
        "Compared: every value, every reference, the schema, foreign keys, views, integrity.\n"
    )
    assert rehearsed == said + "This was a dry run: the file is as it was.\n"
    assert done == said + "The file as it was: before.db\n"
    assert again == "forum.db: nothing to do. No numbered keys: user, message.\n"
    assert rows(forum, "SELECT count(*) FROM numbers") == [(7,)]


def test_what_stands_in_the_way_is_told_with_what_to_write(
    forum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(forum, "CREATE TABLE t (user_id INTEGER)")
    before = dump(forum)

    assert main(["migrate-keys", "forum.db", "--tables", "user"]) == 1

    error = capsys.readouterr().err
    assert error == (
        "sharedlog: The keys cannot be replaced yet; nothing was changed.\n"
        "  - t.user_id looks like a reference to user, but none is declared. If it is one: "
        "--reference t.user_id=user; if not: --number t.user_id\n"
    )
    assert dump(forum) == before
    assert main(["migrate-keys", "forum.db", "--tables=user", "--number=t.user_id"]) == 0


def test_a_reference_can_be_named(forum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(forum, "CREATE TABLE t (current); INSERT INTO t VALUES (7)")

    assert main(["migrate-keys", "forum.db", "--tables=user", "--reference=t.current=user"]) == 0

    assert "current -> user" in capsys.readouterr().out
    [(key,)] = rows(forum, "SELECT current FROM t")
    assert is_key(key)


def test_what_may_know_rows_by_number_is_told(
    forum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(forum, "CREATE VIRTUAL TABLE words USING fts5 (word)")

    assert main(["migrate-keys", "forum.db", "--tables=setting"]) == 0

    assert "Make anew what knows rows by number: maybe words\n" in capsys.readouterr().out


def test_copies_that_are_given_one_name_show_their_digest(
    forum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate-keys", "forum.db", "--tables=setting", "--namespace=shop"]) == 0

    assert "Digest, the same on every copy: " in capsys.readouterr().out
    assert all(is_key(key, 8) for (key,) in rows(forum, "SELECT id FROM setting"))


@pytest.mark.parametrize(
    ("code", "raised"), [("1 / 0", "ZeroDivisionError("), ("exit(3)", "SystemExit(3)"), ("(", "(")]
)
def test_a_module_that_fails_is_told_of_with_what_it_raised(
    forum: Path, capsys: pytest.CaptureFixture[str], code: str, raised: str
) -> None:
    Path("failing_models.py").write_text(code)
    assert main(["migrate-keys", "forum.db", "--models", "failing_models"]) == 1
    error = capsys.readouterr().err
    assert "The module failing_models cannot be imported: it raised" in error
    assert raised in error
    assert "Traceback" not in error


def test_models_are_found_from_the_current_folder(
    forum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("forum_models.py").write_text(MODELS)
    make(forum, "CREATE TABLE note (id INTEGER NOT NULL PRIMARY KEY, owner_id INTEGER)")
    make(forum, "INSERT INTO note VALUES (1, 7)")
    try:
        assert main(["migrate-keys", "forum.db", "--models", "forum_models"]) == 0
    finally:
        sys.modules.pop("forum_models", None)

    assert "note               1 rows  id, owner_id -> user\n" in capsys.readouterr().out
    assert main(["migrate-keys", "forum.db", "--models", "forum_modles"]) == 1
    error = capsys.readouterr().err
    assert "cannot be imported: No module named 'forum_modles'" in error
    assert "in the folder from which the application starts" in error
    assert main(["migrate-keys", "forum.db", "--models", "json"]) == 1
    assert "has no Peewee models" in capsys.readouterr().err


def test_without_tables_it_says_which_there_are(
    forum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate-keys", "forum.db"]) == 1

    error = capsys.readouterr().err
    assert "Which tables are to get new keys?" in error
    assert "--tables user,profile,Message,setting,tag" in error


@pytest.mark.parametrize(
    "wrong",
    [["--reference", "a=b"], ["--reference", "a.b"], ["--tables=a", "--models=b"], ["--tables"]],
)
def test_a_wrong_command_line_is_refused(
    forum: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate-keys", "forum.db", *wrong]) == USAGE_ERROR
    assert "usage: sharedlog migrate-keys" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_nothing_in_a_file() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        line = _Line(stream)
        line.show("copying message", 20_000, 1_000_000)
        line.clear()

    assert terminal.getvalue() == "\r\x1b[Kcopying message: 20,000 of 1,000,000 rows\r\x1b[K"
    assert file.getvalue() == ""
