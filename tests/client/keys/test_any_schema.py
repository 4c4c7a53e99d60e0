"""Whatever refers to whatever: after a migration every row has the same values, the same place
in its table, and every reference leads to the same row, which its label tells."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from sharedlog import MigrationRefused, migrate_keys
from tests.client.keys.files import check_sound, dump, graph, is_key, make, opened, rows

NAMES = ("user", "Order Line", "group", "t'x")


@dataclass(frozen=True)
class Table:
    """A table to be made. `references` are (column, place of the parent, declared)."""

    name: str
    autoincrement: bool
    references: Sequence[tuple[str, int, bool]]
    unique: bool
    numbers: Sequence[int]

    def create(self, tables: Sequence[Table]) -> str:
        columns = [
            f"id INTEGER PRIMARY KEY{' AUTOINCREMENT' * self.autoincrement}",
            "label TEXT NOT NULL",
        ]
        columns += [
            f"{name} INTEGER" + f" REFERENCES {quote(tables[parent].name)} (id)" * declared
            for name, parent, declared in self.references
        ]
        names = ", ".join(name for name, _, _ in self.references)
        if self.unique and names:
            columns.append(f"UNIQUE (label, {names})")
        indexes = [
            f"CREATE INDEX {quote(f'{self.name} {name}')} ON {quote(self.name)} ({name}, id DESC)"
            for name, _, _ in self.references
        ]
        return "; ".join([f"CREATE TABLE {quote(self.name)} ({', '.join(columns)})", *indexes])


def quote(name: str) -> str:
    return f'"{name}"'


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Table], list[list[list[int | None]]]]:
    """Tables, and for each of them its rows: what each reference holds."""
    count = draw(st.integers(1, len(NAMES)))
    numbers = st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 9), unique=True, max_size=6
    )
    references = st.lists(st.tuples(st.integers(0, count - 1), st.booleans()), max_size=3)
    tables = [
        Table(
            name,
            draw(st.booleans()),
            [(f"r{n}", parent, declared) for n, (parent, declared) in enumerate(draw(references))],
            draw(st.booleans()),
            draw(numbers),
        )
        for name in NAMES[:count]
    ]
    held = [
        [
            [
                draw(st.sampled_from([None, *tables[parent].numbers]))
                for _, parent, _ in table.references
            ]
            for _ in table.numbers
        ]
        for table in tables
    ]
    return tables, held


def build(path: Path, tables: Sequence[Table], held: list[list[list[int | None]]]) -> None:
    make(path, "; ".join(table.create(tables) for table in tables))
    with opened(path) as db:
        for table, some in zip(tables, held, strict=True):
            for number, values in zip(table.numbers, some, strict=True):
                row = [number, f"{table.name} {number}", *values]
                marks = ", ".join("?" * len(row))
                db.execute(f"INSERT INTO {quote(table.name)} VALUES ({marks})", row)


@settings(deadline=None)
@given(worlds(), st.data())
def test_any_rows_of_any_tables(
    world: tuple[list[Table], list[list[list[int | None]]]], data: st.DataObject
) -> None:
    tables, held = world
    columns = {
        t.name: {name: tables[parent].name for name, parent, _ in t.references} for t in tables
    }
    selected = [table.name for table in tables if data.draw(st.booleans())] or [tables[0].name]
    named = {
        f"{table.name}.{name}": tables[parent].name
        for table in tables
        for name, parent, declared in table.references
        if not declared and tables[parent].name in selected
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.db"
        build(path, tables, held)
        before = graph(path, columns)

        migrate_keys(path, tables=selected, references=named)

        assert graph(path, columns) == before
        check_sound(path)
        for table in tables:
            keys = [key for (key,) in rows(path, f"SELECT id FROM {quote(table.name)}")]
            assert all(is_key(key) == (table.name in selected) for key in keys)
        after = dump(path)
        assert not migrate_keys(path, tables=selected, references=named).tables
        assert dump(path) == after


@settings(deadline=None)
@given(worlds())
def test_a_reference_to_nothing_changes_nothing(
    world: tuple[list[Table], list[list[list[int | None]]]],
) -> None:
    tables, held = world
    table = Table("lost", False, [("r", 0, True)], False, [1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.db"
        absent = next(n for n in range(10) if n not in tables[0].numbers)
        build(path, [*tables, table], [*held, [[absent]]])
        before = dump(path)
        with pytest.raises(MigrationRefused, match="1 rows of lost have a r that is not in"):
            migrate_keys(path, tables=[tables[0].name])
        assert dump(path) == before
