"""What an operator may choose, and the limits the service keeps and publishes."""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sharedlog_service.errors import ConfigurationError

Clock = Callable[[], int]
"""Tells the time in whole milliseconds since 1970."""

IdSource = Callable[[], str]
"""Makes an id that nobody had before."""


def system_clock() -> int:
    return time.time_ns() // 1_000_000


def steady_clock() -> int:
    """Tell how many milliseconds went by since some moment; setting the clock does not move it."""
    return time.monotonic_ns() // 1_000_000


def random_id() -> str:
    return secrets.token_hex(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one request may carry, and one log hold; published by the `limits` query."""

    entry_bytes: int = 512 * 1024
    batch_entries: int = 10_000
    batch_bytes: int = 8 * 1024 * 1024
    page_entries: int = 10_000
    page_bytes: int = 8 * 1024 * 1024
    clock_ahead_ms: int = 5 * 60 * 1000
    # Twice the data: JSON inside JSON doubles its quotes and backslashes.
    request_bytes: int = 17 * 1024 * 1024
    # Of one user in one process, of bodies that are not short; one alone is always taken.
    bodies_bytes: int = 64 * 1024 * 1024
    # Of answers that are not short, in one process, from when they are made until they are taken;
    # one user may have a quarter waiting. None for no bound.
    answers_bytes: int | None = 256 * 1024 * 1024
    people_entries: int = 1_000
    people_bytes: int = 1024 * 1024
    log_entries: int | None = None
    log_bytes: int | None = None
    log_devices: int | None = 1_000
    # What is written of further ones is kept like all else, but is not counted by collection.
    log_collections: int = 1_000


MINUTE_MS = 60 * 1000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Policy(NamedTuple):
    """How long a deletion is remembered, and how long a device that is not heard of counts."""

    retention_ms: int = 30 * DAY_MS
    expiry_ms: int = 180 * DAY_MS


class Rates(NamedTuple):
    """How much one user may ask for in a minute, and one device half of it; None for no bound.

    Attributes:
        requests: Fields of the shared log, such as writeEntries: as a rule one a request.
        entries: Entries sent to be written, whatever becomes of them.
        bytes: Characters of their data.
    """

    requests: int | None = None
    entries: int | None = None
    bytes: int | None = None


PUBLIC_RATES = Rates(requests=3_000, entries=600_000, bytes=256 * 1024 * 1024)
"""What no device comes near that works as it should, but for one that sends a long backlog."""


LEEWAY_S_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An identity provider whose JWTs are good here, beside the service's own tokens."""

    issuer: str
    """What `iss` must be, to the letter."""

    audience: str
    """What `aud` must be, or have in it."""

    jwks: str
    """Where its public keys are: a file, or an address that begins with https://."""

    user_claim: str = "sub"
    scope_claim: str = "scope"
    scopes: tuple[str, ...] = ()
    """What a token may do that has no such claim."""

    device_claim: str | None = None
    """The claim that names the only device a token may act as; then each token must have it."""

    leeway_s: int = LEEWAY_S_MAX
    """How far the provider's clock may be from this one."""

    def __post_init__(self) -> None:
        if not (self.issuer and self.audience and self.jwks):
            raise ConfigurationError("JWTs need an issuer, an audience and the issuer's keys.")
        if not 0 <= self.leeway_s <= LEEWAY_S_MAX:
            raise ConfigurationError(f"The leeway for JWTs is 0 to {LEEWAY_S_MAX} seconds.")
        if "://" in self.jwks and not is_private(self.jwks):
            raise ConfigurationError(
                f"{self.jwks}: who can change the keys on their way can be anybody, so their "
                "address begins with https:// (or http:// on a loopback address)."
            )


def is_private(address: str) -> bool:
    """Whether nobody on the way can change what comes from an address."""
    parts = urlsplit(address)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the service waits for a client that is slow, or does as if."""

    head_s: float = 10
    """For the head of a request, from its first byte or from the connection."""

    stalled_s: float = 10
    """For a body, or for an answer to be taken, beyond what `bytes_a_second` allows for."""

    bytes_a_second: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `create_app` needs; the clock and the ids are parts of it, so tests own them."""

    db: Path | str = Path("sharedlog.db")
    """A file, or the address of a PostgreSQL database."""

    host: str = "127.0.0.1"
    no_auth: bool = False
    explore: bool | None = None
    """Whether documents other than the library's are answered, introspection among them, and
    GraphiQL is there. None: on loopback addresses only."""
    workers: int = 1
    """How many processes share the address; more than one need PostgreSQL."""

    readers: int = 4
    grace_s: float = 2
    """How long requests are taken after SIGTERM, while `/readyz` tells whoever sends them to send
    them elsewhere."""
    compact_every_ms: int | None = None
    """How often all logs are compacted (see compacting.py); None for never."""

    compaction: Policy = field(default_factory=Policy)
    issuer: Issuer | None = None
    """Whose JWTs are good here, too; None: nobody's."""

    rates: Rates | None = None
    """None: `PUBLIC_RATES`, on loopback addresses no bounds."""

    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    now: Clock = system_clock
    steady: Clock = steady_clock
    new_id: IdSource = random_id

    def __post_init__(self) -> None:
        if self.no_auth and not is_loopback(self.host):
            raise ConfigurationError(
                f"--no-auth lets everybody who reaches {self.host} read and write every log, so it "
                "works on loopback addresses only. Use --host 127.0.0.1, or leave --no-auth out "
                "and make a token with: sharedlog token create --user NAME"
            )
        if self.workers > 1:
            check_workers(self.db)
        if self.no_auth and self.issuer is not None:
            raise ConfigurationError("--no-auth asks for no tokens: leave it or --jwt-... out.")

    @property
    def explores(self) -> bool:
        return is_loopback(self.host) if self.explore is None else self.explore

    @property
    def metered(self) -> Rates:
        """How much a user may ask for."""
        usual = Rates() if is_loopback(self.host) else PUBLIC_RATES
        return usual if self.rates is None else self.rates


def check_workers(db: Path | str) -> None:
    """Refuse several processes where they would not work together."""
    if isinstance(db, Path):
        raise ConfigurationError(
            "--workers needs PostgreSQL, where several can write at a time. An SQLite file is "
            "served best by one process."
        )
    if not hasattr(os, "fork"):
        raise ConfigurationError("--workers needs a system that can fork: start several services.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
