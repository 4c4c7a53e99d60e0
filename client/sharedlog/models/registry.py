"""All tracked models of one `Sync`: which they are, what identifies their rows, how they relate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import peewee

from ..changes import FIRST_SCHEMA
from ..errors import AutoIncrementKey, ConfigurationError, NotASyncModel
from ..evolution.evolution import Evolution, Upgrader
from ..limits import Limits
from .columns import TrackedColumn
from .declarations import declared_rules
from .naming import former_names
from .syncmodel import SyncModel
from .tracked import Tracked

ACTING = frozenset(("CASCADE", "SET NULL", "SET DEFAULT"))
"""What a foreign key may tell the database to do to children."""

RESTRICTING = frozenset(("", "NO ACTION", "RESTRICT"))
CLEARING = frozenset(("SET NULL", "SET DEFAULT"))

KEEP, FALL, CLEAR = "keep", "fall", "clear"
"""What a parent's deletion means for a child: it keeps the parent, it falls with it, or its
reference is taken out of the column."""


class Rule(NamedTuple):
    """A foreign key that tells the database to change `child` when `referred` changes."""

    child: Tracked
    column: TrackedColumn
    referred: TrackedColumn
    on_delete: str
    on_update: str


Place = tuple[str | None, str]
"""Where rows are: schema and table."""


class Registry:
    """All tracked models of one `Sync`, by model, by table, by collection."""

    def __init__(
        self,
        database: peewee.Database,
        models: Iterable[type[peewee.Model]],
        schema_version: int = FIRST_SCHEMA,
        upgraders: Mapping[int, Upgrader] | None = None,
    ) -> None:
        self._by_collection: dict[str, Tracked] = {}
        for model in _with_through_models(_checked(models)):
            tracked = Tracked(database, model, _key_of(model))
            tracked.rules = declared_rules(tracked)
            other = self._by_collection.setdefault(tracked.collection, tracked)
            if other.model is not model:
                raise ConfigurationError(
                    f"{other.model.__name__} and {model.__name__} both use the table "
                    f"{tracked.collection!r}; a collection is one table."
                )
        self._by_model: dict[Any, Tracked] = {tracked.model: tracked for tracked in self}
        self._by_table = {_place(tracked.model): tracked for tracked in self}
        self._check_numbers()
        models = [tracked.model for tracked in self]
        order = peewee.sort_models(models)  # type: ignore[attr-defined]
        self.in_order = [self._by_model[model] for model in order if model in self._by_model]
        self.names = former_names(self._by_model)
        """What older programs call the tables and their fields."""
        self.evolution = Evolution(self.names, schema_version, upgraders or {})
        self._outside = self._find_outside(database)
        self.rules = self._find_rules()
        """By parent: what the database does to children on its own."""
        self._find_buried()

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._by_collection.values())

    def __len__(self) -> int:
        return len(self._by_collection)

    def collection(self, name: str) -> Tracked | None:
        return self._by_collection.get(name)

    def model(self, model: Any) -> Tracked | None:
        return self._by_model.get(model)

    def table(self, table: Any) -> Tracked | None:
        """The tracked model of a write query's target: the model itself, its plain `Table`,
        or another model of the same table."""
        return self._by_model.get(table) or self._by_table.get(_place(table))

    def outside(self, table: Any) -> Tracked | None:
        """The same for a table that is not tracked, if what is done to its rows makes the
        database change tracked ones; with no more columns than it takes to tell which."""
        return self._outside.get(_place(table)) if self._outside else None

    @property
    def all_outside(self) -> Collection[Tracked]:
        return self._outside.values()

    def keep_within(self, limits: Limits) -> None:
        """Refuse changes that the service would not take."""
        for tracked in self:
            tracked.value_bytes = limits.value_bytes

    def children(self, parent: Tracked) -> list[tuple[Tracked, TrackedColumn]]:
        """The tracked foreign keys that point to a model."""
        return [
            (child, column)
            for child in self
            for column in child.parents
            if column.field.rel_model is parent.model
        ]

    def dependants(self, parent: Tracked) -> list[tuple[Tracked, TrackedColumn]]:
        """The tracked foreign keys that point to a model's key."""
        key = parent.key[0].field if len(parent.key) == 1 else None
        return [found for found in self.children(parent) if found[1].field.rel_field is key]

    def _check_numbers(self) -> None:
        """Refuse references to rows that each device numbers for itself: they arrive as
        references to other rows."""
        for tracked in self:
            for column in tracked.parents:
                field = column.field
                if isinstance(_target(field), peewee.AutoField) and not self.table(field.rel_model):
                    parent, key = field.rel_model.__name__, field.rel_field.name
                    raise AutoIncrementKey(
                        f"{column} refers to {parent}.{key}, which the database numbers: "
                        "on another device that is another row.",
                        hint=f"Make {parent} a SyncModel, and give {parent} to Sync, too. If its "
                        "rows are the same on all devices, say that nobody numbers them there: "
                        f"`{key} = IntegerField(primary_key=True)`.",
                    )

    def _find_buried(self) -> None:
        """Tables of which a deleted row may be needed: by a child that keeps it, by one that
        would fall with it and is needed itself, or by a later change."""
        for tracked in self:
            tracked.buries = tracked.update_wins
            tracked.final = not tracked.update_wins and not self.children(tracked)
        while fresh := [
            parent
            for parent in self
            if not parent.buries
            and any(
                effect_of(child, column) == KEEP
                or (effect_of(child, column) == FALL and child.buries)
                for child, column in self.dependants(parent)
            )
        ]:
            for parent in fresh:
                parent.buries = True

    def _find_outside(self, database: peewee.Database) -> dict[Place, Tracked]:
        """Up from the tracked tables, by the foreign keys that let the database act."""
        models = [tracked.model for tracked in self]
        referred: dict[Place, dict[str, peewee.Field]] = {}
        for model in models:  # which grows
            for field in model._meta.refs:
                place = _place(field.rel_model)
                if place in self._by_table or not _acts(field):
                    continue
                if place not in referred:
                    referred[place] = {}
                    models.append(field.rel_model)
                referred[place][field.rel_field.column_name] = field.rel_field
        outside = {}
        for model in models[len(self) :]:
            meta, fields = model._meta, referred[_place(model)]
            key = meta.get_primary_keys() or [*fields.values()]
            fields |= {field.column_name: field for field in meta.refs}
            for field in key:  # of which another model of the same table may have its own
                fields.pop(field.column_name, None)
            outside[_place(model)] = Tracked(database, model, key, fields.values())
        return outside

    def _find_rules(self) -> dict[Tracked, list[Rule]]:
        rules: dict[Tracked, list[Rule]] = defaultdict(list)
        for parent in self:
            for child, column in self.children(parent):
                field = column.field
                if field.rel_field not in parent.by_field:
                    raise AutoIncrementKey(
                        f"{column} refers to {parent.model.__name__}.{field.rel_field.name}, "
                        "which the database numbers: it is another number on each device.",
                        hint=f"Refer to what identifies a row of {parent.model.__name__}.",
                    )
                if on_update(column) in ACTING:
                    _check_followed(parent, child, column)
                if _acts(field):
                    rules[parent].append(_rule(child, column, parent))
        for child in (*self, *self.all_outside):
            for column in child.parents:
                above = self.outside(column.field.rel_model)
                if above is not None and _acts(column.field):
                    rules[above].append(_rule(child, column, above))
        return dict(rules)


