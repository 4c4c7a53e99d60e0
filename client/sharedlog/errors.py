"""What can go wrong, as one tree. Catch `SharedLogError` for anything from this library.

    SharedLogError
    ├─ ConfigurationError      the program is wrong: the message says what to write instead
    │  ├─ NotASyncModel        a model given to Sync does not derive from SyncModel
    │  ├─ AutoIncrementKey     a model's key is made by the database, so devices would collide
    │  ├─ NotSetUp             sync() or adopt() before setup()
    │  ├─ DatabaseTooNew       a newer sharedlog, or a newer program of yours, used the database
    │  ├─ MissingToken         no token for a service that needs one
    │  └─ NotParked            resolve() or discard() of a row that is not parked any more
    ├─ ValueRefused            a value cannot be carried exactly; nothing was written
    ├─ UnsentWork              reset() would lose changes that only this device has
    ├─ MigrationRefused        keys cannot be replaced as things are; nothing was changed
    ├─ EntryUnreadable         an entry's data is not a change; it is set aside, never lost
    ├─ RemoteError             anything that came over the wire
    │  ├─ ConnectionFailed     the service cannot be reached: local work goes on, retry later
    │  ├─ RateLimited          too much at once: `.retry_after` says how many seconds to wait
    │  ├─ QuotaExceeded        the log is full: changes stay here, others' still arrive
    │  ├─ Unauthorized         the token is missing, unknown, or for another user
    │  ├─ DeviceRefused        this device was revoked, or its file belongs to another log
    │  │  └─ DeviceUnknown     the service lost this device (handled by sync())
    │  ├─ EpochChanged         the log was restored or wiped (handled by sync())
    │  ├─ HorizonPassed        the log forgot deletions not seen here (handled by sync())
    │  ├─ LineageChanged       this file or the log is a copy of an older one (handled by sync())
    │  └─ ServiceFailed        the service answered with an error; `.service_code` says which
    └─ ProtocolError           the answer is not what the protocol promises

Every error has a `code` (stable, for programs), a message (for people) and, where there is
something to do about it, a `hint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

RETRY_AFTER_MAX_S = 3600.0
"""A service that asks to be left alone for longer is asked again after this."""


class SharedLogError(Exception):
    """Something went wrong in sharedlog."""

    code: ClassVar[str] = "SHAREDLOG_ERROR"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.hint = hint
        super().__init__(self.message if hint is None else f"{self.message}\n  {hint}")


class ConfigurationError(SharedLogError):
    """The program uses sharedlog in a way that cannot work."""

    code = "CONFIGURATION"


class NotASyncModel(ConfigurationError):
    """A model given to Sync does not derive from SyncModel."""

    code = "NOT_A_SYNC_MODEL"


class AutoIncrementKey(ConfigurationError):
    """A model's primary key is made by the database, so two devices would make the same one."""

    code = "AUTO_INCREMENT_KEY"


class NotSetUp(ConfigurationError):
    """Call setup() first: it creates the tables of the client log and starts recording."""

    code = "NOT_SET_UP"


class DatabaseTooNew(ConfigurationError):
    """The database was used by something newer than this program; nothing was changed."""

    code = "DATABASE_TOO_NEW"


class MissingToken(ConfigurationError):
    """The service needs a token."""

    code = "MISSING_TOKEN"


class NotParked(ConfigurationError):
    """The row is not parked any more."""

    code = "NOT_PARKED"


class ValueRefused(SharedLogError):
    """A value cannot be carried exactly to other devices; nothing was written."""

    code = "VALUE_REFUSED"


class UnsentWork(SharedLogError):
    """There are changes that only this device has; they would be lost."""

    code = "UNSENT_WORK"

    def __init__(self, count: int) -> None:
        entries = "1 change" if count == 1 else f"{count:,} changes"
        super().__init__(
            f"{entries} of this device would be lost: not sent yet, or refused by the service.",
            hint="Call sync() first, and look at status(); reset(force=True) gives them up.",
        )
        self.count = count


class MigrationRefused(SharedLogError):
    """Keys cannot be replaced as things are; nothing was changed."""

    code = "MIGRATION_REFUSED"

    @classmethod
    def because(cls, problems: Sequence[str]) -> MigrationRefused:
        """One refusal that lists everything that stands in the way."""
        lines = [f"- {problem}" for problem in problems]
        return cls("\n  ".join(["The keys cannot be replaced yet; nothing was changed.", *lines]))


class EntryUnreadable(SharedLogError):
    """An entry's data is not a change that this version understands."""

    code = "ENTRY_UNREADABLE"


class RemoteError(SharedLogError):
    """The exchange with the service failed."""

    code = "REMOTE"


class ConnectionFailed(RemoteError):
    """The service cannot be reached. Local work goes on; the next sync sends what is pending."""

    code = "CONNECTION_FAILED"
    retryable = True


class RateLimited(RemoteError):
    """The service allows no more at a time; nothing is lost, and the rest is sent later.

    What was exchanged before stands. Until `retry_after` seconds have gone by, an hour at most,
    `sync()` raises this again without asking the service.
    """

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = min(retry_after, RETRY_AFTER_MAX_S)


class QuotaExceeded(RemoteError):
    """The log holds as much as it may; what is unsent stays here, and is sent when there is room.

    Raised at the end of a run, after what others wrote was received; before it, where the log takes
    no more devices and does not know this one.
    """

    code = "QUOTA_EXCEEDED"


class Unauthorized(RemoteError):
    """The service does not accept this token for this user."""

    code = "UNAUTHORIZED"


class DeviceRefused(RemoteError):
    """This device was revoked, or its file belongs to another log."""

    code = "DEVICE_REFUSED"


class DeviceUnknown(DeviceRefused):
    """The service does not know this device."""

    code = "DEVICE_UNKNOWN"


class EpochChanged(RemoteError):
    """The log was restored or wiped since this device last saw it."""

    code = "EPOCH_CHANGED"
    retryable = True


class HorizonPassed(RemoteError):
    """The log has forgotten deletions that this device has not seen. Who wants to read all of it
    all the same begins at `beginning`."""

    code = "HORIZON_PASSED"
    retryable = True
    beginning: str | None = None


class LineageChanged(RemoteError):
    """Something was written as this device, or lost, that this file does not know of."""

    code = "LINEAGE_CHANGED"
    retryable = True


class ServiceFailed(RemoteError):
    """The service answered with an error."""

    code = "SERVICE_FAILED"

    def __init__(self, message: str = "", *, service_code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.service_code = service_code


class ProtocolError(SharedLogError):
    """The service's answer is not what the protocol promises."""

    code = "PROTOCOL"
