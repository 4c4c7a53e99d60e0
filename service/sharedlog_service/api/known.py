"""The documents that the sharedlog library sends, of this version and of all before it.

They are known by their text and by its SHA-256, and answered whatever else is refused. The file is
written from the client (`make documents`), so that neither package imports the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.resources import files

import orjson

HASH_CHARS = 64


class KnownDocuments:
    """Documents by hash and by text; some have a name, by which they may be told."""

    def __init__(self, texts: Iterable[str], names: Mapping[str, str] | None = None) -> None:
        self._names = names or {}
        self._by_hash = {hash_of(text): text for text in texts}
        self._texts = frozenset(self._by_hash.values())

    def __contains__(self, text: object) -> bool:
        return text in self._texts

    def name(self, text: str) -> str | None:
        return self._names.get(text)

    def text(self, sha256: str) -> str | None:
        return self._by_hash.get(sha256)


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def known_documents(others: Iterable[str] = ()) -> KnownDocuments:
    """Return the documents in the file that comes with the service, and others beside them."""
    content = (files("sharedlog_service") / "assets" / "documents.json").read_bytes()
    versions: dict[str, dict[str, str]] = orjson.loads(content)
    names = {text: name for found in versions.values() for name, text in found.items()}
    return KnownDocuments([*names, *others], names)