def _place(table: Any) -> Place:
    """Of a model, or of its plain `Table`."""
    if isinstance(table, peewee.Table):
        return table._schema, table.__name__  # type: ignore[attr-defined]
    return table._meta.schema, table._meta.table_name


def _acts(field: Any) -> bool:
    """Whether a foreign key tells the database to do anything to the row that has it."""
    return not ACTING.isdisjoint(((field.on_delete or "").upper(), (field.on_update or "").upper()))


def _rule(child: Tracked, column: TrackedColumn, parent: Tracked) -> Rule:
    referred = parent.by_column[column.field.rel_field.column_name]
    return Rule(child, column, referred, on_delete(column), on_update(column))


def _check_followed(parent: Tracked, child: Tracked, column: TrackedColumn) -> None:
    """Refuse a merge rule for what a foreign key follows. What comes of a rule is no entry: each
    device writes it by itself, and what followed it here would not follow it elsewhere."""
    name = column.field.rel_field.name
    if name in parent.rules:
        referred, refers = parent.model.__name__, child.model.__name__
        raise ConfigurationError(
            f"{referred}.{name} has a merge rule, and {column} follows it by ON UPDATE "
            f"{on_update(column)}: what comes of the rule would change rows of {refers} that "
            "nobody changed.",
            hint=f"Remove {name!r} from `merge` in the Meta of {referred}, let {column} refer to "
            "another field, or leave out its on_update.",
        )


