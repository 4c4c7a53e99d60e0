"""A device that asks with little work of its own: what it writes was encoded once."""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import orjson

from sharedlog.remote.documents import CREATE_DEVICE_ID, GET_UNSYNCED_ENTRIES, WRITE_ENTRIES

PUSH, PAGE = 10, 100

IDLE_S = 4
"""So long a connection is good for; the service closes it after five seconds."""

PAGES = {"after": None, "batchSize": PAGE, "byteLimit": 1_000_000, "lineage": None}


class Device:
    """A device with a connection of its own. It is registered, unless it is said that it is."""

    def __init__(
        self, url: str, user: str, token: str, data: list[str], *, registered: str | None = None
    ) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }
        self._asked_at = time.monotonic()
        self._data = data
        self._user = user
        self._begin = time.time_ns() // 1_000_000 * 1024
        self._device = registered or self._register(f"device-of-{user}")

    def push(self, number: int) -> None:
        told = self._ask(WRITE_ENTRIES, **self._batch(number))
        if told["writeEntries"]["accepted"] != PUSH:
            raise RuntimeError(f"A push was answered {told}.")

    def status_of_push(self, number: int) -> int:
        """Push, and return the HTTP status, whatever it is."""
        return self._send(WRITE_ENTRIES, **self._batch(number))[0]

    def pull(self, number: int) -> None:
        if number == 0:  # as another device, which wrote none of it
            self._device = self._register(f"reader-of-{self._user}")
        told = self._ask(GET_UNSYNCED_ENTRIES, deviceId=self._device, **PAGES)
        if not told["getUnsyncedEntries"]["packed"]["entries"]:
            raise RuntimeError("There is nothing to pull.")

    def _register(self, device: str) -> str:
        told = self._ask(CREATE_DEVICE_ID, name=None, deviceId=device)
        return str(told["createDeviceId"])

    def _batch(self, number: int) -> dict[str, Any]:
        ticks = self._begin + number * PUSH
        packed = [(ticks + n, n, text) for n, text in enumerate(self._data)]
        return {"deviceId": self._device, "packed": packed, "now": 0.0, **PAGES}

    def _ask(self, document: str, **variables: Any) -> Any:
        _, answer = self._send(document, **variables)
        if "errors" in answer:
            raise RuntimeError(f"The service answers {answer['errors']}.")
        return answer["data"]["sharedSyncLog"]

    def _send(self, document: str, **variables: Any) -> tuple[int, Any]:
        now = time.monotonic()
        if now - self._asked_at > IDLE_S:
            self._connection.close()  # as the service does; the next request opens another one
        self._asked_at = now
        variables["userId"] = self._user
        body = orjson.dumps({"query": document, "variables": variables})
        self._connection.request("POST", "/graphql", body, self._headers)
        response = self._connection.getresponse()
        return response.status, orjson.loads(response.read())
