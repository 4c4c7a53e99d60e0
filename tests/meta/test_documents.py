"""Everything that the client ever sends fits `schema.graphql`, and nothing else is sent."""

from __future__ import annotations

import ast

import pytest
from graphql import build_schema, get_operation_ast, parse, validate

from sharedlog.remote.documents import DOCUMENTS
from tests.meta.source import ROOT, modules, tree

SCHEMA = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))


def operation_name(document: str) -> str:
    operation = get_operation_ast(parse(document))
    assert operation is not None
    assert operation.name is not None, "without a name an operation cannot be told in a log"
    return operation.name.value


@pytest.mark.parametrize("document", DOCUMENTS, ids=operation_name)
def test_the_document_fits_the_schema(document: str) -> None:
    assert validate(SCHEMA, parse(document)) == []


def test_a_document_that_does_not_fit_is_noticed() -> None:
    assert validate(SCHEMA, parse("{ sharedSyncLog { noSuchField } }"))


def test_all_documents_are_listed() -> None:
    """A string in the client that parses as an operation is one of DOCUMENTS."""
    constants = {
        node.value
        for path in modules("sharedlog").values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    kinds = ("query", "mutation", "subscription")
    sent = {text for text in constants if text.split("(")[0].split(" ")[0] in kinds}

    assert {text for text in sent if "{" in text} == set(DOCUMENTS)