def on_delete(column: TrackedColumn) -> str:
    """What a foreign key says of a parent's deletion, in capitals; "" if nothing."""
    return (column.field.on_delete or "").upper()


def on_update(column: TrackedColumn) -> str:
    """What it says of another value in the field that it refers to."""
    return (column.field.on_update or "").upper()


def effect_of(child: Tracked, column: TrackedColumn) -> str:
    """What the deletion of the row that this foreign key refers to does: KEEP, FALL or CLEAR."""
    rule = on_delete(column)
    if rule in RESTRICTING:
        return KEEP
    return CLEAR if rule in CLEARING and child.can_clear(column) else FALL


def _checked(models: Any) -> list[type[peewee.Model]]:
    """The models, if that is what they are."""
    hint = "Give the model classes: Sync(database, [Note, Tag], …)."
    if isinstance(models, type | str) or not isinstance(models, Iterable):
        raise NotASyncModel("The models are not given as a list.", hint=hint)
    result = list(models)
    for model in result:
        if not (isinstance(model, type) and issubclass(model, peewee.Model)):
            raise NotASyncModel(f"{model!r} is not a model.", hint=hint)
    if not result:
        raise NotASyncModel("No models are given.", hint=hint)
    return result


def _with_through_models(models: list[type[peewee.Model]]) -> list[type[peewee.Model]]:
    """The models, and the through models of many-to-many fields between two of them."""
    result = list(dict.fromkeys(models))
    for model in models:
        for field in model._meta.manytomany.values():
            if field.rel_model in models and field.model in models:
                through = field.get_through_model()
                if through not in result:
                    result.append(through)
    return result


def _key_of(model: type[peewee.Model]) -> list[peewee.Field]:
    """The fields that identify a row on every device; an error says what to write instead."""
    meta = model._meta
    through = through_key(model)
    if through is not None:
        return through
    if not issubclass(model, SyncModel):
        raise NotASyncModel(
            f"{model.__name__} is not a SyncModel.",
            hint=f"Write `class {model.__name__}(SyncModel)` in place of its base class.",
        )
    if meta.primary_key is False:
        raise ConfigurationError(
            f"{model.__name__} has no primary key; rows without one cannot be told apart.",
            hint="Remove `primary_key = False` from its Meta.",
        )
    fields: list[peewee.Field] = list(meta.get_primary_keys())
    if not isinstance(getattr(meta, "update_wins", False), bool):
        raise ConfigurationError(
            f"{model.__name__}: update_wins is {meta.update_wins!r}; it is True or False.",  # type: ignore[attr-defined]
            hint="True lets a modification revive a row that was deleted before it.",
        )
    for field in fields:
        if isinstance(_target(field), peewee.AutoField):
            raise AutoIncrementKey(
                f"{model.__name__}.{field.name} is an auto-increment key: the database numbers "
                "rows 1, 2, 3, so two devices give the same number to different rows.",
                hint=f"Remove {field.name!r} from {model.__name__} (SyncModel brings a UUID key), "
                "or write `id = UUIDField(primary_key=True, default=uuid7)`.",
            )
    return fields


def _target(field: Any) -> Any:
    while isinstance(field, peewee.ForeignKeyField):
        field = field.rel_field
    return field


def through_key(model: type[peewee.Model]) -> list[peewee.Field] | None:
    """The two foreign keys of a through model that Peewee made: they identify the pair."""
    meta = model._meta
    references = list(meta.refs)
    if isinstance(meta.primary_key, peewee.AutoField) and len(meta.sorted_fields) == 3:
        pair = {field.name for field in references}
        unique = [set(names) for names, is_unique in _plain_indexes(meta.indexes) if is_unique]
        if len(references) == 2 and pair in unique and not issubclass(model, SyncModel):
            return references
    return None


def _plain_indexes(indexes: Iterable[Any]) -> list[tuple[tuple[str, ...], bool]]:
    return [index for index in indexes if isinstance(index, tuple) and len(index) == 2]
