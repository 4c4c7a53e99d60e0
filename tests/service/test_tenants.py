"""Users never see each other: whatever is another's is answered as what there is not.

Walks the schema. An argument that could name something needs a case here, or the first test fails.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
import pytest
from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    is_non_null_type,
)

from sharedlog_service.api.schema import build_schema
from sharedlog_service.api.service_schema import ServiceSchema
from sharedlog_service.entries import NewEntry
from sharedlog_service.grants import EVERYTHING, Grant, Scope
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess
from tests.engines import Engine, Sqlite
from tests.service.support import NOON, Ids, ManualClock, change
from tests.volume import times

ATTEMPTS = times(3_000)

MEASURES = {"Int", "Float", "Boolean", "EntryOperation"}
"""Types of arguments that name nothing."""

CONTENT = {"createDeviceId name", "writeEntries entries", "writeEntries packed"}
"""Arguments that say what is written, and look for nothing."""

CASES: Mapping[str, str] = {
    "getDeviceInfo deviceId": "device",
    "getUnsyncedEntries deviceId": "device",
    "getUnsyncedEntries after": "cursor",
    "getUnsyncedEntries until": "cursor",
    "getUnsyncedEntries collections": "collections",
    "getUnsyncedEntries lineage": "lineage",
    "getOwnEntries deviceId": "device",
    "entries filter.deviceId": "device",
    "entries filter.collection": "collection",
    "entries filter.pk": "pk",
    "entries after": "cursor",
    "entries before": "cursor",
    "history collection": "collection",
    "history pk": "pk",
    "history after": "cursor",
    "createDeviceId requestId": "request",
    "createDeviceId deviceId": "device",
    "writeEntries deviceId": "device",
    "writeEntries after": "cursor",
    "writeEntries lineage": "lineage",
    "markAsSeen deviceId": "device",
    "markAsSeen cursor": "cursor",
    "revokeDevice deviceId": "device",
}
"""What each argument names; `userId`, which every field has, is a case of its own."""

TOLD = {"createDeviceId deviceId"}
"""An id belongs to one device of the whole service, so who chooses one that is taken is refused.
Ids are random; nothing else is told (see the test of it)."""

NO_QUESTION = {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_REQUEST", "INTERNAL"}
"""What must not be answered: then nothing was asked."""

OPEN = {"viewer", "limits"}
"""Fields that are about nobody's log."""

CANARY = "canary-51c0"
"""In all that bob has, but for ids."""


class Asked(NamedTuple):
    """A field, and what can be asked of it."""

    operation: str
    name: str
    field: GraphQLField


def fields(schema: ServiceSchema) -> Iterator[Asked]:
    found = schema._schema
    roots = {"query": found.query_type, "mutation": found.mutation_type}
    for operation, root in roots.items():
        assert root is not None
        namespace = get_named_type(root.fields["sharedSyncLog"].type)
        assert isinstance(namespace, GraphQLObjectType)
        for name, field in namespace.fields.items():
            yield Asked(operation, name, field)


def naming(name: str, argument: GraphQLArgument) -> Iterator[str]:
    """The argument, or what in it could name something, as `name` or `name.inner`."""
    kind = get_named_type(argument.type)
    if isinstance(kind, GraphQLInputObjectType) and kind.name == "EntryFilter":
        for inner, field in kind.fields.items():
            if get_named_type(field.type).name not in MEASURES:
                yield f"{name}.{inner}"
    elif kind.name not in MEASURES:
        yield name


def everything(kind: GraphQLObjectType, depth: int = 0) -> str:
    """Select all there is to be told."""
    parts = []
    for name, field in kind.fields.items():
        inner = get_named_type(field.type)
        if is_leaf_type(inner):
            parts.append(name)
        elif isinstance(inner, GraphQLObjectType) and depth < 1:
            parts.append(f"{name} {everything(inner, depth + 1)}")
    return "{" + " ".join(parts or ["__typename"]) + "}"


class Undone(Exception):
    """Ends a transaction that is not to be."""


