"""How much a document asks for: measured before it is validated, and again before it is run.

Strawberry's own limiters are not used: they walk a fragment again for each spread, which a short
document of fragments that spread each other twice turns into hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)
from graphql.language import TokenKind

DEPTH_MAX = 20
"""Introspection, as GraphiQL asks it, is 15 deep; the schema itself is not recursive."""

FIELDS_MAX = 300
ALIASES_MAX = 15
DIRECTIVES_MAX = 20
NUMBER_CHARS_MAX = 64

ROOT_FIELDS_MAX = 4

CALLS_MAX = 8
"""Fields below the root ones, such as `stats` in `sharedSyncLog`: each asks the database."""


class Extent(NamedTuple):
    """What a selection comes to, its fragments unfolded."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    roots: int = 0
    calls: int = 0

    def beside(self, other: Extent) -> Extent:
        """Both, one after the other."""
        depth = max(self.depth, other.depth)
        return Extent(depth, *(a + b for a, b in zip(self[1:], other[1:], strict=True)))


MAXIMA = Extent(DEPTH_MAX, FIELDS_MAX, ALIASES_MAX, DIRECTIVES_MAX, ROOT_FIELDS_MAX, CALLS_MAX)

WORDS = (*Extent._fields[:4], "fields at its root", "fields below those")


def excess(document: DocumentNode) -> list[GraphQLError]:
    """Return an error for each limit that a document is over."""
    extent = measure(document)
    found = [
        GraphQLError(f"The document's {word} come to {_shown(count)}; {most} are allowed.")
        for word, count, most in zip(WORDS, extent, MAXIMA, strict=True)
        if count > most
    ]
    if any(len(number) > NUMBER_CHARS_MAX for number in _numbers(document)):
        found.append(GraphQLError(f"A number has {NUMBER_CHARS_MAX} characters at most."))
    return found


def fragments_of(document: DocumentNode) -> Mapping[str, FragmentDefinitionNode]:
    return {
        found.name.value: found
        for found in document.definitions
        if isinstance(found, FragmentDefinitionNode)
    }


def measure(document: DocumentNode) -> Extent:
    return _Measure(document).extent()


class _Measure:
    """Measures each fragment once. What validation would find wrong counts as nothing here."""

    def __init__(self, document: DocumentNode) -> None:
        self._definitions = document.definitions
        self._fragments = fragments_of(document)
        self._known: dict[str, Extent] = {}

    def extent(self) -> Extent:
        total = Extent()
        for definition in self._definitions:
            if isinstance(definition, OperationDefinitionNode):
                total = total.beside(self._of(definition.selection_set))
                total = total.beside(Extent(directives=len(definition.directives or ())))
        return total

    def _of(self, selections: SelectionSetNode | None) -> Extent:
        total = Extent()
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                inner = self._of_field(node)
            elif isinstance(node, InlineFragmentNode):
                inner = self._of(node.selection_set)
            else:
                assert isinstance(node, FragmentSpreadNode)
                inner = self._of_fragment(node.name.value)
            total = total.beside(inner).beside(Extent(directives=len(node.directives or ())))
        return total

    def _of_field(self, node: FieldNode) -> Extent:
        inner = self._of(node.selection_set)
        return Extent(
            depth=inner.depth + 1,
            fields=inner.fields + 1,
            aliases=inner.aliases + bool(node.alias),
            directives=inner.directives,
            roots=1,
            calls=inner.roots,
        )

    def _of_fragment(self, name: str) -> Extent:
        if name not in self._known:
            # A fragment that spreads itself ends here; validation refuses it.
            self._known[name] = Extent()
            if fragment := self._fragments.get(name):
                self._known[name] = self._of(fragment.selection_set)
        return self._known[name]


def _numbers(document: DocumentNode) -> Iterator[str]:
    token = document.loc.start_token if document.loc else None
    while token is not None:
        if token.kind in (TokenKind.INT, TokenKind.FLOAT):
            yield token.value or ""
        token = token.next


def _shown(count: int) -> str:
    return str(count) if count < 1_000_000 else "millions"
