"""Which steps of a fleet a failure takes."""

from __future__ import annotations

from collections.abc import Sequence

from .fleet import Failed, run_fleet
from .places import IN_FILES, Places
from .plan import plan


def shrunk(seed: int, kinds: Sequence[str] = ("sqlite",), places: Places = IN_FILES) -> list[int]:
    """Steps that fail as all do, of which none can be left out."""
    steps = list(range(plan(seed, kinds).steps))
    wanted = failure(seed, steps, kinds, places)
    size = len(steps) // 2
    while size:
        before, place = len(steps), 0
        while place < len(steps):
            fewer = steps[:place] + steps[place + size :]
            if failure(seed, fewer, kinds, places) == wanted:
                steps = fewer
            else:
                place += size
        if size > 1 or len(steps) == before:
            size //= 2
    return steps


def failure(
    seed: int,
    steps: Sequence[int],
    kinds: Sequence[str] = ("sqlite",),
    places: Places = IN_FILES,
) -> str | None:
    """What kind of failure these steps end in."""
    try:
        run_fleet(seed, only=steps, kinds=kinds, places=places)
    except Failed as error:
        return type(error.__cause__).__name__
    return None
