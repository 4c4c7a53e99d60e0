"""Reading and editing SQLite's own CREATE statements, token by token.

The text of a statement says things that no pragma tells: checks, collations, conflict clauses,
generated columns. So a table is made anew from its own text, in which as little as possible is
replaced. Knows no database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise, takewhile

from ..dialects import quote
from ..dialects.tokens import Token, items, tokens

_NO_COLUMN = frozenset(("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"))
"""What a table constraint begins with."""

_AFTER_TYPE = _NO_COLUMN | frozenset(
    ("NOT", "NULL", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED", "AS")
)
"""What a column constraint begins with, and so what ends a type."""

_COMPARING = frozenset(("=", "==", "<>", "!=", "<", ">", "<=", ">=", "IS", "BETWEEN", "IN"))
_COUNTING = frozenset(("+", "-", "*", "/", "%", "&", "|", "<<", ">>"))
_IN_BETWEEN = frozenset(("NOT", "(", "-", "+"))


def is_without_rowid(sql: str) -> bool:
    """Whether the options after the columns of a CREATE TABLE say so."""
    options: list[str] = []
    for token in reversed(tokens(sql)):
        if token.text == ")":
            break
        options.insert(0, token.upper)
    return ("WITHOUT", "ROWID") in pairwise(options)


def arguments(sql: str) -> dict[str, str]:
    """What `CREATE VIRTUAL TABLE … USING module(name=value, …)` says, names in lower case."""
    found = tokens(sql)
    return {
        name.name: value.name or value.text.strip("'").lower()
        for name, sign, value in zip(found, found[1:], found[2:], strict=False)
        if sign.text == "=" and name.name
    }


# -- comparing keys with numbers ---------------------------------------------------------


def numbers_used_with(sql: str, columns: Collection[str]) -> list[str]:
    """The columns, of these, that a statement compares with a number or calculates with.

    Finds what is written next to each other, which is how people write `id = 1` and `id % 2`.
    """
    found = tokens(sql)
    used = {
        name
        for place, token in enumerate(found)
        if (name := token.name) in columns
        and name is not None
        and (_number_after(found, place) or _number_before(found, place))
    }
    return sorted(used)


def _number_after(found: Sequence[Token], place: int) -> bool:
    rest = found[place + 1 :]
    while rest and rest[0].upper == "NOT":
        rest = rest[1:]
    if not rest or rest[0].upper not in _COMPARING | _COUNTING:
        return False
    rest = rest[1:]
    while rest and rest[0].upper in _IN_BETWEEN:
        rest = rest[1:]
    return bool(rest) and rest[0].kind == "number"


def _number_before(found: Sequence[Token], place: int) -> bool:
    before = list(found[:place])
    while before and before[-1].text == ".":
        del before[-2:]
    return (
        len(before) > 1
        and before[-1].upper in _COMPARING | _COUNTING
        and before[-2].kind == "number"
    )


# -- a table with other types ------------------------------------------------------------


def retyped(sql: str, new_name: str, columns: Collection[str], key: str | None) -> str:
    """A CREATE TABLE statement under another name, with text in place of numbers.

    `columns` get the type TEXT. `key` is the one of them that is the table's key now: it gets
    NOT NULL, because only a number that SQLite makes by itself can do without.
    """
    every = tokens(sql)
    name = every[2]
    edits = [(name.start, name.end, quote(new_name))]
    for item in items(every[3:]):
        if item[0].upper not in _NO_COLUMN and item[0].name in columns:
            edits += _retyping(item, is_key=item[0].name == key)
    for before, token in pairwise(every):
        if token.upper == "AUTOINCREMENT":
            edits.append((before.end, token.end, ""))
    for start, end, text in sorted(edits, reverse=True):
        sql = sql[:start] + text + sql[end:]
    return sql


def _retyping(item: Sequence[Token], *, is_key: bool) -> Iterator[tuple[int, int, str]]:
    name, *rest = item
    typed = list(takewhile(lambda token: token.upper not in _AFTER_TYPE, rest))
    new = " TEXT NOT NULL" if is_key and not _says_not_null(rest) else " TEXT"
    yield name.end, (typed[-1] if typed else name).end, new


def _says_not_null(constraints: Sequence[Token]) -> bool:
    """Whether NOT NULL stands there, and not in the parentheses of a CHECK."""
    depth, before = 0, ""
    for token in constraints:
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and (before, token.upper) == ("NOT", "NULL"):
            return True
        before = token.upper
    return False
