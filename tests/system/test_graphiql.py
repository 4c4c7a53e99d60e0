"""GraphiQL: the files and the page as they are served, then both in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
from graphql import parse, validate
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright
from starlette.applications import Starlette
from starlette.routing import Route as StarletteRoute
from starlette.testclient import TestClient
from starlette.types import Message

from sharedlog_service.api.schema import build_schema
from sharedlog_service.web.graphiql import (
    CONTENT_SECURITY_POLICY,
    OWN,
    VENDORED,
    GraphiQL,
    ready_address,
)

ROOT = Path(__file__).parents[2]
FOLDER = files("sharedlog_service") / "assets" / "graphiql"


def sri(content: bytes) -> str:
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


# ---------------------------------------------------------------------------------- the files


def test_vendored_files_are_the_ones_strawberry_pins() -> None:
    html = (files("strawberry") / "static" / "graphiql.html").read_text(encoding="utf-8")
    pinned = {
        f"{package}/{path.rpartition('/')[2]}": integrity
        for package, path, integrity in re.findall(
            r'"https://unpkg\.com/((?:@[^/"]+/)?[^/"]+)/([^"]+)"\s+integrity="([^"]+)"', html
        )
    }
    assert len(pinned) == html.count("unpkg.com") == 7
    assert pinned == VENDORED
    assert {name: sri(asset.plain()) for name, asset in GraphiQL().assets.items()} == {
        **pinned,
        **{name: sri((FOLDER / name).read_bytes()) for name in OWN},
    }


@pytest.mark.parametrize("package", sorted({name.rpartition("/")[0] for name in VENDORED}))
def test_every_package_comes_with_its_licence(package: str) -> None:
    licence = (FOLDER / package / "LICENSE").read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in licence
    assert "Copyright (c)" in licence
    name, _, version = package.rpartition("@")
    assert f"| {name} | {version} | MIT" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_what_the_packages_contain_comes_with_its_licence() -> None:
    licences = (FOLDER / "THIRD-PARTY.txt").read_text(encoding="utf-8")
    for part in (
        "codemirror",
        "graphql-ws",
        "markdown-it",
        "@radix-ui/primitive",
        "Roboto",
        "Fira",
    ):
        assert part in licences
    assert "Apache License" in licences
    assert "SIL OPEN FONT LICENSE" in licences


def test_wheel_has_every_file(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not installed here")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    folder = "sharedlog_service/assets/graphiql/"
    packed = {
        name.removeprefix(folder)
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith(folder)
    }
    here = Path(str(FOLDER))
    assert packed == {
        path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()
    }


# --------------------------------------------------------------------------------- the routes


@pytest.fixture(scope="module")
def graphiql() -> GraphiQL:
    return GraphiQL()


@pytest.fixture(scope="module")
def client(graphiql: GraphiQL) -> TestClient:
    page = StarletteRoute("/graphql", graphiql.response, methods=["GET"])
    return TestClient(Starlette(routes=[page, *graphiql.routes()]))


CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@pytest.mark.parametrize("name", [*VENDORED, *OWN])
def test_file_is_served_gzipped_and_plain(client: TestClient, name: str) -> None:
    address = f"/graphiql-assets/{name}"
    squeezed = client.get(address, headers={"accept-encoding": "br;q=0.5, gzip"})
    plain = client.get(address, headers={"accept-encoding": "identity"})
    refused = client.get(address, headers={"accept-encoding": "gzip;q=0"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert squeezed.content == plain.content == refused.content
    assert int(squeezed.headers["content-length"]) < int(plain.headers["content-length"])
    for answer in (squeezed, plain):
        assert answer.headers["content-type"] == CONTENT_TYPES[name.rpartition(".")[2]]
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_of_the_page_are_cached_for_good_and_no_others(
    client: TestClient, graphiql: GraphiQL
) -> None:
    for address in addresses(graphiql.page()):
        assert "immutable" in client.get(address).headers["cache-control"]
    for stale in ("page.js", "page.js?v=0123456789ab"):
        answer = client.get(f"/graphiql-assets/{stale}")
        assert answer.headers["cache-control"] == "no-cache"
        again = {"if-none-match": answer.headers["etag"]}
        unchanged = client.get(f"/graphiql-assets/{stale}", headers=again)
        assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "page.html",
        "README.md",
        "queries/connect.graphql",
        "page.js.gz",
        "react@18.2.0/LICENSE",
        "react@18.2.0/../page.js",
        "../graphiql.py",
        "../../graphiql.py",
        "..\\..\\graphiql.py",
        "//etc/passwd",
        "page.js\0",
    ],
)
def test_nothing_else_is_served(graphiql: GraphiQL, path: str) -> None:
    assert raw_status(Starlette(routes=graphiql.routes()), f"/graphiql-assets/{path}") == 404


def raw_status(app: Starlette, path: str) -> int:
    """Ask for a path as it is: HTTP clients resolve the dots before they send it."""
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    anyio.run(app, scope, receive, send)
    status: int = sent[0]["status"]
    return status


def test_files_can_only_be_read(client: TestClient) -> None:
    assert client.head("/graphiql-assets/page.js").status_code == 200
    assert client.post("/graphiql-assets/page.js").status_code == 405


# ----------------------------------------------------------------------------------- the page


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("src", "href", "action", "data-endpoint"):
            if address := given.get(name):
                self.found.append((address, given.get("integrity")))
        assert not any(name.startswith("on") or name == "style" for name in given)


def addresses(page: str) -> list[str]:
    parser = _Addresses()
    parser.feed(page)
    return [address for address, _ in parser.found if "/graphiql-assets/" in address]


def test_page_loads_only_files_we_serve(client: TestClient, graphiql: GraphiQL) -> None:
    page = client.get("/graphql").text
    parser = _Addresses()
    parser.feed(page)
    for address, integrity in parser.found:
        if address == "/graphql":
            continue
        assert address.startswith("/graphiql-assets/")
        answer = client.get(address)
        assert answer.status_code == 200
        if not address.partition("?")[0].endswith(".svg"):
            assert integrity == sri(answer.content)
    assert len(addresses(page)) == 3 + 5 + 2


def test_nothing_of_ours_names_another_server(graphiql: GraphiQL) -> None:
    texts = [graphiql.page(), *(graphiql.assets[name].plain().decode() for name in OWN)]
    for text in texts:
        foreign = set(re.findall(r"(?:https?:|wss?:|[\"'(])//[^\s\"')]+", text))
        assert foreign <= {"http://www.w3.org/2000/svg"}


def test_page_forbids_everything_it_does_not_need(client: TestClient) -> None:
    headers = client.get("/graphql").headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["referrer-policy"] == "no-referrer"
    rules = {rule.split()[0]: rule.split()[1:] for rule in CONTENT_SECURITY_POLICY.split("; ")}
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == ["'none'"]
    assert rules["script-src"] == rules["connect-src"] == ["'self'"]
    sources = {source for rule in rules.values() for source in rule}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "'unsafe-inline'" not in rules["script-src"]


def test_page_below_a_proxys_path_asks_there() -> None:
    page = GraphiQL(endpoint="/api").page('/logs"><script>')
    assert 'data-endpoint="/logs&quot;&gt;&lt;script&gt;/api"' in page
    assert all(address.startswith('/logs"><script>/') for address in addresses(page))


def test_queries_cannot_end_their_element(graphiql: GraphiQL) -> None:
    hostile = GraphiQL()
    hostile.queries = {"connect": "</script><script>alert(1)</script>", "examples": []}
    assert "<script>alert" not in hostile.page()
    embedded = re.search(r'id="queries">(.*?)</script>', hostile.page())
    assert embedded is not None
    assert json.loads(embedded[1]) == hostile.queries


def test_queries_fit_the_schema_and_say_what_they_show(graphiql: GraphiQL) -> None:
    schema = build_schema()._schema
    examples = graphiql.queries["examples"]
    assert isinstance(examples, list)
    assert len(examples) >= 4
    for query in (graphiql.queries["viewer"], graphiql.queries["connect"], *examples):
        assert validate(schema, parse(query)) == []
    for query in examples:
        assert query.startswith("# ")
        assert re.search(r"^query \w+\(\s*\$userId: ID!", query, re.MULTILINE)


def test_ready_address_keeps_the_token_out_of_requests() -> None:
    address = ready_address("http://127.0.0.1:8000/graphql", token="slog_a-b+c&d", user="Ann Öl")
    parts = urlsplit(address)
    assert (parts.path, parts.query) == ("/graphql", "")
    assert parts.fragment == "token=slog_a-b%2Bc%26d&user=Ann+%C3%96l"
    assert ready_address("http://[::1]/graphql", user="ann") == "http://[::1]/graphql#user=ann"


# -------------------------------------------------------------------------------- the browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
    # Belt and braces: nothing but our own address can be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

browser_test = pytest.mark.browser
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary is installed here")


@dataclass
class Service:
    """A running service with a log in it."""

    origin: str
    user: str
    token: str
    ready: str
    """The address it announces for GraphiQL."""

    @property
    def page(self) -> str:
        return f"{self.origin}/graphql"


@dataclass
class Watched:
    """A browser page, and what it did that it should not have done."""

    page: Page
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


NO_TOKEN = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
"""The browser's own word for it, whatever a page makes of the answer."""

