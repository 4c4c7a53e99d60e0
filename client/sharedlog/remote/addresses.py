"""Addresses of services: which can never be one, and how they are told to people."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError

_SECRET = re.compile(r"(?<=//)[^/?#\s]*(?=@)")


def check_address(url: Any) -> None:
    """Refuse what no service can be reached by. What may hold a password is not repeated."""
    if (problem := _problem(url)) is not None:
        told = "The address" if "@" in str(url) else repr(url)
        raise ConfigurationError(
            f"{told} {problem}.",
            hint="Give the service's GraphQL address, such as http://localhost:8000/graphql.",
        )


def _problem(url: Any) -> str | None:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return "is not an http(s) address"
    if not url.isprintable():  # urlsplit() leaves out line ends
        return "has characters that no address has"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError:
        return "has a host that is none"
    if not host or " " in host:
        return "has no host"
    try:
        _ = parts.port
    except ValueError:
        return "has a port that is no number up to 65535"
    return None


def without_secrets(text: str) -> str:
    """A text in which no address tells a user's name and password."""
    return _SECRET.sub("…", text)


def is_loopback(url: str) -> bool:
    """Whether this machine is meant."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
