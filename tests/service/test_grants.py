"""What a token may do: each field asks for its scope, and devices and users are kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from sharedlog_service.access.auth import issue_token, rotate_token, token_digest
from sharedlog_service.errors import Refused
from sharedlog_service.grants import EVERYTHING, Grant, Scope
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import create_app
from sharedlog_service.web.service import Authenticate
from tests.service.support import CREATE_DEVICE, NOON, READ, WRITE, Asker, ManualClock, change
from tests.service.test_auth import ALL, GUARDED

NEEDED: Mapping[str, Scope] = {
    "getDeviceInfo": Scope.READ,
    "devices": Scope.READ,
    "getUnsyncedEntries": Scope.READ,
    "getOwnEntries": Scope.READ,
    "entries": Scope.READ,
    "history": Scope.READ,
    "stats": Scope.READ,
    "markAsSeen": Scope.READ,
    "createDeviceId": Scope.APPEND,
    "writeEntries": Scope.APPEND,
    "revokeDevice": Scope.DEVICES,
}
"""A new field needs a word here, or the first test fails."""

ACTING = {"getUnsyncedEntries", "getOwnEntries", "markAsSeen", "createDeviceId", "writeEntries"}
"""Where somebody acts as a device."""

Token = Callable[..., Asker]


@pytest.fixture
def token(ada: Asker, store: Store) -> Token:
    """Makes another token of ada's and returns who asks with it."""

    def making(user: str = "ada", **grant: Any) -> Asker:
        return Asker(ada.client, issue_token(store, user, "test", **grant))

    return making


@pytest.fixture
def engine(tmp_path: Any) -> Any:
    """The application under test is on the file."""
    from tests.engines import Sqlite

    return Sqlite(tmp_path)


def code(asker: Asker, field: str, **variables: Any) -> str | None:
    text, usual = ALL[field]
    errors = asker.post(text, {**usual, **variables}).get("errors")
    return None if errors is None else str(errors[0]["extensions"]["code"])


def test_every_field_has_a_scope() -> None:
    assert sorted(NEEDED) == GUARDED


@pytest.mark.parametrize("field", GUARDED)
def test_a_field_answers_with_its_scope_and_not_with_all_others(token: Token, field: str) -> None:
    needed = NEEDED[field]
    assert code(token(scopes=EVERYTHING - {needed}), field) == "SCOPE_MISSING"
    for scopes in ({needed}, {Scope.ADMIN}):
        assert code(token(scopes=frozenset(scopes)), field) not in ("SCOPE_MISSING", "FORBIDDEN")


def test_a_refusal_names_the_scope(token: Token) -> None:
    text, variables = ALL["stats"]
    [error] = token(scopes=frozenset({Scope.APPEND})).post(text, variables)["errors"]
    assert error["extensions"] == {"code": "SCOPE_MISSING", "scope": "log:read"}
    assert "log:read" in error["message"]


@pytest.mark.parametrize("field", GUARDED)
def test_only_an_admin_gets_into_anothers_log(token: Token, field: str) -> None:
    assert code(token("bob", scopes=EVERYTHING), field) == "FORBIDDEN"
    assert code(token("bob", scopes=frozenset({Scope.ADMIN})), field) != "FORBIDDEN"


@pytest.mark.parametrize("field", sorted(ACTING))
def test_a_token_of_one_device_acts_as_no_other(token: Token, store: Store, field: str) -> None:
    for device in ("mine", "other"):
        store.create_device("ada", device_id=device)
    bound = token(device="mine")
    declared = "$deviceId: ID!" in ALL[field][0]
    if declared:
        assert code(bound, field, deviceId="other") == "DEVICE_FORBIDDEN"
        assert code(bound, field, deviceId="mine") != "DEVICE_FORBIDDEN"
    else:  # it would become another device
        assert code(bound, field) == "DEVICE_FORBIDDEN"


def test_a_token_of_one_device_may_register_it(token: Token) -> None:
    document = 'mutation {sharedSyncLog {createDeviceId(userId: "ada", deviceId: "mine")}}'
    assert token(device="mine").ask(document) == {"createDeviceId": "mine"}