class World:
    """Two users, with devices and entries each, and questions of one that change nothing."""

    def __init__(self, store: Store, ids: Ids) -> None:
        self.store = store
        self.schema = build_schema()
        self.asked = {asked.name: asked for asked in fields(self.schema)}
        self._ids = ids
        self.own = self._populate("ada", "ada's")
        self.foreign = self._populate("bob", CANARY)

    def _populate(self, user: str, mark: str) -> dict[str, Any]:
        """Make a user with two devices; return what names something of theirs, by kind."""
        store = self.store
        store.create_user(user)
        device = store.create_device(user, name=f"{mark} one", request_id=f"{user}-request")
        other = store.create_device(user, name=f"{mark} two")
        data = [change(f"{user}-{n}", collection=f"{user}-notes", value=mark) for n in range(3)]
        entries = [NewEntry(NOON + n, 0, text) for n, text in enumerate(data)]
        receipt = store.write(user, device, entries)
        store.write(user, other, [NewEntry(NOON + 9, 0, change("x", collection=f"{user}-notes"))])
        return {
            "user": user,
            "device": device,
            "cursor": str(store.stats(user).head),
            "collection": f"{user}-notes",
            "collections": [f"{user}-notes"],
            "pk": f"{user}-1",
            "lineage": receipt.lineage,
            "request": f"{user}-request",
        }

    def nobodys(self, number: int) -> dict[str, Any]:
        """What is shaped as bob's is, and names nothing."""
        cursor = self.foreign["cursor"].partition(".")[2]
        return {
            "user": f"nobody-{number}",
            "device": f"id-9{number:04}",
            "cursor": f"id-9{number:04}.{cursor}",
            "collection": f"nobody-{number}",
            "collections": [f"nobody-{number}"],
            "pk": f"nobody-{number}",
            "lineage": f"id-8{number:04}",
            "request": f"request-{number}",
        }

    def ask(self, grant: Grant, name: str, arguments: Mapping[str, Any]) -> str:
        """Ask a field for everything, undo what it did, and return the answer as text."""
        asked = self.asked[name]
        declared = ", ".join(f"${a}: {asked.field.args[a].type}" for a in arguments)
        passed = ", ".join(f"{a}: ${a}" for a in arguments)
        kind = get_named_type(asked.field.type)
        selected = everything(kind) if isinstance(kind, GraphQLObjectType) else ""
        head = f"{asked.operation} Ask({declared})"
        document = f"{head} {{sharedSyncLog {{{name}({passed}) {selected}}}}}"
        service = InProcess(self.store, grant, schema=self.schema)
        self._ids.numbers = iter(f"new-{number}" for number in range(100))  # type: ignore[assignment]
        answer: dict[str, Any] = {}
        with suppress(Undone), self.store.transaction():
            answer = service.execute(document, arguments)
            raise Undone
        codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
        assert not codes & NO_QUESTION, (document, arguments, answer)
        return orjson.dumps(answer).decode()

    def arguments(self, name: str, values: Mapping[str, Any], optional: bool) -> dict[str, Any]:
        """Arguments of a field that are ada's own, but for those whose values are given."""
        found: dict[str, Any] = {}
        for argument, kind in self.asked[name].field.args.items():
            paths = [p for p in naming(argument, kind) if f"{name} {p}" in CASES]
            chosen = {p: values[p] for p in paths if p in values}
            if argument == "userId":
                found[argument] = values.get(argument, "ada")
            elif argument == "filter":
                inner = {path.partition(".")[2]: value for path, value in chosen.items()}
                if "pk" in inner:
                    inner.setdefault("collection", self.own["collection"])
                found[argument] = inner
            elif chosen:
                found[argument] = chosen[argument]
            elif paths and (optional or is_non_null_type(kind.type)):
                found[argument] = self.own[CASES[f"{name} {argument}"]]
            elif argument in ("first", "batchSize"):
                found[argument] = 5
            elif argument == "packed":
                found[argument] = []
            elif argument == "withUpdate":
                found[argument] = True
        return found

    def answers(
        self, grant: Grant, name: str, paths: Mapping[str, str], number: int, *, optional: bool
    ) -> tuple[str, str]:
        """Ask the same of bob's things and of nobody's; what was asked for itself is left out of
        the answers, which may repeat it."""
        texts = []
        for values in (self.foreign, self.nobodys(number)):
            chosen = {path: values[kind] for path, kind in paths.items()}
            text = self.ask(grant, name, self.arguments(name, chosen, optional))
            for path, value in chosen.items():
                text = text.replace(orjson.dumps(value).decode(), f"<{path}>")
            texts.append(text)
        return texts[0], texts[1]


@pytest.fixture(params=["sqlite"])
def engine(tmp_path: Any) -> Engine:
    return Sqlite(tmp_path)


@pytest.fixture
def world(engine: Engine, clock: ManualClock) -> Iterator[World]:
    ids = Ids()
    store = Store.open(engine.place, now=clock, new_id=ids)
    yield World(store, ids)
    store.close()


GRANTS: Mapping[str, Grant] = {
    "reader": Grant("ada", frozenset({Scope.READ})),
    "writer": Grant("ada", frozenset({Scope.APPEND})),
    "manager": Grant("ada", frozenset({Scope.DEVICES})),
    "explorer": Grant("ada", frozenset({Scope.EXPLORE})),
    "everything": Grant("ada", EVERYTHING),
    "one device": Grant("ada", EVERYTHING, device="id-2"),
}

