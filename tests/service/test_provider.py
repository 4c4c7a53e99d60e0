"""JWTs of an identity provider: what a good one opens, and that each forged one opens nothing."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.testclient import TestClient

from sharedlog_service.access.auth import issue_token
from sharedlog_service.access.jwks import AGAIN_MS, BYTES_MAX, FRESH_MS, KEPT_MS, read_place
from sharedlog_service.access.provider import Provider
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.settings import Issuer, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.service.support import NOON_MS, ManualClock

ISSUER, AUDIENCE = "https://login.example/realm", "sharedlog"
NOW = NOON_MS // 1000
STATS = "query($user: ID!) {sharedSyncLog {stats(userId: $user) {entries}}}"
CREATE = 'mutation($user: ID!) {sharedSyncLog {createDeviceId(userId: $user, deviceId: "d")}}'
REVOKE = 'mutation($user: ID!) {sharedSyncLog {revokeDevice(userId: $user, deviceId: "d") {id}}}'


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def public_jwk(key: Any, **more: Any) -> dict[str, Any]:
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    (algorithm,) = (a for kind, a in kinds.items() if isinstance(key, kind))
    return {**json.loads(algorithm.to_jwk(key.public_key())), **more}


@dataclass
class Minted:
    """A provider's keys, and ones that are not its."""

    rsa: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    old: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ps: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ec: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ed: Any = field(default_factory=ed25519.Ed25519PrivateKey.generate)
    sealing: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    weak: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 1024))
    stranger: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    secret = b"a secret that the provider shares with somebody"

    def jwks(self) -> dict[str, Any]:
        keys = [
            public_jwk(self.rsa, kid="rsa"),
            public_jwk(self.old, kid="old"),
            public_jwk(self.ps, kid="ps", alg="PS256", use="sig"),
            public_jwk(self.ec, kid="ec"),
            public_jwk(self.ed, kid="ed"),
            public_jwk(self.sealing, kid="sealing", use="enc"),
            public_jwk(self.weak, kid="weak"),
            {"kty": "oct", "kid": "secret", "k": b64(self.secret), "alg": "HS256"},
            {"kty": "RSA", "kid": "broken", "n": "!", "e": 7},
            {"kid": "nothing"},
            "no key",
        ]
        return {"keys": keys}


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims, with some changed; None leaves one out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": NOW + 600,
        "iat": NOW,
        "scope": "openid log:read log:append",
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def sign(key: Any, algorithm: str = "RS256", kid: str | None = "rsa", **changed: Any) -> str:
    headers = {"kid": kid} if kid is not None else {}
    return jwt.encode(claims(**changed), key, algorithm, headers=headers)


def raw(header: object, body: object, signature: bytes = b"") -> str:
    parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, body)]
    return ".".join([b64(parts[0]), b64(parts[1]), b64(signature)])


def by_hand(minted: Minted, header: object, body: object = None, key: Any = None) -> str:
    """A token with a right signature, whatever it says."""
    unsigned = raw(header, claims() if body is None else body).rpartition(".")[0]
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return f"{unsigned}.{b64(algorithm.sign(unsigned.encode(), key or minted.rsa))}"


def shared_secret(secret: bytes, header: dict[str, Any]) -> str:
    unsigned = raw(header, claims()).rpartition(".")[0]
    return f"{unsigned}.{b64(hmac.digest(secret, unsigned.encode(), sha256))}"


def pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def spki(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def tampered(token: str) -> str:
    head, _, signature = token.split(".")
    return ".".join([head, b64(json.dumps(claims(sub="bob")).encode()), signature])


RS = {"alg": "RS256", "kid": "rsa", "typ": "JWT"}

Forger = Callable[[Minted], str]

FORGED: dict[str, Forger] = {
    # The signature, and by whom.
    "nobody signed": lambda m: raw({"alg": "none", "kid": "rsa"}, claims()),
    "nobody signed, in capitals": lambda m: raw({"alg": "NONE", "kid": "rsa"}, claims()),
    "nobody signed, no key": lambda m: raw({"alg": "none"}, claims()),
    "no algorithm": lambda m: raw({"kid": "rsa"}, claims(), b"x"),
    "an algorithm that is no text": lambda m: raw({"alg": ["RS256"], "kid": "rsa"}, claims()),
    "the signature left out": lambda m: sign(m.rsa).rpartition(".")[0] + ".",
    "the signature cut": lambda m: sign(m.rsa)[:-20],
    "another's signature": lambda m: tampered(sign(m.rsa)),
    "a stranger's key": lambda m: sign(m.stranger),
    "a stranger's key under another kind's name": lambda m: sign(m.stranger, kid="ec"),
    "the public key as a secret, PEM": lambda m: shared_secret(
        pem(m.rsa), {"alg": "HS256", "kid": "rsa"}
    ),
    "the public key as a secret, DER": lambda m: shared_secret(
        spki(m.rsa), {"alg": "HS256", "kid": "rsa"}
    ),
    "a shared secret of the set": lambda m: shared_secret(
        m.secret, {"alg": "HS256", "kid": "secret"}
    ),
    "an empty secret": lambda m: shared_secret(b"", {"alg": "HS256", "kid": "rsa"}),
    "a weak key of the set": lambda m: by_hand(m, {**RS, "kid": "weak"}, key=m.weak),
    "a key for sealing": lambda m: sign(m.sealing, kid="sealing"),
    "another algorithm than the key's": lambda m: sign(m.ps, "RS256", kid="ps"),
    "an elliptic signature under an RSA name": lambda m: sign(m.ec, "ES256", kid="rsa"),
    "an algorithm nobody uses": lambda m: by_hand(m, {**RS, "alg": "RS1"}),
    "a signature of zeros": lambda m: raw({"alg": "ES256", "kid": "ec"}, claims(), b"\0" * 64),
    # The header, and what it would have us believe.
    "an unknown key": lambda m: sign(m.rsa, kid="another"),
    "no name of a key among several": lambda m: sign(m.rsa, kid=None),
    "a key's name that is a number": lambda m: by_hand(m, {**RS, "kid": 5}),
    "a key's name that is a path": lambda m: sign(m.stranger, kid="../../dev/null"),
    "a key of its own": lambda m: jwt.encode(
        claims(), m.stranger, "RS256", headers={"jwk": public_jwk(m.stranger), "kid": "own"}
    ),
    "a key of its own under a known name": lambda m: jwt.encode(
        claims(), m.stranger, "RS256", headers={"jwk": public_jwk(m.stranger), "kid": "rsa"}
    ),
    "keys at an address of its own": lambda m: jwt.encode(
        claims(), m.stranger, "RS256", headers={"jku": "https://evil.example/jwks", "kid": "own"}
    ),
    "something critical that is unknown": lambda m: by_hand(m, {**RS, "crit": ["x"], "x": 1}),
    "something critical that is known elsewhere": lambda m: by_hand(
        m, {**RS, "crit": ["b64"], "b64": True}
    ),
    "nothing critical": lambda m: by_hand(m, {**RS, "crit": []}),
    "a body that is not encoded": lambda m: by_hand(m, {**RS, "b64": False}),
    "a logout": lambda m: by_hand(m, {**RS, "typ": "logout+jwt"}),
    "a kind that is no text": lambda m: by_hand(m, {**RS, "typ": 7}),
    "a header that is a list": lambda m: by_hand(m, [RS]),
    "a header that is no JSON": lambda m: by_hand(m, b"{alg: RS256}"),
    "a header that is deep": lambda m: by_hand(m, b"[" * 4_000 + b"]" * 4_000),
    "a header with a deep member": lambda m: raw(
        b'{"alg": "RS256", "kid": "rsa", "x": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", claims(), b"x"
    ),
    # The claims.
    "claims that are a list": lambda m: by_hand(m, RS, [claims()]),
    "claims that are no JSON": lambda m: by_hand(m, RS, b"\xff"),
    "claims that are deep": lambda m: by_hand(m, RS, b'{"a":' * 900 + b"1" + b"}" * 900),
    "another issuer": lambda m: sign(m.rsa, iss="https://evil.example"),
    "an issuer that begins alike": lambda m: sign(m.rsa, iss=ISSUER + "/"),
    "no issuer": lambda m: sign(m.rsa, iss=None),
    "an issuer in a list": lambda m: by_hand(m, RS, claims(iss=[ISSUER])),
    "another audience": lambda m: sign(m.rsa, aud="another"),
    "an audience that begins alike": lambda m: sign(m.rsa, aud=AUDIENCE + "2"),
    "no audience": lambda m: sign(m.rsa, aud=None),
    "an empty audience": lambda m: sign(m.rsa, aud=[]),
    "an audience that is a number": lambda m: by_hand(m, RS, claims(aud=5)),
    "expired": lambda m: sign(m.rsa, exp=NOW - 61),
    "no end": lambda m: sign(m.rsa, exp=None),
    "an end that is a text": lambda m: by_hand(m, RS, claims(exp=str(NOW + 600))),
    "an end that is true": lambda m: by_hand(m, RS, claims(exp=True)),
    "an end that never comes": lambda m: by_hand(
        m, RS, json.dumps(claims()).replace(str(NOW + 600), "Infinity").encode()
    ),
    "an end that no clock shows": lambda m: by_hand(m, RS, claims(exp=10**4_000)),
    "not yet": lambda m: sign(m.rsa, nbf=NOW + 61),
    "a beginning that is a text": lambda m: by_hand(m, RS, claims(nbf="soon")),
    "made tomorrow": lambda m: sign(m.rsa, iat=NOW + 86_400),
    "no user": lambda m: sign(m.rsa, sub=None),
    "an empty user": lambda m: sign(m.rsa, sub=""),
    "a user that is a number": lambda m: by_hand(m, RS, claims(sub=7)),
    "a user that is too long": lambda m: sign(m.rsa, sub="x" * 201),
    "a user with a NUL": lambda m: sign(m.rsa, sub="ada\0"),
    "a user with half a character": lambda m: sign(m.rsa, sub="ada\ud800"),
    # The form.
    "two parts": lambda m: sign(m.rsa).rpartition(".")[0],
    "four parts": lambda m: sign(m.rsa) + ".x",
    "five parts": lambda m: sign(m.rsa) + ".x.y",
    "dots": lambda m: "..",
    "very long": lambda m: sign(m.rsa, padding="x" * 9_000),
    "white space inside": lambda m: sign(m.rsa).replace(".", ". ", 1),
    "garbage in the signature": lambda m: sign(m.rsa) + "!!!!",
    "a word": lambda m: "garbage",
}


# A provider, by real HTTP


class JwksServer(ThreadingHTTPServer):
    """Publishes a set of keys, in ways that a test decides."""

    daemon_threads = True

    def __init__(self, jwks: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), JwksHandler)
        self.body = json.dumps(jwks).encode()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.one_by_one = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/jwks"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who does not wait for the keys hangs up."""

    def redirect(self) -> None:
        self.status, self.headers = 302, {"Location": f"{self.url}?again"}


