"""The GraphQL documents that the client sends, to the letter: the service caches them by text."""

from __future__ import annotations

ABOUT = """query About {
  sharedSyncLog { viewer limits { entryBytes batchEntries batchBytes } }
}"""

CREATE_DEVICE_ID = """mutation CreateDeviceId($userId: ID!, $name: String, $deviceId: ID) {
  sharedSyncLog { createDeviceId(userId: $userId, name: $name, deviceId: $deviceId) }
}"""

WRITE_ENTRIES = """mutation WriteEntries(
  $userId: ID!, $deviceId: ID!, $packed: PackedEntries!, $now: Float, $after: Cursor,
  $batchSize: Int!, $byteLimit: Int!, $lineage: ID
) {
  sharedSyncLog {
    writeEntries(
      userId: $userId, deviceId: $deviceId, packed: $packed, now: $now, after: $after,
      withUpdate: true, batchSize: $batchSize, byteLimit: $byteLimit, lineage: $lineage
    ) {
      accepted duplicates epoch lineage serverTime horizon
      rejected { index code reason }
      update { packed cursor hasMore epoch serverTime }
    }
  }
}"""

GET_UNSYNCED_ENTRIES = """query GetUnsyncedEntries(
  $userId: ID!, $deviceId: ID!, $after: Cursor, $batchSize: Int!, $byteLimit: Int!, $lineage: ID
) {
  sharedSyncLog {
    getUnsyncedEntries(
      userId: $userId, deviceId: $deviceId, after: $after,
      batchSize: $batchSize, byteLimit: $byteLimit, lineage: $lineage
    ) { packed cursor hasMore epoch serverTime }
  }
}"""

GET_OWN_ENTRIES = """query GetOwnEntries(
  $userId: ID!, $deviceId: ID!, $createdFrom: Float!, $batchSize: Int!, $byteLimit: Int!
) {
  sharedSyncLog {
    getOwnEntries(
      userId: $userId, deviceId: $deviceId, createdFrom: $createdFrom,
      batchSize: $batchSize, byteLimit: $byteLimit
    ) { packed hasMore lineage }
  }
}"""

GET_ALL_ENTRIES = """query GetAllEntries(
  $userId: ID!, $deviceId: ID!, $after: Cursor, $until: Cursor!, $batchSize: Int!, $byteLimit: Int!
) {
  sharedSyncLog {
    getUnsyncedEntries(
      userId: $userId, deviceId: $deviceId, after: $after, until: $until, withOwn: true,
      batchSize: $batchSize, byteLimit: $byteLimit
    ) { packed cursor hasMore epoch serverTime }
  }
}"""

HISTORY = """query History($userId: ID!, $collection: String!, $pk: JSON!, $first: Int!) {
  sharedSyncLog {
    history(userId: $userId, collection: $collection, pk: $pk, first: $first) {
      deviceId createdOn group data
    }
    devices(userId: $userId) { id name }
  }
}"""

POKED = """subscription Poked($userId: ID!, $deviceId: ID!) {
  sharedSyncLogPoked(userId: $userId, deviceId: $deviceId) { cursor }
}"""

DOCUMENTS = (
    ABOUT,
    CREATE_DEVICE_ID,
    WRITE_ENTRIES,
    GET_UNSYNCED_ENTRIES,
    GET_OWN_ENTRIES,
    GET_ALL_ENTRIES,
    HISTORY,
    POKED,
)
"""Everything that this library ever sends; a test validates them against schema.graphql."""
