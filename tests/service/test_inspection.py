"""The commands that show what a service holds, for people and for programs, on both databases."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from sharedlog_service.cli import add_commands
from sharedlog_service.commands.listing import Since, harmless, moment, table
from sharedlog_service.entries import NewEntry
from sharedlog_service.errors import Code, Refused
from sharedlog_service.store.store import Store
from tests.engines import Engine
from tests.service.support import NOON, ManualClock, change, entries

Run = Callable[..., tuple[int, str, str]]

NOON_UTC = "2027-01-15 08:00:00Z"

WAIT_S = 20


@pytest.fixture
def run(engine: Engine, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the database; returns its exit code and what it printed."""
    parser = argparse.ArgumentParser(prog="sharedlog")
    add_commands(parser.add_subparsers(required=True))

    def running(*words: str) -> tuple[int, str, str]:
        args = parser.parse_args([*words, "--database", str(engine.place)])
        code: int = args.handler(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return running


@pytest.fixture
def device(store: Store) -> str:
    """Of ada: ten rows, one of them modified and one deleted, and a sealed entry."""
    device = store.create_device("ada", name="till \x1b[31m")
    store.write("ada", device, entries(10), device_now=NOON / 1024 + 2_500)
    store.write(
        "ada",
        device,
        [
            NewEntry(NOON + 100, 0, change("pk-3", "modify", value={"title": "\x1b[2J ü"})),
            NewEntry(NOON + 101, 0, change(7, "delete", "tag")),
            NewEntry(NOON + 102, 0, "sealed \x1b[2J"),
        ],
    )
    return device


def lines(answer: tuple[int, str, str]) -> list[list[str]]:
    """The words of what was printed."""
    assert answer[0] == 0, answer[2]
    assert "\x1b" not in answer[1]
    return [line.split() for line in answer[1].splitlines()]


def test_users_are_listed_with_what_they_have(run: Run, store: Store, device: str) -> None:
    store.create_user("bob")
    size = store.stats("ada").bytes
    day, time = NOON_UTC.split()
    assert lines(run("users"))[1:] == [
        ["ada", "13", f"{size:,}", "1", day, time, day, time],
        ["bob", "0", "0", "0", day, time, "-"],
    ]
    ada, bob = json.loads(run("users", "--json")[1])
    assert (ada["user"], ada["entries"], ada["bytes"]) == ("ada", 13, size)
    assert (bob["devices"], bob["last_shared_on"]) == (0, None)


def test_devices_are_listed_and_revoked(run: Run, store: Store, device: str) -> None:
    store.create_user("bob")
    other, away = store.create_device("bob"), store.create_device("ada", name="away")
    store.write("bob", other, [], device_now=NOON / 1024 - 20)
    listed = lines(run("devices", "list"))[1:]
    assert [words[:2] for words in listed] == [["ada", device], ["ada", away], ["bob", other]]
    assert listed[0][2:] == ["till", "\\x1b[31m", "valid", "3", *NOON_UTC.split(), "2.5", "s"]
    assert listed[1][2:] == ["away", "valid", "13", "-", "-"]
    assert listed[2][-2:] == ["0.0", "s"], "a zero without a sign"
    assert run("devices", "revoke", away) == (0, f"{away} of ada is revoked.\n", "")
    with pytest.raises(Refused) as refused:
        store.write("ada", away, entries(1))
    assert refused.value.code is Code.DEVICE_REVOKED
    found = json.loads(run("devices", "list", "--user", "ada", "--json")[1])
    assert [(each["id"], each["revoked"]) for each in found] == [(device, False), (away, True)]
    assert json.loads(run("devices", "revoke", away, "--json")[1])["user"] == "ada"


def test_the_newest_entries_are_shown(run: Run, device: str) -> None:
    first, *others = lines(run("log", "tail", "-n", "4"))
    assert first[:4] == [*NOON_UTC.split(), "10", device]
    assert [words[4:] for words in others] == [
        ["modify", "note", '"pk-3"', '{"title":', '"\\u001b[2J', 'ü"}'],
        ["delete", "tag", "7"],
        ["sealed", "11", "characters"],
    ]
    assert len(lines(run("log", "tail"))) == 10
    tail = [json.loads(line) for line in run("log", "tail", "--json", "-n", "2")[1].splitlines()]
    assert [(found["seq"], found["operation"], found["pk"]) for found in tail] == [
        (12, "delete", 7),
        (13, None, None),
    ]
    assert tail[1]["data"] == "sealed \x1b[2J"
    assert tail[1]["created_on"] * 1024 == NOON + 102


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        ((), range(1, 14)),
        (("--collection", "tag"), [12]),
        (("--collection", "note", "--pk", "pk-3"), [4, 11]),
        (("--collection", "note", "--pk", '"pk-3"', "-n", "1"), [4]),
        (("--collection", "tag", "--pk", "7"), [12]),
        (("--collection", "tag", "--pk", '"7"'), []),
        (("--operation", "modify"), [11]),
        (("--since", "2027-01-15T08:00"), range(1, 14)),
        (("--since", "2027-01-15T08:00:01"), []),
        (("--since", "2027-01-15T08:30+01:00"), range(1, 14)),
        (("--count", "2"), [1, 2]),
    ],
)
def test_entries_are_chosen(run: Run, device: str, words: tuple[str, ...], seqs: list[int]) -> None:
    printed = run("log", "show", "--user", "ada", "--json", *words)[1]
    assert [json.loads(line)["seq"] for line in printed.splitlines()] == list(seqs)