class JwksHandler(BaseHTTPRequestHandler):
    server: JwksServer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        for byte in self.server.body[: self.server.one_by_one]:
            self.wfile.write(bytes([byte]))
            self.server.ended.wait(0.01)
        self.wfile.write(self.server.body[self.server.one_by_one :])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def minted() -> Minted:
    return Minted()


@pytest.fixture
def server(minted: Minted) -> Iterator[JwksServer]:
    with JwksServer(minted.jwks()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def steady() -> ManualClock:
    return ManualClock(0)


Ask = Callable[..., Any]


@pytest.fixture
def serving(
    tmp_path: Path, clock: ManualClock, steady: ManualClock
) -> Iterator[Callable[..., Ask]]:
    """Starts a service that trusts an issuer, and returns who asks it with a token."""
    clients: list[TestClient] = []

    def starting(jwks: str, **options: Any) -> Ask:
        issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, **options)
        settings = Settings(db=tmp_path / "log.db", now=clock, steady=steady, issuer=issuer)
        client = TestClient(create_app(settings), base_url="http://127.0.0.1:8000")
        clients.append(client)
        client.__enter__()

        def asking(token: str, document: str = CREATE, user: str = "ada", **more: Any) -> Any:
            body = {"query": document, "variables": {"user": user, **more}}
            headers = {"authorization": f"Bearer {token}"}
            return client.post("/graphql", json=body, headers=headers)

        return asking

    yield starting
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def ask(serving: Callable[..., Ask], server: JwksServer) -> Ask:
    return serving(server.url)


