"""The public keys of an identity provider: fetched within bounds, kept, and asked for by name.

A key is used for nothing but what its kind and its `alg` say; secrets shared with the provider
(`oct`) are no keys here. Who shows an unknown key makes the service look again, now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import httpx2
import orjson
from jwt import PyJWK, PyJWKError
from jwt.exceptions import InvalidKeyError

from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import HOUR_MS, MINUTE_MS, Clock

ALGORITHMS: Mapping[tuple[str, str | None], Sequence[str]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""What each kind of key may sign with: all that is accepted."""

RSA_BITS_MIN = 2048

BYTES_MAX = 256 * 1024
KEYS_MAX = 100
FETCH_S = 5

FRESH_MS = 10 * MINUTE_MS
"""So long after it was withdrawn a key may still be taken."""

AGAIN_MS = MINUTE_MS // 2
"""How soon after an attempt there is another one, whoever asks for what."""

KEPT_MS = 24 * HOUR_MS
"""For how long the keys that are known do while the provider cannot be reached."""

logger = logging.getLogger("sharedlog.service")


class Unfit(Exception):
    """What was found is no set of keys; the message quotes nothing of it."""


class Key(NamedTuple):
    id: str | None
    algorithms: Sequence[str]
    key: Any


class Keys:
    """The keys in a file or at an address. `steady` tells how many milliseconds went by."""

    def __init__(self, place: str, steady: Clock) -> None:
        self._place = place
        self._steady = steady
        self._keys: Sequence[Key] = ()
        self._read_at: int | None = None
        self._tried_at: int | None = None
        self._reading: asyncio.Future[None] | None = None

    async def find(self, id: str | None, algorithm: str) -> Any | None:
        """Return the one key that this can mean, None if there is none, or no telling which.
        UNAVAILABLE if no keys are to be had at all."""
        found = self._fitting(id, algorithm)
        if found is None or self._age() > FRESH_MS:
            await self._refresh()
            found = self._fitting(id, algorithm)
        if not self._keys or self._age() > KEPT_MS:
            raise Refused(Code.UNAVAILABLE, "The identity provider's keys cannot be had now.")
        return found

    def _fitting(self, id: str | None, algorithm: str) -> Any | None:
        fitting = [k.key for k in self._keys if algorithm in k.algorithms and id in (None, k.id)]
        return fitting[0] if len(fitting) == 1 else None

    def _age(self) -> int:
        return KEPT_MS + 1 if self._read_at is None else self._steady() - self._read_at

    async def _refresh(self) -> None:
        """Look again, unless that was tried just now. Who asks meanwhile waits with the first."""
        if self._reading is None:
            now = self._steady()
            if self._tried_at is not None and now - self._tried_at < AGAIN_MS:
                return
            self._tried_at = now
            self._reading = asyncio.ensure_future(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        try:
            self._keys = read_keys(await read_place(self._place))
            self._read_at = self._steady()
        except (Unfit, OSError, httpx2.HTTPError) as error:
            what = str(error) if isinstance(error, Unfit) else type(error).__name__
            logger.warning("the keys at %s cannot be had: %s", self._place, what)
        finally:
            self._reading = None


async def read_place(place: str, wait_s: float = FETCH_S) -> bytes:
    if "://" in place:
        async with asyncio.timeout(wait_s):
            return await download(place)
    return await anyio.to_thread.run_sync(read_file, Path(place))


def read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return bounded(file.read(BYTES_MAX + 1))


async def download(url: str) -> bytes:
    """Fetch what is at this address and nowhere else, as it is and within bounds."""
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with (
        httpx2.AsyncClient(timeout=FETCH_S, follow_redirects=False) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code != 200:
            raise Unfit(f"HTTP {response.status_code}")
        if "content-encoding" in response.headers:
            raise Unfit("it is compressed")
        body = b""
        async for part in response.aiter_raw():
            body = bounded(body + part)
        return body


def bounded(body: bytes) -> bytes:
    if len(body) > BYTES_MAX:
        raise Unfit(f"it is longer than {BYTES_MAX} bytes")
    return body


def read_keys(body: bytes) -> Sequence[Key]:
    """Return the keys that signatures may be checked with; Unfit if there is none."""
    try:
        listed = orjson.loads(body)["keys"][:KEYS_MAX]
    except (ValueError, TypeError, KeyError) as error:
        raise Unfit("it is no set of keys") from error
    keys = [key for each in listed if isinstance(each, dict) and (key := read_key(each))]
    if not keys:
        raise Unfit("it has no key for signatures")
    return keys


def read_key(found: dict[str, Any]) -> Key | None:
    """Return a key for signatures, None if it is not one: sets have others beside them."""
    kind, curve = found.get("kty"), found.get("crv")
    allowed = ALGORITHMS.get((kind, curve if kind != "RSA" else None), ()) if kind else ()
    named, id = found.get("alg"), found.get("kid")
    algorithms = [each for each in allowed if named in (None, each)]
    if not algorithms or found.get("use", "sig") != "sig" or "d" in found:
        return None
    if id is not None and type(id) is not str:
        return None
    try:
        key = PyJWK(found, algorithms[0]).key
    except (PyJWKError, InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if kind == "RSA" and key.key_size < RSA_BITS_MIN:
        return None
    return Key(id, algorithms, key)