NOTES = ("note-1", "note-2", "note-3")

REGISTER = """
mutation Register($userId: ID!) {
  sharedSyncLog { createDeviceId(userId: $userId, name: "laptop") }
}
"""
WRITE = """
mutation Write($userId: ID!, $deviceId: ID!, $entries: [SharedSyncLogEntryInput!]!) {
  sharedSyncLog {
    writeEntries(userId: $userId, deviceId: $deviceId, entries: $entries) { accepted }
  }
}
"""


def fill(service: Service) -> None:
    """Share a few rows, as a device would."""

    def ask(query: str, **variables: object) -> Any:
        answer = httpx2.post(
            service.page,
            json={"query": query, "variables": {"userId": service.user, **variables}},
            headers={"authorization": f"Bearer {service.token}"} if service.token else {},
        )
        return log_of(answer.json())

    device_id = ask(REGISTER)["createDeviceId"]
    changes = [{"operation": "create", "pk": pk, "value": {"text": f"{pk} <b>"}} for pk in NOTES]
    changes.append({"operation": "modify", "pk": NOTES[0], "value": {"text": "changed"}})
    entries = [
        {"createdOn": 1_700_000_000_000 + ms, "data": json.dumps({"collection": "note", **change})}
        for ms, change in enumerate(changes)
    ]
    written = ask(WRITE, deviceId=device_id, entries=entries)
    assert written["writeEntries"]["accepted"] == len(entries)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Service]:
    """Run `sharedlog serve` on an empty database, and fill it."""
    command = str(Path(sys.executable).with_name("sharedlog"))
    db, ready = folder / "log.db", folder / "ready.json"
    process = subprocess.Popen(
        [command, "serve", f"--db={db}", "--port=0", f"--ready-file={ready}", *options],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.05)
        said = json.loads(ready.read_text(encoding="utf-8"))
        parts = urlsplit(said["url"])
        service = Service(
            f"{parts.scheme}://{parts.netloc}", said["user"], said["token"], said["graphiql"]
        )
        fill(service)
        yield service
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service with a user's log in it."""
    with serving(tmp_path_factory.mktemp("graphiql"), "--user", "Ann Öl") as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, origin: str, **options: Any) -> Iterator[Watched]:
    """Open a fresh profile that reaches `origin` only, and writes down every other wish."""
    context = browser.new_context(service_workers="block", **options)
    context.set_default_timeout(15_000)
    watch = Watched(context.new_page())

    def gate(route: Route) -> None:
        if route.request.url.startswith(origin + "/"):
            route.continue_()
        else:
            watch.foreign.append(route.request.url)
            route.abort()

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and message.text != NO_TOKEN:
            watch.complaints.append(message.text)

    def follow(page: Page) -> None:
        page.on("console", listen)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.on("websocket", lambda socket: watch.foreign.append(socket.url))

    context.route("**/*", gate)
    context.on("page", follow)
    follow(watch.page)
    yield watch
    context.close()