def code_of(response: Any) -> str | None:
    errors = response.json().get("errors")
    return None if errors is None else str(errors[0]["extensions"]["code"])


GOOD: dict[str, Forger] = {
    "RSA": lambda m: sign(m.rsa),
    "RSA, with another hash": lambda m: sign(m.rsa, "RS512"),
    "RSA-PSS": lambda m: sign(m.ps, "PS256", kid="ps"),
    "an elliptic curve": lambda m: sign(m.ec, "ES256", kid="ec"),
    "Ed25519": lambda m: sign(m.ed, "EdDSA", kid="ed"),
    "the only key of its kind needs no name": lambda m: sign(m.ec, "ES256", kid=None),
    "an access token": lambda m: by_hand(m, {**RS, "typ": "at+jwt"}),
    "no kind": lambda m: by_hand(m, {"alg": "RS256", "kid": "rsa"}),
    "several audiences": lambda m: sign(m.rsa, aud=["another", AUDIENCE]),
    "just expired": lambda m: sign(m.rsa, exp=NOW - 59),
    "almost yet": lambda m: sign(m.rsa, nbf=NOW + 60, iat=NOW + 60),
    "a time in fractions": lambda m: by_hand(m, RS, claims(exp=NOW + 0.5)),
    "scopes in a list": lambda m: sign(m.rsa, scope=["log:append", "openid", 5]),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_opens_the_log_of_its_user(ask: Ask, minted: Minted, name: str) -> None:
    """The control of the next one; and the user is made on coming."""
    assert ask(GOOD[name](minted)).json() == {"data": {"sharedSyncLog": {"createDeviceId": "d"}}}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_opens_nothing(
    ask: Ask, minted: Minted, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = FORGED[name](minted)
    with caplog.at_level(logging.DEBUG, logger="sharedlog.service"):
        response = ask(token)
    assert (response.status_code, code_of(response)) == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["data"] is None
    # Nothing is told of what it says, and nothing is logged.
    assert "ada" not in response.text
    assert caplog.records == []


def test_there_are_enough_of_them() -> None:
    assert len(FORGED) >= 40


HEADERS = [
    {"alg": "RS256", "kid": "rsa"},
    {"alg": "RS256", "kid": None, "typ": None},
    {"alg": None},
    {"alg": 1, "kid": []},
    {"alg": "ES256", "kid": "rsa", "x": {"y": [{}]}},
    {"alg": "\ud800", "kid": "\ud800"},
    [],
    "RS256",
    None,
]


def mutated(rng: random.Random, tokens: list[str]) -> str:
    """A token that was good, or three parts of some, with something done to it."""
    parts = [rng.choice(tokens).split(".")[n] for n in range(3)]
    for _ in range(rng.randint(1, 3)):
        n = rng.randrange(3)
        at = rng.randrange(len(parts[n]) + 1)
        match rng.randrange(5):
            case 0:
                parts[n] = parts[n][:at]
            case 1:
                letter = rng.choice("AZaz09-_+/=.,~ \0\x7f")
                parts[n] = parts[n][:at] + letter + parts[n][at + 1 :]
            case 2:
                parts[n] = parts[n][:at] + parts[rng.randrange(3)] + parts[n][at:]
            case 3:
                parts[n] = b64(rng.randbytes(rng.randrange(80)))
            case 4:
                parts[0] = b64(json.dumps(rng.choice(HEADERS)).encode())
    return ".".join(parts)


def test_what_chance_makes_of_good_tokens_is_refused_in_the_same_way(
    minted: Minted, tmp_path: Path, clock: ManualClock, steady: ManualClock
) -> None:
    """Never another failure, and never a grant."""
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps(minted.jwks()))
    provider = Provider(Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=str(keys)), clock, steady)
    good = [forge(minted) for forge in GOOD.values()]
    rng = random.Random(7)

    async def refused() -> int:
        count = 0
        for _ in range(20_000):
            token = mutated(rng, good)
            if token in good:
                continue
            try:
                grant = await provider.grant(token)
            except Refused as error:
                assert error.code is Code.UNAUTHENTICATED, token
                count += 1
            else:
                # Padding and bits behind the last byte are not signed, and mean nothing.
                assert decoded(token) in [decoded(other) for other in good], (token, grant)
        return count

    assert asyncio.run(refused()) > 18_000


