"""New timestamps for entries that are in no log yet, where the log does not take theirs.

Too far ahead of the service's time: they are brought back into it. Older than what the log
remembers: they come just behind that, as old as they can be, so that what was written after them,
here or elsewhere, still wins.

An entry goes on saying when it was recorded: copies of this device, each for itself, date anew what
they have in common, and know it again by that (see `lineage`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..clock import TICKS_PER_MS
from ..journal.journal import CHUNK, SELECT, SENT, UNSENT, Journal, LocalEntry, chunks
from ..merge.counter import restamped_json


def restamp(journal: Journal, since: int, lead_ms: int) -> dict[int, int]:
    """Give entries since then new timestamps, from a clock that is `lead_ms` slower.

    In order, groups kept; later local changes use the corrected clock too. Refused
    entries are among them: they are in no log, and must not hold the clock where it was.
    Inside the open transaction. Returns the new timestamps by the old ones.
    """
    rows = journal.run(
        "SELECT ticks, offset_ticks FROM sharedlog_entry "
        f"WHERE ticks >= ? AND status <> {SENT} ORDER BY ticks",
        (since,),
    ).fetchall()
    journal.run("UPDATE sharedlog_clock SET lead_ms = ?", (lead_ms,))
    settled = journal.run(
        f"SELECT {journal.dialect.greatest}(floor, ifnull((SELECT max(ticks) FROM sharedlog_entry "
        f"WHERE ticks < ? OR status = {SENT}), 0)) FROM sharedlog_clock",
        (since,),
    ).fetchone()[0]
    first = max((journal.now() - lead_ms) * TICKS_PER_MS, settled + 1)
    renamed = {ticks: first + i for i, (ticks, _) in enumerate(rows)}
    _rename(journal, rows, renamed)
    journal.new_group()
    return renamed


def lift(journal: Journal, ticks: Sequence[int], horizon: int) -> dict[int, int]:
    """Give these unsent entries the first free timestamps after `horizon`, in their order, inside
    the open transaction; return the new ones by the old ones."""
    entries = sorted(journal.entries_at(ticks).items())
    renamed: dict[int, int] = {}
    last = horizon
    for old, _ in entries:
        last += 1
        while journal.entries_at([last]):
            last += 1
        renamed[old] = last
    if renamed:
        _rename(journal, [(old, entry.offset) for old, entry in entries], renamed)
    return renamed


def _rename(journal: Journal, rows: Sequence[tuple[int, int]], renamed: Mapping[int, int]) -> None:
    """Give entries, told as (ticks, offset) in their order, their new timestamps; groups stay."""
    if rows:
        _rename_counters(journal, rows[0][0], renamed)
    starts: dict[int, int] = {}
    moves = []
    for ticks, offset in rows:
        start = starts.setdefault(ticks - offset, renamed[ticks])
        moves.append((-renamed[ticks], renamed[ticks] - start, ticks))
    # By way of negative numbers, so that no new timestamp meets an old one.
    journal.run_many(
        "UPDATE sharedlog_entry SET recorded = ifnull(recorded, ticks), ticks = ?, "
        "offset_ticks = ? WHERE ticks = ?",
        moves,
    )
    journal.run("UPDATE sharedlog_entry SET ticks = -ticks WHERE ticks < 0")
    journal.set_state(all_sent_until="0")


def _rename_counters(journal: Journal, since: int, renamed: Mapping[int, int]) -> None:
    """Replace the timestamps that increments since then name."""
    rows = journal.run(
        f"{SELECT} WHERE ticks >= ? AND status <> {SENT} AND rules IS NOT NULL",
        (since,),
    ).fetchall()
    moved = [(restamped_json(row[5], row[6], renamed), row[0]) for row in rows]
    journal.run_many("UPDATE sharedlog_entry SET value = ? WHERE ticks = ?", moved)


def recorded_at(journal: Journal, ticks: Sequence[int]) -> dict[int, LocalEntry]:
    """By these timestamps, the entries that were recorded with them and never sent, as far as this
    device knows."""
    found: dict[int, LocalEntry] = {}
    for chunk in chunks(ticks, CHUNK // 2):
        marks = ",".join("?" * len(chunk))
        sql = (
            f"{SELECT} WHERE (recorded IN ({marks}) OR recorded IS NULL AND ticks IN ({marks})) "
            f"AND status = {UNSENT} AND reason IS NULL"
        )
        entries = (LocalEntry(*row) for row in journal.run(sql, [*chunk, *chunk]).fetchall())
        found |= {e.ticks if e.recorded is None else e.recorded: e for e in entries}
    return found


def take_back(journal: Journal, entries: Iterable[LocalEntry]) -> None:
    """Remove entries that are in the log with other timestamps, inside the open transaction, when
    all are folded. The next ones may come before those that were removed."""
    ticks = [(entry.ticks,) for entry in entries]
    journal.run_many("DELETE FROM sharedlog_entry WHERE ticks = ?", ticks)
    newest = journal.run("SELECT ifnull(max(ticks), 0) FROM sharedlog_entry").fetchone()[0]
    journal.set_state(folded_until=str(newest))
