"""Databases that are copied, put back from backups, and wiped, while all go on: the parts.

A `File` is a device's database with an application on it. A `Home` is where the log is: in memory,
or the real service on a file; both can be backed up, put back, and wiped. `World` lets all of it
happen at random and checks what must hold.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter as Count, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any, ClassVar, NamedTuple, Protocol

import peewee

from sharedlog import (
    ConnectionFailed,
    Counter,
    Entry,
    GraphQLSharedLog,
    LocalTransport,
    MemorySharedLog,
    SharedLog,
    Sync,
    SyncModel,
)
from sharedlog.events import Event, Forked, LogShrunk
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.entries import EntryFilter
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.dictmodel import Write, row_of

USER = "me"
NOON_MS = 1_800_000_000_000
MINUTE = 60_000


class Item(SyncModel):
    key = peewee.CharField(primary_key=True)
    text = peewee.TextField(default="")
    note = peewee.TextField(default="")


class Tally(SyncModel):
    key = peewee.CharField(primary_key=True)
    count = peewee.IntegerField(default=0)

    class Meta:
        merge: ClassVar = {"count": Counter()}


MODELS: list[type[SyncModel]] = [Item, Tally]


# -- copying ------------------------------------------------------------------------------


def copy_by_backup(source: Path, target: Path) -> None:
    """As a program does that knows SQLite: whatever is open, committed or not."""
    remove(target)
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def copy_by_files(source: Path, target: Path) -> None:
    """As people do: the file, and what lies beside it."""
    remove(target)
    for suffix in ("", "-wal"):
        if (path := source.with_name(source.name + suffix)).exists():
            shutil.copyfile(path, target.with_name(target.name + suffix))


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# -- where the log is ---------------------------------------------------------------------


class Home(Protocol):
    """A log that things happen to."""

    @property
    def log(self) -> SharedLog: ...

    def back_up(self) -> None: ...

    def restore(self, *, renew: bool) -> None:
        """Put the backup back; `renew` as `sharedlog restored` does."""

    def wipe(self) -> None: ...

    def entries(self) -> list[Entry]: ...

    def close(self) -> None: ...


class MemoryHome:
    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._lives = 0
        self._log = MemorySharedLog(now=now, epoch="life0")
        self._backup: tuple[str, list[Entry]] | None = None

    @property
    def log(self) -> SharedLog:
        return self._log

    def back_up(self) -> None:
        self._backup = f"life{self._lives}", list(self._log.entries)

    def restore(self, *, renew: bool) -> None:
        if self._backup is None:
            return
        epoch, entries = self._backup
        if renew:
            self._lives += 1
            epoch = f"life{self._lives}"
        self._log.begin_new_life(epoch, entries)

    def wipe(self) -> None:
        self._lives += 1
        self._backup = None
        log = MemorySharedLog(now=self._now, epoch=f"life{self._lives}")
        # It counts where a service draws at random: what it gives out must not come again.
        log._writes = self._log._writes
        self._log = log

    def entries(self) -> list[Entry]:
        return list(self._log.entries)

    def close(self) -> None:
        pass


class StoreHome:
    def __init__(self, folder: Path, now: Callable[[], int], schema: ServiceSchema) -> None:
        self._path, self._backup = folder / "service.db", folder / "service.backup.db"
        self._now = now
        self._schema = schema
        self._open()

    def _open(self) -> None:
        self._store = Store.open(self._path, now=self._now)
        self._store.create_user(USER)
        execute = InProcess(self._store, USER, schema=self._schema).execute
        transport = LocalTransport(lambda document, variables: execute(document, dict(variables)))
        self._log = GraphQLSharedLog(transport, USER)

    @property
    def log(self) -> SharedLog:
        return self._log

    def back_up(self) -> None:
        # Closed: two SQLite libraries in one process take each other's locks away.
        self._store.close()
        copy_by_files(self._path, self._backup)
        self._open()

    def restore(self, *, renew: bool) -> None:
        if self._backup.exists():
            self._store.close()
            copy_by_files(self._backup, self._path)
            self._open()
            if renew:
                self._store.renew_epochs()

    def wipe(self) -> None:
        self._store.close()
        remove(self._path)
        remove(self._backup)
        self._open()

    def entries(self) -> list[Entry]:
        page = self._store.find(USER, EntryFilter(), count=1_000_000)
        return [Entry(e.device, e.created_on, e.group, e.data) for e in page.entries]

    def close(self) -> None:
        self._store.close()


# -- devices ------------------------------------------------------------------------------


class Wire:
    """A device's way home. It may lose what is sent or answered, and it watches the answers."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.lost: Callable[[], str] = lambda: "no"
        """What gets lost next: "request", "answer" or nothing."""
        self.answered: Callable[[str], None] = lambda device: None
        """Called with the device that an exchange was made for and answered as usual."""

    def about(self) -> Any:
        return self._carry(lambda log: log.about())

    def register(self, *arguments: Any) -> str:
        return str(self._carry(lambda log: log.register(*arguments)))

    def write(self, device: str, entries: Any, **options: Any) -> Any:
        return self._watched(device, lambda log: log.write(device, entries, **options), options)

    def read(self, device: str, **options: Any) -> Any:
        return self._watched(device, lambda log: log.read(device, **options), options)

    def read_all(self, device: str, **options: Any) -> Any:
        return self._carry(lambda log: log.read_all(device, **options))

    def read_own(self, device: str, **options: Any) -> Any:
        return self._carry(lambda log: log.read_own(device, **options))

    def close(self) -> None:
        pass

    def _watched(
        self, device: str, request: Callable[[SharedLog], Any], options: dict[str, Any]
    ) -> Any:
        answer = self._carry(request)
        if options.get("lineage") is not None:
            self.answered(device)
        return answer

    def _carry(self, request: Callable[[SharedLog], Any]) -> Any:
        lost = self.lost()
        if lost == "request":
            raise ConnectionFailed("the request got lost")
        answer = request(self._home.log)
        if lost == "answer":
            raise ConnectionFailed("the answer got lost")
        return answer


