"""Backups: of one moment, whole, checked, never over anything, and of a new life when put back."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from sharedlog_service.access.auth import (
    TOKEN_ID_CHARS,
    issue_token,
    revoke_token,
    token_digest,
)
from sharedlog_service.engines.database import is_server
from sharedlog_service.entries import EntryFilter
from sharedlog_service.errors import ConfigurationError
from sharedlog_service.settings import DAY_MS, Policy
from sharedlog_service.store.backup import PAGES, Saved, back_up, copy_file, restore
from sharedlog_service.store.store import Store
from tests.engines import Engine, Postgres
from tests.service.support import NOON, ManualClock, change, entries


@pytest.fixture
def store(store: Store) -> Store:
    """With two logs; of one some entries were dropped."""
    store.create_user("bob")
    writer = store.create_device("ada", name="ü")
    store.write("ada", writer, entries(1_200))
    over = [entry._replace(data=change("pk-1", "modify", value={"n": 1})) for entry in entries(9)]
    store.write("ada", writer, [e._replace(created_on=e.created_on + 5_000) for e in over])
    assert store.compact("ada", Policy(DAY_MS, DAY_MS)).entries == 8
    return store


def texts(store: Store, user: str) -> list[tuple[int, str]]:
    page = store.find(user, EntryFilter(), count=10_000)
    return [(entry.seq, entry.data) for entry in page.entries]


def test_what_is_put_back_is_what_there_was_in_a_new_life(
    store: Store, engine: Engine, postgres: Postgres, tmp_path: Path
) -> None:
    token = issue_token(store, "ada", "laptop")
    file = tmp_path / "monday.db"
    told: list[str] = []
    assert back_up(engine.place, file, told.append) == Saved(logs=2, entries=1_201)
    assert told[-1] == "checking"
    assert len(told) > 1
    before, epochs = texts(store, "ada"), {store.stats(u).head.epoch for u in ("ada", "bob")}
    device = store.devices("ada")[0]
    store.write("ada", device.id, entries(5, start=NOON + 9_000))
    store.close()
    place: Path | str = tmp_path / "new.db"
    if is_server(engine.place):  # into the other kind: there is one server for a test
        assert restore(file, place) == Saved(logs=2, entries=1_201)
    else:
        place = postgres.place
        assert restore(file, place, told.append) == Saved(logs=2, entries=1_201)
    with closing(Store.open(place, now=ManualClock())) as back:
        assert texts(back, "ada") == before
        assert back.grant(token_digest(token)) is not None
        assert [found.name for found in back.devices("ada")] == ["ü"]
        assert back.write("ada", device.id, entries(1, start=NOON + 9_000)).head.seq == 1_210
        assert len(epochs | {back.stats(u).head.epoch for u in ("ada", "bob")}) == 4
    assert sorted(path.name for path in tmp_path.iterdir() if "log" not in path.name) == (
        ["monday.db", "new.db"] if is_server(engine.place) else ["monday.db"]
    )


def test_a_copy_ends_although_others_write_meanwhile(tmp_path: Path) -> None:
    """SQLite by itself would begin anew with each of their commits."""
    source = tmp_path / "log.db"
    with closing(Store.open(source)) as store:
        store.create_user("ada")
        writer = store.create_device("ada")
        store.write("ada", writer, entries(10))
    with closing(apsw.Connection(str(source))) as db:
        db.execute("CREATE TABLE more (x)")
        filler = [(b"x" * 8_000,) for _ in range(3 * PAGES)]
        with db:
            db.executemany("INSERT INTO more VALUES (?)", filler)
        steps: list[str] = []

        def write(text: str) -> None:
            steps.append(text)
            assert len(steps) < 100
            db.execute("DELETE FROM more WHERE rowid = ?", [len(steps)])

        copy_file(source, tmp_path / "copy.db", write)
    assert len(steps) == 4
    with closing(apsw.Connection(str(tmp_path / "copy.db"))) as db:
        assert db.execute("SELECT count(*) FROM more").fetchone() == (3 * PAGES,)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "log.db", now=ManualClock())) as store:
        store.create_user("ada")
        store.write("ada", store.create_device("ada"), entries(1_000))
    back_up(tmp_path / "log.db", tmp_path / "monday.db")
    return tmp_path / "monday.db"


def test_a_backup_is_one_file_and_left_as_it_is(backup: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    before = backup.read_bytes()
    backup.chmod(0o400)
    restore(backup, tmp_path / "new.db")
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
    assert backup.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.db", "monday.db", "new.db"]


def test_no_token_of_before_works_if_that_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    """Whatever has become of it since: the backup cannot know."""
    source, file = tmp_path / "source.db", tmp_path / "monday.db"
    with closing(Store.open(source)) as store:
        tokens = [issue_token(store, user, "laptop") for user in ("ada", "bob")]
        revoke_token(store, token_digest(tokens[1])[:TOKEN_ID_CHARS])
        [earlier] = [token.revoked_at for token in store.tokens() if token.revoked_at]
    back_up(source, file)
    restore(file, engine.place, revoke_tokens=True)
    with closing(Store.open(engine.place)) as store:
        assert [store.grant(token_digest(token)) for token in tokens] == [None, None]
        assert earlier in [token.revoked_at for token in store.tokens()]
        anew = issue_token(store, "ada", "laptop")
        assert store.grant(token_digest(anew)) is not None
    restore(file, tmp_path / "other.db")
    with closing(Store.open(tmp_path / "other.db")) as store:
        found = [store.grant(token_digest(token)) is not None for token in tokens]
    assert found == [True, False]


def test_nothing_is_written_over(backup: Path, tmp_path: Path, postgres: Postgres) -> None:
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match=r"monday\.db exists, and is not written over"):
        back_up(tmp_path / "log.db", backup)
    with pytest.raises(ConfigurationError, match=r"log\.db exists"):
        restore(backup, tmp_path / "log.db")
    (tmp_path / "new.db-wal").touch()
    with pytest.raises(ConfigurationError, match=r"new\.db-wal exists"):
        restore(backup, tmp_path / "new.db")
    restore(backup, postgres.place)
    with pytest.raises(ConfigurationError, match="The target is not empty"):
        restore(backup, postgres.place)
    (tmp_path / "new.db-wal").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_who_takes_the_place_meanwhile_keeps_it(backup: Path, tmp_path: Path) -> None:
    """A service that is started too early, say."""
    place = tmp_path / "new.db"

    def take(text: str) -> None:
        place.write_text("mine")

    with pytest.raises(ConfigurationError, match=r"new\.db exists"):
        restore(backup, place, take)
    assert place.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def spoil(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM entries WHERE id & 1023 = 500", "a log of 1000 entries has 999"),
        ("UPDATE logs SET head = head + 1", "a log of 1001 entries has 1000"),
        ("UPDATE logs SET dropped = 1", "is not whole"),
        ("DELETE FROM users", "is damaged"),
        ("DROP TABLE logs", "is not a database of this service"),
    ],
)
def test_a_backup_that_is_not_whole_is_not_put_back(
    backup: Path, tmp_path: Path, statement: str, said: str
) -> None:
    spoil(backup, statement, "DROP TABLE digests")
    with pytest.raises(ConfigurationError, match=said):
        restore(backup, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(ConfigurationError, match=said):
        back_up(backup, tmp_path / "again.db")
    assert not (tmp_path / "again.db").exists()


def flip(file: Path, text: bytes, place: int, bit: int = 1) -> None:
    """Change one bit of a text that the file has, wherever it has it."""
    content = bytearray(file.read_bytes())
    assert text in content
    begin = -1
    while (begin := content.find(text, begin + 1)) >= 0:
        content[begin + place] ^= bit
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("text", "place", "bit", "said"),
    [
        (b'"pk-987"', 4, 1, "the rows of entries are not those that were saved"),
        (b"ada", 2, 1, "the rows of (devices|logs|users) are not those that were saved"),
        (b"created_at INTEGER", 3, 32, "the rows of sqlite_master are not those"),
        (b'"pk-987"', 4, 128, "a text in it is none"),
    ],
)
def test_one_bit_of_what_was_saved_is_noticed(
    backup: Path, tmp_path: Path, text: bytes, place: int, bit: int, said: str
) -> None:
    """SQLite sees that pages fit together, not what is written on them."""
    flip(backup, text, place, bit)
    with pytest.raises(ConfigurationError, match=rf"monday\.db is damaged: {said}"):
        restore(backup, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_so_is_one_of_a_digest(backup: Path, tmp_path: Path) -> None:
    spoil(backup, "UPDATE digests SET digest = 'x' || substr(digest, 2) WHERE name = 'users'")
    with pytest.raises(ConfigurationError, match="is damaged: the rows of users"):
        restore(backup, tmp_path / "new.db")


def test_a_backup_has_what_was_to_be_saved(backup: Path, tmp_path: Path) -> None:
    """Whatever becomes of it before it is on the disk."""

    def lose(text: str) -> None:
        if text == "checking":
            [part] = tmp_path.glob(".tuesday.db.*/part")
            flip(part, b'"pk-987"', 4)

    with pytest.raises(ConfigurationError, match=r"tuesday\.db is damaged: the rows of entries"):
        back_up(tmp_path / "log.db", tmp_path / "tuesday.db", lose)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.db", "monday.db"]


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}


def test_digests_are_in_the_backup_alone(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new.db")
    assert tables(backup) - tables(tmp_path / "new.db") == {"digests"}
    assert tables(tmp_path / "new.db") == tables(tmp_path / "log.db")


def test_a_backup_that_was_used_as_a_database_can_be_saved_again(
    backup: Path, tmp_path: Path
) -> None:
    with closing(Store.open(backup)) as store:
        store.create_user("bob")
    with pytest.raises(ConfigurationError, match="sharedlog backup makes one of it"):
        restore(backup, tmp_path / "new.db")
    assert back_up(backup, tmp_path / "again.db").logs == 2
    assert restore(tmp_path / "again.db", tmp_path / "new.db").compared


def test_a_backup_without_digests_is_put_back_and_says_so(backup: Path, tmp_path: Path) -> None:
    """As a version made them that knew of none."""
    spoil(backup, "DROP TABLE digests")
    assert restore(backup, tmp_path / "new.db") == Saved(logs=1, entries=1_000, compared=False)


@pytest.mark.parametrize("where", [0.05, 0.5, 0.9])
def test_a_damaged_file_is_noticed(backup: Path, tmp_path: Path, where: float) -> None:
    content = bytearray(backup.read_bytes())
    begin = int(len(content) * where) // 8192 * 8192
    content[begin : begin + 8192] = b"\xa5" * 8192
    backup.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"monday\.db (is damaged|cannot be copied)"):
        restore(backup, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no backup"):
        restore(tmp_path / "none.db", tmp_path / "new.db")
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(ConfigurationError, match=r"text\.db cannot be copied"):
        restore(tmp_path / "text.db", tmp_path / "new.db")
    with pytest.raises(ConfigurationError, match="There is no database"):
        back_up(tmp_path / "none.db", tmp_path / "monday.db")
    assert [path.name for path in tmp_path.iterdir()] == ["text.db"]


def test_an_older_version_is_saved_as_it_is_and_put_back_as_this_one(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    fixture = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "service.sql"
    with closing(sqlite3.connect(old)) as db:
        db.executescript(fixture.read_text(encoding="utf-8"))
    saved = back_up(old, tmp_path / "monday.db")
    with closing(sqlite3.connect(tmp_path / "monday.db")) as db:
        assert db.execute("SELECT schema_version FROM meta").fetchone() == (2,)
    assert restore(tmp_path / "monday.db", tmp_path / "new.db") == saved
    with closing(Store.open(tmp_path / "new.db")) as store:
        assert store.tokens()[0].scopes is None
