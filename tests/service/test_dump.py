"""What whoever gets hold of a database gets: no token, and what was sent only where it belongs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric import ed25519
from starlette.testclient import TestClient

from sharedlog_service.access.auth import (
    TOKEN_ID_CHARS,
    issue_token,
    new_token,
    revoke_token,
    rotate_token,
    token_digest,
)
from sharedlog_service.grants import EVERYTHING, Scope
from sharedlog_service.settings import Issuer, Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from tests.engines import SERVER, Engine, Postgres
from tests.service.conftest import OpenStore
from tests.service.support import NOON, WRITE, ManualClock, forms_of
from tests.service.test_provider import AUDIENCE, ISSUER, NOW, public_jwk, sign

USER, SUBJECT = "canary-user", "canary-subject"
DEVICE, STRANGER = "canary-device", "canary-stranger"

NOWHERE = (
    *(STRANGER, "canary-header", "canary-agent", "canary-variable", "canary-document"),
    *("canary-refused", "canary-cloned", "canary-filter", "canary-forbidden"),
)

BELONGS: dict[str, set[str]] = {
    **{canary: set() for canary in NOWHERE},
    USER: {"users.id", "logs.user", "tokens.user"},
    SUBJECT: {"users.id", "logs.user"},
    DEVICE: {"devices.id", "tokens.device"},
    "canary-name": {"devices.name"},
    "canary-request": {"devices.request_id"},
    "canary-laptop": {"tokens.name"},
    "canary-collection": {"collections.name"},
    "canary-pk": {"entries.data"},
    "canary-value": {"entries.data"},
    "canary-sealed": {"entries.data"},
}
"""Where the database may have what was sent."""

CREATE = """mutation($user: ID!, $device: ID, $name: String, $request: ID) { sharedSyncLog {
    createDeviceId(userId: $user, deviceId: $device, name: $name, requestId: $request) } }"""
FIND = """query($user: ID!, $filter: EntryFilter) { sharedSyncLog {
    entries(userId: $user, filter: $filter) { nodes { data } } } }"""


class Asking:
    """Sends what is to be looked for, and notes each token that was shown."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.shown: list[str] = []

    def __call__(self, token: str, document: str, **variables: Any) -> Any:
        self.shown.append(token)
        headers = {"authorization": f"Bearer {token}", "user-agent": "canary-agent"}
        headers["x-request-id"] = "canary-header"
        body = {"query": document, "variables": {"user": USER, **variables}}
        return self._client.post("/graphql", json=body, headers=headers).json()


def tokens_of_all_kinds(store: Store) -> dict[str, str]:
    usual = issue_token(store, USER, "canary-laptop", scopes=EVERYTHING)
    revoked, old = (issue_token(store, USER, name) for name in ("revoked", "old"))
    revoke_token(store, token_digest(revoked)[:TOKEN_ID_CHARS])
    return {
        "usual": usual,
        "revoked": revoked,
        "old": old,
        "new": rotate_token(store, token_digest(old)[:TOKEN_ID_CHARS], 0),
        "bound": issue_token(store, USER, "bound", device=DEVICE, expires_at=store.now() + 1),
        "admin": issue_token(store, USER, "operator", scopes=frozenset((Scope.ADMIN,))),
    }


def write(ask: Asking, token: str, **more: Any) -> None:
    change = {"operation": "create", "collection": "canary-collection", "pk": "canary-pk"}
    data = json.dumps({**change, "value": {"a": "canary-value"}}, separators=(",", ":"))
    packed = [[NOON, 0, data], [NOON + 1, 0, "canary-sealed"], [-1, 0, "canary-refused"]]
    ask(token, WRITE, device=DEVICE, packed=packed, **more)
    ask(token, WRITE, device=DEVICE, packed=[[NOON, 0, "canary-cloned"]], **more)


def values(engine: Engine) -> Iterator[tuple[str, bytes]]:
    """Everything that the tables hold, with where it stands."""
    server, place = isinstance(engine, Postgres), str(engine.place)
    database: Any = psycopg.connect(place) if server else sqlite3.connect(place)
    with closing(database):
        names = engine.tables() if isinstance(engine, Postgres) else tables_of(database)
        for table in names:
            cursor = database.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cursor.description or ()]
            for row in cursor:
                for column, value in zip(columns, row, strict=True):
                    text = value if isinstance(value, bytes) else str(value).encode()
                    yield f"{table}.{column}", text


def tables_of(database: sqlite3.Connection) -> list[str]:
    return [
        name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]


def dump(engine: Engine) -> bytes:
    """What a thief has: the files, or what pg_dump makes of the schema."""
    if isinstance(engine, Postgres):
        program = shutil.which("pg_dump")
        if program is None:
            return b""
        command = [program, f"--schema={engine.schema}", f"--dbname={SERVER}"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 0 or b"version mismatch" in done.stderr, done.stderr
        return done.stdout
    path = Path(engine.place)
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_a_database_holds_no_token_and_what_was_sent_only_where_it_belongs(
    engine: Engine, open_store: OpenStore, clock: ManualClock, tmp_path: Path
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [public_jwk(key, kid="1")]}))
    made = tokens_of_all_kinds(open_store())
    jwt = sign(key, "EdDSA", "1", sub=SUBJECT, exp=NOW + 60)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=str(keys))
    app = create_app(Settings(db=engine.place, now=clock, issuer=issuer))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        ask = Asking(client)
        assert ask(made["usual"], CREATE, device=DEVICE, name="canary-name")["data"]
        assert ask(made["usual"], CREATE, request="canary-request")["data"]
        assert ask(jwt, CREATE, user=SUBJECT)["data"]
        write(ask, made["usual"])
        ask(made["usual"], FIND, filter={"collection": "canary-filter", "pk": "canary-filter"})
        ask(made["usual"], WRITE, device=STRANGER, packed=[[NOON, 0, "canary-forbidden"]])
        ask(jwt, WRITE, device=DEVICE, packed=[[NOON, 0, "canary-forbidden"]])
        document = 'query canary_document { __typename @skip(if: "canary-document") }'
        for token in (*made.values(), new_token(), f"{jwt}x", "canary-header"):
            ask(token, document, name="canary-variable")
            ask(token, FIND, user=STRANGER)
    found: dict[str, set[str]] = {canary: set() for canary in BELONGS}
    stolen = dump(engine)
    everything = list(values(engine))
    for place, value in everything:
        for canary in found:
            if canary.encode() in value:
                found[canary].add(place)
    assert found == BELONGS
    held = stolen + b"\n".join(value for _, value in everything)
    for token in ask.shown:
        if token != "canary-header":
            assert [form for form in forms_of(token) if form in held] == []
    # The control: these are the tokens' very rows.
    hashes = {value.decode() for place, value in everything if place == "tokens.hash"}
    assert hashes == {token_digest(token) for token in made.values()}
    assert not stolen or all(digest.encode() in stolen for digest in hashes)
