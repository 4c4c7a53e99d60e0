"""The shared log as a client sees it, and GraphQL as the way to reach one.

`SharedLog` is the interface; `GraphQLSharedLog` speaks the service's protocol over any
`Transport`, which is one method: send this document with these variables. There are two:
`HttpTransport` (gql over httpx2) and `LocalTransport`, which calls a function in the same
process. `memory.MemorySharedLog` is a shared log without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from .changes import Entry, Wire
from .documents import (
    CREATE_DEVICE_ID,
    GET_ALL_ENTRIES,
    GET_UNSYNCED_ENTRIES,
    HISTORY,
    WHO_AM_I,
    WRITE_ENTRIES,
)
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    DeviceRefused,
    EpochChanged,
    MissingToken,
    ProtocolError,
    ServiceFailed,
    SharedLogError,
    Unauthorized,
)
from .history import Told, told_of

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
class Rejection:
    """An entry that the service refused: its place in the batch, and why."""

    index: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch. What is not rejected is in the log, once."""

    accepted: int
    duplicates: int
    rejected: Sequence[Rejection]
    epoch: str
    server_time_ms: float
    page: Page | None


class SharedLog(Protocol):
    """One user's append-only log, as seen by one device. Every method may raise RemoteError.

    Writing is idempotent: an entry that was written before counts as a duplicate.
    """

    def register(self, name: str | None, request_id: str) -> str:
        """Make a device id. The same `request_id` gives the same device."""

    def write(
        self,
        device: str,
        entries: Sequence[Outgoing],
        *,
        after: str | None,
        now_ms: int,
        limit: int,
        byte_limit: int,
    ) -> Receipt:
        """Append entries, and read the first page after `after` in the same exchange."""

    def read(self, device: str, *, after: str | None, limit: int, byte_limit: int) -> Page:
        """Entries of other devices after a cursor (None: from the beginning)."""

    def read_all(
        self, device: str, *, after: str | None, until: str, limit: int, byte_limit: int
    ) -> Page:
        """The same with this device's own entries among them, up to a cursor: for checking
        what the device has. It does not tell the service where the device is."""

    def close(self) -> None:
        """Release connections. The shared log can be used again afterwards."""


class Transport(Protocol):
    """Sends one GraphQL document with variables; returns its `data`, raises RemoteError."""

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]: ...

    def close(self) -> None: ...


class GraphQLSharedLog:
    """The shared log behind a sharedlog service.

    Args:
        transport: How documents reach the service.
        user: Whose log; None asks the service whom the token belongs to, once.
    """

    def __init__(self, transport: Transport, user: str | None = None) -> None:
        self._transport = transport
        self._user = user

    def register(self, name: str | None, request_id: str) -> str:
        variables = {"userId": self._user_id(), "name": name, "requestId": request_id}
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
            },
            "writeEntries",
        )
        return _reading(_receipt, answer)

    def read(self, device: str, *, after: str | None, limit: int, byte_limit: int) -> Page:
        return self._read(GET_UNSYNCED_ENTRIES, device, after, limit, byte_limit)

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
        **more: str,
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
        answer = self._call(HISTORY, variables)
        return _reading(told_of, answer)

    def close(self) -> None:
        self._transport.close()

    def _user_id(self) -> str:
        if self._user is None:
            viewer = self._call(WHO_AM_I, {}, "viewer")
            if viewer is None:
                raise MissingToken(
                    "This service runs without access control and needs to be told whose log.",
                    hint='Pass user="NAME".',
                )
            self._user = str(viewer)
        return self._user

    def _call(self, document: str, variables: Mapping[str, Any], field: str | None = None) -> Any:
        data = self._transport.execute(document, variables)
        try:
            answer = data["sharedSyncLog"]
            return answer if field is None else answer[field]
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"The answer lacks {field}: {error!r}.") from None


def _receipt(answer: dict[str, Any]) -> Receipt:
    return Receipt(
        answer["accepted"],
        answer["duplicates"],
        [Rejection(r["index"], r["code"], r["reason"]) for r in answer["rejected"]],
        answer["epoch"],
        answer["serverTime"],
        _page(answer["update"]),
    )


def _page(answer: dict[str, Any]) -> Page:
    packed = answer["packed"]
    devices = packed["devices"]
    entries = [
        tuple.__new__(Entry, (devices[device], ticks, offset, data))  # a fast Entry(…)
        for device, ticks, offset, data in packed["entries"]
    ]
    return Page(entries, answer["cursor"], answer["hasMore"], answer["epoch"], answer["serverTime"])


def _reading(read: Callable[[dict[str, Any]], T], answer: Any) -> T:
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ProtocolError(f"The service's answer is not understood: {error!r}.") from None


