"""The service inside another program: mounted, with fields of its own, behind its own endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import strawberry
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig

from sharedlog.remote.documents import ABOUT
from sharedlog_service import embedding
from sharedlog_service.embedding import (
    EVERYTHING,
    SCALARS,
    USUAL,
    Context,
    Grant,
    Rates,
    Service,
    Settings,
    SharedSyncLogMutation,
    SharedSyncLogQuery,
    build_schema,
    create_app,
)
from sharedlog_service.web.guard import STRANGER_BYTES_MAX
from tests.meta.source import ROOT
from tests.service.support import CREATE_DEVICE, ManualClock
from tests.service.test_guard import BODIES

LOCAL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class ShopContext(Context):
    shop: str


ShopInfo = strawberry.Info[ShopContext, None]


@strawberry.type
class Query:
    shared_sync_log: SharedSyncLogQuery = strawberry.field(resolver=SharedSyncLogQuery)

    @strawberry.field
    def shop(self, info: ShopInfo) -> str:
        return info.context.shop

    @strawberry.field
    def refused(self) -> str:
        raise GraphQLError("We are closed.", extensions={"code": "CLOSED"})

    @strawberry.field
    def broken(self) -> str:
        raise RuntimeError("CANARY")


@strawberry.type
class Mutation:
    shared_sync_log: SharedSyncLogMutation = strawberry.field(resolver=SharedSyncLogMutation)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def shops(self, info: ShopInfo) -> AsyncIterator[str]:
        yield info.context.shop


def by_name(headers: Mapping[str, str]) -> Grant | None:
    name = headers.get("x-name")
    return None if name is None else Grant(name, USUAL)


def of_shop(request: HTTPConnection, log: Context) -> ShopContext:
    return log.inside(ShopContext, shop=request.headers["x-shop"])


ADA = {"x-name": "ada", "x-shop": "corner"}
SHOP = "query Front {shop sharedSyncLog {viewer}}"
FIND = '{shop sharedSyncLog {devices(userId: "ada") {id}}}'


def with_own_fields(folder: Path, **settings: Any) -> Starlette:
    schema = build_schema(Query, Mutation, subscription=Subscription, documents=[SHOP])
    chosen = Settings(db=folder / "log.db", **settings)
    return create_app(chosen, authenticate=by_name, schema=schema, context=of_shop)


def mounted(folder: Path, **settings: Any) -> Starlette:
    inner = create_app(Settings(db=folder / "log.db", **settings), authenticate=by_name)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    return Starlette(routes=[Mount("/sync", inner)], lifespan=lifespan)


class OwnEndpoint(GraphQL[Any, None]):
    def __init__(self, service: Service, schema: strawberry.Schema) -> None:
        super().__init__(schema, graphql_ide=None)
        self._service = service

    async def get_context(self, request: Any, response: Any) -> Any:
        return of_shop(request, await self._service.context(request))


def behind_its_own_endpoint(folder: Path, schema: strawberry.Schema, **settings: Any) -> Starlette:
    service = Service(Settings(db=folder / "log.db", **settings), by_name)
    endpoint = OwnEndpoint(service, schema)
    return Starlette(
        routes=[Route("/graphql", endpoint, methods=["POST"])], lifespan=service.lifespan
    )


def own_schema() -> strawberry.Schema:
    config = StrawberryConfig(scalar_map=SCALARS)
    return strawberry.Schema(query=Query, mutation=Mutation, config=config)


def ask(client: TestClient, document: str, path: str = "/graphql", **variables: Any) -> Any:
    return client.post(path, json={"query": document, "variables": variables}).json()


def code_of(answer: Any) -> str:
    code: str = answer["errors"][0]["extensions"]["code"]
    return code


def test_the_names_are_all_in_the_page() -> None:
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    assert [name for name in embedding.__all__ if not re.search(rf"\b{name}\b", page)] == []
    assert all(hasattr(embedding, name) for name in embedding.__all__)


def test_a_mounted_service_opens_and_closes_with_the_program(tmp_path: Path) -> None:
    app = mounted(tmp_path)
    for number in range(2):  # it can be served more than once
        with TestClient(app, base_url=LOCAL, headers=ADA) as client:
            assert "errors" not in ask(client, CREATE_DEVICE, "/sync/graphql", user="ada")
            devices = ask(client, FIND.replace("shop ", ""), "/sync/graphql")
            assert len(devices["data"]["sharedSyncLog"]["devices"]) == number + 1
            assert client.get("/sync/healthz").status_code == 200
            assert client.get("/graphql").status_code == 404


@pytest.mark.parametrize("make", [mounted, with_own_fields])
@pytest.mark.parametrize("name", BODIES)
def test_the_guards_stand_in_front_of_it(
    tmp_path: Path, make: Callable[[Path], Starlette], name: str
) -> None:
    with TestClient(make(tmp_path), base_url=LOCAL, headers=ADA) as client:
        path = "/sync/graphql" if make is mounted else "/graphql"
        headers = {"content-type": "application/json"}
        response = client.post(path, content=BODIES[name], headers=headers)
        assert 400 <= response.status_code < 500
        assert code_of(response.json())


def test_own_fields_stand_beside_the_namespace(tmp_path: Path) -> None:
    with TestClient(with_own_fields(tmp_path), base_url=LOCAL, headers=ADA) as client:
        assert ask(client, CREATE_DEVICE, user="ada")["data"]
        answer = ask(client, FIND)["data"]
        assert answer["shop"] == "corner"
        assert len(answer["sharedSyncLog"]["devices"]) == 1
        # The library's own documents find all of theirs.
        assert ask(client, ABOUT)["data"]["sharedSyncLog"]["viewer"] == "ada"


def test_own_fields_are_given_the_context_on_sockets_too(tmp_path: Path) -> None:
    with (
        TestClient(with_own_fields(tmp_path), base_url=LOCAL, headers=ADA) as client,
        client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as socket,
    ):
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json()["type"] == "connection_ack"
        subscribe = {"query": "subscription {shops}"}
        socket.send_json({"type": "subscribe", "id": "1", "payload": subscribe})
        assert socket.receive_json()["payload"] == {"data": {"shops": "corner"}}


def test_where_nobody_explores_own_documents_are_answered_and_others_not(tmp_path: Path) -> None:
    app = with_own_fields(tmp_path, explore=False)
    with TestClient(app, base_url=LOCAL, headers=ADA) as client:
        assert ask(client, SHOP)["data"] == {"shop": "corner", "sharedSyncLog": {"viewer": "ada"}}
        assert ask(client, ABOUT)["data"]
        assert code_of(ask(client, "{shop}")) == "DOCUMENT_NOT_ALLOWED"


def test_own_failures_are_masked_unless_they_have_a_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(with_own_fields(tmp_path), base_url=LOCAL, headers=ADA) as client:
        [error] = ask(client, "{refused}")["errors"]
        assert (error["message"], error["extensions"]["code"]) == ("We are closed.", "CLOSED")
        with caplog.at_level(logging.DEBUG):
            broken = ask(client, "{broken}")
    assert code_of(broken) == "INTERNAL"
    assert "CANARY" not in f"{broken}{caplog.text}"


def test_who_asks_is_found_out_once_a_request_and_once_a_socket(tmp_path: Path) -> None:
    """Though a long body, a document of one's own and each resolver want to know."""
    asked: list[str | None] = []

    async def counting(headers: Mapping[str, str]) -> Grant:
        asked.append(headers.get("authorization"))
        return Grant("ada", EVERYTHING)

    settings = Settings(db=tmp_path / "log.db", explore=False)
    find = '{sharedSyncLog {devices(userId: "ada") {id}}}'
    with TestClient(create_app(settings, authenticate=counting), base_url=LOCAL) as client:
        assert ask(client, CREATE_DEVICE, user="ada")["data"]
        assert asked.pop() is None
        body = json.dumps({"query": find}) + " " * STRANGER_BYTES_MAX
        headers = {"content-type": "application/json", "authorization": "1"}
        assert client.post("/graphql", content=body, headers=headers).json()["data"]
        assert asked == ["1"]
        with client.websocket_connect("/graphql", ["graphql-transport-ws"]) as socket:
            socket.send_json({"type": "connection_init", "payload": {"authorization": "2"}})
            assert socket.receive_json()["type"] == "connection_ack"
            for name in ("a", "b"):
                socket.send_json({"type": "subscribe", "id": name, "payload": {"query": find}})
                assert socket.receive_json()["payload"]["data"]
                assert socket.receive_json() == {"type": "complete", "id": name}
        assert asked == ["1", "2"]


