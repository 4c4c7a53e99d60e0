"""GraphiQL for people: its page, its files, and the routes that serve them, without internet.

Neither answers GraphQL nor knows a token: the page asks the endpoint like any other client.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from sharedlog_service.web.compression import takes_gzip

VENDORED: Mapping[str, str] = {
    "react@18.2.0/react.production.min.js": (
        "sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8"
    ),
    "react-dom@18.2.0/react-dom.production.min.js": (
        "sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh"
    ),
    "js-cookie@3.0.5/js.cookie.min.js": (
        "sha384-/vxhYfM1LENRhdpZ8dwEsQn/X4VhpbEZSiU4m/FwR+PVpzar4fkEOw8FP9Y+OfQN"
    ),
    "graphiql@3.8.3/graphiql.min.css": (
        "sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM"
    ),
    "graphiql@3.8.3/graphiql.min.js": (
        "sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie"
    ),
    "@graphiql/plugin-explorer@1.0.2/style.css": (
        "sha384-5DFJlDPW2tSATRbM8kzoP1j194jexLswuNmClWoRr2Q0x7R68JIQzPHZ02Faktwi"
    ),
    "@graphiql/plugin-explorer@1.0.2/index.umd.js": (
        "sha384-2oonKe47vfHIZnmB6ZZ10vl7T0Y+qrHQF2cmNTaFDuPshpKqpUMGMc9jgj9MLDZ9"
    ),
}
"""The files from npm, by package@version, with the hashes Strawberry's own page gives for them."""

OWN = ("page.css", "page.js", "icon.svg")

STYLES = (
    "graphiql@3.8.3/graphiql.min.css",
    "@graphiql/plugin-explorer@1.0.2/style.css",
    "page.css",
)
SCRIPTS = (
    "page.js",
    "react@18.2.0/react.production.min.js",
    "react-dom@18.2.0/react-dom.production.min.js",
    "graphiql@3.8.3/graphiql.min.js",
    "@graphiql/plugin-explorer@1.0.2/index.umd.js",
)

MEDIA_TYPES: Mapping[str, str] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Styles: dialogs put style elements into the page whose content no hash can name beforehand; style
# attributes stay forbidden (`style-src` itself is for browsers that know only that). Fonts and
# images: GraphiQL's style sheet carries its own as data. An image a log entry points at is not
# fetched for its preview: that would tell its server who reads the log.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "style-src-elem 'self' 'unsafe-inline'",
        "style-src-attr 'none'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent; kept gzipped, since every browser takes it so."""

    name: str
    gzipped: bytes
    integrity: str

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.name.rpartition(".")[2]]

    @property
    def version(self) -> str:
        """What changes in an address when the content does; empty where the name has a version."""
        return "" if "@" in self.name else hashlib.sha256(self.gzipped).hexdigest()[:12]

    def plain(self) -> bytes:
        return gzip.decompress(self.gzipped)


class GraphiQL:
    """The page at `endpoint` and its files below `asset_prefix`."""

    def __init__(
        self, *, endpoint: str = "/graphql", asset_prefix: str = "/graphiql-assets"
    ) -> None:
        self.endpoint = endpoint
        self.asset_prefix = asset_prefix.rstrip("/")
        self.assets: Mapping[str, Asset] = {asset.name: asset for asset in _read_assets()}
        self.queries = _read_queries()
        self._template = Template((_folder() / "page.html").read_text(encoding="utf-8"))

    def page(self, root_path: str = "") -> str:
        """Return the page's HTML; `root_path` is where a proxy has mounted the service."""
        return self._template.substitute(
            endpoint=escape(root_path + self.endpoint),
            icon=escape(self._address(root_path, "icon.svg")),
            styles="\n    ".join(
                f'<link rel="stylesheet" {self._source("href", root_path, name)} />'
                for name in STYLES
            ),
            scripts="\n    ".join(
                f"<script defer {self._source('src', root_path, name)}></script>"
                for name in SCRIPTS
            ),
            # In a script element only "</script" could end the text early.
            queries=json.dumps(self.queries).replace("<", "\\u003c"),
        )

    async def response(self, request: Request) -> Response:
        """Answer a browser that opens the endpoint."""
        return HTMLResponse(
            self.page(request.scope.get("root_path", "")),
            headers={
                "content-security-policy": CONTENT_SECURITY_POLICY,
                "cache-control": ASK_AGAIN,
                "referrer-policy": "no-referrer",
                "x-content-type-options": "nosniff",
            },
        )

    def routes(self) -> list[BaseRoute]:
        """Return the route that serves the files, and only these files."""
        return [Route(self.asset_prefix + "/{name:path}", self._serve, methods=["GET"])]

    async def _serve(self, request: Request) -> Response:
        # The name is looked up among the known ones and never becomes a path on the disk.
        asset = self.assets.get(request.path_params["name"])
        if asset is None:
            return Response("No such file.", 404, media_type="text/plain")
        # A page of another release may ask with its own version: it must not keep this one's file.
        current = request.query_params.get("v", "") == asset.version
        headers = {
            "cache-control": FOREVER if current else ASK_AGAIN,
            "etag": f'W/"{asset.integrity}"',
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        if not takes_gzip(request.headers):
            return Response(asset.plain(), headers=headers, media_type=asset.media_type)
        headers["content-encoding"] = "gzip"
        return Response(asset.gzipped, headers=headers, media_type=asset.media_type)

    def _address(self, root_path: str, name: str) -> str:
        version = self.assets[name].version
        return f"{root_path}{self.asset_prefix}/{name}" + (f"?v={version}" if version else "")

    def _source(self, attribute: str, root_path: str, name: str) -> str:
        address = escape(self._address(root_path, name))
        return f'{attribute}="{address}" integrity="{self.assets[name].integrity}"'


def ready_address(base: str, *, user: str, token: str | None = None) -> str:
    """Return the address that opens the page for this user, with the token where one is needed.

    A fragment stays in the browser: no server, proxy or log file on the way sees it, and the page
    removes it from the address bar.
    """
    given = {"user": user} if token is None else {"token": token, "user": user}
    return f"{base}#{urlencode(given)}"


def _folder() -> Traversable:
    return files("sharedlog_service") / "assets" / "graphiql"


def _read_assets() -> Iterator[Asset]:
    for name, integrity in VENDORED.items():
        yield Asset(name, (_folder() / f"{name}.gz").read_bytes(), integrity)
    for name in OWN:
        content = (_folder() / name).read_bytes()
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        yield Asset(name, gzip.compress(content, mtime=0), f"sha384-{digest}")


def _read_queries() -> dict[str, object]:
    found = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in (_folder() / "queries").iterdir()
        if entry.name.endswith(".graphql")
    }
    return {
        "viewer": found.pop("viewer.graphql"),
        "connect": found.pop("connect.graphql"),
        "examples": [found[name] for name in sorted(found)],
    }
