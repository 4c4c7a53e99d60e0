"""Rules that are declared for fields which were written before: devices that get the program which
has them one after the other, whatever they did and knew, end equal, and as the models say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import peewee
import pytest

from sharedlog import Counter, Custom, Maximum, Members, MemorySharedLog, Minimum, SyncModel
from sharedlog.clock import system_now
from sharedlog.merge.rules import MergeRule
from tests.dictmodel import Write, row_of
from tests.fieldmodel import operands, value_of
from tests.volume import times

from .conftest import OpenDevice
from .devices import Device

RULES: dict[str, Callable[[], MergeRule]] = {
    "count": Counter,
    "tags": Members,
    "best": Maximum,
    "least": Minimum,
    "text": lambda: Custom("joined", joined),
}
DEFAULTS: dict[str, Any] = {"count": 0, "tags": [], "best": None, "least": None, "text": ""}
STEPS = 40
HOUR = 3_600_000
AHEAD = {"fast": HOUR, "old": 0, "new": 0}


def joined(values: list[Any]) -> str:
    return "+".join(values)


def program(*, has_rules: bool, wins: bool = False) -> Any:
    class Item(SyncModel):
        code = peewee.CharField(primary_key=True)
        count = peewee.IntegerField(default=0)
        tags = peewee.JSONField(default=list)
        best = peewee.IntegerField(null=True)
        least = peewee.IntegerField(null=True)
        text = peewee.CharField(default="")

        class Meta:
            table_name = "item"
            merge = {name: make() for name, make in RULES.items()} if has_rules else {}
            update_wins = wins

    return Item


class Phone:
    def __init__(
        self, open_device: OpenDevice, name: str, *, wins: bool = False, **options: Any
    ) -> None:
        def opening(model: Any, **more: Any) -> Device:
            return open_device([model], name, **options, **more)

        self._open = opening
        self._wins = wins
        self.model = program(has_rules=False, wins=wins)
        self.upgraded = False
        self.device: Device = self._open(self.model)

    def upgrade(self) -> None:
        if not self.upgraded:
            self.device.close()
            self.model, self.upgraded = program(has_rules=True, wins=self._wins), True
            self.device = self._open(self.model, create=False)

    def sync(self) -> None:
        with self.device:
            self.device.sync.sync()

    def write(self, chance: Random, number: int) -> None:
        item, code = self.model, chance.choice("xy")
        with self.device:
            this = item.update(**some_values(chance, number)).where(item.code == code)
            if chance.random() < 0.15:
                item.delete().where(item.code == code).execute()
            elif chance.random() < 0.3:
                item.update(count=item.count + 1).where(item.code == code).execute()
            elif not this.execute():
                item.create(code=code, **some_values(chance, number))


def some_values(chance: Random, number: int) -> dict[str, Any]:
    values = {
        "count": chance.randrange(100),
        "tags": chance.sample(["a", "b", "c"], chance.randrange(4)),
        "best": chance.choice([None, *range(9)]),
        "least": chance.choice([None, *range(9)]),
        "text": f"{number}",
    }
    return {name: values[name] for name in chance.sample(sorted(values), chance.randint(1, 3))}


def expected(log: MemorySharedLog) -> list[tuple[Any, ...]]:
    """The rows that the log comes to, by the models."""
    writes: dict[str, list[Write]] = defaultdict(list)
    for entry in log.entries:
        change = json.loads(entry.data)
        stamp, named = (entry.ticks, entry.device), frozenset(change.get("rules") or {})
        writes[change["pk"]].append(Write(stamp, change["operation"], change["value"], named))
    rows = []
    for code, some in writes.items():
        row = row_of(some)
        if row.alive:
            left = [w for w in some if row.died is None or w.stamp > row.died]
            values = [
                value_of(
                    make().name, operands(left, name), row.died, DEFAULTS[name], {"joined": joined}
                )
                for name, make in RULES.items()
            ]
            rows.append((code, *values))
    return sorted(rows)


def lived(seed: int, *, leads: Sequence[int] = (0, 0, 0), **options: Any) -> list[Phone]:
    """Phones that did what they liked, and were all upgraded and synced in the end; and a fresh
    one. `leads` says how far their clocks are ahead, in milliseconds."""
    chance = Random(seed)
    phones = [
        Phone(name=n, now=ahead_by(ms), **options) for n, ms in zip("abc", leads, strict=True)
    ]
    for number in range(STEPS):
        phone = chance.choice(phones)
        what = chance.choices(["write", "sync", "upgrade"], [6, 5, 1])[0]
        if what == "write":
            phone.write(chance, number)
        elif what == "sync":
            phone.sync()
        elif number > STEPS // 4:
            phone.upgrade()
    phones.append(Phone(name="fresh", **options))
    for phone in phones:
        phone.upgrade()
    for phone in phones * 3:
        phone.sync()
    return phones


def ahead_by(ms: int) -> Callable[[], int]:
    return lambda: system_now() + ms


def rows(phone: Phone) -> list[tuple[Any, ...]]:
    with phone.device:
        assert phone.device.sync.verify().equal
        assert phone.device.sync.status().unreadable == 0
        return sorted(phone.model.select().tuples())


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
@pytest.mark.parametrize("seed", range(times(5)))
def test_all_end_equal_and_as_the_models_say(
    seed: int, recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    phones = lived(seed, open_device=open_device, shared_log=log, recorder=recorder)
    assert [rows(phone) for phone in phones] == [expected(log)] * len(phones)


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
@pytest.mark.parametrize("seed", range(times(4)))
def test_all_end_equal_where_clocks_are_far_ahead(
    seed: int, recorder: str, open_device: OpenDevice
) -> None:
    """Before the rule and after it, what was written gets earlier timestamps when it is sent."""
    log = MemorySharedLog()
    options: dict[str, Any] = {"open_device": open_device, "shared_log": log, "recorder": recorder}
    phones = lived(seed, leads=(HOUR, 2 * HOUR, 0), **options)
    assert [rows(phone) for phone in phones] == [expected(log)] * len(phones)


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
@pytest.mark.parametrize("seed", range(times(4)))
def test_all_end_equal_where_a_change_brings_a_row_back(
    seed: int, recorder: str, open_device: OpenDevice
) -> None:
    log = MemorySharedLog()
    phones = lived(seed, open_device=open_device, wins=True, shared_log=log, recorder=recorder)
    found = [rows(phone) for phone in phones]
    assert found == [found[0]] * len(phones)


def test_a_clock_that_is_ahead_does_not_date_the_rule(open_device: OpenDevice) -> None:
    """What is written with it may get earlier timestamps when the clock is put right."""
    before, after = program(has_rules=False), program(has_rules=True)
    device = open_device([before], "one", now=lambda: 1_800_000_000_000)
    with device:
        before.create(code="x")
    [entry] = device.log()
    device.close()
    device = open_device([after], "one", create=False, now=lambda: 1_900_000_000_000)
    [tracked] = device.sync.registry
    assert {rule.since for rule in tracked.rules.values()} == {entry.ticks}


@pytest.mark.parametrize("recorder", ["signals", "triggers"])
def test_what_names_the_rule_still_does_when_it_is_dated_anew(
    recorder: str, open_device: OpenDevice
) -> None:
    """It comes to lie before what had been written when the rule was declared, and before what
    others wrote who do not know the rule: they must not replace it."""
    options: dict[str, Any] = {
        "open_device": open_device,
        "shared_log": MemorySharedLog(),
        "recorder": recorder,
    }
    fast, old, new = (Phone(name=n, now=ahead_by(ms), **options) for n, ms in AHEAD.items())
    with fast.device:
        fast.model.create(code="y", text="unnamed")
    fast.upgrade()
    with fast.device:
        fast.model.create(code="x", text="named")
    fast.sync()
    with old.device:
        old.model.create(code="x", text="unnamed")
    for phone in (old, fast, new):
        phone.sync()
    new.upgrade()
    new.sync()
    assert [row[-1] for row in rows(fast)] == ["named+unnamed", "unnamed"]
    assert rows(new) == rows(fast)
