"""The tracked models as a database file tells of them: for programs that do not have them.

`setup()` notes in the file what each model is: its key, its fields with their columns and kinds,
its references. From that, models are made that read and place rows as the application's own do.
What a note cannot hold (code of the application's own) is said in it, so nobody guesses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import peewee

from ..capture.comparing import enforces_foreign_keys
from ..changes import Wire, dumps, loads
from ..errors import NotSetUp
from ..exchange.pipeline import Pipeline
from ..journal.journal import Journal
from ..models.columns import Converted, TrackedColumn
from ..models.declarations import BUILT_IN
from ..models.registry import Registry
from ..models.syncmodel import SyncModel
from ..models.tracked import Tracked
from ..values.fields import codec_for

PREFIX = "table "
"""What the notes of tables are called in `sharedlog_state`, before the collection."""

APPLICATION = "application"
"""What the note of the rest is called."""

DECLARED = ("formerly", "formerly_table")
"""What is noted of a model's Meta as it is declared there (see `naming`)."""

OWN, OWN_JSON = "own", "own JSON"
"""Kinds of fields whose conversions are the application's own: what is stored travels as it is."""


def describe(journal: Journal, registry: Registry, pipeline: Pipeline) -> None:
    """Note what the models are, where it is not noted yet; inside the open transaction."""
    notes = {PREFIX + tracked.collection: _table(tracked) for tracked in registry}
    notes[APPLICATION] = {
        "foreign_keys": enforces_foreign_keys(journal.database),
        "serializer": pipeline.serializer is not None,
        "processors": bool(pipeline.pre_send or pipeline.post_receive),
        "schema": pipeline.evolution.schema,
        "upgraders": bool(pipeline.evolution.upgraders),
    }
    for key, note in notes.items():
        if journal.state(key) != (text := dumps(note)):
            journal.set_state(**{key: text})
    journal.forget_state(PREFIX + name for name in pipeline.evolution.names.tables)


def application(journal: Journal) -> Mapping[str, Any]:
    """What is noted of the application itself."""
    found: dict[str, Any] = loads(journal.state(APPLICATION) or "{}")
    return found


def models_of(journal: Journal) -> list[type[SyncModel]]:
    """Models like the application's, from what is noted in the file."""
    notes = dict(_notes(journal))
    if not notes:
        raise NotSetUp(
            "The file does not say which tables are tracked.",
            hint="Run the application once: its setup() notes it.",
        )
    # A table that was given up and dropped is in the file no more.
    gone = gone_tables(journal)
    notes = {name: note for name, note in notes.items() if name not in gone}
    if not notes:
        raise NotSetUp(
            f"All tables that the file tells of are gone from it: {', '.join(gone)}.",
            hint="If a migration renamed them: run the application once, as it is after that; "
            "its setup() notes the tables of today.",
        )
    models = {collection: _model(collection, note) for collection, note in notes.items()}
    _refer(models, notes)
    return list(models.values())


def gone_tables(journal: Journal) -> list[str]:
    """Those that the file tells of and does not have: given up, or altered by a migration that no
    program was started after."""
    exists = journal.database.table_exists
    return [name for name, note in _notes(journal) if not exists(name, note["schema"])]


# -- notes -------------------------------------------------------------------------------


def own_rules(journal: Journal) -> list[str]:
    """The merge rules that are the application's own functions."""
    return sorted(
        {
            rule
            for _, note in _notes(journal)
            for rule in note.get("rules", {}).values()
            if rule not in BUILT_IN
        }
    )


def _notes(journal: Journal) -> list[tuple[str, dict[str, Any]]]:
    """What is noted of the tables, by collection."""
    found = journal.run(
        "SELECT substr(key, ?), value FROM sharedlog_state WHERE substr(key, 1, ?) = ? "
        "ORDER BY key",
        (len(PREFIX) + 1, len(PREFIX), PREFIX),
    ).fetchall()
    return [(collection, loads(text)) for collection, text in found]


def _table(tracked: Tracked) -> dict[str, Any]:
    return {
        "model": tracked.model.__name__,
        "schema": tracked.model._meta.schema,
        "key": [column.name for column in tracked.key],
        "fields": {column.name: _field(tracked, column) for column in tracked.every},
        "update_wins": tracked.update_wins,
        **({"rules": rules} if (rules := _rules(tracked)) else {}),
        **{name: getattr(tracked.model._meta, name, ()) for name in DECLARED},
    }


def _rules(tracked: Tracked) -> dict[str, str]:
    return {name: rule.name for name, rule in tracked.rules.items()}


