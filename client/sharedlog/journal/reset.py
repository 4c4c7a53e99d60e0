"""Beginning anew: what is forgotten of a client log, and what must be remembered meanwhile.

The clock stays, so that no timestamp is given out again; so do the short numbers of devices and
lists of fields, which other processes may have in mind. Until the whole log was read again it is
remembered that the tables may hold rows that nobody recorded.
"""

from __future__ import annotations

from .journal import DROPPED, REFUSED, UNSENT, Journal

FORGOTTEN = (
    "device",
    "device_name",
    "registered",
    "former",
    "owner",
    "lineage",
    "relearning",
    "unread",
    "horizon",
    "checkpoint",
    "behind",
    "elsewhere",
    "rereading",
    "rivals",
    "all_sent_until",
    "sent_until",
    "seen_until",
    "pruned_until",
    "folded_until",
    "last_contact",
    "last_error",
    "held",
    "clock_offset",
)
"""What `sharedlog_state` says of this device and of its place in the log."""

UNREAD = "unread"
"""Where it is kept which tables were not known to the program that read all again."""

KNOWN = "sharedlog_known "
"""Begins the name under which it is kept meanwhile which rows of a table had been in the log."""


def count_unshared(journal: Journal) -> int:
    """Entries that only this device has, and that the application did not keep back itself."""
    row = journal.run(
        f"SELECT count(*) FROM sharedlog_entry WHERE status = {UNSENT} "
        f"OR (status = {REFUSED} AND reason <> ?)",
        (DROPPED,),
    ).fetchone()
    return int(row[0])


def forget(journal: Journal) -> None:
    """Forget the client log, inside the open transaction."""
    journal.raise_floor_over_sent()
    for table in ("entry", "inbox"):
        journal.run(f"DELETE FROM sharedlog_{table}")
    journal.run(
        "DELETE FROM sharedlog_row WHERE substr(collection, 1, ?) <> ?", (len(KNOWN), KNOWN)
    )
    journal.forget_state(FORGOTTEN)
    journal.set_state(resetting="1")


def is_resetting(journal: Journal) -> bool:
    """Whether the log is yet to be read again."""
    return journal.state("resetting") is not None


def is_relearning(journal: Journal) -> bool:
    """Whether the log is to be read again, because it has forgotten deletions."""
    return journal.state("relearning") is not None


def is_read_anew(journal: Journal) -> bool:
    """Whether the tables may hold rows of which nothing is known yet: after a reset, because the
    log has forgotten deletions, or because a copy has dated entries otherwise."""
    return any(journal.state(key) for key in ("resetting", "relearning", "rereading"))


def finish(journal: Journal) -> None:
    """Everything was read and recorded; inside the open transaction."""
    journal.set_state(resetting=None)
