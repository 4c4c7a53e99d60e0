"""Ways to send GraphQL to a service.

A `Transport` is one method: send this document with these variables. There are two:
`HttpTransport` (gql over httpx2) and `LocalTransport`, which calls a function in the same
process.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from ..errors import (
    ConfigurationError,
    ConnectionFailed,
    DeviceRefused,
    DeviceUnknown,
    EpochChanged,
    HorizonPassed,
    LineageChanged,
    MissingToken,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    ServiceFailed,
    SharedLogError,
    Unauthorized,
)
from .addresses import check_address, is_loopback, without_secrets

RETRY_AFTER_S = 60.0
"""How long to wait where something is too much for whatever stands before the service, and that
does not say how long."""

COMPRESS_FROM_BYTES = 1024
"""What fits a packet travels as fast as it is."""


Token = str | Callable[[], str | None]
"""A bearer token, or what tells one: tokens of an identity provider end after a while, and there is
none while nobody is logged in."""


class Transport(Protocol):
    """Sends one GraphQL document with variables; returns its `data`, raises RemoteError."""

    def execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]: ...

    def close(self) -> None: ...


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
        token: The bearer token of this user, or a function that is asked for it with each request;
            None only for a service without access control.
        timeout_s: For connecting and for each answer.
        compress: Whether long bodies travel in gzip, in both directions. None: unless the service
            is on this machine, where it would cost more than it saves.
    """

    def __init__(
        self,
        url: str,
        token: Token | None = None,
        *,
        timeout_s: float = 60.0,
        compress: bool | None = None,
    ) -> None:
        check_address(url)
        self.url, self._shown_url = url, without_secrets(url)
        self._token = token if callable(token) else None
        self._headers = {} if callable(token) or not token else _authorization(token)
        self._compress = not is_loopback(url) if compress is None else compress
        self._headers["Accept-Encoding"] = "gzip" if self._compress else "identity"
        self._takes_gzip = False
        self.timeout_s = timeout_s
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
            self._remember()
        except exceptions.TransportQueryError as error:
            raise error_from(error.errors or []) from None
        except exceptions.TransportServerError as error:
            self._takes_gzip = False
            raise _http_error(error, self._answered()) from error
        except exceptions.TransportConnectionFailed as error:
            self.close()
            raise ConnectionFailed(
                f"Cannot reach the service at {self._shown_url}: {error.__cause__ or error}.",
                hint="Nothing is lost: changes are recorded here and the next sync() sends them.",
            ) from error
        except exceptions.TransportError as error:
            self.close()
            raise ProtocolError(
                f"{self._shown_url} did not answer as a sharedlog service: {error}."
            ) from error
        return dict(result)

    @property
    def authorization(self) -> str | None:
        """What stands in the header of this name."""
        if self._token is not None:
            return _authorization(self._token())["Authorization"]
        return self._headers.get("Authorization")

    def _open(self) -> Any:
        if self._session is None:
            # Imported late: an application that does not sync does not pay for it.
            import httpx2
            from gql import Client
            from gql.transport.httpx import HTTPXTransport

            prepare = self._prepared

            class OrjsonTransport(HTTPXTransport):
                def _prepare_request(self, request: Any, **_: Any) -> dict[str, Any]:
                    return prepare(request)

            transport = OrjsonTransport(
                url=self.url,
                headers={**self._headers, "Content-Type": "application/json"},
                timeout=httpx2.Timeout(self.timeout_s),
                json_deserialize=orjson.loads,
            )
            self._client = Client(transport=transport, fetch_schema_from_transport=False)
            self._session = self._client.connect_sync()
        return self._session

    def _prepared(self, request: Any) -> dict[str, Any]:
        # The document as it was written: gql would print it anew each time.
        query = request.document.loc.source.body
        body = orjson.dumps({"query": query, "variables": request.variable_values})
        headers = {} if self._token is None else _authorization(self._token())
        if self._takes_gzip and len(body) >= COMPRESS_FROM_BYTES:
            # The lowest level: seven times smaller, and four times as fast as the usual one.
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return {"content": body, "headers": headers}

    def _remember(self) -> None:
        """Note whether the service says that it takes gzip. Not before it said so."""
        self._takes_gzip = self._compress and "gzip" in self._answered().get("accept-encoding", "")

    def _answered(self) -> Mapping[str, str]:
        """The headers of the last answer."""
        return self._client.transport.response_headers or {}

    def close(self) -> None:
        if self._client is not None:
            client, self._client, self._session = self._client, None, None
            client.close_sync()