@pytest.fixture
def at(browser: Browser, service: Service) -> Iterator[Page]:
    """A page that must, at the end of the test, have been quiet and at home."""
    with watched(browser, service.origin) as watch:
        yield watch.page
    assert watch.foreign == []
    assert watch.complaints == []


def run(page: Page) -> dict[str, Any]:
    """Press the play button and return what the result pane shows."""
    pane = "document.querySelector('.graphiql-response .CodeMirror').CodeMirror"
    page.evaluate(f"{pane}.setValue('')")
    page.get_by_role("button", name="Execute query").click()
    # Asked from here: a wait inside the page would need eval, which the page's policy forbids.
    for _ in range(100):
        if text := page.evaluate(f"{pane}.getValue()"):
            answer: dict[str, Any] = json.loads(text)
            return answer
        page.wait_for_timeout(100)
    raise AssertionError("no answer in the result pane")


def log_of(answer: dict[str, Any]) -> dict[str, Any]:
    assert "errors" not in answer
    log: dict[str, Any] = answer["data"]["sharedSyncLog"]
    return log


@browser_test
@needs_chromium
def test_the_gate_notices_foreign_requests(browser: Browser, service: Service) -> None:
    with watched(browser, service.origin) as watch:
        watch.page.set_content('<img src="https://unpkg.com/pixel.png">')
        watch.page.wait_for_load_state("networkidle")
    assert watch.foreign == ["https://unpkg.com/pixel.png"]


