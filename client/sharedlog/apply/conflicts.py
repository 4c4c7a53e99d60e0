"""What met a change of this device, and how it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..changes import DELETE, Change, Wire
from ..clock import Version
from ..tables.rows import Work


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two devices changed the same thing without having seen each other's change.

    `field` is None where a whole row was deleted on one side. `value` is what stands now,
    `lost` what was given up; None for a deletion.
    """

    collection: str
    pk: Wire
    field: str | None
    winner: Version
    value: Wire
    loser: Version
    lost: Wire


class Conflicts:
    """Notes before a merge what meets a local change, and tells how it is decided."""

    def __init__(
        self,
        work: Work,
        changes: Sequence[tuple[Version, Change]],
        known: Mapping[str, Wire] | None,
        local_since: int | None,
    ) -> None:
        self._work, self._known = work, known or {}
        self._rivals: dict[str | None, tuple[Version, Version, Wire]] = {}
        if local_since is None:
            return
        state = work.state
        for version, change in changes:
            if change.operation == DELETE:
                self._note(
                    None, max(state.fields.values(), default=None), version, None, local_since
                )
            elif not state.alive and state.died is not None:
                self._note(None, state.died, version, dict(change.value or {}), local_since)
            else:
                for name, value in (change.value or {}).items():
                    if name in work.tracked.rules:
                        continue  # nothing is given up: the rule makes one of both
                    self._note(name, state.version_of(name), version, value, local_since)

    def _note(
        self, name: str | None, mine: Version | None, theirs: Version, value: Wire, since: int
    ) -> None:
        if mine is None or mine.ticks < since or mine == theirs:
            return
        earlier = self._rivals.get(name)
        if earlier is None or theirs > earlier[1]:
            self._rivals[name] = (mine, theirs, value)

    def decided(self) -> list[Conflict]:
        collection, pk = self._work.tracked.collection, self._work.key
        result = []
        for name, (mine, theirs, value) in self._rivals.items():
            kept = None if name is None else self._known.get(name)
            # A deletion stands unless a creation is later: a modification never revives.
            died = self._work.state.died
            if theirs == died or (mine != died and theirs > mine):
                result.append(Conflict(collection, pk, name, theirs, value, mine, kept))
            else:
                result.append(Conflict(collection, pk, name, mine, kept, theirs, value))
        return result
