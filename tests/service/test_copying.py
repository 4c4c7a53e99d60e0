"""Everything moves to another database and back, and whoever uses it does not notice."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from sharedlog_service.access.auth import issue_token, token_digest
from sharedlog_service.engines.database import Database, open_database
from sharedlog_service.engines.session import Row
from sharedlog_service.engines.tables import MODELS
from sharedlog_service.errors import ConfigurationError
from sharedlog_service.grants import Grant
from sharedlog_service.store.copying import Contents, column_names, contents, copy
from sharedlog_service.store.store import Store
from tests.engines import Postgres
from tests.service.support import NOON, ManualClock, entries, flat, read_all


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A service's file with a bit of everything."""
    store = Store.open(tmp_path / "filled.db", now=ManualClock())
    issue_token(store, "ada", "laptop", lambda count: b"t" * count)
    store.create_user("bob")
    writer, _ = store.create_device("ada", name="ü"), store.create_device("bob")
    store.write("ada", writer, entries(1_200))
    sealed = [entry._replace(data="☃ sealed") for entry in entries(3, start=NOON + 5_000)]
    store.write("ada", writer, sealed)
    store.revoke_device("ada", store.create_device("ada"))
    store.close()
    return tmp_path / "filled.db"


def test_there_and_back_everything_is_the_same(
    filled: Path, postgres: Postgres, tmp_path: Path
) -> None:
    told: list[tuple[str, int]] = []
    with closing(open_database(filled)) as source:
        with closing(open_database(postgres.place)) as target:
            count = copy(source, target, lambda table, rows: told.append((table, rows)))
        with (
            closing(open_database(postgres.place)) as between,
            closing(open_database(tmp_path / "back.db")) as target,
        ):
            assert copy(between, target) == count
            assert everything(between) == everything(source) == everything(target)
    assert told[-1] == ("entries", 1_203)
    assert count == 1_203 + 2 + 2 + 3 + 1 + 1


def test_who_uses_the_copy_goes_on_where_it_was(filled: Path, postgres: Postgres) -> None:
    with (
        closing(open_database(filled)) as source,
        closing(open_database(postgres.place)) as target,
    ):
        copy(source, target)
    old = Store.open(filled, now=ManualClock())
    new = Store.open(postgres.place, now=ManualClock())
    with closing(old), closing(new):
        token = "slog_" + "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ"
        assert new.grant(token_digest(token)) == Grant("ada")
        writer, reader = old.devices("ada")[0].id, new.create_device("ada")
        assert reader not in {device.id for device in old.devices("ada")}
        assert new.create_user("cleo")
        assert new.write("ada", writer, entries(1_200)).duplicates == frozenset(range(1_200))
        assert new.write("ada", writer, entries(1, start=NOON + 9_000)).head.seq == 1_204
        assert len(flat(read_all(new, "ada", reader))) == 1_204


def test_a_target_that_has_something_is_refused(filled: Path, postgres: Postgres) -> None:
    with closing(Store.open(postgres.place)) as store:
        store.create_user("somebody")
    with (
        closing(open_database(filled)) as source,
        closing(open_database(postgres.place)) as target,
    ):
        with pytest.raises(ConfigurationError, match="not empty: it has users"):
            copy(source, target)
        assert [rows for rows, _ in everything(target).values()] == [1, 1, 0, 0, 0, 0, 0]


def test_a_row_that_arrives_as_another_one_is_noticed(
    filled: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing stays of such a copy."""
    with (
        closing(open_database(filled)) as source,
        closing(open_database(postgres.place)) as target,
    ):
        with target.snapshot() as db:
            original = type(db).insert_rows

        def lossy(self: object, table: str, rows: list[Row]) -> None:
            original(self, table, rows[1:] if table == "entries" else rows)  # type: ignore[arg-type]

        monkeypatch.setattr(type(db), "insert_rows", lossy)
        with pytest.raises(ConfigurationError, match="entries is not what was read"):
            copy(source, target)
        assert all(found.rows == 0 for found in everything(target).values())


def everything(database: Database) -> dict[str, Contents]:
    with database.snapshot() as db:
        return {
            model._meta.table_name: contents(db, model._meta.table_name, column_names(model))
            for model in MODELS
        }
