"""What is in the way of rows on some devices only: triggers of the application that refuse, and
values that a typed column has no place for. Devices differ until it is taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import peewee

from sharedlog import Sync

from .models import Models


class Refusal(NamedTuple):
    """A trigger: what it refuses, on which table, where."""

    event: str
    table: str
    condition: str = "1 = 1"

    @property
    def name(self) -> str:
        return f"refuses_{self.event.lower()}"


REFUSALS: Sequence[Refusal] = (
    *(Refusal("DELETE", table) for table in ("firm", "per son", "profile", "node", "link")),
    Refusal("DELETE", "mention", "OLD.title_id = 'a'"),
    Refusal("INSERT", "firm", "NEW.title = 'a'"),
    Refusal("UPDATE", "firm", "NEW.title = 'b'"),
    Refusal("INSERT", "per son", "NEW.count > 1"),
    Refusal("UPDATE", "per son", "NEW.count > 1"),
    Refusal("INSERT", "node", "NEW.best > 4"),
    Refusal("UPDATE", "node", "NEW.best > 4"),
    Refusal("INSERT", "link", "NEW.slot = 2"),
    Refusal("UPDATE", "mention", "NEW.title_id = 'a'"),
)

MADE: Mapping[str, Sequence[str]] = {
    "sqlite": (
        'CREATE TRIGGER {name} BEFORE {event} ON "{table}" WHEN {condition} '
        "BEGIN SELECT RAISE(ABORT, 'held'); END",
    ),
    "postgres": (
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RAISE EXCEPTION 'held'; END $$",
        'CREATE TRIGGER {name} BEFORE {event} ON "{table}" FOR EACH ROW WHEN ({condition}) '
        "EXECUTE FUNCTION refuse()",
    ),
    "mysql": (
        "CREATE TRIGGER {name} BEFORE {event} ON `{table}` FOR EACH ROW IF {condition} THEN "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'held'; END IF",
    ),
}
"""By the kind of database."""


@contextmanager
def refusals() -> Iterator[None]:
    """Goes on where the database, or one of the triggers, refused what was written."""
    try:
        yield
    except peewee.IntegrityError:
        pass
    except peewee.DatabaseError as error:
        if "held" not in str(error):
            raise


def put_up(database: Any, kind: str, refusal: Refusal) -> None:
    for statement in MADE[kind]:
        database.execute_sql(statement.format(name=refusal.name, **refusal._asdict()))


def take_down(database: Any, kind: str, refusal: Refusal) -> None:
    on = f' ON "{refusal.table}"' if kind == "postgres" else ""
    database.execute_sql(f"DROP TRIGGER IF EXISTS {refusal.name}{on}")


# -- values that SQLite takes ------------------------------------------------------------

LARGE = 2**40
LONG = 300

UNFIT: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "firm": ("title", lambda word: word * LONG),
    "per son": ("nick", lambda word: f"{word}\0"),
    "footnote": ("mark", lambda word: word * LONG),
    "link": ("slot", lambda word: LARGE + ord(word)),
    "link ": ("weight", lambda word: Decimal("0.125")),
}
"""By table: a field, and what does not fit there."""


def _is_unfit(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > LONG // 2 or "\0" in value or value == "0.125"
    return value == Decimal("0.125") or (isinstance(value, int) and value >= LARGE)


def write_unfit(models: Models, chance: Random, word: str) -> None:
    table, (name, value) = chance.choice(list(UNFIT.items()))
    model = models.of(table.strip())
    rows = list(model.select().order_by(*model._meta.get_primary_keys()))
    if rows:
        row = chance.choice(rows)
        setattr(row, name, value(word))
        row.save(only=[name])


def make_fit(models: Models, sync: Sync) -> None:
    """Give other values to what does not fit somewhere."""
    # First those who refer to it: they may not let it change.
    for table, (name, _) in {"mention": ("title", None), **UNFIT}.items():
        model = models.of(table.strip())
        for row in list(model.select()):
            if _is_unfit(getattr(row, f"{name}_id", getattr(row, name))):
                setattr(row, name, None)
                with refusals():
                    row.save(only=[name])
        for parked in sync.parked():
            if parked.collection == table.strip() and _is_unfit(parked.values.get(name)):
                sync.resolve(parked, **{name: None})
