"""Documents: checked once, bounded in what they may cost, refused with a code."""

from __future__ import annotations

import pytest
from graphql import GraphQLSyntaxError, get_introspection_query, parse

from sharedlog_service.api.documents import CACHED_DOCUMENTS, ERRORS_MAX, document_check
from sharedlog_service.api.extent import ALIASES_MAX, DEPTH_MAX, excess, measure
from sharedlog_service.api.known import KnownDocuments
from sharedlog_service.api.schema import build_schema
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
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


def test_what_does_not_parse_has_no_operation_of_any_name(store: Store) -> None:
    assert code(store, "{", "A") == "GRAPHQL_PARSE_FAILED"


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


def test_one_of_is_answered_for_lists_too(store: Store) -> None:
    """Strawberry fails there, and it would be told as a fault of the service."""
    answer = InProcess(store, "ada").execute(
        """{ a: __schema { types { isOneOf fields { type { isOneOf ofType { isOneOf } } } } } }"""
    )
    assert "errors" not in answer


def test_introspection_that_multiplies_is_refused(store: Store) -> None:
    inner = "name"
    for _ in range(5):
        inner = f"fields {{ type {{ {inner} }} }}"
    assert code(store, f"{{ __schema {{ types {{ {inner} }} }} }}") == "GRAPHQL_VALIDATION_FAILED"


def aliases(count: int) -> str:
    names = " ".join(f"a{n}: __typename" for n in range(count))
    return "{ sharedSyncLog { limits { " + names + " } } }"


def test_aliases_are_counted(store: Store) -> None:
    assert code(store, aliases(ALIASES_MAX)) is None
    assert code(store, aliases(ALIASES_MAX + 1)) == "GRAPHQL_VALIDATION_FAILED"
    hidden = "{ ...a ...b } fragment b on Query { ...a } fragment a on Query " + aliases(8)
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
    assert measure(parse(text)).aliases == 2**40
    assert "aliases come to millions" in "".join(error.message for error in excess(parse(text)))


@pytest.mark.parametrize("text", ["{ ...a } fragment a on Q { ...a x }", "{ ...missing }"])
def test_what_validation_refuses_is_measured_without_it(text: str) -> None:
    assert excess(parse(text)) == []


@pytest.mark.parametrize(
    ("fits", "exceeds"),
    [
        ("{ a" + " a" * 3 + " }", "{ a" + " a" * 4 + " }"),
        ("{ a {" + " b" * 8 + " } }", "{ a {" + " b" * 8 + " } a { b } }"),
        ("{ a {" + " b" * 8 + " } }", "{ ...f a {" + " b" * 8 + " } } fragment f on Q { a { b } }"),
        ("{ a { b {" + " c" * 298 + " } } }", "{ a { b {" + " c" * 299 + " } } }"),
        ("{ a" + " @x" * 20 + " }", "{ a" + " @x" * 21 + " }"),
        ("query @x { ...f @x @x } fragment f on Q { a" + " @x" * 17 + " }",
         "query @x @x { ...f @x @x } fragment f on Q { a" + " @x" * 17 + " }"),
        ("{ a(b: " + "9" * 64 + ") }", "{ a(b: " + "9" * 65 + ") }"),
        ("{ a(b: [{c: 1." + "9" * 62 + "}]) }", "{ a(b: [{c: 1." + "9" * 63 + "}]) }"),
        ('{ a(b: "' + "9" * 99 + '") }', "query($a: Int = " + "9" * 99 + ") { a }"),
    ],
)  # fmt: skip
def test_a_document_is_measured(fits: str, exceeds: str) -> None:
    assert excess(parse(fits)) == []
    assert len(excess(parse(exceeds))) == 1


def test_a_number_that_is_too_long_is_no_fault_of_the_service(store: Store) -> None:
    """Python refuses to read more than 4,300 digits, which used to end as INTERNAL."""
    for argument in ("first: ", "after: null, last: "):
        long = f'entries(userId: "ada", {argument}{"9" * 5000}) {{ nodes {{ data }} }}'
        assert code(store, "{ sharedSyncLog {" + long + "} }") == "GRAPHQL_VALIDATION_FAILED"


def test_errors_are_told_a_few_at_a_time(store: Store) -> None:
    answer = InProcess(store, "ada").execute("{ sharedSyncLog { limits {" + " x" * 200 + " } } }")
    assert 0 < len(answer["errors"]) <= ERRORS_MAX + 1
    assert {error["extensions"]["code"] for error in answer["errors"]} == {
        "GRAPHQL_VALIDATION_FAILED"
    }


def test_a_flood_of_others_does_not_push_out_what_is_known() -> None:
    check = document_check(build_schema()._schema, KnownDocuments([READ]))
    ours, other = check(READ), check(WRITE)
    assert (ours.known, other.known) == (True, False)
    for n in range(CACHED_DOCUMENTS):
        check(f"{{ a{n}: __typename }}")
    assert check(READ) is ours
    assert check(WRITE) is not other


def test_what_is_known_is_under_no_limit() -> None:
    text = "{" + " ".join(f"a{n}: __typename" for n in range(200)) + "}"
    schema = build_schema()._schema
    assert document_check(schema, KnownDocuments([text]))(text).errors == ()
    (error,) = document_check(schema, KnownDocuments([]))(text).errors
    assert isinstance(error, GraphQLSyntaxError)


def test_a_document_is_checked_once(store: Store) -> None:
    check = document_check(build_schema()._schema, KnownDocuments([]))
    assert check(READ) is check(READ)
    assert check(READ) is not check(WRITE)
    assert check("{ nothing }").errors is check("{ nothing }").errors


def test_an_error_found_once_is_told_every_time(store: Store) -> None:
    service = InProcess(store, "ada")
    answers = [service.execute("{ nothing }") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["errors"][0]["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