class Held(NamedTuple):
    """An entry of a client log."""

    ticks: int
    data: Any
    status: int


class File:
    """A device's database file and the application that has it open."""

    def __init__(self, path: Path, home: Home, now: Callable[[], int], **options: Any) -> None:
        self.path = path
        self.now = now
        self.wire = Wire(home)
        self.events: list[Event] = []
        self._options = options
        self.open()

    def open(self) -> None:
        pragmas = {"journal_mode": "wal", "synchronous": 0}
        self.database = peewee.SqliteDatabase(str(self.path), pragmas=pragmas)
        with self.database.bind_ctx(MODELS):
            self.database.create_tables(MODELS)
        self.sync_object = Sync(
            self.database, MODELS, shared_log=self.wire, now=self.now, **self._options
        )
        self.sync_object.on_event(self._note)
        self.sync_object.setup()

    def _note(self, event: Event) -> None:
        if isinstance(event, Forked | LogShrunk):
            self.events.append(event)

    def close(self) -> None:
        self.sync_object.close()
        self.database.close()

    def put(self, key: str, **values: str) -> None:
        with self.database.bind_ctx([Item]):
            if not Item.update(**values).where(Item.key == key).execute():
                Item.create(key=key, **values)

    def delete(self, key: str) -> None:
        with self.database.bind_ctx([Item]):
            Item.delete_by_id(key)

    def count(self, key: str, number: int) -> None:
        with self.database.bind_ctx([Tally]):
            more = Tally.update(count=Tally.count + number).where(Tally.key == key)
            if not more.execute():
                Tally.create(key=key)
                more.execute()

    def tallies(self) -> dict[str, int]:
        rows = self.database.execute_sql("SELECT key, count FROM tally ORDER BY key")
        return dict(rows.fetchall())

    def sync(self) -> Any:
        with self.database.bind_ctx(MODELS):
            return self.sync_object.sync()

    @property
    def device(self) -> str:
        return self.sync_object.journal.device_id()

    @property
    def forks(self) -> list[Forked]:
        return [event for event in self.events if isinstance(event, Forked)]

    def items(self) -> dict[str, tuple[str, str]]:
        rows = self.database.execute_sql("SELECT key, text, note FROM item ORDER BY key")
        return {key: (text, note) for key, text, note in rows.fetchall()}

    def held(self) -> list[Held]:
        cursor = self.database.execute_sql(
            "SELECT ticks, pk, operation, value, status FROM sharedlog_entry ORDER BY ticks"
        )
        return [
            Held(ticks, (pk, operation, value), status)
            for ticks, pk, operation, value, status in cursor.fetchall()
        ]

    def copied(self, target: Path, copy: Callable[[Path, Path], None]) -> None:
        copy(self.path, target)

    def restored(self, backup: Path) -> None:
        """Put a backup in the place of the file."""
        self.close()
        copy_by_files(backup, self.path)
        self.open()


