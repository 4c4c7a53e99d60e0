"""The model of what stands in the tables, against examples worked out by hand from
docs/protocol.md. The simulation compares the library with this model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dictmodel import Write
from tests.tablemodel import (
    CASCADED,
    CLASHING,
    MISFIT,
    ORPHANED,
    UNKNOWN,
    ForeignKey,
    Standing,
    Table,
    standing,
)


def refers(*on_delete: str, parent: str = "house", required: bool = False) -> Table:
    """A table whose columns `a`, `b` … refer to a parent, with these ON DELETE."""
    names = "abc"[: len(on_delete)]
    return Table(
        ("id",),
        dict.fromkeys(names),
        tuple(ForeignKey(name, parent, rule) for name, rule in zip(names, on_delete, strict=True)),
        required=frozenset(names if required else ""),
    )


HOUSE = Table(("id",), {"name": "none"})

Told = tuple[str, str, Any]
"""An operation, a row as "table pk", and values."""


def come_to(tables: dict[str, Table], *told: Told) -> Standing:
    """What comes of changes that were made one after the other."""
    writes: dict[tuple[str, str], list[Write]] = {}
    for ticks, (operation, row, value) in enumerate(told, 1):
        table, pk = row.split(" ", 1)
        writes.setdefault((table, pk), []).append(Write((ticks, "d"), operation, value))
    return standing(tables, writes)


def made(row: str, **values: Any) -> Told:
    return ("create", row, values)


def changed(row: str, **values: Any) -> Told:
    return ("modify", row, values)


def killed(row: str) -> Told:
    return ("delete", row, None)


def shown(found: Standing) -> dict[str, Any]:
    return {f"{table} {pk}": dict(values) for (table, pk), values in found.rows.items()}


def parked(found: Standing) -> dict[str, str]:
    return {f"{table} {pk}": reason for (table, pk), reason in found.parked.items()}


# -- 1. deleted parents -------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["", "RESTRICT", "NO ACTION"])
def test_a_restricted_parent_is_kept_with_its_values(rule: str) -> None:
    tables = {"house": HOUSE, "room": refers(rule)}
    found = come_to(
        tables,
        made("house 1", name="old"),
        changed("house 1", name="new"),
        made("room 1", a=1),
        killed("house 1"),
    )
    assert shown(found) == {"house 1": {"name": "new"}, "room 1": {"a": 1}}
    assert found.kept == {("house", "1")} and not found.parked


def test_a_kept_parent_takes_what_is_written_after_its_deletion() -> None:
    tables = {"house": HOUSE, "room": refers("RESTRICT")}
    found = come_to(
        tables, made("house 1", name="x"), made("room 1", a=1), killed("house 1"),
        changed("house 1", name="y"),
    )  # fmt: skip
    assert shown(found)["house 1"] == {"name": "y"} and found.kept


@pytest.mark.parametrize("last", [killed("room 1"), changed("room 1", a=None)])
def test_a_kept_parent_leaves_with_its_last_child(last: Told) -> None:
    tables = {"house": HOUSE, "room": refers("RESTRICT")}
    found = come_to(tables, made("house 1"), made("room 1", a=1), killed("house 1"), last)
    assert ("house", "1") not in found.rows and not found.kept and not found.parked


def test_what_nobody_created_is_not_kept() -> None:
    found = come_to(
        {"house": HOUSE, "room": refers("RESTRICT")}, killed("house 1"), made("room 1", a=1)
    )
    assert shown(found) == {} and parked(found) == {"room 1": ORPHANED}


def test_a_cascade_parks_children_and_theirs() -> None:
    tables = {"house": HOUSE, "room": refers("CASCADE"), "bed": refers("CASCADE", parent="room")}
    found = come_to(
        tables, made("house 1"), made("room 1", a=1), made("bed 1", a=1), made("room 2"),
        killed("house 1"),
    )  # fmt: skip
    assert shown(found) == {"room 2": {"a": None}}
    assert parked(found) == {"room 1": CASCADED, "bed 1": CASCADED}


def test_a_restriction_below_a_cascade_keeps_all_above() -> None:
    tables = {
        "house": HOUSE,
        "room": refers("CASCADE"),
        "bed": refers("CASCADE", parent="room"),
        "sheet": refers("RESTRICT", parent="bed"),
    }
    told = [
        made("house 1"), made("room 1", a=1), made("bed 1", a=1), made("sheet 1", a=1),
        made("room 2", a=1), killed("house 1"),
    ]  # fmt: skip
    found = come_to(tables, *told)
    assert len(found.rows) == 5 and found.kept == {("house", "1")} and not found.parked
    found = come_to(tables, *told, killed("sheet 1"))
    assert shown(found) == {}
    assert parked(found) == {"room 1": CASCADED, "room 2": CASCADED, "bed 1": CASCADED}


def test_a_dead_child_that_is_kept_keeps_its_parent() -> None:
    tables = {"house": HOUSE, "room": refers("RESTRICT"), "bed": refers("RESTRICT", parent="room")}
    told = [
        made("house 1"), made("room 1", a=1), made("bed 1", a=1), killed("room 1"),
        killed("house 1"),
    ]  # fmt: skip
    found = come_to(tables, *told)
    assert found.kept == {("house", "1"), ("room", "1")} and len(found.rows) == 3
    assert shown(come_to(tables, *told, killed("bed 1"))) == {}


@pytest.mark.parametrize("rule", ["SET NULL", "SET DEFAULT"])
def test_a_reference_is_cleared_and_comes_back(rule: str) -> None:
    tables = {"house": HOUSE, "room": refers(rule)}
    told = [made("house 1"), made("room 1", a=1), killed("house 1")]
    assert shown(come_to(tables, *told)) == {"room 1": {"a": None}}
    assert shown(come_to(tables, *told, made("house 1"))) == {
        "house 1": {"name": "none"},
        "room 1": {"a": 1},
    }


def test_a_default_stands_in_the_place_of_the_dead() -> None:
    room = Table(("id",), {"a": 7}, (ForeignKey("a", "house", "SET DEFAULT"),))
    told = [made("house 1"), made("house 7"), made("room 1", a=1), killed("house 1")]
    found = come_to({"house": HOUSE, "room": room}, *told)
    assert shown(found)["room 1"] == {"a": 7}
    found = come_to({"house": HOUSE, "room": room}, *told[:1], *told[2:])
    assert parked(found) == {"room 1": ORPHANED}, "the default refers to nothing"


@pytest.mark.parametrize(
    "room",
    [
        refers("SET NULL", required=True),
        Table(("a",), {}, (ForeignKey("a", "house", "SET NULL"),)),
        Table(("a", "n"), {}, (ForeignKey("a", "house", "SET NULL"),)),
    ],
    ids=["required", "the key", "part of the key"],
)
def test_a_reference_that_cannot_be_cleared_parks_its_row(room: Table) -> None:
    row = "room [1,1]" if len(room.key) > 1 else "room 1"
    found = come_to({"house": HOUSE, "room": room}, made("house 1"), made(row, a=1))
    assert not found.parked
    found = come_to(
        {"house": HOUSE, "room": room}, made("house 1"), made(row, a=1), killed("house 1")
    )
    assert shown(found) == {} and parked(found) == {row: CASCADED}


def test_a_cascade_clears_what_refers_to_the_parked() -> None:
    tables = {"house": HOUSE, "room": refers("CASCADE"), "bed": refers("SET NULL", parent="room")}
    found = come_to(
        tables, made("house 1"), made("room 1", a=1), made("bed 1", a=1), killed("house 1")
    )
    assert shown(found) == {"bed 1": {"a": None}} and parked(found) == {"room 1": CASCADED}


def test_one_dead_parent_of_two_is_enough_to_fall() -> None:
    found = come_to(
        {"house": HOUSE, "room": refers("CASCADE", "RESTRICT")},
        made("house 1"), made("house 2"), made("room 1", a=1, b=2),
        killed("house 1"), killed("house 2"),
    )  # fmt: skip
    # The room falls with house 1, so there is nobody left to keep house 2.
    assert shown(found) == {} and parked(found) == {"room 1": CASCADED}


def test_dead_rows_that_cascade_in_a_circle_keep_nobody() -> None:
    told = [made("ring 1", a=2), made("ring 2", a=1), killed("ring 1"), killed("ring 2")]
    assert shown(come_to({"ring": refers("CASCADE", parent="ring")}, *told)) == {}
    told = [made("ring 1", a=1), killed("ring 1")]
    assert shown(come_to({"ring": refers("CASCADE", parent="ring")}, *told)) == {}


def test_dead_rows_do_not_keep_each_other() -> None:
    told = [made("ring 1", a=2), made("ring 2", a=1), killed("ring 1"), killed("ring 2")]
    tables = {"ring": refers("RESTRICT", parent="ring")}
    assert shown(come_to(tables, *told)) == {}
    found = come_to(tables, *told, made("ring 3", a=1))
    assert found.kept == {("ring", "1"), ("ring", "2")}, "an alive one keeps both"
    assert shown(come_to(tables, made("ring 1", a=1), killed("ring 1"))) == {}


def test_a_dead_row_that_needs_its_own_child_does_not_keep_it() -> None:
    house = Table(("id",), {"room": None}, (ForeignKey("room", "room", "RESTRICT"),))
    tables = {"house": house, "room": refers("CASCADE"), "bed": refers("", parent="room")}
    told = [made("house 1", room=1), made("room 1", a=1), killed("house 1")]
    found = come_to(tables, *told)
    assert shown(found) == {} and parked(found) == {"room 1": CASCADED}
    assert len(come_to(tables, *told, made("bed 1", a=1)).rows) == 3


def test_what_is_kept_for_a_row_that_falls_leaves_with_it() -> None:
    # Both rooms fall: the second one's house was kept only as long as the first one was there.
    tables = {
        "house": HOUSE,
        "room": refers("CASCADE", "RESTRICT"),
    }
    found = come_to(
        tables,
        made("house 1"), made("house 2"), made("room 1", a=1, b=2), made("room 2", a=2),
        killed("house 1"), killed("house 2"),
    )  # fmt: skip
    assert shown(found) == {} and set(parked(found).values()) == {CASCADED}


# -- names ---------------------------------------------------------------------------------


def small(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


FOLDED = Table(("id",), {"name": "none"}, fold=small)


@pytest.mark.parametrize("rule", ["", "CASCADE", "SET NULL"])
def test_a_reference_in_other_letters(rule: str) -> None:
    tables = {"house": FOLDED, "room": refers(rule)}
    told = [made('house "x"'), made("room 1", a="X")]
    assert shown(come_to(tables, *told)) == {'house "x"': {"name": "none"}, "room 1": {"a": "X"}}
    found = come_to(tables, *told, killed('house "x"'))
    if rule == "":
        assert found.kept == {("house", '"x"')} and len(found.rows) == 2
    elif rule == "CASCADE":
        assert shown(found) == {} and parked(found) == {"room 1": CASCADED}
    else:
        assert shown(found) == {"room 1": {"a": None}}
    found = come_to(tables, *told, killed('house "x"'), made('house "X"'))
    assert shown(found) == {'house "X"': {"name": "none"}, "room 1": {"a": "X"}}


def test_keys_that_are_equal_clash_and_one_of_them_is_enough() -> None:
    tables = {"house": FOLDED, "room": refers("CASCADE")}
    found = come_to(tables, made('house "x"'), made('house "X"'), made("room 1", a="X"))
    assert shown(found).keys() == {'house "x"', "room 1"}
    assert parked(found) == {'house "X"': CLASHING}


def test_of_dead_rows_of_one_name_the_oldest_is_kept() -> None:
    tables = {"house": FOLDED, "room": refers("")}
    told = [made('house "x"'), killed('house "x"'), made('house "X"'), killed('house "X"')]
    found = come_to(tables, *told, made("room 1", a="X"))
    assert found.kept == {("house", '"x"')} and len(found.rows) == 2


# -- 2. unique values ----------------------------------------------------------------------

USER = Table(("id",), {"name": None, "mail": None, "n": 0}, unique=(("mail",), ("name", "n")))


def test_a_unique_value_belongs_to_the_older_row() -> None:
    found = come_to(
        {"user": USER},
        made("user 2", mail="x"), made("user 1", mail="x"), made("user 3", mail="y"),
        changed("user 3", mail="x"),
    )  # fmt: skip
    assert shown(found).keys() == {"user 2"}
    assert parked(found) == {"user 1": CLASHING, "user 3": CLASHING}


def test_age_is_the_creation_since_the_last_deletion() -> None:
    told = [made("user 1", mail="x"), made("user 2", mail="x"), killed("user 1")]
    assert shown(come_to({"user": USER}, *told)).keys() == {"user 2"}
    found = come_to({"user": USER}, *told, made("user 1", mail="x"))
    assert parked(found) == {"user 1": CLASHING}


def test_a_null_equals_nothing() -> None:
    found = come_to(
        {"user": USER}, made("user 1"), made("user 2"), made("user 3", name="x", n=None),
        made("user 4", name="x", n=None), made("user 5", name="x"), made("user 6", name="x"),
    )  # fmt: skip
    assert parked(found) == {"user 6": CLASHING}


def test_a_row_that_clashes_takes_no_values() -> None:
    found = come_to(
        {"user": USER},
        made("user 1", mail="x"), made("user 2", mail="x", name="a"), made("user 3", name="a"),
    )  # fmt: skip
    assert parked(found) == {"user 2": CLASHING} and len(found.rows) == 2


def test_kept_rows_come_last() -> None:
    tables = {"house": Table(("id",), {"name": None}, unique=(("name",),)), "room": refers("")}
    found = come_to(
        tables, made("house 1", name="x"), made("room 1", a=1), killed("house 1"),
        made("house 2", name="x"),
    )  # fmt: skip
    assert shown(found) == {"house 2": {"name": "x"}}
    assert parked(found) == {"room 1": ORPHANED}, "a dead row is not called parked"


def test_a_cleared_reference_clashes_with_nothing() -> None:
    room = Table(("id",), {"a": None}, (ForeignKey("a", "house", "SET NULL"),), (("a",),))
    told = [made("house 1"), made("room 1", a=1), made("room 2", a=1)]
    tables = {"house": HOUSE, "room": room}
    assert parked(come_to(tables, *told)) == {"room 2": CLASHING}
    assert len(come_to(tables, *told, killed("house 1")).rows) == 2


# -- 3. values that do not fit, 4. missing parents ------------------------------------------


def test_values_that_do_not_fit_are_parked() -> None:
    table = Table(
        ("id",), {"n": None, "t": ""}, required=frozenset(["t"]),
        takes=lambda name, value: isinstance(value, str if name == "t" else int),
    )  # fmt: skip
    found = come_to(
        {"thing": table}, made("thing 1", n=1), made("thing 2", n="x"), made("thing 3", t=None),
        made('thing "x"'), made("thing [1]"), made("nothing 1"),
    )  # fmt: skip
    assert shown(found) == {"thing 1": {"n": 1, "t": ""}}
    assert parked(found).pop("nothing 1") == UNKNOWN
    assert set(parked(found).values()) == {MISFIT, UNKNOWN} and len(found.parked) == 5


def test_a_key_of_another_number_of_parts_does_not_fit() -> None:
    table = Table(("a", "b"))
    found = come_to({"pair": table}, made("pair [1,2]"), made("pair 1"), made("pair [1]"))
    assert shown(found).keys() == {"pair [1,2]"} and len(found.parked) == 2


def test_a_row_waits_for_its_parent_and_so_do_its_children() -> None:
    tables = {"house": HOUSE, "room": refers("CASCADE"), "bed": refers("", parent="room")}
    told = [made("bed 1", a=1), made("room 1", a=1)]
    assert parked(come_to(tables, *told)) == {"bed 1": ORPHANED, "room 1": ORPHANED}
    assert len(come_to(tables, *told, made("house 1")).rows) == 3


def test_rows_in_a_circle_stand_together() -> None:
    told = [made("ring 1", a=2), made("ring 2", a=3)]
    tables = {"ring": refers("", parent="ring")}
    assert shown(come_to(tables, *told)) == {}
    assert len(come_to(tables, *told, made("ring 3", a=1)).rows) == 3


def test_a_parent_in_an_untracked_table_is_not_missed() -> None:
    assert len(come_to({"room": refers("", parent="elsewhere")}, made("room 1", a=1)).rows) == 1


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], ids=str)
def test_the_order_of_arrival_does_not_matter(order: list[int]) -> None:
    tables = {"house": HOUSE, "room": refers("RESTRICT")}
    some = [
        ("house", '"x"', Write((1, "a"), "create", {"name": "n"})),
        ("room", "1", Write((1, "b"), "create", {"a": "x"})),
        ("house", '"x"', Write((2, "b"), "delete")),
        ("room", "2", Write((2, "a"), "create", {"a": "x"})),
    ]
    writes: dict[tuple[str, str], list[Write]] = {}
    for index in order:
        table, pk, write = some[index]
        writes.setdefault((table, pk), []).append(write)
    assert shown(standing(tables, writes)) == {
        'house "x"': {"name": "n"}, "room 1": {"a": "x"}, "room 2": {"a": "x"},
    }  # fmt: skip
