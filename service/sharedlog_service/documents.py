"""Documents: parsed and validated once, and refused when they would cost too much.

Strawberry's own limiters are not used: they walk a fragment again for each spread, which a short
document of fragments that spread each other twice turns into hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
)
from graphql.validation import specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document
from strawberry.types import ExecutionContext

TOKENS_MAX = 500
ALIASES_MAX = 30
# Introspection, as GraphiQL asks it, is 15 deep; the schema itself is not recursive.
DEPTH_MAX = 20
CACHED_DOCUMENTS = 128


class Checked(NamedTuple):
    """A document, and what is wrong with it."""

    document: DocumentNode
    errors: tuple[GraphQLError, ...]
    operations: int


Check = Callable[[str], Checked]


def document_check(schema: GraphQLSchema) -> Check:
    """Return a function that parses and validates a document, remembering the latest ones."""

    @lru_cache(maxsize=CACHED_DOCUMENTS)
    def check(text: str) -> Checked:
        document = parse(text, max_tokens=TOKENS_MAX)
        errors = validate_document(schema, document, specified_rules) or excess(document)
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
        return Checked(document, tuple(errors), len(operations))

    return check


class CheckedDocuments(SchemaExtension):
    """Gives Strawberry the checked document instead of letting it parse and validate."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query:
            checked = self._check(context.query)
            context.graphql_document = checked.document
            self._errors = [*checked.errors]
            if checked.operations > 1 and not _is_named(context):
                self._errors.append(GraphQLError("Several operations need an operationName."))
        yield

    def on_validate(self) -> Iterator[None]:
        self.execution_context.pre_execution_errors = self._errors
        yield


class Extent(NamedTuple):
    """How deep a selection goes and how many aliases it has, fragments unfolded."""

    depth: int
    aliases: int


def excess(document: DocumentNode) -> list[GraphQLError]:
    """Return an error for each limit that a valid document is over."""
    depth, aliases = _Measure(document).extent()
    found = []
    if depth > DEPTH_MAX:
        found.append(GraphQLError(f"The document is {depth} deep; {DEPTH_MAX} is allowed."))
    if aliases > ALIASES_MAX:
        found.append(
            GraphQLError(f"The document has {aliases} aliases; {ALIASES_MAX} are allowed.")
        )
    return found


class _Measure:
    """Measures each fragment once. Fragments must not be cyclic: validation comes first."""

    def __init__(self, document: DocumentNode) -> None:
        self._definitions = document.definitions
        self._fragments = {
            found.name.value: found
            for found in document.definitions
            if isinstance(found, FragmentDefinitionNode)
        }
        self._known: dict[str, Extent] = {}

    def extent(self) -> Extent:
        found = [
            self._of(definition.selection_set)
            for definition in self._definitions
            if isinstance(definition, OperationDefinitionNode)
        ]
        return Extent(
            max((extent.depth for extent in found), default=0),
            sum(extent.aliases for extent in found),
        )

    def _of(self, selections: SelectionSetNode | None) -> Extent:
        depth = aliases = 0
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                inner = self._of(node.selection_set)
                inner = Extent(inner.depth + 1, inner.aliases + bool(node.alias))
            elif isinstance(node, InlineFragmentNode):
                inner = self._of(node.selection_set)
            else:
                assert isinstance(node, FragmentSpreadNode)
                inner = self._of_fragment(node.name.value)
            depth = max(depth, inner.depth)
            aliases += inner.aliases
        return Extent(depth, aliases)

    def _of_fragment(self, name: str) -> Extent:
        if name not in self._known:
            self._known[name] = self._of(self._fragments[name].selection_set)
        return self._known[name]


def _is_named(context: ExecutionContext) -> bool:
    """Whether the request said which operation it means. Strawberry's public property answers the
    first one's name if it did not, and would run that."""
    return context._provided_operation_name is not None