def _authorization(token: Any) -> dict[str, str]:
    """The header for a token, without white space around it, such as a file's last newline."""
    if token is not None and not isinstance(token, str):
        raise ConfigurationError(
            f"The token is of the type {type(token).__name__}; it must be a text.",
            hint='Give token="…", or a function that returns such a text.',
        )
    token = (token or "").strip()
    if not token:
        raise MissingToken(
            "There is no token now: none, or an empty one, was given.",
            hint="Log in first, so that there is one, and call sync() then: what is recorded "
            "meanwhile is sent with it.",
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError(  # and the token itself is not told
            "The token is not one that `sharedlog token create` made.",
            hint="A token is a word that begins with slog_, or a JWT.",
        )
    return {"Authorization": f"Bearer {token}"}


def _http_error(error: Any, headers: Mapping[str, str]) -> SharedLogError:
    code = error.code
    if code in (401, 403):
        return Unauthorized(f"The service refused the request (HTTP {code}).")
    if code in (404, 405):
        return ProtocolError(
            f"There is no sharedlog service at this address (HTTP {code}).",
            hint="The address of a service ends in /graphql.",
        )
    if code == 429:
        return _rate_limited("The service is asked for too much (HTTP 429).", _seconds(headers))
    if code is not None and code >= 500:
        return ConnectionFailed(f"The service is not able to answer now (HTTP {code}).")
    return ServiceFailed(without_secrets(str(error)), service_code=f"HTTP_{code}")


def _seconds(headers: Mapping[str, str]) -> float:
    """What Retry-After says. It may be a date, too: whose clock that means is anybody's guess."""
    text = headers.get("retry-after", "")
    return float(text[:9]) if text.isascii() and text.isdigit() else RETRY_AFTER_S


def _rate_limited(message: str, retry_after: float) -> RateLimited:
    hint = "Nothing is lost: call sync() again after `retry_after` seconds."
    return RateLimited(message, retry_after=retry_after, hint=hint)


def error_from(errors: Sequence[Any]) -> SharedLogError:
    """The error of this library for a GraphQL answer's errors: the first one decides."""
    first = errors[0] if errors else {}
    if not isinstance(first, Mapping):
        return ProtocolError(f"The service's error is not understood: {first!r}.")
    details = first.get("extensions") or {}
    code = details.get("code", "UNKNOWN")
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
    if code in ("RATE_LIMITED", "ANSWERS_WAITING"):
        wait_ms = details.get("retryAfterMs")
        wait_s = wait_ms / 1000 if isinstance(wait_ms, int | float) else RETRY_AFTER_S
        return _rate_limited(message, wait_s)
    if code == "QUOTA_EXCEEDED":
        return QuotaExceeded(message, hint="Ask whoever runs the service. Nothing here is lost.")
    if code in ("DEVICE_UNKNOWN", "USER_UNKNOWN"):
        return DeviceUnknown(
            message,
            hint="Is this the service and the token that the device syncs with, or another user's? "
            "If the service lost the device, sync() registers it again.",
        )
    if code == "DEVICE_REVOKED":
        return DeviceRefused(
            message, hint="Ask whoever runs the service. Nothing here is lost, nor is it sent."
        )
    if code in ("EPOCH_CHANGED", "CURSOR_AHEAD"):
        return EpochChanged(message)
    if code == "HORIZON_PASSED":
        passed = HorizonPassed(message)
        passed.beginning = details.get("beginning")
        return passed
    if code == "LINEAGE_CHANGED":
        return LineageChanged(message)
    return ServiceFailed(message, service_code=code)
