"""What the service's tests share: a clock and ids they own, and short ways to say things."""

from __future__ import annotations

import itertools
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from sharedlog_service.entries import Cursor, NewEntry, Page
from sharedlog_service.store.store import Store

NOON_MS = 1_800_000_000_000
NOON = NOON_MS * 1024


@dataclass
class ManualClock:
    """Tells the time it was told."""

    ms: int = NOON_MS

    def __call__(self) -> int:
        return self.ms


@dataclass
class Ids:
    """Counts: id-1, id-2, ..."""

    numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self) -> str:
        return f"id-{next(iter(self.numbers))}"


def change(pk: Any, operation: str = "create", collection: str = "note", value: Any = None) -> str:
    return json.dumps(
        {
            "operation": operation,
            "collection": collection,
            "pk": pk,
            "field": None,
            "value": value,
        }
    )


def entries(count: int, *, start: int = NOON, group: bool = False) -> list[NewEntry]:
    """Make entries a tick apart; as one transaction group if asked."""
    return [
        NewEntry(start + n, n if group else 0, change(f"pk-{start - NOON + n}"))
        for n in range(count)
    ]


def texts(page: Page) -> list[str]:
    return [entry.data for entry in page.entries]


def read_all(store: Store, user: str, device: str, **bounds: Any) -> list[Page]:
    """Read page after page, as a device does."""
    pages: list[Page] = []
    cursor: Cursor | None = None
    while not pages or pages[-1].has_more:
        pages.append(store.read(user, device, cursor, **bounds))
        cursor = pages[-1].cursor
    return pages


def flat(pages: Sequence[Page]) -> list[str]:
    return [text for page in pages for text in texts(page)]


def forms_of(token: str) -> Iterator[bytes]:
    """A token as it is sent, and what is secret of it in other forms."""
    yield token.encode()
    secret = token.removeprefix("slog_").rpartition(".")[2]
    if len(secret) > 20:
        raw = urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        yield from (secret.encode(), raw, raw.hex().encode(), raw.hex().upper().encode())


@dataclass
class Asker:
    """Asks the application over HTTP as one user."""

    client: TestClient
    token: str | None = None

    def post(self, document: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        body = {"query": document, "variables": variables}
        response = self.client.post("/graphql", json=body, headers=headers)
        answer: dict[str, Any] = response.json()
        codes = {error["extensions"]["code"] for error in answer.get("errors") or ()}
        status = 401 if "UNAUTHENTICATED" in codes else 200
        assert response.status_code == status, response.text
        return answer

    def ask(self, document: str, variables: dict[str, Any] | None = None) -> Any:
        """Return what is below `sharedSyncLog`; errors fail the test."""
        answer = self.post(document, variables)
        assert "errors" not in answer, answer
        return answer["data"]["sharedSyncLog"]

    def code(self, document: str, variables: dict[str, Any] | None = None) -> str:
        """Return the code of the first error; an answer without one fails the test."""
        answer = self.post(document, variables)
        code: str = answer["errors"][0]["extensions"]["code"]
        return code


CREATE_DEVICE = """
    mutation Create($user: ID!, $name: String, $request: ID) {
      sharedSyncLog { createDeviceId(userId: $user, name: $name, requestId: $request) }
    }
"""

WRITE = """
    mutation Write(
      $user: ID!, $device: ID!, $packed: PackedEntries, $entries: [SharedSyncLogEntryInput!],
      $after: Cursor, $withUpdate: Boolean! = false, $now: Float
    ) {
      sharedSyncLog {
        writeEntries(
          userId: $user, deviceId: $device, packed: $packed, entries: $entries,
          after: $after, withUpdate: $withUpdate, now: $now
        ) {
          accepted duplicates cursor epoch serverTime
          rejected { index createdOn code reason }
          results { createdOn status code reason }
          update { packed cursor hasMore head }
        }
      }
    }
"""

READ = """
    query Read($user: ID!, $device: ID!, $after: Cursor, $batchSize: Int! = 100) {
      sharedSyncLog {
        getUnsyncedEntries(userId: $user, deviceId: $device, after: $after, batchSize: $batchSize) {
          packed cursor hasMore head epoch serverTime
          entries { userId deviceId createdOn sharedOn data cursor position group operation
                    collection pk }
        }
      }
    }
"""
