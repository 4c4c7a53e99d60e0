"""Which columns get new keys, and what stands in the way. Reads the schema, changes nothing.

A table's numbered key gets new values; every column that refers to it follows, and so on:
`rewritten` says for each such column the table whose numbers it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..dialects.tokens import mentions, tokens
from .catalog import Catalog, Column, Item, Reference, StoredTable
from .ddl import arguments, numbers_used_with


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller asks for; tables and columns in lower case.

    Attributes:
        tables: The tables whose keys are to be replaced.
        references: Columns that refer to the key of a table without declaring it.
        numbers: Columns that hold numbers, although they are named as references are.
    """

    tables: Sequence[str]
    references: Mapping[Column, str]
    numbers: Collection[Column]


@dataclass(slots=True)
class Plan:
    """What is to be done, or in `problems` why it cannot be."""

    catalog: Catalog
    made: list[str]
    """Tables whose keys are made, and not taken over from a table that the key refers to."""
    done: list[str]
    """Tables that were asked for and have no numbers any more."""
    rewritten: dict[Column, str]
    problems: list[str]

    @property
    def rebuilt(self) -> list[StoredTable]:
        names = {table for table, _ in self.rewritten}
        return [table for name, table in self.catalog.tables.items() if name in names]

    def columns(self, table: str) -> dict[str, str]:
        """The columns of a table that get new values, with whose numbers they hold."""
        return {c: source for (name, c), source in self.rewritten.items() if name == table}


def make_plan(catalog: Catalog, request: Request) -> Plan:
    plan = Plan(catalog, [], [], {}, [])
    selected = _selected(plan, request)
    links = [*catalog.references, *_named(plan, request)]
    _follow(plan, selected, links)
    plan.made = [name for name in selected if plan.rewritten.get((name, selected[name])) == name]
    if not plan.problems:
        plan.problems += _undeclared(plan, request)
        plan.problems += _obstacles(plan)
    return plan


def _selected(plan: Plan, request: Request) -> dict[str, str]:
    """The key of each table that is to be done."""
    found = {}
    for name in request.tables:
        table = plan.catalog.tables.get(name)
        if table is None:
            known = ", ".join(sorted(plan.catalog.tables)) or "none"
            plan.problems.append(f"There is no table {name!r}. The file has: {known}.")
        elif table.numbered:
            found[name] = table.numbered.lower()
        elif len(table.key) == 1 and not _is_integer(table):
            plan.done.append(name)
        else:
            plan.problems.append(_why_not_numbered(table))
    return found


def _is_integer(table: StoredTable) -> bool:
    column = table.column(table.key[0])
    return column is not None and column.is_integer


def _why_not_numbered(table: StoredTable) -> str:
    if not table.key:
        return f"{table.name} has no primary key, so nothing identifies its rows."
    if len(table.key) > 1:
        return f"{table.name} has a composite key, which can stay as it is: leave it out."
    if table.without_rowid:
        return f"{table.name} is a table WITHOUT ROWID: SQLite does not number its rows."
    kind = " ".join(filter(None, [c.type for c in table.columns if c.key_part]))
    return f"{table.name} has a key of type {kind}, which SQLite does not number."


def _named(plan: Plan, request: Request) -> Iterator[Reference]:
    """The references that the caller names."""
    tables = plan.catalog.tables
    for (name, column), parent in request.references.items():
        table, target = tables.get(name), tables.get(parent)
        if table is None or table.column(column) is None:
            plan.problems.append(f"There is no column {name}.{column} to be a reference.")
        elif target is None or len(target.key) != 1:
            plan.problems.append(f"{name}.{column} cannot refer to {parent!r}, which has no key.")
        else:
            yield Reference(name, column, parent, target.key[0])


def _follow(plan: Plan, selected: Mapping[str, str], links: Sequence[Reference]) -> None:
    """Find every column that holds numbers of the selected keys."""
    sources = {name: _source(plan, name, selected, links) for name in selected}
    waiting = [((name, key), sources[name]) for name, key in selected.items()]
    while waiting:
        column, source = waiting.pop()
        known = plan.rewritten.get(column)
        if known is None:
            plan.rewritten[column] = source
            waiting += [(link.child, source) for link in links if link.target == column]
        elif known != source:
            plan.problems.append(
                f"{'.'.join(column)} refers to {known} and to {source}: it can hold one key only."
            )


