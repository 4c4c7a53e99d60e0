"""What an answer would cost is counted before it is made, with the variables it is asked with."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import GraphQLSchema, get_introspection_query, parse

from sharedlog_service.api.cost import COST_MAX, ITEM_COST, LENGTH, SENT_COST, cost
from sharedlog_service.api.schema import build_schema
from sharedlog_service.entries import NewEntry
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.service.support import NOON, change

ASKED = "userId: $u, deviceId: $d"


@pytest.fixture(scope="module")
def contract() -> GraphQLSchema:
    return build_schema()._schema


def estimate(contract: GraphQLSchema, document: str, **variables: Any) -> float:
    return cost(contract, parse(document), None, variables)


def listed(length: int, fields: int = 1) -> int:
    return length * (ITEM_COST + fields)


@pytest.mark.parametrize(
    ("calls", "variables", "expected"),
    [
        ("viewer", {}, 1),
        ("limits { entryBytes batchBytes }", {}, 3),
        ("devices(userId: $u) { id name }", {}, 1 + listed(100, 2)),
        ("devices(userId: $u, first: 900) { id name }", {}, 1 + listed(900, 2)),
        ("stats(userId: $u) { head collections { entries } }", {}, 3 + listed(100)),
        ("stats(userId: $u, first: 900) { collections { entries } }", {}, 2 + listed(900)),
        ("entries(userId: $u) { nodes { data } }", {}, 2 + listed(LENGTH)),
        ("entries(userId: $u, first: 7) { nodes { data } }", {}, 2 + listed(7)),
        ("entries(userId: $u, last: $n) { nodes { data } }", {"n": 9}, 2 + listed(9)),
        ("entries(userId: $u, first: $n) { nodes { data } }", {}, 2 + listed(5)),
        ("entries(userId: $u, first: $n) { nodes { data } }", {"n": "x"}, 2 + listed(LENGTH)),
        ("entries(userId: $u, first: 7) { edges { node { pk } } }", {}, 2 + listed(7, 2)),
        ("entries(userId: $u, first: 7) { ...on EntryConnection { ...f } }", {}, 2 + listed(7)),
        ('history(userId: $u, collection: "x", pk: 1) { data }', {}, 1 + listed(100)),
        (f"getUnsyncedEntries({ASKED}) {{ packed }}", {}, 1002),
        (f"getUnsyncedEntries({ASKED}) {{ entries {{ data }} }}", {}, 1002 + listed(1000)),
        (
            f"getUnsyncedEntries({ASKED}, batchSize: 20, collections: []) {{ entries {{ pk }} }}",
            {},
            22 + listed(20),
        ),
        (
            f"getUnsyncedEntries({ASKED}, batchSize: 1, collections: $c) {{ packed }}",
            {"c": ["x"] * 5000},
            5003,
        ),
    ],
)
def test_queries(
    contract: GraphQLSchema, calls: str, variables: dict[str, Any], expected: float
) -> None:
    text = f"""query($u: ID!, $d: ID!, $n: Int = 5, $c: [String!]) {{
        sharedSyncLog {{ {calls} }} }}
        fragment f on EntryConnection {{ nodes {{ data }} }}"""
    assert estimate(contract, text, **variables) == 1 + expected


@pytest.mark.parametrize(
    ("inner", "sent", "expected"),
    [
        ("accepted", {"p": [[1, 0, "x"]] * 9000}, 1),
        ("results { status }", {"p": [[1, 0, "x"]] * 30}, 1 + listed(30)),
        ("accepted", {"e": [{}] * 30}, 1 + 30 * SENT_COST),
        ("accepted", {"p": "x"}, 1),
        # What comes back has nothing to do with how little was sent.
        ("update { entries { data } }", {"p": []}, 2 + listed(1000)),
        ("update { packed }", {"p": []}, 2),
    ],
)
def test_writing(
    contract: GraphQLSchema, inner: str, sent: dict[str, Any], expected: float
) -> None:
    arguments = f"{ASKED}, packed: $p, entries: $e, withUpdate: true"
    text = f"""mutation($u: ID!, $d: ID!, $p: PackedEntries, $e: [SharedSyncLogEntryInput!]) {{
        sharedSyncLog {{ writeEntries({arguments}) {{ {inner} }} }} }}"""
    assert estimate(contract, text, **sent) == 1002 + expected


def test_introspection_is_estimated_about_right(contract: GraphQLSchema, store: Store) -> None:
    """By averages of this schema: who lets it grow looks at them again."""
    query = get_introspection_query(input_value_deprecation=True)
    answer = InProcess(store, "ada").execute(query)
    assert 0.6 < estimate(contract, query) / fields(answer["data"]) < 1.7


def fields(answer: Any) -> int:
    if isinstance(answer, dict):
        return sum(1 + fields(value) for value in answer.values())
    return sum(fields(item) for item in answer) if isinstance(answer, list) else 0


def test_only_the_operation_that_is_asked_for_counts(contract: GraphQLSchema) -> None:
    document = parse("query A { __typename } query B { sharedSyncLog { viewer } }")
    assert cost(contract, document, "A", None) == 1
    assert cost(contract, document, "B", {}) == 2
    assert cost(contract, document, "C", {}) == 0


def test_no_list_is_longer_than_it_is_taken_to_be(store: Store) -> None:
    """Whoever may write makes devices and collections without end."""
    with store.transaction():
        *_, device = (store.create_device("ada") for _ in range(101))
        made = [NewEntry(NOON + n, 0, change("a", collection=f"c{n}")) for n in range(101)]
        store.write("ada", device, made)
    text = """{ sharedSyncLog { devices(userId: "ada"FIRST) { id }
        stats(userId: "ada"FIRST) { devices collections { collection } } } }"""
    service = InProcess(store, "ada")
    for first, length in (("", 100), (", first: 200", 101)):
        answer = service.execute(text.replace("FIRST", first))
        found = answer["data"]["sharedSyncLog"]
        assert len(found["devices"]) == len(found["stats"]["collections"]) == length
        assert found["stats"]["devices"] == 101
    one = '{ sharedSyncLog { devices(userId: "ada", first: 1001) { id } } }'
    assert service.execute(one)["errors"][0]["extensions"]["code"] == "INVALID_ARGUMENT"


def test_what_would_cost_too_much_is_refused_by_its_variables(store: Store) -> None:
    text = """query($n: Int) { sharedSyncLog { entries(userId: "ada", first: $n) {
        nodes { userId deviceId createdOn sharedOn data cursor position pk } } } }"""
    service = InProcess(store, "ada")
    assert "errors" not in service.execute(text, {"n": 300})
    (error,) = service.execute(text, {"n": 1000})["errors"]
    assert error["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
    assert str(COST_MAX) in error["message"]


def test_what_graphiql_offers_is_far_from_the_limit(contract: GraphQLSchema) -> None:
    from sharedlog_service.web.graphiql import GraphiQL

    queries = GraphiQL().queries
    examples = queries["examples"]
    assert isinstance(examples, list)
    for text in (queries["viewer"], queries["connect"], *examples):
        assert estimate(contract, str(text)) < COST_MAX / 4
