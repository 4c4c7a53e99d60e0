"""Who asks: bearer tokens, and whose log a request may touch.

A token is 256 random bits. The database keeps only its SHA-256, which needs no salt at that
length, and looks it up by that digest, so no comparison can be timed.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

from sharedlog_service.errors import Code, Refused
from sharedlog_service.store import Store

TOKEN_PREFIX = "slog_"
"""Lets people and secret scanners recognise a leaked token."""

TOKEN_ID_CHARS = 12
"""How much of its digest names a token to people."""

USER_CHARS_MAX = 200


class Access(Protocol):
    """Decides whose log a request may touch."""

    def user(self, store: Store, claimed: str, *, create: bool = False) -> str:
        """Return the user whose log `claimed` may mean here; refuse anything else.

        Asked inside each piece of work, so that a revoked token stops working at once.
        """

    def viewer(self, store: Store) -> str | None:
        """Return the user who asks, None where everybody may be anybody."""


class TokenAccess:
    """The user of a bearer token, and nobody else."""

    def __init__(self, digest: str | None) -> None:
        self._digest = digest

    def user(self, store: Store, claimed: str, *, create: bool = False) -> str:
        user = self.viewer(store)
        if claimed != user:
            raise Refused(Code.FORBIDDEN)
        return user

    def viewer(self, store: Store) -> str:
        user = store.token_user(self._digest) if self._digest else None
        if user is None:
            raise Refused(Code.UNAUTHENTICATED)
        return user


class UserAccess:
    """One user who is known already: in process, where no token travels."""

    def __init__(self, user: str) -> None:
        self._user = user

    def user(self, store: Store, claimed: str, *, create: bool = False) -> str:
        if claimed != self._user:
            raise Refused(Code.FORBIDDEN)
        return self._user

    def viewer(self, store: Store) -> str:
        return self._user


class OpenAccess:
    """Whoever asks is whom they say, made on demand: `--no-auth`, on loopback only."""

    def user(self, store: Store, claimed: str, *, create: bool = False) -> str:
        check_user_name(claimed)
        if create:
            store.create_user(claimed)
        return claimed

    def viewer(self, store: Store) -> None:
        return None


def check_user_name(user: str) -> None:
    if not 0 < len(user) <= USER_CHARS_MAX or "\0" in user:
        raise Refused(Code.INVALID_ARGUMENT, f"A user name has 1 to {USER_CHARS_MAX} characters.")


def new_token(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    return TOKEN_PREFIX + urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")


def token_digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def issue_token(
    store: Store,
    user: str,
    name: str,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Make a token for a user, who is made too if new. It is returned once and never again."""
    check_user_name(user)
    token = new_token(random_bytes)
    with store.transaction():
        store.create_user(user)
        store.add_token(user, name, token_digest(token))
    return token


def revoke_token(store: Store, token_id: str) -> None:
    """Revoke the one valid token whose digest begins with `token_id`."""
    if len(token_id) < TOKEN_ID_CHARS or store.revoke_tokens(token_id) == 0:
        raise Refused(
            Code.INVALID_ARGUMENT, "No valid token has this id; see: sharedlog token list"
        )


def bearer_digest(authorization: str | None) -> str | None:
    """Return the digest of the token in an Authorization header, None if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    return token_digest(token) if scheme.lower() == "bearer" and token else None
