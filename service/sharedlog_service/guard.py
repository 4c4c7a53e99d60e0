"""What stands before GraphQL: small, pure ASGI, and answering 4xx where others fall over.

It reads the body once, within bounds, and parses it once; the endpoint behind it takes the parsed
request from the scope. Every refusal has the shape of a GraphQL error with a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedlog_service.errors import Code, Refused
from sharedlog_service.faults import internal_error, log_fault, refused_answer
from sharedlog_service.settings import IdSource, is_loopback

JSON_DEPTH_MAX = 32
DOCUMENT_BYTES_MAX = 32 * 1024

STRANGER_BYTES_MAX = 64 * 1024
"""Enough to ask for the schema; who shows no token at all is not listened to for longer."""

SCOPE_KEY = "sharedlog.request"

STATUS: Mapping[Code, int] = {
    Code.UNAUTHENTICATED: 401,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.BODY_TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.HOST_NOT_ALLOWED: 421,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """A request that has the right shape; nobody has looked at the document yet."""

    id: str
    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class Guard:
    """Shows browsers the page, and lets through to GraphQL only well-formed requests by POST."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        page: ASGIApp,
        body_bytes_max: int,
        new_id: IdSource,
        tokens: bool = True,
    ) -> None:
        self._app = app
        self._page = page
        self._body_bytes_max = body_bytes_max
        self._new_id = new_id
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            # Queries by GET do not exist: an address must never be able to ask for data.
            await self._page(scope, receive, send)
            return
        request_id = self._new_id()
        try:
            scope[SCOPE_KEY] = await self._request(scope, receive, request_id)
            await self._app(scope, receive, send)
        except Refused as refused:
            await refusal(refused)(scope, receive, send)
        except Exception as error:
            log_fault(error, request_id)
            await refusal(internal_error(request_id))(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, request_id: str) -> GraphQLRequest:
        if scope["method"] != "POST":
            raise Refused(Code.METHOD_NOT_ALLOWED)
        headers = Headers(scope=scope)
        check_media_type(headers)
        return parse_request(await self._body(headers, receive), request_id)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Read the body, stopping as soon as it is too long, whatever its declared length."""
        stranger = self._tokens and "authorization" not in headers
        size_max = STRANGER_BYTES_MAX if stranger else self._body_bytes_max
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > size_max:
            raise self._too_large(stranger)
        parts: list[bytes] = []
        size = 0
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(Code.BAD_REQUEST, "The client went away.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > size_max:
                raise self._too_large(stranger)
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self, stranger: bool) -> Refused:
        if stranger:
            return Refused(Code.UNAUTHENTICATED)
        return Refused(Code.BODY_TOO_LARGE, requestBytes=self._body_bytes_max)


class LoopbackHosts:
    """Answers only to names of this machine.

    Without tokens the browser is the way in: a page of any web site can make its own name resolve
    to 127.0.0.1 (DNS rebinding) and then read what it likes as "same origin". The Host header still
    carries that site's name, which no page can change.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            host = host_name(Headers(scope=scope).get("host", ""))
            if not is_loopback(host):
                await refusal(Refused(Code.HOST_NOT_ALLOWED))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_name(header: str) -> str:
    """Return a Host header without its port."""
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[")
    return header.partition(":")[0]


def check_media_type(headers: Headers) -> None:
    """Only JSON, plain: which also keeps out what a foreign page may post without asking."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE)
    # A few bytes of gzip can unfold to gigabytes, so nothing unfolds here.
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE)


def parse_request(body: bytes, request_id: str) -> GraphQLRequest:
    """Parse a body, refusing whatever is not one GraphQL request."""
    try:
        found = orjson.loads(body)
    except ValueError as error:
        # orjson names the fault and the place, never what stands there.
        raise Refused(Code.BAD_REQUEST, f"The body is not JSON: {error}.") from error
    if type(found) is not dict:
        raise Refused(Code.BAD_REQUEST, "The body must be one JSON object; batches are off.")
    check_depth(found)
    query, variables = found.get("query"), found.get("variables")
    operation_name = found.get("operationName")
    if type(query) is not str or not query.strip():
        raise Refused(Code.BAD_REQUEST, "query must be a text.")
    if len(query.encode()) > DOCUMENT_BYTES_MAX:
        raise Refused(Code.BODY_TOO_LARGE, "The document is too long: send values as variables.")
    if variables is not None and type(variables) is not dict:
        raise Refused(Code.BAD_REQUEST, "variables must be an object or null.")
    if operation_name is not None and type(operation_name) is not str:
        raise Refused(Code.BAD_REQUEST, "operationName must be a text or null.")
    return GraphQLRequest(request_id, query, variables, operation_name or None)


def check_depth(value: object) -> None:
    """Refuse JSON nested deeper than anything we are asked for, level by level."""
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        inner: list[object] = []
        for found in level:
            if type(found) is dict:
                inner += [v for v in found.values() if type(v) is dict or type(v) is list]
            elif type(found) is list:
                inner += [v for v in found if type(v) is dict or type(v) is list]
        if not inner:
            return
        level = inner
    raise Refused(Code.BAD_REQUEST, f"The JSON is nested deeper than {JSON_DEPTH_MAX}.")


def refusal(refused: Refused) -> Response:
    """Answer a refusal outside GraphQL in GraphQL's shape, with a status for everybody else."""
    body = orjson.dumps(refused_answer(refused))
    headers = {"allow": "GET, POST"} if refused.code is Code.METHOD_NOT_ALLOWED else None
    return Response(body, STATUS.get(refused.code, 400), headers, media_type="application/json")
