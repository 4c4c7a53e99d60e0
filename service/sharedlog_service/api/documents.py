"""Documents: parsed and validated once, and refused when they would cost too much.

What the library itself sends is checked once and kept; what others send is kept for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    parse,
    validate,
)
from graphql.validation import specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
from strawberry.types import ExecutionContext

from sharedlog_service.api.cost import COST_MAX, cost
from sharedlog_service.api.extent import excess
from sharedlog_service.api.known import KnownDocuments

TOKENS_MAX = 300
ERRORS_MAX = 5
"""Each error costs almost a millisecond, and tells the reader less than the one before."""

CACHED_DOCUMENTS = 128

RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


class Checked(NamedTuple):
    """A document, and what is wrong with it."""

    document: DocumentNode
    errors: tuple[GraphQLError, ...]
    operations: int
    known: bool


Check = Callable[[str], Checked]


def document_check(schema: GraphQLSchema, known: KnownDocuments) -> Check:
    """Return a function that parses and validates a document, remembering the latest ones, and
    the known ones for good: a flood of others does not push them out."""

    @lru_cache(maxsize=CACHED_DOCUMENTS)
    def others(text: str) -> Checked:
        try:
            document = parse(text, max_tokens=TOKENS_MAX)
        except GraphQLSyntaxError as error:
            # Not raised any further: Strawberry would take it for a fault of ours where it comes
            # by WebSocket, and log it with the document.
            return _checked(parse("{ __typename }"), [error.with_traceback(None)], known=False)
        # The limits come first: they bound what validation costs.
        return _checked(document, excess(document) or _invalid(schema, document), known=False)

    @cache
    def ours(text: str) -> Checked:
        document = parse(text)
        return _checked(document, _invalid(schema, document), known=True)

    return lambda text: ours(text) if text in known else others(text)


def _invalid(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    return validate(schema, document, RULES, max_errors=ERRORS_MAX, hide_suggestions=True)


def _checked(document: DocumentNode, errors: list[GraphQLError], *, known: bool) -> Checked:
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    return Checked(document, tuple(errors), len(operations), known)


class CheckedDocuments(SchemaExtension):
    """Gives Strawberry the checked document instead of letting it parse and validate."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query:
            checked = self._check(context.query)
            context.graphql_document = checked.document
            self._errors = [*checked.errors] or self._refusals(checked)
            if any(isinstance(error, GraphQLSyntaxError) for error in checked.errors):
                # What stands in for the document has one operation, without a name.
                context._provided_operation_name = None
        yield

    def on_validate(self) -> Iterator[None]:
        self.execution_context.pre_execution_errors = self._errors
        yield

    def _refusals(self, checked: Checked) -> list[GraphQLError]:
        """What is wrong with a valid document as it is asked here: with this name and these
        variables."""
        context = self.execution_context
        if checked.operations > 1 and not _is_named(context):
            return [GraphQLError("Several operations need an operationName.")]
        if checked.known:
            return []
        name = context._provided_operation_name
        found = cost(context.schema._schema, checked.document, name, context.variables)
        if found <= COST_MAX:
            return []
        return [
            GraphQLError(
                f"The answer could cost as much as {found:.0f} fields; {COST_MAX} are allowed. "
                "Ask for fewer entries at a time, or for less of each."
            )
        ]


def _is_named(context: ExecutionContext) -> bool:
    """Whether the request said which operation it means. Strawberry's public property answers the
    first one's name if it did not, and would run that."""
    return context._provided_operation_name is not None
