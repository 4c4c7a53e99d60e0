"""What stands before GraphQL: bad requests get a 4xx and a code, never a 5xx, and no patience."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from sharedlog_service.access.answers import Answers
from sharedlog_service.api.known import KnownDocuments
from sharedlog_service.api.records import RECORD_KEY, Record
from sharedlog_service.settings import Limits
from sharedlog_service.web.compression import PART_BYTES, Gunzip
from sharedlog_service.web.guard import STRANGER_BYTES_MAX, Guard
from sharedlog_service.web.request import VALUES_MAX
from tests.service.support import CREATE_DEVICE, READ, WRITE, Asker

JSON = {"content-type": "application/json"}
QUERY = "{sharedSyncLog {limits {entryBytes}}}"


def send(
    asker: Asker, body: bytes | Iterator[bytes], headers: dict[str, str] | None = None
) -> httpx2.Response:
    token = {} if asker.token is None else {"authorization": f"Bearer {asker.token}"}
    all_headers = {**JSON, **token, **(headers or {})}
    response: httpx2.Response = asker.client.post("/graphql", content=body, headers=all_headers)
    return response


def code_of(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    answer: dict[str, Any] = response.json()
    assert answer["data"] is None
    code: str = answer["errors"][0]["extensions"]["code"]
    return code


BODIES: dict[str, bytes] = {
    # The ten of RELIABILITY C.2, which Strawberry answers with 500.
    "byte 0x82": b"\x82",
    "invalid UTF-8 in a text": b'{"query": "\xff\xfe"}',
    "100,000 nested lists": b"[" * 100_000,
    "100,000 nested lists in variables": b'{"query":"{a}","variables":{"a":' + b"[" * 100_000,
    "an integer of 5,000 digits": b'{"query":"{a}","variables":{"a":' + b"9" * 5000 + b"}}",
    "null": b"null",
    "a number": b"5",
    "a text": b'"x"',
    "true": b"true",
    # And others.
    "nothing": b"",
    "an empty object": b"{}",
    "a batch": b'[{"query":"{a}"}]',
    "an empty batch": b"[]",
    "trailing bytes": b'{"query":"{a}"} x',
    "NaN": b'{"query":"{a}","variables":{"a":NaN}}',
    "1e400": b'{"query":"{a}","variables":{"a":1e400}}',
    "a lone surrogate": b'{"query":"{a}","variables":{"a":"\\ud800"}}',
    "a byte order mark": b'\xef\xbb\xbf{"query":"{a}"}',
    "UTF-16": '{"query":"{a}"}'.encode("utf-16"),
    "40 nested lists": b'{"query":"{a}","variables":{"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    "query a number": b'{"query":5}',
    "query null": b'{"query":null}',
    "query empty": b'{"query":" "}',
    "query a list": b'{"query":["{a}"]}',
    "variables a list": b'{"query":"{a}","variables":[]}',
    "variables a text": b'{"query":"{a}","variables":"x"}',
    "operationName a number": b'{"query":"{a}","operationName":5}',
    "no such operation": b'{"query":"query A {__typename}","operationName":"B"}',
    "no operation": b'{"query":"fragment a on Query { __typename }"}',
    "a type": b'{"query":"type A { a: Int }"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_bad_request(ada: Asker, name: str) -> None:
    response = send(ada, BODIES[name])
    assert (response.status_code, code_of(response)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/json; charset=latin-1",
        "application/jsonx",
    ],
)
def test_only_json_is_taken(ada: Asker, content_type: str) -> None:
    """Also what keeps a foreign page from posting through somebody's browser unasked."""
    response = send(ada, json.dumps({"query": QUERY}).encode(), {"content-type": content_type})
    assert (response.status_code, code_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
def test_json_is_taken_however_it_is_spelled(ada: Asker, content_type: str) -> None:
    response = send(ada, json.dumps({"query": QUERY}).encode(), {"content-type": content_type})
    assert response.json() == {"data": {"sharedSyncLog": {"limits": {"entryBytes": 512 * 1024}}}}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(ada: Asker, method: str) -> None:
    response = ada.client.request(method, "/graphql", json={"query": QUERY})
    assert (response.status_code, code_of(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, POST"


def test_a_query_by_get_is_not_run(ada: Asker) -> None:
    response = ada.client.get("/graphql", params={"query": QUERY})
    assert response.headers["content-type"].startswith("text/html")
    assert "entryBytes" not in response.text


@pytest.fixture
def small(serve: Callable[..., Asker]) -> Asker:
    return serve(limits=Limits(request_bytes=STRANGER_BYTES_MAX * 2))


def padded(size: int) -> bytes:
    body = json.dumps({"query": QUERY}).encode()
    return body + b" " * (size - len(body))


def chunks(body: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(small: Asker, chunked: bool) -> None:
    limit = STRANGER_BYTES_MAX * 2
    for size, status in ((limit, 200), (limit + 1, 413)):
        body = chunks(padded(size)) if chunked else padded(size)
        assert send(small, body).status_code == status


def test_the_refusal_tells_the_limit(small: Asker) -> None:
    response = send(small, padded(STRANGER_BYTES_MAX * 2 + 1))
    extensions = response.json()["errors"][0]["extensions"]
    assert extensions == {"code": "BODY_TOO_LARGE", "requestBytes": STRANGER_BYTES_MAX * 2}


def guarded(
    chunks: Iterator[bytes], *headers: tuple[bytes, bytes], body_bytes_max: int = 64 * 1024
) -> tuple[int, int]:
    """Send chunks to a guard with this limit; return its status and how many it took."""
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the guard let it through")

    async def admit(scope: Scope) -> None:
        pass

    guard = Guard(
        never,
        page=never,
        documents=KnownDocuments([]),
        body_bytes_max=body_bytes_max,
        admit=admit,
        answers=Answers(None),
    )
    all_headers = [(b"content-type", b"application/json"), *headers]
    scope = {"type": "http", "method": "POST", "headers": all_headers, RECORD_KEY: Record("1")}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], taken


def test_a_body_is_not_read_beyond_the_limit() -> None:
    """Whatever length it declares: a sender without an end is left after the limit."""
    endless = itertools.repeat(b" " * 1024)
    assert guarded(endless, (b"content-length", b"10")) == (413, 65)


@pytest.mark.parametrize(
    ("declared", "taken"),
    [(b"65536", 65), (b"65537", 0), (b"9" * 5000, 0), (b"\xb2", 65), (b"-1", 65), (b"x", 65)],
)
def test_a_length_that_is_none_is_no_fault(declared: bytes, taken: int) -> None:
    endless = itertools.repeat(b" " * 1024)
    assert guarded(endless, (b"content-length", declared)) == (413, taken)


def test_a_compressed_body_is_not_unfolded_beyond_the_limit() -> None:
    """Kilobytes of this come to 64 megabytes, and nobody makes more than a little of them."""
    bomb = zlib.compressobj(9, wbits=31)
    folded = b"".join(bomb.compress(b" " * 2**20) for _ in range(64)) + bomb.flush()
    tracemalloc.start()
    assert guarded(iter([folded]), (b"content-encoding", b"gzip"))[0] == 413
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_body_is_not_unfolded_before_all_of_it_is_there() -> None:
    """Else whoever keeps back the last byte keeps a thousand times what he sent."""
    folded = gzip.compress(b" " * 15 * 2**20)
    held: list[int] = []

    def chunks() -> Iterator[bytes]:
        yield folded[:-1]
        held.append(tracemalloc.get_traced_memory()[0])
        yield folded[-1:]

    tracemalloc.start()
    status, _ = guarded(chunks(), (b"content-encoding", b"gzip"), body_bytes_max=16 * 2**20)
    tracemalloc.stop()
    assert (status, held[0] < 2**20) == (400, True)  # all of it are spaces


@pytest.mark.parametrize("size", range(3 * PART_BYTES - 300, 3 * PART_BYTES + 600, 10))
def test_all_of_a_body_is_unfolded(size: int) -> None:
    """Also where the last part is full, and where something is left for another one."""
    body = bytes(size)
    gunzip = Gunzip()
    assert b"".join(gunzip.parts(gzip.compress(body, 9))) == body
    gunzip.finish()


def test_a_compressed_body_that_unfolds_to_nothing_ends_too() -> None:
    empty = zlib.compressobj(9, wbits=31)
    head = empty.compress(b"") + empty.flush(zlib.Z_SYNC_FLUSH)
    block = empty.compress(b"") + empty.flush(zlib.Z_FULL_FLUSH)
    endless = itertools.chain([head], itertools.repeat(block * 200))
    status, taken = guarded(endless, (b"content-encoding", b"gzip"))
    assert status == 413
    assert taken < 100


def folded(document: str = QUERY) -> bytes:
    return gzip.compress(json.dumps({"query": document}).encode())


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip"])
def test_a_body_in_gzip_is_taken(ada: Asker, encoding: str) -> None:
    for body in (folded(), chunks(folded(), 3)):
        response = send(ada, body, {"content-encoding": encoding})
        assert response.json()["data"]["sharedSyncLog"]["limits"] == {"entryBytes": 512 * 1024}


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "gzip, identity", ""])
def test_other_encodings_are_refused_by_name(ada: Asker, encoding: str) -> None:
    response = send(ada, folded(), {"content-encoding": encoding})
    assert (response.status_code, code_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        folded()[:-1],
        folded()[:20],
        folded() + b"x",
        folded() + folded(),
        gzip.compress(folded()),
        zlib.compress(json.dumps({"query": QUERY}).encode()),
        folded()[:-8] + b"\0" * 8,
    ],
    ids=itertools.count(),
)
def test_what_is_not_one_gzip_stream_is_a_bad_request(ada: Asker, body: bytes) -> None:
    response = send(ada, body, {"content-encoding": "gzip"})
    assert (response.status_code, code_of(response)) == (400, "BAD_REQUEST")


