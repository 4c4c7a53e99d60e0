"""`schema.graphql` is what the code says, and everything in it is described."""

from __future__ import annotations

from collections.abc import Iterator

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    is_introspection_type,
    is_specified_directive,
    is_specified_scalar_type,
)

from sharedlog_service.api.schema import build_schema as build_service_schema
from tests.meta.source import ROOT

FILE = ROOT / "schema.graphql"


def test_the_file_is_what_the_code_says() -> None:
    said = build_service_schema().as_str() + "\n"

    assert FILE.read_text(encoding="utf-8") == said, "run: make schema"


def test_everything_is_described() -> None:
    schema = build_schema(FILE.read_text(encoding="utf-8"))

    assert list(undescribed(schema)) == []


def test_what_is_not_described_is_found() -> None:
    schema = build_schema(
        '"A" type Query { bare(argument: In): E } "B" input In { x: Int } "C" enum E { A }'
    )

    found = set(undescribed(schema))

    assert found == {"Query.bare", "Query.bare(argument:)", "In.x", "E.A"}


def undescribed(schema: GraphQLSchema) -> Iterator[str]:
    for named in schema.type_map.values():
        if not (is_introspection_type(named) or is_specified_scalar_type(named)):
            yield from undescribed_in(named)
    for directive in schema.directives:
        if not is_specified_directive(directive) and not directive.description:
            yield f"@{directive.name}"


def undescribed_in(named: GraphQLNamedType) -> Iterator[str]:
    if not named.description:
        yield named.name
    if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
        for name, field in named.fields.items():
            if not field.description:
                yield f"{named.name}.{name}"
            for argument, detail in field.args.items():
                if not detail.description:
                    yield f"{named.name}.{name}({argument}:)"
    elif isinstance(named, GraphQLInputObjectType):
        yield from (f"{named.name}.{n}" for n, f in named.fields.items() if not f.description)
    elif isinstance(named, GraphQLEnumType):
        yield from (f"{named.name}.{n}" for n, v in named.values.items() if not v.description)
