"""Imports run one way, neither package imports the other, and importing does nothing.

A new module gets its place in the layers here, consciously. A module may import from the layers
above its own line only (not from its neighbours), in functions too.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.meta.source import PACKAGES, imported, modules, shown, tree


def within(package: str, *layers: set[str]) -> tuple[set[str], ...]:
    """A package's own layers. Its `__init__` says what it is for and imports nothing, unless it
    is named among them."""
    named = [{f"{package}.{name}".removesuffix(".__init__") for name in layer} for layer in layers]
    return tuple(named) if any(package in layer for layer in named) else ({package}, *named)


CLIENT_LAYERS = (
    {"errors", "clock", "layout", "limits"},
    {"changes", "groups"},
    {"raw"},
    *within("dialects", {"base", "tokens"}, {"sqlite", "postgres", "mysql"}, {"__init__"}),
    *within("values", {"decimals"}, {"fields"}, {"typed"}),
    *within(
        "merge", {"rules"}, {"counter", "custom", "extremes", "members", "reconcile"}, {"runs"}
    ),
    *within("evolution", {"formerly"}, {"evolution"}, {"restating"}),
    *within(
        "models",
        {"columns", "syncmodel"},
        {"tracked"},
        {"declarations", "naming"},
        {"registry"},
    ),
    *within(
        "journal",
        {"transactions"},
        {"state"},
        {"journal"},
        {"inbox", "recorder", "reset"},
        {"status"},
    ),
    *within(
        "tables",
        {"checks", "collations", "folding", "numbers", "statements", "stored"},
        {"inserts", "rows"},
        {"expressed"},
        {"uniques", "versions"},
        {"digest", "reattribution", "ruled"},
    ),
    *within(
        "triggers",
        {"ddl", "marks"},
        {"pgtriggers", "traces"},
        {"harvest", "pgtraces"},
        {"tracing"},
        {"pgtracing"},
    ),
    *within(
        "capture",
        {"adopt", "answer", "comparing", "rivals"},
        {"concerned", "foreignkeys"},
        {"capture"},
    ),
    *within(
        "remote",
        {"addresses", "documents", "history"},
        {"transports"},
        {"subscriptions"},
        {"sharedlog"},
        {"listening", "memory"},
    ),
    *within(
        "apply",
        {"arrivals", "atwork", "collector", "conflicts", "parking", "preparing"},
        {"parents"},
        {"letters", "names"},
        {"claims", "fates"},
        {"placement"},
        {"applier"},
    ),
    {"events"},
    *within(
        "exchange",
        {"identity", "pipeline", "restamping"},
        {"relearning", "replica"},
        {"carryover", "horizon", "lineage", "registration"},
        {"exchange"},
    ),
    *within("care", {"described", "replay"}, {"verify"}, {"care", "inspection"}),
    {"recording"},
    {"sync"},
    {"live"},
    *within(
        "keys",
        {"ddl", "making", "models"},
        {"catalog"},
        {"plan"},
        {"before", "rebuild"},
        {"migration"},
        {"__init__"},
        {"command"},
    ),
    {"__init__"},
    *within(
        "demo",
        {"models", "proof", "screen", "signals"},
        {"data", "device", "edits", "service", "tables"},
        {"story"},
        {"__init__"},
    ),
    {"commands"},
    {"cli"},
)

SERVICE_LAYERS = (
    {"errors"},
    {"entries", "grants", "settings"},
    *within("engines", {"notices", "session"}, {"tables"}, {"postgres", "sqlite"}, {"database"}),
    *within(
        "store",
        {"beginnings", "copying", "places", "pokes"},
        {"accounts", "appending", "digests", "paging"},
        {"browsing", "devices"},
        {"compacting"},
        {"store"},
        {"backup", "writer"},
        {"upkeep"},
    ),
    *within("access", {"answers", "auth", "jwks"}, {"metering", "provider", "watch"}),
    *within(
        "api",
        {"extent", "faults", "known", "records", "wire"},
        {"arguments", "context", "cost", "overview", "service_schema"},
        {"documents", "reading", "subscription"},
        {"schema"},
    ),
    *within(
        "web",
        {"answering", "compression", "patience", "reporting", "request", "spans"},
        {"graphiql", "guard", "metrics"},
        {"recording", "service", "sockets"},
        {"endpoint", "textframes"},
        {"app"},
    ),
    *within(
        "commands",
        {"listing", "options", "processes"},
        {"choosing", "serving"},
        {"common"},
        {"inspection", "maintenance"},
    ),
    {"embedding"},
    {"cli"},
    {"__init__"},
)

LAYERS: Mapping[str, Sequence[set[str]]] = {
    "sharedlog": CLIENT_LAYERS,
    "sharedlog_service": SERVICE_LAYERS,
}

DATABASE = {"peewee", "playhouse", "sqlite3", "apsw", "psycopg"}
NETWORK = {"gql", "graphql", "httpx2", "socket", "http", "urllib", "asyncio", "ssl", "websockets"}

PURE = ("clock", "changes", "merge", "evolution")
STORE_SIDE = ("engines", "store")
GRAPHQL_SIDE = ("api", "web")
"""Modules, and packages with all that is in them."""


def among(names: Sequence[str], module: str) -> bool:
    return module.partition(".")[0] in names


MODULES = [
    pytest.param(package, name, path, id=f"{package}.{name}")
    for package in PACKAGES
    for name, path in modules(package).items()
]


def roots(package: str, path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imported(package, path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_place(package: str) -> None:
    placed = [name for layer in LAYERS[package] for name in layer]

    assert len(placed) == len(set(placed))
    assert set(placed) == set(modules(package))


@pytest.mark.parametrize(("package", "name", "path"), MODULES)
def test_imports_run_one_way(package: str, name: str, path: Path) -> None:
    height = {module: level for level, layer in enumerate(LAYERS[package]) for module in layer}
    if name not in height:
        pytest.skip("it has no place yet, which test_every_module_has_its_place tells")

    upward = [
        f"{shown(path)}:{line} imports {module}"
        for module, line in imported(package, path)
        if module.split(".")[0] == package
        and height.get(module.partition(".")[2] or "__init__", 0) >= height[name]
    ]

    assert upward == []


@pytest.mark.parametrize(("package", "name", "path"), MODULES)
def test_neither_package_imports_the_other(package: str, name: str, path: Path) -> None:
    (other,) = PACKAGES.keys() - {package}

    assert other not in roots(package, path)


@pytest.mark.parametrize("name", [name for name in modules("sharedlog") if among(PURE, name)])
def test_the_pure_modules_know_no_database_and_no_network(name: str) -> None:
    path = modules("sharedlog")[name]

    assert roots("sharedlog", path) & (DATABASE | NETWORK) == set()


def test_only_the_store_side_queries_the_database() -> None:
    users = [
        name
        for name, path in modules("sharedlog_service").items()
        if roots("sharedlog_service", path) & DATABASE
    ]

    assert [name for name in users if not among(STORE_SIDE, name)] == []


def test_only_the_graphql_side_knows_graphql() -> None:
    users = [
        name
        for name, path in modules("sharedlog_service").items()
        if roots("sharedlog_service", path) & {"strawberry", "graphql"}
    ]

    assert [name for name in users if not among(GRAPHQL_SIDE, name)] == []


# -- no state, no work at import ---------------------------------------------------------

IMPORT_QUIETLY = """\
import importlib, json, os, sys, threading

