"""What somebody may do: whose log, in which ways, as which device, until when. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from sharedlog_service.errors import Code, Refused


class Scope(Enum):
    """One way of using a log. The values are the names on the command line and in tokens."""

    READ = "log:read"
    APPEND = "log:append"
    DEVICES = "device:manage"
    EXPLORE = "explore"
    ADMIN = "admin"


USUAL = frozenset((Scope.READ, Scope.APPEND, Scope.DEVICES))
"""What a device needs, and nothing more."""

EVERYTHING = USUAL | {Scope.EXPLORE}
"""All there is to do with a log of one's own."""


class Grant(NamedTuple):
    """Attributes:
    user: Whose log.
    scopes: In which ways. `ADMIN` stands for all, in everybody's log.
    device: The only device it may act as; None for any.
    expires_at: In milliseconds; None for never.
    """

    user: str
    scopes: frozenset[Scope] = USUAL
    device: str | None = None
    expires_at: int | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def check(self, claimed: str, scope: Scope, device: str | None) -> None:
        """Refuse what is not allowed in the log of this user."""
        if claimed != self.user and Scope.ADMIN not in self.scopes:
            raise Refused(Code.FORBIDDEN)
        if not self.allows(scope):
            raise Refused(
                Code.SCOPE_MISSING,
                f"This token may not do that: it lacks the scope {scope.value}.",
                scope=scope.value,
            )
        if device is not None and self.device not in (None, device):
            raise Refused(Code.DEVICE_FORBIDDEN)


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Read names of scopes; ValueError names the one that is none."""
    return frozenset(Scope(name) for name in names)
