"""Names for where a process can die: the side, the last durable or pending step, and whether it was
committed. Read off the statements and exchanges alone; the library knows nothing of it.

A point lies after one step and before the next, such as "client: entries marked sent, not
committed". Steps that nobody named are called by their verb and table, so a new statement of the
library is a new point and is hit like all others. `POINTS` are those that must never be missed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

STATES = {
    "behind": "doubt noted",
    "elsewhere": "doubt noted",
    "checkpoint": "checkpoint moved",
    "clock_offset": "contact noted",
    "device": "device id kept",
    "device_name": "device id kept",
    "all_sent_until": "entries marked sent",
    "folded_until": "own versions folded",
    "last_contact": "contact noted",
    "last_error": "error noted",
    "layout": "tables made",
    "limits": "limits noted",
    "lineage": "lineage noted",
    "resetting": "reset noted",
    "seen_until": "place noted",
    "sent_until": "entries marked sent",
}
"""What is written to the client's `sharedlog_state`, by its key."""

CLIENT = (
    (r"INSERT INTO sharedlog_entry", "entry recorded"),
    (r"DELETE FROM sharedlog_entry WHERE ticks >=", "entry taken back"),
    (r"DELETE FROM sharedlog_entry WHERE ticks <=", "sent entries pruned"),
    (r"DELETE FROM sharedlog_(entry|row)", "entries and versions forgotten"),
    (r"DELETE FROM sharedlog_state", "device id forgotten"),
    (r"UPDATE sharedlog_entry SET status = 1", "entries marked sent"),
    (r"UPDATE sharedlog_entry SET status = 2", "entries marked refused"),
    (r"UPDATE sharedlog_entry SET status = 0", "entries marked unsent"),
    (r"UPDATE sharedlog_entry SET reason", "entries attributed"),
    (r"UPDATE sharedlog_entry SET recorded", "entries restamped"),
    (r"INSERT.* INTO sharedlog_inbox", "page kept for later"),
    (r"DELETE FROM sharedlog_inbox", "inbox emptied"),
    (r"UPDATE sharedlog_inbox", "inbox tried again"),
    (r"INSERT OR REPLACE INTO sharedlog_row", "versions kept"),
    (r"INSERT.* INTO sharedlog_(device|shape)", "number given"),
    (r"UPDATE sharedlog_clock SET floor = floor", "write lock taken"),
    (r"UPDATE sharedlog_clock SET floor", "clock lifted"),
    (r"UPDATE sharedlog_clock SET lead_ms", "clock corrected"),
    (r"INSERT OR IGNORE INTO sharedlog_clock", "tables made"),
    (r"INSERT OR REPLACE INTO sharedlog_state", "state kept"),
    (r"CREATE ", "tables made"),
    (r'INSERT.* INTO "(folder|note|tag)"', "row inserted"),
    (r'UPDATE "(folder|note|tag)"', "row updated"),
    (r'DELETE FROM "(folder|note|tag)"', "row deleted"),
)

SERVICE = (
    (r"INSERT INTO entries", "entries inserted"),
    (r"INSERT INTO collections", "collection named"),
    (r"UPDATE collections", "collection counted"),
    (r"UPDATE devices SET cursor", "device's place moved"),
    (r'INSERT INTO "devices"', "device registered"),
    (r'UPDATE "devices" SET "revoked_at"', "device revoked"),
    (r'INSERT INTO "?users', "user made"),
    (r'INSERT INTO "logs"', "log made"),
    (r"UPDATE logs SET head", "head moved"),
    (r'UPDATE "logs" SET "epoch"', "epoch renewed"),
    (r'INSERT INTO "tokens"', "token issued"),
    (r'UPDATE "tokens"', "token revoked"),
    (r"CREATE |INSERT INTO meta", "tables made"),
    (r"UPDATE meta", "tables of this version"),
)

EXCHANGES = {
    "About": "enquiry",
    "CreateDeviceId": "registration",
    "WriteEntries": "push",
    "GetUnsyncedEntries": "pull",
    "GetOwnEntries": "question",
}


def is_durable(point: str) -> bool:
    """Whether something became durable, on this side or the other, in the step before."""
    return point.endswith((", committed", "answered"))


WRITING = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")


