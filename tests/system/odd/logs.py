"""The log of a fleet: in memory, or that of a service's store, which can be compacted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sharedlog import GraphQLSharedLog, LocalTransport, SharedLog
from sharedlog_service.settings import Policy
from sharedlog_service.store.store import Store
from sharedlog_service.web.app import InProcess

USER = "me"


class CompactedLog:
    """What the store forgets, and how soon, is up to the policy."""

    def __init__(
        self, path: Path, policy: Policy, now: Callable[[], int], bits: Callable[[int], int]
    ) -> None:
        self._policy = policy
        self._store = Store.open(path, now=now, new_id=lambda: f"{bits(96):024x}")
        self._store.create_user(USER)
        self.shared: SharedLog = GraphQLSharedLog(
            LocalTransport(InProcess(self._store, USER).execute), USER
        )

    def compact(self) -> int:
        """How many entries went."""
        return self._store.compact(USER, self._policy).entries

    def close(self) -> None:
        self._store.close()
