"""Who asks: bearer tokens, and whose log a request may touch.

A token is 256 random bits. The database keeps only its SHA-256, which needs no salt at that
length, and looks it up by that digest, so no comparison can be timed.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from unicodedata import category

from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import USUAL, Grant, Scope
from sharedlog_service.store.store import Store

TOKEN_PREFIX = "slog_"
"""Lets people and secret scanners recognise a leaked token."""

TOKEN_ID_CHARS = 12
"""How much of its digest names a token to people."""

USER_CHARS_MAX = 200

UNNAMEABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Categories of Unicode that no name has: controls, halves of characters, ends of lines."""


class Access(ABC):
    """Decides whose log a request may touch, and how. Asked inside each piece of work, so that a
    revoked token stops working at once."""

    makes_users = False
    """Whether somebody else keeps the list of users: they are made here when they come."""

    token: str | None = None
    """The digest of the token that all this is by; None if it is by none."""

    def user(
        self,
        store: Store,
        claimed: str,
        scope: Scope,
        *,
        device: str | None = None,
        create: bool = False,
    ) -> str:
        """Return the user whose log `claimed` may mean here; refuse anything else. `device` is
        whom the request acts as. Counts as a request, where somebody counts."""
        self.check(store, claimed, scope, device)
        self.asked(claimed, device)
        if create and self.makes_users:
            store.create_user(claimed)
        return claimed

    def asked(self, user: str, device: str | None) -> None:
        """Count a request, or refuse it as one too many. Only `metering` does."""
        return None

    def wrote(self, user: str, device: str, entries: int, bytes: int) -> None:
        """Count what came to be written."""
        return None

    def room(self) -> int | None:
        """Return how many bytes of data the next page for who asked may have; None for no bound."""
        return None

    @abstractmethod
    def check(self, store: Store, claimed: str, scope: Scope, device: str | None) -> None:
        """Refuse what is not allowed."""

    @abstractmethod
    def viewer(self, store: Store) -> str | None:
        """Return the user who asks, None where everybody may be anybody."""

    @abstractmethod
    def may_explore(self, store: Store) -> bool:
        """Whether who asks may send documents that are not the library's, where the service as a
        whole does not answer them; refuse who may ask nothing at all."""


class GrantAccess(Access):
    """What a grant allows, and nothing else."""

    @abstractmethod
    def grant(self, store: Store) -> Grant:
        """Return the grant; refuse who has none."""

    def check(self, store: Store, claimed: str, scope: Scope, device: str | None) -> None:
        self.grant(store).check(claimed, scope, device)

    def viewer(self, store: Store) -> str:
        return self.grant(store).user

    def may_explore(self, store: Store) -> bool:
        return self.grant(store).allows(Scope.EXPLORE)


class TokenAccess(GrantAccess):
    """What a bearer token allows."""

    def __init__(self, digest: str | None) -> None:
        self.token = digest

    def grant(self, store: Store) -> Grant:
        grant = store.grant(self.token) if self.token else None
        if grant is None:
            raise Refused(Code.UNAUTHENTICATED)
        return grant


class NoAccess(GrantAccess):
    """Nobody: what was shown is no good, for this reason. Says so when it is asked."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def grant(self, store: Store) -> Grant:
        raise Refused(Code.UNAUTHENTICATED, self._reason)


class KnownAccess(GrantAccess):
    """Somebody who is known already: in process, or to the program around this one."""

    def __init__(self, grant: Grant, *, makes_users: bool = False) -> None:
        self._grant = grant
        self.makes_users = makes_users

    def grant(self, store: Store) -> Grant:
        expires_at = self._grant.expires_at
        if expires_at is not None and expires_at <= store.now():
            raise Refused(Code.UNAUTHENTICATED)
        return self._grant


class OpenAccess(Access):
    """Whoever asks is whom they say: `--no-auth`, on loopback only."""

    makes_users = True

    def check(self, store: Store, claimed: str, scope: Scope, device: str | None) -> None:
        check_user_name(claimed)

    def viewer(self, store: Store) -> None:
        return None

    def may_explore(self, store: Store) -> bool:
        return False


def check_user_name(user: str) -> None:
    if not 0 < len(user) <= USER_CHARS_MAX:
        raise Refused(Code.INVALID_ARGUMENT, f"A user name has 1 to {USER_CHARS_MAX} characters.")
    if any(category(character) in UNNAMEABLE for character in user):
        raise Refused(Code.INVALID_ARGUMENT, "A user name has no control characters in it.")


def new_token(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    return TOKEN_PREFIX + urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")


def token_digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def issue_token(
    store: Store,
    user: str,
    name: str,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    *,
    scopes: frozenset[Scope] = USUAL,
    device: str | None = None,
    expires_at: int | None = None,
) -> str:
    """Make a token for a user, who is made too if new. It is returned once and never again."""
    check_user_name(user)
    token = new_token(random_bytes)
    with store.transaction():
        store.create_user(user)
        store.add_token(token_digest(token), name, Grant(user, scopes, device, expires_at))
    return token


def rotate_token(
    store: Store,
    token_id: str,
    grace_ms: int,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Make a token that replaces the one valid token of this id, which works on for `grace_ms`."""
    token, until = new_token(random_bytes), store.now() + grace_ms
    if len(token_id) < TOKEN_ID_CHARS:
        raise no_such_token()
    if store.replace_token(token_id, token_digest(token), until) != 1:
        raise no_such_token()
    return token


def revoke_token(store: Store, token_id: str) -> None:
    """Revoke the one valid token whose digest begins with `token_id`."""
    if len(token_id) < TOKEN_ID_CHARS or store.revoke_tokens(token_id) == 0:
        raise no_such_token()


def no_such_token() -> Refused:
    return Refused(Code.INVALID_ARGUMENT, "No valid token has this id; see: sharedlog token list")


def bearer(authorization: str | None) -> str | None:
    """Return the token in an Authorization header, None if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def bearer_digest(authorization: str | None) -> str | None:
    """Return the digest of that token."""
    token = bearer(authorization)
    return None if token is None else token_digest(token)
