"""Offline-first, multi-device sync for Peewee applications."""

from .adopt import Adopted
from .apply import Applied
from .changes import Change, Entry
from .clock import Version
from .conflicts import Conflict
from .counter import Counter
from .custom import Custom
from .digest import CollectionDigest, Difference, Digest
from .errors import (
    AutoIncrementKey,
    ConfigurationError,
    ConnectionFailed,
    DatabaseTooNew,
    DeviceRefused,
    DeviceUnknown,
    EntryUnreadable,
    EpochChanged,
    HorizonPassed,
    LineageChanged,
    MigrationRefused,
    MissingToken,
    NotASyncModel,
    NotParked,
    NotSetUp,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RemoteError,
    ServiceFailed,
    SharedLogError,
    Unauthorized,
    UnsentWork,
    ValueRefused,
)
from .events import Event, SyncResult
from .extremes import Maximum, Minimum
from .history import HistoryEntry
from .keys import MigratedKeys, MigratedTable, migrate_keys
from .live import Live
from .members import Members
from .memory import MemorySharedLog
from .models import SyncModel, uuid7
from .parking import Parked
from .remote import GraphQLSharedLog, SharedLog
from .status import Failure, Status
from .sync import Sync
from .transports import HttpTransport, LocalTransport, Transport
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
    "Counter",
    "Custom",
    "DatabaseTooNew",
    "DeviceRefused",
    "DeviceUnknown",
    "Difference",
    "Digest",
    "Entry",
    "EntryUnreadable",
    "EpochChanged",
    "Event",
    "Failure",
    "GraphQLSharedLog",
    "HistoryEntry",
    "HorizonPassed",
    "HttpTransport",
    "LineageChanged",
    "Live",
    "LocalTransport",
    "Maximum",
    "Members",
    "MemorySharedLog",
    "MigratedKeys",
    "MigratedTable",
    "MigrationRefused",
    "Minimum",
    "MissingToken",
    "NotASyncModel",
    "NotParked",
    "NotSetUp",
    "Parked",
    "ProtocolError",
    "QuotaExceeded",
    "RateLimited",
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
    "migrate_keys",
    "uuid7",
]