def test_a_large_push_in_gzip(ada: Asker) -> None:
    """Parts of any size come together again, also where output waits that no input is left for."""
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    packed = [[1024 + n, 0, f"{n}" * 300] for n in range(2000)]
    variables = {"user": "ada", "device": device, "packed": packed}
    write = """mutation($user: ID!, $device: ID!, $packed: PackedEntries!) { sharedSyncLog {
        writeEntries(userId: $user, deviceId: $device, packed: $packed) { accepted } } }"""
    body = gzip.compress(json.dumps({"query": write, "variables": variables}).encode())
    response = send(ada, body, {"content-encoding": "gzip"})
    assert response.json()["data"]["sharedSyncLog"]["writeEntries"] == {"accepted": 2000}


# Answers


LONG = "{ __schema { types { name description fields { name description } } } }"


def test_a_long_answer_comes_in_gzip_to_who_takes_it(ada: Asker) -> None:
    body = json.dumps({"query": LONG}).encode()
    plain = send(ada, body, {"accept-encoding": "identity"})
    squeezed = send(ada, body, {"accept-encoding": "gzip, deflate"})
    assert "content-encoding" not in plain.headers
    assert squeezed.headers["content-encoding"] == "gzip"
    assert squeezed.headers["vary"] == "accept-encoding"
    assert squeezed.json() == plain.json()
    assert int(squeezed.headers["content-length"]) < len(plain.content) / 3


