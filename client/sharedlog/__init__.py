"""Offline-first, multi-device sync for Peewee applications."""

from .apply.applier import Applied
from .apply.conflicts import Conflict
from .apply.parking import Parked
from .capture.adopt import Adopted
from .care.verify import Verified
from .changes import Change, Entry
from .clock import Version
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
from .journal.status import Failure, Status
from .keys import MigratedKeys, MigratedTable, migrate_keys
from .live import Live
from .merge.counter import Counter
from .merge.custom import Custom
from .merge.extremes import Maximum, Minimum
from .merge.members import Members
from .models.syncmodel import SyncModel, uuid7
from .remote.history import HistoryEntry
from .remote.memory import MemorySharedLog
from .remote.sharedlog import GraphQLSharedLog, SharedLog
from .remote.transports import HttpTransport, LocalTransport, Transport
from .sync import Sync
from .tables.digest import CollectionDigest, Difference, Digest

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
