"""The shared log as a client sees it, and GraphQL as the way to reach one.

`SharedLog` is the interface; `GraphQLSharedLog` speaks the service's protocol over any
`Transport`. `memory.MemorySharedLog` is a shared log without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from ..changes import Entry, Wire
from ..clock import from_created_on, to_created_on
from ..errors import ConfigurationError, MissingToken, ProtocolError
from ..limits import Limits, is_text
from .documents import (
    ABOUT,
    CREATE_DEVICE_ID,
    GET_ALL_ENTRIES,
    GET_OWN_ENTRIES,
    GET_UNSYNCED_ENTRIES,
    HISTORY,
    POKED,
    WRITE_ENTRIES,
)
from .history import Told, told_of
from .subscriptions import Subscription, check_installed, subscribe
from .transports import HttpTransport, Transport

T = TypeVar("T")


class Outgoing(NamedTuple):
    """An entry to be written: its identity's timestamp, its place in its group, its data."""

    ticks: int
    offset: int
    data: str


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of other devices, in the log's order; `cursor` is where the next page begins."""

    entries: Sequence[Entry]
    cursor: str
    has_more: bool
    epoch: str
    server_time_ms: float


@dataclass(frozen=True, slots=True)
class OwnPage:
    """What a log has of the device itself, in the order of its timestamps; `lineage` is what the
    device has to show once it knows all of it."""

    entries: Sequence[Entry]
    has_more: bool
    lineage: str


@dataclass(frozen=True, slots=True)
class About:
    """What a log tells of itself: whose it is, and what it takes."""

    owner: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Rejection:
    """An entry that the service refused: its place in the batch, and why."""

    index: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch. What is not rejected is in the log, once. `lineage` is what the
    device's next request has to show; the log takes nothing that is not later than the horizon."""

    accepted: int
    duplicates: int
    rejected: Sequence[Rejection]
    epoch: str
    server_time_ms: float
    page: Page | None
    lineage: str = ""
    horizon_ticks: int = 0


def akin(device: str, other: str) -> bool:
    """Whether two ids are of copies of one file: they are the same up to the first dot."""
    return device.partition(".")[0] == other.partition(".")[0]


