"""What a fleet is like: all of it follows from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sharedlog.journal.recorder import Capture
from sharedlog_service.settings import Policy

from .models import Rules, any_rules
from .obstacles import REFUSALS, Refusal
from .user import DEEDS, KEYS, Habits

CAPTURES: Mapping[str, Sequence[Capture]] = {
    "sqlite": ("signals", "triggers"),
    "postgres": ("signals", "triggers"),
    "mysql": ("signals",),
}

MINUTE = 60_000
DAY = 1440 * MINUTE

POLICIES = (Policy(0, DAY), Policy(200, 1_000), Policy(0, 0), Policy(DAY, DAY))
"""What a log forgets: what all have read, what those have that were there of late, what it has."""


@dataclass(frozen=True)
class Plan:
    """One fleet's setting.

    Attributes:
        kinds: Which database each device has.
        captures: How each device records.
        ahead: How wrong each device's clock is, in milliseconds.
        rules: What the tables say; ten seeds have the same, so that they can be used again.
        nocase: Whether texts that are referred to compare without case.
        copies: Whether files are copied, and put back.
        resets: Whether devices read all anew.
        forgets: How the log is compacted, if it is.
        refusals: What each device refuses until the end, if anything.
        unfit: Whether people with an SQLite file write what does not fit elsewhere.
        steps: How much happens.
        habits: What people do.
    """

    seed: int
    kinds: Sequence[str]
    captures: Sequence[Capture]
    ahead: Sequence[int]
    rules: Rules
    nocase: bool
    copies: bool
    resets: bool
    forgets: Policy | None
    refusals: Sequence[Refusal | None]
    unfit: bool
    steps: int
    habits: Habits

    def source(self, step: int | str) -> Random:
        """A source of chance for each step, so that one can be left out and the rest stays."""
        return Random(f"{self.seed}/{step}")


def plan(seed: int, kinds: Sequence[str] = ("sqlite",)) -> Plan:
    """What a fleet is like that has all of these kinds of databases."""
    chance = Random(f"{seed}/plan")
    devices = range(max(chance.choice((2, 3, 3)), len(kinds)))
    given = [kinds[number % len(kinds)] for number in devices]
    captures = [chance.choice(CAPTURES[kind]) for kind in given]
    ahead = [chance.choice((0, 0, -30 * DAY, 30 * DAY, 5 * MINUTE - 1_000)) for _ in devices]
    nocase = Random(f"{seed}/nocase").random() < 0.3 and {*given} == {"sqlite"}
    return Plan(
        seed,
        given,
        captures,
        ahead,
        rules=any_rules(Random(f"{seed // 10}/rules")),
        nocase=nocase,
        copies=chance.random() < 0.6,
        resets=chance.random() < 0.6,
        forgets=chance.choice(POLICIES) if chance.random() < 0.25 else None,
        # A key that is held, and another one that is equal to it, are too much for one row.
        refusals=[None for _ in devices] if nocase else _refusals(chance, captures),
        unfit=chance.random() < 0.4,
        steps=chance.choice((30, 60, 60, 120)),
        habits=Habits(_weights(chance), chance.choice(("aA", "abc", KEYS)), nocase),
    )


def _refusals(chance: Random, captures: Sequence[Capture]) -> list[Refusal | None]:
    some = chance.random() < 0.4
    return [chance.choice(REFUSALS) if some and chance.random() < 0.6 else None for _ in captures]


def _weights(chance: Random) -> list[int]:
    """How often each deed is done. Where some never are, and others often, what is rare in the
    midst of everything comes about."""
    weights = []
    for _, *others in DEEDS:
        about = chance.choice((0, 1, 4))
        weights += [3 * about, *(about * chance.choice((0, 1, 1, 3)) for _ in others)]
    weights[0] = max(3, weights[0])
    return weights
