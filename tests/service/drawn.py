"""Documents drawn by chance along a schema: some are valid, some nearly, all are odd."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
)

NUMBERS = ("0", "1", "7", "100", "1000", "-1", "2147483647", "2147483648", "1.5", "1e3", "1e999")
TEXTS = ('"ada"', '"x"', '""', '"\\u0000"', '"""block"""', '"\U0001d4b3"', '"ada.1"')
ODD = ("null", "[]", "{}", "[[1, 0, 1]]", "{a: [1]}", "true", "$undeclared", "NAME")
DIRECTIVES = ("@include(if: true)", "@skip(if: false)", "@skip(if: true)")


class DrawnDocuments:
    """Draws documents; `oddness` is how often something is not as the schema wants it."""

    def __init__(
        self, schema: GraphQLSchema, rng: random.Random, *, size: int = 40, oddness: float = 0.01
    ) -> None:
        self._schema = schema
        self._rng = rng
        self._size = size
        self._oddness = oddness

    def draw(self) -> tuple[str, dict[str, Any]]:
        """Return a document and variables for it."""
        self._left = self._rng.randrange(3, self._size)
        self._variables: dict[str, GraphQLInputType] = {}
        self._asked: set[str] = set()
        self._fragments: dict[str, str] = {}
        kind = self._rng.choice(("query", "query", "query", "mutation"))
        root = self._schema.mutation_type if kind == "mutation" else self._schema.query_type
        assert root is not None
        body = self._selection(root, 0)
        declared = "".join(f"${name}: {type} " for name, type in self._variables.items())
        head = f"{kind} Drawn({declared})" if declared else kind
        values = {name: self._json(type) for name, type in self._variables.items()}
        return " ".join([head, body, *self._fragments.values()]), values

    def _selection(self, parent: GraphQLObjectType, depth: int) -> str:
        parts = [self._part(parent, depth) for _ in range(self._rng.choice((1, 1, 2, 4)))]
        return "{" + " ".join(parts) + "}"

    def _part(self, parent: GraphQLObjectType, depth: int) -> str:
        self._left -= 1
        chance = self._rng.random()
        if self._left < 0 or depth > 14 or chance < 0.05:
            return "__typename"
        if chance < 0.12:
            return f"... on {parent.name} {self._selection(parent, depth + 1)}"
        if chance < 0.2:
            return f"...{self._fragment(parent, depth)}"
        if chance < 0.2 + self._oddness:
            return self._rng.choice(("nothing", "...missing", "data {a}", "a: b: c"))
        fields: Mapping[str, GraphQLField] = parent.fields
        if parent is self._schema.query_type and chance < 0.35:
            return "__schema " + self._selection(self._type("__Schema"), depth + 1)
        name = self._rng.choice(list(fields))
        return self._field(name, fields[name], depth)

    def _field(self, name: str, field: GraphQLField, depth: int) -> str:
        # With other arguments the same field needs another name.
        again = bool(field.args) and name in self._asked
        self._asked.add(name)
        odd = self._rng.random() < self._oddness
        alias = f"a{len(self._asked)}{self._left}: " if again is not odd else ""
        directive = self._rng.choice(DIRECTIVES) if self._rng.random() < 0.05 else ""
        inner = get_named_type(field.type)
        below = self._selection(inner, depth + 1) if isinstance(inner, GraphQLObjectType) else ""
        return f"{alias}{name}{self._arguments(field.args)} {directive}{below}"

    def _fragment(self, parent: GraphQLObjectType, depth: int) -> str:
        name = f"{parent.name}{self._rng.randrange(3)}"
        if name not in self._fragments:
            # Named before it is drawn, so that some spread themselves.
            self._fragments[name] = ""
            body = self._selection(parent, depth + 1)
            self._fragments[name] = f"fragment {name} on {parent.name} {body}"
        return name

    def _arguments(self, arguments: Mapping[str, GraphQLArgument]) -> str:
        given = [
            f"{name}: {self._value(name, argument.type)}"
            for name, argument in arguments.items()
            if is_non_null_type(argument.type) or self._rng.random() < 0.3
        ]
        return "(" + ", ".join(given) + ")" if given else ""

    def _value(self, name: str, type: GraphQLInputType) -> str:
        if self._rng.random() < self._oddness:
            return self._rng.choice((*ODD, *NUMBERS, *TEXTS))
        if self._rng.random() < 0.2:
            variable = f"{name}{len(str(type))}"
            self._variables[variable] = type
            return f"${variable}"
        inner = get_nullable_type(type)
        if is_list_type(inner):
            count = self._rng.choice((0, 1, 2, 9))
            return "[" + " ".join(self._value(name, inner.of_type) for _ in range(count)) + "]"
        named: GraphQLNamedType = get_named_type(type)
        if isinstance(named, GraphQLInputObjectType):
            members = (f"{n}: {self._value(n, f.type)}" for n, f in named.fields.items())
            return "{" + ", ".join(members) + "}"
        if isinstance(named, GraphQLEnumType):
            return str(self._rng.choice(list(named.values)))
        if named.name in ("Int", "Float"):
            return self._rng.choice(NUMBERS)
        if named.name == "Boolean":
            return self._rng.choice(("true", "false"))
        return self._rng.choice(TEXTS if named.name in ("ID", "String", "Cursor") else ODD[1:6])

    def _json(self, type: GraphQLInputType) -> Any:
        """Return a value for a variable, which need not fit."""
        fitting = {"Int": 10, "Float": 1.5, "Boolean": True, "PackedEntries": [[1024, 0, "x"]]}
        if self._rng.random() < 0.7:
            return fitting.get(get_named_type(type).name, "ada")
        return self._rng.choice((None, 0, -1, 2**31, 1e300, "x", "", [], {}, [[[]]], {"a": None}))

    def _type(self, name: str) -> GraphQLObjectType:
        found = self._schema.type_map[name]
        assert isinstance(found, GraphQLObjectType)
        return found
