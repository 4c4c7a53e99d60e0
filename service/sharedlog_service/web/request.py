"""A GraphQL request: what is one, and the bounds that JSON from anywhere is held to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from sharedlog_service.api.known import HASH_CHARS, KnownDocuments, hash_of
from sharedlog_service.errors import Code, Refused

JSON_DEPTH_MAX = 32
DOCUMENT_BYTES_MAX = 32 * 1024

VALUES_MAX = 50_000
"""How many values the JSON of a body may have, about: the largest batch has four for an entry."""

PORTION_BYTES = 64 * 1024
"""How much of a body is looked at as one."""


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """A request that has the right shape; nobody has looked at the document yet."""

    id: str
    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


def parse_json(body: bytes | str) -> dict[str, Any]:
    """Parse what must be one JSON object, not too deep. (orjson makes no number longer than a
    double of what it reads, and nothing of one that does not fit.)"""
    try:
        found = orjson.loads(body)
    except ValueError as error:
        # orjson names the fault and the place, never what stands there.
        raise Refused(Code.BAD_REQUEST, f"The body is not JSON: {error}.") from error
    if type(found) is not dict:
        raise Refused(Code.BAD_REQUEST, "The body must be one JSON object; batches are off.")
    check_depth(found)
    return found


def check_values(body: bytes) -> None:
    """Refuse a body of too many values before they are made: each takes up to 70 bytes, which are
    half a gigabyte for what is sent in some kilobytes of gzip.

    There are about as many as commas; those in texts are told apart only where there are many.
    """
    if has_more_values(body, VALUES_MAX):
        raise Refused(Code.BODY_TOO_LARGE, f"A body has {VALUES_MAX} values at most.")


def has_more_values(body: bytes, most: int, portion: int = PORTION_BYTES) -> bool:
    """Whether JSON has more values than that, about. Looks no further than it has to, and copies
    only a portion at a time."""
    begins = range(0, len(body), portion)
    counts = accumulate(body.count(b",", begin, begin + portion) for begin in begins)
    if not any(count > most for count in counts):
        return False
    commas = quotes = begin = 0
    while begin < len(body):
        part = _portion(body, begin, portion)
        begin += len(part)
        if rb"\"" in part:
            # Without what is escaped, each quote begins or ends a text.
            part = part.replace(rb"\\", b"").replace(rb"\"", b"")
        between = part.split(b'"')
        commas += sum(found.count(b",") for found in between[quotes % 2 :: 2])
        quotes += len(between) - 1
        # A value has four quotes at most: its own, and those of its name.
        if commas > most or quotes > 4 * most:
            return True
    return False


def _portion(body: bytes, begin: int, size: int) -> bytes:
    """Return some bytes, with what the last one escapes, if it does."""
    part = body[begin : begin + size]
    backslashes = len(part) - len(part.rstrip(b"\\"))
    return part + body[begin + size : begin + size + backslashes % 2]


def parse_request(
    found: dict[str, Any], request_id: str, documents: KnownDocuments
) -> GraphQLRequest:
    """Take a request out of a JSON object, refusing whatever is not one."""
    variables, operation_name = found.get("variables"), found.get("operationName")
    if variables is not None and type(variables) is not dict:
        raise Refused(Code.BAD_REQUEST, "variables must be an object or null.")
    if operation_name is not None and type(operation_name) is not str:
        raise Refused(Code.BAD_REQUEST, "operationName must be a text or null.")
    query = _document(found.get("query"), _hash(found.get("extensions")), documents)
    return GraphQLRequest(request_id, query, variables, operation_name or None)


def _document(query: object, sha256: str | None, documents: KnownDocuments) -> str:
    """Return the document that was sent, or named by its hash."""
    if query is None and sha256 is not None:
        known = documents.text(sha256)
        if known is None:
            raise Refused(Code.PERSISTED_QUERY_NOT_FOUND)
        return known
    if type(query) is not str or not query.strip():
        raise Refused(Code.BAD_REQUEST, "query must be a text.")
    if sha256 not in (None, hash_of(query)):
        raise Refused(Code.BAD_REQUEST, "query is not the document that has this hash.")
    if len(query.encode()) > DOCUMENT_BYTES_MAX:
        raise Refused(Code.BODY_TOO_LARGE, "The document is too long: send values as variables.")
    return query


def _hash(extensions: object) -> str | None:
    """Return the hash in `extensions.persistedQuery.sha256Hash`, as other clients send it too."""
    if extensions is None:
        return None
    if type(extensions) is not dict:
        raise Refused(Code.BAD_REQUEST, "extensions must be an object or null.")
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return None
    found = persisted.get("sha256Hash") if type(persisted) is dict else None
    if type(found) is not str or len(found) != HASH_CHARS:
        raise Refused(Code.BAD_REQUEST, "persistedQuery.sha256Hash must be a SHA-256 in hex.")
    return found.lower()


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