def test_two_services_behind_one_endpoint_ask_each_for_itself(tmp_path: Path) -> None:
    def of(name: str) -> Service:
        return Service(Settings(db=tmp_path / f"{name}.db"), lambda headers: Grant(name))

    one, two = of("one"), of("two")
    scope: dict[str, Any] = {"type": "http", "headers": []}

    async def both() -> list[Any]:
        return [await service.access(scope) for service in (one, two, one)]

    first, second, again = asyncio.run(both())
    assert first is again
    assert first is not second


def test_own_documents_have_the_limits_of_documents(tmp_path: Path) -> None:
    with TestClient(with_own_fields(tmp_path), base_url=LOCAL, headers=ADA) as client:
        many = " ".join(f"a{n}: shop" for n in range(20))
        assert code_of(ask(client, f"{{{many}}}")) == "GRAPHQL_VALIDATION_FAILED"


@pytest.mark.parametrize("make", [own_schema, lambda: build_schema(Query, Mutation)])
def test_an_endpoint_of_its_own_has_access_and_rates(
    tmp_path: Path, make: Callable[[], strawberry.Schema]
) -> None:
    steady = ManualClock(0)
    rates = Rates(requests=4)
    app = behind_its_own_endpoint(tmp_path, make(), steady=steady, rates=rates)
    with TestClient(app, base_url=LOCAL, headers=ADA) as client:
        assert ask(client, CREATE_DEVICE, user="ada")["data"]
        for _ in range(2):
            answer = ask(client, FIND)["data"]
            assert (answer["shop"], len(answer["sharedSyncLog"]["devices"])) == ("corner", 1)
        others = ask(client, FIND.replace("ada", "bob"))
        assert others["data"] is None
        messages = [ask(client, FIND).get("errors") for _ in range(3)]
        assert messages[0] is None
        assert "Too much" in messages[2][0]["message"]
        client.headers.pop("x-name")
        nobody = ask(client, FIND)
        assert nobody["data"] is None
        assert "bearer token" in nobody["errors"][0]["message"]


def test_only_the_services_schema_class_masks_what_is_not_expected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the page says of the ways."""
    for schema, masked in ((own_schema(), False), (build_schema(Query, Mutation), True)):
        caplog.clear()
        app = behind_its_own_endpoint(tmp_path, schema)
        with TestClient(app, base_url=LOCAL, headers=ADA) as client:
            assert code_of(ask(client, FIND.replace("ada", "bob"))) == "FORBIDDEN"
            broken = ask(client, "{broken}")
        assert ("CANARY" not in str(broken)) is masked
        assert ("CANARY" not in caplog.text) is masked