class LocalTransport:
    """Calls a function that executes GraphQL in this process: `execute(document, variables)`
    must return the response, a mapping with `data` and `errors`."""

    def __init__(self, execute: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._execute = execute

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        # By way of JSON, as over the network, so that nothing is shared by accident.
        response = self._execute(document, orjson.loads(orjson.dumps(dict(variables))))
        if response.get("errors"):
            raise error_from(response["errors"])
        data: dict[str, Any] = orjson.loads(orjson.dumps(response["data"]))
        return data

    def close(self) -> None:
        pass


class HttpTransport:
    """GraphQL over HTTP by gql and httpx2. One connection is kept open between exchanges.

    Args:
        url: The service's GraphQL address, such as `http://localhost:8000/graphql`.
        token: The bearer token of this user; None only for a service without access control.
        timeout_s: For connecting and for each answer.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{url!r} is not an http(s) address.",
                hint="Give the service's GraphQL address, such as http://localhost:8000/graphql.",
            )
        self._url = url
        self._headers = {"Authorization": f"Bearer {_header(token)}"} if token else {}
        self._timeout_s = timeout_s
        self._session: Any = None
        self._client: Any = None
        self._requests: dict[str, Any] = {}

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        from gql import GraphQLRequest
        from gql.transport import exceptions

        try:
            request = self._requests.get(document)
            if request is None:
                request = self._requests[document] = GraphQLRequest(document).document
            result = self._open().execute(
                GraphQLRequest(request, variable_values=dict(variables)), parse_result=False
            )
        except exceptions.TransportQueryError as error:
            raise error_from(error.errors or []) from None
        except exceptions.TransportServerError as error:
            raise _http_error(error) from error
        except exceptions.TransportConnectionFailed as error:
            self.close()
            raise ConnectionFailed(
                f"Cannot reach the service at {self._url}: {error.__cause__ or error}.",
                hint="Nothing is lost: changes are recorded here and the next sync() sends them.",
            ) from error
        except exceptions.TransportError as error:
            self.close()
            raise ProtocolError(
                f"{self._url} did not answer as a sharedlog service: {error}."
            ) from error
        return dict(result)

    def _open(self) -> Any:
        if self._session is None:
            # Imported late: an application that does not sync does not pay for it.
            import httpx2
            from gql import Client
            from gql.transport.httpx import HTTPXTransport

            class OrjsonTransport(HTTPXTransport):
                def _prepare_request(self, request: Any, **_: Any) -> dict[str, Any]:
                    # The document as it was written: gql would print it anew each time.
                    query = request.document.loc.source.body
                    variables = request.variable_values
                    return {"content": orjson.dumps({"query": query, "variables": variables})}

            transport = OrjsonTransport(
                url=self._url,
                headers={**self._headers, "Content-Type": "application/json"},
                timeout=httpx2.Timeout(self._timeout_s),
                json_deserialize=orjson.loads,
            )
            self._client = Client(transport=transport, fetch_schema_from_transport=False)
            self._session = self._client.connect_sync()
        return self._session

    def close(self) -> None:
        if self._client is not None:
            client, self._client, self._session = self._client, None, None
            client.close_sync()


def _header(token: str) -> str:
    """A token without white space around it, such as a file's last newline."""
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError(  # and the token itself is not told
            "The token is not one that `sharedlog token create` made.",
            hint="A token is a word that begins with slog_.",
        )
    return token


def _http_error(error: Any) -> SharedLogError:
    code = error.code
    if code in (401, 403):
        return Unauthorized(f"The service refused the request (HTTP {code}).")
    if code in (404, 405):
        return ProtocolError(
            f"There is no sharedlog service at this address (HTTP {code}).",
            hint="The address of a service ends in /graphql.",
        )
    if code == 429 or (code is not None and code >= 500):
        return ConnectionFailed(f"The service is not able to answer now (HTTP {code}).")
    return ServiceFailed(str(error), service_code=f"HTTP_{code}")


def error_from(errors: Sequence[Any]) -> SharedLogError:
    """The error of this library for a GraphQL answer's errors: the first one decides."""
    first = errors[0] if errors else {}
    if not isinstance(first, Mapping):
        return ProtocolError(f"The service's error is not understood: {first!r}.")
    code = (first.get("extensions") or {}).get("code", "UNKNOWN")
    message = str(first.get("message") or code)
    if code == "FORBIDDEN":
        return Unauthorized(message, hint="Leave `user` out: the token says whose log it is.")
    if code == "UNAUTHENTICATED":
        return Unauthorized(
            message,
            hint="Make a token with `sharedlog token create --user NAME` and pass it as token=….",
        )
    if code == "UNAVAILABLE":
        return ConnectionFailed(message, hint="Nothing is lost: the next sync() sends it.")
    if code in ("DEVICE_UNKNOWN", "DEVICE_REVOKED"):
        return DeviceRefused(
            message,
            hint="This file belongs to another user or service, or to a service that lost its "
            "database. Check url and token; nothing here is lost.",
        )
    if code in ("EPOCH_CHANGED", "CURSOR_AHEAD"):
        return EpochChanged(message)
    return ServiceFailed(message, service_code=code)
