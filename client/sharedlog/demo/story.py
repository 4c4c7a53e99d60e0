"""`sharedlog demo`: the product, watched. Two devices, one service, real data, real HTTP.

This file tells the story; what it needs stands in the modules beside it: the application's
models and data, the devices, the service's process, the offline edits, the proof, the looks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee

from ..errors import ConfigurationError, ConnectionFailed
from . import data, tables
from .device import Device, Exchange
from .edits import EDITS, Edit, code_of, device_of
from .models import MODELS
from .proof import Comparison, broken_references, compare
from .screen import Screen, open_screen, steps
from .service import ServiceProcess
from .signals import Signals
from .tables import Figure, Outcome, size

CHUNK = 1_000
"""Rows in one INSERT of the import, and in one transaction."""

PAUSE_S = 0.02
"""Between two edits, so that the times in the table of conflicts differ visibly."""

TABLES: Sequence[str] = [str(model._meta.table_name) for model in MODELS]

INTRO = """
Offline-first sync for Peewee applications, shown with two devices, a laptop and a phone.
Each has a database file of its own, and they never meet. Each sends its changes to a small
service, which keeps them in one log, and reads there what the other one changed.
"""

SETUP = """\
class Country(SyncModel):       # your models, with a new base class
    ...

sync = Sync(database, [Country, Region, Language, Note],
            url="{url}", token="…")
sync.setup()                    # from here on, every change is recorded
sync.sync()                     # now and then, when online"""

IMPORT = """
The countries, regions and languages of the world (ISO 3166 and 639, from the package
pycountry) go into the laptop's database. Nothing is sent: each change is recorded beside the
data, in the same transaction.
"""

FIRST_SYNC = """
The laptop sends its changes. The phone, still empty, receives and applies them.
"""

OFFLINE = """
The service is switched off. Both devices go on working, and change the same things without
knowing of each other. This is the code that runs, in this order:
"""

RECONCILE = """
The service is back, with the log it had. Each device sends what it did offline and merges
what the other did, field by field: the later write wins, not the later sync. Every device
decides by the same rules from the same log, so all come to the same rows.
"""

PROOF = """
Both files are read with Python's own sqlite3, without sharedlog: all rows of a table,
all columns, sorted and hashed.
"""

INVITATION = """
The service still runs. Open this address in a browser to query its log; the token is in it:
"""

SUGGESTION = """
The second tab there shows the history of a row. With the variables "collection": "country" and
"pk": "CZ" it has both names of Czechia, also the one that lost, and who wrote them when.
"""