Paths = Mapping[str, str]


def paths_of(name: str) -> dict[str, str]:
    """The arguments of a field that name something, and what."""
    mine = {case.partition(" ")[2]: kind for case, kind in CASES.items() if case.split()[0] == name}
    return {**mine, "userId": "user"}


def test_every_argument_that_could_name_something_has_a_case() -> None:
    found = set()
    for asked in fields(build_schema()):
        if asked.name in OPEN:
            assert asked.field.args == {}
            continue
        assert "userId" in asked.field.args, asked.name
        for name, argument in asked.field.args.items():
            if name != "userId":
                found |= {f"{asked.name} {path}" for path in naming(name, argument)}
    assert found == CASES.keys() | CONTENT


def test_no_root_has_a_field_beside_the_namespace() -> None:
    schema = build_schema()._schema
    for root in (schema.query_type, schema.mutation_type):
        assert root is not None and [*root.fields] == ["sharedSyncLog"]


WALK = [
    *((case.split()[0], {case.split()[1]: kind}) for case, kind in CASES.items()),
    *((name, {"userId": "user"}) for name in sorted({case.split()[0] for case in CASES})),
    ("devices", {"userId": "user"}),
    ("stats", {"userId": "user"}),
]


@pytest.mark.parametrize("role", GRANTS)
def test_what_is_anothers_is_answered_as_what_there_is_not(world: World, role: str) -> None:
    """Each argument alone, the others being ada's own, given or left out."""
    asked = 0
    for name, paths in WALK:
        if f"{name} {next(iter(paths))}" in TOLD:
            continue
        for optional in (False, True):
            foreign, nobodys = world.answers(GRANTS[role], name, paths, 1, optional=optional)
            assert foreign == nobodys, (name, paths)
            assert CANARY not in foreign
            asked += 1
    assert asked == 2 * (len(WALK) - len(TOLD))
    assert {name for name, _ in WALK} | OPEN == world.asked.keys()


def test_what_is_ones_own_is_answered_otherwise(world: World) -> None:
    """The control: these very questions find something where there is something of one's own."""
    alike = []
    for case, kind in CASES.items():
        name, path = case.split()
        if case in TOLD:  # whatever is chosen is what is answered
            continue
        mine = world.ask(
            GRANTS["everything"], name, world.arguments(name, {path: world.own[kind]}, False)
        )
        _, nobodys = world.answers(GRANTS["everything"], name, {path: kind}, 1, optional=False)
        if mine == nobodys.replace(f"<{path}>", orjson.dumps(world.own[kind]).decode()):
            alike.append(case)
    assert alike == []


def test_by_chance_nothing_is_told_either(world: World) -> None:
    """Several arguments at a time, by seed."""
    rng = random.Random(4)
    names = sorted(world.asked.keys() - OPEN)
    for number in range(ATTEMPTS):
        name, role = rng.choice(names), rng.choice([*GRANTS])
        possible = [p for p in paths_of(name) if f"{name} {p}" not in TOLD]
        chosen = rng.sample(possible, rng.randint(1, len(possible)))
        paths = {path: paths_of(name)[path] for path in chosen}
        optional = rng.random() < 0.5
        foreign, nobodys = world.answers(GRANTS[role], name, paths, number, optional=optional)
        assert foreign == nobodys, (number, name, role, paths)
        assert CANARY not in foreign, (number, name, role, paths)


def test_an_id_that_is_taken_cannot_be_chosen_and_tells_nothing_else(world: World) -> None:
    arguments = {"userId": "ada", "deviceId": world.foreign["device"]}
    answer = orjson.loads(world.ask(GRANTS["everything"], "createDeviceId", arguments))
    [error] = answer["errors"]
    assert error["extensions"] == {"code": "DEVICE_UNKNOWN"}
    assert CANARY not in str(answer)
    assert world.store.device("ada", world.foreign["device"]) is None


def test_questions_change_nothing(world: World) -> None:
    """What the others rely on: each question finds the same world."""
    before = world.store.stats("ada"), world.store.devices("ada"), world.store.devices("bob")
    world.ask(GRANTS["everything"], "createDeviceId", {"userId": "ada"})
    revoke: dict[str, Any] = {"userId": "ada", "deviceId": world.own["device"]}
    assert '"revoked":true' in world.ask(GRANTS["everything"], "revokeDevice", revoke)
    after = world.store.stats("ada"), world.store.devices("ada"), world.store.devices("bob")
    assert before == after
