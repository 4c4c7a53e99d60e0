"""The service knows every document that the library sends, of this version and of all before it."""

from __future__ import annotations

import orjson
import pytest
from graphql import build_schema, parse, validate

from sharedlog.remote.documents import ABOUT, DOCUMENTS, HISTORY
from sharedlog_service.api.known import HASH_CHARS, hash_of, known_documents
from tests.fixtures.documents import FILE, content, updated
from tests.meta.source import ROOT

SCHEMA = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))

VERSIONS: dict[str, dict[str, str]] = orjson.loads(FILE.read_bytes())


def test_the_file_is_what_the_client_sends() -> None:
    assert FILE.read_bytes() == content(), "run: make documents"


@pytest.mark.parametrize("text", DOCUMENTS)
def test_the_service_knows_it_by_text_and_by_hash(text: str) -> None:
    known = known_documents()
    assert text in known
    assert known.text(hash_of(text)) == text
    assert len(hash_of(text)) == HASH_CHARS


@pytest.mark.parametrize(
    "text", [text for documents in VERSIONS.values() for text in documents.values()]
)
def test_what_was_ever_sent_still_fits_the_schema(text: str) -> None:
    assert validate(SCHEMA, parse(text)) == []


def test_what_an_earlier_version_sent_stays() -> None:
    before = {"0.1.0": {"About": ABOUT}}
    assert updated(before, "0.2.0", [ABOUT]) == before
    changed = ABOUT.replace(" viewer", "")
    assert updated(before, "0.2.0", [changed, HISTORY]) == {
        "0.1.0": {"About": ABOUT},
        "0.2.0": {"About": changed, "History": HISTORY},
    }


def test_what_was_not_released_yet_goes() -> None:
    assert updated({"0.1.0": {"About": ABOUT}}, "0.1.0", [HISTORY]) == {
        "0.1.0": {"History": HISTORY}
    }