def decoded(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part.rstrip("=") + "==") for part in token.split(".")]


def test_the_services_own_tokens_are_good_beside(
    ask: Ask, minted: Minted, tmp_path: Path, clock: ManualClock
) -> None:
    store = Store.open(tmp_path / "log.db", now=clock)
    own = issue_token(store, "ada", "own")
    store.close()
    assert code_of(ask(own)) is None
    assert code_of(ask(sign(minted.rsa), STATS)) is None
    assert code_of(ask("slog_unknown")) == "UNAUTHENTICATED"


@pytest.mark.parametrize("document", [STATS, CREATE, "{sharedSyncLog {viewer}}"])
def test_whatever_is_shown_in_place_of_a_token_is_refused_in_one_way(
    ask: Ask, minted: Minted, document: str
) -> None:
    """None at all, one that the service never made, and what is no JWT of the provider's."""
    answers = []
    for token in ("", "slog_unknown", "garbage", sign(minted.stranger)):
        response = ask(token, document)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        answer = response.json()
        for error in answer["errors"]:
            assert error.pop("message")
        answers.append(answer)
    assert answers == answers[:1] * 4
    assert [error["extensions"] for error in answers[0]["errors"]] == [{"code": "UNAUTHENTICATED"}]


def test_what_needs_no_token_is_answered_to_who_shows_a_bad_one(ask: Ask, minted: Minted) -> None:
    for token in ("slog_unknown", "garbage", sign(minted.stranger)):
        response = ask(token, "{sharedSyncLog {limits {batchEntries}}}")
        assert (response.status_code, code_of(response)) == (200, None)


def test_a_token_opens_nobody_elses_log_and_does_what_its_scopes_say(
    ask: Ask, minted: Minted
) -> None:
    token = sign(minted.rsa)
    assert code_of(ask(token)) is None
    assert code_of(ask(token, STATS)) is None
    assert code_of(ask(token, REVOKE)) == "SCOPE_MISSING"
    assert code_of(ask(token, STATS, user="bob")) == "FORBIDDEN"
    # What is a word elsewhere opens nothing here.
    admin = sign(minted.rsa, scope="admin log:read")
    assert code_of(ask(admin, STATS)) is None
    assert code_of(ask(admin, STATS, user="bob")) == "FORBIDDEN"
    assert code_of(ask(admin)) == "SCOPE_MISSING"


@pytest.mark.parametrize("scope", [None, "", "openid", [], {"log:read": True}, 5])
def test_without_a_scope_of_ours_a_token_opens_nothing(
    ask: Ask, minted: Minted, scope: Any
) -> None:
    assert code_of(ask(sign(minted.rsa, scope=scope))) == "SCOPE_MISSING"


