"""Bugs to be planted in what decides which rows stand in the tables: docs/protocol.md, "What stands
in the tables", each rule broken in turn; and what the simulation found there."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sharedlog.apply import applier, claims, fates
from sharedlog.apply.applier import Applier
from sharedlog.apply.claims import Claims
from sharedlog.apply.fates import Fates
from sharedlog.apply.placement import Placement
from sharedlog.capture import capture, comparing
from sharedlog.changes import DELETE, dumps
from sharedlog.merge import reconcile
from sharedlog.merge.reconcile import RowState
from sharedlog.models import registry
from sharedlog.models.registry import CLEAR, FALL, KEEP
from sharedlog.tables import folding, statements
from sharedlog.tables.rows import Work
from sharedlog.tables.uniques import Unique
from sharedlog.triggers.traces import Shape

from .plants import Patch, plant, wrap

# -- deleted parents ------------------------------------------------------------------------


def let_effects_be(patch: Patch, other: dict[str, str]) -> None:
    """Let foreign keys do something else than they say."""
    original = registry.effect_of

    def effect_of(*args: Any) -> str:
        effect = original(*args)
        return other.get(effect, effect)

    for module in (registry, fates):
        patch.setattr(module, "effect_of", effect_of)


@plant("a deleted parent is not kept for its children")
def parent_not_kept(patch: Patch) -> None:
    patch.setattr(Fates, "_kept_by", lambda self, living: set())


@plant("RESTRICT lets children fall, as CASCADE does")
def restrict_cascades(patch: Patch) -> None:
    let_effects_be(patch, {KEEP: FALL})


@plant("CASCADE keeps the parent, as RESTRICT does")
def cascade_restricts(patch: Patch) -> None:
    let_effects_be(patch, {FALL: KEEP})


@plant("SET NULL lets children fall, as CASCADE does")
def set_null_cascades(patch: Patch) -> None:
    let_effects_be(patch, {CLEAR: FALL})


@plant("dead rows keep each other")
def dead_keep_each_other(patch: Patch) -> None:
    patch.setattr(Fates, "_is_living", lambda self, work, living: True)


@plant("a cascade does not keep the row above for the one below")
def chains_break(patch: Patch) -> None:
    def around(original: Any, self: Fates, living: Any) -> Any:
        above, self._above = self._above, defaultdict(list)
        try:
            return original(self, living)
        finally:
            self._above = above

    wrap(patch, Fates, "_kept_by", around)


@plant("a cascade does not see that the parent was created again")
def cascade_ignores_creations(patch: Patch) -> None:
    patch.setattr(RowState, "dead", property(lambda state: state.died is not None))


@plant("a kept parent stays when its last child has gone")
def kept_for_ever(patch: Patch) -> None:
    patch.setattr(fates, "_let_go", fates._keep)


@plant("a kept parent stands with the defaults")
def kept_without_values(patch: Patch) -> None:
    patch.setattr(RowState, "values_kept", lambda state: {})


@plant("a kept parent does not take what was written after its deletion")
def kept_as_it_was(patch: Patch) -> None:
    def values(state: RowState) -> dict[str, Any]:
        return {name: value for name, (_, value) in state.buried.items() if name}

    patch.setattr(RowState, "values_kept", values)


@plant("what a device deletes itself is not remembered")
def own_deletions_not_buried(patch: Patch) -> None:
    patch.setattr(statements, "record", _without_what_was(statements.record))
    for module in (capture, comparing):
        patch.setattr(module, "record", statements.record)


def _without_what_was(record: Any) -> Any:
    def recorded(tracked: Any, operation: str, pk: str, values: Any) -> Any:
        return record(tracked, operation, pk, None if operation == DELETE else values)

    return recorded


@plant("the value of a cleared reference is lost")
def cleared_is_lost(patch: Patch) -> None:
    def around(original: Any, edge: Any) -> None:
        original(edge)
        edge.child.state.cleared.clear()

    wrap(patch, fates, "_clear", around)


@plant("a cleared reference does not come back", seed=5)
def cleared_for_ever(patch: Patch) -> None:
    patch.setattr(Fates, "_restore", lambda self, present: None)


@plant("a cleared reference is taken for what was written (found by seed 60)", out_of_reach=True)
def cleared_is_written(patch: Patch) -> None:
    def around(original: Any, state: RowState, *rest: Any, **options: Any) -> Any:
        cleared, state.cleared = state.cleared, {}
        try:
            return original(state, *rest, **options)
        finally:
            state.cleared = cleared

    wrap(patch, reconcile, "merge", around)
    for module in (applier, folding):
        patch.setattr(module, "merge", reconcile.merge)


@plant("a kept row that is created again goes on holding (found by seed 300)")
def revived_holds(patch: Patch) -> None:
    def around(original: Any, work: Work, *, recreated: bool) -> Work:
        held = dict(work.state.held)
        done: Work = original(work, recreated=recreated)
        if done.in_table and done.state.alive:
            done.state.held |= held
        return done

    wrap(patch, applier, "prepared", around)


# -- unique values --------------------------------------------------------------------------


@plant("a unique value belongs to whoever came first")
def unique_by_arrival(patch: Patch) -> None:
    patch.setattr(claims, "_age", lambda work: (not work.in_table, work.pk))


@plant("a unique value belongs to the younger row")
def unique_to_the_younger(patch: Patch) -> None:
    wrap(
        patch,
        claims,
        "_age",
        lambda original, work: (work.state.kept, -work.state.age.ticks, work.pk),
    )


@plant("only the database minds unique values")
def unique_by_the_database(patch: Patch) -> None:
    patch.setattr(Claims, "decide", lambda self: None)


@plant("a kept row takes unique values from alive ones", seed=8)
def kept_claims_first(patch: Patch) -> None:
    patch.setattr(claims, "_age", lambda work: (not work.state.kept, work.state.age, work.pk))


@plant("a NULL is as good as another", seed=5)
def null_is_a_value(patch: Patch) -> None:
    def said(self: Claims, unique: Unique, works: Any, values: Any) -> dict[str, tuple[str, ...]]:
        return {
            work.pk: tuple(
                dumps(claims._value(work, values[work.pk], column.name))
                for column in unique.columns
            )
            for work in works
        }

    patch.setattr(Claims, "_claims", said)


@plant("unique values cannot be passed on among rows", out_of_reach=True)
def no_passing_on(patch: Patch) -> None:
    patch.setattr(Placement, "_vacate", lambda self, works: None)
    patch.setattr(applier.Applier, "_waiting_again", lambda self, works: {})


# -- the order of things, and what does not fit -----------------------------------------------


@plant("rows that refer to each other cannot leave")
def circles_stay(patch: Patch) -> None:
    patch.setattr(Placement, "_blank", lambda self, works, which: None)


@plant("a key with another number of parts ends the pull (found by seed 49)", out_of_reach=True)
def strange_keys_throw(patch: Patch) -> None:
    def key_part(self: Work, name: str) -> Any:
        for index, column in enumerate(self.tracked.key):
            if column.name == name:
                return self.key[index] if len(self.tracked.key) > 1 else self.key
        return None

    patch.setattr(Work, "key_part", key_part)


@plant("values that waited for a column never come into it")
def never_released(patch: Patch) -> None:
    patch.setattr(Applier, "release_held", lambda self: None)


@plant("what triggers noted of rules is read as a model names them", seed=2)
def rules_as_named(patch: Patch) -> None:
    original = Shape.__init__

    def init(self: Shape, of: Any, tracked: Any, names: Any) -> None:
        original(self, of, tracked, names)
        self._ruled = [(name, self._converter(name)) for name in names[3]]

    patch.setattr(Shape, "__init__", init)
