"""Nothing answers without the right token, and no token is left anywhere: the real service."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sharedlog_service.access.auth import (
    TOKEN_ID_CHARS,
    issue_token,
    new_token,
    revoke_token,
    rotate_token,
    token_digest,
)
from sharedlog_service.grants import EVERYTHING, USUAL, Scope
from sharedlog_service.store.store import Store
from tests.service.support import forms_of
from tests.service.test_auth import ALL, GUARDED
from tests.service.test_grants import ACTING, NEEDED
from tests.system.service_process import ServiceProcess

ISSUER, AUDIENCE = "https://login.example", "sharedlog"

DEVICE = "till-1"


class Bad(NamedTuple):
    """A token that must not do, and how that is said."""

    token: str | None
    code: str
    only: frozenset[str] = frozenset(GUARDED)
    """The fields that it must not do for."""


class World(NamedTuple):
    service: ServiceProcess
    good: str
    jwt: str
    bad: dict[str, Bad]


def jwt_of(key: Any, **changed: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": int(time.time()) + 600,
        "scope": " ".join(scope.value for scope in USUAL),
        **changed,
    }
    return jwt.encode(claims, key, "RS256", headers={"kid": "1"})


def bad_tokens(store: Store, key: Any) -> dict[str, Bad]:
    """Every way in which a token is not the right one."""
    revoked = issue_token(store, "ada", "revoked")
    revoke_token(store, token_digest(revoked)[:TOKEN_ID_CHARS])
    rotated = issue_token(store, "ada", "rotated")
    rotate_token(store, token_digest(rotated)[:TOKEN_ID_CHARS], 0)
    expired = issue_token(store, "ada", "expired", expires_at=store.now())
    other = issue_token(store, "ada", "another device's", scopes=EVERYTHING, device="another")
    stranger = rsa.generate_private_key(65537, 2048)
    unknown = "UNAUTHENTICATED"
    found = {
        "none": Bad(None, unknown),
        "garbage": Bad("garbage", unknown),
        "one that was never made": Bad(new_token(), unknown),
        "expired": Bad(expired, unknown),
        "revoked": Bad(revoked, unknown),
        "rotated": Bad(rotated, unknown),
        "another user's": Bad(issue_token(store, "bob", "b", scopes=EVERYTHING), "FORBIDDEN"),
        "another device's": Bad(other, "DEVICE_FORBIDDEN", frozenset(ACTING)),
        "a JWT that has expired": Bad(jwt_of(key, exp=int(time.time()) - 90), unknown),
        "a JWT of a stranger": Bad(jwt_of(stranger), unknown),
        "a JWT for others": Bad(jwt_of(key, aud="others"), unknown),
        "another user's JWT": Bad(jwt_of(key, sub="bob"), "FORBIDDEN"),
    }
    for scope in (Scope.READ, Scope.APPEND, Scope.DEVICES):
        fields = frozenset(name for name, needed in NEEDED.items() if needed is scope)
        lacking = issue_token(store, "ada", "lacks", scopes=EVERYTHING - {scope})
        found[f"lacks {scope.value}"] = Bad(lacking, "SCOPE_MISSING", fields)
        without = " ".join(other.value for other in USUAL - {scope})
        lacking = jwt_of(key, scope=without)
        found[f"a JWT that lacks {scope.value}"] = Bad(lacking, "SCOPE_MISSING", fields)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tokens")
    key = rsa.generate_private_key(65537, 2048)
    jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [{**jwk, "kid": "1"}]}))
    options = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-jwks", str(keys)]
    with ServiceProcess(folder / "service.db", *options) as service:
        store = Store.open(service.db)
        good = issue_token(store, "ada", "good", scopes=EVERYTHING)
        store.create_device("ada", device_id=DEVICE)
        bad = bad_tokens(store, key)
        store.close()
        yield World(service, good, jwt_of(key), bad)


def ask(client: httpx2.Client, url: str, token: str | None, field: str) -> Any:
    text, usual = ALL[field]
    variables = {**usual, **({"deviceId": DEVICE} if "deviceId" in usual else {})}
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    response = client.post(url, json={"query": text, "variables": variables}, headers=headers)
    answer = response.json()
    codes = [error["extensions"]["code"] for error in answer.get("errors", ())]
    assert response.status_code == (401 if "UNAUTHENTICATED" in codes else 200), response.text
    return answer


def test_no_operation_answers_without_the_right_token(world: World) -> None:
    """Each of all fields with each of all wrong tokens."""
    refused = 0
    with httpx2.Client() as client:
        for name, bad in world.bad.items():
            for field in sorted(bad.only):
                answer = ask(client, world.service.url, bad.token, field)
                codes = [error["extensions"]["code"] for error in answer["errors"]]
                assert codes == [bad.code], (name, field)
                assert not answer["data"] or answer["data"]["sharedSyncLog"] in (
                    None,
                    {field: None},
                )
                refused += 1
    everywhere = sum(bad.only == frozenset(GUARDED) for bad in world.bad.values())
    assert refused == everywhere * len(GUARDED) + len(ACTING) + 2 * len(GUARDED)


def test_they_answer_with_the_right_one(world: World) -> None:
    """The control. Last comes what locks the device out."""
    fields = sorted(GUARDED, key=lambda field: field == "revokeDevice")
    with httpx2.Client() as client:
        for token in (world.good, world.jwt):
            for field in fields[:-1]:
                answer = ask(client, world.service.url, token, field)
                codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
                # The walk's cursor is no log's.
                assert codes <= {"INVALID_ARGUMENT", "EPOCH_CHANGED", "CURSOR_INVALID"}, field
        assert ask(client, world.service.url, world.good, fields[-1])["data"]


def test_no_socket_opens_without_one(world: World) -> None:
    url = world.service.url.replace("http://", "ws://", 1)
    opened = set()
    for name, bad in world.bad.items():
        with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
            payload = {} if bad.token is None else {"authorization": f"Bearer {bad.token}"}
            socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            try:
                assert json.loads(socket.recv(timeout=30))["type"] == "connection_ack"
                opened.add(name)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == 4403
    # Who is somebody gets a socket; what may be asked on it is decided as elsewhere.
    assert opened == {n for n, bad in world.bad.items() if bad.code != "UNAUTHENTICATED"}


def test_no_token_is_left_in_the_database_or_in_the_log(world: World, tmp_path: Path) -> None:
    """After all of the above."""
    tokens = [world.good, world.jwt, *(bad.token for bad in world.bad.values() if bad.token)]
    secrets = [secret for token in tokens for secret in forms_of(token)]
    assert len(secrets) > 2 * 15
    service = world.service
    files = sorted(service.db.parent.glob("service.db*"))
    assert len(files) == 3  # the log of SQLite is among them
    held = b"".join(file.read_bytes() for file in files)
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(service.db)) as database:
        database.execute("VACUUM INTO ?", (str(copy),))
        dump = "\n".join(database.iterdump()).encode()
    logged = service.output.read_bytes()
    assert token_digest(world.good).encode() in dump
    for secret in secrets:
        assert secret not in held + copy.read_bytes() + dump
        assert secret not in logged
    # The first user's is shown once, and is in no file of the database either.
    assert service.token is not None
    assert b"slog_" not in logged.replace(service.token.encode(), b"")
    assert b"slog_" not in held + dump
