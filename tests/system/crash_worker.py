"""One of several processes at work on one database file, or on one log, at the same time.

    python -m tests.system.crash_worker edit DB URL TOKEN NAME

It prints a line when it is there, waits for a line, works, and prints as JSON what it did: the
`marks` it left, each in exactly one entry, what it counted, and the errors it met (none).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from peewee import Value

from sharedlog import Change, GraphQLSharedLog, HttpTransport, Sync
from sharedlog.changes import encode
from sharedlog.remote.sharedlog import Outgoing, Receipt
from tests.system.crash_world import Folder, Note, device

SHARED = 5
"""Rows that everybody edits: s0, s1, ..."""


@dataclass
class Done:
    """What a worker did. Several threads add to it."""

    marks: list[str] = field(default_factory=list)
    starred: list[int] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


Task = Callable[[str], None]


def in_threads(task: Task, names: list[str], done: Done) -> None:
    """Run a task in several threads, and note what it raises."""

    def run(name: str) -> None:
        try:
            task(name)
        except Exception:
            done.errors.append(traceback.format_exc())

    with ThreadPoolExecutor(len(names)) as pool:
        for outcome in [pool.submit(run, name) for name in names]:
            outcome.result()


def edit(sync: Sync, name: str, done: Done, rounds: int) -> None:
    """Write in every way there is, mostly to rows that all others write to, and sync."""
    chance = random.Random(name)
    try:
        for number in range(rounds):
            mark = f"{name}-{number}"
            shared = f"s{chance.randrange(SHARED)}"
            Note.create(key=mark, title="mine")
            done.marks.append(mark)
            Note.update(title=mark + "-t").where(Note.key == shared).execute()
            done.marks.append(mark + "-t")
            done.starred.append(
                Note.update(stars=Note.stars + 1).where(Note.key.in_(["s0", "s1"])).execute()
            )
            with sync.database.atomic():  # not IMMEDIATE: it is the library that reads first
                Note.insert(key=shared, title="upsert", meta=mark + "-u").on_conflict(
                    conflict_target=[Note.key], preserve=[Note.meta]
                ).execute()
                Note.create(key=mark + "-v", title="in the same group")
            with sync.database.atomic():
                copied = Note.select(Value(mark + "-x"), Value("copied"), Value(0))
                fields = [Note.key, Note.title, Note.stars]
                Note.insert_from(copied.where(Note.key == shared), fields).execute()
            done.marks += [mark + "-u", mark + "-v", mark + "-x"]
            with sync.database.atomic():
                Folder.create(key=mark, name="to be deleted")
                Note.create(key=mark + "-w", title="with its folder", folder=mark)
            Folder.get_by_id(mark).delete_instance(recursive=True)
            done.marks.append(mark + "-w")
            if number % 4 == 3:
                done.syncs.append(sync.sync().exchanges)
    finally:
        sync.database.close()  # this thread's connection


def only_sync(sync: Sync, done: Done, rounds: int) -> None:
    """Write nothing: adopt what stands there, and sync again and again."""
    try:
        sync.adopt()
        for _ in range(rounds):
            done.syncs.append(sync.sync().exchanges)
    finally:
        sync.database.close()


def push(url: str, token: str, name: str, done: Done, rounds: int) -> None:
    """Push to the log as a device that hears no answers: each batch one to three times, at the
    same time or one after the other."""
    chance = random.Random(name)
    logs = [GraphQLSharedLog(HttpTransport(url, token)) for _ in range(3)]
    mine = logs[0].register(name, name)
    ticks = 1024
    with ThreadPoolExecutor(3) as pool:
        for number in range(rounds):
            batch = []
            for item in range(chance.randrange(1, 6)):
                ticks += chance.randrange(1, 5000)
                mark = f"{name}-{number}-{item}"
                change = Change("create", "note", mark, {"title": "pushed"})
                batch.append(Outgoing(ticks, 0, encode(change)))
                done.marks.append(mark)

            def send(log: GraphQLSharedLog, batch: list[Outgoing] = batch) -> Receipt:
                return log.write(mine, batch, after=None, now_ms=0, limit=1, byte_limit=1)

            if chance.random() < 0.5:
                receipts = list(pool.map(send, logs[: chance.randrange(1, 4)]))
            else:
                receipts = [send(logs[0]) for _ in range(chance.randrange(1, 4))]
            assert sum(receipt.accepted for receipt in receipts) == len(batch)
            done.syncs.append(len(receipts))
    for log in logs:
        log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["edit", "sync", "push"])
    parser.add_argument("db", type=Path)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--journal", default="wal", help="SQLite's journal mode")
    options = parser.parse_args()
    names = [f"{options.name}{number}" for number in range(options.threads)]
    done = Done()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if options.task == "push":
        in_threads(
            lambda name: push(options.url, options.token, name, done, options.rounds), names, done
        )
    else:
        with device(
            options.db,
            url=options.url,
            token=options.token,
            batch_size=options.batch,
            journal=options.journal,
            timeout_s=30,
        ) as sync:
            in_threads(
                lambda name: (
                    edit(sync, name, done, options.rounds)
                    if options.task == "edit"
                    else only_sync(sync, done, options.rounds)
                ),
                names,
                done,
            )
    sys.stdout.write(json.dumps(asdict(done)) + "\n")


if __name__ == "__main__":
    main()
