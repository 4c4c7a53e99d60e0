"""Making this device known to the log, and the log's limits known to this device."""

from __future__ import annotations

from ..changes import dumps, loads
from ..errors import DeviceRefused, QuotaExceeded
from ..journal.status import check_not_held
from ..limits import Limits
from ..models.registry import Registry
from .replica import Replica

ASK_AGAIN_MS = 24 * 3600 * 1000
"""How old what is known of the log may get."""

NO_PLACE = (
    "Whoever runs the service finds devices that are gone by `sharedlog devices list --user NAME` "
    "and makes room by `sharedlog devices revoke ID`. Nothing here is lost: it is sent then."
)


class Registration:
    """Registers the device where needed; keeps what the log says of itself."""

    def __init__(self, replica: Replica, registry: Registry, name: str | None) -> None:
        self._journal = replica.journal
        self._identity = replica.identity
        self._shared_log = replica.shared_log
        self._writing = replica.writing
        self._registry = registry
        self._name = name
        self._asked_ms: int | None = None

    def load_limits(self) -> None:
        """Keep within the limits that the log last told, also while it cannot be reached."""
        known = self._journal.state("limits")
        if known is not None:
            self._journal.limits = Limits(*loads(known))
            self._registry.keep_within(self._journal.limits)

    def ensure(self) -> None:
        """Before the first exchange, and now and then: ask the log for its limits, register. Not
        as long as it asked to be left alone."""
        now = self._journal.now()
        check_not_held(self._journal, now)
        if self._asked_ms is None or not 0 <= now - self._asked_ms < ASK_AGAIN_MS:
            self._ask()
            self._asked_ms = now
        if not self._identity.registered:
            self.register()

    def register(self) -> None:
        """Make the log know this device, for the first time or once more: it may have lost it."""
        device = self._identity.device
        try:
            self._shared_log.register(self._name, device)
        except QuotaExceeded as error:
            raise QuotaExceeded(error.message, hint=NO_PLACE) from error
        with self._writing():
            self._journal.set_state(registered=device, device_name=self._name)

    def ask_again_soon(self) -> None:
        """The log refused something as too large: what is known of its limits is wrong."""
        self._asked_ms = None

    def _ask(self) -> None:
        about = self._shared_log.about()
        owner, limits = self._journal.state("owner"), dumps([*about.limits])
        if owner is not None and owner != about.owner:
            raise DeviceRefused(
                f"This database belongs to the log of {owner!r}, the token to {about.owner!r}.",
                hint="Check url and token. Give each user a database file of their own.",
            )
        if owner is None or limits != self._journal.state("limits"):
            with self._writing():
                self._journal.set_state(owner=about.owner, limits=limits)
            self.load_limits()
