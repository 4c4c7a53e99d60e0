"""What a document would cost to answer: about how many fields, with the variables it comes with.

Answering a field takes some microseconds, whatever it says, and all of them on the thread that
serves everybody. So it is counted before: a list is taken to be as long as the nearest `first`,
`last` or `batchSize` says, or as what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    get_operation_ast,
    is_list_type,
)

from sharedlog_service.api.extent import fragments_of

COST_MAX = 4_200
"""Fields of an answer, each some 5 to 8 microseconds."""

ITEM_COST = 3
"""What an object in a list costs beside its fields: it is read and made."""

PAGED_COST = 1
"""What an entry of a page costs, however it is answered."""

SENT_COST = 6
"""What an entry that is sent as an object costs: its members are converted each."""

LENGTH = 100
"""How long a list is of which nothing is said."""

LENGTHS = ("first", "last", "batchSize")
"""Arguments that say how long."""

SENT: Set[str] = frozenset(("entries", "packed"))
"""Arguments that bring entries, each of which has a result."""

INTROSPECTED: Mapping[str, Mapping[str, float]] = {
    "__Schema": {"types": 40, "directives": 5},
    "__Type": {
        "fields": 4,
        "inputFields": 0.3,
        "enumValues": 1,
        "ofType": 0.5,
        "interfaces": 0,
        "possibleTypes": 0,
    },
    "__Field": {"args": 0.4},
    "__Directive": {"args": 1, "locations": 2},
}
"""How many of what introspection asks for there are in this schema, on the average."""


def cost(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation_name: str | None,
    variables: Mapping[str, Any] | None,
) -> float:
    """Return what a valid document's operation would cost, in fields."""
    operation = get_operation_ast(document, operation_name)
    if operation is None:
        return 0
    root = schema.get_root_type(operation.operation)
    estimate = _Estimate(schema, document, operation, variables or {})
    return 0 if root is None else estimate.of(root, operation.selection_set)


class Lengths(NamedTuple):
    """How long lists can be: what stands right here, and what stands further below. A receipt
    has a result for each entry that was sent, and below it a page of others."""

    here: float = LENGTH
    below: float = LENGTH


class _Estimate:
    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self._schema = schema
        self._fragments = fragments_of(document)
        defaults = {
            found.variable.name.value: found.default_value
            for found in operation.variable_definitions or ()
        }
        self._variables = {**defaults, **variables}
        self._known: dict[tuple[str, Lengths], float] = {}

    def of(
        self,
        parent: GraphQLNamedType,
        selections: SelectionSetNode | None,
        lengths: Lengths | None = None,
    ) -> float:
        lengths = lengths or Lengths()
        total: float = 0
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                total += self._of_field(parent, node, lengths)
            elif isinstance(node, InlineFragmentNode):
                total += self.of(parent, node.selection_set, lengths)
            else:
                assert isinstance(node, FragmentSpreadNode)
                total += self._of_fragment(parent, node.name.value, lengths)
        return total

    def _of_fragment(self, parent: GraphQLNamedType, name: str, lengths: Lengths) -> float:
        if (name, lengths) not in self._known:
            selections = self._fragments[name].selection_set
            self._known[name, lengths] = self.of(parent, selections, lengths)
        return self._known[name, lengths]

    def _of_field(self, parent: GraphQLNamedType, node: FieldNode, lengths: Lengths) -> float:
        field = self._schema.get_field(parent, node.name.value)  # type: ignore[arg-type]
        if field is None:
            return 1
        inner_type = get_named_type(field.type)
        if parent.name in INTROSPECTED:
            times = INTROSPECTED[parent.name].get(node.name.value, 1)
            return 1 + times * self.of(inner_type, node.selection_set)
        many = is_list_type(get_nullable_type(field.type))
        said, taken = self._asked_for(field, node)
        if said is None:
            length, said = lengths.here, Lengths(lengths.below, lengths.below)
        else:
            length = said.here
        inner = self.of(inner_type, node.selection_set, said)
        return 1 + taken + (length * (ITEM_COST + inner) if many else inner)

    def _asked_for(self, field: GraphQLField, node: FieldNode) -> tuple[Lengths | None, float]:
        """Return how long the arguments let lists become, None if they do not say; and what the
        entries cost that are read or taken."""
        given = {found.name.value: self._value(found.value) for found in node.arguments or ()}
        asked = [
            given.get(name, field.args[name].default_value)
            for name in LENGTHS
            if name in field.args
        ]
        if not asked:
            return None, 0
        # A number that is no Int is refused later, by name.
        fitting = [n for n in asked if type(n) is int and 0 <= n < 2**31]
        page = max(fitting, default=LENGTH)
        taken = page * PAGED_COST if "batchSize" in field.args else 0
        if not field.args.keys() & SENT:
            taken += sum(len(found) for found in given.values() if type(found) is list)
            return Lengths(page, page), taken
        sent = {name: len(given[name]) for name in SENT if type(given.get(name)) is list}
        taken += sent.get("entries", 0) * SENT_COST
        return Lengths(max(sent.values(), default=0), page), taken

    def _value(self, node: ValueNode) -> Any:
        """Return the number or the list that stands here, of which only the length counts."""
        if isinstance(node, VariableNode):
            found = self._variables.get(node.name.value)
            return self._value(found) if isinstance(found, ValueNode) else found
        if isinstance(node, IntValueNode):
            return int(node.value)
        return list(node.values) if isinstance(node, ListValueNode) else None