def run(*, folder: Path | None, port: int, once: bool) -> int:
    """Show the demonstration; return 0 if both devices ended equal."""
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        place = stack.enter_context(_place(folder))
        service = ServiceProcess(place, port, signals)
        stack.callback(service.stop)
        story = Story(open_screen(), service, place)
        stack.callback(story.close)
        equal = story.tell(signals.check)
        if folder is not None:
            story.say_kept()
        if not once:
            signals.check()
            _stay(story, service)
        return 0 if equal else 1


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """The folder of the files: the user's, or one that is removed at the end."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="sharedlog-demo-") as name:
            yield Path(name)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} is not an empty folder.",
            hint="The demonstration starts from nothing: name a new folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _stay(story: Story, service: ServiceProcess) -> None:
    """Leave the service running until Ctrl-C."""
    story.invite()
    with suppress(KeyboardInterrupt):
        service.wait()
    story.farewell()


class Story:
    """The sections, in order."""

    def __init__(self, screen: Screen, service: ServiceProcess, folder: Path) -> None:
        self._screen = screen
        self._service = service
        self._folder = folder
        self._devices: dict[str, Device] = {}
        self._figures: list[Figure] = []

    def close(self) -> None:
        for device in self._devices.values():
            device.close()

    def tell(self, check: Callable[[], None]) -> bool:
        """Tell all; return whether the devices are equal. `check` is called after each section."""
        begin = time.perf_counter()
        for section in (
            self._introduce,
            self._import,
            self._sync_first,
            self._edit_offline,
            self._sync_again,
        ):
            section()
            check()
        equal = self._prove()
        self._sum_up(time.perf_counter() - begin)
        return equal

    @property
    def _laptop(self) -> Device:
        return self._devices["laptop"]

    @property
    def _phone(self) -> Device:
        return self._devices["phone"]

    # -- the sections --------------------------------------------------------------------

    def _introduce(self) -> None:
        screen = self._screen
        screen.title("sharedlog", INTRO)
        with screen.working("starting the service", 1):
            self._service.start()
        for name in ("laptop", "phone"):
            self._devices[name] = Device(
                name, self._folder, url=self._service.url, token=self._service.token
            )
        screen.done(f"The service runs: sharedlog serve --database {self._service.path.name}")
        screen.say("What an application adds to sync:")
        screen.gap()
        screen.code(SETUP.format(url=self._service.url))

    def _import(self) -> None:
        screen = self._screen
        screen.section(1, "The laptop fills its database, offline", IMPORT)
        tables = list(data.tables())
        total = sum(len(rows) for _, rows in tables)
        begin = time.perf_counter()
        with self._laptop.bound(), screen.working("importing", total) as advance:
            done = 0
            for model, rows in tables:
                for chunk in peewee.chunked(rows, CHUNK):
                    done += self._insert(model, chunk)
                    advance(done)
        seconds = time.perf_counter() - begin
        screen.code("Region.insert_many(rows).execute()")
        screen.done(_rate("laptop", "inserted and recorded", total, "rows", seconds))
        self._figures.append(Figure("laptop: import, recorded", total, seconds))

    def _insert(self, model: Any, rows: Any) -> int:
        with self._laptop.database.atomic():
            model.insert_many(rows).execute()
        return len(rows)

    def _sync_first(self) -> None:
        screen = self._screen
        screen.section(2, "The first sync", FIRST_SYNC)
        pending = self._laptop.pending
        up = self._sync(self._laptop, "laptop sends", pending)
        screen.done(_rate("laptop", "sent", up.result.sent, "changes", up.seconds))
        down = self._sync(self._phone, "phone receives", pending)
        screen.done(
            _rate("phone", "received and applied", down.result.received, "changes", down.seconds)
        )
        self._figures += [_figure("laptop: first sync", up), _figure("phone: first sync", down)]

    def _edit_offline(self) -> None:
        screen = self._screen
        screen.section(3, "Offline, both change the same rows", OFFLINE)
        self._service.stop()
        for number, edit in enumerate(EDITS, 1):
            self._edit(number, edit)
        try:
            self._laptop.sync()
        except ConnectionFailed:
            screen.say("The laptop tries to sync, and cannot reach the service.")
        screen.done(
            f"Nothing is lost: the laptop keeps {self._laptop.pending} changes for later, "
            f"the phone {self._phone.pending}"
        )

    def _edit(self, number: int, edit: Edit) -> None:
        self._screen.say(f"{number}. {edit.title}")
        shown = []
        for write in (edit.earlier, edit.later):
            name = device_of(write)
            with self._devices[name].bound():
                write()
            shown.append((name, code_of(write)))
            time.sleep(PAUSE_S)
        self._screen.table(steps(shown))
        self._screen.gap()

    def _sync_again(self) -> None:
        screen = self._screen
        screen.section(4, "Online again: what met is decided", RECONCILE)
        self._service.start()
        exchanges: list[Exchange] = []
        for device in (self._laptop, self._phone, self._laptop):
            news = exchanges[-1].result.sent if exchanges else 0
            exchange = self._sync(device, f"{device.name} syncs", device.pending + news)
            result = exchange.result
            screen.done(f"{device.name} sent {result.sent} changes, received {result.received}")
            exchanges.append(exchange)
        self._figures.append(_figure("both: sync after offline", *exchanges))
        screen.gap()
        screen.say("Where both had changed the same thing (✓ is what stands now):")
        screen.gap()
        names = {device.id or "": device.name for device in self._devices.values()}
        found = [conflict for exchange in exchanges for conflict in exchange.result.conflicts]
        screen.table(tables.conflicts(found, names))
        screen.gap()
        screen.say("And so each of the edits above came out:")
        screen.gap()
        screen.table(tables.outcomes(self._outcomes()))

    def _outcomes(self) -> list[Outcome]:
        found = []
        for edit in EDITS:
            seen = []
            for device in (self._laptop, self._phone):
                with device.bound():
                    seen.append(edit.look())
            found.append(Outcome(edit.rule, *seen))
        return found

    def _prove(self) -> bool:
        screen = self._screen
        screen.section(5, "The proof: both databases are equal", PROOF)
        self.close()  # the applications end; what counts now is what is in the files
        found = compare(self._laptop.path, self._phone.path, TABLES)
        screen.table(tables.proof(found))
        screen.gap()
        broken = sum(broken_references(device.path) for device in self._devices.values())
        equal = all(comparison.equal for comparison in found) and not broken
        screen.done(_verdict(found, broken), good=equal)
        return equal

    def _sum_up(self, seconds: float) -> None:
        screen = self._screen
        screen.section(6, "In figures")
        screen.table(tables.figures(self._figures))
        screen.gap()
        files = [self._service.path, self._laptop.path, self._phone.path]
        screen.say(
            f"All of it took {seconds:.1f} s. On disk: "
            + ", ".join(f"{path.name} {size(_file_bytes(path))}" for path in files)
        )

    def say_kept(self) -> None:
        self._screen.say(f"The files are kept in {self._folder}.")

    def invite(self) -> None:
        screen = self._screen
        screen.section(7, "Look at the log yourself", INVITATION)
        screen.address(self._service.graphiql)
        screen.gap()
        screen.say(SUGGESTION)
        screen.gap()
        screen.say("Ctrl-C stops the service and ends the demonstration.")

    def farewell(self) -> None:
        self._screen.gap()
        self._screen.say("Stopped.")

    def _sync(self, device: Device, text: str, total: int) -> Exchange:
        with self._screen.working(text, total) as advance:
            return device.sync(advance)


def _figure(step: str, *exchanges: Exchange) -> Figure:
    return Figure(
        step,
        sum(exchange.changes for exchange in exchanges),
        sum(exchange.seconds for exchange in exchanges),
        sum(exchange.bytes for exchange in exchanges),
    )


def _rate(name: str, did: str, count: int, things: str, seconds: float) -> str:
    return f"{name} {did} {count:,} {things} in {seconds:.2f} s ({count / seconds:,.0f} a second)"


def _verdict(found: list[Comparison], broken: int) -> str:
    rows = sum(comparison.left.rows for comparison in found)
    equal = sum(comparison.equal for comparison in found)
    if equal < len(found):
        return f"NOT EQUAL: {len(found) - equal} of {len(found)} tables differ."
    if broken:
        return f"Equal, but {broken} foreign keys point to rows that are not there."
    return f"Equal: {equal} of {len(found)} tables, {rows:,} rows, no broken foreign key."


def _file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
