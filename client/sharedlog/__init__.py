"""Offline-first, multi-device sync for Peewee applications."""

from .adopt import Adopted
from .apply import Applied, Conflict
from .changes import Change, Entry
from .clock import Version
from .digest import CollectionDigest, Difference, Digest
from .errors import (
    AutoIncrementKey,
    ConfigurationError,
    ConnectionFailed,
    DatabaseTooNew,
    DeviceRefused,
    EntryUnreadable,
    EpochChanged,
    MissingToken,
    NotASyncModel,
    NotParked,
    NotSetUp,
    ProtocolError,
    RemoteError,
    ServiceFailed,
    SharedLogError,
    Unauthorized,
    UnsentWork,
    ValueRefused,
)
from .events import Event, SyncResult
from .memory import MemorySharedLog
from .models import SyncModel, uuid7
from .parking import Parked
from .remote import GraphQLSharedLog, HttpTransport, LocalTransport, SharedLog, Transport
from .status import Failure, Status
from .sync import Sync
from .verify import Verified

__all__ = [
    "Adopted",
    "Applied",
    "AutoIncrementKey",
    "Change",
    "CollectionDigest",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "DatabaseTooNew",
    "DeviceRefused",
    "Difference",
    "Digest",
    "Entry",
    "EntryUnreadable",
    "EpochChanged",
    "Event",
    "Failure",
    "GraphQLSharedLog",
    "HttpTransport",
    "LocalTransport",
    "MemorySharedLog",
    "MissingToken",
    "NotASyncModel",
    "NotParked",
    "NotSetUp",
    "Parked",
    "ProtocolError",
    "RemoteError",
    "ServiceFailed",
    "SharedLog",
    "SharedLogError",
    "Status",
    "Sync",
    "SyncModel",
    "SyncResult",
    "Transport",
    "Unauthorized",
    "UnsentWork",
    "ValueRefused",
    "Verified",
    "Version",
    "uuid7",
]