@contextmanager
def files(folder: Path, home: Home, now: Callable[[], int]) -> Iterator[Callable[..., File]]:
    """Makes files: new ones, or of copies at a path."""
    opened: list[File] = []

    def make(name: str, **options: Any) -> File:
        opened.append(File(folder / f"{name}.db", home, options.pop("now", now), **options))
        return opened[-1]

    try:
        yield make
    finally:
        for file in opened:
            file.close()


# -- at random ----------------------------------------------------------------------------


class Bad(AssertionError):
    """A promise is broken."""


KEYS = "abcdef"
STEPS = 40


class World:
    """Files of one log that are written, copied and put back, perhaps with clocks that are turned.
    With `losing`, it is the log that is put back and wiped, also between two requests of one sync;
    then no file is, so that every entry is still held by somebody, and no clock is turned."""

    def __init__(self, seed: int, folder: Path, home: Home, *, losing: bool) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.counts: Count[str] = Count()
        self._folder = folder
        self._home = home
        self._losing = losing
        self._words = 0
        self._increments: dict[str, list[int]] = defaultdict(list)
        self._counting = self.chance.choice((0.3, 0.8))
        self._counters = self.chance.choice((KEYS, KEYS[:1]))
        self._copies = 0
        self._pruned: dict[Path, set[int]] = {}
        self._ahead: dict[Path, int] = {}
        """By how much the clocks are wrong, in milliseconds."""
        self._turning = not losing and self.chance.random() < 0.5
        self._backups: list[tuple[File, Path]] = []
        self._resting = False
        self.ms = NOON_MS
        self.files: list[File] = []
        for number in range(self.chance.randint(1, 3)):
            self._open(folder / f"file{number}.db")

    def _open(self, path: Path) -> File:
        self._turn_clock(path)
        step = self.chance.choice((1, 1, 10 * MINUTE))
        file = File(
            path,
            self._home,
            lambda: (self.ms + self._ahead[path]) // step * step,
            batch_size=self.chance.choice((1, 2, 5, 100)),
            new_id=lambda: f"{self.chance.getrandbits(64):016x}",
        )
        file.wire.lost = self._lose
        file.wire.answered = lambda device: self._check_answer(file, device)
        self._pruned.setdefault(path, set())
        self.files.append(file)
        return file

    def _lose(self) -> str:
        self.ms += self.chance.randint(0, 50)
        if self._resting:
            return "no"
        if self._losing and self.chance.random() < 0.05:
            self.counts["meanwhile"] += 1
            self.chance.choice((self._lose_end, self._lose_end, self._home.back_up))()
        return self.chance.choices(("no", "answer", "request"), (10, 2, 1))[0]

    def _check_answer(self, file: File, device: str) -> None:
        """Detected within one exchange: nobody is answered while the log has entries of their
        device that their file does not have."""
        theirs = {entry.ticks for entry in self._home.entries() if entry.device == device}
        mine = {held.ticks for held in file.held()} | self._pruned[file.path]
        if strange := theirs - mine:
            raise Bad(f"{file.path.name} was answered in spite of {strange}")

    # -- what happens ---------------------------------------------------------------------

    def run(self) -> None:
        for _ in range(STEPS):
            self.ms += self.chance.choice((0, 1, 1_000, 10 * MINUTE))
            file = self.chance.choice(self.files)
            happening = self.chance.choices(
                (self._write, self._sync, self._copy, self._back_up, self._put_back, self._prune),
                (10, 8, 2, 1, 2, 1),
            )[0]
            self.counts[happening.__name__] += 1
            happening(file)
            if self._turning and self.chance.random() < 0.1:
                self.counts["clocks turned"] += 1
                self._turn_clock(file.path)
        self._settle()

    def _turn_clock(self, path: Path) -> None:
        bound = self.chance.choice((2, 60, 1_500)) if self._turning else 2
        off = self.chance.randint(-bound * MINUTE, bound * MINUTE)
        self._ahead[path] = self.chance.choice((0, 0, off))

    def _write(self, file: File) -> None:
        self._words += 1
        key, word = self.chance.choice(KEYS), f"word{self._words}"
        if self.chance.random() < self._counting:
            self._count(file, self.chance.choice(self._counters))
        elif self.chance.random() < 0.15:
            file.delete(key)
        else:
            file.put(key, **{self.chance.choice(("text", "note")): word})

    def _count(self, file: File, key: str) -> None:
        """By a number that tells whether the increment counts once."""
        number = self.chance.choice((-1, 1)) * self._words
        file.count(key, number)
        self._increments[key].append(number)

    def _sync(self, file: File) -> None:
        """Mostly as a whole; also in parts, of which others happen in between, or never."""
        sync = file.sync_object
        (work,) = self.chance.choices(
            (file.sync, sync.send, sync.receive, sync.reconcile), (7, 1, 2, 1)
        )
        try:
            with file.database.bind_ctx(MODELS):
                work()
        except ConnectionFailed:
            self.counts["failed"] += 1

    def _copy(self, file: File) -> None:
        if len(self.files) < 6:
            self._copies += 1
            path = self._folder / f"copy{self._copies}.db"
            file.copied(path, self.chance.choice((copy_by_backup, copy_by_files)))
            self._pruned[path] = set(self._pruned[file.path])
            self._open(path)

    def _back_up(self, file: File) -> None:
        if self._losing:
            self._home.back_up()
            return
        self._copies += 1
        path = self._folder / f"backup{self._copies}.db"
        file.copied(path, copy_by_backup)
        self._pruned[path] = set(self._pruned[file.path])
        self._backups.append((file, path))

    def _put_back(self, file: File) -> None:
        if self._losing:
            self._lose_end()
        elif self._backups:
            owner, path = self.chance.choice(self._backups)
            target = owner if self.chance.random() < 0.7 else file
            target.restored(path)
            self._pruned[target.path] = set(self._pruned[path])

    def _lose_end(self) -> None:
        if self.chance.random() < 0.2:
            self._home.wipe()
        else:
            self._home.restore(renew=self.chance.random() < 0.3)

    def _prune(self, file: File) -> None:
        if not self._losing:
            before = {held.ticks for held in file.held()}
            file.sync_object.prune(self.chance.choice((0, MINUTE)))
            self._pruned[file.path] |= before - {held.ticks for held in file.held()}

    # -- what must hold -------------------------------------------------------------------

    def _settle(self) -> None:
        self._resting = True
        self.ms += 10 * MINUTE
        for _ in range(3):
            for file in self.files:
                file.sync()
        for file in self.files:
            self.counts["forks"] += len(file.forks)
            self.counts["log shrunk"] += len(file.events) - len(file.forks)
        log = self._home.entries()
        self._check_once(log)
        wanted = expected(log)
        for file in self.files:
            status = file.sync_object.status()
            if status.pending or status.parked:
                raise Bad(f"{file.path.name} is not done: {status}")
            if file.items() != wanted:
                raise Bad(f"{file.path.name}: {file.items()}, should be {wanted}")
        self._check_tallies(log)

    def _check_tallies(self, log: list[Entry]) -> None:
        """Counters are the same everywhere, and every increment counts once."""
        wanted = counted(log)
        made = {key: sum(some) for key, some in self._increments.items()}
        if self._losing and wanted != made:
            raise Bad(f"{made} was counted, and {wanted} is in the log")
        found = [file.tallies() for file in self.files]
        if any(tallies != wanted for tallies in found):
            raise Bad(f"counted {found}, should be {wanted}")

    def _check_once(self, log: list[Entry]) -> None:
        """Every change that is held somewhere is in the log, and no word is in it twice."""
        written: dict[str, list[Entry]] = defaultdict(list)
        for entry in log:
            change = json.loads(entry.data)
            for word in filter(_is_word, (change["value"] or {}).values()):
                written[word].append(entry)
        for word, entries in written.items():
            if len(entries) > 1:
                raise Bad(f"in the log twice: {word}: {entries}")
        for file in self.files:
            for held in file.held():
                words = set(filter(_is_word, json.loads(held.data[2] or "{}").values()))
                if missing := words - written.keys():
                    raise Bad(f"{file.path.name}: {missing} is not in the log: {held}")

    def close(self) -> None:
        for file in self.files:
            file.close()


def expected(log: list[Entry]) -> dict[str, tuple[str, str]]:
    """What the entries of a log come to."""
    writes: dict[str, list[Write]] = {}
    for entry in log:
        change = json.loads(entry.data)
        if change["collection"] != "item":
            continue
        stamp = (entry.ticks, entry.device)
        writes.setdefault(change["pk"], []).append(
            Write(stamp, change["operation"], change["value"])
        )
    rows = {key: row_of(some) for key, some in writes.items()}
    return {
        key: (row.values.get("text", ""), row.values.get("note", ""))
        for key, row in sorted(rows.items())
        if row.alive
    }


def counted(log: list[Entry]) -> dict[str, int]:
    """What the increments of a log come to. Each is by a number of its own, so it counts once,
    under however many ids it is there, in a run or alone."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for entry in log:
        change = json.loads(entry.data)
        if change["collection"] == "tally":
            value = change["value"]["count"]
            numbers[change["pk"]].add(value["add"] if isinstance(value, dict) else 0)
    return {key: sum(some) for key, some in numbers.items()}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.startswith("word")