def test_anothers_device_is_like_none_in_every_field(token: Token, store: Store) -> None:
    """Whether somebody else has a device of this id cannot be told."""
    store.create_user("bob")
    theirs = store.create_device("bob")
    asked = [field for field in GUARDED if "$deviceId: ID!" in ALL[field][0]]
    assert len(asked) == 6
    asker = token(scopes=EVERYTHING)
    for field in asked:
        text, usual = ALL[field]
        answers = [
            asker.post(text, {**usual, "deviceId": device}) for device in (theirs, "nobody's")
        ]
        assert answers[0] == answers[1], field
    theirs_cursor = str(store.stats("bob").head)
    device = asker.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    variables = {"user": "ada", "device": device, "after": theirs_cursor}
    assert asker.code(READ, variables) == "EPOCH_CHANGED"


def test_what_one_user_wrote_is_in_no_answer_to_another(token: Token, store: Store) -> None:
    store.create_user("bob")
    theirs = store.create_device("bob")
    bob = token("bob", scopes=EVERYTHING)
    secret = [[NOON, 0, change("canary-7f3a", collection="canary-7f3a")]]
    bob.ask(WRITE, {"user": "bob", "device": theirs, "packed": secret})
    asker = token(scopes=EVERYTHING)
    for field in GUARDED:
        text, usual = ALL[field]
        for user in ("ada", "bob"):
            for device in (theirs, "x"):
                answer = asker.post(text, {**usual, "userId": user, "deviceId": device})
                assert "canary-7f3a" not in str(answer), (field, user, device)


def test_a_token_ends_when_it_is_said_to(token: Token, clock: ManualClock) -> None:
    asker = token(expires_at=clock.ms + 1_000)
    clock.ms += 999
    assert code(asker, "stats") is None
    clock.ms += 1
    assert code(asker, "stats") == "UNAUTHENTICATED"


def test_a_rotated_token_and_its_heir_work_side_by_side_for_a_while(
    token: Token, store: Store, clock: ManualClock
) -> None:
    old = token(scopes=frozenset({Scope.READ}))
    digest = token_digest(str(old.token))
    new = Asker(old.client, rotate_token(store, digest[:12], 1_000))
    for asker in (old, new):
        assert code(asker, "stats") is None
        assert code(asker, "revokeDevice") == "SCOPE_MISSING"
    clock.ms += 1_000
    assert code(old, "stats") == "UNAUTHENTICATED"
    assert code(new, "stats") is None


@pytest.mark.parametrize("id", ["", "short", "0" * 12])
def test_only_a_token_that_there_is_can_be_rotated(store: Store, id: str) -> None:
    with pytest.raises(Refused):
        rotate_token(store, id, 1_000)


# Programs around this one


async def by_name(headers: Mapping[str, str]) -> Grant | None:
    name = headers.get("x-name")
    return None if name is None else Grant(name, frozenset({Scope.READ, Scope.APPEND}))


@pytest.mark.parametrize("authenticate", [by_name], ids=["a coroutine"])
def test_a_program_may_know_its_users_itself(
    tmp_path: Any, clock: ManualClock, authenticate: Authenticate
) -> None:
    app = create_app(Settings(db=tmp_path / "own.db", now=clock), authenticate=authenticate)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:

        def ask(headers: dict[str, str], document: str) -> Any:
            return client.post("/graphql", json={"query": document}, headers=headers).json()

        create = 'mutation {sharedSyncLog {createDeviceId(userId: "ada", deviceId: "d")}}'
        nobody = ask({"authorization": "Bearer slog_x"}, create)
        assert nobody["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        known = {"x-name": "ada", "authorization": "Bearer whatever"}
        assert ask(known, create)["data"] == {"sharedSyncLog": {"createDeviceId": "d"}}
        revoke = 'mutation {sharedSyncLog {revokeDevice(userId: "ada", deviceId: "d") {id}}}'
        assert ask(known, revoke)["errors"][0]["extensions"]["code"] == "SCOPE_MISSING"
        others = 'query {sharedSyncLog {stats(userId: "bob") {entries}}}'
        assert ask(known, others)["errors"][0]["extensions"]["code"] == "FORBIDDEN"