@browser_test
@needs_chromium
def test_ready_address_connects_and_a_query_runs(at: Page, service: Service) -> None:
    at.goto(service.ready)
    expect(at.locator("#state")).to_contain_text(f"connected as {service.user}")
    assert at.url == service.page

    edges = log_of(run(at))["entries"]["edges"]
    assert [edge["node"]["pk"] for edge in edges] == [*NOTES, NOTES[0]]
    expect(at.locator(".graphiql-response")).to_contain_text('"operation": "CREATE"')


@browser_test
@needs_chromium
def test_every_example_answers_about_the_log(at: Page, service: Service) -> None:
    at.goto(service.ready)
    titles = at.locator("button.graphiql-tab-button")
    expect(titles).to_have_text(["Newest", "History", "Devices", "Stats"])
    answers: dict[str, Any] = {}
    for title in titles.all_inner_texts():
        titles.get_by_text(title).click()
        answers |= log_of(run(at))
    # The row that changed last is filled in.
    assert [entry["operation"] for entry in answers["history"]] == ["CREATE", "MODIFY"]
    assert [device["name"] for device in answers["devices"]] == ["laptop"]
    (note,) = answers["stats"]["collections"]
    assert (note["collection"], note["entries"], note["creates"]) == ("note", 4, 3)


@browser_test
@needs_chromium
def test_token_stays_in_this_browser_tab(at: Page, service: Service) -> None:
    at.goto(service.ready)
    expect(at.locator("#state")).to_contain_text("connected as")
    run(at)
    at.wait_for_timeout(600)  # GraphiQL writes its tabs with a delay of half a second.
    kept = at.evaluate("[JSON.stringify({...localStorage}), document.cookie, document.title]")
    assert service.token not in "".join(kept)
    assert at.evaluate("history.length") <= 2

    at.reload()
    expect(at.locator("#state")).to_contain_text(f"connected as {service.user}")

    other = at.context.new_page()
    other.goto(service.page)
    expect(other.locator("#state")).to_have_text("no token")

    at.get_by_role("button", name="Forget").click()
    expect(at.locator("#state")).to_have_text("no token")
    assert service.token not in at.evaluate("JSON.stringify({...sessionStorage})")


