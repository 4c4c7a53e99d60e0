"""Which documents are answered: the library's own always, others where exploring is on."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from graphql import get_introspection_query

from sharedlog.remote.documents import ABOUT, DOCUMENTS, POKED
from sharedlog_service.access.auth import issue_token
from sharedlog_service.grants import Scope
from sharedlog_service.settings import Settings
from sharedlog_service.store.store import Store
from tests.service.support import CREATE_DEVICE, Asker

PUBLIC = {"host": "203.0.113.7"}
"""Nobody listens there: the tests reach the application without a socket."""


def post(asker: Asker, body: dict[str, Any]) -> httpx2.Response:
    headers = {} if asker.token is None else {"authorization": f"Bearer {asker.token}"}
    response: httpx2.Response = asker.client.post("/graphql", json=body, headers=headers)
    return response


def outcome(asker: Asker, body: dict[str, Any]) -> tuple[int, str]:
    """Return the status and the first error's code, "" without one."""
    response = post(asker, body)
    errors = response.json().get("errors")
    return response.status_code, errors[0]["extensions"]["code"] if errors else ""


def persisted(sha256_hash: object) -> dict[str, Any]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": sha256_hash}}}


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("host", "explore", "expected"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("log.example", None, False),
        ("127.0.0.1", False, False),
        ("0.0.0.0", True, True),
    ],
)
def test_by_default_exploring_is_on_where_only_this_machine_comes(
    host: str, explore: bool | None, expected: bool
) -> None:
    assert Settings(host=host, explore=explore).explores is expected


@pytest.mark.parametrize("settings", [PUBLIC, {"explore": False}, {**PUBLIC, "explore": False}])
def test_without_exploring_only_known_documents_are_answered(
    serve: Callable[..., Asker], settings: dict[str, Any]
) -> None:
    asker = serve(**settings)
    assert outcome(asker, {"query": ABOUT}) == (200, "")
    for text in (ABOUT + " ", CREATE_DEVICE, "{ __typename }", get_introspection_query(), "{", ""):
        expected = (400, "BAD_REQUEST") if not text else (403, "DOCUMENT_NOT_ALLOWED")
        assert outcome(asker, {"query": text}) == expected
    message = post(asker, {"query": "{ __typename }"}).json()["errors"][0]["message"]
    assert "sharedlog serve --explore" in message


def test_all_that_the_library_sends_is_known(serve: Callable[..., Asker]) -> None:
    """With variables that fit nothing: what matters is that they are looked at."""
    asker = serve(**PUBLIC)
    for text in DOCUMENTS:
        expected = [(200, ""), (200, "INVALID_ARGUMENT")]
        if text == POKED:  # on a socket: see test_sockets.py
            expected = [(400, "BAD_REQUEST")]
        for body in ({"query": text}, persisted(hash_of(text)), persisted(hash_of(text).upper())):
            assert outcome(asker, body) in expected


def test_who_has_no_valid_token_is_told_that_first(serve: Callable[..., Asker]) -> None:
    stranger = Asker(serve(**PUBLIC).client, "slog_nobody")
    assert outcome(stranger, {"query": "{ __typename }"}) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope.EXPLORE, (200, "")),
        (Scope.ADMIN, (200, "")),
        (Scope.READ, (403, "DOCUMENT_NOT_ALLOWED")),
    ],
)
def test_a_token_may_be_good_for_exploring(
    serve: Callable[..., Asker], tmp_path: Path, scope: Scope, expected: tuple[int, str]
) -> None:
    client = serve(**PUBLIC).client
    store = Store.open(tmp_path / "log.db")
    asker = Asker(client, issue_token(store, "ada", "tool", scopes=frozenset((scope,))))
    store.close()
    assert outcome(asker, {"query": get_introspection_query()}) == expected


@pytest.mark.parametrize("settings", [{}, {**PUBLIC, "explore": True}])
def test_with_exploring_everything_is_answered(
    serve: Callable[..., Asker], settings: dict[str, Any]
) -> None:
    asker = serve(**settings)
    assert outcome(asker, {"query": get_introspection_query()}) == (200, "")
    assert asker.client.get("/graphql").status_code == 200
    assert asker.client.get("/graphiql-assets/page.js").status_code == 200


def test_without_exploring_there_is_no_page(serve: Callable[..., Asker]) -> None:
    asker = serve(**PUBLIC)
    page = asker.client.get("/graphql")
    assert (page.status_code, page.headers["allow"]) == (405, "POST")
    assert "METHOD_NOT_ALLOWED" in page.text
    assert asker.client.get("/graphiql-assets/page.js").status_code == 404


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (persisted(hash_of(ABOUT)), (200, "")),
        ({**persisted(hash_of(ABOUT)), "query": None}, (200, "")),
        ({**persisted(hash_of(ABOUT)), "query": ABOUT}, (200, "")),
        ({"query": ABOUT, "extensions": None}, (200, "")),
        ({"query": ABOUT, "extensions": {"persistedQuery": None, "other": 1}}, (200, "")),
        (persisted(hash_of("{ other }")), (400, "PERSISTED_QUERY_NOT_FOUND")),
        ({**persisted(hash_of("{ other }")), "query": ABOUT}, (400, "BAD_REQUEST")),
        (persisted("x"), (400, "BAD_REQUEST")),
        (persisted(5), (400, "BAD_REQUEST")),
        (persisted(None), (400, "BAD_REQUEST")),
        ({"query": ABOUT, "extensions": []}, (400, "BAD_REQUEST")),
        ({"query": ABOUT, "extensions": {"persistedQuery": "x"}}, (400, "BAD_REQUEST")),
        ({"extensions": {}}, (400, "BAD_REQUEST")),
    ],
    ids=json.dumps,
)
def test_a_document_can_be_named_by_its_hash(
    ada: Asker, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert outcome(ada, body) == expected