class SharedLog(Protocol):
    """One user's append-only log, as seen by one device. Every method may raise RemoteError.

    Writing is idempotent: an entry that was written before counts as a duplicate.

    `lineage` is what the last write as this device was answered, "" before the first one. If it
    is another one by now, `write` and `read` do nothing and raise `LineageChanged`: what was
    written as this device is not what the caller knows. So does `write` where a copy of the
    device (see `akin`) wrote since that lineage was told. None leaves this out.
    """

    def about(self) -> About:
        """Whose log it is, and what it takes."""

    def register(self, name: str | None, device: str) -> str:
        """Make a device known by its id, a random word of its own choice; return the id. Nothing
        happens if it is known."""

    def write(
        self,
        device: str,
        entries: Sequence[Outgoing],
        *,
        after: str | None,
        now_ms: int,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Receipt:
        """Append entries, and read the first page after `after` in the same exchange."""

    def read(
        self,
        device: str,
        *,
        after: str | None,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Page:
        """Entries of other devices after a cursor (None: from the beginning)."""

    def read_all(
        self, device: str, *, after: str | None, until: str, limit: int, byte_limit: int
    ) -> Page:
        """The same with this device's own entries among them, up to a cursor: for checking
        what the device has. It does not tell the service where the device is."""

    def read_own(self, device: str, *, since: int, limit: int, byte_limit: int) -> OwnPage:
        """Entries of this device from the timestamp `since` on."""

    def close(self) -> None:
        """Release connections. The shared log can be used again afterwards."""


@runtime_checkable
class PokingLog(Protocol):
    """A shared log that can tell of news, as `Live` wants it."""

    def pokes(self, device: str) -> AbstractContextManager[Pokes] | None:
        """A connection of its own, made on entering, by which the log tells of news; None where
        there is no way."""


class Pokes:
    """Tells when another device has written: the cursor of the log's end, now and each time. To be
    iterated once, in one thread; any other one may close it, which ends the iteration by an error.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __iter__(self) -> Iterator[str]:
        for data in self._subscription:
            yield _reading(lambda found: str(found["sharedSyncLogPoked"]["cursor"]), data)

    def close(self) -> None:
        self._subscription.close()


class GraphQLSharedLog:
    """The shared log behind a sharedlog service.

    Args:
        transport: How documents reach the service.
        user: Whose log; None asks the service whom the token belongs to, once.
    """

    def __init__(self, transport: Transport, user: str | None = None) -> None:
        if user is not None and not is_text(user):
            raise ConfigurationError(
                f"user is {user!r:.100}; it must be a text.",
                hint="Give the name of the user, or none: the token says whose log it is.",
            )
        self._transport = transport
        self._user = user

    def about(self) -> About:
        answer = self._ask(ABOUT, {})
        return _reading(self._about, answer)

    def register(self, name: str | None, device: str) -> str:
        variables = {"userId": self._user_id(), "name": name, "deviceId": device}
        return str(self._call(CREATE_DEVICE_ID, variables, "createDeviceId"))

    def write(
        self,
        device: str,
        entries: Sequence[Outgoing],
        *,
        after: str | None,
        now_ms: int,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Receipt:
        answer = self._call(
            WRITE_ENTRIES,
            {
                "userId": self._user_id(),
                "deviceId": device,
                "packed": [tuple(entry) for entry in entries],
                "now": float(now_ms),
                "after": after,
                "batchSize": limit,
                "byteLimit": byte_limit,
                "lineage": lineage,
            },
            "writeEntries",
        )
        return _reading(_receipt, answer)

    def read(
        self,
        device: str,
        *,
        after: str | None,
        limit: int,
        byte_limit: int,
        lineage: str | None = None,
    ) -> Page:
        return self._read(GET_UNSYNCED_ENTRIES, device, after, limit, byte_limit, lineage=lineage)

    def read_all(
        self, device: str, *, after: str | None, until: str, limit: int, byte_limit: int
    ) -> Page:
        return self._read(GET_ALL_ENTRIES, device, after, limit, byte_limit, until=until)

    def _read(
        self,
        document: str,
        device: str,
        after: str | None,
        limit: int,
        byte_limit: int,
        **more: str | None,
    ) -> Page:
        variables = {
            "userId": self._user_id(),
            "deviceId": device,
            "after": after,
            "batchSize": limit,
            "byteLimit": byte_limit,
            **more,
        }
        return _reading(_page, self._call(document, variables, "getUnsyncedEntries"))

    def history(self, collection: str, pk: Wire, limit: int) -> list[Told]:
        variables = {"userId": self._user_id(), "collection": collection, "pk": pk, "first": limit}
        return _reading(told_of, self._ask(HISTORY, variables))

    def read_own(self, device: str, *, since: int, limit: int, byte_limit: int) -> OwnPage:
        answer = self._call(
            GET_OWN_ENTRIES,
            {
                "userId": self._user_id(),
                "deviceId": device,
                "createdFrom": to_created_on(since),
                "batchSize": limit,
                "byteLimit": byte_limit,
            },
            "getOwnEntries",
        )
        return _reading(_own_page, answer)

    def pokes(self, device: str) -> AbstractContextManager[Pokes] | None:
        if not isinstance(self._transport, HttpTransport):
            return None
        check_installed()
        return self._pokes(self._transport, device)

    @contextmanager
    def _pokes(self, transport: HttpTransport, device: str) -> Iterator[Pokes]:
        variables = {"userId": self._user_id(), "deviceId": device}
        with subscribe(
            transport.url, transport.authorization, POKED, variables, transport.timeout_s
        ) as subscription:
            yield Pokes(subscription)

    def close(self) -> None:
        self._transport.close()

    def _user_id(self) -> str:
        return self._user or self.about().owner

    def _about(self, answer: dict[str, Any]) -> About:
        if self._user is None:
            if answer["viewer"] is None:
                raise MissingToken(
                    "This service runs without access control and needs to be told whose log.",
                    hint='Pass user="NAME".',
                )
            self._user = str(answer["viewer"])
        limits = answer["limits"]
        found = Limits(limits["entryBytes"], limits["batchEntries"], limits["batchBytes"])
        return About(self._user, found)

    def _call(self, document: str, variables: Mapping[str, Any], field: str) -> Any:
        try:
            return self._ask(document, variables)[field]
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"The answer lacks {field}: {error!r}.") from None

    def _ask(self, document: str, variables: Mapping[str, Any]) -> Any:
        try:
            return self._transport.execute(document, variables)["sharedSyncLog"]
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"The answer lacks sharedSyncLog: {error!r}.") from None


def _receipt(answer: dict[str, Any]) -> Receipt:
    return Receipt(
        answer["accepted"],
        answer["duplicates"],
        [Rejection(r["index"], r["code"], r["reason"]) for r in answer["rejected"]],
        answer["epoch"],
        answer["serverTime"],
        _page(answer["update"]),
        answer["lineage"],
        from_created_on(answer.get("horizon", 0.0)),
    )


def _page(answer: dict[str, Any]) -> Page:
    return Page(
        _entries(answer["packed"]),
        answer["cursor"],
        answer["hasMore"],
        answer["epoch"],
        answer["serverTime"],
    )


def _own_page(answer: dict[str, Any]) -> OwnPage:
    return OwnPage(_entries(answer["packed"]), answer["hasMore"], answer["lineage"])


def _entries(packed: dict[str, Any]) -> list[Entry]:
    devices = packed["devices"]
    return [
        tuple.__new__(Entry, (devices[device], ticks, offset, data))  # a fast Entry(…)
        for device, ticks, offset, data in packed["entries"]
    ]


def _reading(read: Callable[[dict[str, Any]], T], answer: Any) -> T:
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ProtocolError(f"The service's answer is not understood: {error!r}.") from None