def test_a_long_log_is_shown_whole(run: Run, store: Store) -> None:
    one, two = store.create_device("ada"), store.create_device("ada")
    store.write("ada", one, entries(2_100))
    store.write("ada", two, entries(5))
    assert len(lines(run("log", "show"))) == 2_105
    assert len(lines(run("log", "show", "--device", one, "-n", "2050"))) == 2_050
    assert [words[2] for words in lines(run("log", "show", "--device", two))] == [
        str(seq) for seq in range(2_101, 2_106)
    ]


def test_stats_of_the_service_and_of_a_log(run: Run, store: Store, device: str) -> None:
    size = store.stats("ada").bytes
    assert lines(run("stats")) == [
        ["users", "1"],
        ["devices", "1"],
        ["entries", "13"],
        ["bytes", f"{size:,}"],
    ]
    assert json.loads(run("stats", "--json")[1])["bytes"] == size
    printed = lines(run("stats", "--user", "ada"))
    assert ["epoch", store.stats("ada").head.epoch] in printed
    assert printed[-2:] == [
        ["note", "10", "1", "0", *NOON_UTC.split()],
        ["tag", "0", "0", "1", *NOON_UTC.split()],
    ]
    found = json.loads(run("stats", "--user", "ada", "--json")[1])
    assert (found["head"], found["collections"][0]["creates"]) == (13, 10)


def test_a_tail_goes_on_with_what_comes(store: Store, engine: Engine, device: str) -> None:
    command = [sys.executable, "-m", "sharedlog.cli", "log", "tail", "-f", "-n", "1", "--json"]
    with subprocess.Popen(
        [*command, "--database", str(engine.place)], stdout=subprocess.PIPE, text=True
    ) as tail:
        timer = threading.Timer(WAIT_S, tail.kill)
        timer.start()
        try:
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["seq"] == 13
            store.write("ada", device, entries(2, start=NOON + 1_000))
            assert [json.loads(tail.stdout.readline())["seq"] for _ in range(2)] == [14, 15]
            tail.send_signal(signal.SIGINT)
            assert tail.wait(WAIT_S) == 0
        finally:
            timer.cancel()
            tail.kill()


def test_who_stops_reading_is_no_fault(store: Store, engine: Engine) -> None:
    store.write("ada", store.create_device("ada"), entries(3_000))
    command = [sys.executable, "-m", "sharedlog.cli", "log", "show", "--json"]
    with subprocess.Popen(
        [*command, "--database", str(engine.place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as show:
        assert show.stdout is not None
        assert show.stderr is not None
        show.stdout.readline()
        show.stdout.close()
        assert show.wait(WAIT_S) == 0
        assert show.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("log", "show", "--user", "eve"), "There is no user eve. See: sharedlog users"),
        (("stats", "--user", "eve"), "There is no user eve. See: sharedlog users"),
        (("devices", "list", "--user", "eve"), "There is no user eve. See: sharedlog users"),
        (("devices", "revoke", "x"), "There is no device x. See: sharedlog devices list"),
        (("log", "tail", "--device", "x"), "ada has no device x. See: sharedlog devices list"),
        (("log", "show", "--pk", "1"), "--pk needs --collection beside it."),
    ],
)
def test_what_is_not_there_is_said(
    run: Run, store: Store, words: tuple[str, ...], said: str
) -> None:
    assert run(*words) == (2, "", said + "\n")


def test_whose_log_has_to_be_said_where_there_are_several(run: Run, store: Store) -> None:
    store.create_user("bob")
    said = "There are 2 users: say whose log, with --user.\n"
    assert run("log", "tail") == (2, "", said)


@pytest.mark.parametrize("words", [("--since", "soon"), ("--count", "0"), ("--operation", "x")])
def test_what_cannot_be_meant_is_refused(
    run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("log", "show", *words)
    assert f"argument {words[0]}" in capsys.readouterr().err.replace("-n/", "")


def test_times_of_the_command_line() -> None:
    now = ManualClock()()
    assert Since("2h").ms(now) == now - 7_200_000
    assert Since("90s").ms(now) == now - 90_000
    assert Since("1970-01-02").ms(now) == 86_400_000
    assert (
        moment(now)
        == NOON_UTC
        == datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    )


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert list(table(("a", "number"), [("x", 1_000), ("wider", 7)])) == [
        "a      number",
        "x       1,000",
        "wider       7",
    ]
    assert list(table(("a", "b"), [])) == ["a  b"]
    assert harmless("ü\n\x9b\u202e") == "ü\\n\\x9b\\u202e"
