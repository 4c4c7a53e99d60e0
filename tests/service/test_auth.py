"""Access: every field, with no token, an unknown one, a revoked one, and another user's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from sharedlog_service.access.auth import (
    TOKEN_PREFIX,
    bearer_digest,
    check_user_name,
    issue_token,
    new_token,
    revoke_token,
    token_digest,
)
from sharedlog_service.api.schema import build_schema
from sharedlog_service.errors import ConfigurationError, Refused
from sharedlog_service.grants import Grant
from sharedlog_service.settings import Settings, is_loopback
from sharedlog_service.store.store import Store
from tests.service.support import CREATE_DEVICE, WRITE, Asker, ManualClock

OPEN_FIELDS = {"limits"}
"""What anybody may ask."""

SELF_FIELDS = {"viewer"}
"""What is about the token itself. Everything else must have a userId, and obey it."""

VALUES: dict[str, object] = {
    "ID": "x",
    "String": "x",
    "Int": 1,
    "Float": 1.0,
    "Boolean": True,
    "JSON": 1,
    "Cursor": "x.1",
    "PackedEntries": [],
}


def documents() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a document for each field below the namespace, with a value for each required
    argument: a new field is tested without a word here, and without userId it fails below."""
    schema = build_schema()._schema
    for operation, root in (("query", schema.query_type), ("mutation", schema.mutation_type)):
        assert root is not None
        namespace = get_named_type(root.fields["sharedSyncLog"].type)
        assert isinstance(namespace, GraphQLObjectType)
        for name, field in namespace.fields.items():
            yield name, *document(operation + "{} {{ sharedSyncLog {{ {} }} }}", name, field)


def document(shape: str, name: str, field: GraphQLField) -> tuple[str, dict[str, Any]]:
    required = {k: a for k, a in field.args.items() if isinstance(a.type, GraphQLNonNull)}
    variables = {k: "ada" if k == "userId" else value_for(a.type) for k, a in required.items()}
    declared = ", ".join(f"${k}: {a.type}" for k, a in required.items())
    passed = ", ".join(f"{k}: ${k}" for k in required)
    selected = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    head = f"({declared})" if required else ""
    args = f"({passed})" if required else ""
    return shape.format(f" Ask{head}", f"{name}{args}{selected}"), variables


def value_for(kind: Any) -> object:
    kind = kind.of_type if is_non_null_type(kind) else kind
    return [] if is_list_type(kind) else VALUES[str(kind)]


ALL = {name: (text, variables) for name, text, variables in documents()}
GUARDED = sorted(set(ALL) - OPEN_FIELDS - SELF_FIELDS)


def test_every_field_is_known() -> None:
    assert set(ALL) > OPEN_FIELDS | SELF_FIELDS
    assert len(GUARDED) == 11


@pytest.fixture
def askers(ada: Asker, tmp_path: Path, clock: ManualClock) -> dict[str, Asker]:
    store = Store.open(tmp_path / "log.db", now=clock)
    revoked = issue_token(store, "ada", "lost")
    revoke_token(store, token_digest(revoked)[:12])
    others = issue_token(store, "bob", "bob's")
    store.close()
    tokens = {
        "nothing": None,
        "unknown": new_token(),
        "garbage": "garbage",
        "revoked": revoked,
        "others": others,
    }
    return {name: Asker(ada.client, token) for name, token in tokens.items()}


@pytest.mark.parametrize("field", GUARDED)
def test_no_field_answers_without_the_users_own_token(askers: dict[str, Asker], field: str) -> None:
    text, variables = ALL[field]
    assert variables["userId"] == "ada"
    for who in ("nothing", "unknown", "garbage", "revoked"):
        assert askers[who].code(text, variables) == "UNAUTHENTICATED", who
    assert askers["others"].code(text, variables) == "FORBIDDEN"
    # Whether a user exists cannot be told from the answer.
    assert askers["others"].code(text, {**variables, "userId": "nobody"}) == "FORBIDDEN"


def test_a_token_tells_whose_it_is_only_to_who_has_it(ada: Asker, askers: dict[str, Asker]) -> None:
    text, variables = ALL["viewer"]
    assert ada.ask(text, variables) == {"viewer": "ada"}
    assert askers["others"].ask(text, variables) == {"viewer": "bob"}
    for who in ("nothing", "unknown", "garbage", "revoked"):
        assert askers[who].code(text, variables) == "UNAUTHENTICATED", who


def test_the_limits_are_for_everybody(askers: dict[str, Asker]) -> None:
    document = "{sharedSyncLog {limits {batchEntries}}}"
    for who in askers.values():
        assert who.ask(document) == {"limits": {"batchEntries": 10_000}}


@pytest.mark.parametrize("field", GUARDED)
def test_the_right_token_gets_past_the_door(ada: Asker, field: str) -> None:
    """The control of the test above: these very documents are fine with the right token."""
    text, variables = ALL[field]
    answer = ada.post(text, variables)
    codes = {error["extensions"]["code"] for error in answer.get("errors", [])}
    assert codes <= {"DEVICE_UNKNOWN", "INVALID_ARGUMENT"}, answer


