"""Gzip, both ways: bodies are unfolded within bounds, long answers folded for who takes them so.

A few bytes of gzip can unfold to gigabytes, so nothing is unfolded further than it is asked for.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Protocol

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from sharedlog_service.errors import Code, Refused

PART_BYTES = 64 * 1024
"""So much is unfolded at a time."""

FOLDED_FROM_BYTES = 1024
"""What fits a packet or two travels as fast unfolded."""

THREAD_FROM_BYTES = 64 * 1024
"""What takes longer than a few tenths of a millisecond does not hold up the event loop."""

LEVEL = 1
"""Seven times smaller at 6 ms a megabyte; level 6 makes nine of it, and takes 28 ms."""


class Unfolding(Protocol):
    """Turns the chunks of a body into parts of its content."""

    def parts(self, chunk: bytes) -> Iterator[bytes]:
        """Return what comes of the next chunk, in parts of PART_BYTES at most or as it is."""

    def finish(self) -> None:
        """Refuse a body that ends too early."""


def unfolding_of(headers: Headers) -> Unfolding:
    """Return what unfolds a body with these headers; refuse encodings other than gzip, once."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return AsItIs()
    if encoding in ("gzip", "x-gzip"):
        return Gunzip()
    raise Refused(Code.UNSUPPORTED_MEDIA_TYPE)


class AsItIs:
    """A body without encoding."""

    def parts(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        pass


class Gunzip:
    """A body that is one gzip stream and nothing else."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def parts(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._stream.eof:
                raise Refused(Code.BAD_REQUEST, "The body goes on behind its gzip stream.")
            try:
                part = self._stream.decompress(chunk, PART_BYTES)
            except zlib.error as error:
                raise Refused(Code.BAD_REQUEST, "The body is not gzip as it says.") from error
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
            yield part

    def finish(self) -> None:
        if not self._stream.eof:
            raise Refused(Code.BAD_REQUEST, "The body's gzip stream ends too early.")


def takes_gzip(headers: Headers) -> bool:
    """Whether who asked takes an answer in gzip."""
    for offer in headers.get("accept-encoding", "").split(","):
        coding, _, weight = offer.replace(" ", "").lower().partition(";q=")
        if coding in ("gzip", "*"):
            return weight not in ("0", "0.0", "0.00", "0.000")
    return False


class FoldedAnswer:
    """Sends an answer on, in gzip where it is long and taken so; says what bodies may be in."""

    def __init__(self, send: Send, *, gzip: bool) -> None:
        self._send = send
        self._gzip = gzip
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["accept-encoding"] = "gzip"
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            if self._gzip and _is_long_and_whole(message):
                message = {**message, "body": await _folded(message["body"])}
                headers = MutableHeaders(scope=start)
                headers["content-encoding"] = "gzip"
                headers["content-length"] = str(len(message["body"]))
                headers.add_vary_header("accept-encoding")
            await self._send(start)
        await self._send(message)


def _is_long_and_whole(message: Message) -> bool:
    body = message.get("body", b"")
    return not message.get("more_body") and len(body) >= FOLDED_FROM_BYTES


async def _folded(body: bytes) -> bytes:
    if len(body) < THREAD_FROM_BYTES:
        return _fold(body)
    return await anyio.to_thread.run_sync(_fold, body)


def _fold(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)
