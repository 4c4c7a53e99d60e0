"""One device: a database, its models, a `Sync`."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from sharedlog import NotParked, SharedLog, Sync, UnsentWork
from sharedlog.journal.recorder import Capture
from tests.system.copies import copy_by_backup

from .models import Models, Rules, define
from .obstacles import Refusal, make_fit, put_up, refusals, take_down, write_unfit
from .places import RAW, UNTOLD, File, Place
from .user import Habits, User

BATCH_SIZES = (1, 3, 20, 1000)
NAME_OF_SAVEPOINT = re.compile(r' SAVEPOINT "\w+";')


class Device:
    """A device. `bits` draws, for ids and sizes, so many bits."""

    def __init__(
        self,
        name: str,
        place: Place,
        *,
        log: SharedLog,
        capture: Capture,
        ahead_ms: int,
        rules: Rules,
        nocase: bool,
        habits: Habits,
        unfit: bool,
        now: Callable[[], int],
        bits: Callable[[int], int],
        tell: Callable[..., None],
    ) -> None:
        self.name = name
        self.place = place
        self.capture = capture
        self.ahead_ms = ahead_ms
        self._habits = habits
        self._unfit = unfit and place.kind == "sqlite"
        self.refusal: Refusal | None = None
        self._log = log
        self._now = now
        self._bits = bits
        self._tell = tell
        self._watching, self._noted = False, ""
        self._models: Models = define(
            lambda: UUID(int=bits(128)), rules, kind=place.kind, nocase=nocase
        )
        self._open()

    def _open(self) -> None:
        self.database = self.place.open(self._models, self._note)
        self._sync = Sync(
            self.database,
            self._models.all,
            shared_log=self._log,
            capture=self.capture,
            batch_size=BATCH_SIZES[self._bits(2)],
            now=lambda: self._now() + self.ahead_ms,
            new_id=lambda: f"{self._bits(64):016x}",
        ).setup()

    def close(self) -> None:
        self._sync.close()
        self._let_in()
        self.database.close()

    def _note(self, statement: str) -> None:
        """Tell what the user's statements are, as the database saw them."""
        if not self._watching or statement.startswith(UNTOLD) or "sharedlog" in statement:
            return
        if statement != self._noted:  # SQLite says it again for each trigger
            self._noted = statement
            self._tell(self.name, NAME_OF_SAVEPOINT.sub("", statement))

    # -- what happens --------------------------------------------------------------------

    def act(self, chance: Random) -> None:
        way = chance.random()
        self._watching, self._noted = True, ""
        if way < 0.05:
            self._decide(chance)
        elif way < 0.08 and self._unfit:
            with refusals():
                write_unfit(self._models, chance, chance.choice(self._habits.letters))
        elif way < 0.1 and self.capture == "triggers":
            self._act_beside(chance)
        else:
            User(self.database, self._models, self._habits, chance).act()
        self._watching = False

    def _act_beside(self, chance: Random) -> None:
        """As another program does, of which only triggers know."""
        statement = chance.choice(RAW[self.place.kind])
        self._tell(self.name, "beside", statement)
        with refusals(), suppress(sqlite3.IntegrityError):
            self.place.run_beside(statement)
        # At once: where such a change ends is told by SQLite's own clock.
        self._sync.status()

    def _decide(self, chance: Random) -> None:
        """Decide about a parked row."""
        rows = self._sync.parked()
        if not rows:
            return
        row = chance.choice(rows)
        word = f"{chance.getrandbits(16):x}"
        values: dict[str, Any] = {
            "firm": {"title": word},
            "per son": {"nick": word, "firm": self._models.firm.select().first()},
            "link": {"slot": None},
        }.get(row.collection or "", {})
        self._tell(self.name, "decides about", row.collection, row.pk, values)
        if values.get("firm", word) is None:  # there is none
            return
        with suppress(NotParked):
            if values and chance.random() < 0.5:
                self._sync.resolve(row, **values)
            else:
                self._sync.discard(row)

    def refuse(self, refusal: Refusal) -> None:
        """From here on, by a trigger."""
        self.refusal = refusal
        put_up(self.database, self.place.kind, refusal)

    def _let_in(self) -> None:
        if self.refusal is not None:
            take_down(self.database, self.place.kind, self.refusal)

    def heal(self) -> None:
        """Take away what makes this device differ from others."""
        self._let_in()
        if self._unfit:
            make_fit(self._models, self._sync)
        # Something new, so that there is a page to apply.
        self._models.node.create(name=f"healed on {self.name}")

    def sync(self) -> Any:
        return self._sync.sync()

    def reset(self) -> bool:
        try:
            self._sync.reset()
        except UnsentWork:
            return False
        return True

    def prune(self) -> int:
        return self._sync.prune(keep_ms=0)

    def copy_to(self, path: Path) -> None:
        copy_by_backup(self._file, path)

    def put_back(self, path: Path) -> None:
        """Put a copy in the place of the file."""
        self.close()
        copy_by_backup(path, self._file)
        self._open()

    @property
    def _file(self) -> Path:
        assert isinstance(self.place, File)
        return self.place.path

    # -- what is in it -------------------------------------------------------------------

    def rows(self) -> dict[str, list[str]]:
        return {
            model._meta.table_name: sorted(map(_told, model.select().tuples()))
            for model in self._models.all
        }

    def parked(self) -> list[str]:
        return sorted(f"{row.collection} {row.pk} {row.code}" for row in self._sync.parked())

    def wrongs(self) -> list[str]:
        """What is not as it must be when all is quiet."""
        wrongs = [
            f"leads nowhere: {row}" for row in self.place.dangling(self.database, self._models)
        ]
        if isinstance(self.place, File):  # others cannot be compared with the log
            wrongs += [f"verify: {difference}" for difference in self._sync.verify().differences]
        status = self._sync.status()
        if status.pending or status.refused:
            wrongs.append(f"not done: {status}")
        return wrongs


def _told(row: tuple[Any, ...]) -> str:
    """Databases give back a decimal with as many zeros as they like."""
    return repr(tuple(v.normalize() if isinstance(v, Decimal) else v for v in row))