def test_a_provider_that_knows_no_scopes_is_given_some(
    serving: Callable[..., Ask], server: JwksServer, minted: Minted
) -> None:
    ask = serving(server.url, scopes=("log:read", "log:append"))
    assert code_of(ask(sign(minted.rsa, scope=None))) is None
    assert code_of(ask(sign(minted.rsa, scope=None), REVOKE)) == "SCOPE_MISSING"
    # A claim that is there says it all.
    assert code_of(ask(sign(minted.rsa, scope="openid"))) == "SCOPE_MISSING"


def test_claims_of_other_names(
    serving: Callable[..., Ask], server: JwksServer, minted: Minted
) -> None:
    ask = serving(server.url, user_claim="email", scope_claim="permissions", device_claim="dev")
    named: dict[str, Any] = {
        "email": "ada",
        "permissions": ["log:append"],
        "sub": "x",
        "scope": None,
    }
    assert code_of(ask(sign(minted.rsa, **named, dev="d"))) is None
    assert code_of(ask(sign(minted.rsa, **named, dev="another"))) == "DEVICE_FORBIDDEN"
    for dev in (None, "", 5):
        assert code_of(ask(sign(minted.rsa, **named, dev=dev))) == "UNAUTHENTICATED"
    assert ask(sign(minted.rsa, dev="d")).status_code == 401


def test_a_token_ends_when_it_says_so(ask: Ask, minted: Minted, clock: ManualClock) -> None:
    token = sign(minted.rsa, exp=NOW + 10)
    clock.ms += 69_999
    assert code_of(ask(token)) is None
    clock.ms += 1
    assert ask(token).status_code == 401


def test_on_a_socket_it_is_the_same(
    serving: Callable[..., Ask], server: JwksServer, minted: Minted, tmp_path: Path
) -> None:
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=server.url)
    now = ManualClock()
    app = create_app(Settings(db=tmp_path / "socket.db", issuer=issuer, now=now))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:

        def open_with(token: str) -> Any:
            socket = client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"])
            socket.__enter__()
            payload = {"authorization": f"Bearer {token}"}
            socket.send_json({"type": "connection_init", "payload": payload})
            return socket

        forged = open_with(sign(minted.stranger))
        assert forged.receive()["code"] == 4403
        forged.__exit__(None, None, None)
        socket = open_with(sign(minted.rsa, exp=NOW + 10))
        assert socket.receive_json()["type"] == "connection_ack"
        ends = {0: None, 70_000: "UNAUTHENTICATED"}
        for number, (ms, code) in enumerate(ends.items()):
            now.ms = NOON_MS + ms
            query = {"query": CREATE, "variables": {"user": "ada"}}
            socket.send_json({"type": "subscribe", "id": str(number), "payload": query})
            errors = socket.receive_json()["payload"].get("errors")
            assert (errors and errors[0]["extensions"]["code"]) == code
            assert socket.receive_json()["type"] == "complete"
        socket.__exit__(None, None, None)


# The keys


def test_keys_are_kept_and_a_new_one_is_found(
    ask: Ask, minted: Minted, server: JwksServer, steady: ManualClock
) -> None:
    for _ in range(5):
        assert code_of(ask(sign(minted.rsa))) is None
    assert server.asked == 1
    steady.ms += AGAIN_MS
    server.body = json.dumps({"keys": [public_jwk(minted.stranger, kid="next")]}).encode()
    assert code_of(ask(sign(minted.stranger, kid="next"))) is None
    assert server.asked == 2
    # The old one is withdrawn.
    assert ask(sign(minted.rsa)).status_code == 401


def test_unknown_keys_make_nobody_fetch_all_the_time(
    ask: Ask, minted: Minted, server: JwksServer, steady: ManualClock
) -> None:
    for number in range(30):
        assert ask(sign(minted.rsa, kid=f"unknown-{number}")).status_code == 401
        steady.ms += AGAIN_MS // 10
    assert server.asked == 3
    assert code_of(ask(sign(minted.rsa))) is None