def test_an_answer_of_a_megabyte_too(ada: Asker) -> None:
    """It is folded in a thread, so that nobody else waits."""
    one, two = (ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"] for _ in range(2))
    packed = [[1024, 0, "x" * 400_000]]
    ada.ask(WRITE, {"user": "ada", "device": one, "packed": packed})
    read = """query($d: ID!) {
        sharedSyncLog { getUnsyncedEntries(userId: "ada", deviceId: $d) { packed } } }"""
    body = json.dumps({"query": read, "variables": {"d": two}}).encode()
    response = send(ada, body, {"accept-encoding": "gzip"})
    assert int(response.headers["content-length"]) < 10_000
    update = response.json()["data"]["sharedSyncLog"]["getUnsyncedEntries"]
    assert update["packed"]["entries"] == [[0, *packed[0]]]


def test_a_short_answer_comes_as_it_is(ada: Asker) -> None:
    response = send(ada, json.dumps({"query": QUERY}).encode(), {"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers


# Who is listened to


@pytest.mark.parametrize("chunked", [False, True])
def test_who_shows_no_token_is_not_listened_to_for_long(small: Asker, chunked: bool) -> None:
    stranger = Asker(small.client)
    for size, status in ((STRANGER_BYTES_MAX, 200), (STRANGER_BYTES_MAX + 1, 401)):
        body = chunks(padded(size)) if chunked else padded(size)
        assert send(stranger, body).status_code == status


@pytest.mark.parametrize("chunked", [False, True])
def test_nor_is_who_shows_one_that_is_not_valid(small: Asker, chunked: bool) -> None:
    stranger = Asker(small.client, "slog_nobody")
    for size, status in ((STRANGER_BYTES_MAX, 200), (STRANGER_BYTES_MAX + 1, 401)):
        body = chunks(padded(size)) if chunked else padded(size)
        assert send(stranger, body).status_code == status
    squeezed = gzip.compress(padded(STRANGER_BYTES_MAX + 1))
    assert send(stranger, squeezed, {"content-encoding": "gzip"}).status_code == 401
    assert send(small, squeezed, {"content-encoding": "gzip"}).status_code == 200


def test_a_limit_below_what_strangers_may_send_holds(serve: Callable[..., Asker]) -> None:
    asker = serve(limits=Limits(request_bytes=1000))
    assert send(asker, padded(1000)).status_code == 200
    assert send(asker, padded(1001)).status_code == 413


def test_a_document_over_the_limit_is_refused(ada: Asker) -> None:
    body = json.dumps({"query": QUERY + " " * 32 * 1024}).encode()
    response = send(ada, body)
    assert (response.status_code, code_of(response)) == (413, "BODY_TOO_LARGE")


def test_a_push_of_the_largest_batch_fits_the_body(ada: Asker) -> None:
    """The limits must agree: quotes double in JSON inside JSON."""
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    entry = '"' * 400_000
    packed = [[1024 + n, 0, entry] for n in range(20)]
    receipt = ada.ask(WRITE, {"user": "ada", "device": device, "packed": packed})["writeEntries"]
    assert receipt["accepted"] == 20


def test_a_push_of_the_most_entries_has_few_enough_values(ada: Asker) -> None:
    """What stands in texts does not count: commas do not, nor quotes that end no text."""
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    data = [",,,,,,,,,,", '",",",\\",', "\\", "\\\\", "[,]"]
    packed = [[1024 + n, 0, data[n % len(data)]] for n in range(Limits().batch_entries)]
    document = """mutation ($device: ID!, $packed: PackedEntries) {
        sharedSyncLog {
            writeEntries(userId: "ada", deviceId: $device, packed: $packed, batchSize: 1) {accepted}
        }
    }"""
    receipt = ada.ask(document, {"device": device, "packed": packed})["writeEntries"]
    assert receipt["accepted"] == len(packed)


@pytest.mark.parametrize("value", ["0", "[]", "{}", '""', '{"":0}', '"\\\\"', '"\\""'])
def test_a_body_of_many_small_values_is_refused(ada: Asker, value: str) -> None:
    """Each costs up to 70 bytes, so that a body within the limit would take half a gigabyte."""
    many = ",".join([value] * (VALUES_MAX + 2))
    body = json.dumps({"query": QUERY, "variables": {"x": 0}}).replace("0", f"[{many}]")
    response = send(ada, body.encode())
    assert (response.status_code, code_of(response)) == (413, "BODY_TOO_LARGE")


VARIABLES: list[dict[str, Any]] = [
    {"user": "ada", "device": {"a": 1}},
    {"user": ["ada"], "device": "x"},
    {"user": "ada"},
    {},
    {"user": "ada", "device": "x", "after": 5},
    {"user": "ada", "device": "x", "after": ["x"]},
    {"user": "ada", "device": "x", "batchSize": 2**31},
    {"user": "ada", "device": "x", "batchSize": 1.5},
    {"user": "ada", "device": "x", "batchSize": 1e300},
    {"user": "ada", "device": "x", "batchSize": None},
    {"user": None, "device": "x"},
]


@pytest.mark.parametrize("variables", VARIABLES)
def test_variables_that_do_not_fit_are_invalid_arguments(
    ada: Asker, variables: dict[str, Any]
) -> None:
    assert ada.code(READ, variables) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("packed", [5, "x", {}, {"entries": []}, True, 1.5])
def test_packed_that_is_no_list_is_an_invalid_argument(ada: Asker, packed: object) -> None:
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    variables = {"user": "ada", "device": device, "packed": packed}
    assert ada.code(WRITE, variables) == "INVALID_ARGUMENT"


def test_either_packed_or_entries(ada: Asker) -> None:
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    both = {"user": "ada", "device": device, "packed": [], "entries": []}
    assert ada.code(WRITE, both) == "INVALID_ARGUMENT"
    assert ada.code(WRITE, {"user": "ada", "device": device}) == "INVALID_ARGUMENT"
    for one in ("packed", "entries"):
        answer = ada.ask(WRITE, {"user": "ada", "device": device, one: []})
        assert answer["writeEntries"]["accepted"] == 0