others, ours = json.loads(sys.argv[1])
for name in others:
    importlib.import_module(name)
seen = []

def watch(event, arguments):
    if event == "open":
        name = str(arguments[0])
        if not name.endswith((".py", ".pyc")):
            seen.append(f"open {name}")
    elif event.split(".")[0] in ("socket", "sqlite3", "subprocess", "os", "shutil", "tempfile"):
        if event not in ("os.listdir", "os.scandir"):
            seen.append(event)

sys.addaudithook(watch)
threading.Thread.start = lambda thread: seen.append(f"start of {thread}")
environment = dict(os.environ)
for name in ours:
    importlib.import_module(name)
if environment != dict(os.environ):
    seen.append("os.environ changed")
print(json.dumps(seen))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_opens_and_starts_nothing(package: str, tmp_path: Path) -> None:
    ours = [f"{package}.{name}".removesuffix(".__init__") for name in modules(package)]
    others = {
        module
        for name, path in modules(package).items()
        for module, _ in imported(package, path)
        if module.split(".")[0] not in PACKAGES and module != "__future__"
    }

    run = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_QUIETLY, json.dumps([sorted(others), ours])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
    assert list(tmp_path.iterdir()) == []


MAY_BE_CALLED_AT_IMPORT = {
    "_of_type",
    "enumerate",
    "frozenset",
    "len",
    "join",
    "logging.getLogger",
    "MappingProxyType",
    "NewType",
    "peewee.SQL",
    "re.compile",
    "said",
    "str",
    "strawberry.scalar",
    "struct.Struct",
    "tuple",
    "TypeVar",
}
"""Functions that make a constant. Classes of the module itself may be called too."""

READ_ONLY = {"Mapping", "Sequence", "Collection", "Set", "AbstractSet", "Final", "MappingProxyType"}
"""A display under one of these annotations cannot be changed without a type error."""

MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def statements_of(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The module-level statements that make values or do something."""
    for node in body:
        if isinstance(node, ast.If):
            test = ast.unparse(node.test)
            if test == "__name__ == '__main__'":
                continue
            yield from statements_of([*node.body, *node.orelse])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        elif not isinstance(
            node,
            ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
        ):
            yield node


def work_in(statement: ast.stmt, own_classes: set[str]) -> Iterator[str]:
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        yield f"a statement: {ast.unparse(statement)[:60]}"
        return
    for node in evaluated(statement.value):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name not in MAY_BE_CALLED_AT_IMPORT and name.split(".")[-1] not in {
                *own_classes,
                *MAY_BE_CALLED_AT_IMPORT,
            }:
                yield f"a call: {name}(…)"


def evaluated(node: ast.AST | None) -> Iterator[ast.AST]:
    """The nodes that are evaluated now: not the bodies of lambdas."""
    if node is None or isinstance(node, ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from evaluated(child)


def state_in(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        names = [ast.unparse(target) for target in statement.targets]
        if isinstance(statement.value, MUTABLE) and names != ["__all__"]:
            yield f"mutable: {names[0]} (annotate it as Mapping, Sequence or Set)"
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.value, MUTABLE):
        kind = ast.unparse(statement.annotation).partition("[")[0]
        if kind not in READ_ONLY:
            yield f"mutable: {ast.unparse(statement.target)} is annotated as {kind}"


def classes_of(package: str) -> set[str]:
    """Value classes: calling one at import makes a constant."""
    return {
        node.name
        for path in modules(package).values()
        for node in tree(path).body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize(("package", "name", "path"), MODULES)
def test_modules_hold_constants_only(package: str, name: str, path: Path) -> None:
    own_classes = classes_of(package)
    found = [
        f"{shown(path)}:{statement.lineno} {what}"
        for statement in statements_of(tree(path).body)
        for what in (*work_in(statement, own_classes), *state_in(statement))
    ]
    found += [
        f"{shown(path)}:{node.lineno} global {', '.join(node.names)}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Global)
    ]

    assert found == []