def _field(tracked: Tracked, column: TrackedColumn) -> dict[str, Any]:
    field = column.field
    note = {"column": field.column_name, "kind": _kind(field), "null": field.null}
    if column.name in tracked.by_name:
        note["default"] = tracked.default_wire(column.name)
    if isinstance(field, peewee.ForeignKeyField):
        meta = field.rel_model._meta
        note["to"] = {
            "table": meta.table_name,
            "schema": meta.schema,
            "field": field.rel_field.name,
            "column": field.rel_field.column_name,
        }
        note["on_delete"], note["on_update"] = field.on_delete, field.on_update
    return note


def _kind(field: Any) -> str:
    """The name of Peewee's class that converts as this field does."""
    while isinstance(field, peewee.ForeignKeyField):
        field = field.rel_field
    if codec_for(field).own:
        return OWN
    if isinstance(field, peewee.JSONField) and (
        field._dumps is not json.dumps or field._loads is not json.loads  # type: ignore[attr-defined]
    ):
        return OWN_JSON
    return next(c.__name__ for c in type(field).__mro__ if c.__module__ == peewee.__name__)


# -- models ------------------------------------------------------------------------------


def _model(collection: str, note: Mapping[str, Any]) -> type[SyncModel]:
    """A model without its references."""
    key = note["key"]
    meta: dict[str, Any] = {"table_name": collection, "schema": note["schema"]}
    rules = note.get("rules", {}).items()
    meta["merge"] = {name: BUILT_IN[rule]() for name, rule in rules if rule in BUILT_IN}
    meta |= {name: note[name] for name in ("update_wins", *DECLARED) if note[name]}
    if len(key) > 1:
        meta["primary_key"] = peewee.CompositeKey(*key)
    fields = {
        name: _plain_field(field, primary_key=key == [name])
        for name, field in note["fields"].items()
        if "to" not in field
    }
    return type(note["model"], (SyncModel,), {**fields, "Meta": type("Meta", (), meta)})


def _plain_field(note: Mapping[str, Any], **options: Any) -> peewee.Field:
    options |= {"column_name": note["column"], "null": note["null"]}
    kind = note["kind"]
    if kind == OWN_JSON:
        field: peewee.Field = peewee.JSONField(dumps=dumps, loads=loads, **options)
    else:
        field = (peewee.Field if kind == OWN else getattr(peewee, kind))(**options)
    field.default = _default(note.get("default"))
    return field


def _default(wire: Wire) -> Any:
    """A default of which only the wire form is known, and only that is asked for."""
    if wire is None:
        return None
    default = Converted(None)
    default.wire = wire
    return default


def _refer(models: Mapping[str, type[SyncModel]], notes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the references, those first to which others refer."""
    waiting = list(_references(models, notes))
    parents: dict[tuple[Any, ...], Any] = {}
    while waiting:
        rest = []
        for model, name, note, is_key in waiting:
            parent = models.get(note["to"]["table"]) or _untracked(note, parents)
            if note["to"]["field"] not in parent._meta.fields:
                rest.append((model, name, note, is_key))
                continue
            field = _reference(parent, note, primary_key=is_key)
            if is_key:
                model._meta.remove_field("id")  # a SyncModel has it where no key is named
                model._meta.set_primary_key(name, field)
            else:
                model._meta.add_field(name, field)
        if len(rest) == len(waiting):
            raise NotSetUp(f"The file does not say what {rest[0][1]!r} refers to.")
        waiting = rest


def _references(
    models: Mapping[str, type[SyncModel]], notes: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[type[SyncModel], str, Mapping[str, Any], bool]]:
    for collection, note in notes.items():
        for name, field in note["fields"].items():
            if "to" in field:
                yield models[collection], name, field, note["key"] == [name]


def _reference(parent: Any, note: Mapping[str, Any], **options: Any) -> Any:
    field = peewee.ForeignKeyField(
        parent,
        field=note["to"]["field"],
        backref="+",
        column_name=note["column"],
        null=note["null"],
        on_delete=note["on_delete"],
        on_update=note["on_update"],
        **options,
    )
    field.default = _default(note.get("default"))
    return field


def _untracked(note: Mapping[str, Any], known: dict[tuple[Any, ...], Any]) -> Any:
    """A model of a table that is not tracked: no more of it than what is referred to."""
    to = note["to"]
    identity = (to["schema"], to["table"], to["field"])
    if identity not in known:
        field = _plain_field({**note, "column": to["column"]}, unique=True)
        meta = {"table_name": to["table"], "schema": to["schema"], "primary_key": False}
        body = {to["field"]: field, "Meta": type("Meta", (), meta)}
        known[identity] = type("Untracked", (peewee.Model,), body)
    return known[identity]
