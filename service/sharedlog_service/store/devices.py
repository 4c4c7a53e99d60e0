"""Devices of a log: registering them, and telling whether a request comes from the right one.

A device's *lineage* is a random mark that each of its writes renews. A request shows the one that
the device knows. Where it is not the current one, something happened that the device does not know
of: an answer got lost, the device's database was copied or restored, or the log was. Nothing is
written or read then before the device has found out which (see `read_own`).

Copies of one file have ids that are the same up to the first dot. Each write of the one gives the
others' lineages a new second part, which a write has to show, too: what they are about to send may
be what the copy has sent, so they look before they do. Whoever only reads sees it anyway.

Runs inside the caller's transaction or snapshot.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sharedlog_service.engines.session import Session
from sharedlog_service.engines.tables import DeviceRow
from sharedlog_service.errors import Code, Refused
from sharedlog_service.settings import Limits
from sharedlog_service.store.beginnings import KIND, Beginnings
from sharedlog_service.store.paging import Stretch

LABEL_CHARS_MAX = 200

DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""What a device may call itself."""

COPIES = "~"
"""Begins the part of a lineage that the writes of copies renew. No id has it."""

UNWRITTEN = f"substr(lineage, 1, 1) IN ('', '{COPIES}')"
"""Says, in SQL, that nothing was ever written as a device."""

OWN = f"""
    SELECT id, device, created_on, group_offset, shared_on, {KIND}, data FROM entries
    WHERE device = ? AND created_on >= ? ORDER BY created_on
"""


class DeviceState(NamedTuple):
    """A device that may read and write."""

    no: int
    cursor: int
    last_seen: int | None
    lineage: str

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written as this device, or read to the end."""
        return not _own(self.lineage) and self.cursor == 0

    def check_write(self, lineage: str | None) -> None:
        """Refuse a write that does not know what was last written as this device or a copy."""
        if lineage is not None and lineage != self.lineage:
            raise Refused(Code.LINEAGE_CHANGED)

    def check_read(self, lineage: str | None) -> None:
        """Refuse to answer who does not know what was last written as this device."""
        if lineage is not None and _own(lineage) != _own(self.lineage):
            raise Refused(Code.LINEAGE_CHANGED)


def working_device(db: Session, log: int, device_id: str) -> DeviceState:
    sql = "SELECT no, cursor, last_seen, lineage, revoked_at FROM devices WHERE id = ? AND log = ?"
    for *state, revoked_at in db.rows(sql, device_id, log):
        if revoked_at is not None:
            raise Refused(Code.DEVICE_REVOKED)
        return DeviceState(*state)
    raise Refused(Code.DEVICE_UNKNOWN)


def _own(lineage: str) -> str:
    """The part of a lineage that the device's own writes renew."""
    return lineage.partition(COPIES)[0]


def note_copies(db: Session, log: int, device_id: str, mark: str) -> None:
    """Let the copies of this device know that it wrote."""
    root = device_id.partition(".")[0]
    sql = """SELECT no, lineage FROM devices
        WHERE log = ? AND id <> ? AND (id = ? OR substr(id, 1, ?) = ?)"""
    start = f"{root}."
    for no, lineage in db.rows(sql, log, device_id, root, len(start), start):
        renewed = f"{_own(lineage)}{COPIES}{mark}"
        db.rows("UPDATE devices SET lineage = ? WHERE no = ?", renewed, no)


def registered_before(
    db: Session, log: int, device_id: str | None, request_id: str | None
) -> str | None:
    """Return the id of the device that a repeated registration means, None if it is a first one."""
    if device_id is None:
        sql = "SELECT id FROM devices WHERE log = ? AND request_id = ?"
        known: str | None = db.scalar(sql, log, request_id)
        return known
    if not DEVICE_ID.fullmatch(device_id):
        raise Refused(
            Code.INVALID_ARGUMENT,
            "deviceId has 1 to 200 letters, digits, dots, dashes and underscores.",
        )
    if not db.rows("SELECT 1 FROM devices WHERE id = ?", device_id):
        return None
    working_device(db, log, device_id)  # not a revoked one, and not another log's
    return device_id


def check_room(db: Session, log: int, limits: Limits) -> None:
    """Refuse another device of a log that has as many as it may. Those that are revoked leave their
    places to others."""
    most = limits.log_devices
    sql = "SELECT count(*) FROM devices WHERE log = ? AND revoked_at IS NULL"
    if most is not None and db.scalar(sql, log) >= most:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"The log has as many devices as it may, {most:,}: revoke devices that are gone.",
            logDevices=most,
        )


def register(db: Session, **columns: object) -> str:
    DeviceRow.insert(**columns).execute(db)
    return str(columns["id"])


def check_labels(*texts: str | None) -> None:
    for text in texts:
        if text is not None and (len(text) > LABEL_CHARS_MAX or "\0" in text):
            raise Refused(
                Code.INVALID_ARGUMENT,
                f"name and requestId have {LABEL_CHARS_MAX} characters at most.",
            )


def read_own(db: Session, device: int, created_from: int, stretch: Stretch) -> None:
    """Fill the stretch with what this device wrote since then, in the order of its timestamps."""
    with db.stream(OWN, device, created_from) as found:
        stretch.fill(Beginnings(db).whole(found))
