"""What fields with a merge rule mean, said once more on dictionaries and as simply as possible.

Slow and written without a look at the library: keep everything that was ever done to a row, in
the words of what people do (add two, remove a member), and replay it. Tests compare the library
with this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Stamp = tuple[int, str]
"""(ticks, device): later is larger."""


@dataclass(frozen=True)
class Deed:
    """Something that was done to a row. `kind` is create, modify or delete; `values` are plain
    values by field, of somebody who `knew` the rules, or did not. `added` is what was added to the
    number, in the run of additions of its device that began at `began`. `joined` and `left` are
    members of the set."""

    stamp: Stamp
    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    added: int = 0
    began: Stamp | None = None
    joined: tuple[Any, ...] = ()
    left: tuple[Any, ...] = ()
    knew: bool = True


@dataclass(frozen=True)
class Life:
    """What there is to know of a row after its latest deletion."""

    alive: bool
    died: Stamp | None
    deeds: Sequence[Deed]

    def plain(self, name: str) -> list[Any]:
        """The plain values of a field, the latest last."""
        return [deed.values[name] for deed in self.deeds if name in deed.values]

    def counted(self, name: str) -> list[Any]:
        """The plain values that count beside each other: of those who did not know the rule, each
        replaces what the ones before said."""
        those = [deed for deed in self.deeds if name in deed.values]
        unknowing = [deed for deed in those if not deed.knew][-1:]
        return [deed.values[name] for deed in those if deed.knew or deed in unknowing]

    def latest(self, name: str) -> Any:
        return self.plain(name)[-1]

    def number(self, name: str) -> int:
        """The latest plain value, and all that was added in this life."""
        base: int = (self.plain(name) or [0])[-1]
        of_old = (d for d in self.deeds if d.added and d.began is not None)
        return base + sum(
            deed.added
            for deed in of_old
            if self.died is None or (deed.began is not None and deed.began > self.died)
        )

    def members(self, name: str) -> Any:
        """Who is in the set after everybody came and went. A creation lets in, a plain value of
        a modification, or of who did not know the rule, lets in and throws out all others. (What
        the latter said stays as it was written until somebody else comes or goes.)"""
        inside: dict[str, Any] = {}
        touching = [deed for deed in self.deeds if name in deed.values or deed.joined or deed.left]
        if touching and name in touching[-1].values and not touching[-1].knew:
            return touching[-1].values[name]
        for deed in self.deeds:
            if name in deed.values:
                if deed.kind == "modify" or not deed.knew:
                    inside.clear()
                inside |= {json.dumps(who): who for who in deed.values[name] or ()}
            for who in deed.left:
                inside.pop(json.dumps(who), None)
            inside |= {json.dumps(who): who for who in deed.joined}
        return [inside[text] for text in sorted(inside)]

    def extreme(self, name: str, choose: Callable[[Iterable[Any]], Any]) -> Any:
        return choose([v for v in self.counted(name) if v is not None] or [None])


def life_of(deeds: Iterable[Deed]) -> Life:
    """The row that a set of deeds makes, in whatever order and however often they are told."""
    by_time = sorted({deed.stamp: deed for deed in deeds}.values(), key=lambda deed: deed.stamp)
    died = max((deed.stamp for deed in by_time if deed.kind == "delete"), default=None)
    since = [d for d in by_time if d.kind != "delete" and (died is None or d.stamp > died)]
    return Life(any(deed.kind == "create" for deed in since), died, since)
