"""What travels over HTTP: in gzip where the service takes it and it pays, as it is elsewhere."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sharedlog.errors import (
    ConfigurationError,
    DeviceUnknown,
    MissingToken,
    QuotaExceeded,
    RateLimited,
    ServiceFailed,
    SharedLogError,
    Unauthorized,
)
from sharedlog.remote.transports import (
    COMPRESS_FROM_BYTES,
    RETRY_AFTER_S,
    HttpTransport,
    error_from,
)

DOCUMENT = "query Q($a: String) { a }"
LONG = {"a": "x" * COMPRESS_FROM_BYTES}


class Service(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, and notes what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says_gzip = True
        self.status = 200
        self.refusal = b"no"
        self.retry_after: str | None = None
        self.came: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/graphql"


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.came.append((headers, self.rfile.read(int(headers["content-length"]))))
        body = (
            gzip.compress(b'{"data": {"a": 1}}')
            if self.server.status == 200
            else self.server.refusal
        )
        self.send_response(self.server.status)
        if self.server.says_gzip:
            self.send_header("Accept-Encoding", "gzip")
        if self.server.status == 200:
            self.send_header("Content-Encoding", "gzip")
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def encodings(service: Service) -> list[str | None]:
    return [headers.get("content-encoding") for headers, _ in service.came]


def test_long_bodies_are_folded_once_the_service_said_that_it_takes_them(service: Service) -> None:
    transport = HttpTransport(service.url, compress=True)
    for variables in (LONG, LONG, {"a": "x"}, LONG):
        assert transport.execute(DOCUMENT, variables) == {"a": 1}
    transport.close()
    transport.execute(DOCUMENT, LONG)
    transport.close()
    assert encodings(service) == [None, "gzip", None, "gzip", "gzip"]
    folded = service.came[1][1]
    assert json.loads(gzip.decompress(folded)) == {"query": DOCUMENT, "variables": LONG}
    assert len(folded) < COMPRESS_FROM_BYTES / 4
    assert {headers["accept-encoding"] for headers, _ in service.came} == {"gzip"}


def test_a_service_that_says_nothing_gets_bodies_as_they_are(service: Service) -> None:
    service.says_gzip = False
    transport = HttpTransport(service.url, compress=True)
    for _ in range(3):
        transport.execute(DOCUMENT, LONG)
    transport.close()
    assert encodings(service) == [None, None, None]


def test_what_a_refusal_met_is_not_sent_that_way_again(service: Service) -> None:
    """Something on the way may not take what the service does."""
    transport = HttpTransport(service.url, compress=True)
    transport.execute(DOCUMENT, LONG)
    service.status, service.says_gzip = 415, False
    with pytest.raises(ServiceFailed):
        transport.execute(DOCUMENT, LONG)
    service.status = 200
    transport.execute(DOCUMENT, LONG)
    transport.close()
    assert encodings(service) == [None, "gzip", None]


def test_a_refused_token_is_told_as_the_service_says_it_or_whoever_stands_before(
    service: Service,
) -> None:
    error = {"message": "It has expired.", "extensions": {"code": "UNAUTHENTICATED"}}
    transport = HttpTransport(service.url)
    service.status = 401
    for service.refusal in (json.dumps({"data": None, "errors": [error]}).encode(), b"no"):
        with pytest.raises(Unauthorized) as caught:
            transport.execute(DOCUMENT, {})
        expired = "It has expired." in str(caught.value)
        assert expired == (service.refusal != b"no")
        assert expired == ("sharedlog token create" in str(caught.value))
    transport.close()


def test_on_this_machine_nothing_is_folded_unless_asked_for(service: Service) -> None:
    transport = HttpTransport(service.url)
    for _ in range(2):
        transport.execute(DOCUMENT, LONG)
    transport.close()
    assert encodings(service) == [None, None]
    assert {headers["accept-encoding"] for headers, _ in service.came} == {"identity"}


@pytest.mark.parametrize(
    ("url", "folds"),
    [
        ("http://127.0.0.1:8000/graphql", False),
        ("http://localhost/graphql", False),
        ("http://[::1]:8000/graphql", False),
        ("http://192.168.1.7:8000/graphql", True),
        ("https://log.example/graphql", True),
        ("https://localhost.example/graphql", True),
    ],
)
def test_elsewhere_it_is(url: str, folds: bool) -> None:
    assert HttpTransport(url)._compress is folds
    assert HttpTransport(url, compress=not folds)._compress is not folds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", 0), (None, RETRY_AFTER_S), ("Fri, 31 Dec 2027 23:59:59 GMT", RETRY_AFTER_S)],
)
def test_what_stands_before_the_service_may_ask_to_wait_too(
    service: Service, header: str | None, seconds: float
) -> None:
    service.status, service.retry_after = 429, header
    transport = HttpTransport(service.url)
    with pytest.raises(RateLimited) as error:
        transport.execute(DOCUMENT, {})
    transport.close()
    assert (error.value.retry_after, error.value.retryable) == (seconds, True)


@pytest.mark.parametrize("code", ["RATE_LIMITED", "ANSWERS_WAITING"])
@pytest.mark.parametrize(
    ("details", "seconds"), [({"retryAfterMs": 1_500}, 1.5), ({}, RETRY_AFTER_S)]
)
def test_the_service_says_how_long(code: str, details: dict[str, Any], seconds: float) -> None:
    extensions = {"code": code, **details}
    error = error_from([{"message": "Too much.", "extensions": extensions}])
    assert isinstance(error, RateLimited)
    assert (error.message, error.retry_after) == ("Too much.", seconds)


def test_a_full_log_is_an_error_of_its_own() -> None:
    error = error_from([{"message": "Full.", "extensions": {"code": "QUOTA_EXCEEDED"}}])
    assert isinstance(error, QuotaExceeded)


def test_a_device_that_the_log_does_not_know_is_told_what_it_may_be() -> None:
    error = error_from([{"message": "No.", "extensions": {"code": "DEVICE_UNKNOWN"}}])
    assert isinstance(error, DeviceUnknown)
    assert "another user's" in (error.hint or "")


def test_a_token_may_be_told_anew_with_each_request(service: Service) -> None:
    tokens = iter(["slog_a", " a.b.c\n", "no token"])
    transport = HttpTransport(service.url, lambda: next(tokens))
    for _ in range(2):
        transport.execute(DOCUMENT, {})
    with pytest.raises(ConfigurationError) as error:
        transport.execute(DOCUMENT, {})
    assert "no token" not in str(error.value)
    transport.close()
    told = [headers["authorization"] for headers, _ in service.came]
    assert told == ["Bearer slog_a", "Bearer a.b.c"]


@pytest.mark.parametrize("none", [None, "", " \n"])
def test_a_function_that_has_no_token_is_told_of_as_such(service: Service, none: Any) -> None:
    """Somebody has logged out: to ask again is no use before somebody logs in."""
    transport = HttpTransport(service.url, lambda: none)
    with pytest.raises(MissingToken) as missing:
        transport.execute(DOCUMENT, {})
    assert not missing.value.retryable
    assert "Log in" in (missing.value.hint or "")
    with pytest.raises(MissingToken):
        _ = transport.authorization
    transport.close()
    assert service.came == []


@pytest.mark.parametrize("odd", [b"slog_secret", 5])
def test_a_token_is_a_text(service: Service, odd: Any) -> None:
    transport = HttpTransport(service.url, lambda: odd)
    for attempt in (
        lambda: transport.execute(DOCUMENT, {}),
        lambda: HttpTransport(service.url, odd),
    ):
        with pytest.raises(ConfigurationError, match="must be a text") as refused:
            attempt()
        assert "secret" not in str(refused.value)
    transport.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (b"http://localhost/graphql", "is not an http"),
        ("localhost:8000/graphql", "is not an http"),
        ("http:///graphql", "has no host"),
        ("http://:8000/graphql", "has no host"),
        ("http://no host/graphql", "has no host"),
        ("http://[::1", "has a host that is none"),
        ("http://a..b/graphql", "has a host that is none"),
        ("http://localhost:eighty/graphql", "has a port that is no number"),
        ("http://localhost:80000/graphql", "has a port that is no number"),
        ("http://localhost/graphql\n", "has characters that no address has"),
        ("http://localhost/\udcff", "has characters that no address has"),
        ("http://ada:pass/word@localhost/graphql", "The address has a port that is no number"),
        ("ftp://ada:password@localhost/graphql", "The address is not an http"),
    ],
)
def test_what_can_be_no_address_is_refused_at_once(url: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        HttpTransport(url)
    assert "/graphql" in (refused.value.hint or "")
    assert "word" not in str(refused.value)


def test_a_password_in_an_address_is_not_told(service: Service) -> None:
    """What the library says of trouble ends in logs."""
    service.status = 400
    for url in (service.url, "http://127.0.0.1:1/graphql"):
        transport = HttpTransport(url.replace("//", "//ada:secret@"))
        with pytest.raises(SharedLogError) as trouble:
            transport.execute(DOCUMENT, {})
        transport.close()
        assert "…@127.0.0.1" in str(trouble.value)
        assert "secret" not in str(trouble.value)


def test_pokes_are_asked_for_with_the_token_of_the_moment() -> None:
    tokens = iter(["slog_a", "slog_b"])
    transport = HttpTransport("https://log.example/graphql", lambda: next(tokens))
    assert [transport.authorization for _ in range(2)] == ["Bearer slog_a", "Bearer slog_b"]
    assert HttpTransport("https://log.example/graphql", "slog_c").authorization == "Bearer slog_c"
    assert HttpTransport("https://log.example/graphql").authorization is None
