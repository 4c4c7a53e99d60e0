"""Pushes that are sent again and again, and at the same time: each entry is in the log once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sharedlog_service.entries import NewEntry
from sharedlog_service.errors import Code
from sharedlog_service.store.store import Store
from tests.service.support import NOON, change, read_all
from tests.volume import times

DEVICES = 4
ENTRIES = times(500)
"""Of each device."""

BATCH = 50
AGAIN = 5
"""So many times at most each batch is sent."""


def batches(number: int) -> list[list[NewEntry]]:
    """What a device has to say, in batches."""
    made = [NewEntry(NOON + n, 0, change(f"{number}-{n}")) for n in range(ENTRIES)]
    return [made[start : start + BATCH] for start in range(0, ENTRIES, BATCH)]


def forged(entry: NewEntry) -> NewEntry:
    return entry._replace(data=change("forged", value=entry.data))


def test_each_entry_is_there_once_however_often_it_is_delivered(store: Store) -> None:
    """In order the first time, as a device does; then again in any order, all at the same time."""
    devices = [store.create_device("ada") for _ in range(DEVICES)]
    chance = random.Random(7)
    work = [(device, some) for number, device in enumerate(devices) for some in batches(number)]
    late = [item for item in work for _ in range(chance.randint(0, AGAIN - 1))]
    chance.shuffle(late)

    turns = threading.Semaphore(store.writers)  # as the service's own writers take them

    def deliver(item: tuple[str, list[NewEntry]]) -> tuple[int, int]:
        device, some = item
        with turns:
            receipt = store.write("ada", device, some)
        assert receipt.rejections == []
        return len(some) - len(receipt.duplicates), len(receipt.duplicates)

    def deliver_all(device: str) -> Counter[str]:
        told: Counter[str] = Counter()
        for item in [w for w in work if w[0] == device] + [w for w in late if w[0] == device]:
            new, duplicates = deliver(item)
            told.update(new=new, duplicates=duplicates)
        return told

    with ThreadPoolExecutor(2 * DEVICES) as pool:  # each device twice: its network doubles
        told = sum(pool.map(deliver_all, devices * 2), Counter[str]())
    assert told["new"] == DEVICES * ENTRIES
    reader = store.create_device("ada")
    found = [entry for page in read_all(store, "ada", reader) for entry in page.entries]
    assert [entry.seq for entry in found] == list(range(1, DEVICES * ENTRIES + 1))
    expected = {(d, e.created_on): e.data for d, some in work for e in some}
    assert {(e.device, e.created_on): e.data for e in found} == expected


def test_no_identity_is_taken_twice_with_other_content(store: Store) -> None:
    device = store.create_device("ada")
    before = batches(0)
    for some in before:
        store.write("ada", device, some)
    chance = random.Random(8)
    for some in before:
        mixed = [forged(entry) if chance.random() < 0.5 else entry for entry in some]
        receipt = store.write("ada", device, mixed)
        wrong = [n for n, (one, other) in enumerate(zip(some, mixed, strict=True)) if one != other]
        assert [r.index for r in receipt.rejections] == wrong
        assert {r.code for r in receipt.rejections} <= {Code.DEVICE_CLONED}
        assert receipt.duplicates == set(range(len(some))) - set(wrong)
    reader = store.create_device("ada")
    found = [entry.data for page in read_all(store, "ada", reader) for entry in page.entries]
    assert found == [entry.data for some in before for entry in some]
