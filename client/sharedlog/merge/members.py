"""A list as a set, as a merge rule: members are added and removed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..changes import Wire, dumps, loads
from ..raw import RAW, is_escape
from .rules import NOTHING_DONE, PLAIN, MergeRule, Writes, is_plain, value_in

ADD, REMOVE = "add", "remove"


def members_of(value: Wire) -> dict[str, Wire]:
    """The members of a list by their JSON text, in the order of these texts."""
    if is_escape(value) and type(value[RAW]) is str:
        value = loads(value[RAW])  # a list that is stored in another way than ours
    if type(value) is not list and value is not None:
        raise ValueError(f"{value!r:.100} is no list")
    members = {dumps(member): member for member in value or ()}
    return dict(sorted(members.items()))


class Members(MergeRule):
    """A JSON list as a set: devices add and remove members, and each one's latest write decides.

    Operands are `{"add": […], "remove": […]}`, and a list, which replaces what was there. The
    list of a creation only adds, so that two creations of one row give the members of both.
    The value is the list of members in the order of their JSON texts; NULL is an empty set.
    What was written without the rule replaces what was there, and stays as it was written until
    something else is.
    """

    name = "members"

    def fits(self, value: Wire, *, plain: bool) -> bool:
        if not plain and type(value) is dict and not is_escape(value):
            return type(value.get(ADD)) is list and type(value.get(REMOVE)) is list
        try:
            return members_of(value) is not None
        except ValueError:
            return False

    def operand(self, value: Wire, *, created: bool, named: bool) -> Wire:
        if type(value) is dict and not is_escape(value):
            return {kind: list(members_of(value[kind]).values()) for kind in (ADD, REMOVE)}
        if not named:
            return {PLAIN: value}
        members = list(members_of(value).values())
        return {ADD: members, REMOVE: []} if created else members

    def written(self, before: Wire, after: Wire, writes: Writes, device: str) -> Wire:
        try:
            old = members_of(before)
        except ValueError:
            old = {}
        new = members_of(after)
        added = [new[text] for text in new if text not in old]
        removed = [old[text] for text in old if text not in new]
        if not added and not removed and dumps(before) == dumps(after):
            return NOTHING_DONE
        return {ADD: added, REMOVE: removed}  # also where the column shows the same otherwise

    def keep(self, writes: Writes) -> Writes:
        """Of each write the members that no later one adds or removes; and the latest write,
        because a set that nobody wrote is not an empty one."""
        kept: Writes = []
        seen: set[str] = set()
        for version, operand in reversed(writes):
            if is_plain(operand):
                kept.append((version, operand))
                break
            if type(operand) is list:
                kept.append((version, _without(operand, seen)))
                break
            rest = {kind: _without(operand[kind], seen) for kind in (ADD, REMOVE)}
            seen.update(dumps(member) for kind in (ADD, REMOVE) for member in rest[kind])
            if rest[ADD] or rest[REMOVE] or not kept:
                kept.append((version, rest))
        return kept[::-1]

    def value(self, writes: Writes) -> Wire:
        if writes and is_plain(writes[-1][1]):
            return value_in(writes[-1][1])
        members: dict[str, Wire] = {}
        for _, operand in writes:
            if type(operand) is list or is_plain(operand):
                members = members_of(value_in(operand))
            else:
                for text in members_of(operand[REMOVE]):
                    members.pop(text, None)
                members |= members_of(operand[ADD])
        return [members[text] for text in sorted(members)]


def _without(members: Sequence[Wire], texts: set[str]) -> list[Wire]:
    return [member for member in members if dumps(member) not in texts]
