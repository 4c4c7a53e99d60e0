"""Where a device stands: what the client log alone can tell, and what it notes for that.

What is noted is written in the transaction of what it speaks of: contact with the page or the
receipt that was got, the failure of a run after its last transaction was rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..changes import dumps, loads
from ..errors import RateLimited
from .inbox import UNREADABLE, WAITING
from .journal import DROPPED, REFUSED, Journal

CONTACT_EVERY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Failure:
    """What made a run fail: the error's code and message, and when."""

    code: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """Where a device stands. Times are this device's own clock.

    Attributes:
        device: The id that the service gave it; None before it ever met the service.
        name: What people see in the list of devices.
        pending: Changes that are not sent yet.
        refused: Entries that the service refused: nobody else has these changes.
        waiting: Received entries that wait for `reconcile()`.
        unreadable: Received entries that are set aside, because they are no changes.
        parked: Rows that cannot stand in their table yet.
        checkpoint: The cursor up to which others' entries are here.
        last_contact: When the service last answered, to the second.
        last_error: What made the last run fail; None if it did not.
        clock_offset_ms: How far this clock was ahead of the service's at the last contact.
        layout: The version of sharedlog's tables in this file.
        former: The ids that this device gave up because its file turned out to be a copy.
        held_until: From when on the service may be asked again, if it ever asked to wait; it may
            be long ago.
    """

    device: str | None
    name: str | None
    pending: int
    refused: int
    waiting: int
    unreadable: int
    parked: int
    checkpoint: str | None
    last_contact: datetime | None
    last_error: Failure | None
    clock_offset_ms: int | None
    layout: int
    former: tuple[str, ...] = ()
    held_until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as what JSON can hold; times as text."""
        return asdict(self, dict_factory=_plain)

    def __str__(self) -> str:
        return "\n".join(f"{name:<14}{text}" for name, text in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        device = self.device or "not registered yet: it has not met the service"
        yield "device", f"{device} ({self.name})" if self.name else device
        for former in self.former:
            yield "formerly", former
        yield "last contact", _time(self.last_contact) if self.last_contact else "never"
        failure = self.last_error
        yield (
            "last error",
            (f"{failure.code}, {_time(failure.at)}: {failure.message}" if failure else "none"),
        )
        if self.clock_offset_ms is not None:
            ahead = "ahead of" if self.clock_offset_ms >= 0 else "behind"
            yield "clock", f"{abs(self.clock_offset_ms):,} ms {ahead} the service's"
        yield "checkpoint", self.checkpoint or "none: nothing was received yet"
        yield "to send", _counted(self.pending, "entry", "entries")
        yield "refused", _counted(self.refused, "entry", "entries")
        yield "to reconcile", _counted(self.waiting, "entry", "entries")
        yield "unreadable", _counted(self.unreadable, "entry", "entries")
        yield "parked", _counted(self.parked, "row", "rows")
        yield "layout", str(self.layout)


def read_status(journal: Journal) -> Status:
    """What the client log says, all of one moment."""
    with journal.reading():
        contact, offset = journal.state("last_contact"), journal.state("clock_offset")
        failure = journal.state("last_error")
        return Status(
            device=journal.state("registered"),
            name=journal.state("device_name"),
            pending=journal.count_unsent() + _noted(journal),
            refused=_count(
                journal,
                f"entry WHERE reason IS NOT NULL AND status = {REFUSED} AND reason <> '{DROPPED}'",
            ),
            waiting=_count(journal, f"inbox WHERE {WAITING}"),
            unreadable=_count(journal, f"inbox WHERE {UNREADABLE}"),
            parked=_count(journal, "row WHERE parked IS NOT NULL"),
            checkpoint=journal.state("checkpoint"),
            last_contact=None if contact is None else _moment(int(contact)),
            last_error=None if failure is None else _failure(loads(failure)),
            clock_offset_ms=None if offset is None else int(offset),
            layout=int(journal.state("layout") or 0),
            former=tuple(loads(journal.state("former") or "[]")),
            held_until=_moment(held[1]) if (held := _held(journal)) else None,
        )


def note_contact(journal: Journal, now_ms: int, server_time_ms: float) -> None:
    """The service answered; inside the open transaction. Noted to the second, so that exchanges
    in quick succession that bring nothing need not write."""
    last = journal.state("last_contact")
    if last is not None and 0 <= now_ms - int(last) < CONTACT_EVERY_MS:
        return
    journal.set_state(last_contact=str(now_ms), clock_offset=str(now_ms - int(server_time_ms)))


def note_failure(journal: Journal, now_ms: int, error: Exception) -> None:
    """A run failed; inside the open transaction."""
    code = str(getattr(error, "code", type(error).__name__))
    message = str(getattr(error, "message", error)).encode(errors="replace").decode()
    journal.set_state(last_error=dumps({"code": code, "message": message, "at": now_ms}))
    if isinstance(error, RateLimited):
        journal.set_state(held=dumps([now_ms, now_ms + int(error.retry_after * 1000)]))


def check_not_held(journal: Journal, now_ms: int) -> None:
    """Raise RateLimited as long as the service asked to be left alone, which another process of
    this device may have been told. A clock that was set back does not make it longer."""
    since, until = _held(journal) or (0, 0)
    if since <= now_ms < until:
        wait_s = (until - now_ms) / 1000
        raise RateLimited(
            f"The service allows no more for now: it can be asked again in {wait_s:.0f} s.",
            retry_after=wait_s,
            hint="Nothing is lost: what is recorded here is sent then.",
        )


def forget_failure(journal: Journal) -> None:
    """A run succeeded; inside the open transaction."""
    journal.set_state(last_error=None)


def _held(journal: Journal) -> Sequence[int] | None:
    """When the service asked to be left alone, and until when."""
    found = journal.state("held")
    return None if found is None else loads(found)


def _noted(journal: Journal) -> int:
    """Changes that triggers noted, and that are not in the client log yet."""
    if not journal.database.table_exists("sharedlog_trace"):
        return 0
    return _count(journal, "trace WHERE shape IS NOT NULL")


def _count(journal: Journal, what: str) -> int:
    return int(journal.run(f"SELECT count(*) FROM sharedlog_{what}").fetchone()[0])


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _failure(noted: dict[str, Any]) -> Failure:
    return Failure(noted["code"], noted["message"], _moment(noted["at"]))


def _plain(values: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _as_json(value) for name, value in values}


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
