"""Two devices of one log, of which one is stricter than the other: it does not let rows change or
go, or has no place for values."""

from __future__ import annotations

from .devices import Device

REFUSING = {
    "sqlite": "CREATE TRIGGER {name} BEFORE {event} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'held'); END",
    "postgres": "CREATE OR REPLACE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "RAISE EXCEPTION 'held'; END $$; "
    "CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION held()",
    "mysql": "CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW "
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'held'",
}
"""A trigger of an application, by the kind of database."""


class Pair:
    """`first` syncs before `second`. `strict` is the one of them that refuses; `where` says what
    kind of database it has."""

    def __init__(self, first: Device, second: Device, *, strict: Device, where: str) -> None:
        self._devices = (first, second)
        self._strict = strict
        self._where = where
        self._dropping: list[str] = []

    def refuse(self, table: str, *events: str) -> None:
        """Let a trigger refuse what happens to any row of a table."""
        for event in events:
            name = f"held_{event}"
            made = REFUSING[self._where].format(name=name, event=event, table=table)
            self._strict.database.connection().cursor().execute(made)
            on = f" ON {table}" if self._where == "postgres" else ""
            self._dropping.append(f"DROP TRIGGER {name}{on}")

    def allow(self) -> None:
        """Take these triggers away."""
        while self._dropping:
            self._strict.database.execute_sql(self._dropping.pop())

    def sync(self) -> None:
        for device in self._devices * 2:
            with device:
                device.sync.sync()

    def assert_equal(self) -> None:
        first, second = self._devices
        with first:
            expected = first.sync.digest(rows=True)
        with second:
            assert second.sync.digest(rows=True).compare(expected) == []
