"""An identity provider's tokens: who a JWT says that asks, after everything about it was checked.

Nothing in a token decides how it is checked, but which of the provider's keys it names. Each
refusal is UNAUTHENTICATED, and says no more than a client's own clock could tell.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Set
from typing import Any, NamedTuple

import jwt
import orjson

from sharedlog_service.access.auth import check_user_name
from sharedlog_service.access.jwks import Keys
from sharedlog_service.errors import Code, ConfigurationError, Refused
from sharedlog_service.grants import Grant, Scope, scopes_of
from sharedlog_service.settings import Clock, Issuer

TOKEN_CHARS_MAX = 8 * 1024

KINDS: Set[str] = frozenset(("jwt", "at+jwt", "application/jwt", "application/at+jwt"))
"""What `typ` may say: a provider signs other things for the same audience, such as logouts."""

GIVEN = frozenset(Scope) - {Scope.ADMIN}
"""What a JWT may allow. Everybody's log is opened by the service's own tokens only: `admin` means
something else wherever else it is a word."""


class Header(NamedTuple):
    """What the header of a token says of its signature."""

    algorithm: str
    key: str | None


class Provider:
    """Tells whom a JWT of one issuer means."""

    def __init__(self, issuer: Issuer, now: Clock, steady: Clock) -> None:
        self._issuer = issuer
        self._now = now
        self._keys = Keys(issuer.jwks, steady)
        self._usual = given(issuer.scopes)
        if len(self._usual) < len(set(issuer.scopes)):
            raise ConfigurationError("admin cannot be given to the tokens of a provider.")

    async def grant(self, token: str) -> Grant:
        """Return what a token allows; refuse every other one."""
        header = read_header(token)
        key = await self._keys.find(header.key, header.algorithm)
        if key is None:
            raise unaccepted()
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[header.algorithm],
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                options={
                    "require": ["iss", "aud", "exp"],
                    # below, by the service's clock
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise unaccepted() from error
        return self._granted(claims)

    def _granted(self, claims: dict[str, Any]) -> Grant:
        issuer = self._issuer
        user = text_of(claims, issuer.user_claim)
        try:
            check_user_name(user)
        except Refused as refused:
            raise unaccepted() from refused
        device = None if issuer.device_claim is None else text_of(claims, issuer.device_claim)
        return Grant(user, self._scopes(claims), device, self._check_times(claims))

    def _check_times(self, claims: dict[str, Any]) -> int:
        """Return until when it is good; refuse what is so no more, or not yet."""
        now, leeway = self._now(), self._issuer.leeway_s * 1000
        begins = max(ms_of(claims.get(name, 0)) for name in ("nbf", "iat"))
        until = ms_of(claims["exp"]) + leeway
        if begins - leeway > now:
            raise unaccepted()
        if until <= now:
            raise Refused(Code.UNAUTHENTICATED, "The token has expired: get a new one.")
        return until

    def _scopes(self, claims: dict[str, Any]) -> frozenset[Scope]:
        found = claims.get(self._issuer.scope_claim)
        if found is None:
            return self._usual
        return given(found.split() if isinstance(found, str) else found)


def given(names: object) -> frozenset[Scope]:
    """Return the scopes among these words, the others being somebody else's."""
    known = {scope.value for scope in GIVEN}
    words = names if isinstance(names, list | tuple) else ()
    return scopes_of(word for word in words if isinstance(word, str) and word in known)


def read_header(token: str) -> Header:
    """Return what decides about the key, if nothing in the header is out of order."""
    if len(token) > TOKEN_CHARS_MAX or token.count(".") != 2 or not token.isascii():
        raise unaccepted()
    part = token.partition(".")[0]
    try:
        header = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        algorithm, key = header.get("alg"), header.get("kid")
        kind = header.get("typ", "jwt").lower()
    except (ValueError, AttributeError) as error:
        raise unaccepted() from error
    # Whatever is critical there is not known here.
    if type(algorithm) is not str or type(key) not in (str, type(None)) or "crit" in header:
        raise unaccepted()
    if kind not in KINDS:
        raise unaccepted()
    return Header(algorithm, key)


def text_of(claims: dict[str, Any], name: str) -> str:
    """Return a claim that is a text, of nothing but characters: JSON can hold halves of one."""
    found = claims.get(name)
    if type(found) is not str or not found:
        raise unaccepted()
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise unaccepted() from error
    return found


def ms_of(seconds: object) -> int:
    """Read a time, which is a number of seconds that a clock can show."""
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e11:  # type: ignore[operator]
        raise unaccepted()
    return int(seconds * 1000)  # type: ignore[operator]


def unaccepted() -> Refused:
    return Refused(Code.UNAUTHENTICATED, "This token is not one that the service accepts.")