def _source(plan: Plan, name: str, selected: Mapping[str, str], links: Sequence[Reference]) -> str:
    """Whose numbers a key holds: its own, or those of the table that the key refers to."""
    path = [name]
    while True:
        key = (path[-1], selected[path[-1]])
        parents = [link for link in links if link.child == key and link.target != key]
        if not parents:
            return path[-1]
        parent = parents[0].parent
        if parents[0].target != (parent, selected.get(parent)):
            plan.problems.append(
                f"The key of {path[-1]} refers to {'.'.join(parents[0].target)}: give that table a "
                f"new key in its place, and {path[-1]} follows by itself."
            )
            return path[-1]
        if parent in path:
            plan.problems.append(f"The keys of {' and '.join(path)} refer to each other.")
            return path[-1]
        path.append(parent)


def _undeclared(plan: Plan, request: Request) -> Iterator[str]:
    """Columns that look like references and are not declared as such."""
    keys = {f"{stem}{end}": t for t in plan.made for stem in _stems(t) for end in ("_id", "id")}
    for table in plan.catalog.tables.values():
        for column in table.columns:
            place = (table.id, column.name.lower())
            if place in plan.rewritten or place in request.numbers or not column.is_integer:
                continue
            guess = keys.get(place[1]) or (table.id if place[1] == "parent_id" else None)
            if guess in plan.made and not any(r.child == place for r in plan.catalog.references):
                name = f"{table.name}.{column.name}"
                yield (
                    f"{name} looks like a reference to {guess}, but none is declared. "
                    f"If it is one: --reference {name}={guess}; if not: --number {name}"
                )


def _stems(table: str) -> set[str]:
    return {table, table.removesuffix("s")}


# -- what stands in the way --------------------------------------------------------------


def _obstacles(plan: Plan) -> Iterator[str]:
    for table in plan.rebuilt:
        columns = plan.columns(table.id)
        if table.rowid is None and not table.without_rowid:
            yield f"{table.name} has columns named rowid, _rowid_ and oid: rename one."
        for name in columns:
            column = table.column(name)
            if column and (column.default or "NULL").upper() != "NULL":
                yield f"{table.name}.{column.name} has the number {column.default} as default."
            if column and column.computed:
                yield f"{table.name}.{column.name} is computed, so it cannot get another key."
        yield from _using_numbers(f"The table {table.name}", table.sql, columns)
    yield from _full_text(plan)
    for item in plan.catalog.items:
        yield from _using_numbers(f"The {item.kind} {item.name}", item.sql, _columns_of(plan, item))


def _columns_of(plan: Plan, item: Item) -> set[str]:
    """The names of rewritten columns of all tables that an item mentions."""
    named = {token.name for token in tokens(item.sql)} | {item.table.lower()}
    return {column for table, column in plan.rewritten if table in named}


def _using_numbers(what: str, sql: str, columns: Collection[str]) -> Iterator[str]:
    for column in numbers_used_with(sql, columns):
        yield f"{what} uses {column} with a number: drop it, and make it anew afterwards."


def _full_text(plan: Plan) -> Iterator[str]:
    """Virtual tables know their rows by number, and so do the triggers that fill them."""
    rebuilt = {table.id for table in plan.rebuilt}
    for name, sql in plan.catalog.virtual.items():
        source = arguments(sql).get("content")
        if source in rebuilt:
            yield (
                f"The full-text table {name} finds the rows of {source} by number: "
                "drop it, and make it anew afterwards."
            )
    for trigger in plan.catalog.of_kind("trigger"):
        if mentions(trigger.sql, rebuilt) and mentions(trigger.sql, plan.catalog.virtual):
            yield (
                f"The trigger {trigger.name} writes to a full-text table, which knows its rows "
                "by number: drop it, and make it anew afterwards."
            )