class Place:
    """Where one side is: it is told of everything that was done, and names the point."""

    def __init__(self, side: str, steps: Sequence[tuple[str, str]]) -> None:
        self._side = side
        self._steps = [(re.compile(pattern), name) for pattern, name in steps]
        self.begin()

    def begin(self) -> None:
        """What was done until now does not matter."""
        self._last = "nothing written"
        self._stand("nothing done yet")

    def after(self, sql: str, *, open: bool, changed: bool = True, key: object = None) -> None:
        """A statement was executed. `open`: a transaction is, now; `key`: of a state."""
        verb = sql.split(maxsplit=1)[0].rstrip(";").upper()
        if verb == "BEGIN":
            self._last = "nothing written"
            self._stand("transaction begun")
        elif verb == "ROLLBACK":
            self._stand("rolled back, in part" if open else "rolled back")
        elif verb == "COMMIT":
            self._stand(f"{self._last}, committed")
        elif verb in WRITING and changed:
            self._last = self._name(" ".join(sql.split()), key)
            self._stand(f"{self._last}, {'not committed' if open else 'committed'}")

    def exchange(self, document: str, what: str) -> None:
        operation = document.split("(")[0].split()[1]
        self._stand(f"{EXCHANGES.get(operation, operation)} {what}")

    def _stand(self, where: str) -> None:
        self.here = f"{self._side}: {where}"

    def _name(self, sql: str, key: object) -> str:
        for pattern, name in self._steps:
            if pattern.match(sql):
                return STATES.get(str(key), name) if name == "state kept" else name
        table = re.search(r"(?:INTO|FROM|UPDATE|TABLE|INDEX|TRIGGER)\W+(\w+)", sql)
        return f"{sql.split()[0]} {table[1] if table else sql}"


POINTS = frozenset(
    (
        "client: checkpoint moved, committed",
        "client: checkpoint moved, not committed",
        "client: clock corrected, not committed",
        "client: clock lifted, not committed",
        "client: contact noted, not committed",
        "client: device id forgotten, not committed",
        "client: device id kept, committed",
        "client: device id kept, not committed",
        "client: doubt noted, committed",
        "client: doubt noted, not committed",
        "client: entries and versions forgotten, not committed",
        "client: entries attributed, not committed",
        "client: entries marked refused, not committed",
        "client: entries marked sent, committed",
        "client: entries marked sent, not committed",
        "client: entries marked unsent, not committed",
        "client: entries restamped, not committed",
        "client: entry recorded, committed",
        "client: entry recorded, not committed",
        "client: entry taken back, not committed",
        "client: inbox emptied, committed",
        "client: inbox emptied, not committed",
        "client: lineage noted, not committed",
        "client: number given, not committed",
        "client: own versions folded, committed",
        "client: own versions folded, not committed",
        "client: page kept for later, not committed",
        "client: place noted, committed",
        "client: place noted, not committed",
        "client: pull answered",
        "client: pull to be sent",
        "client: push answered",
        "client: push to be sent",
        "client: question answered",
        "client: question to be sent",
        "client: registration answered",
        "client: registration to be sent",
        "client: reset noted, committed",
        "client: reset noted, not committed",
        "client: rolled back",
        "client: rolled back, in part",
        "client: row deleted, committed",
        "client: row deleted, not committed",
        "client: row inserted, committed",
        "client: row inserted, not committed",
        "client: row updated, committed",
        "client: row updated, not committed",
        "client: sent entries pruned, committed",
        "client: sent entries pruned, not committed",
        "client: tables made, committed",
        "client: tables made, not committed",
        "client: transaction begun",
        "client: versions kept, not committed",
        "service: collection counted, not committed",
        "service: collection named, not committed",
        "service: device registered, committed",
        "service: device registered, not committed",
        "service: device revoked, committed",
        "service: device revoked, not committed",
        "service: device's place moved, committed",
        "service: device's place moved, not committed",
        "service: entries inserted, not committed",
        "service: epoch renewed, committed",
        "service: epoch renewed, not committed",
        "service: head moved, committed",
        "service: head moved, not committed",
        "service: log made, committed",
        "service: log made, not committed",
        "service: rolled back",
        "service: rolled back, in part",
        "service: tables made, not committed",
        "service: tables of this version, committed",
        "service: tables of this version, not committed",
        "service: token issued, committed",
        "service: token issued, not committed",
        "service: token revoked, committed",
        "service: token revoked, not committed",
        "service: transaction begun",
        "service: user made, not committed",
    )
)
"""Where somebody must have died in each run of the tests. What is not here is hit as well; this is
so that nothing gets out of the tests' sight."""