def test_a_key_that_is_withdrawn_ends_soon(
    ask: Ask, minted: Minted, server: JwksServer, steady: ManualClock
) -> None:
    assert code_of(ask(sign(minted.rsa))) is None
    server.body = json.dumps({"keys": [public_jwk(minted.ec, kid="ec")]}).encode()
    steady.ms += FRESH_MS + 1
    assert ask(sign(minted.rsa)).status_code == 401


AWAY: dict[str, Callable[[JwksServer], None]] = {
    "an error": lambda s: setattr(s, "status", 500),
    "a redirect": lambda s: s.redirect(),
    "too long": lambda s: setattr(s, "body", s.body + b" " * BYTES_MAX),
    "compressed": lambda s: setattr(s, "headers", {"Content-Encoding": "gzip"}),
    "no JSON": lambda s: setattr(s, "body", b"<html>"),
    "no set": lambda s: setattr(s, "body", b"[]"),
    "no keys": lambda s: setattr(s, "body", b'{"keys": []}'),
    "secrets only": lambda s: setattr(s, "body", b'{"keys": [{"kty": "oct", "k": "AA"}]}'),
}


@pytest.mark.parametrize("why", AWAY)
def test_without_keys_nobody_is_let_in_and_old_ones_do_for_a_day(
    ask: Ask, minted: Minted, server: JwksServer, steady: ManualClock, why: str
) -> None:
    body = server.body
    AWAY[why](server)
    refused = ask(sign(minted.rsa))
    assert (refused.status_code, code_of(refused)) == (503, "UNAVAILABLE")
    assert server.asked == 1  # nowhere else was looked
    steady.ms += AGAIN_MS
    server.status, server.headers, server.body = 200, {}, body
    assert code_of(ask(sign(minted.rsa))) is None
    AWAY[why](server)
    steady.ms += KEPT_MS
    assert code_of(ask(sign(minted.rsa))) is None
    steady.ms += 1
    assert ask(sign(minted.rsa)).status_code == 503


def test_keys_that_trickle_in_are_not_waited_for(server: JwksServer) -> None:
    assert asyncio.run(read_place(server.url, wait_s=30)) == server.body
    server.one_by_one = 1_000
    with pytest.raises(TimeoutError):
        asyncio.run(read_place(server.url, wait_s=0.3))
    server.ended.set()


def test_keys_in_a_file_are_read_again_too(
    serving: Callable[..., Ask], minted: Minted, tmp_path: Path, steady: ManualClock
) -> None:
    file = tmp_path / "jwks.json"
    ask = serving(str(file))
    assert ask(sign(minted.rsa)).status_code == 503
    file.write_text(json.dumps(minted.jwks()))
    steady.ms += AGAIN_MS
    assert code_of(ask(sign(minted.rsa))) is None
    file.write_text(json.dumps({"keys": [public_jwk(minted.ec, kid="ec")]}))
    steady.ms += FRESH_MS + 1
    assert ask(sign(minted.rsa)).status_code == 401


@pytest.mark.parametrize(
    "jwks",
    ["http://login.example/jwks", "ftp://127.0.0.1/jwks", "http://127.0.0.1.evil.example/", ""],
)
def test_keys_come_by_https_only(jwks: str) -> None:
    with pytest.raises(ConfigurationError):
        Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
    assert Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="https://login.example/jwks")


@pytest.mark.parametrize(
    "options", [{"leeway_s": 61}, {"leeway_s": -1}, {"audience": ""}, {"issuer": ""}]
)
def test_settings_that_would_let_too_many_in_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Issuer(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": "file.json", **options})


def test_settings_that_contradict_each_other_are_refused() -> None:
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="file.json")
    with pytest.raises(ConfigurationError):
        Settings(no_auth=True, issuer=issuer)
    with pytest.raises(ConfigurationError):
        create_app(Settings(issuer=issuer), authenticate=lambda headers: None)
    with pytest.raises(ConfigurationError):
        create_app(
            Settings(
                issuer=Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="file.json", scopes=("admin",))
            )
        )