@browser_test
@needs_chromium
def test_without_token_there_is_a_hint_and_one_can_be_typed(at: Page, service: Service) -> None:
    at.goto(service.page)
    expect(at.locator("#state")).to_have_text("no token")
    expect(at.locator("#hint")).to_contain_text("sharedlog token create --user NAME")
    assert "UNAUTHENTICATED" in json.dumps(run(at))

    at.get_by_label("User").fill(service.user)
    at.get_by_label("Token").fill("slog_wrong")
    at.get_by_label("Token").press("Enter")
    expect(at.locator("#state")).to_have_text("token refused")
    # A name that a shell would take apart is not offered for copying into one.
    expect(at.locator("#hint")).to_contain_text("--user NAME")

    assert at.get_by_label("Token").get_attribute("type") == "password"
    at.get_by_label("User").fill("")  # The token knows.
    at.get_by_label("Token").fill(f" {service.token} ")
    at.get_by_role("button", name="Connect").click()
    expect(at.locator("#state")).to_contain_text(f"connected as {service.user}")
    expect(at.get_by_label("User")).to_have_value(service.user)
    expect(at.locator("#hint")).to_be_hidden()
    assert at.url == service.page
    assert log_of(run(at))["entries"]


@browser_test
@needs_chromium
def test_other_users_log_is_refused_with_the_services_words(at: Page, service: Service) -> None:
    at.goto(ready_address(service.page, token=service.token, user="$(touch x) <b>"))
    expect(at.locator("#state")).to_have_text("not connected")
    expect(at.locator("#hint")).to_contain_text("belongs to another user")
    # The address may be opened again in the same tab: only its fragment differs then.
    at.evaluate("address => { location.href = address }", service.ready)
    expect(at.locator("#state")).to_contain_text(f"connected as {service.user}")
    assert at.url == service.page


@browser_test
@needs_chromium
def test_service_without_tokens_asks_for_none(browser: Browser, tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--no-auth", "--user", "ann") as service,
        watched(browser, service.origin) as watch,
    ):
        page = watch.page
        page.goto(service.page)
        expect(page.locator("#state")).to_have_text("whose log?")
        expect(page.locator("#hint")).to_contain_text("asks for no token")
        page.get_by_label("User").fill("ann")
        page.get_by_label("User").press("Enter")
        expect(page.locator("#state")).to_have_text("connected as ann4 entries, 1 device")
        assert log_of(run(page))["entries"]
    assert watch.foreign == watch.complaints == []


@browser_test
@needs_chromium
def test_editor_knows_the_schema(at: Page, service: Service) -> None:
    at.goto(service.ready)
    at.get_by_role("button", name="Add tab").click()
    at.locator(".graphiql-query-editor .CodeMirror").click()
    at.keyboard.press("Control+End")
    at.keyboard.type("{ sharedSyncLog { hist")
    expect(at.locator(".CodeMirror-hints")).to_contain_text("history")
    at.keyboard.press("Escape")
    at.keyboard.type("ographs } }")
    at.locator(".CodeMirror-lint-mark-error").last.hover()
    expect(at.locator(".CodeMirror-lint-tooltip")).to_contain_text("Cannot query field")
    at.get_by_role("button", name="Show Documentation Explorer").click()
    at.get_by_role("link", name="Query").first.click()
    expect(at.locator(".graphiql-doc-explorer")).to_contain_text("sharedSyncLog")
    at.get_by_role("button", name="Show GraphiQL Explorer").click()
    expect(at.locator(".docExplorerWrap")).to_contain_text("sharedSyncLog")
    at.get_by_role("button", name="Open settings dialog").click()
    expect(at.get_by_role("dialog")).to_contain_text("Theme")


@browser_test
@needs_chromium
def test_bar_is_light_or_dark_with_graphiql(browser: Browser, service: Service) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with watched(browser, service.origin, color_scheme=scheme) as watch:
            watch.page.goto(service.page)
            watch.page.wait_for_selector(".graphiql-container")
            seen[scheme] = watch.page.evaluate(
                "['body', '.graphiql-container'].map("
                "name => getComputedStyle(document.querySelector(name)).backgroundColor)"
            )
        assert watch.complaints == []
    assert seen["light"] == ["rgb(255, 255, 255)", "rgb(255, 255, 255)"]
    assert seen["dark"][0] == seen["dark"][1] != seen["light"][0]
