"""What must hold: while the fleet runs, and when all is quiet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from sharedlog.journal.journal import DELETED, OPERATION_NAMES
from tests.dictmodel import Row, Stamp
from tests.tablemodel import Key

from .device import Committed, Device, same
from .network import Identity
from .oracle import Expected, Oracle
from .service import Logged


class Bad(AssertionError):
    """A promise is broken."""


def check_log(log: Sequence[Logged]) -> None:
    """Positions without gaps, identities without repetition."""
    if [entry.seq for entry in log] != list(range(1, len(log) + 1)):
        raise Bad(f"the log has gaps: {[entry.seq for entry in log]}")
    twice = [i for i, n in Counter((e.device, e.ticks) for e in log).items() if n > 1]
    if twice:
        raise Bad(f"identities that are in the log twice: {twice}")


def check_acknowledged(log: Sequence[Logged], acknowledged: Mapping[tuple[str, int], str]) -> None:
    """What was acknowledged is in the log, as it was sent; or as a copy sent it once more, when the
    log had lost it."""
    stored = {(entry.device, entry.ticks): entry.data for entry in log}
    missing = {key: data for key, data in acknowledged.items() if stored.get(key) != data}
    families = {root_of(device) for device, _ in missing}
    again = {
        (root_of(entry.device), entry.ticks, _made(_change(entry.data)))
        for entry in log
        if root_of(entry.device) in families
    }
    lost = [
        (device, ticks)
        for (device, ticks), data in missing.items()
        if (root_of(device), ticks, _made(_change(data))) not in again
    ]
    if lost:
        raise Bad(f"{len(lost)} acknowledged entries are not in the log: {lost[:5]}")


def root_of(device: str) -> str:
    """What the ids of all copies of one file have in common."""
    return device.partition(".")[0]


def check_ledgers(
    devices: Sequence[Device],
    log: Sequence[Logged],
    lost: Collection[Identity],
    read: Mapping[Identity, int],
) -> None:
    """Every change committed on a device is in the log exactly once, and in its order. `lost` is
    what the log ever lost, whether or not it has it again; `read` tells how far its senders had
    read when they sent what is there."""
    families: dict[str, list[Device]] = {}
    for device in devices:
        families.setdefault(root_of(device.id), []).append(device)
    for root, family in families.items():
        entries = [entry for entry in log if root_of(entry.device) == root]
        shared = [_change(entry.data) for entry in sorted(entries, key=lambda e: e.ticks)]
        for device in family:
            check_ledger(device, shared, alone=len(family) == 1 and not device.was_put_back)
        own = [change for device in family for change in device.own_ledger()]
        again = Counter(ticks for device, ticks in lost if root_of(device) == root)
        check_once(own, entries, again if len(family) > 1 else {}, read)


Change = tuple[str, str, str, str]
"""An operation, a collection, a pk, and values; the last two as JSON."""


def _change(data: str) -> Change:
    change = orjson.loads(data)
    operation, collection, pk = change["operation"], change["collection"], change["pk"]
    return operation, collection, orjson.dumps(pk).decode(), _plain(change["value"])


def _committed(change: Committed) -> Change:
    value = change.value and orjson.loads(change.value)
    return OPERATION_NAMES[change.operation], change.collection, change.pk, _plain(value)


def _plain(value: Any) -> str:
    """Values as JSON, without what a counter says of who counted: a copy counts under an id of its
    own."""
    for increment in _increments(value):
        increment.pop("since", None)
        increment.pop("of", None)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def check_ledger(device: Device, shared: Sequence[Change], *, alone: bool) -> None:
    """All that a device committed was shared in its order; if it is alone, nothing else was."""
    committed = [_committed(change) for change in device.ledger()]
    if alone and len(committed) != len(shared):
        raise Bad(f"{device.name} committed {len(committed)} changes, the log has {len(shared)}")
    rest = iter(shared)
    for index, change in enumerate(committed):
        found = next(rest, None) if alone else next((c for c in rest if c == change), None)
        if found != change:
            raise Bad(f"{device.name}: change {index} is {found} in the log, was {change}")


def check_once(
    own: Sequence[Committed],
    entries: Sequence[Logged],
    lost: Mapping[int, int],
    read: Mapping[Identity, int],
) -> None:
    """Nothing of a family is in the log more often than it was committed, under however many ids.

    Not guaranteed of what the log had, and `lost`: so many at these timestamps. Copies that have it
    in common may all send it again, if none had `read` what another one sent. And increments also
    then: the one has them in a run that the other one has taken them out of. And what one of them
    has dated anew and sent: others may have read it with that timestamp.
    """
    committed = Counter((change.recorded, _made(_committed(change))) for change in own)
    shared: dict[tuple[int, Change], list[Logged]] = defaultdict(list)
    for entry in entries:
        recorded = orjson.loads(entry.data).get("recorded", entry.ticks)
        shared[recorded, _made(_change(entry.data))].append(entry)
    twice = {}
    for made, some in shared.items():
        dates = {entry.ticks for entry in some}
        unknown = _counts(made[1]) or _were_unread(some, read) or len(dates) > 1
        again = sum(lost.get(ticks, 0) for ticks in dates) if unknown else 0
        if len(some) > max(1, committed[made]) + again:
            twice[made] = len(some)
    if twice:
        raise Bad(f"in the log more often than committed: {twice}")


def _were_unread(entries: Sequence[Logged], read: Mapping[Identity, int]) -> bool:
    """Whether nobody who sent one of these had read another one."""
    first = min(entry.seq for entry in entries)
    return all(read.get((entry.device, entry.ticks), 0) < first for entry in entries)


def _made(change: Change) -> Change:
    """What was done, whatever run of increments it is in: copies take them out of their runs."""
    operation, collection, pk, values = change
    value = orjson.loads(values)
    for increment in _increments(value):
        increment["total"] = None
    return operation, collection, pk, orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _counts(change: Change) -> bool:
    return bool(_increments(orjson.loads(change[3])))


def _increments(value: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    fields = (value or {}).values()
    return [field for field in fields if isinstance(field, dict) and "total" in field]


def check_tables(device: Device, wanted: Expected, gone: Collection[Identity] = ()) -> None:
    """The tables are what the log comes to; what cannot stand waits, with its values. `gone` is
    what the log had, and lost."""
    tables = device.tables()
    if not same(tables, wanted.standing):
        raise Bad(f"{device.name}: tables differ: {difference(tables, wanted.standing)}")
    if broken := device.broken_references():
        raise Bad(f"{device.name}: references to nothing: {broken}")
    states = device.states()
    parked = {key for key, state in states.items() if state["parked"]}
    if parked != set(wanted.parked):
        wrongly, missing = parked - set(wanted.parked), set(wanted.parked) - parked
        raise Bad(f"{device.name}: parked for no reason: {wrongly}; not parked: {missing}")
    check_states(device, states, wanted, gone)


def check_states(
    device: Device, states: Mapping[Key, Any], wanted: Expected, gone: Collection[Identity]
) -> None:
    """Versions, tombstones and held values are what the log comes to."""
    for key, whole in wanted.rows.items():
        state = states.get(key)
        if state is None:
            raise Bad(f"{device.name} knows nothing of {key}")
        row = _without_rules(device, key, whole)
        versions = {n: v for n, v in state["versions"].items() if n not in _ruled(device, key)}
        found = (state["alive"], state["died"], versions)
        known = state["alive"] == row.alive and versions.keys() == row.versions.keys()
        pairs = [(state["died"], row.died), *((v, row.versions[n]) for n, v in versions.items())]
        if not (known and all(is_known_as(mine, its, gone) for mine, its in pairs)):
            raise Bad(f"{device.name}: {key} is {found}, should be {row}")
        check_held(device, key, state, row, wanted.standing.get(key))
    if extra := set(states) - set(wanted.rows):
        raise Bad(f"{device.name} knows rows that nobody wrote: {extra}")


def is_known_as(mine: Stamp | None, its: Stamp | None, gone: Collection[Identity]) -> bool:
    """Whether a device knows a write as the log has it; or as it had it, from one copy of a file,
    before it lost that, and another copy sent it again."""
    if mine is None or its is None or mine == its:
        return mine == its
    (ticks, device), (its_ticks, its_device) = mine, its
    again = ticks == its_ticks and root_of(device) == root_of(its_device)
    return again and (device, ticks) in gone


def _ruled(device: Device, key: Key) -> Collection[str]:
    """The columns with a merge rule."""
    table = device.application.tables.get(key[0])
    return table.rules.keys() if table else ()


def _without_rules(device: Device, key: Key, row: Row) -> Row:
    """The row without its fields that have a merge rule: of these more is kept than the latest
    write, and it shows in the tables."""
    ruled = _ruled(device, key)
    versions = {name: version for name, version in row.versions.items() if name not in ruled}
    return replace(row, versions=versions, values={n: row.values[n] for n in versions})


def check_held(
    device: Device, key: Key, state: Any, row: Row, shown: Mapping[str, Any] | None
) -> None:
    """What is known of a row and not in its table is held."""
    if shown is None or not row.alive:
        lacking = dict(row.values)
    else:
        lacking = {n: v for n, v in row.values.items() if n not in shown or not same(shown[n], v)}
    found = {name: value for name, value in state["held"].items() if name in lacking}
    if not same(found, lacking):
        raise Bad(f"{device.name}: {key} holds {state['held']}, should hold {lacking}")


def check_quiet(device: Device, wanted: Expected, gone: Collection[Identity]) -> None:
    """Nothing is left to do, and the status says so. Of what is `gone` from the log, a device that
    could not read it keeps what it had read; its author may send it again under another id."""
    status = device.sync_object.status()
    if status.pending or status.parked != len(wanted.parked):
        raise Bad(f"{device.name}: {status}, parked should be {len(wanted.parked)}")
    kept = sum(identity in gone for identity in device.unreadable())
    if status.unreadable != wanted.unreadable + kept:
        raise Bad(f"{device.name}: {status}, unreadable should be {wanted.unreadable} + {kept}")
    refused = device.run("SELECT ticks, reason FROM sharedlog_entry WHERE status = 2")
    if refused:
        raise Bad(f"{device.name}: refused entries {refused}")


def check_verified(device: Device) -> None:
    """The device itself finds that it has what the log comes to."""
    verified = device.sync_object.verify()
    if not verified.equal:
        found = "; ".join(map(str, verified.differences[:4]))
        raise Bad(f"{device.name} finds {verified.count} differences: {found}")


def check_agreement(device: Device, log: Sequence[Logged], oracle: Oracle) -> None:
    """In the middle of everything: a device that has just synced is what its entries come to:
    the log up to its checkpoint, and what it wrote itself and has not sent yet."""
    check_whole_groups(device, log)
    me, checkpoint = device.id, device.checkpoint
    known = [entry for entry in log if entry.seq <= checkpoint or entry.device == me]
    sent = {entry.ticks for entry in known if entry.device == me}
    unsent = device.run(
        "SELECT ticks, operation, collection, pk, value, rules FROM sharedlog_entry "
        "WHERE status = 0 ORDER BY ticks"
    )
    for ticks, operation, collection, pk, value, rules in unsent:
        if ticks not in sent:
            change = {
                "operation": OPERATION_NAMES[operation],
                "collection": collection,
                "pk": orjson.loads(pk),
                "value": None if operation >= DELETED else orjson.loads(value),
                "rules": rules and orjson.loads(rules),
            }
            known.append(Logged(0, device.id, ticks, 0, orjson.dumps(change).decode()))
    check_tables(device, oracle.expected(device.application.tables, known))


def check_whole_groups(device: Device, log: Sequence[Logged]) -> None:
    """Nobody stands in the middle of a transaction of somebody else."""
    around = log[max(0, device.checkpoint - 1) : device.checkpoint + 1]
    groups = {(entry.device, entry.ticks - entry.offset) for entry in around}
    if (
        device.checkpoint
        and len(around) == 2
        and len(groups) == 1
        and around[0].device != device.id
    ):
        raise Bad(f"{device.name} has read half of a transaction, up to {device.checkpoint}")


def difference(found: Mapping[Key, Any], wanted: Mapping[Key, Any]) -> str:
    """The first few differences of two sets of rows."""
    lines = []
    for key in sorted(found.keys() | wanted.keys()):
        if not same(found.get(key), wanted.get(key)):
            lines.append(f"{key}: is {found.get(key)}, should be {wanted.get(key)}")
    return "\n".join(lines[:4])
