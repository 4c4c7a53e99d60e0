"""Documents: checked once, bounded in what they may cost, refused with a code."""

from __future__ import annotations

import time

import pytest
from graphql import get_introspection_query, parse

from sharedlog_service.app import InProcess
from sharedlog_service.documents import ALIASES_MAX, DEPTH_MAX, document_check, excess
from sharedlog_service.schema import build_schema
from sharedlog_service.store import Store
from tests.service.support import READ, WRITE

LIMITS = "sharedSyncLog { limits { entryBytes } }"


def code(store: Store, document: str, operation: str | None = None) -> str | None:
    answer = InProcess(store, "ada").execute(document, operation_name=operation)
    errors = answer.get("errors")
    return errors[0]["extensions"]["code"] if errors else None


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{" + LIMITS + "}", None),
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("}", "GRAPHQL_PARSE_FAILED"),
        ("{a(b: " + "[" * 600 + "}", "GRAPHQL_PARSE_FAILED"),
        ("{" * 5000, "GRAPHQL_PARSE_FAILED"),
        ("# " + "x" * 10_000 + "\n{" + LIMITS + "}", None),
        ("{ " + "a " * 600 + "}", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...unknown }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...a } fragment a on Query { ...a }", "GRAPHQL_VALIDATION_FAILED"),
        ("fragment a on Query { __typename }", "BAD_REQUEST"),
        ("type A { a: Int }", "BAD_REQUEST"),
        ("{ sharedSyncLog { stats { entries } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ sharedSyncLog { stats(userId: {a: 1}) { entries } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { " + LIMITS + " } query B { " + LIMITS + " }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { " + LIMITS + " } query A { " + LIMITS + " }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
def test_documents_are_refused_with_a_code(
    store: Store, document: str, expected: str | None
) -> None:
    assert code(store, document) == expected


def test_one_of_several_operations_can_be_named(store: Store) -> None:
    document = "query A { " + LIMITS + " } query B { " + LIMITS + " }"
    assert code(store, document, "B") is None
    assert code(store, document, "C") == "BAD_REQUEST"
    assert code(store, "{" + LIMITS + "}", "C") == "BAD_REQUEST"


def test_suggestions_are_not_given(store: Store) -> None:
    answer = InProcess(store, "ada").execute("{ sharedSyncLog { limit { entryBytes } } }")
    assert "limits" not in answer["errors"][0]["message"]


def test_introspection_as_tools_ask_it_is_allowed(store: Store) -> None:
    for document in (
        get_introspection_query(),
        get_introspection_query(
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
        ),
    ):
        answer = InProcess(store, "ada").execute(document)
        assert "errors" not in answer
        assert len(answer["data"]["__schema"]["types"]) > 10


def test_introspection_that_multiplies_is_refused(store: Store) -> None:
    inner = "name"
    for _ in range(5):
        inner = f"fields {{ type {{ {inner} }} }}"
    assert code(store, f"{{ __schema {{ types {{ {inner} }} }} }}") == "GRAPHQL_VALIDATION_FAILED"


def aliases(count: int) -> str:
    return "{" + " ".join(f"a{n}: __typename" for n in range(count)) + "}"


def test_aliases_are_counted(store: Store) -> None:
    assert code(store, aliases(ALIASES_MAX)) is None
    assert code(store, aliases(ALIASES_MAX + 1)) == "GRAPHQL_VALIDATION_FAILED"
    hidden = "{ ...a ...b } fragment b on Query { ...a } fragment a on Query " + aliases(20)
    assert code(store, hidden) == "GRAPHQL_VALIDATION_FAILED"


def test_depth_is_measured_through_fragments() -> None:
    nested = "{ a " * DEPTH_MAX + "}" * DEPTH_MAX
    assert excess(parse(nested)) == []
    assert len(excess(parse("{ a " + nested + "}"))) == 1
    split = "{ a { ...f } } fragment f on Q " + nested
    assert len(excess(parse(split))) == 1


def test_fragments_that_spread_each_other_twice_cost_nothing() -> None:
    """Forty of them unfold to 2 ** 40 selections: who unfolds them is gone for hours."""
    parts = [f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(40)]
    text = " ".join(["{ ...f0 }", *parts, "fragment f40 on Query { x: __typename }"])
    check = document_check(build_schema()._schema)
    start = time.process_time()
    checked = check(text)
    assert time.process_time() - start < 2
    assert [error.message for error in checked.errors] == [
        f"The document has {2**40} aliases; {ALIASES_MAX} are allowed."
    ]


def test_a_document_is_checked_once(store: Store) -> None:
    check = document_check(build_schema()._schema)
    assert check(READ) is check(READ)
    assert check(READ) is not check(WRITE)
    assert check("{ nothing }").errors is check("{ nothing }").errors


def test_an_error_found_once_is_told_every_time(store: Store) -> None:
    service = InProcess(store, "ada")
    answers = [service.execute("{ nothing }") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["errors"][0]["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
