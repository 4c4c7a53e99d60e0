"""The demonstration as users run it: a process of its own, with the service as its child."""

from __future__ import annotations

import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from sharedlog import HttpTransport
from sharedlog.demo.proof import broken_references, compare
from sharedlog.demo.signals import Signals

DEMO = [sys.executable, "-m", "sharedlog.cli", "demo"]
TABLES = ("country", "region", "language", "note")
LIMIT_S = 60

HISTORY = """query($userId: ID!, $pk: JSON!) {
  sharedSyncLog { history(userId: $userId, collection: "country", pk: $pk) { data } }
}"""

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


def services_on(folder: Path) -> list[str]:
    """The command lines of running processes that work on a folder's database."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("finding processes needs /proc")
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder / "service.db") in line:
            found.append(line)
    return found


@dataclass(frozen=True, slots=True)
class Once:
    """A finished run of `sharedlog demo --once`."""

    folder: Path
    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    folder = tmp_path_factory.mktemp("demo") / "files"
    done = subprocess.run(
        [*DEMO, "--once", "--dir", str(folder)],
        capture_output=True,
        encoding="utf-8",
        env=plain_environment(),
        timeout=LIMIT_S,
    )
    return Once(folder, done.returncode, done.stdout, done.stderr)


def plain_environment(**more: str) -> dict[str, str]:
    """Whatever asks for colours or widths here shall not decide what a test sees."""
    unset = {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def test_it_ends_well_and_says_so(once: Once) -> None:
    assert (once.code, once.errors) == (0, "")
    assert re.search(r"✓ Equal: 4 of 4 tables, [\d,]+ rows, no broken foreign key", once.output)
    for table in TABLES:
        assert re.search(rf"{table} +[\d,]+ +([0-9a-f]{{12}})… +\1… +equal", once.output)


def test_its_claim_is_true(once: Once) -> None:
    rows = {}
    for table in TABLES:
        query = f'SELECT * FROM "{table}" ORDER BY 1'
        found = []
        for name in ("laptop.db", "phone.db"):
            with closing(sqlite3.connect(once.folder / name)) as database:
                found.append(database.execute(query).fetchall())
        assert found[0] == found[1]
        rows[table] = len(found[0])
    assert rows["country"] > 200
    assert rows["region"] > 4_000
    assert rows["language"] > 7_000
    assert rows["note"] == 2


def test_it_shows_how_conflicts_were_decided(once: Once) -> None:
    decided = once.output.partition("Where both had changed")[2]
    time_of_day = r"\d\d:\d\d:\d\d\.\d{3}"
    for line in (
        rf"phone +{time_of_day} +Česko",
        rf"✓ +laptop +{time_of_day} +Czech Republic +the later write wins",
        rf"✓ +laptop +{time_of_day} +deleted it +deleted stays deleted",
        rf"✓ +phone +{time_of_day} +Lekh Dothraki +the later write wins",
    ):
        assert re.search(line, decided), line


def test_each_edit_came_out_as_announced(once: Once) -> None:
    outcome = once.output.partition("came out:")[2].partition("The proof")[0]
    for line in (
        "both rows are kept +2 notes",
        "both fields are kept +Ísland, Reykjavík",
        "the later write wins +Czech Republic",
        "a deletion stands against a later edit +not there",
        "one row, each field by the later write +Lekh Dothraki, constructed",
        "recorded and decided row by row +6.. marked, Dalmatic",
        "the cascade is shared, a deletion stands +0 of 11 there",
    ):
        assert re.search(line, outcome), line


def test_the_code_it_shows_is_there(once: Once) -> None:
    for part in ("sync.setup()", "insert_many(rows)", 'Country.set_by_id("IS"', "delete_by_id"):
        assert part in once.output


def test_a_log_gets_plain_lines(once: Once) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", once.output)
    for line in once.output.splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


def test_the_service_is_gone_and_only_databases_stay(once: Once) -> None:
    assert services_on(once.folder) == []
    assert {file.name for file in once.folder.iterdir()} == {"laptop.db", "phone.db", "service.db"}


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    done = subprocess.run(
        [*DEMO, "--once", "--dir", str(tmp_path)], capture_output=True, encoding="utf-8", timeout=30
    )
    assert done.returncode == 1
    assert "is not an empty folder" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@dataclass(frozen=True, slots=True)
class Running:
    """A demonstration at work."""

    process: subprocess.Popen[str]

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def read_until(self, part: str) -> str:
        for line in self.output:
            if part in line:
                return line
        raise AssertionError(f"it ended without saying {part!r}")

    def tell(self, number: int) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    process = subprocess.Popen(
        [*DEMO, "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=plain_environment(),
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.terminate()  # lets it stop its service, whatever the test found


@posix
@pytest.mark.parametrize(
    ("moment", "name", "code"),
    [
        ("The service runs", "SIGTERM", 143),
        ("The service runs", "SIGHUP", 129),
        ("phone received and applied", "SIGINT", 130),
    ],
)
def test_killed_in_the_middle_it_leaves_no_service(
    tmp_path: Path, moment: str, name: str, code: int
) -> None:
    with running(tmp_path) as demo:
        demo.read_until(moment)
        assert services_on(tmp_path) != []
        assert demo.tell(getattr(signal, name)) == code
    assert services_on(tmp_path) == []


@posix
def test_killed_while_the_service_starts_it_leaves_no_service(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        while not services_on(tmp_path):
            assert demo.process.poll() is None
            time.sleep(0.002)
        assert demo.tell(signal.SIGTERM) == 143
    assert services_on(tmp_path) == []


@posix
def test_a_signal_is_not_lost_where_python_drops_what_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))
    with Signals() as signals:
        signals.check()  # nothing was told
        gone = set[int]()  # what is called when an object goes, as imports have it
        kept = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGTERM))
        del gone
        assert (kept(), dropped) == (None, [SystemExit])
        with pytest.raises(SystemExit) as left:
            signals.check()
    assert left.value.code == 143


@posix
def test_it_leaves_the_service_running_until_ctrl_c(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        address = demo.read_until("#token=").strip()
        url, _, fragment = address.partition("#")
        token, _, user = fragment.removeprefix("token=").partition("&user=")
        transport = HttpTransport(url, token)
        answer = transport.execute(HISTORY, {"userId": user, "pk": "CZ"})
        transport.close()
        told = " ".join(entry["data"] for entry in answer["sharedSyncLog"]["history"])
        assert "Czechia" in told
        assert "Česko" in told
        assert "Czech Republic" in told
        assert demo.tell(signal.SIGINT) == 0
    assert services_on(tmp_path) == []


@posix
def test_in_a_terminal_it_shows_bars_and_honours_no_color(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DEMO, "--once", "--dir", str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=plain_environment(TERM="xterm-256color", NO_COLOR="1", COLUMNS="80"),
    )
    os.close(theirs)
    output = read_terminal(ours)
    assert process.wait(LIMIT_S) == 0
    assert "━" in output
    assert "importing" in output
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")
    assert not colours.search(output)
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # the cursor is back


def read_terminal(descriptor: int) -> str:
    """All that is written to a terminal until its other side is closed."""
    parts = []
    while select.select([descriptor], [], [], LIMIT_S)[0]:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux tells the end this way
            break
        if not part:
            break
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def database(path: Path, *rows: tuple[str, str | None]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY, parent TEXT REFERENCES t (id))")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    return path


def test_the_proof_sees_one_different_value(tmp_path: Path) -> None:
    one = database(tmp_path / "1.db", ("1", None), ("2", "1"))
    two = database(tmp_path / "2.db", ("2", "1"), ("1", None))
    three = database(tmp_path / "3.db", ("1", None), ("2", None))
    assert [found.equal for found in compare(one, two, ["t"])] == [True]
    assert [found.equal for found in compare(one, three, ["t"])] == [False]


def test_the_proof_sees_a_broken_reference(tmp_path: Path) -> None:
    assert broken_references(database(tmp_path / "1.db", ("1", None), ("2", "1"))) == 0
    assert broken_references(database(tmp_path / "2.db", ("2", "9"))) == 1
