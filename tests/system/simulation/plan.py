"""What a world is like: all of it follows from the seed, if nobody asks for something else."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from . import switches
from .applications import any_application
from .shapes import Application


@dataclass(frozen=True)
class Plan:
    """One world's setting.

    Attributes:
        days: How long users work.
        faults: How much goes wrong on a stormy day, as a factor.
        storms: How many of the days are stormy.
        memory: Whether `MemorySharedLog` stands for the service.
        restores: Whether the service's log begins anew and comes back from backups; then no
            device may prune, because only the devices have what a backup lacks.
        encore: Whether users go on for a while after all has healed.
    """

    seed: int
    days: float
    faults: float
    storms: float
    memory: bool
    devices: int
    restores: bool
    encore: bool
    application: Application
    editions: tuple[Application, ...]
    """What each device runs at first; the application or an older edition of it."""

    def source(self, name: str) -> Random:
        """A source of chance of its own for each part, so that one does not disturb another."""
        return Random(f"{self.seed}/{name}")


def plan(
    seed: int,
    *,
    days: float | None = None,
    faults: float | None = None,
    storms: float | None = None,
    memory: bool | None = None,
) -> Plan:
    chance = Random(f"{seed}/plan")
    drawn_days, drawn_faults = chance.choice((2.0, 4.0, 4.0, 8.0)), chance.choice((0.5, 1, 1, 1, 3))
    drawn_storms = chance.choice((0.0, 0.1, 0.2, 0.4))
    drawn_memory, devices = chance.random() < 0.1, chance.randint(2, 5)
    restores, encore = chance.random() < 0.4, chance.random() < 0.5
    application = any_application(Random(f"{seed}/application"))
    return Plan(
        seed,
        drawn_days if days is None else days,
        float(drawn_faults) if faults is None else faults,
        drawn_storms if storms is None else storms,
        drawn_memory if memory is None else memory,
        devices,
        restores,
        encore,
        application,
        tuple(_edition(application, chance) for _ in range(devices)),
    )


def _edition(application: Application, chance: Random) -> Application:
    if switches.EDITIONS and application.older is not None and chance.random() < 0.3:
        return application.older(chance)
    return application