def test_nothing_of_another_user_is_seen_with_ones_own_id(
    ada: Asker, askers: dict[str, Asker]
) -> None:
    device = ada.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    bob = askers["others"]
    write = {"user": "bob", "device": device, "packed": []}
    assert bob.code(WRITE, write) == "DEVICE_UNKNOWN"
    info = 'query($d: ID!) {sharedSyncLog {getDeviceInfo(userId: "bob", deviceId: $d) {id}}}'
    assert bob.ask(info, {"d": device}) == {"getDeviceInfo": None}


def test_a_token_is_256_random_bits_with_a_prefix() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert {len(token) for token in tokens} == {len(TOKEN_PREFIX) + 43}
    assert all(token.startswith("slog_") for token in tokens)
    assert new_token(lambda n: bytes(n)) == "slog_" + "A" * 43


def test_the_database_holds_no_token(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "log.db")
    token = issue_token(store, "ada", "laptop")
    assert store.grant(token_digest(token)) == Grant("ada")
    store.close()
    database = sqlite3.connect(tmp_path / "log.db")
    dump = "\n".join(database.iterdump())
    database.close()
    assert token_digest(token) in dump
    assert token not in dump
    assert token.removeprefix("slog_") not in dump


def test_a_revoked_token_stops_working_at_once(
    ada: Asker, tmp_path: Path, clock: ManualClock
) -> None:
    stats = '{sharedSyncLog {stats(userId: "ada") {entries}}}'
    assert ada.ask(stats) == {"stats": {"entries": 0}}
    assert ada.token is not None
    store = Store.open(tmp_path / "log.db", now=clock)
    revoke_token(store, token_digest(ada.token)[:12])
    store.close()
    assert ada.code(stats) == "UNAUTHENTICATED"


@pytest.mark.parametrize("token_id", ["", "abc", "0" * 12, "%" * 12, "_" * 12])
def test_revoking_needs_a_whole_id(store: Store, token_id: str) -> None:
    issue_token(store, "ada", "laptop")
    with pytest.raises(Refused):
        revoke_token(store, token_id)
    assert [token.revoked_at for token in store.tokens()] == [None]


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic slog_x", None),
        ("slog_x", None),
        ("Bearer slog_x", "slog_x"),
        ("bearer  slog_x ", "slog_x"),
    ],
)
def test_the_authorization_header(header: str | None, token: str | None) -> None:
    assert bearer_digest(header) == (token and token_digest(token))


@pytest.mark.parametrize("user", ["", "x" * 201, "a\0b"])
def test_a_user_needs_a_name(store: Store, user: str) -> None:
    with pytest.raises(Refused):
        issue_token(store, user, "x")


# Without tokens


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LocalHost"]
)
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host, no_auth=True).no_auth


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "",
        "192.168.1.5",
        "128.0.0.1",
        "127.1",
        "2130706433",
        "[",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
    ],
)
def test_without_tokens_any_other_host_is_refused(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="loopback"):
        Settings(host=host, no_auth=True)
    assert Settings(host=host).host == host


@pytest.mark.parametrize("name", ["a\nb", "a\0", "\x1b[2J", "\x7f", "\x85", "a\u2028b", "\udcff"])
def test_no_name_has_control_characters(name: str) -> None:
    with pytest.raises(Refused, match="control characters"):
        check_user_name(name)


@pytest.mark.parametrize(
    "name", ["ada", "Ada Lovelace", "ada@example.org", "Ådä", "愛", "👩\u200d💻"]
)
def test_other_names_are_taken(name: str) -> None:
    check_user_name(name)


def test_without_tokens_the_user_is_whom_the_argument_names(serve: Callable[..., Asker]) -> None:
    asker = serve(no_auth=True)
    stats = "query($u: ID!) {sharedSyncLog {stats(userId: $u) {devices}}}"
    assert asker.code(stats, {"u": "eve"}) == "USER_UNKNOWN"
    asker.ask(CREATE_DEVICE, {"user": "eve"})
    assert asker.ask(stats, {"u": "eve"}) == {"stats": {"devices": 1}}
    for no_name in ("", "a\nb", "a" * 201):
        assert asker.code(CREATE_DEVICE, {"user": no_name}) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("", 421),
    ],
)
def test_without_tokens_a_rebound_name_is_refused(
    serve: Callable[..., Asker], host: str, status: int
) -> None:
    client = serve(no_auth=True).client
    body = {"query": "{sharedSyncLog {limits {entryBytes}}}"}
    assert client.post("/graphql", json=body, headers={"host": host}).status_code == status
    assert client.get("/graphql", headers={"host": host}).status_code == status
    assert client.get("/healthz", headers={"host": host}).status_code == status


def test_with_tokens_any_host_name_is_fine(ada: Asker) -> None:
    assert ada.client.get("/healthz", headers={"host": "sync.example"}).status_code == 200
